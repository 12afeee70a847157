//! Characters as steps: every Unicode character of the text, white space included, is a unit.
//!
//! A unit is always a character of the text as it came. What it is looked up as may differ ([`CharSpec::nfkc`]), and its
//! row may also tell the class of the character and which two or three characters end with it.

use super::char_class::CharClass;
use super::vocab::{CharVocabulary, Counts, Vocabulary};
use super::{CharSpec, EncoderError, InputError, Layout, ReaderState, Rows, TableShape, text};
use sha2::Sha256;
use std::collections::HashMap;
use std::path::Path;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::compose;

pub(super) const FILE: &str = "chars.txt";
const BIGRAMS: &str = "bigrams.txt";
const TRIGRAMS: &str = "trigrams.txt";

#[derive(Debug, Clone)]
pub(super) struct Chars {
    chars: CharVocabulary,
    nfkc: bool,
    classes: bool,
    bigrams: Option<Vocabulary>,
    trigrams: Option<Vocabulary>,
}

/// The characters read last as they are looked up, the latest at the end.
#[derive(Default)]
struct Window([Option<char>; 3]);

impl Window {
    /// What [`Window::context`] gave.
    fn after(context: &[u8]) -> Window {
        let mut window = Window::default();
        std::str::from_utf8(context).unwrap_or_default().chars().for_each(|c| window.shift(c));
        window
    }

    fn context(&self) -> Vec<u8> {
        self.0.iter().flatten().collect::<String>().into_bytes()
    }

    fn shift(&mut self, c: char) {
        self.0 = [self.0[1], self.0[2], Some(c)];
    }

    /// Takes the next character of the text; returns what it is looked up as.
    fn push(&mut self, c: char, nfkc: bool) -> char {
        let c = if nfkc { normal(c) } else { c };
        match self.0[2].filter(|_| nfkc).and_then(|last| compose(last, c)) {
            // A mark, such as the voiced sound mark of half-width katakana: both make one character.
            Some(whole) => {
                self.0[2] = Some(whole);
                whole
            }
            None => {
                self.shift(c);
                c
            }
        }
    }

    /// The last `n` characters, if there are as many; uses the memory of `buffer`.
    fn ngram<'a>(&self, n: usize, buffer: &'a mut String) -> Option<&'a str> {
        let last = &self.0[self.0.len() - n..];
        buffer.clear();
        buffer.extend(last.iter().flatten());
        last.iter().all(Option::is_some).then_some(buffer)
    }
}

