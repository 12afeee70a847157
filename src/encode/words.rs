//! Features of words: normalised form, shape, characters, lexicon.

use super::lexicon::{self, Lexicon};
use super::text::TextReader;
use super::vocab::{CharVocabulary, Counts, Vocabulary};
use super::{EncoderError, Features, InputError, Layout, ReaderState, Rows, TableShape, WordSpec, chars};
use sha2::Sha256;
use std::collections::HashMap;
use std::path::Path;

const FILE: &str = "words.txt";
/// The character encoder sees no more of a word.
const MAX_CHARS: usize = 32;
/// A character must be seen as often in training to have a row of its own.
const MIN_CHAR_COUNT: u32 = 3;

#[derive(Debug, Clone)]
pub(super) struct Words {
    reader: TextReader,
    words: Vocabulary,
    shape: bool,
    chars: Option<CharVocabulary>,
    lexicon: Option<Lexicon>,
}

impl Words {
    pub fn learn(spec: &WordSpec, tokens: &mut dyn Iterator<Item = &str>, base: &Path) -> Result<Words, EncoderError> {
        let (mut words, mut chars, mut normal) = (Counts::default(), HashMap::new(), String::new());
        for word in tokens {
            words.add(normalised(word, &mut normal));
            for c in word.chars() {
                *chars.entry(c).or_insert(0) += 1;
            }
        }
        Ok(Words {
            reader: TextReader::new(spec.tokenizer),
            words: Vocabulary::learn(words, spec.min_count, spec.max_words),
            shape: spec.shape_dim > 0,
            chars: (spec.char_hidden > 0).then(|| CharVocabulary::learn(chars, MIN_CHAR_COUNT)),
            lexicon: match &spec.lexicon {
                Some(path) => Some(Lexicon::load(&base.join(path), spec.lexicon_bits)?),
                None => None,
            },
        })
    }

    pub fn load(spec: &WordSpec, dir: &Path) -> Result<Words, EncoderError> {
        Ok(Words {
            reader: TextReader::new(spec.tokenizer),
            words: Vocabulary::load(&dir.join(FILE))?,
            shape: spec.shape_dim > 0,
            chars: match spec.char_hidden {
                0 => None,
                _ => Some(CharVocabulary::load(&dir.join(chars::FILE))?),
            },
            lexicon: match &spec.lexicon {
                Some(_) => Some(Lexicon::load(&dir.join(lexicon::FILE), spec.lexicon_bits)?),
                None => None,
            },
        })
    }

    pub fn save(&self, dir: &Path) -> Result<(), EncoderError> {
        self.words.save(&dir.join(FILE))?;
        if let Some(chars) = &self.chars {
            chars.save(&dir.join(chars::FILE))?;
        }
        match &self.lexicon {
            Some(lexicon) => lexicon.save(&dir.join(lexicon::FILE)),
            None => Ok(()),
        }
    }

    pub fn unit_text(&self, row: u32) -> Option<&str> {
        self.words.entry(row)
    }

    pub fn fingerprint_into(&self, hash: &mut Sha256) {
        self.words.fingerprint_into(hash);
        if let Some(chars) = &self.chars {
            chars.fingerprint_into(hash);
        }
        if let Some(lexicon) = &self.lexicon {
            lexicon.fingerprint_into(hash);
        }
    }

    pub fn layout(&self, spec: &WordSpec) -> Layout {
        let mut tables = vec![TableShape { name: "word", rows: self.words.rows(), dim: spec.word_dim }];
        if self.shape {
            tables.push(TableShape { name: "shape", rows: Shape::COUNT, dim: spec.shape_dim });
        }
        let dense = self.lexicon.as_ref().map_or(0, Lexicon::bits);
        Layout { tables, chars: self.chars.as_ref().map(CharVocabulary::rows), dense }
    }

    pub fn push(&self, state: &mut ReaderState, bytes: &[u8], rows: &mut Rows) -> Result<(), InputError> {
        let mut normal = String::new();
        self.reader.push(state, bytes, &mut |start, end, word| {
            self.row(word, rows.unit(start, end, word.to_string()), &mut normal);
        })
    }

    pub fn finish(&self, state: &mut ReaderState, rows: &mut Rows) -> Result<(), InputError> {
        let mut normal = String::new();
        self.reader.finish(state, &mut |start, end, word| {
            self.row(word, rows.unit(start, end, word.to_string()), &mut normal);
        })
    }

