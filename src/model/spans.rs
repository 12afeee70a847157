//! From labels to spans, one label at a time.

use crate::model::spec::Scheme;

/// A labelled stretch of a stream; `start`/`end` as in [`crate::encode::Unit`].
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Span {
    pub start: u64,
    pub end: u64,
    pub label: String,
}

/// Builds spans from a stream's labels; the open span waits here (part of the stream's state).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpanDecoder {
    /// The span not closed yet: start, end and type.
    pub open: Option<Span>,
}

impl SpanDecoder {
    /// The label of the next step; returns the span that this label closed, if it closed one.
    pub fn push(&mut self, scheme: Scheme, outside: Option<&str>, label: &str, start: u64, end: u64) -> Option<Span> {
        let (kind, begins) = match scheme {
            Scheme::Plain => return None,
            Scheme::Runs => ((Some(label) != outside).then_some(label), false),
            Scheme::Bio => match label.split_once('-') {
                Some(("B", kind)) => (Some(kind), true),
                Some((_, kind)) => (Some(kind), false),
                None => (None, false),
            },
        };
        if let (Some(open), Some(kind)) = (&mut self.open, kind)
            && open.label == kind
            && !begins
        {
            open.end = end;
            return None;
        }
        let closed = self.open.take();
        self.open = kind.map(|kind| Span { start, end, label: kind.to_string() });
        closed
    }

    /// The stream ends (or is reset) here: closes what is open.
    pub fn finish(&mut self) -> Option<Span> {
        self.open.take()
    }
}
