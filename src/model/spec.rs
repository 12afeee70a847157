//! `model.toml`: what a model is, in words.

use super::decode::DecodeSpec;
use super::generate::{self, GenerateSpec};
use super::genes::GenesSpec;
use super::lookahead::{self, LookAhead};
use super::pool::Pooling;
use super::transcribe;
use super::transduce::DecoderSpec;
use crate::encode::EncoderSpec;
use crate::rnn::LayerSpec;
use crate::rnn::ahead::Window;
use crate::rnn::matrix::Precision;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What the network is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// A label for every step.
    Tag,
    /// A label for the stream as a whole.
    Classify,
    /// How likely each unit is after those before it.
    LanguageModel,
    /// New sequences: what the network makes is its next input.
    Generate,
    /// The symbols that a stream reads as.
    Transcribe,
    /// Another sentence for each sentence.
    Transduce,
}

/// The labels of a language model's units.
pub const SURPRISE_LABELS: [&str; 2] = ["normal", "surprising"];

/// `[language]`: how a language model makes probabilities of units, and which units surprise it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageSpec {
    #[serde(default)]
    pub softmax: Softmax,
    /// For `adaptive`: the clusters' first units, in rising order. Units are in the order of their frequency, and those
    /// before the first cutoff are in the head itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cutoffs: Vec<usize>,
    /// For `adaptive`: cluster i, from 0, reads the output projected down to top / div_value^(i + 1) numbers.
    #[serde(default = "four", skip_serializing_if = "is_four")]
    pub div_value: f64,
    /// A unit is surprising if -ln P is above this, in nats. Absent: none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
}

/// The softmax over the units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Softmax {
    /// One row of weights for each unit.
    #[default]
    Full,
    /// Rare units in clusters that are only looked into where one of theirs occurred (Grave et al. 2017).
    Adaptive,
}

fn four() -> f64 {
    4.0
}

fn is_four(x: &f64) -> bool {
    *x == 4.0
}

impl LanguageSpec {
    /// Says what does not go together.
    pub fn check(&self) -> Result<(), String> {
        match self.softmax {
            Softmax::Full if !self.cutoffs.is_empty() => {
                return Err("cutoffs are for softmax = \"adaptive\"".into());
            }
            Softmax::Adaptive if self.cutoffs.is_empty() => {
                return Err("softmax = \"adaptive\" needs cutoffs, such as [2000, 10000]".into());
            }
            _ => {}
        }
        if self.cutoffs.first() == Some(&0) || self.cutoffs.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(format!("cutoffs = {:?}: must rise, from at least 1", self.cutoffs));
        }
        if !(1.0..=1024.0).contains(&self.div_value) {
            return Err(format!("div_value = {}: must be 1 to 1024", self.div_value));
        }
        if self.threshold.is_some_and(|nats| !(nats > 0.0 && nats.is_finite())) {
            return Err(format!("threshold = {}: must be above 0", self.threshold.unwrap_or_default()));
        }
        Ok(())
    }
}

/// `[classify]`: how a stream becomes one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifySpec {
    pub pooling: Pooling,
    /// Also an estimate after every so many steps of a stream; absent: only when the stream ends, or is asked (`flush`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// The scores before the softmax are divided by this, so that probabilities mean what they say (Guo et al. 2017).
    #[serde(default = "one")]
    pub temperature: f64,
    /// The labels are in order, as stars are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ordinal: bool,
}

fn one() -> f64 {
    1.0
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
    /// How the weights are held and multiplied, where nothing else is asked for; `h` and `c` are f32 in any case.
    #[serde(default, skip_serializing_if = "is_f32")]
    pub precision: Precision,
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
    /// For the task `classify`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classify: Option<ClassifySpec>,
    /// How far bidirectional layers see ahead; absent: to the stream's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look_ahead: Option<LookAhead>,
    /// For the task `language_model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<LanguageSpec>,
    /// For the task `generate`; one of units has `[language]` too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate: Option<GenerateSpec>,
    /// How labels are chosen from the network's probabilities; absent: the likeliest of each step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<DecodeSpec>,
    /// For `decode.kind = "genes"`: what counts as a gene; absent: the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genes: Option<GenesSpec>,
    pub encoder: EncoderSpec,
    pub layers: Vec<LayerSpec>,
    /// For the task `transduce`: what writes; `encoder` and `layers` are what reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<DecoderSpec>,
    /// What [`Model::fingerprint`](super::Model::fingerprint) must be; written with the model. Absent: not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Provenance: recipe, data, seed, scores. For people; not read by the engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<toml::Table>,
}

fn is_f32(precision: &Precision) -> bool {
    *precision == Precision::F32
}

/// A class of the network's output and the label it counts for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassSpec {
    pub class: String,
    pub label: String,
}

/// Lower temperatures turn any difference into certainty.
const MIN_TEMPERATURE: f64 = 1e-3;

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

impl ModelSpec {
    /// Reads and checks `dir/model.toml`.
    pub fn load(dir: &Path) -> Result<ModelSpec, ModelError> {
        let path = dir.join("model.toml");
        let text = std::fs::read_to_string(&path).map_err(|source| ModelError::Read { path: path.clone(), source })?;
        let spec: ModelSpec =
            toml::from_str(&text).map_err(|e| ModelError::Invalid { path: path.clone(), detail: e.to_string() })?;
        spec.check().map_err(|detail| ModelError::Invalid { path, detail })?;
        Ok(spec)
    }

    /// Writes `dir/model.toml`.
    pub fn save(&self, dir: &Path) -> Result<(), ModelError> {
        let path = dir.join("model.toml");
        let text = toml::to_string_pretty(self)
            .map_err(|e| ModelError::Invalid { path: path.clone(), detail: e.to_string() })?;
        std::fs::write(&path, text).map_err(|source| ModelError::Write { path, source })
    }

