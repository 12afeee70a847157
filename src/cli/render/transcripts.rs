//! What streams read as: a line a stream, `stream<TAB>transcript`, or on a terminal the symbols as they become final.

use super::paint::harmless;
use super::{Form, Paint, Rendered};
use crate::cli::lanes::Handler;
use crate::cli::pieces::Piece;
use std::sync::Arc;
use strand::model::transcribe::joined;
use strand::model::{Model, Output};

pub struct Transcripts {
    pub model: Arc<Model>,
    /// Absent: plain columns.
    pub paint: Option<Paint>,
}

impl Handler for Transcripts {
    /// Of a stream in columns what it read as so far; on a terminal whether it has a symbol.
    type Carried = Vec<String>;
    type Result = Rendered;

    fn labelled(&self, carried: &mut Vec<String>, piece: Piece, output: Output) -> Rendered {
        let labels = &self.model.spec().labels;
        let new = output.labels.iter().map(|step| step.text.clone());
        let mut out = String::new();
        if self.paint.is_some() {
            let before = carried.len();
            carried.extend(new);
            let text = joined(labels, carried.iter().map(String::as_str));
            let shown = joined(labels, carried[..before].iter().map(String::as_str));
            out.push_str(&harmless(&text[shown.len()..]));
            // The text so far tells only whether a space is needed.
            carried.drain(..carried.len().saturating_sub(1));
            if piece.ends {
                out.push('\n');
            }
        } else {
            carried.extend(new);
            if piece.ends {
                let column = |text: &str| text.replace(|c: char| c.is_control(), " ");
                let text = joined(labels, carried.drain(..).as_slice().iter().map(String::as_str));
                out = format!("{}\t{}\n", column(&piece.stream.name), column(text.trim()));
            }
        }
        Rendered { stream: piece.stream, ends: piece.ends, bytes: out.into_bytes() }
    }
}

impl Form for Transcripts {
    fn part(&self, before: Option<&Rendered>, next: &Rendered) -> String {
        let Some(paint) = self.paint else { return String::new() };
        let mut parting = String::new();
        if before.is_some_and(|before| !before.ends) {
            parting.push('\n');
        }
        if next.stream.shown {
            parting.push_str(&paint.bold(&harmless(&next.stream.name)));
            parting.push_str("  ");
        }
        parting
    }
}
