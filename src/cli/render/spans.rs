//! Spans as lines of their text and their type, a blank line after each stream: words with their parts of speech, where the
//! steps are characters.

use super::{Form, Rendered, SpanTexts};
use crate::cli::lanes::Handler;
use crate::cli::pieces::Piece;
use std::sync::Arc;
use strand::model::{Model, Output};

pub struct Spans {
    pub model: Arc<Model>,
}

#[derive(Default)]
pub struct Carried {
    texts: SpanTexts,
    begun: bool,
}

impl Handler for Spans {
    type Carried = Carried;
    type Result = Rendered;

    fn labelled(&self, carried: &mut Carried, piece: Piece, output: Output) -> Rendered {
        carried.texts.add(self.model.spec(), &output.labels);
        let mut bytes = Vec::new();
        for span in &output.spans {
            let text = carried.texts.text(span).unwrap_or_default();
            // A token may hold a tab or a line end only if it was given as a token.
            bytes.extend(text.bytes().map(|byte| if byte < b' ' { b' ' } else { byte }));
            bytes.push(b'\t');
            bytes.extend_from_slice(span.label.as_bytes());
            bytes.push(b'\n');
        }
        carried.texts.forget(self.model.spec(), &output.labels);
        carried.begun |= !bytes.is_empty();
        if carried.begun && piece.ends {
            bytes.push(b'\n');
        }
        Rendered { stream: piece.stream, ends: piece.ends, bytes }
    }
}

impl Form for Spans {
    fn part(&self, before: Option<&Rendered>, _: &Rendered) -> String {
        if before.is_some_and(|before| !before.ends) { "\n".to_string() } else { String::new() }
    }
}
