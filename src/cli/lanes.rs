//! Labels the pieces of many streams on several threads, many streams a step, with the results in the order of input.
//!
//! A *lane* is a stream with its session and its pieces in waiting. A thread takes the front pieces of up to
//! [`BATCH_STREAMS`] lanes, runs them through the network together and puts the lanes back. What a stream yields does
//! not depend on who was in the batch, so neither threads nor batch size show in the results.
//!
//! What is in flight (read, but not yet given to the sink) is bounded by [`MAX_IN_FLIGHT`]; the reader waits then.

use super::pieces::{Payload, Piece};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use strand::encode::InputError;
use strand::model::{Model, Output, Session, Stepper};

/// The most streams that are stepped together. The network takes them by length, so that of many short ones few are ever
/// alone at their end.
const BATCH_STREAMS: usize = 512;
/// The most that may be in flight, as [`Piece::weight`] counts it.
const MAX_IN_FLIGHT: usize = 1 << 20;

/// What is made of each piece's labels, on the labelling threads.
pub trait Handler: Send + Sync + 'static {
    /// What a stream carries from piece to piece besides its session.
    type Carried: Default + Send;
    type Result: Send;

    /// The labels that became final with `piece`.
    fn labelled(&self, carried: &mut Self::Carried, piece: Piece, output: Output) -> Self::Result;
}

impl<H: Handler> Handler for Arc<H> {
    type Carried = H::Carried;
    type Result = H::Result;

    fn labelled(&self, carried: &mut H::Carried, piece: Piece, output: Output) -> H::Result {
        (**self).labelled(carried, piece, output)
    }
}

struct Lane<C> {
    /// Absent while a thread works on it.
    state: Option<(Session, C)>,
    waiting: VecDeque<(u64, Piece)>,
}

struct Board<H: Handler> {
    lanes: HashMap<u64, Lane<H::Carried>>,
    /// Lanes with a piece in waiting that nobody works on.
    ready: VecDeque<u64>,
    results: BTreeMap<u64, (usize, anyhow::Result<H::Result>)>,
    /// Pieces read and pieces given to the sink.
    read: u64,
    given: u64,
    in_flight: usize,
    input_over: bool,
    stopped: bool,
}

struct Shared<H: Handler> {
    board: Mutex<Board<H>>,
    work: Condvar,
    done: Condvar,
    room: Condvar,
    model: Arc<Model>,
    handler: H,
    threads: usize,
}

impl<H: Handler> Shared<H> {
    fn lock(&self) -> MutexGuard<'_, Board<H>> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.work.notify_all();
        self.done.notify_all();
        self.room.notify_all();
    }
}

/// Stops everything when a thread panics, so that none waits for ever.
struct StopOnPanic<H: Handler>(Arc<Shared<H>>);

impl<H: Handler> Drop for StopOnPanic<H> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

/// Labels all `pieces`; `sink` gets each piece's result in the order of the pieces, and whether it is the last one at
/// hand (the moment to flush).
///
/// The first error, of a piece or of the sink, ends it: results before it have reached the sink.
pub fn label_all<H: Handler>(
    model: &Arc<Model>,
    threads: usize,
    pieces: impl Iterator<Item = anyhow::Result<Piece>> + Send + 'static,
    handler: H,
    mut sink: impl FnMut(H::Result, bool) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let board = Board {
        lanes: HashMap::new(),
        ready: VecDeque::new(),
        results: BTreeMap::new(),
        read: 0,
        given: 0,
        in_flight: 0,
        input_over: false,
        stopped: false,
    };
    let shared = Arc::new(Shared {
        board: Mutex::new(board),
        work: Condvar::new(),
        done: Condvar::new(),
        room: Condvar::new(),
        model: model.clone(),
        handler,
        threads: threads.max(1),
    });
    let mut workers = Vec::new();
    for _ in 0..shared.threads {
        let guard = StopOnPanic(shared.clone());
        workers.push(std::thread::spawn(move || work(&guard.0)));
    }
    // Not joined: it may wait for input that never comes.
    let guard = StopOnPanic(shared.clone());
    std::thread::spawn(move || read(&guard.0, pieces));

    let result = drain(&shared, &mut sink);
    shared.stop();
    for worker in workers {
        if let Err(panic) = worker.join() {
            std::panic::resume_unwind(panic);
        }
    }
    result
}

/// Puts the pieces on the board as they come.
fn read<H: Handler>(shared: &Shared<H>, pieces: impl Iterator<Item = anyhow::Result<Piece>>) {
    for piece in pieces {
        let mut board = shared.lock();
        while board.in_flight >= MAX_IN_FLIGHT && !board.stopped {
            board = shared.room.wait(board).unwrap_or_else(PoisonError::into_inner);
        }
        if board.stopped {
            return;
        }
        let order = board.read;
        board.read += 1;
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                board.results.insert(order, (0, Err(error)));
                break;
            }
        };
        let id = piece.stream.number;
        board.in_flight += piece.weight();
        let lane = board.lanes.entry(id).or_insert_with(|| Lane {
            state: Some((Session::new(&shared.model), H::Carried::default())),
            waiting: VecDeque::new(),
        });
        lane.waiting.push_back((order, piece));
        if lane.waiting.len() == 1 && lane.state.is_some() {
            board.ready.push_back(id);
            shared.work.notify_one();
        }
    }
    shared.lock().input_over = true;
    shared.work.notify_all();
    shared.done.notify_all();
}

