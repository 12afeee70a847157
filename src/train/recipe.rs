//! `strand train --config X.toml`: what to train, on what, how. Every key has a default but the output, the data, the
//! encoder and the layers; unknown keys are refused.

use super::optimizer::{OptimizerSpec, Rule};
use crate::data::{DnaScheme, LabelMap};
use crate::encode::EncoderSpec;
use crate::model::{Scheme, Task};
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
    pub encoder: EncoderSpec,
    pub layers: Vec<LayerSpec>,
    #[serde(default)]
    pub train: TrainSpec,
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
    pub scheme: Scheme,
    /// For genomes: how bases are labelled from the intervals.
    #[serde(default)]
    pub dna_labels: Option<DnaScheme>,
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
    /// JSON lines: `{"tokens": […], "labels": […]}`.
    Jsonl,
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
