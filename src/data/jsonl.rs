//! JSON lines: one object a line, `{"tokens":[…],"labels":[…]}` or `{"stream":"a","text":"…"}`.

use super::{DataError, Lines, Sentence, Source};
use serde::Deserialize;
use std::path::Path;

/// One line's object. Keys that are not listed here are passed over.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct JsonRecord {
    /// The stream that the record goes on; without it the record is a stream of its own.
    pub stream: Option<String>,
    /// A piece of running text.
    pub text: Option<String>,
    pub tokens: Option<Vec<String>>,
    /// A label for each token.
    pub labels: Option<Vec<String>>,
    /// The label of the whole stream: a string or a number.
    pub label: Option<serde_json::Value>,
    /// Bases, as IUPAC codes.
    pub dna: Option<String>,
    /// Numbers of one step, or an array of such arrays.
    pub vector: Option<serde_json::Value>,
    /// Steps of notes: an array of arrays of MIDI pitches.
    pub notes: Option<serde_json::Value>,
    /// What the stream reads as, for transcribers.
    pub transcript: Option<String>,
    /// What happens to the stream, such as `end`.
    pub event: Option<String>,
}

impl JsonRecord {
    /// The label of the whole stream as text.
    pub fn label_text(&self) -> Option<String> {
        match &self.label {
            Some(serde_json::Value::String(label)) if !label.is_empty() => Some(label.clone()),
            Some(serde_json::Value::Number(label)) => Some(label.to_string()),
            _ => None,
        }
    }
}

/// Reads records one after the other.
pub struct JsonlReader {
    lines: Lines,
    line: String,
}

impl JsonlReader {
    pub fn new(source: Source) -> JsonlReader {
        JsonlReader { lines: Lines::new(source), line: String::new() }
    }

    pub fn open(path: &Path) -> Result<JsonlReader, DataError> {
        Ok(JsonlReader::new(Source::open(path)?))
    }

    /// The next record, or nothing at the end. Blank lines are passed over.
    pub fn record(&mut self) -> Result<Option<JsonRecord>, DataError> {
        while self.lines.next_into(&mut self.line)? {
            if self.line.trim().is_empty() {
                continue;
            }
            return match serde_json::from_str(&self.line) {
                Ok(record) => Ok(Some(record)),
                Err(error) => Err(self
                    .lines
                    .error(format!("expected a JSON object such as {{\"stream\":\"a\",\"text\":\"…\"}}: {error}"))),
            };
        }
        Ok(None)
    }

    /// The next record as tokens with their labels, or nothing at the end.
    pub fn sentence(&mut self) -> Result<Option<Sentence>, DataError> {
        match self.record()? {
            None => Ok(None),
            Some(JsonRecord { tokens: Some(tokens), labels: Some(labels), .. }) if tokens.len() == labels.len() => {
                Ok(Some(Sentence { tokens, labels }))
            }
            Some(JsonRecord { tokens: Some(tokens), labels: Some(labels), .. }) => Err(self.error(format!(
                "expected a label for each token, found {} tokens and {} labels",
                tokens.len(),
                labels.len()
            ))),
            Some(_) => Err(self.error("expected the keys `tokens` and `labels`")),
        }
    }

    /// Number of the line read last.
    pub fn line(&self) -> u64 {
        self.lines.line()
    }

    /// An error about the line read last.
    pub fn error(&self, detail: impl Into<String>) -> DataError {
        self.lines.error(detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn reader(text: &'static str) -> JsonlReader {
        JsonlReader::new(Source::new("x.jsonl", Cursor::new(text)).unwrap())
    }

    #[test]
    fn records_may_carry_other_keys() {
        let mut reader =
            reader("{\"stream\":\"a\",\"text\":\"hi\",\"at\":3}\n\n{\"tokens\":[\"b\"],\"labels\":[\"O\"]}\n");
        let record = reader.record().unwrap().unwrap();
        assert_eq!((record.stream.as_deref(), record.text.as_deref()), (Some("a"), Some("hi")));
        assert_eq!(reader.sentence().unwrap().unwrap().labels, ["O"]);
        assert_eq!(reader.record().unwrap(), None);
    }

    #[test]
    fn errors_tell_the_line() {
        let error = reader("\n{\"text\":1}\n").record().unwrap_err().to_string();
        assert!(error.starts_with("x.jsonl, line 2: expected a JSON object"), "{error}");
        let error = reader("{\"tokens\":[\"a\",\"b\"],\"labels\":[\"O\"]}").sentence().unwrap_err().to_string();
        assert_eq!(error, "x.jsonl, line 1: expected a label for each token, found 2 tokens and 1 labels");
    }
}
