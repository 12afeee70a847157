//! The JSON of an output record.

use crate::model::transcribe::joined;
use crate::model::{Likelihood, ModelSpec, Output, Span, Task};
use serde::ser::{Serialize, SerializeMap, Serializer};

#[derive(serde::Serialize)]
struct Json<'a> {
    stream: &'a str,
    seq: u64,
    model: &'a str,
    labels: Vec<Label<'a>>,
    spans: &'a [Span],
    #[serde(flatten)]
    likelihood: Option<StreamLikelihood>,
    /// From a transcriber: the labels of this record as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    transcript: Option<String>,
    r#final: bool,
    /// The stream ends without a class: it never had a step.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    empty: bool,
}

/// From a language model: how likely the stream was since its start, or its last reset.
#[derive(serde::Serialize)]
pub struct StreamLikelihood {
    units: u64,
    log_probability: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    perplexity: Option<f64>,
}

impl From<Likelihood> for StreamLikelihood {
    fn from(of: Likelihood) -> StreamLikelihood {
        let perplexity = of.perplexity();
        StreamLikelihood { units: of.units, log_probability: of.log_probability, perplexity }
    }
}

/// A label as output records hold it.
#[derive(serde::Serialize)]
pub struct Label<'a> {
    start: u64,
    end: u64,
    text: &'a str,
    label: &'a str,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    surprise: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    probabilities: Option<Probabilities<'a>>,
}

/// `{"negative": 0.1, "positive": 0.9}`
struct Probabilities<'a> {
    labels: &'a [String],
    values: &'a [f32],
}

impl Serialize for Probabilities<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.labels.len()))?;
        for (label, value) in self.labels.iter().zip(self.values) {
            map.serialize_entry(label, value)?;
        }
        map.end()
    }
}

/// The labels of an output; from a classifier with the probabilities of all classes.
pub fn labels<'a>(model: &'a ModelSpec, output: &'a Output) -> Vec<Label<'a>> {
    let classes = model.labels.len();
    let label = |(k, step): (usize, &'a crate::model::StepLabel)| Label {
        start: step.start,
        end: step.end,
        text: &step.text,
        label: model.labels.get(step.label).map_or("", String::as_str),
        score: step.score,
        surprise: output.surprises.get(k).copied(),
        probabilities: (output.probabilities.get(k * classes..(k + 1) * classes))
            .map(|values| Probabilities { labels: &model.labels, values }),
    };
    output.labels.iter().enumerate().map(label).collect()
}

/// What a transcriber's labels read as.
pub fn transcript(model: &ModelSpec, output: &Output) -> Option<String> {
    let symbols = output.labels.iter().map(|step| step.text.as_str());
    (model.task == Task::Transcribe).then(|| joined(&model.labels, symbols))
}

/// Whether a classifier's stream ends without a class.
pub fn is_empty(model: &ModelSpec, output: &Output, ends: bool) -> bool {
    ends && model.classify.is_some() && output.labels.is_empty()
}

/// `{"stream", "seq", "model", "labels": […], "spans": […], "final"}`; from a language model also `units`,
/// `log_probability` and `perplexity` of the stream; from a transcriber `transcript`.
pub fn render(model: &ModelSpec, stream: &str, seq: u64, output: &Output, ends: bool) -> Vec<u8> {
    let (labels, empty) = (labels(model, output), is_empty(model, output, ends));
    let likelihood = output.likelihood.map(StreamLikelihood::from);
    let (transcript, spans) = (transcript(model, output), &output.spans);
    let json = Json { stream, seq, model: &model.name, labels, spans, likelihood, transcript, r#final: ends, empty };
    // Fails for maps with keys that are no strings and for failing writers; there is neither.
    serde_json::to_vec(&json).unwrap_or_default()
}
