//! `[data]`: which files, in which format.

use crate::data::{LabelAt, LabelMap};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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
    /// JSON lines: `{"tokens": […], "labels": […]}`; for `classify` `{"text": "…", "label": "…"}`; for
    /// `transcribe` `{"vector": [[…], …], "transcript": "…"}`.
    Jsonl,
    /// For `classify`: lines of a label and a text, parted by a tab or a space; for `language_model` each line a stream.
    Lines,
    /// For `language_model`: each file one stream.
    Text,
    /// For `transduce`: `{ source = …, target = … }`, two files with as many lines, or one of `source<TAB>target` lines or
    /// JSON lines (`.jsonl`) `{"source": "…", "target": "…"}`.
    Pairs,
}

/// One source of examples: a path, or a table with more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FileSpec {
    Path(PathBuf),
    File(FileTable),
    Genome(GenomeTable),
    Pair(PairTable),
}

/// Two files whose lines belong together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairTable {
    pub source: PathBuf,
    pub target: PathBuf,
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
    /// For notes: the file's sequences are also taken so many semitones higher, from the first number to the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transpose: Option<[i32; 2]>,
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
