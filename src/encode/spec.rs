//! `[encoder]` of a recipe and of a `model.toml`: which kind of input, which tables, how large.

use super::EncoderError;
use super::units::UnitKind;
use serde::{Deserialize, Serialize};

/// `[encoder]` of a recipe and of a `model.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum EncoderSpec {
    Words(WordSpec),
    Chars(CharSpec),
    Dna(DnaSpec),
    Events(EventSpec),
    Vector(VectorSpec),
    Notes(NoteSpec),
    Sentences(SentenceSpec),
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
    /// Characters are looked up in Unicode Normalization Form KC (Unicode Standard Annex #15): full- and half-width forms
    /// are one, a character and the mark behind it are one at the mark, and white space of any kind is one. Units stay
    /// the characters of the text.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nfkc: bool,
    /// Embedding of the character's class (kanji, hiragana, digit, …); 0 = none.
    #[serde(skip_serializing_if = "is_zero")]
    pub class_dim: usize,
    /// Embedding of the character and the one before it; 0 = none.
    #[serde(skip_serializing_if = "is_zero")]
    pub bigram_dim: usize,
    /// Embedding of the character and the two before it; 0 = none.
    #[serde(skip_serializing_if = "is_zero")]
    pub trigram_dim: usize,
    /// Rarer bigrams and trigrams share a row.
    #[serde(skip_serializing_if = "is_default_ngram_min_count")]
    pub ngram_min_count: u32,
    /// The most bigrams that have a row of their own, and the most trigrams.
    #[serde(skip_serializing_if = "is_default_max_ngrams")]
    pub max_ngrams: usize,
}

const NGRAM_MIN_COUNT: u32 = 3;
const MAX_NGRAMS: usize = 20_000;

impl Default for CharSpec {
    fn default() -> Self {
        CharSpec {
            dim: 64,
            min_count: 2,
            nfkc: false,
            class_dim: 0,
            bigram_dim: 0,
            trigram_dim: 0,
            ngram_min_count: NGRAM_MIN_COUNT,
            max_ngrams: MAX_NGRAMS,
        }
    }
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

fn is_default_ngram_min_count(n: &u32) -> bool {
    *n == NGRAM_MIN_COUNT
}

fn is_default_max_ngrams(n: &usize) -> bool {
    *n == MAX_NGRAMS
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

/// Notes sounding together: MIDI pitches, both included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoteSpec {
    pub lowest: u8,
    pub highest: u8,
}

impl NoteSpec {
    pub fn pitches(&self) -> usize {
        usize::from(self.highest.saturating_sub(self.lowest)) + 1
    }
}

/// Whole sentences, of which a translator reads the units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SentenceSpec {
    pub units: UnitKind,
    pub dim: usize,
    /// Units that training has seen less often are unknown.
    pub min_count: u32,
    /// The most units of the vocabulary; byte-pair encoding merges until there are as many.
    pub max_units: usize,
    /// Characters of the longest sentence; what is longer is cut.
    pub max_source: usize,
    /// A sentence also ends behind one of these characters that white space follows.
    pub ends: Vec<char>,
}

impl Default for SentenceSpec {
    fn default() -> Self {
        SentenceSpec {
            units: UnitKind::Chars,
            dim: 64,
            min_count: 2,
            max_units: 8000,
            max_source: 400,
            ends: Vec::new(),
        }
    }
}

/// Larger tables and longer vectors than these are mistakes.
const MAX_DIM: usize = 1 << 16;
/// A table of k-mers has 4^k + 1 rows.
const MAX_KMER: usize = 10;
/// Characters of a sentence: with four bytes each they are less than a reader may leave pending.
const MAX_SOURCE: usize = 1000;

impl EncoderSpec {
    /// What the input is made of, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            EncoderSpec::Words(_) => "words",
            EncoderSpec::Chars(_) => "characters",
            EncoderSpec::Dna(_) => "dna",
            EncoderSpec::Events(_) => "events",
            EncoderSpec::Vector(_) => "vectors",
            EncoderSpec::Notes(_) => "notes",
            EncoderSpec::Sentences(_) => "sentences",
        }
    }

    /// Refuses sizes that make no sense, before anything is built of them.
    pub(super) fn check(&self) -> Result<(), EncoderError> {
        let within = |key: &str, value: usize, least: usize, most: usize| match value {
            _ if value < least => Err(EncoderError::Spec(format!("{key} = {value}: must be at least {least}"))),
            _ if value > most => Err(EncoderError::Spec(format!("{key} = {value}: must be at most {most}"))),
            _ => Ok(()),
        };
        match self {
            EncoderSpec::Words(spec) => {
                within("word_dim", spec.word_dim, 1, MAX_DIM)?;
                within("shape_dim", spec.shape_dim, 0, MAX_DIM)?;
                within("char_hidden", spec.char_hidden, 0, MAX_DIM)?;
                within("char_dim", spec.char_dim, usize::from(spec.char_hidden > 0), MAX_DIM)?;
                within("max_words", spec.max_words, 0, u32::MAX as usize - 1)?;
                within("lexicon_bits", spec.lexicon_bits, usize::from(spec.lexicon.is_some()), 32)
            }
            EncoderSpec::Chars(spec) => {
                within("dim", spec.dim, 1, MAX_DIM)?;
                within("class_dim", spec.class_dim, 0, MAX_DIM)?;
                within("bigram_dim", spec.bigram_dim, 0, MAX_DIM)?;
                within("trigram_dim", spec.trigram_dim, 0, MAX_DIM)?;
                within("max_ngrams", spec.max_ngrams, 0, u32::MAX as usize - 1)
            }
            EncoderSpec::Dna(spec) => {
                if spec.kmers.len() != spec.kmer_dims.len() {
                    let (kmers, dims) = (spec.kmers.len(), spec.kmer_dims.len());
                    return Err(EncoderError::Spec(format!("{kmers} kmers, but {dims} kmer_dims")));
                }
                for (n, &k) in spec.kmers.iter().enumerate() {
                    within("kmers", k, 1, MAX_KMER)?;
                    within("kmer_dims", spec.kmer_dims[n], 1, MAX_DIM)?;
                    if spec.kmers[..n].contains(&k) {
                        return Err(EncoderError::Spec(format!("kmers: {k} a second time")));
                    }
                }
                Ok(())
            }
            EncoderSpec::Events(spec) => {
                within("dim", spec.dim, 1, MAX_DIM)?;
                within("max_events", spec.max_events, 0, u32::MAX as usize - 1)
            }
            EncoderSpec::Vector(spec) => within("width", spec.width, 1, MAX_DIM),
            EncoderSpec::Notes(spec) => within("highest", spec.highest.into(), spec.lowest.into(), 127),
            EncoderSpec::Sentences(spec) => {
                within("dim", spec.dim, 1, MAX_DIM)?;
                within("max_units", spec.max_units, 3, 1 << 20)?;
                within("max_source", spec.max_source, 1, MAX_SOURCE)
            }
        }
    }
}
