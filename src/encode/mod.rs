//! From the bytes of a stream to the steps of a network, incrementally.
//!
//! A [`Reader`] cuts a stream's bytes into [`Unit`]s (words, characters, bases, events, vectors), however the bytes
//! arrive; the [`Encoder`] of a model turns each unit into one row of [`Features`]: table indices, dense columns and
//! the characters of the word. What the network makes of features is in [`crate::model::network`].

use serde::{Deserialize, Serialize};

/// One step of a stream as the user sees it.
///
/// `start` and `end` are positions since the stream's start, in characters (text), bases (DNA) or steps (all else).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    pub start: u64,
    pub end: u64,
    pub text: String,
}

/// How the value of a record is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum InputFormat {
    /// A UTF-8 piece of the stream, cut anywhere. For models of words or characters.
    Text,
    /// A JSON array of strings: words, events.
    Tokens,
    /// IUPAC codes in either case; whitespace between them is skipped.
    Dna,
    /// A JSON array of numbers (one step), an array of such arrays (several), or little-endian f32 bytes.
    Vector,
}

/// Network input of `steps` units, row by row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Features {
    pub steps: usize,
    /// Row index into each embedding table, `[steps, tables]`.
    pub ids: Vec<u32>,
    /// Dense columns, `[steps, dense]`.
    pub dense: Vec<f32>,
    /// Character ids of all words one after the other; empty without a character encoder.
    pub chars: Vec<u32>,
    /// End of each step's characters in `chars`, `[steps]`; empty without a character encoder.
    pub char_ends: Vec<u32>,
}

/// One embedding table: `rows` vectors of `dim` numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableShape {
    pub name: &'static str,
    pub rows: usize,
    pub dim: usize,
}

/// What an encoder yields a step: the shapes the network's input layer must have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    pub tables: Vec<TableShape>,
    /// Rows of the character embedding table, if the encoder reads characters.
    pub chars: Option<usize>,
    pub dense: usize,
}

/// Why a record's bytes are no input for this model. Each has a stable code, used in dead letters and metrics.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    #[error("byte {at} of the record is not valid UTF-8")]
    InvalidUtf8 { at: usize },
    #[error("not the JSON that was expected ({expected}): {detail}")]
    InvalidJson { expected: &'static str, detail: String },
    #[error("{detail}")]
    WrongShape { detail: String },
    #[error("number {index} of the record is not finite")]
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

/// `[encoder]` of a recipe and of a `model.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum EncoderSpec {
    Words(WordSpec),
    Chars(CharSpec),
    Dna(DnaSpec),
    Events(EventSpec),
    Vector(VectorSpec),
}

/// Words: embedding of the word ++ shape ++ recurrent character encoder ++ lexicon columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WordSpec {
    pub tokenizer: Tokenizer,
    pub word_dim: usize,
    pub min_count: u32,
    pub max_words: usize,
    pub shape_dim: usize,
    pub char_dim: usize,
    /// 0 = no character encoder.
    pub char_hidden: usize,
    pub char_cell: crate::rnn::Cell,
    pub char_bidirectional: bool,
    /// File of `word<TAB>flags` lines, relative to the recipe (in a model directory: `lexicon.tsv`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lexicon: Option<std::path::PathBuf>,
    pub lexicon_bits: usize,
}

impl Default for WordSpec {
    fn default() -> Self {
        WordSpec {
            tokenizer: Tokenizer::UdEnglish,
            word_dim: 100,
            min_count: 2,
            max_words: 20_000,
            shape_dim: 8,
            char_dim: 32,
            char_hidden: 64,
            char_cell: crate::rnn::Cell::Lstm,
            char_bidirectional: true,
            lexicon: None,
            lexicon_bits: 0,
        }
    }
}

/// How running text is cut into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tokenizer {
    /// Word boundaries of Unicode Standard Annex #29.
    Uax29,
    /// The conventions of the Universal Dependencies English treebanks (`do n't`, `dog 's`, `well - known`).
    UdEnglish,
    /// Only at white space.
    Whitespace,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CharSpec {
    pub dim: usize,
    pub min_count: u32,
}

impl Default for CharSpec {
    fn default() -> Self {
        CharSpec { dim: 64, min_count: 2 }
    }
}

/// DNA: four base probabilities as dense columns, and one table for each k-mer length.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnaSpec {
    pub kmers: Vec<usize>,
    pub kmer_dims: Vec<usize>,
}

impl Default for DnaSpec {
    fn default() -> Self {
        DnaSpec { kmers: vec![3, 6], kmer_dims: vec![16, 32] }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventSpec {
    pub dim: usize,
    pub min_count: u32,
    pub max_events: usize,
}

impl Default for EventSpec {
    fn default() -> Self {
        EventSpec { dim: 64, min_count: 1, max_events: 50_000 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VectorSpec {
    pub width: usize,
}

/// What a stream's reader must remember between two pieces: the unfinished part and the position.
///
/// Small, exact and portable: it is part of the stream's saved state ([`ReaderState::encode`]).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReaderState {
    /// Position of the next unit's first character, base or step since the stream's start.
    pub position: u64,
    /// Bytes read that do not make a whole unit yet.
    pub pending: Vec<u8>,
    /// What the features of the next unit need of the past (the last bases of a DNA stream).
    pub context: Vec<u8>,
}

/// The encoder of one model: its specification, vocabularies and lexicon. Immutable, shared between threads.
#[derive(Debug, Clone)]
pub struct Encoder {
    spec: EncoderSpec,
    layout: Layout,
}

impl Encoder {
    pub fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    /// The shapes that the network's input layer must have.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
}