    fn check(&self) -> Result<(), String> {
        if self.format != 1 {
            return Err(format!("format = {}: this build reads format 1", self.format));
        }
        let translates = self.task == Task::Transduce;
        if translates {
            self.check_transduce()?;
        } else if self.decoder.is_some() || matches!(self.encoder, EncoderSpec::Sentences(_)) {
            return Err("[decoder] and encoder.kind = \"sentences\" are for task = \"transduce\"".into());
        }
        if (self.labels.is_empty() && !translates) || self.layers.is_empty() {
            return Err("labels and layers must not be empty".into());
        }
        if let Some(layer) = self.layers.iter().position(|l| l.hidden == 0 || l.hidden > 1 << 16) {
            return Err(format!("layer {layer}: hidden must be 1 to 65536"));
        }
        if let Some(outside) = &self.outside
            && !self.labels.contains(outside)
        {
            return Err(format!("outside = {outside:?} is none of the labels"));
        }
        if !matches!(self.task, Task::LanguageModel | Task::Generate) && self.language.is_some() {
            return Err("[language] is for task = \"language_model\" and \"generate\"".into());
        }
        if self.task != Task::Generate && (self.generate.is_some() || matches!(self.encoder, EncoderSpec::Notes(_))) {
            return Err("[generate] and encoder.kind = \"notes\" are for task = \"generate\"".into());
        }
        match (self.task, &self.classify) {
            (Task::Tag | Task::Transduce, None) => {}
            (Task::LanguageModel, None) => self.check_language()?,
            (Task::Generate, None) => generate::check(self)?,
            (Task::Transcribe, None) => transcribe::check(self)?,
            (Task::Tag | Task::LanguageModel | Task::Generate | Task::Transcribe | Task::Transduce, Some(_)) => {
                return Err("[classify] is for task = \"classify\"".into());
            }
            (Task::Classify, None) => return Err("task = \"classify\" needs [classify] with its pooling".into()),
            (Task::Classify, Some(classify)) => {
                if self.scheme != Scheme::Plain || self.outside.is_some() || self.classes.is_some() {
                    return Err("the classes of streams have scheme = \"plain\" and neither outside nor classes".into());
                }
                if classify.every == Some(0) {
                    return Err("classify.every = 0: must be at least 1".into());
                }
                if !(MIN_TEMPERATURE..=1.0 / MIN_TEMPERATURE).contains(&classify.temperature) {
                    return Err(format!("classify.temperature = {}: must be 0.001 to 1000", classify.temperature));
                }
            }
        }
        lookahead::check(self.task, &self.layers, self.look_ahead.as_ref())?;
        if let Some(decode) = &self.decode {
            decode.check(self.task, self.scheme)?;
        }
        self.class_labels().map(|_| ())
    }

    /// What bidirectional layers see, if there are any.
    pub fn window(&self) -> Option<Window> {
        // A translator reads whole sentences; its streams wait for their ends.
        let bidirectional = self.task != Task::Transduce && self.layers.iter().any(|layer| layer.bidirectional);
        bidirectional.then(|| self.look_ahead.map_or(lookahead::WHOLE, LookAhead::window))
    }

    /// Whether labels wait for the end of a stream, which an endless one does not have.
    pub fn needs_the_end(&self) -> bool {
        self.look_ahead.is_none() && self.window().is_some()
    }

    fn check_transduce(&self) -> Result<(), String> {
        super::transduce::decoder_of(self)?.check()?;
        if !self.labels.is_empty() || self.scheme != Scheme::Plain || self.classes.is_some() || self.outside.is_some() {
            return Err("a translator has labels = [], scheme = \"plain\" and neither classes nor outside".into());
        }
        if !matches!(self.encoder, EncoderSpec::Sentences(_)) {
            return Err("task = \"transduce\" needs encoder.kind = \"sentences\"".into());
        }
        Ok(())
    }

    fn check_language(&self) -> Result<(), String> {
        let Some(language) = &self.language else {
            return Err("task = \"language_model\" needs [language]; softmax = \"full\" is one".into());
        };
        language.check().map_err(|e| format!("language.{e}"))?;
        if self.labels != SURPRISE_LABELS || self.scheme != Scheme::Plain || self.classes.is_some() {
            return Err(format!(
                "a language model has labels = {SURPRISE_LABELS:?}, scheme = \"plain\" and no classes"
            ));
        }
        match self.encoder {
            EncoderSpec::Words(_) | EncoderSpec::Chars(_) | EncoderSpec::Events(_) => Ok(()),
            _ => Err("a language model is one of words, chars or events".into()),
        }
    }

    /// The classes of streams that the task `generate` writes by, if there are any.
    pub fn stream_classes(&self) -> &[String] {
        self.generate.as_ref().map_or(&[], |generate| &generate.classes)
    }

    /// How outputs are pooled, for the task `classify`.
    pub fn pooling(&self) -> Option<Pooling> {
        self.classify.as_ref().map(|classify| classify.pooling)
    }

    /// For each class of the network's output the index of the label it counts for.
    pub fn class_labels(&self) -> Result<Vec<usize>, String> {
        if self.classes.as_ref().is_some_and(Vec::is_empty) {
            return Err("classes must not be empty; leave it out where every label is a class".into());
        }
        let Some(classes) = &self.classes else { return Ok((0..self.labels.len()).collect()) };
        let label = |c: &ClassSpec| {
            let found = self.labels.iter().position(|l| *l == c.label);
            found.ok_or_else(|| format!("class {} counts for {:?}, which is none of the labels", c.class, c.label))
        };
        classes.iter().map(label).collect()
    }
}
