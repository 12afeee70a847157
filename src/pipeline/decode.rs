//! From a raw record to a [`Record`]: its event, and the piece of the stream that it carries.

use crate::state::StreamId;
use crate::transport::{DeadLetter, EVENT_HEADER, Event, Origin, RawRecord};

/// A record whose envelope is in order. Whether the value is, the session says.
#[derive(Debug)]
pub struct Record {
    pub event: Option<Event>,
    pub raw: RawRecord,
    /// The field of the value that is the piece, where not all of the value is.
    field: Option<Vec<u8>>,
}

impl Record {
    /// The piece of the stream.
    pub fn piece(&self) -> &[u8] {
        self.field.as_deref().unwrap_or(&self.raw.value)
    }
}

/// How values are read before the session sees them.
#[derive(Debug, Clone)]
pub struct Decoder {
    pub max_record_bytes: usize,
    /// With `input.format = "json"`: where in the object the piece is.
    pub pointer: Option<String>,
}

/// The stream that a record belongs to.
pub fn stream_of(mut raw: RawRecord) -> Result<(StreamId, RawRecord), Box<DeadLetter>> {
    if let Some(defect) = raw.defect.take() {
        return Err(reject(raw, defect.code, defect.detail));
    }
    let partition = match raw.origin {
        Origin::Record { partition, .. } => partition,
        Origin::Strand => 0,
    };
    match StreamId::within(partition, raw.key.as_deref().unwrap_or_default()) {
        Ok(stream) => Ok((stream, raw)),
        Err(error @ crate::state::KeyError::Missing) => Err(reject(raw, "missing_key", error.to_string())),
        Err(error @ crate::state::KeyError::TooLong { .. }) => Err(reject(raw, "key_too_long", error.to_string())),
    }
}

pub fn reject(record: RawRecord, code: &'static str, detail: String) -> Box<DeadLetter> {
    Box::new(DeadLetter { record, code, detail })
}

impl Decoder {
    pub fn decode(&self, raw: RawRecord) -> Result<Record, Box<DeadLetter>> {
        let (bytes, limit) = (raw.value.len(), self.max_record_bytes);
        if bytes > limit {
            let detail = format!("the value has {bytes} bytes; input.max_record_bytes is {limit}");
            return Err(reject(raw, "too_large", detail));
        }
        let event = match raw.headers.iter().find(|(name, _)| name == EVENT_HEADER) {
            None => None,
            Some((_, value)) => match String::from_utf8_lossy(value.as_deref().unwrap_or_default()).parse::<Event>() {
                Ok(event) => Some(event),
                Err(error) => return Err(reject(raw, "unknown_event", error.to_string())),
            },
        };
        let field = match &self.pointer {
            Some(_) if raw.value.is_empty() && event.is_some() => None,
            Some(pointer) => match field_at(&raw.value, pointer) {
                Ok(field) => Some(field),
                Err((code, detail)) => return Err(reject(raw, code, detail)),
            },
            None => None,
        };
        Ok(Record { event, raw, field })
    }
}

/// The field's text, or its JSON where it is not a string.
fn field_at(value: &[u8], pointer: &str) -> Result<Vec<u8>, (&'static str, String)> {
    let object: serde_json::Value =
        serde_json::from_slice(value).map_err(|e| ("invalid_json", format!("the value is no JSON: {e}")))?;
    match object.pointer(pointer) {
        Some(serde_json::Value::String(text)) => Ok(text.clone().into_bytes()),
        Some(other) => Ok(other.to_string().into_bytes()),
        None => Err(("wrong_shape", format!("the value has nothing at input.pointer {pointer:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(value: &str, event: Option<&str>) -> RawRecord {
        let headers = event.map(|event| (EVENT_HEADER.to_string(), Some(event.as_bytes().to_vec())));
        let headers = headers.into_iter().collect();
        RawRecord { origin: Origin::Strand, key: None, value: value.into(), headers, timestamp_ms: 0, defect: None }
    }

    #[test]
    fn the_piece_is_the_value_or_a_field_of_it() {
        let plain = Decoder { max_record_bytes: 100, pointer: None };
        assert_eq!(plain.decode(raw("{}", None)).unwrap().piece(), b"{}");
        let json = Decoder { max_record_bytes: 100, pointer: Some("/a/b".to_string()) };
        assert_eq!(json.decode(raw(r#"{"a":{"b":"x y"}}"#, None)).unwrap().piece(), b"x y");
        assert_eq!(json.decode(raw(r#"{"a":{"b":[1,2]}}"#, None)).unwrap().piece(), b"[1,2]");
        assert_eq!(json.decode(raw("", Some("end"))).unwrap().piece(), b"");
    }

    #[test]
    fn a_bad_envelope_has_its_code() {
        let decoder = Decoder { max_record_bytes: 8, pointer: Some("/a".to_string()) };
        let code = |value: &str, event| decoder.decode(raw(value, event)).unwrap_err().code;
        assert_eq!(code("123456789", None), "too_large");
        assert_eq!(code("{}", Some("stop")), "unknown_event");
        assert_eq!(code("{", None), "invalid_json");
        assert_eq!(code("{}", None), "wrong_shape");
        assert_eq!(stream_of(raw("", None)).unwrap_err().code, "missing_key");
        let long = RawRecord { key: Some(vec![b'k'; 1025]), ..raw("", None) };
        assert_eq!(stream_of(long).unwrap_err().code, "key_too_long");
    }
}
