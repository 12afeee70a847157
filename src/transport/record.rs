//! A record as it comes from a source, before anything in it was checked, and the events that it may carry.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The header that carries an [`Event`].
pub const EVENT_HEADER: &str = "strand-event";

/// Where a record was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// A record of a source. Shown as `topic/partition/offset`.
    Record { topic: Arc<str>, partition: i32, offset: i64 },
    /// No record: the daemon itself ended the stream, because of `state.stream_ttl` or at the end of its input.
    Strand,
}

impl Origin {
    /// The offset, if this is a source's record.
    pub fn offset(&self) -> Option<i64> {
        match self {
            Origin::Record { offset, .. } => Some(*offset),
            Origin::Strand => None,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Record { topic, partition, offset } => write!(f, "{topic}/{partition}/{offset}"),
            Origin::Strand => f.write_str("strand"),
        }
    }
}

/// How far a partition was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub topic: Arc<str>,
    pub partition: i32,
    /// The first offset that was not read.
    pub next_offset: i64,
}

/// A record's header: name and value, which may be any bytes or none at all.
pub type Header = (String, Option<Vec<u8>>);

/// A record as it came: nothing checked.
#[derive(Debug, Clone, PartialEq)]
pub struct RawRecord {
    pub origin: Origin,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub headers: Vec<Header>,
    /// Unix milliseconds.
    pub timestamp_ms: u64,
    /// Set where the transport itself could not make a record of what it read.
    pub defect: Option<Defect>,
}

/// What a transport found wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defect {
    /// As [`super::DeadLetter::code`].
    pub code: &'static str,
    pub detail: String,
}

/// What a record asks of its stream beside carrying a piece of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// Before the value: a new life of the stream begins; the old state is dropped, positions count from 0.
    Start,
    /// After the value: the unfinished unit (a word without its end) is complete as it stands.
    Flush,
    /// Before the value: the unfinished unit is completed, the open span closed, h and c set to zero; positions go on.
    Reset,
    /// After the value: the stream is over; its output says `"final":true`, its state is deleted.
    End,
}

/// A name that is none of [`Event`]'s.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown event {0:?}; events are start, flush, reset and end")]
pub struct EventError(pub String);

impl FromStr for Event {
    type Err = EventError;

    fn from_str(name: &str) -> Result<Event, EventError> {
        match name {
            "start" => Ok(Event::Start),
            "flush" => Ok(Event::Flush),
            "reset" => Ok(Event::Reset),
            "end" => Ok(Event::End),
            other => Err(EventError(other.to_string())),
        }
    }
}

impl Event {
    pub fn name(self) -> &'static str {
        match self {
            Event::Start => "start",
            Event::Flush => "flush",
            Event::Reset => "reset",
            Event::End => "end",
        }
    }

    /// The headers of a record that carries this event.
    pub fn headers(event: Option<Event>) -> Vec<Header> {
        event.map(|event| (EVENT_HEADER.to_string(), Some(event.name().as_bytes().to_vec()))).into_iter().collect()
    }
}
