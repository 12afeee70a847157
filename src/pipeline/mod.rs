//! The pipeline: source → sessions → network → labels → one transaction.
//!
//! The coordinator (this file) polls batches from the source, has the [`engine`] compute them and the [`commit`]ter
//! commit them. While one batch is being committed the next is computed, from states that are not committed yet: when
//! a commit fails, everything computed is dropped, the sessions are read back and the source goes back to what was
//! committed. Nothing here knows which transport it runs on.

mod commit;
mod decode;
mod engine;
mod labelling;
mod output;
mod residents;
mod shard;
#[cfg(test)]
mod tests;

pub use engine::Parts;

use crate::clock::unix_ms;
use crate::events::Events;
use crate::health::Health;
use crate::shutdown::Shutdown;
use crate::state::{States, StreamId};
use crate::transport::{Origin, PollLimits, Polled, Position, RawRecord, Source, Transport, TransportError};
use commit::{Batch, Committer};
use engine::Engine;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a poll waits for a record before it looks at shutdown and at streams to end.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// When a commit takes longer than this, the source is paused.
const PAUSE_AFTER: Duration = Duration::from_millis(250);
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// The coordinator. Runs on a thread of its own until its source ends, shutdown is requested, or a fatal error.
pub struct Pipeline {
    source: Box<dyn Source>,
    states: Arc<dyn States>,
    engine: Engine,
    committer: Committer,
    events: Events,
    health: Health,
    shutdown: Shutdown,
    limits: PollLimits,
    /// Number of the batch that is computed next.
    epoch: u64,
    committed: u64,
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
        let pipeline = parts.pipeline;
        Ok(Pipeline {
            source: transport.source,
            states: transport.states,
            engine: Engine::start(parts, transport.replays)?,
            committer: Committer::start(transport.sink, parts.events.clone())?,
            events: parts.events.clone(),
            health,
            shutdown,
            limits: PollLimits { records: pipeline.batch_records, bytes: pipeline.batch_bytes.len(), wait: POLL_WAIT },
            epoch: 1,
            committed: 0,
            retry: FIRST_RETRY,
            sweep: Sweep { ttl: parts.state.stream_ttl.on(), next: Instant::now(), after: None },
            end_streams_at_end: transport.end_streams_at_end,
        })
    }

    /// Runs to the end; what was computed when shutdown is requested is still committed.
    pub fn run(mut self) -> Result<(), TransportError> {
        self.health.fine("pipeline");
        let result = self.work();
        self.engine.stop();
        self.committer.stop();
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
        self.settle()
    }

    /// Polls and computes one batch and hands it to the committer. False: the source has ended.
    fn turn(&mut self) -> Result<bool, TransportError> {
        self.note_settled(Duration::ZERO)?;
        let records = match self.source.poll(&self.limits)? {
            Polled::Records(records) => records,
            Polled::Lost(partitions) => {
                self.engine.forget(Some(partitions))?;
                return Ok(true);
            }
            // Only the end if what was read last is committed; after a failure it is read again.
            Polled::End => return self.settle().map(|()| false),
        };
        // Only when nothing waits any more: a stream whose records are still in the source is not idle.
        let bytes: usize = records.iter().map(|record| record.value.len()).sum();
        let all_read = records.len() < self.limits.records && bytes < self.limits.bytes;
        let idle = if all_read { self.idle_streams()? } else { Vec::new() };
        self.batch(records, idle)?;
        Ok(true)
    }

    fn batch(&mut self, records: Vec<RawRecord>, idle: Vec<(StreamId, u64)>) -> Result<(), TransportError> {
        if records.is_empty() && idle.is_empty() {
            return Ok(());
        }
        // The commit before may have ended while the poll waited; what it wrote may now leave memory.
        self.note_settled(Duration::ZERO)?;
        let positions = positions_after(&records);
        let timestamps_ms = records.iter().map(|record| record.timestamp_ms).collect();
        let computed = self.engine.compute(self.epoch, self.committed, records, idle)?;
        if let Err(error) = self.settle() {
            computed.discard();
            return Err(error);
        }
        if positions.is_empty() && computed.states.is_empty() && computed.letters.is_empty() {
            return Ok(());
        }
        self.committer.submit(Batch { epoch: self.epoch, computed, positions, timestamps_ms })?;
        self.epoch += 1;
        Ok(())
    }

    /// Waits until no transaction is under way; the source is paused meanwhile if it takes long.
    fn settle(&mut self) -> Result<(), TransportError> {
        self.note_settled(PAUSE_AFTER)?;
        if !self.committer.in_flight() {
            return Ok(());
        }
        self.source.pause();
        self.events.source_paused(true);
        let none = PollLimits { wait: Duration::ZERO, ..self.limits };
        let mut result = Ok(());
        while self.committer.in_flight() && result.is_ok() {
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
        if let Some(epoch) = self.committer.settle(wait)? {
            self.committed = epoch;
            self.retry = FIRST_RETRY;
            self.health.fine("commit");
        }
        Ok(())
    }

    /// After an error: nothing that was computed counts; back to what is committed, after a pause.
    fn recover(&mut self, error: TransportError) -> Result<(), TransportError> {
        let mut error = error;
        loop {
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
        let until = Instant::now() + self.retry;
        self.retry = (self.retry * 2).min(LAST_RETRY);
        while Instant::now() < until {
            if self.shutdown.is_requested() {
                return false;
            }
            std::thread::sleep(FIRST_RETRY.min(until.saturating_duration_since(Instant::now())));
        }
        true
    }

    /// Streams whose time is up, at most a batch of them; none when it is not yet time to look.
    fn idle_streams(&mut self) -> Result<Vec<(StreamId, u64)>, TransportError> {
        let Some(ttl) = self.sweep.ttl.filter(|_| Instant::now() >= self.sweep.next) else { return Ok(Vec::new()) };
        let before_ms = unix_ms().saturating_sub(ttl.as_millis() as u64);
        let page = self
            .states
            .idle(before_ms, self.sweep.after.as_ref(), self.limits.records)
            .map_err(|e| TransportError::Transient(e.to_string()))?;
        if page.next.is_none() {
            self.sweep.next = Instant::now() + (ttl / 10).clamp(Duration::from_millis(100), Duration::from_secs(60));
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
                .idle(u64::MAX, after.as_ref(), self.limits.records)
                .map_err(|e| TransportError::Transient(e.to_string()))?;
            self.batch(Vec::new(), page.streams.into_iter().map(|stream| (stream, u64::MAX)).collect())?;
            self.settle()?;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(())
    }
}

/// For each partition the offset after the last of `records`.
fn positions_after(records: &[RawRecord]) -> Vec<Position> {
    let mut next: BTreeMap<(&Arc<str>, i32), i64> = BTreeMap::new();
    for record in records {
        if let Origin::Record { topic, partition, offset } = &record.origin {
            let position = next.entry((topic, *partition)).or_insert(0);
            *position = (*position).max(offset + 1);
        }
    }
    let position = |((topic, partition), next_offset): ((&Arc<str>, i32), i64)| Position {
        topic: topic.clone(),
        partition,
        next_offset,
    };
    next.into_iter().map(position).collect()
}
