//! Records that were polled while the batch before them is computed.
//!
//! They are a batch of their own as soon as there are as many as a poll may bring; else what comes while the engine is busy
//! is added to them. So batches do not get smaller by reading ahead, and the engine need not wait for the source.

use crate::transport::{PollLimits, RawRecord};

/// At most as much as one poll may bring.
#[derive(Debug, Default)]
pub struct Ahead {
    records: Vec<RawRecord>,
    bytes: usize,
    /// [`Source::assignment`](crate::transport::Source::assignment) when the first of them was polled.
    assignment: u64,
}

impl Ahead {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub fn add(&mut self, records: Vec<RawRecord>, assignment: u64) {
        if self.records.is_empty() {
            self.assignment = assignment;
        }
        self.bytes += records.iter().map(|record| record.value.len()).sum::<usize>();
        self.records.extend(records);
    }

    /// What of `limits` the next poll may bring.
    pub fn left(&self, limits: &PollLimits) -> PollLimits {
        PollLimits {
            records: limits.records.saturating_sub(self.records.len()),
            bytes: limits.bytes.saturating_sub(self.bytes),
            wait: limits.wait,
        }
    }

    /// How many there are, and bytes of their values.
    pub fn size(&self) -> (usize, usize) {
        (self.records.len(), self.bytes)
    }

    /// The records, and the assignment that they belong to.
    pub fn take(&mut self) -> (Vec<RawRecord>, u64) {
        self.bytes = 0;
        (std::mem::take(&mut self.records), self.assignment)
    }
}
