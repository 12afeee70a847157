//! Running text as a whole, and parts of it.

use super::{DataError, Source};
use std::ops::Range;
use std::path::Path;

/// All text of a file, plain or gzip.
///
/// # Errors
/// When it cannot be read, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, DataError> {
    let (mut source, mut bytes) = (Source::open(path)?, Vec::new());
    loop {
        let at_hand = source.available()?;
        let count = at_hand.len();
        if count == 0 {
            break;
        }
        bytes.extend_from_slice(at_hand);
        source.consume(count);
    }
    String::from_utf8(bytes).map_err(|error| DataError::File {
        name: source.name().to_string(),
        detail: format!("byte {} is not valid UTF-8", error.utf8_error().valid_up_to() + 1),
    })
}

/// Characters `range` of a text, counted from 0; nothing where it has no such part.
pub fn characters(text: &str, range: Range<usize>) -> Option<&str> {
    let mut places = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let from = places.nth(range.start)?;
    match range.end.checked_sub(range.start)? {
        0 => None,
        more => text.get(from..places.nth(more - 1)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_in_characters() {
        assert_eq!(characters("añb", 1..3), Some("ñb"));
        assert_eq!(characters("añb", 0..1), Some("a"));
        assert_eq!((characters("añb", 2..4), characters("añb", 1..1)), (None, None));
    }
}
