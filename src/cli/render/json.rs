//! Output records as JSON lines, in the form of the daemon's output records.

use super::{Form, Rendered, SpanTexts};
use crate::cli::lanes::Handler;
use crate::cli::pieces::Piece;
use serde::Serialize;
use std::sync::Arc;
use strand::model::{Gene, Model, Output, Translation};
use strand::pipeline::output::{Label, StreamLikelihood, is_empty, labels, transcript, translations};

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
    #[serde(skip_serializing_if = "Option::is_none")]
    transcript: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    translations: Option<&'a [Translation]>,
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
    texts: SpanTexts,
}

impl Handler for Json {
    type Carried = Carried;
    type Result = Rendered;

    fn labelled(&self, carried: &mut Carried, piece: Piece, output: Output) -> Rendered {
        let spec = self.model.spec();
        carried.texts.add(spec, &output.labels);
        let spans = output.spans.iter().enumerate().map(|(k, span)| SpanRow {
            start: span.start,
            end: span.end,
            label: &span.label,
            text: carried.texts.text(span),
            gene: output.genes.get(k),
        });
        let record = Record {
            stream: &piece.stream.name,
            seq: carried.seq,
            model: &spec.name,
            labels: labels(spec, &output),
            spans: spans.collect(),
            likelihood: output.likelihood.map(StreamLikelihood::from),
            transcript: transcript(spec, &output),
            translations: translations(spec, &output),
            r#final: piece.ends,
            empty: is_empty(spec, &output, piece.ends),
        };
        // Fails for maps with keys that are no strings and for failing writers; there is neither.
        let mut bytes = serde_json::to_vec(&record).unwrap_or_default();
        bytes.push(b'\n');
        carried.seq += 1;
        carried.texts.forget(spec, &output.labels);
        Rendered { stream: piece.stream, ends: piece.ends, bytes }
    }
}

impl Form for Json {}
