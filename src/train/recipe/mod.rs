//! `strand train --config X.toml`: what to train, on what, how. Every key has a default but the output, the data, the
//! encoder and the layers; unknown keys are refused.

mod data;
mod task;
mod train;

pub use data::{DataFormat, DataSpec, FileSpec, FileTable, GenomeTable, PairTable};
pub use task::{Symbols, TaskSpec};
pub use train::{Schedule, TrainSpec};

use super::TrainError;
use crate::data::DnaScheme;
use crate::encode::EncoderSpec;
use crate::model::{DecodeKind, DecodeSpec, DecoderSpec, GenesSpec, LookAhead, Scheme, Task, lookahead};
use crate::rnn::LayerSpec;
use serde::{Deserialize, Serialize};
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
    /// For `decode.kind = "genes"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genes: Option<GenesSpec>,
    pub encoder: EncoderSpec,
    pub layers: Vec<LayerSpec>,
    /// How far bidirectional layers see ahead; absent: to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub look_ahead: Option<LookAhead>,
    /// For the task `transduce`: what writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<DecoderSpec>,
    #[serde(default)]
    pub train: TrainSpec,
}

impl Recipe {
    /// Reads a recipe's TOML, in which these keys are then set, each as `KEY=VALUE`.
    ///
    /// # Errors
    /// [`TrainError::Recipe`] with what could not be read; its line is that of `text` if nothing is set.
    pub fn parse(text: &str, sets: &[&str]) -> Result<Recipe, TrainError> {
        let unread = |e: toml::de::Error| TrainError::recipe(e.to_string());
        if sets.is_empty() {
            return toml::from_str(text).map_err(unread);
        }
        let mut table: toml::Table = toml::from_str(text).map_err(unread)?;
        for set in sets {
            crate::config::apply(&mut table, set).map_err(|e| TrainError::recipe(e.to_string()))?;
        }
        // Through text again, so that errors show the line they mean.
        let whole = toml::to_string(&table).map_err(|e| TrainError::recipe(e.to_string()))?;
        toml::from_str(&whole).map_err(unread)
    }

    /// Says what is out of range or does not go together.
    pub fn check(&self) -> Result<(), String> {
        self.train.check()?;
        self.task.check(self.data.format)?;
        lookahead::check(self.task.kind, &self.layers, self.look_ahead.as_ref())?;
        let notes = matches!(self.encoder, EncoderSpec::Notes(_));
        if notes && (self.task.kind != Task::Generate || self.data.format != DataFormat::Jsonl) {
            return Err("encoder.kind = \"notes\" is for kind = \"generate\" and data.format = \"jsonl\"".into());
        }
        if self.task.kind == Task::Generate {
            if self.train.label_smoothing > 0.0 || !self.train.class_weights.is_empty() {
                return Err("train.label_smoothing and class_weights are not for kind = \"generate\"".into());
            }
            if matches!(self.encoder, EncoderSpec::Dna(_) | EncoderSpec::Vector(_)) {
                return Err(
                    "kind = \"generate\" needs encoder.kind = \"words\", \"chars\", \"events\" or \"notes\"".into()
                );
            }
            if notes && (self.task.softmax.is_some() || !self.task.cutoffs.is_empty()) {
                return Err("task.softmax and cutoffs are for units; steps of notes have no softmax".into());
            }
        }
        self.check_transduce()?;
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
        if let Some(genes) = &self.genes {
            if self.decode.as_ref().is_none_or(|decode| decode.kind != DecodeKind::Genes) {
                return Err("[genes] is for decode.kind = \"genes\"".into());
            }
            genes.check().map_err(|e| format!("genes.{e}"))?;
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
            if decode.kind == DecodeKind::Genes && self.task.dna_labels != Some(DnaScheme::StrandFrame) {
                return Err("decode.kind = \"genes\" needs codon positions: dna_labels = \"strand+frame\"".into());
            }
        }
        self.check_beside()?;
        let spans_of_characters = matches!(self.encoder, EncoderSpec::Chars(_)) && self.task.scheme() == Scheme::Bio;
        if self.data.white_space && !spans_of_characters {
            return Err("data.white_space is for encoder.kind = \"chars\" with task.scheme = \"bio\"".into());
        }
        if self.task.kind == Task::Transcribe
            && (self.train.label_smoothing > 0.0 || !self.train.class_weights.is_empty())
        {
            return Err("train.label_smoothing and class_weights are not for kind = \"transcribe\"".into());
        }
        if self.task.kind == Task::Classify && self.train.label_smoothing > 0.0 && self.task.ordinal.is_some() {
            return Err("task.ordinal smooths labels in its own way: set train.label_smoothing = 0".into());
        }
        Ok(())
    }

    /// Whether the network has a softmax over units.
    pub fn of_units(&self) -> bool {
        match self.task.kind {
            Task::LanguageModel => true,
            Task::Generate => !matches!(self.encoder, EncoderSpec::Notes(_)),
            Task::Tag | Task::Classify | Task::Transcribe | Task::Transduce => false,
        }
    }

    fn check_transduce(&self) -> Result<(), String> {
        let sentences = matches!(self.encoder, EncoderSpec::Sentences(_));
        match (self.task.kind == Task::Transduce, &self.decoder) {
            (true, Some(decoder)) => {
                decoder.check()?;
                if !sentences {
                    return Err("kind = \"transduce\" needs encoder.kind = \"sentences\"".into());
                }
                if self.decode.is_some() || !self.train.class_weights.is_empty() || self.layers.is_empty() {
                    return Err("kind = \"transduce\" has layers, and neither [decode] nor train.class_weights".into());
                }
                Ok(())
            }
            (true, None) => Err("kind = \"transduce\" needs [decoder]".into()),
            (false, None) if !sentences => Ok(()),
            (false, _) => Err("[decoder] and encoder.kind = \"sentences\" are for kind = \"transduce\"".into()),
        }
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
