//! Where records come from and where labels go: one set of traits, in the shape that Kafka's transactions need.
//!
//! A transport has three parts, used from different threads: a [`Source`] is polled by the pipeline's coordinator, a
//! [`Sink`] takes one transaction after the other on the committer's thread, and [`States`] is read by the engine
//! threads. Everything that a batch of records leads to (labels, states, dead letters, how far the source was read)
//! is committed by the sink at once, or not at all (on [`kafka`], in an order that loses nothing). [`embedded`],
//! [`kafka`] and [`stdio`] implement them.

mod dead_letter;
pub mod embedded;
pub mod kafka;
pub mod line;
mod record;
pub mod stdio;

pub use dead_letter::DeadLetter;
pub use record::{Defect, EVENT_HEADER, Event, EventError, Header, Origin, Position, RawRecord};

pub use crate::state::StateChange;

use crate::state::{States, StreamId};
use std::sync::Arc;
use std::time::Duration;

/// Bounds of one poll. The first bound that is reached ends it.
#[derive(Debug, Clone, Copy)]
pub struct PollLimits {
    pub records: usize,
    /// Bytes of values; one record may exceed it.
    pub bytes: usize,
    /// How long to wait for the first record.
    pub wait: Duration,
}

impl PollLimits {
    /// Whether so many records, with so many bytes of values, end a poll.
    pub fn reached(&self, records: usize, bytes: usize) -> bool {
        records >= self.records || bytes >= self.bytes
    }
}

/// What a poll found.
#[derive(Debug)]
pub enum Polled {
    /// The next records in order; none when the wait was over (or the source is paused).
    Records(Vec<RawRecord>),
    /// These partitions are in the charge of others now. What was read of them, and is not committed, is void; their
    /// streams must leave memory before anything else is polled.
    Lost(Vec<i32>),
    /// There will never be more.
    End,
}

/// One output record: what one input record made final. `value` is the JSON of DESIGN's output record.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputRecord {
    pub stream: StreamId,
    pub seq: u64,
    /// Name of the model that gave the labels.
    pub model: Arc<str>,
    /// The record that led to it.
    pub input: RawRecord,
    pub value: Vec<u8>,
}

/// Why a transport could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Passes, perhaps: abort, wait, try again.
    #[error("{0}")]
    Transient(String),
    /// Partitions went to others meanwhile: abort, forget what was computed, and go on at once.
    #[error("partitions {0:?} went to other members of the group")]
    Reassigned(Vec<i32>),
    /// Does not pass: the daemon ends with this message. Nothing that was committed is lost.
    #[error("{0}")]
    Fatal(String),
}

impl TransportError {
    pub fn is_fatal(&self) -> bool {
        matches!(self, TransportError::Fatal(_))
    }
}

/// Where records come from. Used by one thread.
pub trait Source: Send {
    /// The next records after those polled before.
    fn poll(&mut self, limits: &PollLimits) -> Result<Polled, TransportError>;

    /// Goes back to what was last committed: what was polled since is polled again.
    fn rewind(&mut self) -> Result<(), TransportError>;

    /// Back-pressure: until [`Source::resume`], polls yield nothing. They go on nevertheless, so that a source that
    /// must be polled to stay a member of its group does.
    fn pause(&mut self);

    fn resume(&mut self);

    /// Number of the last assignment of partitions, which grows whenever some are given to this source. What was polled
    /// belongs to the assignments up to then.
    fn assignment(&self) -> u64 {
        0
    }
}

/// All that some records lead to, and how far the source was read for it: committed as a whole.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub outputs: Vec<OutputRecord>,
    pub states: Vec<StateChange>,
    pub letters: Vec<DeadLetter>,
    /// For each partition of which records were read, the first offset *not* read.
    pub positions: Vec<Position>,
    /// [`Source::assignment`] when the first of the records was polled: a partition that was given later, again, has been
    /// with others meanwhile.
    pub assignment: u64,
}

/// Where labels, states and dead letters go, together with the source's positions. Used by one thread.
pub trait Sink: Send {
    /// After an error nothing of the transaction may ever be seen (on [`kafka`] without transactions: what is seen comes
    /// again with the same bytes).
    fn commit(&mut self, transaction: Transaction) -> Result<(), TransportError>;
}

/// A transport, ready to run.
pub struct Transport {
    pub source: Box<dyn Source>,
    pub sink: Box<dyn Sink>,
    pub states: Arc<dyn States>,
    /// Offsets last, and a record may be read again after it was committed: then it is skipped, since its stream's
    /// state says so ([`crate::state::StreamEntry::seen`]).
    pub replays: bool,
    /// When the source has ended, streams still live are ended too, each with a final output.
    pub end_streams_at_end: bool,
}
