//! `[task]`: what the network is asked for.

use super::DataFormat;
use crate::data::DnaScheme;
use crate::model::{GenerateSpec, LanguageSpec, Pooling, Scheme, Softmax, Task};
use serde::{Deserialize, Serialize};

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
    /// For `generate`: the most steps that one record may ask for; default 1024. (`labels` are the classes of streams.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u32>,
    /// For `transcribe`: what transcripts are cut into; default `characters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbols: Option<Symbols>,
}

/// What transcripts are cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symbols {
    /// White space counts as one space.
    #[default]
    Characters,
    /// What white space parts.
    Words,
}

impl TaskSpec {
    /// How labels make spans; the classes of streams make none.
    pub fn scheme(&self) -> Scheme {
        self.scheme.unwrap_or(Scheme::Plain)
    }

    /// Says what does not belong to the task.
    pub(super) fn check(&self, format: DataFormat) -> Result<(), String> {
        let language = [
            self.softmax.is_some(),
            !self.cutoffs.is_empty(),
            self.div_value.is_some(),
            self.threshold_quantile.is_some(),
        ];
        let written = matches!(self.kind, Task::LanguageModel | Task::Generate);
        if !written && language.contains(&true) {
            return Err(
                "task.softmax, cutoffs, div_value and threshold_quantile are for kind = \"language_model\"".into()
            );
        }
        if !written && format == DataFormat::Text {
            return Err("data.format = \"text\" is for kind = \"language_model\" and \"generate\"".into());
        }
        if self.kind != Task::Generate && self.max_steps.is_some() {
            return Err("task.max_steps is for kind = \"generate\"".into());
        }
        if self.kind != Task::Transcribe && self.symbols.is_some() {
            return Err("task.symbols is for kind = \"transcribe\"".into());
        }
        if (self.kind == Task::Transduce) != (format == DataFormat::Pairs) {
            return Err("kind = \"transduce\" and data.format = \"pairs\" go together".into());
        }
        match self.kind {
            Task::LanguageModel => self.check_language("language_model", format)?,
            Task::Generate => {
                if self.threshold_quantile.is_some() {
                    return Err("task.threshold_quantile is for kind = \"language_model\"".into());
                }
                let spec = GenerateSpec {
                    max_steps: self.max_steps.unwrap_or(1024),
                    classes: self.labels.clone().unwrap_or_default(),
                };
                spec.check().map_err(|e| format!("task: {e}"))?;
                TaskSpec { labels: None, ..self.clone() }.check_language("generate", format)?;
            }
            Task::Transcribe => self.check_transcribe(format)?,
            Task::Transduce => self.check_unlabelled("transduce")?,
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

    /// Refuses what is for the labels of steps or streams.
    fn check_unlabelled(&self, kind: &str) -> Result<(), String> {
        let others = [
            self.scheme.is_some(),
            self.dna_labels.is_some(),
            self.pooling.is_some(),
            self.every.is_some(),
            self.labels.is_some(),
            self.ordinal.is_some(),
        ];
        if others.contains(&true) {
            let detail = "task.scheme, dna_labels, pooling, every, labels and ordinal are not for";
            return Err(format!("{detail} kind = \"{kind}\""));
        }
        Ok(())
    }

    fn check_transcribe(&self, format: DataFormat) -> Result<(), String> {
        self.check_unlabelled("transcribe")?;
        if format != DataFormat::Jsonl {
            return Err("kind = \"transcribe\" reads data.format = \"jsonl\"".into());
        }
        Ok(())
    }

    fn check_language(&self, kind: &str, format: DataFormat) -> Result<(), String> {
        self.check_unlabelled(kind)?;
        if self.threshold_quantile.is_some_and(|share| !(share > 0.0 && share < 1.0)) {
            return Err("task.threshold_quantile must be above 0 and below 1, such as 0.999".into());
        }
        if format == DataFormat::Dna {
            let formats = "data.format = \"text\", \"lines\", \"jsonl\" or \"conll\"";
            return Err(format!("kind = \"{kind}\" reads {formats}"));
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
