//! A record as one JSON object: the lines of `POST /v1/records` and of the stdio transport.
//!
//! `{"stream": "s1", "text": "a piece", "event": "end", "id": 7}`; instead of `text` there may be `tokens` (an array
//! of strings), `value` (any JSON: numbers for vector models, an object for `input.format = "json"`) or `base64`.

use super::Event;
use base64::Engine as _;
use serde::Deserialize;

/// One line, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    pub stream: String,
    pub value: Vec<u8>,
    pub event: Option<Event>,
    /// The client's own number of this record in its stream, for taking it only once.
    pub id: Option<u64>,
}

/// Why a line is no record: a stable code and words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct LineError {
    pub code: &'static str,
    pub detail: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    stream: Option<String>,
    text: Option<String>,
    tokens: Option<Vec<String>>,
    value: Option<serde_json::Value>,
    base64: Option<String>,
    event: Option<String>,
    id: Option<u64>,
}

impl Line {
    pub fn parse(line: &[u8]) -> Result<Line, LineError> {
        let error = |code, detail: String| LineError { code, detail };
        let fields: Fields = serde_json::from_slice(line).map_err(|e| error("invalid_json", e.to_string()))?;
        let stream = fields.stream.filter(|stream| !stream.is_empty());
        let stream = stream.ok_or_else(|| error("missing_key", "\"stream\" is missing or empty".to_string()))?;
        let event = fields.event.as_deref().map(str::parse).transpose();
        let event: Option<Event> = event.map_err(|e| error("unknown_event", format!("{e}")))?;
        let value = match (fields.text, fields.tokens, fields.value, fields.base64) {
            (Some(text), None, None, None) => text.into_bytes(),
            (None, Some(tokens), None, None) => serde_json::Value::from(tokens).to_string().into_bytes(),
            (None, None, Some(value), None) => value.to_string().into_bytes(),
            (None, None, None, Some(text)) => base64::engine::general_purpose::STANDARD
                .decode(text)
                .map_err(|e| error("invalid_json", format!("\"base64\": {e}")))?,
            (None, None, None, None) if event.is_some() => Vec::new(),
            (None, None, None, None) => {
                let detail = "one of \"text\", \"tokens\", \"value\", \"base64\" or an \"event\" is needed";
                return Err(error("wrong_shape", detail.to_string()));
            }
            _ => {
                let detail = "only one of \"text\", \"tokens\", \"value\" and \"base64\" may be given";
                return Err(error("wrong_shape", detail.to_string()));
            }
        };
        Ok(Line { stream, value, event, id: fields.id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> &'static str {
        Line::parse(line.as_bytes()).unwrap_err().code
    }

    #[test]
    fn a_value_comes_as_text_tokens_json_or_base64() {
        let value = |line: &str| String::from_utf8(Line::parse(line.as_bytes()).unwrap().value).unwrap();
        assert_eq!(value(r#"{"stream":"a","text":"Rom "}"#), "Rom ");
        assert_eq!(value(r#"{"stream":"a","tokens":["Rom","\""]}"#), r#"["Rom","\""]"#);
        assert_eq!(value(r#"{"stream":"a","value":[1.5,-2]}"#), "[1.5,-2]");
        assert_eq!(value(r#"{"stream":"a","base64":"Um9t"}"#), "Rom");
        assert_eq!(value(r#"{"stream":"a","event":"end"}"#), "");
    }

    #[test]
    fn what_is_no_record_is_told_by_its_code() {
        assert_eq!(code("{"), "invalid_json");
        assert_eq!(code(r#"{"stream":"a","text":"x","colour":1}"#), "invalid_json");
        assert_eq!(code(r#"{"text":"x"}"#), "missing_key");
        assert_eq!(code(r#"{"stream":"","text":"x"}"#), "missing_key");
        assert_eq!(code(r#"{"stream":"a","text":"x","event":"stop"}"#), "unknown_event");
        assert_eq!(code(r#"{"stream":"a"}"#), "wrong_shape");
        assert_eq!(code(r#"{"stream":"a","text":"x","tokens":[]}"#), "wrong_shape");
        assert_eq!(code(r#"{"stream":"a","base64":"?"}"#), "invalid_json");
    }
}
