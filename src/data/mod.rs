//! Readers of the files that are trained on, scored and tagged; each streams, and tells bad input by file and line.
//!
//! What the bytes of a running stream mean to a model is in [`crate::encode`]; what is right or wrong about labels is
//! in [`crate::score`].

pub mod characters;
pub mod conll;
pub mod detokenize;
pub mod dna;
pub mod fasta;
pub mod intervals;
pub mod jsonl;
pub mod labelled;
pub mod midi;
pub mod pairs;
pub mod source;
pub mod text;

pub use conll::{ConllReader, LabelMap, Sentence, read_sentences};
pub use detokenize::detokenize;
pub use dna::{DnaScheme, dna_labels};
pub use fasta::{FastaReader, Sequence, read_sequences};
pub use intervals::{Interval, Strand, read_intervals};
pub use jsonl::{JsonRecord, JsonlReader};
pub use labelled::{Content, LabelAt, Labelled, find_labels, read_json_lines, read_lines, read_transcripts};
pub use pairs::{SentencePair, read_pairs, read_parallel};
pub use source::{Lines, Source};
pub use text::{characters, read_text};

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("cannot read {name}: {source}")]
    Read { name: String, source: std::io::Error },
    #[error("{name}, line {line}: {detail}")]
    Line { name: String, line: u64, detail: String },
    #[error("{name}: {detail}")]
    File { name: String, detail: String },
}
