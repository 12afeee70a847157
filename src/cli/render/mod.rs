//! How labels look: one file for each form. Each form is a [`Handler`] that turns labels into bytes on the labelling
//! threads; what has to stand between two streams is added by [`super::tag`].

mod bands;
mod classes;
mod conll;
mod gff3;
mod json;
mod paint;
mod prose;
mod span_texts;
mod spans;
mod transcripts;

pub use bands::Bands;
pub use classes::Classes;
pub use conll::Conll;
pub use gff3::Gff3;
pub use json::Json;
pub use paint::{Kinds, Paint, harmless};
pub use prose::Prose;
pub use spans::Spans;
pub use transcripts::Transcripts;

use super::lanes::Handler;
use super::pieces::Stream;
use clap::ValueEnum;
use span_texts::SpanTexts;

/// Forms of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// A JSON object for each piece of a stream: labels, and the spans that closed
    Jsonl,
    /// token<TAB>label lines, a blank line between streams; from a classifier a line a class: stream<TAB>class; from
    /// a transcriber a line a stream: stream<TAB>transcript
    Conll,
    /// text<TAB>type lines, one a span, a blank line between streams: names, or the words of a text without spaces
    Spans,
    /// Coloured text for a terminal (marked by brackets where NO_COLOR is set)
    Ansi,
    /// Regions of sequences as GFF3
    Gff3,
}

/// What is to be written for a piece.
pub struct Rendered {
    pub stream: Stream,
    pub ends: bool,
    pub bytes: Vec<u8>,
}

/// A form of output.
pub trait Form: Handler<Result = Rendered> {
    /// What comes before everything.
    fn head(&self) -> String {
        String::new()
    }

    /// What parts a stream from the one before, whose last piece was `before`.
    fn part(&self, before: Option<&Rendered>, next: &Rendered) -> String {
        let _ = (before, next);
        String::new()
    }
}