/// A character alone in Unicode Normalization Form KC, where that is one character; white space of any kind is a space.
fn normal(c: char) -> char {
    if c.is_ascii_graphic() || c == ' ' {
        return c;
    }
    if c.is_whitespace() {
        return ' ';
    }
    let mut form = c.nfkc();
    match (form.next(), form.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

impl Chars {
    /// Counts the characters of all tokens, whatever a token is; they are read as one text.
    pub fn learn(spec: &CharSpec, tokens: &mut dyn Iterator<Item = &str>) -> Chars {
        let (mut counts, mut bigrams, mut trigrams) = (HashMap::new(), Counts::default(), Counts::default());
        let (mut window, mut buffer) = (Window::default(), String::new());
        for c in tokens.flat_map(str::chars) {
            *counts.entry(window.push(c, spec.nfkc)).or_insert(0) += 1;
            if let Some(bigram) = window.ngram(2, &mut buffer).filter(|_| spec.bigram_dim > 0) {
                bigrams.add(bigram);
            }
            if let Some(trigram) = window.ngram(3, &mut buffer).filter(|_| spec.trigram_dim > 0) {
                trigrams.add(trigram);
            }
        }
        let table = |dim, counts| (dim > 0).then(|| Vocabulary::learn(counts, spec.ngram_min_count, spec.max_ngrams));
        Chars {
            chars: CharVocabulary::learn(counts, spec.min_count),
            nfkc: spec.nfkc,
            classes: spec.class_dim > 0,
            bigrams: table(spec.bigram_dim, bigrams),
            trigrams: table(spec.trigram_dim, trigrams),
        }
    }

    pub fn load(spec: &CharSpec, dir: &Path) -> Result<Chars, EncoderError> {
        let table = |dim, file| (dim > 0).then(|| Vocabulary::load(&dir.join(file))).transpose();
        Ok(Chars {
            chars: CharVocabulary::load(&dir.join(FILE))?,
            nfkc: spec.nfkc,
            classes: spec.class_dim > 0,
            bigrams: table(spec.bigram_dim, BIGRAMS)?,
            trigrams: table(spec.trigram_dim, TRIGRAMS)?,
        })
    }

    pub fn save(&self, dir: &Path) -> Result<(), EncoderError> {
        self.chars.save(&dir.join(FILE))?;
        for (table, file) in [(&self.bigrams, BIGRAMS), (&self.trigrams, TRIGRAMS)] {
            if let Some(table) = table {
                table.save(&dir.join(file))?;
            }
        }
        Ok(())
    }

    pub fn unit_text(&self, row: u32) -> Option<char> {
        self.chars.entry(row)
    }

    pub fn fingerprint_into(&self, hash: &mut Sha256) {
        self.chars.fingerprint_into(hash);
        for table in [&self.bigrams, &self.trigrams].into_iter().flatten() {
            table.fingerprint_into(hash);
        }
    }

    pub fn layout(&self, spec: &CharSpec) -> Layout {
        let mut tables = vec![TableShape { name: "char", rows: self.chars.rows(), dim: spec.dim }];
        if self.classes {
            tables.push(TableShape { name: "class", rows: CharClass::COUNT, dim: spec.class_dim });
        }
        if let Some(bigrams) = &self.bigrams {
            tables.push(TableShape { name: "bigram", rows: bigrams.rows(), dim: spec.bigram_dim });
        }
        if let Some(trigrams) = &self.trigrams {
            tables.push(TableShape { name: "trigram", rows: trigrams.rows(), dim: spec.trigram_dim });
        }
        Layout { tables, chars: None, dense: 0 }
    }

    pub fn push(&self, state: &mut ReaderState, bytes: &[u8], rows: &mut Rows) -> Result<(), InputError> {
        let joined;
        let buffer = match state.pending.is_empty() {
            true => bytes,
            false => {
                joined = [&state.pending, bytes].concat();
                &joined
            }
        };
        let (text, rest) = text::whole_characters(buffer, state.pending.len())?;
        self.rows(state, text.chars(), rows);
        state.pending = rest.to_vec();
        Ok(())
    }

    /// Each character of each token is a unit.
    pub fn push_tokens(&self, state: &mut ReaderState, tokens: &[impl AsRef<str>], rows: &mut Rows) {
        self.rows(state, tokens.iter().flat_map(|token| token.as_ref().chars()), rows);
    }

    fn rows(&self, state: &mut ReaderState, chars: impl Iterator<Item = char>, rows: &mut Rows) {
        let (mut window, mut buffer) = (Window::after(&state.context), String::new());
        for c in chars {
            let known_as = window.push(c, self.nfkc);
            let features = rows.unit(state.position, state.position + 1, c.into());
            state.position += 1;
            features.ids.push(self.chars.row(known_as));
            if self.classes {
                features.ids.push(CharClass::of(known_as) as u32);
            }
            for (table, n) in [(&self.bigrams, 2), (&self.trigrams, 3)] {
                if let Some(table) = table {
                    features.ids.push(window.ngram(n, &mut buffer).map_or(0, |ngram| table.row(ngram)));
                }
            }
        }
        if self.nfkc || self.bigrams.is_some() || self.trigrams.is_some() {
            state.context = window.context();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked_up(text: &str) -> String {
        let mut window = Window::default();
        text.chars().map(|c| window.push(c, true)).collect()
    }

    #[test]
    fn full_and_half_width_forms_are_looked_up_as_one() {
        assert_eq!(looked_up("ＡＢＣ１２３！"), "ABC123!");
        assert_eq!(looked_up("ｱｲｳ｡"), "アイウ。");
        assert_eq!(looked_up("か\u{3000}な\nも"), "か な も");
    }

    #[test]
    fn a_mark_is_looked_up_as_the_character_that_it_makes() {
        assert_eq!(looked_up("ｶﾞｯﾊﾟ"), "カガッハパ");
        assert_eq!(looked_up("か\u{3099}e\u{301}"), "かがeé");
        assert_eq!(looked_up("ﾞ"), "\u{3099}", "a mark alone is itself");
    }

    #[test]
    fn what_normalises_to_several_characters_stays_as_it_is() {
        assert_eq!(looked_up("㌔㈱…𠮷👩\u{200d}👩"), "㌔㈱…𠮷👩\u{200d}👩");
    }

    #[test]
    fn two_and_three_characters_that_end_here() {
        let (mut window, mut buffer) = (Window::default(), String::new());
        window.push('ｶ', true);
        assert_eq!(window.ngram(2, &mut buffer), None);
        window.push('ﾞ', true);
        assert_eq!(window.ngram(2, &mut buffer), None, "both are one character");
        window.push('ｲ', true);
        window.push('ド', true);
        assert_eq!(window.ngram(2, &mut buffer), Some("イド"));
        let mut window = Window::after(&window.context());
        assert_eq!(window.ngram(3, &mut buffer), Some("ガイド"));
        window.push('は', true);
        assert_eq!(window.ngram(3, &mut buffer), Some("イドは"));
    }
}
