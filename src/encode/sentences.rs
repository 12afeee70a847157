//! Whole sentences as steps, for translation: a sentence ends at a line's end, at `flush` or `end`, and behind a character
//! of `ends` that white space follows. Until then it waits in [`ReaderState::pending`].
//!
//! A longer sentence than `max_source` characters is cut there, and the rest is a sentence of its own: what a stream
//! carries stays bounded. The one column of the features is 1 for a sentence that was cut.

use super::units::{UnitChoice, Units};
use super::{EncoderError, InputError, Layout, ReaderState, Rows, SentenceSpec, text};
use sha2::Sha256;
use std::path::Path;

const FILE: &str = "source.txt";

#[derive(Debug, Clone)]
pub(super) struct Sentences {
    pub units: Units,
    ends: Vec<char>,
    max_source: usize,
}

impl Sentences {
    /// The vocabulary is that of the source side's `sentences`.
    pub fn learn(spec: &SentenceSpec, sentences: &mut dyn Iterator<Item = &str>) -> Sentences {
        let SentenceSpec { units: kind, min_count, max_units, .. } = *spec;
        Sentences::new(spec, Units::learn(UnitChoice { kind, min_count, max_units }, sentences))
    }

    pub fn load(spec: &SentenceSpec, dir: &Path) -> Result<Sentences, EncoderError> {
        Ok(Sentences::new(spec, Units::load(spec.units, &dir.join(FILE))?))
    }

    fn new(spec: &SentenceSpec, units: Units) -> Sentences {
        Sentences { units, ends: spec.ends.clone(), max_source: spec.max_source }
    }

    pub fn save(&self, dir: &Path) -> Result<(), EncoderError> {
        self.units.save(&dir.join(FILE))
    }

    pub fn fingerprint_into(&self, hash: &mut Sha256) {
        self.units.fingerprint_into(hash);
    }

    pub fn layout(&self) -> Layout {
        Layout { dense: 1, ..Layout::default() }
    }

    pub fn push(&self, state: &mut ReaderState, bytes: &[u8], rows: &mut Rows) -> Result<(), InputError> {
        let pending = std::mem::take(&mut state.pending);
        let buffer = [&pending, bytes].concat();
        let (text, rest) = text::whole_characters(&buffer, pending.len())?;
        let mut waiting = Waiting::default();
        for c in text.chars() {
            if c.is_whitespace() && (c == '\n' || waiting.text.is_empty() || waiting.ends_with(&self.ends)) {
                self.sentence(&mut waiting, false, state, rows);
                state.position += 1;
                continue;
            }
            if waiting.chars == self.max_source {
                self.sentence(&mut waiting, true, state, rows);
                if c.is_whitespace() {
                    state.position += 1;
                    continue;
                }
            }
            waiting.text.push(c);
            waiting.chars += 1;
        }
        state.pending = [waiting.text.as_bytes(), rest].concat();
        Ok(())
    }

    /// What waits is a sentence; of half a character at its end, which is the error, it has nothing.
    pub fn finish(&self, state: &mut ReaderState, rows: &mut Rows) -> Result<(), InputError> {
        let pending = std::mem::take(&mut state.pending);
        let valid = std::str::from_utf8(&pending).map_or_else(|error| error.valid_up_to(), str::len);
        let whole = std::str::from_utf8(&pending[..valid]).unwrap_or_default();
        let mut waiting = Waiting { text: whole.to_string(), chars: whole.chars().count() };
        self.sentence(&mut waiting, false, state, rows);
        match valid == pending.len() {
            true => Ok(()),
            false => Err(InputError::InvalidUtf8 { at: 0 }),
        }
    }

    pub fn push_tokens(&self, state: &mut ReaderState, tokens: &[impl AsRef<str>], rows: &mut Rows) {
        for token in tokens {
            // What is valid UTF-8 is taken.
            let _ = self.push(state, token.as_ref().as_bytes(), rows);
            let _ = self.push(state, b"\n", rows);
        }
    }

    /// What waited is a sentence, unless it is nothing; white space behind it is none of it.
    fn sentence(&self, waiting: &mut Waiting, is_cut: bool, state: &mut ReaderState, rows: &mut Rows) {
        let Waiting { text, chars } = std::mem::take(waiting);
        let sentence = text.trim_end();
        if !sentence.is_empty() {
            let end = state.position + sentence.chars().count() as u64;
            rows.unit(state.position, end, sentence.to_string()).dense.push(f32::from(u8::from(is_cut)));
        }
        state.position += chars as u64;
    }
}

/// What has been read of a sentence: it begins with no white space.
#[derive(Default)]
struct Waiting {
    text: String,
    chars: usize,
}

impl Waiting {
    fn ends_with(&self, ends: &[char]) -> bool {
        self.text.chars().next_back().is_some_and(|last| ends.contains(&last))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Features, Unit};
    use super::*;
    use proptest::prelude::*;

    fn reader(max_source: usize) -> Sentences {
        let spec = SentenceSpec { max_source, ends: vec!['.', '?'], ..SentenceSpec::default() };
        Sentences::learn(&spec, &mut ["abc"].into_iter())
    }

    /// Sentences of a text in these pieces, and whether they were cut.
    fn read(reader: &Sentences, pieces: &[&[u8]]) -> (Vec<(u64, u64, String)>, Vec<f32>) {
        let (mut state, mut units, mut features) = (ReaderState::default(), Vec::new(), Features::default());
        for piece in pieces {
            reader.push(&mut state, piece, &mut Rows { units: &mut units, features: &mut features }).unwrap();
            assert!(state.pending.len() <= 4 * reader.max_source + 3);
        }
        reader.finish(&mut state, &mut Rows { units: &mut units, features: &mut features }).unwrap();
        (units.into_iter().map(|Unit { start, end, text }| (start, end, text)).collect(), features.dense)
    }

    #[test]
    fn a_sentence_ends_where_it_ends() {
        let (sentences, cut) = read(&reader(20), &[b" Is it? 3.5 is.  \n\nOne line \nlast"]);
        let texts: Vec<(u64, u64, &str)> = sentences.iter().map(|(a, b, text)| (*a, *b, text.as_str())).collect();
        assert_eq!(texts, [(1, 7, "Is it?"), (8, 15, "3.5 is."), (19, 27, "One line"), (29, 33, "last")]);
        assert_eq!(cut, [0.0; 4]);
        let (sentences, cut) = read(&reader(4), &["abcdéfgh".as_bytes(), b"ij"]);
        assert_eq!((sentences[1].2.as_str(), &cut[..]), ("éfgh", &[1.0, 1.0, 0.0][..]));
    }

    proptest! {
        #[test]
        fn sentences_do_not_depend_on_how_the_text_is_cut(text in "[ab é.?\n]{0,60}", cuts in proptest::collection::vec(0usize..80, 0..6)) {
            let reader = reader(9);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([text.len()]) {
                pieces.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            let (whole, in_pieces) = (read(&reader, &[text.as_bytes()]), read(&reader, &pieces));
            for (start, end, sentence) in &whole.0 {
                let at: String = text.chars().skip(*start as usize).take((end - start) as usize).collect();
                prop_assert_eq!(&at, sentence);
            }
            prop_assert_eq!(whole, in_pieces);
        }
    }
}
