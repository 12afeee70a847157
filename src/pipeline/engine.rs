//! The engine threads as the coordinator sees them: scatter a batch by stream, gather what it leads to.

use super::decode::{Decoder, stream_of};
use super::labelling::{Job, Labeller, Outcome};
use super::residents::Residents;
use super::runtime::Runtime;
use super::shard::{Answer, Holds, Reply, Shard, Work};
use super::tagger::{Tagger, Taggers};
use crate::config::{InputConfig, PipelineConfig, StateConfig};
use crate::encode::InputFormat;
use crate::events::{Events, Tally};
use crate::inbox::Inbox;
use crate::model::Model;
use crate::state::{States, StreamId};
use crate::transport::{DeadLetter, OutputRecord, RawRecord, StateChange, TransportError};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

/// A batch, computed. The states that it has changed are collected once they are needed: [`Engine::collect`].
#[derive(Default)]
pub struct Computed {
    pub outputs: Vec<OutputRecord>,
    pub letters: Vec<DeadLetter>,
    pub tallies: Vec<Tally>,
}

/// So many are under way at most: one computed, and one that waits so that no shard need wait for another, or for the source.
const BATCHES: usize = 2;

pub struct Engine {
    shards: Vec<SyncSender<Work>>,
    replies: Inbox<Reply>,
    threads: Vec<JoinHandle<()>>,
    /// What each shard has in memory, as it last said.
    holds: Vec<Holds>,
    /// What the shards have in hand, oldest first.
    begun: VecDeque<Begun>,
    events: Events,
}

/// A batch that shards compute.
struct Begun {
    epoch: u64,
    /// So many shards have not answered.
    asked: usize,
    computed: Computed,
    error: Option<TransportError>,
}

/// What the engine is made of.
pub struct Parts<'a> {
    pub model: Arc<Model>,
    /// The model before it, and how its pieces are read: its live streams go on with it until they end.
    pub previous: Option<(Arc<Model>, InputFormat)>,
    pub states: Arc<dyn States>,
    pub events: Events,
    pub input: &'a InputConfig,
    /// How pieces are read and, with `input.format = "json"`, where they are: [`InputConfig::resolve`].
    pub format: (InputFormat, Option<String>),
    pub pipeline: &'a PipelineConfig,
    pub state: &'a StateConfig,
    pub runtime: Arc<dyn Runtime>,
}

impl Engine {
    pub fn start(parts: &Parts<'_>, replays: bool) -> std::io::Result<Engine> {
        let count = match parts.pipeline.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let (format, pointer) = parts.format.clone();
        let tagger = |model: &Arc<Model>, format| Arc::new(Tagger::new(model.clone(), format, &parts.events));
        let taggers = Taggers {
            current: tagger(&parts.model, format),
            previous: parts.previous.as_ref().map(|(model, format)| tagger(model, *format)),
            precision: parts.state.precision,
        };
        let decoder = Decoder { max_record_bytes: parts.input.max_record_bytes.len(), pointer };
        let (reply_to, replies) = sync_channel(BATCHES * count);
        let replies = Inbox::new(replies);
        let (mut shards, mut threads) = (Vec::new(), Vec::new());
        for index in 0..count {
            let (taggers, events) = (taggers.clone(), parts.events.clone());
            let (max_streams, max_bytes) = (parts.state.max_resident, parts.state.memory.len());
            let (states, decoder) = (parts.states.clone(), decoder.clone());
            let (sender, work) = sync_channel(BATCHES);
            let reply_to = reply_to.clone();
            let run = move || {
                let labeller = Labeller::new(&taggers, decoder, replays, events.clone());
                let residents = Residents::new(max_streams.div_ceil(count), max_bytes / count);
                Shard { index, taggers, labeller, residents, states, events }.run(&Inbox::new(work), &reply_to);
            };
            threads.push(std::thread::Builder::new().name(format!("engine-{index}")).spawn(run)?);
            shards.push(sender);
        }
        let (holds, begun) = (vec![Holds::default(); count], VecDeque::new());
        Ok(Engine { shards, replies, threads, holds, begun, events: parts.events.clone() })
    }

    /// Has `records` labelled, and the streams of `idle` ended where their last record came before the given time; `now_ms`
    /// is written down as the streams' last activity. Returns at once. `committed` is the last batch that is committed.
    pub fn begin(
        &mut self,
        [epoch, committed]: [u64; 2],
        now_ms: u64,
        records: Vec<RawRecord>,
        idle: Vec<(StreamId, u64)>,
    ) -> Result<(), TransportError> {
        let mut letters = Vec::new();
        let mut shares: Vec<Vec<(StreamId, Job)>> = self.shards.iter().map(|_| Vec::new()).collect();
        for record in records {
            match stream_of(record) {
                Ok((stream, raw)) => shares[shard_of(&stream, self.shards.len())].push((stream, Job::Record(raw))),
                Err(letter) => letters.push(*letter),
            }
        }
        for (stream, before_ms) in idle {
            shares[shard_of(&stream, self.shards.len())].push((stream, Job::EndIdle { before_ms }));
        }
        let computed = Computed { outputs: Vec::new(), letters, tallies: Vec::new() };
        let mut begun = Begun { epoch, asked: 0, computed, error: None };
        for (shard, jobs) in self.shards.iter().zip(shares).filter(|(_, jobs)| !jobs.is_empty()) {
            shard.send(Work::Batch { epoch, committed, now_ms, jobs }).map_err(|_| gone())?;
            begun.asked += 1;
        }
        self.begun.push_back(begun);
        Ok(())
    }

