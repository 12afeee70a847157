//! `token<TAB>label` lines, a blank line after each stream (and where one stream's lines give way to another's).

use super::{Form, Rendered};
use crate::cli::lanes::Handler;
use crate::cli::pieces::Piece;
use std::sync::Arc;
use strand::model::{Model, Output};

pub struct Conll {
    pub model: Arc<Model>,
}

/// Whether the stream has had a label.
type Begun = bool;

impl Handler for Conll {
    type Carried = Begun;
    type Result = Rendered;

    fn labelled(&self, begun: &mut Begun, piece: Piece, output: Output) -> Rendered {
        let labels = &self.model.spec().labels;
        let mut bytes = Vec::with_capacity(output.labels.len() * 12);
        for step in &output.labels {
            // A token may hold a tab or a line end only if it was given as a token.
            bytes.extend(step.text.bytes().map(|byte| if byte < b' ' { b' ' } else { byte }));
            bytes.push(b'\t');
            bytes.extend_from_slice(labels[step.label].as_bytes());
            bytes.push(b'\n');
        }
        *begun |= !bytes.is_empty();
        if *begun && piece.ends {
            bytes.push(b'\n');
        }
        Rendered { stream: piece.stream, ends: piece.ends, bytes }
    }
}

impl Form for Conll {
    fn part(&self, before: Option<&Rendered>, _: &Rendered) -> String {
        if before.is_some_and(|before| !before.ends) { "\n".to_string() } else { String::new() }
    }
}
