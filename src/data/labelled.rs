//! Streams with one label each: lines of a label and a text, or JSON lines such as `{"text":"…","label":"good"}`.

use super::{DataError, JsonRecord, JsonlReader, Lines, Source};
use crate::encode::{Encoder, Features, InputError, InputFormat, ReaderState, Unit};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A stream's input, as files hold it.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Tokens(Vec<String>),
    /// As the daemon's records hold it.
    Bytes(InputFormat, Vec<u8>),
}

/// A stream and its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    pub content: Content,
    pub label: String,
    /// The line it stood on.
    pub line: u64,
}

/// Where in a line the label stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelAt {
    /// `label<TAB>text`, or `label text` where there is no tab.
    #[default]
    First,
    /// `text<TAB>label`.
    Last,
    /// There is none: every line is a text.
    None,
}

impl Content {
    /// Appends all steps of the stream.
    ///
    /// # Errors
    /// When the model's encoder cannot read it.
    pub fn encode(&self, encoder: &Encoder, units: &mut Vec<Unit>, features: &mut Features) -> Result<(), InputError> {
        self.encode_from(ReaderState::default(), encoder, units, features)
    }

    /// As [`Content::encode`], from a state that says of which class the stream is.
    ///
    /// # Errors
    /// When the model's encoder cannot read it.
    pub fn encode_from(
        &self,
        mut state: ReaderState,
        encoder: &Encoder,
        units: &mut Vec<Unit>,
        features: &mut Features,
    ) -> Result<(), InputError> {
        match self {
            Content::Tokens(tokens) => encoder.push_tokens(&mut state, tokens, units, features),
            Content::Bytes(format, bytes) => encoder.push(&mut state, *format, bytes, units, features)?,
        }
        encoder.finish(&mut state, units, features)
    }

    /// Takes the record's only key for input.
    fn of(record: &mut JsonRecord) -> Result<Content, &'static str> {
        let text = record.text.take().map(|text| Content::Bytes(InputFormat::Text, text.into_bytes()));
        let dna = record.dna.take().map(|dna| Content::Bytes(InputFormat::Dna, dna.into_bytes()));
        let vector = record.vector.take().map(|vector| Content::Bytes(InputFormat::Vector, vector.to_string().into()));
        let tokens = record.tokens.take().map(|mut tokens| {
            tokens.retain(|token| !token.is_empty());
            Content::Tokens(tokens)
        });
        let mut found = [text, dna, vector, tokens].into_iter().flatten();
        match (found.next(), found.next()) {
            (Some(content), None) => Ok(content),
            _ => Err("expected one of the keys `text`, `tokens`, `dna`, `vector`"),
        }
    }
}

/// The label of a line and its text.
fn split(line: &str, at: LabelAt) -> Option<(&str, &str)> {
    match at {
        LabelAt::None => Some(("", line)),
        LabelAt::Last => line.rsplit_once('\t').map(|(text, label)| (label.trim(), text)),
        LabelAt::First => match line.split_once('\t').or_else(|| line.split_once(' ')) {
            Some((label, text)) => Some((label.trim(), text)),
            None => Some((line.trim(), "")),
        },
    }
    .filter(|(label, _)| at == LabelAt::None || !label.is_empty())
}

/// Reads a file of `label text` lines. Blank lines are passed over. The text is what a record of format `text` would
/// hold, or with `tokens` its words as they are parted by white space.
///
/// # Errors
/// Says file and line.
pub fn read_lines(path: &Path, at: LabelAt, tokens: bool) -> Result<Vec<Labelled>, DataError> {
    let (mut lines, mut line, mut all) = (Lines::new(Source::open(path)?), String::new(), Vec::new());
    while lines.next_into(&mut line)? {
        if line.trim().is_empty() {
            continue;
        }
        let (label, text) = split(&line, at).ok_or_else(|| {
            lines.error(match at {
                LabelAt::Last => "expected text<TAB>label",
                _ => "expected a label and a text, parted by a tab or a space",
            })
        })?;
        let content = match tokens {
            true => Content::Tokens(text.split_whitespace().map(str::to_string).collect()),
            false => Content::Bytes(InputFormat::Text, text.trim().as_bytes().to_vec()),
        };
        all.push(Labelled { content, label: label.to_string(), line: lines.line() });
    }
    Ok(all)
}