    /// What the first of the batches that were begun leads to, once it is computed; the next one goes on meanwhile.
    ///
    /// # Errors
    /// If a state could not be read; nothing of the batches begun after it may count either.
    pub fn finish(&mut self) -> Result<Computed, TransportError> {
        while self.begun.front().is_some_and(|first| first.asked > 0) {
            self.hear()?;
        }
        let Some(Begun { mut computed, error, .. }) = self.begun.pop_front() else { return Ok(Computed::default()) };
        let (streams, bytes) = self.holds.iter().fold((0, 0), |sum, one| (sum.0 + one.streams, sum.1 + one.bytes));
        self.events.residents(streams, bytes);
        // In the order in which the records came, whatever shard was first.
        computed.outputs.sort_by(|a, b| (&a.input.origin, &a.stream, a.seq).cmp(&(&b.input.origin, &b.stream, b.seq)));
        computed.letters.sort_by(|a, b| a.record.origin.cmp(&b.record.origin));
        match error {
            None => Ok(computed),
            Some(error) => {
                computed.discard();
                Err(error)
            }
        }
    }

    /// Waits for what was begun; nothing of it counts.
    pub fn abandon(&mut self) -> Result<(), TransportError> {
        while self.begun.iter().any(|begun| begun.asked > 0) {
            self.hear()?;
        }
        self.begun.drain(..).for_each(|begun| begun.computed.discard());
        Ok(())
    }

    /// Waits for one shard's share of a batch.
    fn hear(&mut self) -> Result<(), TransportError> {
        let Reply { shard, answer: Answer::Labelled { epoch, outcome, holds } } = self.reply()? else {
            return Err(gone());
        };
        self.holds[shard] = holds;
        let Some(begun) = self.begun.iter_mut().find(|begun| begun.epoch == epoch) else { return Err(gone()) };
        begun.asked -= 1;
        match *outcome {
            Ok(Outcome { outputs, letters, tally }) => {
                begun.computed.outputs.extend(outputs);
                begun.computed.letters.extend(letters);
                begun.computed.tallies.push(tally);
            }
            Err(cause) => begun.error = Some(TransportError::Transient(cause.to_string())),
        }
        Ok(())
    }

    /// The states that all batches since the last call have changed, in the order of their streams. None may be under way.
    pub fn collect(&mut self) -> Result<Vec<StateChange>, TransportError> {
        for shard in &self.shards {
            shard.send(Work::Collect).map_err(|_| gone())?;
        }
        let mut states = Vec::new();
        for _ in &self.shards {
            let Reply { shard, answer: Answer::Collected(changed) } = self.reply()? else { return Err(gone()) };
            self.holds[shard].fresh_bytes = 0;
            states.extend(changed);
        }
        states.sort_by(|a, b| a.stream.cmp(&b.stream));
        Ok(states)
    }

    /// Bytes of the states that [`Engine::collect`] would give, about.
    pub fn fresh_bytes(&self) -> usize {
        self.holds.iter().map(|holds| holds.fresh_bytes).sum()
    }

    /// An answer, noticing a thread that died (a defect: threads end only when the engine stops).
    fn reply(&self) -> Result<Reply, TransportError> {
        loop {
            match self.replies.receive_within(std::time::Duration::from_millis(500)) {
                Ok(reply) => return Ok(reply),
                Err(_) if self.threads.iter().any(JoinHandle::is_finished) => return Err(gone()),
                Err(_) => {}
            }
        }
    }

    /// Drops the sessions of these partitions, or all: they are read back from the committed states when they are next
    /// needed.
    pub fn forget(&self, partitions: Option<Vec<i32>>) -> Result<(), TransportError> {
        let forget = |shard: &SyncSender<Work>| shard.send(Work::Forget(partitions.clone())).map_err(|_| gone());
        self.shards.iter().try_for_each(forget)
    }

    /// Ends the threads.
    pub fn stop(self) {
        drop(self.shards);
        for thread in self.threads {
            // A panic of the thread was reported when its answer was missing.
            let _ = thread.join();
        }
    }
}

impl Computed {
    /// Bytes of outputs.
    pub fn bytes(&self) -> usize {
        self.outputs.iter().map(|output| output.value.len()).sum()
    }

    /// The batch is not committed: nothing of it counts.
    pub fn discard(self) {
        self.tallies.into_iter().for_each(Tally::discard);
    }
}

fn gone() -> TransportError {
    TransportError::Fatal("an engine thread ended unexpectedly (see the message above); this is a defect".to_string())
}

fn shard_of(stream: &StreamId, shards: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    stream.hash(&mut hasher);
    (hasher.finish() % shards as u64) as usize
}
