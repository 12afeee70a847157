//! The pipeline: source → sessions → network → labels → one transaction.
//!
//! The coordinator (this file) polls batches from the source, has the [`engine`] compute them and the committer commit
//! them, several together if `pipeline.commit_interval` says so, or `pipeline.catch_up_interval` while there is a
//! [`backlog`]. While one transaction is being committed the next batch is computed, from states that are not committed
//! yet: when a commit fails, everything computed is dropped, the sessions are read back and the source goes back to what
//! was committed. Nothing here knows which transport it runs on, nor ([`runtime`]) what time it is.

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
use crate::transport::{PollLimits, Polled, RawRecord, Source, Transport, TransportError};
use backlog::Backlog;
use batch::Read;
use engine::Engine;
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
    /// Computed, and not handed to the committer yet: `pipeline.commit_interval` is not over.
    open: Option<Batch>,
    retry: Duration,
    sweep: Sweep,
    end_streams_at_end: bool,
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
            open: None,
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
                self.open.take().into_iter().for_each(Batch::discard);
                self.events.aborted(&error, Duration::ZERO);
                Ok(())
            }
            result => result,
        }
    }

    /// Polls and computes one batch, and hands what is due to the committer. False: the source has ended.
    fn turn(&mut self) -> Result<bool, TransportError> {
        self.note_settled(Duration::ZERO)?;
        // What is due goes on growing while the transaction before it is under way, as long as there are records.
        let wait = if self.backlog.lasts(self.runtime.now()) { CATCH_UP_WAIT } else { POLL_WAIT };
        let limits = self.limits(wait.min(self.until_due()));
        let records = match self.source.poll(&limits)? {
            Polled::Records(records) => records,
            // What waits to be committed may have records of theirs.
            Polled::Lost(partitions) if self.open.is_some() => return Err(TransportError::Reassigned(partitions)),
            Polled::Lost(partitions) => {
                self.engine.forget(Some(partitions))?;
                return Ok(true);
            }
            // Only the end if what was read last is committed; after a failure it is read again.
            Polled::End => {
                self.submit()?;
                return self.settle().map(|()| false);
            }
        };
        // Only when nothing waits any more: a stream whose records are still in the source is not idle.
        let bytes: usize = records.iter().map(|record| record.value.len()).sum();
        let all_read = !limits.reached(records.len(), bytes);
        self.backlog.note(records.len(), bytes, &limits, self.runtime.now());
        let idle = if all_read { self.idle_streams()? } else { Vec::new() };
        let more = !records.is_empty();
        self.batch(records, idle)?;
        self.note_settled(Duration::ZERO)?;
        if self.until_due().is_zero() && (!self.in_flight || !more || self.is_full()) {
            self.submit()?;
        }
        Ok(true)
    }

    fn limits(&self, wait: Duration) -> PollLimits {
        PollLimits { records: self.config.batch_records, bytes: self.config.batch_bytes.len(), wait }
    }

    /// Computes a batch and adds it to what is to be committed.
    fn batch(&mut self, records: Vec<RawRecord>, idle: Vec<(StreamId, u64)>) -> Result<(), TransportError> {
        if records.is_empty() && idle.is_empty() {
            return Ok(());
        }
        // The commit before may have ended while the poll waited; what it wrote may now leave memory.
        self.note_settled(Duration::ZERO)?;
        let read = Read::of(&records, self.source.assignment());
        let computed = self.engine.compute(self.epoch, self.committed, records, idle)?;
        let batch = Batch::new(self.epoch, read, computed, self.runtime.now());
        if batch.is_empty() {
            return Ok(());
        }
        self.epoch += 1;
        match &mut self.open {
            Some(open) => open.append(batch),
            None => self.open = Some(batch),
        }
        Ok(())
    }

    /// Whether what is computed must not grow any more.
    fn is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            open.records() >= self.config.commit_records
                || open.bytes() + self.engine.fresh_bytes() >= self.config.commit_bytes.len()
        })
    }

    /// How long what is computed may still wait for more to be committed with it; a long time if there is nothing.
    fn until_due(&self) -> Duration {
        match &self.open {
            None => Duration::MAX,
            Some(_) if self.is_full() => Duration::ZERO,
            Some(open) => {
                let now = self.runtime.now();
                let PipelineConfig { commit_interval, catch_up_interval, .. } = &self.config;
                let interval =
                    if self.backlog.lasts(now) { commit_interval.max(catch_up_interval) } else { commit_interval };
                interval.0.saturating_sub(now.saturating_duration_since(open.since()))
            }
        }
    }

    /// Hands what is computed to the committer, once the transaction before it is over.
    fn submit(&mut self) -> Result<(), TransportError> {
        if self.open.is_none() {
            return Ok(());
        }
        self.settle()?;
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
            if let Some(open) = self.open.take() {
                open.discard();
            }
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
            self.batch(Vec::new(), page.streams.into_iter().map(|stream| (stream, u64::MAX)).collect())?;
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
