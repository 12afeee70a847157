//! The classes of streams, a line each: `stream<TAB>class`, or in colours with the stream's first words.

use super::paint::harmless;
use super::{Form, Kinds, Paint, Rendered};
use crate::cli::lanes::Handler;
use crate::cli::pieces::{Payload, Piece};
use std::fmt::Write;
use std::sync::Arc;
use strand::model::{Model, Output};

/// Characters of a stream that are shown behind its class.
const SHOWN: usize = 100;

pub struct Classes {
    model: Arc<Model>,
    kinds: Kinds,
    /// Absent: plain columns.
    paint: Option<Paint>,
}

impl Classes {
    pub fn new(model: Arc<Model>, paint: Option<Paint>) -> Classes {
        Classes { kinds: Kinds::of(model.spec()), model, paint }
    }

    fn line(&self, out: &mut String, piece: &Piece, text: &str, label: usize, score: f32) {
        let (name, class) = (piece.stream.name.as_ref(), &self.model.spec().labels[label]);
        let column = |text: &str| text.replace(|c: char| c.is_control(), " ");
        // Writing to a string cannot fail.
        let _ = match self.paint {
            None => writeln!(out, "{}\t{}", column(name), column(class)),
            Some(paint) => {
                let kind = self.kinds.of_label(label).0;
                let name = if piece.stream.shown { paint.bold(&harmless(name)) + "  " } else { String::new() };
                let class = paint.text(kind, &format!("{class} {:>3.0}%", 100.0 * score));
                writeln!(out, "{class}  {name}{}", harmless(&column(text)))
            }
        };
    }
}

/// The stream's first characters, as bytes that may be cut within one.
type Beginning = Vec<u8>;

impl Handler for Classes {
    type Carried = Beginning;
    type Result = Rendered;

    fn labelled(&self, beginning: &mut Beginning, piece: Piece, output: Output) -> Rendered {
        let room = (4 * SHOWN).saturating_sub(beginning.len());
        match &piece.payload {
            Payload::Bytes(_, bytes) => beginning.extend(&bytes[..bytes.len().min(room)]),
            Payload::Tokens(tokens) => {
                let text = tokens.iter().take(SHOWN).flat_map(|token| [token.as_str(), " "]).collect::<String>();
                beginning.extend(&text.as_bytes()[..text.len().min(room)]);
            }
            Payload::Nothing | Payload::OfClass(..) => {}
        }
        let text = String::from_utf8_lossy(beginning);
        let text: String = text.trim().chars().take(SHOWN).collect();
        let mut out = String::new();
        for step in &output.labels {
            self.line(&mut out, &piece, &text, step.label, step.score);
        }
        Rendered { stream: piece.stream, ends: piece.ends, bytes: out.into_bytes() }
    }
}

impl Form for Classes {}
