//! `model.toml`: what a model is, in words.

use crate::encode::EncoderSpec;
use crate::rnn::LayerSpec;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What the network is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// A label for every step.
    Tag,
}

/// How labels make spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// `B-X` begins, `I-X` goes on, `O` is outside (IOB2; read by the CoNLL evaluation's rules).
    Bio,
    /// Labels are not spans (parts of speech).
    Plain,
    /// A run of steps with the same label is a span, but for the label of [`ModelSpec::outside`].
    Runs,
}

/// The contents of `model.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Version of this format: 1.
    pub format: u32,
    pub name: String,
    pub task: Task,
    pub scheme: Scheme,
    /// Labels that the model gives, e.g. `O`, `B-PER`.
    pub labels: Vec<String>,
    /// The label that stands for "nothing here" (`O`, `none`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<String>,
    /// For each class of the network's output the label it counts for, where several classes make one label
    /// (frames of a strand): their probabilities are added. Absent: class k is label k.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<ClassSpec>>,
    pub encoder: EncoderSpec,
    pub layers: Vec<LayerSpec>,
    /// Provenance: recipe, data, seed, scores. For people; not read by the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<toml::Table>,
}

/// A class of the network's output and the label it counts for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassSpec {
    pub class: String,
    pub label: String,
}

/// Why a model directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{}: {detail}", path.display())]
    Invalid { path: PathBuf, detail: String },
}
