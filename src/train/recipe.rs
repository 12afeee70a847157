//! `strand train --config X.toml`: what to train, on what, how. Every key has a default but the output, the data, the
//! encoder and the layers; unknown keys are refused.

use super::optimizer::{OptimizerSpec, Rule};
use crate::data::{DnaScheme, LabelAt, LabelMap};
use crate::encode::EncoderSpec;
use crate::model::{DecodeKind, DecodeSpec, LanguageSpec, LookAhead, Pooling, Scheme, Softmax, Task, lookahead};
use crate::rnn::LayerSpec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    pub output: OutputSpec,
    pub task: TaskSpec,
    pub data: DataSpec,
    /// How labels are chosen from the network's probabilities; absent: the likeliest of each step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decode: Option<DecodeSpec>,
    pub encoder: EncoderSpec,
    pub layers: Vec<LayerSpec>,
    /// How far bidirectional layers see ahead; absent: to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look_ahead: Option<LookAhead>,
    #[serde(default)]
    pub train: TrainSpec,
}

impl Recipe {
    /// Says what is out of range or does not go together.
    pub fn check(&self) -> Result<(), String> {
        self.train.check()?;
        self.task.check(self.data.format)?;
        lookahead::check(self.task.kind, &self.layers, self.look_ahead.as_ref())?;
        if self.task.kind == Task::LanguageModel {
            if self.train.label_smoothing > 0.0 || !self.train.class_weights.is_empty() {
                return Err("train.label_smoothing and class_weights are not for kind = \"language_model\"".into());
            }
            if self.task.threshold_quantile.is_some() && self.data.dev.is_empty() {
                return Err("task.threshold_quantile is a share of dev's units, but data.dev is empty".into());
            }
            if matches!(self.encoder, EncoderSpec::Dna(_) | EncoderSpec::Vector(_)) {
                return Err("kind = \"language_model\" needs encoder.kind = \"words\", \"chars\" or \"events\"".into());
            }
        }
        if let Some(decode) = &self.decode {
            decode.check(self.task.kind, self.task.scheme())?;
            let t = &self.train;
            if decode.kind == DecodeKind::Crf && (t.label_smoothing > 0.0 || !t.class_weights.is_empty()) {
                let detail = "a CRF is trained on whole sequences";
                return Err(format!("{detail}: leave train.label_smoothing and class_weights out"));
            }
            if decode.kind == DecodeKind::Crf && self.task.dna_labels == Some(DnaScheme::StrandFrame) {
                return Err("decode.kind = \"crf\" needs a class for each label: dna_labels = \"strand\"".into());
            }
        }
        self.check_beside()?;
        let spans_of_characters = matches!(self.encoder, EncoderSpec::Chars(_)) && self.task.scheme() == Scheme::Bio;
        if self.data.white_space && !spans_of_characters {
            return Err("data.white_space is for encoder.kind = \"chars\" with task.scheme = \"bio\"".into());
        }
        if self.task.kind == Task::Classify && self.train.label_smoothing > 0.0 && self.task.ordinal.is_some() {
            return Err("task.ordinal smooths labels in its own way: set train.label_smoothing = 0".into());
        }
        Ok(())
    }

    /// Whether the network tells labels of two kinds at once.
    pub fn has_labels_beside(&self) -> bool {
        self.data.train.iter().any(|file| matches!(file, FileSpec::File(FileTable { beside: Some(_), .. })))
    }

