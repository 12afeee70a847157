//! The pipeline: source → sessions → network → labels → one transaction.
//!
//! The coordinator (this file) polls batches from the source, has the [`engine`] compute them and the committer commit
//! them, several together if `pipeline.commit_interval` says so, or `pipeline.catch_up_interval` while there is a
//! [`backlog`]. While one transaction is being committed the next batch is computed, from states that are not committed
//! yet: when a commit fails, everything computed is dropped, the sessions are read back and the source goes back to what
//! was committed. Nothing here knows which transport it runs on, nor ([`runtime`]) what time it is.

mod ahead;
mod backlog;
mod batch;
mod decode;
mod engine;
mod labelling;
pub mod output;
mod residents;
mod runtime;
mod shard;
mod tagger;
#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use engine::Parts;
pub use runtime::{Commit, Committer, Runtime, System};

use crate::config::PipelineConfig;
use crate::events::Events;
use crate::health::Health;
use crate::shutdown::Shutdown;
use crate::state::{States, StreamId};
use crate::transport::{PollLimits, Polled, Source, Transport, TransportError};
use ahead::Ahead;
use backlog::Backlog;
use batch::Read;
use engine::Engine;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a poll waits for a record before it looks at shutdown and at streams to end.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// The same while there is a backlog: longer than it takes to get at records that are there.
const CATCH_UP_WAIT: Duration = Duration::from_millis(5);
/// When a commit takes longer than this, the source is paused.
const PAUSE_AFTER: Duration = Duration::from_millis(250);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// The coordinator. Runs on a thread of its own until its source ends, shutdown is requested, or a fatal error.
pub struct Pipeline {
    source: Box<dyn Source>,
    states: Arc<dyn States>,
    engine: Engine,
    committer: Box<dyn Committer>,
    /// A transaction is under way.
    in_flight: bool,
    runtime: Arc<dyn Runtime>,
    events: Events,
    health: Health,
    shutdown: Shutdown,
    config: PipelineConfig,
    /// Number of the batch that is computed next.
    epoch: u64,
    committed: u64,
    backlog: Backlog,
    ahead: Ahead,
    /// What the engine has in hand, oldest first: more than one batch only for a moment.
    begun: VecDeque<Begun>,
    /// Computed, and not handed to the committer yet: `pipeline.commit_interval` is not over.
    open: Option<Batch>,
    /// Bytes that each record of the last batch has led to, outputs and states; unknown before the first.
    record_bytes: Option<usize>,
    retry: Duration,
    sweep: Sweep,
    end_streams_at_end: bool,
}

/// A batch that is being computed.
struct Begun {
    epoch: u64,
    read: Read,
    since: Instant,
}

/// Looking for streams to end by `state.stream_ttl`, a page at a time.
struct Sweep {
    ttl: Option<Duration>,
    next: Instant,
    after: Option<StreamId>,
}

impl Pipeline {
    pub fn start(
        transport: Transport,
        parts: &Parts<'_>,
        health: Health,
        shutdown: Shutdown,
    ) -> std::io::Result<Pipeline> {
        let runtime = parts.runtime.clone();
        let commit = batch::committing(transport.sink, parts.events.clone(), runtime.clone());
        let sweep = Sweep { ttl: parts.state.stream_ttl.on(), next: runtime.now(), after: None };
        Ok(Pipeline {
            source: transport.source,
            states: transport.states,
            engine: Engine::start(parts, transport.replays)?,
            committer: runtime.committer(commit)?,
            in_flight: false,
            runtime,
            events: parts.events.clone(),
            health,
            shutdown,
            config: parts.pipeline.clone(),
            epoch: 1,
            committed: 0,
            backlog: Backlog::default(),
            ahead: Ahead::default(),
            begun: VecDeque::new(),
            open: None,
            record_bytes: None,
            retry: FIRST_RETRY,
            sweep,
            end_streams_at_end: transport.end_streams_at_end,
        })
    }

    /// Runs to the end; what was computed when shutdown is requested is still committed.
    pub fn run(mut self) -> Result<(), TransportError> {
        self.health.fine("pipeline");
        let result = self.work();
        self.engine.stop();
        result
    }