/// Gives results to the sink in order until all are given.
fn drain<H: Handler>(
    shared: &Shared<H>,
    sink: &mut impl FnMut(H::Result, bool) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut board = shared.lock();
    loop {
        let mut at_hand = Vec::new();
        while let Some((weight, result)) = {
            let next = board.given;
            board.results.remove(&next)
        } {
            board.given += 1;
            board.in_flight -= weight;
            at_hand.push(result);
        }
        if at_hand.is_empty() {
            if board.stopped || (board.input_over && board.given == board.read) {
                return Ok(());
            }
            board = shared.done.wait(board).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        drop(board);
        shared.room.notify_all();
        let last = at_hand.len() - 1;
        for (k, result) in at_hand.into_iter().enumerate() {
            sink(result?, k == last)?;
        }
        board = shared.lock();
    }
}

/// A piece in the hands of a thread.
struct Taken<C> {
    order: u64,
    piece: Piece,
    session: Session,
    carried: C,
    trouble: Option<InputError>,
}

/// Takes batches from the board until there will be no more.
fn work<H: Handler>(shared: &Shared<H>) {
    let mut stepper = Stepper::new(shared.model.clone());
    let mut board = shared.lock();
    loop {
        if board.stopped {
            return;
        }
        if board.ready.is_empty() {
            if board.input_over && board.lanes.values().all(|lane| lane.state.is_some()) {
                return;
            }
            board = shared.work.wait(board).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let share = board.ready.len().div_ceil(shared.threads).min(BATCH_STREAMS);
        let mut batch = Vec::with_capacity(share);
        while batch.len() < share
            && let Some(id) = board.ready.pop_front()
        {
            // A lane in `ready` has a piece and its state.
            let Some(lane) = board.lanes.get_mut(&id) else { continue };
            if let (Some((session, carried)), Some((order, piece))) = (lane.state.take(), lane.waiting.pop_front()) {
                batch.push(Taken { order, piece, session, carried, trouble: None });
            }
        }
        // The other threads have nothing to do while there is only this stream.
        stepper.spread(if board.lanes.len() == 1 { shared.threads } else { 1 });
        drop(board);
        let outputs = step(&shared.model, &mut stepper, &mut batch);
        let mut finished = Vec::with_capacity(batch.len());
        for (mut taken, output) in batch.into_iter().zip(outputs) {
            let (id, ends, weight) = (taken.piece.stream.number, taken.piece.ends, taken.piece.weight());
            let result = match taken.trouble {
                Some(error) => Err(taken.piece.place.error(error)),
                None => Ok(shared.handler.labelled(&mut taken.carried, taken.piece, output)),
            };
            finished.push((id, ends, taken.order, weight, result, taken.session, taken.carried));
        }
        board = shared.lock();
        for (id, ends, order, weight, result, session, carried) in finished {
            board.results.insert(order, (weight, result));
            let Board { lanes, ready, .. } = &mut *board;
            if ends {
                lanes.remove(&id);
            } else if let Some(lane) = lanes.get_mut(&id) {
                lane.state = Some((session, carried));
                if !lane.waiting.is_empty() {
                    ready.push_back(id);
                }
            }
        }
        shared.done.notify_all();
        shared.work.notify_all();
    }
}

/// Runs a batch through the network; the output of an ending stream has its last span, or its class.
fn push(model: &Model, session: &mut Session, payload: &Payload) -> Result<(), InputError> {
    if let Payload::OfClass(class, payload) = payload {
        session.set_class(model, class)?;
        return push(model, session, payload);
    }
    if !matches!(payload, Payload::Nothing) {
        session.check_class(model)?;
    }
    match payload {
        Payload::Bytes(format, bytes) => session.push(model, *format, bytes),
        Payload::Tokens(tokens) => {
            session.push_tokens(model, tokens);
            Ok(())
        }
        Payload::Nothing | Payload::OfClass(..) => Ok(()),
    }
}

fn step<C>(model: &Model, stepper: &mut Stepper, batch: &mut [Taken<C>]) -> Vec<Output> {
    for taken in &mut *batch {
        let pushed = push(model, &mut taken.session, &taken.piece.payload);
        let finished = if taken.piece.ends { taken.session.finish_unit(model) } else { Ok(()) };
        taken.trouble = pushed.and(finished).err();
    }
    let mut outputs: Vec<Output> = batch.iter().map(|_| Output::default()).collect();
    let mut sessions: Vec<&mut Session> = batch.iter_mut().map(|taken| &mut taken.session).collect();
    stepper.step(&mut sessions, &mut outputs);
    for (taken, output) in batch.iter_mut().zip(&mut outputs) {
        if taken.piece.ends {
            taken.session.conclude(model, output);
            output.spans.extend(taken.session.end());
        }
        taken.session.tell(model, output);
    }
    outputs
}