    fn check_beside(&self) -> Result<(), String> {
        let dev = self.data.dev.iter().any(|file| matches!(file, FileSpec::File(FileTable { beside: Some(_), .. })));
        match self.has_labels_beside() {
            _ if dev => Err("beside is for data.train: dev is scored by the labels of its path".into()),
            false => Ok(()),
            true if self.task.kind != Task::Tag => Err("beside is for kind = \"tag\"".into()),
            true if self.data.format != DataFormat::Conll => Err("beside is for data.format = \"conll\"".into()),
            true if !self
                .data
                .train
                .iter()
                .all(|file| matches!(file, FileSpec::File(table) if table.beside.is_some())) =>
            {
                Err("beside: all files of data.train have one, or none".into())
            }
            true if self.decode.as_ref().is_some_and(|decode| decode.kind == DecodeKind::Crf) => {
                Err("decode.kind = \"crf\" needs a class for each label: leave beside out".into())
            }
            true => Ok(()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// The model directory to write.
    pub dir: PathBuf,
    pub name: String,
    /// Checkpoint, logs and pictures; default `runs/NAME`.
    #[serde(default)]
    pub run: Option<PathBuf>,
}

impl OutputSpec {
    pub fn run_dir(&self) -> PathBuf {
        self.run.clone().unwrap_or_else(|| Path::new("runs").join(&self.name))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    pub kind: Task,
    /// For `tag`.
    #[serde(default)]
    pub scheme: Option<Scheme>,
    /// For genomes: how bases are labelled from the intervals.
    #[serde(default)]
    pub dna_labels: Option<DnaScheme>,
    /// For `classify`: how the outputs of a stream's steps become one vector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// For `classify`: also an estimate after every so many steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// For `classify`: all classes in their order; absent: as found, numbers by value, others by the alphabet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// For `classify`: the classes are in order, as stars are, and one that is d away from the right one is a target too,
    /// e^(-ordinal · d) times as likely (Díaz and Marathe 2019).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<f64>,
    /// For `language_model`: the softmax over the units, full or adaptive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub softmax: Option<Softmax>,
    /// For an adaptive softmax: the clusters' first units.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cutoffs: Vec<usize>,
    /// For an adaptive softmax: by how much each cluster is narrower than the one before; default 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub div_value: Option<f64>,
    /// For `language_model`: the threshold of surprise is what this share of dev's units is not above; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold_quantile: Option<f64>,
}

impl TaskSpec {
    /// How labels make spans; the classes of streams make none.
    pub fn scheme(&self) -> Scheme {
        self.scheme.unwrap_or(Scheme::Plain)
    }

    /// Says what does not belong to the task.
    fn check(&self, format: DataFormat) -> Result<(), String> {
        let language = [
            self.softmax.is_some(),
            !self.cutoffs.is_empty(),
            self.div_value.is_some(),
            self.threshold_quantile.is_some(),
        ];
        if self.kind != Task::LanguageModel && language.contains(&true) {
            return Err(
                "task.softmax, cutoffs, div_value and threshold_quantile are for kind = \"language_model\"".into()
            );
        }
        if self.kind != Task::LanguageModel && format == DataFormat::Text {
            return Err("data.format = \"text\" is for kind = \"language_model\"".into());
        }
        match self.kind {
            Task::LanguageModel => self.check_language(format)?,
            Task::Tag => {
                if self.scheme.is_none() {
                    return Err("task.scheme is missing: bio, plain or runs".into());
                }
                let others =
                    [self.pooling.is_some(), self.every.is_some(), self.labels.is_some(), self.ordinal.is_some()];
                if others.contains(&true) {
                    return Err("task.pooling, every, labels and ordinal are for kind = \"classify\"".into());
                }
                if format == DataFormat::Lines {
                    return Err("data.format = \"lines\" is for kind = \"classify\"; taggers read conll".into());
                }
            }
            Task::Classify => {
                if self.pooling.is_none() {
                    return Err("task.pooling is missing: last, mean, max or attention".into());
                }
                if self.scheme.is_some() || self.dna_labels.is_some() {
                    return Err("task.scheme and dna_labels are for kind = \"tag\"".into());
                }
                if self.every == Some(0) {
                    return Err("task.every = 0: must be at least 1".into());
                }
                if self.ordinal.is_some_and(|slope| !(slope > 0.0 && slope.is_finite())) {
                    return Err("task.ordinal must be above 0, such as 2.0".into());
                }
                if !matches!(format, DataFormat::Lines | DataFormat::Jsonl) {
                    return Err("kind = \"classify\" reads data.format = \"lines\" or \"jsonl\"".into());
                }
            }
        }
        Ok(())
    }

    fn check_language(&self, format: DataFormat) -> Result<(), String> {
        let others = [
            self.scheme.is_some(),
            self.dna_labels.is_some(),
            self.pooling.is_some(),
            self.every.is_some(),
            self.labels.is_some(),
            self.ordinal.is_some(),
        ];
        if others.contains(&true) {
            return Err(
                "task.scheme, dna_labels, pooling, every, labels and ordinal are not for kind = \"language_model\""
                    .into(),
            );
        }
        if self.threshold_quantile.is_some_and(|share| !(share > 0.0 && share < 1.0)) {
            return Err("task.threshold_quantile must be above 0 and below 1, such as 0.999".into());
        }
        if format == DataFormat::Dna {
            return Err(
                "kind = \"language_model\" reads data.format = \"text\", \"lines\", \"jsonl\" or \"conll\"".into()
            );
        }
        let spec = LanguageSpec {
            softmax: self.softmax.unwrap_or_default(),
            cutoffs: self.cutoffs.clone(),
            div_value: self.div_value.unwrap_or(4.0),
            threshold: None,
        };
        spec.check().map_err(|e| format!("task.{e}"))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// Folder that data paths start from, but for absolute ones and those that start with `./`.
    #[serde(default = "default_root")]
    pub root: PathBuf,
    #[serde(default)]
    pub format: DataFormat,
    pub train: Vec<FileSpec>,
    #[serde(default)]
    pub dev: Vec<FileSpec>,
    /// For characters with `scheme = "bio"`: train also on white space, which files of words do not have.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub white_space: bool,
}

fn default_root() -> PathBuf {
    "data".into()
}

impl DataSpec {
    /// Where a path of the recipe lies.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        if path.is_absolute() || path.starts_with(".") { path.to_path_buf() } else { self.root.join(path) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataFormat {
    /// `token<TAB>label` lines, a blank line between sentences.
    #[default]
    Conll,
    /// FASTA with a table of intervals.
    Dna,
    /// JSON lines: `{"tokens": […], "labels": […]}`; for `classify` `{"text": "…", "label": "…"}`.
    Jsonl,
    /// For `classify`: lines of a label and a text, parted by a tab or a space; for `language_model` each line a stream.
    Lines,
    /// For `language_model`: each file one stream.
    Text,
}

/// One source of examples: a path, or a table with more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FileSpec {
    Path(PathBuf),
    File(FileTable),
    Genome(GenomeTable),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileTable {
    pub path: PathBuf,
    /// Renames label types (`person = "PER"`, `"*" = "O"` for all others).
    #[serde(default)]
    pub map: LabelMap,
    /// For lines: where the label stands: `first`, `last` (behind a tab) or `none`.
    #[serde(default, skip_serializing_if = "is_first")]
    pub label_at: LabelAt,
    /// The class of all lines of the file, with `label_at = "none"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// For text: characters to take of the file, from 0, the end excluded; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[usize; 2]>,
    /// For `tag`: a file of the same tokens with labels of another kind. The network learns to tell both at once; what it
    /// tells of these is added up again, so that the model gives the labels of `path` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<PathBuf>,
    /// Weight of the file's tokens in the loss.
    #[serde(default = "one")]
    pub weight: f32,
    /// How often an epoch goes through the file.
    #[serde(default = "once")]
    pub repeat: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenomeTable {
    pub genome: PathBuf,
    pub intervals: PathBuf,
    /// Bases to take of each sequence, 0-based, end exclusive; absent: all.
    #[serde(default)]
    pub ranges: Option<Vec<[usize; 2]>>,
    /// Also train on the reverse complement.
    #[serde(default)]
    pub reverse_complement: bool,
    #[serde(default = "one")]
    pub weight: f32,
}

fn is_first(at: &LabelAt) -> bool {
    *at == LabelAt::First
}

fn one() -> f32 {
    1.0
}

fn once() -> usize {
    1
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    Constant,
    /// Straight down to `min_lr_ratio`.
    Linear,
    /// Down to `min_lr_ratio` along half a cosine.
    Cosine,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSpec {
    pub seed: u64,
    pub epochs: usize,
    /// Streams side by side.
    pub batch: usize,
    /// Steps of one truncated backpropagation; the state is carried from chunk to chunk.
    pub chunk: usize,
    /// At a sentence's start, the chance that the state is set to zero.
    pub reset_probability: f64,
    /// Sentences that stay together, in order, when an epoch is shuffled.
    pub block: usize,
    pub optimizer: Rule,
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub momentum: f64,
    pub weight_decay: f64,
    pub schedule: Schedule,
    pub min_lr_ratio: f64,
    /// Steps over which the learning rate rises from zero.
    pub warmup: u64,
    /// 0 = off.
    pub clip_norm: f64,
    /// 0 = off.
    pub clip_value: f64,
    pub dropout_input: f64,
    pub dropout_layers: f64,
    pub word_dropout: f64,
    pub label_smoothing: f64,
    pub class_weights: BTreeMap<String, f32>,
    pub ema: f64,
    /// Epochs without a better dev score after which training stops; 0 = never.
    pub early_stop: usize,
    /// 0 = one a core.
    pub threads: usize,
}

impl Default for TrainSpec {
    fn default() -> Self {
        TrainSpec {
            seed: 1,
            epochs: 20,
            batch: 32,
            chunk: 35,
            reset_probability: 0.5,
            block: 8,
            optimizer: Rule::Adamw,
            lr: 0.002,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            momentum: 0.9,
            weight_decay: 0.01,
            schedule: Schedule::Cosine,
            min_lr_ratio: 0.05,
            warmup: 100,
            clip_norm: 1.0,
            clip_value: 0.0,
            dropout_input: 0.3,
            dropout_layers: 0.3,
            word_dropout: 0.05,
            label_smoothing: 0.0,
            class_weights: BTreeMap::new(),
            ema: 0.0,
            early_stop: 0,
            threads: 0,
        }
    }
}

impl TrainSpec {
    pub fn optimizer(&self) -> OptimizerSpec {
        let on = |x: f64| (x > 0.0).then_some(x);
        OptimizerSpec {
            rule: self.optimizer,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            weight_decay: self.weight_decay,
            momentum: self.momentum,
            clip_norm: on(self.clip_norm),
            clip_value: on(self.clip_value),
            ema: self.ema,
        }
    }

    /// The learning rate of step `step` of `total`.
    pub fn lr_at(&self, step: u64, total: u64) -> f64 {
        if step < self.warmup {
            return self.lr * (step + 1) as f64 / self.warmup as f64;
        }
        let through = (step - self.warmup) as f64 / (total.saturating_sub(self.warmup)).max(1) as f64;
        let down = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - through,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * through).cos()),
        };
        self.lr * (self.min_lr_ratio + (1.0 - self.min_lr_ratio) * down.max(0.0)).min(1.0)
    }

    /// Threads to use.
    pub fn threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get()),
            n => n,
        }
    }

    /// Says what is out of range.
    pub fn check(&self) -> Result<(), String> {
        let chance = |name: &str, x: f64| {
            if (0.0..1.0).contains(&x) {
                Ok(())
            } else {
                Err(format!("train.{name} = {x}: must be at least 0 and below 1"))
            }
        };
        chance("dropout_input", self.dropout_input)?;
        chance("dropout_layers", self.dropout_layers)?;
        chance("word_dropout", self.word_dropout)?;
        chance("label_smoothing", self.label_smoothing)?;
        chance("ema", self.ema)?;
        if !(0.0..=1.0).contains(&self.reset_probability) {
            return Err(format!("train.reset_probability = {}: must be 0 to 1", self.reset_probability));
        }
        for (name, n) in [("epochs", self.epochs), ("batch", self.batch), ("chunk", self.chunk), ("block", self.block)]
        {
            if n == 0 {
                return Err(format!("train.{name} = 0: must be at least 1"));
            }
        }
        if self.lr <= 0.0 || !self.lr.is_finite() {
            return Err(format!("train.lr = {}: must be above 0", self.lr));
        }
        Ok(())
    }
}