    /// Takes the tokens even if what was pending before them was wrong, which is the error.
    pub fn push_tokens(
        &self,
        state: &mut ReaderState,
        tokens: &[impl AsRef<str>],
        rows: &mut Rows,
    ) -> Result<(), InputError> {
        let mut result = Ok(());
        if !state.pending.is_empty() {
            result = self.finish(state, rows);
            state.position += 1;
        }
        let mut normal = String::new();
        for word in tokens {
            let word = word.as_ref();
            let end = state.position + word.chars().count() as u64;
            self.row(word, rows.unit(state.position, end, word.to_string()), &mut normal);
            state.position = end + 1;
        }
        result
    }

    fn row(&self, word: &str, features: &mut Features, normal: &mut String) {
        features.ids.push(self.words.row(normalised(word, normal)));
        if self.shape {
            features.ids.push(Shape::of(word) as u32);
        }
        if let Some(chars) = &self.chars {
            features.chars.extend(word.chars().take(MAX_CHARS).map(|c| chars.row(c)));
            features.char_ends.push(features.chars.len() as u32);
        }
        if let Some(lexicon) = &self.lexicon {
            lexicon.push_columns(word, &mut features.dense);
        }
    }
}

/// The form under which a word is in the vocabulary: lower case, every digit 0. Uses the memory of `buffer`.
fn normalised<'a>(word: &str, buffer: &'a mut String) -> &'a str {
    buffer.clear();
    if word.is_ascii() {
        buffer.extend(word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c.to_ascii_lowercase() }));
    } else {
        // Of the whole word: a sigma at its end has a lower case of its own.
        buffer.extend(word.to_lowercase().chars().map(|c| if c.is_numeric() { '0' } else { c }));
    }
    buffer
}

/// The shape class of a word; the numbers are rows of a trained table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Letters without case.
    Other = 0,
    Lower = 1,
    /// The first letter in upper case, all others in lower case.
    Title = 2,
    Upper = 3,
    /// One letter, in upper case.
    Initial = 4,
    Mixed = 5,
    Digits = 6,
    /// Letters and digits.
    HasDigit = 7,
    /// Neither letters nor digits.
    Punctuation = 8,
    /// Letters with a hyphen inside.
    Hyphenated = 9,
}

impl Shape {
    const COUNT: usize = 10;

    /// The first class that fits, in this order: without letters digits or punctuation; then a digit, a hyphen, case.
    fn of(word: &str) -> Shape {
        let (mut letters, mut upper, mut lower, mut digits, mut length) = (0, 0, 0, 0, 0);
        let (mut hyphens, mut begins_upper) = (0, false);
        for c in word.chars() {
            length += 1;
            if c.is_alphabetic() {
                letters += 1;
                upper += usize::from(c.is_uppercase());
                lower += usize::from(c.is_lowercase());
                begins_upper |= letters == 1 && c.is_uppercase();
            } else if c.is_numeric() {
                digits += 1;
            } else if c == '-' {
                hyphens += 1;
            }
        }
        let edges = usize::from(word.starts_with('-')) + usize::from(word.ends_with('-'));
        match () {
            _ if letters == 0 && digits > 0 => Shape::Digits,
            _ if letters == 0 => Shape::Punctuation,
            _ if digits > 0 => Shape::HasDigit,
            _ if hyphens > edges => Shape::Hyphenated,
            _ if length == 1 && upper == 1 => Shape::Initial,
            _ if upper == letters => Shape::Upper,
            _ if lower == letters => Shape::Lower,
            _ if begins_upper && upper == 1 && lower + 1 == letters => Shape::Title,
            _ if upper > 0 => Shape::Mixed,
            _ => Shape::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_of_a_word() {
        let expected = [
            (Shape::Lower, "word n't don't naïve"),
            (Shape::Title, "Word O'neill Mr. Élan"),
            (Shape::Upper, "USA U.S. A. AT&T"),
            (Shape::Initial, "I A É"),
            (Shape::Mixed, "iPhone McDonald O'Neill eBay"),
            (Shape::Digits, "1 1,000.50 11/9 ½"),
            (Shape::HasDigit, "5th A4 co-2"),
            (Shape::Punctuation, ". -- $ :) -"),
            (Shape::Hyphenated, "e-mail Non-Bondad a--"),
            (Shape::Other, "東京 العربية"),
            (Shape::Lower, "-s word-"),
        ];
        for (shape, words) in expected {
            for word in words.split(' ') {
                assert_eq!(Shape::of(word), shape, "{word}");
            }
        }
    }

    #[test]
    fn words_are_looked_up_in_lower_case_with_zeros_for_digits() {
        let mut buffer = String::from("before");
        assert_eq!(normalised("AK-47s", &mut buffer), "ak-00s");
        assert_eq!(normalised("ΣΑΣ٣", &mut buffer), "σας0");
        assert_eq!(normalised("ΟΔΟΣ", &mut buffer), "οδος");
    }
}
