//! What can be wrong with input, and with the files that an encoder is made of.

use std::path::{Path, PathBuf};

/// Why a record's bytes are no input for this model. Each has a stable code, used in dead letters and metrics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    #[error("byte {at} of the record is not valid UTF-8")]
    InvalidUtf8 { at: usize },
    #[error("not the JSON that was expected ({expected}): {detail}")]
    InvalidJson { expected: &'static str, detail: String },
    #[error("{detail}")]
    WrongShape { detail: String },
    #[error("number {index} of the record is not finite, or its magnitude is beyond 1e30")]
    NotFinite { index: usize },
    #[error("byte {at} of the record, {found:?}, is no IUPAC base code")]
    InvalidBase { at: usize, found: char },
}

impl InputError {
    /// The `strand-error` code: stable, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            InputError::InvalidUtf8 { .. } => "invalid_utf8",
            InputError::InvalidJson { .. } => "invalid_json",
            InputError::WrongShape { .. } => "wrong_shape",
            InputError::NotFinite { .. } => "not_finite",
            InputError::InvalidBase { .. } => "invalid_base",
        }
    }
}

/// Why an encoder could not be made, read or written.
#[derive(Debug, thiserror::Error)]
pub enum EncoderError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{}:{line}: {detail}", path.display())]
    Line { path: PathBuf, line: usize, detail: String },
    #[error("[encoder]: {0}")]
    Spec(String),
}

impl EncoderError {
    /// Line `line` (from 1) of the file at `path` is not what it must be.
    pub(super) fn line(path: &Path, line: usize, detail: impl Into<String>) -> EncoderError {
        EncoderError::Line { path: path.into(), line, detail: detail.into() }
    }
}
