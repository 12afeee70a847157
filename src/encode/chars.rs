//! Characters as steps: every Unicode character of the text, white space included, is a unit.

use super::vocab::CharVocabulary;
use super::{CharSpec, EncoderError, InputError, Layout, ReaderState, Rows, TableShape, text};
use sha2::Sha256;
use std::collections::HashMap;
use std::path::Path;

pub(super) const FILE: &str = "chars.txt";

#[derive(Debug, Clone)]
pub(super) struct Chars {
    chars: CharVocabulary,
}

impl Chars {
    /// Counts the characters of all tokens, whatever a token is.
    pub fn learn(spec: &CharSpec, tokens: &mut dyn Iterator<Item = &str>) -> Chars {
        let mut counts = HashMap::new();
        for c in tokens.flat_map(str::chars) {
            *counts.entry(c).or_insert(0) += 1;
        }
        Chars { chars: CharVocabulary::learn(counts, spec.min_count) }
    }

    pub fn load(dir: &Path) -> Result<Chars, EncoderError> {
        Ok(Chars { chars: CharVocabulary::load(&dir.join(FILE))? })
    }

    pub fn save(&self, dir: &Path) -> Result<(), EncoderError> {
        self.chars.save(&dir.join(FILE))
    }

    pub fn unit_text(&self, row: u32) -> Option<char> {
        self.chars.entry(row)
    }

    pub fn fingerprint_into(&self, hash: &mut Sha256) {
        self.chars.fingerprint_into(hash);
    }

    pub fn layout(&self, spec: &CharSpec) -> Layout {
        let table = TableShape { name: "char", rows: self.chars.rows(), dim: spec.dim };
        Layout { tables: vec![table], chars: None, dense: 0 }
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
        for c in text.chars() {
            rows.unit(state.position, state.position + 1, c.into()).ids.push(self.chars.row(c));
            state.position += 1;
        }
        state.pending = rest.to_vec();
        Ok(())
    }

    pub fn push_tokens(&self, state: &mut ReaderState, tokens: &[impl AsRef<str>], rows: &mut Rows) {
        for token in tokens {
            let token = token.as_ref();
            let mut chars = token.chars();
            let row = match (chars.next(), chars.next()) {
                (Some(c), None) => self.chars.row(c),
                _ => 0,
            };
            rows.unit(state.position, state.position + 1, token.to_string()).ids.push(row);
            state.position += 1;
        }
    }
}
