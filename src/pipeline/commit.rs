//! The committer: a thread that writes one transaction while the coordinator computes the next batch.

use super::engine::Computed;
use crate::clock::unix_ms;
use crate::events::Events;
use crate::transport::{Position, Sink, TransportError};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A computed batch with how far the source was read for it.
pub struct Batch {
    pub epoch: u64,
    pub computed: Computed,
    pub positions: Vec<Position>,
    /// Timestamps of the records, for the latency.
    pub timestamps_ms: Vec<u64>,
}

/// At most one transaction is under way.
pub struct Committer {
    batches: SyncSender<Batch>,
    results: Receiver<Result<u64, TransportError>>,
    thread: JoinHandle<()>,
    in_flight: bool,
}

impl Committer {
    pub fn start(mut sink: Box<dyn Sink>, events: Events) -> std::io::Result<Committer> {
        let (batches, receive) = sync_channel::<Batch>(1);
        let (answer, results) = sync_channel(1);
        let run = move || {
            while let Ok(batch) = receive.recv() {
                let result = commit(sink.as_mut(), batch, &events);
                if answer.send(result).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("committer".to_string()).spawn(run)?;
        Ok(Committer { batches, results, thread, in_flight: false })
    }

    /// Begins a transaction. The one before must have been settled.
    pub fn submit(&mut self, batch: Batch) -> Result<(), TransportError> {
        assert!(!self.in_flight, "one transaction at a time");
        self.batches.send(batch).map_err(|_| gone())?;
        self.in_flight = true;
        Ok(())
    }

    /// The epoch that was committed, if the transaction under way ends within `wait`; `None` if it goes on (or there
    /// is none, which [`Committer::in_flight`] tells).
    pub fn settle(&mut self, wait: Duration) -> Result<Option<u64>, TransportError> {
        if !self.in_flight {
            return Ok(None);
        }
        let result = if wait.is_zero() {
            self.results.try_recv().map_err(|e| e == TryRecvError::Disconnected)
        } else {
            self.results.recv_timeout(wait).map_err(|e| e == RecvTimeoutError::Disconnected)
        };
        match result {
            Err(true) => Err(gone()),
            Err(false) => Ok(None),
            Ok(result) => {
                self.in_flight = false;
                result.map(Some)
            }
        }
    }

    pub fn in_flight(&self) -> bool {
        self.in_flight
    }

    pub fn stop(self) {
        drop(self.batches);
        drop(self.results);
        // A panic of the thread was reported when its answer was missing.
        let _ = self.thread.join();
    }
}

fn gone() -> TransportError {
    TransportError::Fatal("the committer's thread ended unexpectedly; this is a defect".to_string())
}

fn commit(sink: &mut dyn Sink, batch: Batch, events: &Events) -> Result<u64, TransportError> {
    let start = Instant::now();
    let Computed { outputs, states, letters, tallies } = batch.computed;
    let rejected: Vec<_> = letters.iter().map(|letter| (letter.code, letter.detail.clone())).collect();
    let origins: Vec<_> = letters.iter().map(|letter| letter.record.origin.clone()).collect();
    let result = sink
        .begin()
        .and_then(|()| sink.outputs(outputs))
        .and_then(|()| sink.states(states))
        .and_then(|()| sink.dead_letters(letters))
        .and_then(|()| sink.commit(batch.positions));
    match result {
        Ok(()) => {
            events.committed(tallies, &batch.timestamps_ms, unix_ms(), start.elapsed());
            for (origin, (code, detail)) in origins.into_iter().zip(rejected) {
                events.rejected(&origin, code, &detail);
            }
            Ok(batch.epoch)
        }
        Err(error) => {
            tallies.into_iter().for_each(crate::events::Tally::discard);
            // The first error is what matters; if aborting fails too, the transaction was never committed either way.
            match sink.abort() {
                Err(TransportError::Fatal(cause)) => Err(TransportError::Fatal(cause)),
                _ => Err(error),
            }
        }
    }
}
