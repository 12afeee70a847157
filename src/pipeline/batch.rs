//! Records that were computed, with all that they lead to, until they are committed.

use super::engine::Computed;
use super::runtime::{Commit, Runtime};
use crate::events::Events;
use crate::transport::{Origin, Position, RawRecord, Sink, StateChange, Transaction};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// What one transaction is made of: one computed batch, or several that followed one another.
pub struct Batch {
    /// Number of the last computed batch that is in it.
    epoch: u64,
    computed: Computed,
    positions: BTreeMap<(Arc<str>, i32), i64>,
    /// Timestamps of the records, for the latency.
    timestamps_ms: Vec<u64>,
    /// Bytes of outputs.
    bytes: usize,
    since: Instant,
    /// All that it has changed; collected when it is full or due.
    states: Vec<StateChange>,
    /// The source's assignment when the first of it was polled.
    assignment: u64,
}

/// How far records reach, noted before they are computed.
pub struct Read {
    positions: BTreeMap<(Arc<str>, i32), i64>,
    timestamps_ms: Vec<u64>,
    assignment: u64,
}

impl Read {
    pub fn of(records: &[RawRecord], assignment: u64) -> Read {
        let mut positions: BTreeMap<(Arc<str>, i32), i64> = BTreeMap::new();
        for record in records {
            if let Origin::Record { topic, partition, offset } = &record.origin {
                let next = positions.entry((topic.clone(), *partition)).or_insert(0);
                *next = (*next).max(offset + 1);
            }
        }
        Read { positions, timestamps_ms: records.iter().map(|record| record.timestamp_ms).collect(), assignment }
    }

    pub fn records(&self) -> usize {
        self.timestamps_ms.len()
    }
}

impl Batch {
    pub fn new(epoch: u64, read: Read, computed: Computed, since: Instant) -> Batch {
        let bytes = computed.bytes();
        let Read { positions, timestamps_ms, assignment } = read;
        Batch { epoch, computed, positions, timestamps_ms, bytes, since, states: Vec::new(), assignment }
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty() && self.computed.outputs.is_empty() && self.computed.letters.is_empty()
    }

    /// Records that it commits.
    pub fn records(&self) -> usize {
        self.timestamps_ms.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the first of it was computed.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Adds what was computed next.
    pub fn append(&mut self, next: Batch) {
        let own = &mut self.computed;
        own.outputs.extend(next.computed.outputs);
        own.letters.extend(next.computed.letters);
        own.tallies.extend(next.computed.tallies);
        self.epoch = next.epoch;
        self.positions.extend(next.positions);
        self.timestamps_ms.extend(next.timestamps_ms);
        self.bytes += next.bytes;
    }

    /// With the states that its batches have changed, it is complete.
    pub fn complete(self, states: Vec<StateChange>) -> Batch {
        Batch { states, ..self }
    }

    /// It will not be committed: nothing of it counts.
    pub fn discard(self) {
        self.computed.discard();
    }
}

/// What the committer does with each batch.
pub fn committing(mut sink: Box<dyn Sink>, events: Events, runtime: Arc<dyn Runtime>) -> Commit {
    Box::new(move |batch| {
        let start = Instant::now();
        let (Computed { outputs, letters, tallies }, states) = (batch.computed, batch.states);
        let rejected = letters.iter().map(|letter| (letter.record.origin.clone(), letter.code, letter.detail.clone()));
        let rejected: Vec<_> = rejected.collect();
        let position = |((topic, partition), next_offset)| Position { topic, partition, next_offset };
        let positions = batch.positions.into_iter().map(position).collect();
        match sink.commit(Transaction { outputs, states, letters, positions, assignment: batch.assignment }) {
            Ok(()) => {
                events.committed(tallies, &batch.timestamps_ms, runtime.unix_ms(), start.elapsed());
                for (origin, code, detail) in rejected {
                    events.rejected(&origin, code, &detail);
                }
                Ok(batch.epoch)
            }
            Err(error) => {
                tallies.into_iter().for_each(crate::events::Tally::discard);
                Err(error)
            }
        }
    })
}