/// Reads JSON lines with `label` and one of `text`, `tokens`, `dna`, `vector`. `label` may be a string or a number.
///
/// # Errors
/// Says file and line.
pub fn read_json_lines(path: &Path) -> Result<Vec<Labelled>, DataError> {
    let (mut reader, mut all) = (JsonlReader::open(path)?, Vec::new());
    while let Some(mut record) = reader.record()? {
        let label = match record.label.take() {
            Some(serde_json::Value::String(label)) if !label.is_empty() => label,
            Some(serde_json::Value::Number(label)) => label.to_string(),
            _ => return Err(reader.error("expected the key `label`, a string or a number")),
        };
        let content = Content::of(&mut record).map_err(|detail| reader.error(detail))?;
        all.push(Labelled { content, label, line: reader.line() });
    }
    Ok(all)
}

/// Reads JSON lines with `transcript` (which may be empty) and one of `text`, `tokens`, `dna`, `vector`.
///
/// # Errors
/// Says file and line.
pub fn read_transcripts(path: &Path) -> Result<Vec<Labelled>, DataError> {
    let (mut reader, mut all) = (JsonlReader::open(path)?, Vec::new());
    while let Some(mut record) = reader.record()? {
        let Some(label) = record.transcript.take() else {
            return Err(reader.error("expected the key `transcript`, a string"));
        };
        let content = Content::of(&mut record).map_err(|detail| reader.error(detail))?;
        all.push(Labelled { content, label, line: reader.line() });
    }
    Ok(all)
}

/// Where the labels of a file stand, if all of them are `known` on one of the sides.
///
/// # Errors
/// When the file cannot be read; says the first line without a known label otherwise.
pub fn find_labels(path: &Path, known: impl Fn(&str) -> bool) -> Result<LabelAt, DataError> {
    let (mut lines, mut line) = (Lines::new(Source::open(path)?), String::new());
    let mut possible = vec![LabelAt::First, LabelAt::Last];
    while lines.next_into(&mut line)? {
        if line.trim().is_empty() {
            continue;
        }
        possible.retain(|&at| split(&line, at).is_some_and(|(label, _)| known(label)));
        if possible.is_empty() {
            let first = split(&line, LabelAt::First).map_or("", |(label, _)| label);
            let shown: String = first.chars().take(40).collect();
            return Err(lines.error(format!("`{shown}` is none of the labels")));
        }
    }
    Ok(possible[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn shown(all: &[Labelled]) -> Vec<String> {
        let content = |content: &Content| match content {
            Content::Tokens(tokens) => tokens.join("|"),
            Content::Bytes(_, bytes) => String::from_utf8(bytes.clone()).unwrap(),
        };
        all.iter().map(|l| format!("{} {}={}", l.line, l.label, content(&l.content))).collect()
    }

    #[test]
    fn the_label_is_before_or_behind_the_text() {
        let first = file("1 so good .\n\n0\tbad, and\tdull\n2\n");
        assert_eq!(
            shown(&read_lines(first.path(), LabelAt::First, false).unwrap()),
            ["1 1=so good .", "3 0=bad, and\tdull", "4 2="]
        );
        assert_eq!(shown(&read_lines(first.path(), LabelAt::First, true).unwrap())[0], "1 1=so|good|.");
        let last = file("So good.  \t1\nBad\t0\n");
        assert_eq!(shown(&read_lines(last.path(), LabelAt::Last, false).unwrap()), ["1 1=So good.", "2 0=Bad"]);
        assert_eq!(shown(&read_lines(last.path(), LabelAt::None, false).unwrap())[1], "2 =Bad\t0");
        let error = read_lines(first.path(), LabelAt::Last, false).unwrap_err().to_string();
        assert!(error.ends_with("line 1: expected text<TAB>label"), "{error}");
        let known = |label: &str| ["0", "1", "2"].contains(&label);
        assert_eq!(find_labels(first.path(), known).unwrap(), LabelAt::First);
        assert_eq!(find_labels(last.path(), known).unwrap(), LabelAt::Last);
        let error = find_labels(last.path(), |label| label == "1").unwrap_err().to_string();
        assert!(error.ends_with("line 2: `Bad` is none of the labels"), "{error}");
    }

    #[test]
    fn json_lines_have_a_label_and_one_input() {
        let lines = "{\"text\":\"hi\",\"label\":\"a\"}\n{\"vector\":[1,2],\"label\":3}\n{\"tokens\":[\"x\",\"\"],\"label\":\"b\"}\n";
        assert_eq!(shown(&read_json_lines(file(lines).path()).unwrap()), ["1 a=hi", "2 3=[1,2]", "3 b=x"]);
        for (line, wanted) in [("{\"text\":\"hi\"}", "`label`"), ("{\"label\":\"a\"}", "one of the keys")] {
            let error = read_json_lines(file(line).path()).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
