//! The `tokens` format: a record is a JSON array of strings.

use super::InputError;

const EXPECTED: &str = "an array of strings";

/// The strings of a record. A token may hold white space, but not be empty.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<String>, InputError> {
    let tokens: Vec<String> = serde_json::from_slice(bytes).map_err(|error| {
        let detail = error.to_string();
        match error.is_data() {
            true => InputError::WrongShape { detail: format!("expected {EXPECTED}: {detail}") },
            false => InputError::InvalidJson { expected: EXPECTED, detail },
        }
    })?;
    match tokens.iter().position(String::is_empty) {
        Some(k) => Err(InputError::WrongShape { detail: format!("token {k} of the record is empty") }),
        None => Ok(tokens),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(record: &str) -> &'static str {
        parse(record.as_bytes()).unwrap_err().code()
    }

    #[test]
    fn a_record_is_an_array_of_strings_that_are_not_empty() {
        assert_eq!(parse(br#" ["a", "New York", "\u00e9"] "#).unwrap(), ["a", "New York", "é"]);
        assert_eq!(parse(b"[]").unwrap(), Vec::<String>::new());
        assert_eq!(code(r#"["a", ""]"#), "wrong_shape");
        assert_eq!(code(r#"["a", 1]"#), "wrong_shape");
        assert_eq!(code(r#"{"a": "b"}"#), "wrong_shape");
        assert_eq!(code(r#"["a""#), "invalid_json");
        assert_eq!(code(r#"["a"] x"#), "invalid_json");
        assert_eq!(code(""), "invalid_json");
        assert_eq!(parse(b"[\"\xff\"]").unwrap_err().code(), "invalid_json");
    }
}
