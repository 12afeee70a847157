//! Running text with its spans in coloured boxes, or with small tags behind the words.

use super::paint::{RESET, harmless};
use super::{Form, Kinds, Paint, Rendered};
use crate::cli::lanes::Handler;
use crate::cli::pieces::{Payload, Piece};
use std::sync::Arc;
use strand::model::{Model, Output, Scheme};

pub struct Prose {
    model: Arc<Model>,
    kinds: Kinds,
    paint: Paint,
}

impl Prose {
    pub fn new(model: Arc<Model>, paint: Paint) -> Prose {
        Prose { kinds: Kinds::of(model.spec()), model, paint }
    }
}

/// Text that waits for its labels, and the box that is open.
#[derive(Default)]
pub struct Carried {
    text: Vec<u8>,
    /// Bytes of `text` that are shown already, and the position in the stream of the first that is not.
    shown: usize,
    position: u64,
    /// The stream's input is tokens: the text is the tokens with spaces between them.
    by_token: bool,
    open: Option<usize>,
    /// Something stands on the line already.
    in_line: bool,
}

impl Carried {
    /// The characters up to `end`, which are shown now.
    fn take_to(&mut self, end: u64) -> String {
        let wanted = end.saturating_sub(self.position) as usize;
        let rest = &self.text[self.shown..];
        let begins_character = |byte: &u8| byte & 0xc0 != 0x80;
        let starts = rest.iter().enumerate().filter(|(_, byte)| begins_character(byte)).map(|(at, _)| at);
        let bytes = starts.chain([rest.len()]).nth(wanted).unwrap_or(rest.len());
        let taken = harmless(&String::from_utf8_lossy(&rest[..bytes]));
        self.shown += bytes;
        self.position = self.position.max(end);
        taken
    }
}

impl Handler for Prose {
    type Carried = Carried;
    type Result = Rendered;

    fn labelled(&self, carried: &mut Carried, piece: Piece, output: Output) -> Rendered {
        match &piece.payload {
            Payload::Bytes(_, bytes) => carried.text.extend_from_slice(bytes),
            Payload::Tokens(_) => carried.by_token = true,
            Payload::Nothing | Payload::OfClass(..) => {}
        }
        let plain = self.model.spec().scheme == Scheme::Plain;
        let mut out = String::new();
        if let (true, Some(kind)) = (self.paint.colours, carried.open) {
            out.push_str(&self.paint.open(kind));
        }
        for step in &output.labels {
            let (gap, word) = match carried.by_token {
                true => (if carried.in_line { " " } else { "" }.to_string(), harmless(&step.text)),
                false => (carried.take_to(step.start), carried.take_to(step.end)),
            };
            let (kind, begins) = self.kinds.of_label(step.label);
            let goes_on = !plain && carried.open.is_some() && carried.open == kind && !begins && !gap.contains('\n');
            if !goes_on {
                self.close(carried, &mut out);
            }
            out.push_str(&gap);
            if let (false, false, Some(kind)) = (plain, goes_on, kind) {
                out.push_str(&self.paint.open(kind));
                carried.open = Some(kind);
            }
            out.push_str(&word);
            if let (true, Some(kind)) = (plain, kind) {
                out.push_str(&self.paint.tag(kind, &self.kinds.names[kind]));
            }
            carried.in_line = true;
        }
        self.finish_line(carried, &mut out, piece.ends);
        carried.text.drain(..carried.shown);
        carried.shown = 0;
        if self.paint.colours && carried.open.is_some() {
            out.push_str(RESET);
        }
        Rendered { stream: piece.stream, ends: piece.ends, bytes: out.into_bytes() }
    }
}

impl Prose {
    fn close(&self, carried: &mut Carried, out: &mut String) {
        if let Some(kind) = carried.open.take() {
            out.push_str(&self.paint.close(kind, &self.kinds.names[kind]));
        }
    }

    /// A line end, and the end of the stream, are shown without waiting for the next word.
    fn finish_line(&self, carried: &mut Carried, out: &mut String, ends: bool) {
        let rest = &carried.text[carried.shown..];
        if ends || (rest.iter().all(u8::is_ascii_whitespace) && rest.contains(&b'\n')) {
            // No more characters than bytes, and as many where the stream goes on.
            let end = carried.position + rest.len() as u64;
            self.close(carried, out);
            out.push_str(&carried.take_to(end));
        }
        if let Some(last) = out.chars().last() {
            carried.in_line = last != '\n';
        }
        if ends && carried.in_line {
            out.push('\n');
        }
    }
}

impl Form for Prose {
    fn head(&self) -> String {
        if self.model.spec().scheme == Scheme::Plain || self.kinds.names.is_empty() {
            return String::new();
        }
        let boxes = self.kinds.names.iter().enumerate().map(|(kind, name)| match self.paint.colours {
            true => format!("{}{}", self.paint.open(kind), self.paint.close(kind, name)),
            false => name.clone(),
        });
        format!("{}\n\n", boxes.collect::<Vec<_>>().join(" "))
    }

    fn part(&self, before: Option<&Rendered>, next: &Rendered) -> String {
        let mut parting = String::new();
        if before.is_some_and(|before| !before.ends) {
            parting.push('\n');
        }
        if next.stream.shown {
            parting.push_str(&self.paint.bold(&harmless(&next.stream.name)));
            parting.push('\n');
        }
        parting
    }
}
