//! What a file holds, when the command line does not say: by the ending of its name, then by its first bytes.

use super::usage;
use clap::ValueEnum;
use std::path::Path;
use strand::data::{DataError, Source};
use strand::encode::EncoderSpec;
use strand::model::Model;

/// Formats of files to tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// Running text (for a model of DNA: bases, white space between them skipped)
    Text,
    /// A JSON array of strings a line, or words parted by white space
    Tokens,
    /// token<TAB>label lines (the labels are not read), a blank line between sentences
    Conll,
    /// FASTA: each sequence is a stream
    Fasta,
    /// JSON objects: {"stream": …, "text": …} or {"tokens": […]}
    Jsonl,
}

/// The format of a file by the ending of its name, `.gz` aside.
pub fn by_name(path: &Path) -> Option<FileFormat> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit_once('.')?.1 {
        "fna" | "fa" | "fasta" | "ffn" | "fas" => Some(FileFormat::Fasta),
        "tsv" | "conll" | "bio" | "iob2" => Some(FileFormat::Conll),
        "jsonl" | "ndjson" => Some(FileFormat::Jsonl),
        "txt" | "text" | "md" => Some(FileFormat::Text),
        _ => None,
    }
}

/// The format by the first bytes, of which nothing is consumed; running text if they show nothing else.
pub fn by_content(source: &mut Source, model: &Model) -> Result<FileFormat, DataError> {
    let head = source.available()?;
    let first_line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let is_dna = matches!(model.encoder().spec(), EncoderSpec::Dna(_));
    Ok(match head.first() {
        Some(b'>') if is_dna => FileFormat::Fasta,
        Some(b'{') if serde_json::from_slice::<serde_json::Map<_, _>>(first_line).is_ok() => FileFormat::Jsonl,
        _ if is_labelled(first_line) => FileFormat::Conll,
        _ => FileFormat::Text,
    })
}

/// Whether a line reads `token<TAB>O`, `token<TAB>B-X` or the like.
fn is_labelled(line: &[u8]) -> bool {
    let mut columns = line.trim_ascii_end().split(|&byte| byte == b'\t');
    let (Some(token), Some(label), None) = (columns.next(), columns.next(), columns.next()) else {
        return false;
    };
    let is_tag = |label: &[u8]| !label.is_empty() && label.iter().all(|b| b.is_ascii_uppercase() || *b == b'-');
    !token.is_empty() && (is_tag(label) || label.starts_with(b"B-") || label.starts_with(b"I-"))
}

/// Refuses formats that this model cannot read, before anything is read.
pub fn check(format: FileFormat, model: &Model) -> anyhow::Result<()> {
    let name = &model.spec().name;
    match (format, model.encoder().spec()) {
        (FileFormat::Fasta, spec) if !matches!(spec, EncoderSpec::Dna(_)) => {
            Err(usage(format!("FASTA is for models of DNA; `{name}` is none (another input? see --format)")))
        }
        (FileFormat::Text, EncoderSpec::Events(_)) => {
            Err(usage(format!("`{name}` reads events, not running text: use --format tokens or jsonl")))
        }
        (FileFormat::Text | FileFormat::Tokens | FileFormat::Conll, EncoderSpec::Vector(_)) => {
            Err(usage(format!("`{name}` reads vectors: use --format jsonl with {{\"vector\": […]}}")))
        }
        (FileFormat::Text | FileFormat::Tokens | FileFormat::Conll, EncoderSpec::Notes(_)) => {
            Err(usage(format!("`{name}` reads notes: use --format jsonl with {{\"notes\": [[60, 64], …]}}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_format() {
        let format = |name: &str| by_name(Path::new(name));
        assert_eq!(format("a/genome.fna.gz"), Some(FileFormat::Fasta));
        assert_eq!(format("test.tsv"), Some(FileFormat::Conll));
        assert_eq!(format("x.JSONL"), Some(FileFormat::Jsonl));
        assert_eq!(format("notes"), None);
        assert_eq!(format("-"), None);
    }

    #[test]
    fn labelled_lines_are_known() {
        assert!(is_labelled(b"Obama\tB-PER\r"));
        assert!(is_labelled(b"of\tO"));
        assert!(is_labelled(b"walks\tVERB"));
        assert!(!is_labelled(b"a tab\tin running text"));
        assert!(!is_labelled(b"a\tB-X\tY"));
    }
}
