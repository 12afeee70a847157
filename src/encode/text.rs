//! Running text to words, incrementally: UTF-8 cut anywhere, white space, then a tokenizer.
//!
//! A *chunk* is a maximal run of characters that are not white space. Its words are known when the white space behind
//! it arrives, and depend on the chunk alone, so that a reader keeps no more than one chunk and the result doesn't
//! depend on how the text was cut. Two rules keep a chunk short where white space is rare:
//!
//! - A chunk of [`MAX_CHUNK_CHARS`] characters is complete; what follows is a new chunk.
//! - Before an ideograph, a hiragana letter or an ideographic bracket, comma or stop a chunk is complete (except with
//!   [`Tokenizer::Whitespace`]). Unicode Standard Annex #29 has a word boundary before each of these whatever is around
//!   it (they have no Word_Break property, and no rule before WB999 joins such a character to what is before it).
//!   Katakana and hangul do form words in UAX #29; they wait for white space, punctuation or an ideograph.

use super::{InputError, ReaderState, Tokenizer, ud_english};
use unicode_segmentation::UnicodeSegmentation;

/// A chunk longer than this is cut into chunks of this many characters.
const MAX_CHUNK_CHARS: u64 = 256;

/// Reads text as words. What it has read of an unfinished chunk is in [`ReaderState::pending`].
#[derive(Debug, Clone)]
pub(super) struct TextReader {
    tokenizer: Tokenizer,
}

/// Takes a word with the positions of its first character and of the one behind it.
type Emit<'a> = &'a mut dyn FnMut(u64, u64, &str);

impl TextReader {
    pub fn new(tokenizer: Tokenizer) -> TextReader {
        TextReader { tokenizer }
    }

    /// Reads a piece of the stream.
    pub fn push(&self, state: &mut ReaderState, bytes: &[u8], emit: Emit) -> Result<(), InputError> {
        let pending = std::mem::take(&mut state.pending);
        let joined;
        let buffer = match pending.is_empty() {
            true => bytes,
            false => {
                joined = [&pending, bytes].concat();
                &joined
            }
        };
        let (text, rest) = whole_characters(buffer, pending.len())?;
        let chunk = self.chunks(text, &mut state.position, emit);
        state.pending = [chunk.as_bytes(), rest].concat();
        Ok(())
    }

    /// The pending chunk is complete.
    pub fn finish(&self, state: &mut ReaderState, emit: Emit) -> Result<(), InputError> {
        let pending = std::mem::take(&mut state.pending);
        match std::str::from_utf8(&pending) {
            Ok(text) => {
                let last = self.chunks(text, &mut state.position, emit);
                self.words(last, &mut state.position, emit);
                Ok(())
            }
            Err(error) => {
                let dropped = String::from_utf8_lossy(&pending[..error.valid_up_to()]).chars().count();
                state.position += dropped as u64;
                Err(InputError::InvalidUtf8 { at: 0 })
            }
        }
    }

    /// Emits the words of the chunks that are complete; returns the last one, which is not.
    fn chunks<'t>(&self, text: &'t str, position: &mut u64, emit: Emit) -> &'t str {
        let cuts_ideographs = self.tokenizer != Tokenizer::Whitespace;
        let (mut start, mut length) = (0, 0);
        for (at, c) in text.char_indices() {
            if c.is_whitespace() {
                self.words(&text[start..at], position, emit);
                *position += 1;
                (start, length) = (at + c.len_utf8(), 0);
                continue;
            }
            if length == MAX_CHUNK_CHARS || (cuts_ideographs && length > 0 && begins_word(c)) {
                self.words(&text[start..at], position, emit);
                (start, length) = (at, 0);
            }
            length += 1;
        }
        &text[start..]
    }

    /// Emits the words of a chunk, which together are all of it.
    fn words(&self, chunk: &str, position: &mut u64, emit: Emit) {
        let mut word = |word: &str| {
            let length = if word.is_ascii() { word.len() } else { word.chars().count() };
            let start = *position;
            *position += length as u64;
            emit(start, *position, word);
        };
        match self.tokenizer {
            _ if chunk.is_empty() => {}
            Tokenizer::Whitespace => word(chunk),
            Tokenizer::Uax29 => chunk.split_word_bounds().for_each(word),
            Tokenizer::UdEnglish => ud_english::words(chunk, &mut word),
        }
    }
}

/// Splits bytes into whole characters and the beginning of one more. `before` of the bytes were read earlier: the
/// position in an error counts from there.
pub(super) fn whole_characters(bytes: &[u8], before: usize) -> Result<(&str, &[u8]), InputError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok((text, &[])),
        Err(error) => {
            let (valid, rest) = bytes.split_at(error.valid_up_to());
            match (error.error_len(), std::str::from_utf8(valid)) {
                (None, Ok(text)) => Ok((text, rest)),
                _ => Err(InputError::InvalidUtf8 { at: error.valid_up_to().saturating_sub(before) }),
            }
        }
    }
}

/// Drops the beginning of a character, and says that it was there.
pub(super) fn finish_character(state: &mut ReaderState) -> Result<(), InputError> {
    match std::mem::take(&mut state.pending).is_empty() {
        true => Ok(()),
        false => Err(InputError::InvalidUtf8 { at: 0 }),
    }
}

/// Characters before which a word ends whatever is around them.
fn begins_word(c: char) -> bool {
    matches!(c,
        '\u{3001}'..='\u{3003}' | '\u{3006}'..='\u{3011}' | '\u{3014}'..='\u{301f}' | '\u{3041}'..='\u{3096}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{2fa1f}' | '\u{30000}'..='\u{323af}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uax29_has_a_word_boundary_before_every_character_that_begins_a_word() {
        for c in (0x3000..0x32400).filter_map(char::from_u32).filter(|&c| begins_word(c)) {
            for before in
                ["a", "7", "ア", "가", "_", ".", "a.", "a'", "7,", "東", "👍\u{200d}", "か\u{3099}", "🇩", "א\""]
            {
                let text = format!("{before}{c}a");
                let boundaries = text.split_word_bound_indices().any(|(at, _)| at == before.len());
                assert!(boundaries, "{text:?} {:x}", c as u32);
            }
        }
    }

    #[test]
    fn the_words_of_uax29_are_those_of_the_whole_text() {
        let text = "東京タワーに行く。I'm 3.5km（約）안녕하세요! 人々 e\u{301}a 👩\u{200d}👩 ﾊﾟ";
        let mut found = Vec::new();
        let mut state = ReaderState::default();
        let reader = TextReader::new(Tokenizer::Uax29);
        let mut emit = |_, _, word: &str| found.push(word.to_string());
        reader.push(&mut state, text.as_bytes(), &mut emit).unwrap();
        reader.finish(&mut state, &mut emit).unwrap();
        let whole: Vec<_> = text.split_word_bounds().filter(|word| !word.trim().is_empty()).collect();
        assert_eq!(found, whole);
    }
}
