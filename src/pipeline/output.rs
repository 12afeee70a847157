//! The JSON of an output record.

use crate::model::{ModelSpec, Output, Span};
use serde::Serialize;

#[derive(Serialize)]
struct Json<'a> {
    stream: &'a str,
    seq: u64,
    model: &'a str,
    labels: Vec<Label<'a>>,
    spans: &'a [Span],
    r#final: bool,
}

#[derive(Serialize)]
struct Label<'a> {
    start: u64,
    end: u64,
    text: &'a str,
    label: &'a str,
    score: f32,
}

/// `{"stream", "seq", "model", "labels": […], "spans": […], "final"}`.
pub fn render(model: &ModelSpec, stream: &str, seq: u64, output: &Output, ends: bool) -> Vec<u8> {
    let labels = output.labels.iter().map(|step| Label {
        start: step.start,
        end: step.end,
        text: &step.text,
        label: model.labels.get(step.label).map_or("", String::as_str),
        score: step.score,
    });
    let json = Json { stream, seq, model: &model.name, labels: labels.collect(), spans: &output.spans, r#final: ends };
    // Fails for maps with keys that are no strings and for failing writers; there is neither.
    serde_json::to_vec(&json).unwrap_or_default()
}
