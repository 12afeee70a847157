//! Output records as JSON lines, in the form of the daemon's output records.

use super::{Form, Rendered};
use crate::cli::lanes::Handler;
use crate::cli::pieces::Piece;
use serde::Serialize;
use std::sync::Arc;
use strand::encode::EncoderSpec;
use strand::model::{Gene, Model, Output, Span, StepLabel, Task};
use strand::pipeline::output::{Label, StreamLikelihood, is_empty, labels};

/// A span's text is left out when it is longer.
const MAX_SPAN_TEXT_BYTES: usize = 4096;

pub struct Json {
    pub model: Arc<Model>,
}

#[derive(Serialize)]
struct Record<'a> {
    stream: &'a str,
    seq: u64,
    model: &'a str,
    labels: Vec<Label<'a>>,
    spans: Vec<SpanRow<'a>>,
    #[serde(flatten)]
    likelihood: Option<StreamLikelihood>,
    r#final: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    empty: bool,
}

#[derive(Serialize)]
struct SpanRow<'a> {
    start: u64,
    end: u64,
    label: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(flatten)]
    gene: Option<&'a Gene>,
}

#[derive(Default)]
pub struct Carried {
    seq: u64,
    words: SpanWords,
}

impl Handler for Json {
    type Carried = Carried;
    type Result = Rendered;

    fn labelled(&self, carried: &mut Carried, piece: Piece, output: Output) -> Rendered {
        let spec = self.model.spec();
        let of_words = spec.task == Task::Tag && matches!(spec.encoder, EncoderSpec::Words(_));
        for step in output.labels.iter().filter(|_| of_words) {
            carried.words.push(step, Some(&spec.labels[step.label]) == spec.outside.as_ref());
        }
        let spans = output.spans.iter().enumerate().map(|(k, span)| SpanRow {
            start: span.start,
            end: span.end,
            label: &span.label,
            text: carried.words.text(span),
            gene: output.genes.get(k),
        });
        let record = Record {
            stream: &piece.stream.name,
            seq: carried.seq,
            model: &spec.name,
            labels: labels(spec, &output),
            spans: spans.collect(),
            likelihood: output.likelihood.map(StreamLikelihood::from),
            r#final: piece.ends,
            empty: is_empty(spec, &output, piece.ends),
        };
        // Fails for maps with keys that are no strings and for failing writers; there is neither.
        let mut bytes = serde_json::to_vec(&record).unwrap_or_default();
        bytes.push(b'\n');
        carried.seq += 1;
        carried.words.forget(output.labels.last().filter(|_| of_words), &spec.outside, &spec.labels);
        Rendered { stream: piece.stream, ends: piece.ends, bytes }
    }
}

impl Form for Json {}

/// The words that a span not closed yet may be made of.
#[derive(Default)]
struct SpanWords {
    words: Vec<(u64, u64, String)>,
    bytes: usize,
}

impl SpanWords {
    fn push(&mut self, step: &StepLabel, is_outside: bool) {
        if !is_outside && self.bytes <= MAX_SPAN_TEXT_BYTES * 2 {
            self.words.push((step.start, step.end, step.text.clone()));
            self.bytes += step.text.len();
        }
    }

    /// The span's words, with a space where there was something between them.
    fn text(&self, span: &Span) -> Option<String> {
        let mut text = String::new();
        let mut position = span.start;
        let first = self.words.partition_point(|word| word.0 < span.start);
        for (start, end, word) in self.words[first..].iter().take_while(|word| word.1 <= span.end) {
            if *start > position {
                text.push(' ');
            }
            text.push_str(word);
            position = *end;
        }
        (!text.is_empty() && position == span.end && text.len() <= MAX_SPAN_TEXT_BYTES).then_some(text)
    }

    /// After a piece: only an open span's words are needed further.
    fn forget(&mut self, last: Option<&StepLabel>, outside: &Option<String>, labels: &[String]) {
        let Some(last) = last else { return };
        let label = &labels[last.label];
        if Some(label) == outside.as_ref() {
            self.words.clear();
        } else if self.words.len() > 256 {
            // A span that long has no text.
            self.words.drain(..self.words.len() - 256);
        }
        self.bytes = self.words.iter().map(|word| word.2.len()).sum();
    }
}
