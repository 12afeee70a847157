//! A lexicon: facts about exact word forms, each fact one 0/1 column.

use super::EncoderError;
use super::index::Index;
use super::vocab::{fingerprint, lines, read, write};
use sha2::Sha256;
use std::path::Path;

/// The lexicon's place in a model directory.
pub(super) const FILE: &str = "lexicon.tsv";

#[derive(Debug, Clone)]
pub(super) struct Lexicon {
    /// In order.
    words: Index,
    /// Of each word.
    flags: Vec<u32>,
    bits: usize,
}

impl Lexicon {
    /// Reads lines of a word, a tab and its flags as a decimal number below 2^bits.
    pub fn load(path: &Path, bits: usize) -> Result<Lexicon, EncoderError> {
        let bytes = read(path)?;
        let mut entries: Vec<(&str, u32, usize)> = Vec::new();
        for (number, line) in lines(&bytes, path)?.filter(|_| !bytes.is_empty()) {
            let Some((word, mask)) = line.rsplit_once('\t').filter(|(word, _)| !word.is_empty()) else {
                return Err(EncoderError::line(path, number, format!("expected word<TAB>flags, found {line:?}")));
            };
            let mask = match mask.parse::<u32>() {
                Ok(mask) if u64::from(mask) < 1 << bits => mask,
                Ok(_) => {
                    let detail = format!("flags {mask} have more bits than lexicon_bits = {bits}");
                    return Err(EncoderError::line(path, number, detail));
                }
                Err(_) => return Err(EncoderError::line(path, number, format!("flags {mask:?} are no number"))),
            };
            entries.push((word, mask, number));
        }
        // As they were saved they are in order already.
        if !entries.is_sorted_by_key(|(word, ..)| *word) {
            entries.sort_by_key(|(word, ..)| *word);
        }
        let mut words = Index::with_capacity(entries.len(), bytes.len());
        for (word, _, number) in &entries {
            if !words.insert(word) {
                return Err(EncoderError::line(path, *number, format!("{word:?} a second time")));
            }
        }
        Ok(Lexicon { words, flags: entries.into_iter().map(|(_, mask, _)| mask).collect(), bits })
    }

    pub fn save(&self, path: &Path) -> Result<(), EncoderError> {
        let text: String = self.listed().flat_map(|line| [line, "\n".to_string()]).collect();
        write(path, &text)
    }

    pub fn fingerprint_into(&self, hash: &mut Sha256) {
        fingerprint(hash, self.listed());
    }

    /// The lines of the file.
    fn listed(&self) -> impl ExactSizeIterator<Item = String> {
        self.words.iter().zip(&self.flags).map(|(word, flags)| format!("{word}\t{flags}"))
    }

    /// Columns, one a bit, lowest bit first.
    pub fn bits(&self) -> usize {
        self.bits
    }

    pub fn push_columns(&self, word: &str, dense: &mut Vec<f32>) {
        let flags = self.words.find(word).map_or(0, |number| self.flags[number]);
        dense.extend((0..self.bits).map(|bit| ((flags >> bit) & 1) as f32));
    }
}
