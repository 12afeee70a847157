//! What becomes of a record that cannot be labelled.

use super::RawRecord;
use base64::Engine as _;
use serde_json::{Map, Value, json};

/// A record that could not be labelled, with its reason.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    pub record: RawRecord,
    /// `strand-error`: stable, for programs.
    pub code: &'static str,
    /// `strand-error-detail`: for people.
    pub detail: String,
}

impl DeadLetter {
    /// As the embedded and stdio transports give it to readers: reason and place, then the record as it came. Bytes
    /// that are no UTF-8 are in base64, as `value_base64` (`stream_base64`).
    pub fn to_json(&self) -> Map<String, Value> {
        let RawRecord { origin, key, value, headers, timestamp_ms, defect: _ } = &self.record;
        let mut fields = Map::new();
        fields.insert("error".to_string(), json!(self.code));
        fields.insert("detail".to_string(), json!(self.detail));
        fields.insert("source".to_string(), json!(origin.to_string()));
        fields.insert("timestamp_ms".to_string(), json!(timestamp_ms));
        let mut put = |name: &str, bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) => fields.insert(name.to_string(), json!(text)),
            Err(_) => {
                let text = base64::engine::general_purpose::STANDARD.encode(bytes);
                fields.insert(format!("{name}_base64"), json!(text))
            }
        };
        if let Some(key) = key {
            put("stream", key);
        }
        put("value", value);
        let text = |value: &Option<Vec<u8>>| value.as_deref().map(String::from_utf8_lossy).into();
        let headers: Map<String, Value> = headers.iter().map(|(name, value)| (name.clone(), text(value))).collect();
        fields.insert("headers".to_string(), Value::Object(headers));
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Event, Origin};

    #[test]
    fn a_dead_letter_keeps_the_record_as_it_came() {
        let record = RawRecord {
            origin: Origin::Record { topic: "queue".into(), partition: 0, offset: 7 },
            key: Some(b"s".to_vec()),
            value: vec![0xff],
            headers: Event::headers(Some(Event::End)),
            timestamp_ms: 5,
            defect: None,
        };
        let letter = DeadLetter { record, code: "invalid_utf8", detail: "byte 0".to_string() };
        let expected = concat!(
            r#"{"error":"invalid_utf8","detail":"byte 0","source":"queue/0/7","timestamp_ms":5,"stream":"s","#,
            r#""value_base64":"/w==","headers":{"strand-event":"end"}}"#
        );
        assert_eq!(Value::Object(letter.to_json()).to_string(), expected);
    }
}