    fn work(&mut self) -> Result<(), TransportError> {
        while !self.shutdown.is_requested() {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => return self.finish(),
                Err(error) => self.recover(error)?,
            }
        }
        match self.submit().and_then(|()| self.settle()) {
            // What is not committed is still in the source, for the next run.
            Err(error) if !error.is_fatal() => {
                self.events.aborted(&error, Duration::ZERO);
                self.discard()
            }
            result => result,
        }
    }

    /// Polls one batch, has it computed, and hands what is due to the committer. As long as polls come back full, the next
    /// batch is polled while one is computed. False: the source has ended.
    fn turn(&mut self) -> Result<bool, TransportError> {
        self.note_settled(Duration::ZERO)?;
        // What is due goes on growing while the transaction before it is under way, as long as there are records.
        let busy = !self.begun.is_empty();
        let wait = match (busy || !self.ahead.is_empty(), self.backlog.lasts(self.runtime.now()).is_some()) {
            (true, _) => Duration::ZERO,
            (false, true) => CATCH_UP_WAIT,
            (false, false) => POLL_WAIT,
        };
        let limits = self.limits(wait.min(self.until_due()));
        match self.source.poll(&self.ahead.left(&limits))? {
            Polled::Records(records) => self.ahead.add(records, self.source.assignment()),
            // What was polled before, or waits to be committed, may have records of theirs.
            Polled::Lost(partitions) if busy || !self.ahead.is_empty() || self.open.is_some() => {
                return Err(TransportError::Reassigned(partitions));
            }
            Polled::Lost(partitions) => {
                self.engine.forget(Some(partitions))?;
                return Ok(true);
            }
            // Only the end if what was read last is committed; after a failure it is read again.
            Polled::End => {
                self.begin(Vec::new())?;
                self.submit()?;
                return self.settle().map(|()| false);
            }
        }
        let (records, bytes) = self.ahead.size();
        let is_full = limits.reached(records, bytes);
        // What comes until the batch before is computed is added to less than a batch.
        let grows = busy && !is_full;
        if !grows {
            self.backlog.note(records, bytes, &limits, self.runtime.now());
            // Only when nothing waits any more: a stream whose records are still in the source is not idle.
            let idle = if is_full { Vec::new() } else { self.idle_streams()? };
            self.begin(idle)?;
        }
        // One goes on beside the next poll, if the transaction certainly has room for it and for what follows.
        while self.begun.len() > usize::from(is_full && !self.is_full()) {
            self.gather()?;
        }
        self.note_settled(Duration::ZERO)?;
        if self.until_due().is_zero() && (!self.in_flight || records == 0 && !grows || self.is_full()) {
            self.submit()?;
        }
        Ok(true)
    }

    fn limits(&self, wait: Duration) -> PollLimits {
        PollLimits { records: self.config.batch_records, bytes: self.config.batch_bytes.len(), wait }
    }

    /// Has the engine compute what was polled, and end idle streams.
    fn begin(&mut self, idle: Vec<(StreamId, u64)>) -> Result<(), TransportError> {
        if self.ahead.is_empty() && idle.is_empty() {
            return Ok(());
        }
        // The commit before may have ended while the poll waited; what it wrote may now leave memory.
        self.note_settled(Duration::ZERO)?;
        let (records, assignment) = self.ahead.take();
        let read = Read::of(&records, assignment);
        self.begun.push_back(Begun { epoch: self.epoch, read, since: self.runtime.now() });
        self.engine.begin([self.epoch, self.committed], self.runtime.unix_ms(), records, idle)?;
        self.epoch += 1;
        Ok(())
    }

    /// Waits for the first batch that the engine has in hand, and adds it to what is to be committed.
    fn gather(&mut self) -> Result<(), TransportError> {
        let Some(Begun { epoch, read, .. }) = self.begun.pop_front() else { return Ok(()) };
        let before = self.engine.fresh_bytes();
        let batch = Batch::new(epoch, read, self.engine.finish()?, self.runtime.now());
        let bytes = batch.bytes() + self.engine.fresh_bytes().saturating_sub(before);
        self.record_bytes = Some(bytes.div_ceil(batch.records().max(1)));
        match &mut self.open {
            _ if batch.is_empty() => {}
            Some(open) => open.append(batch),
            None => self.open = Some(batch),
        }
        Ok(())
    }

    /// Whether what is computed must not grow any more. What is being computed counts as much, record for record, as the batch before.
    fn is_full(&self) -> bool {
        let (records, bytes) = self.open.as_ref().map_or((0, 0), |open| (open.records(), open.bytes()));
        let begun: usize = self.begun.iter().map(|begun| begun.read.records()).sum();
        let begun_bytes =
            if begun == 0 { 0 } else { self.record_bytes.map_or(usize::MAX, |one| begun.saturating_mul(one)) };
        let bytes = (bytes + self.engine.fresh_bytes()).saturating_add(begun_bytes);
        records + begun >= self.config.commit_records || bytes >= self.config.commit_bytes.len()
    }

    /// How long what is computed may still wait for more to be committed with it; a long time if there is nothing.
    fn until_due(&self) -> Duration {
        let since = self.open.as_ref().map(Batch::since).or(self.begun.front().map(|begun| begun.since));
        match since {
            None => Duration::MAX,
            Some(_) if self.is_full() => Duration::ZERO,
            Some(since) => {
                let now = self.runtime.now();
                let PipelineConfig { commit_interval, catch_up_interval, .. } = &self.config;
                let interval = commit_interval.0.max(self.backlog.interval(now, catch_up_interval.0));
                interval.saturating_sub(now.saturating_duration_since(since))
            }
        }
    }

    /// Hands what is computed, or begun, to the committer, once the transaction before it is over.
    fn submit(&mut self) -> Result<(), TransportError> {
        if self.open.is_none() && self.begun.is_empty() {
            return Ok(());
        }
        self.settle()?;
        while !self.begun.is_empty() {
            self.gather()?;
        }
        let states = self.engine.collect()?;
        if let Some(batch) = self.open.take() {
            self.committer.begin(batch.complete(states))?;
            self.in_flight = true;
        }
        Ok(())
    }

    /// Waits until no transaction is under way; the source is paused meanwhile if it takes long.
    fn settle(&mut self) -> Result<(), TransportError> {
        self.note_settled(PAUSE_AFTER)?;
        if !self.in_flight {
            return Ok(());
        }
        self.source.pause();
        self.events.source_paused(true);
        let none = self.limits(Duration::ZERO);
        let mut result = Ok(());
        while self.in_flight && result.is_ok() {
            result = self.note_settled(PAUSE_AFTER);
            if result.is_ok() {
                result = match self.source.poll(&none) {
                    Ok(Polled::Lost(partitions)) => Err(TransportError::Reassigned(partitions)),
                    Ok(_) => Ok(()),
                    Err(error) => Err(error),
                };
            }
        }
        self.source.resume();
        self.events.source_paused(false);
        result
    }

    fn note_settled(&mut self, wait: Duration) -> Result<(), TransportError> {
        if !self.in_flight {
            return Ok(());
        }
        if let Some(result) = self.committer.settled(wait) {
            self.in_flight = false;
            self.committed = result?;
            self.retry = FIRST_RETRY;
            self.health.fine("commit");
        }
        Ok(())
    }

    /// After an error: nothing that was computed counts; back to what is committed, after a pause.
    fn recover(&mut self, error: TransportError) -> Result<(), TransportError> {
        let mut error = error;
        loop {
            self.discard()?;
            if error.is_fatal() {
                return Err(error);
            }
            self.engine.forget(None)?;
            if !matches!(error, TransportError::Reassigned(_)) {
                self.events.aborted(&error, self.retry);
                self.health.trouble("commit", format!("trying again: {error}"));
                if !self.wait_to_retry() {
                    // What is not committed is still in the source, for the next run.
                    return Ok(());
                }
            }
            // The transaction that was under way when the error came must be over before anything is read again.
            error = match self.settle().and_then(|()| self.source.rewind()) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
        }
    }

    /// Nothing that was polled or computed, and is not under way to be committed, counts.
    fn discard(&mut self) -> Result<(), TransportError> {
        self.ahead.take();
        self.begun.clear();
        self.open.take().into_iter().for_each(Batch::discard);
        self.engine.abandon()
    }

    /// Waits before the next try, longer each time. False: shutdown was requested meanwhile.
    fn wait_to_retry(&mut self) -> bool {
        let until = self.runtime.now() + self.retry;
        self.retry = (self.retry * 2).min(LAST_RETRY);
        loop {
            let left = until.saturating_duration_since(self.runtime.now());
            if left.is_zero() || self.shutdown.is_requested() {
                return left.is_zero();
            }
            self.runtime.sleep(FIRST_RETRY.min(left));
        }
    }

    /// Streams whose time is up, at most a batch of them; none when it is not yet time to look.
    fn idle_streams(&mut self) -> Result<Vec<(StreamId, u64)>, TransportError> {
        let Some(ttl) = self.sweep.ttl.filter(|_| self.runtime.now() >= self.sweep.next) else { return Ok(Vec::new()) };
        let before_ms = self.runtime.unix_ms().saturating_sub(ttl.as_millis() as u64);
        let page = self
            .states
            .idle(before_ms, self.sweep.after.as_ref(), self.config.batch_records)
            .map_err(|e| TransportError::Transient(e.to_string()))?;
        if page.next.is_none() {
            self.sweep.next =
                self.runtime.now() + (ttl / 10).clamp(Duration::from_millis(100), Duration::from_secs(60));
        }
        self.sweep.after = page.next;
        Ok(page.streams.into_iter().map(|stream| (stream, before_ms)).collect())
    }

    /// The source has ended and all of it is committed: ends the streams that are still live.
    fn finish(&mut self) -> Result<(), TransportError> {
        let mut after = None;
        while self.end_streams_at_end && !self.shutdown.is_requested() {
            let page = self
                .states
                .idle(u64::MAX, after.as_ref(), self.config.batch_records)
                .map_err(|e| TransportError::Transient(e.to_string()))?;
            self.begin(page.streams.into_iter().map(|stream| (stream, u64::MAX)).collect())?;
            self.submit()?;
            self.settle()?;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(())
    }
}
