//! A lexicon: facts about exact word forms, each fact one 0/1 column.

use super::EncoderError;
use super::vocab::{fingerprint, lines, read, write};
use sha2::Sha256;
use std::collections::HashMap;
use std::path::Path;

/// The lexicon's place in a model directory.
pub(super) const FILE: &str = "lexicon.tsv";

#[derive(Debug, Clone)]
pub(super) struct Lexicon {
    flags: HashMap<Box<str>, u32>,
    bits: usize,
}

impl Lexicon {
    /// Reads lines of a word, a tab and its flags as a decimal number below 2^bits.
    pub fn load(path: &Path, bits: usize) -> Result<Lexicon, EncoderError> {
        let bytes = read(path)?;
        let mut flags = HashMap::new();
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
            if flags.insert(word.into(), mask).is_some() {
                return Err(EncoderError::line(path, number, format!("{word:?} a second time")));
            }
        }
        Ok(Lexicon { flags, bits })
    }

    pub fn save(&self, path: &Path) -> Result<(), EncoderError> {
        let text: String = self.sorted().iter().map(|(word, flags)| format!("{word}\t{flags}\n")).collect();
        write(path, &text)
    }

    pub fn fingerprint_into(&self, hash: &mut Sha256) {
        let entries: Vec<_> = self.sorted().iter().map(|(word, flags)| format!("{word}\t{flags}")).collect();
        fingerprint(hash, entries.iter().map(String::as_str));
    }

    fn sorted(&self) -> Vec<(&str, u32)> {
        let mut entries: Vec<_> = self.flags.iter().map(|(word, &flags)| (&**word, flags)).collect();
        entries.sort_unstable();
        entries
    }

    /// Columns, one a bit, lowest bit first.
    pub fn bits(&self) -> usize {
        self.bits
    }

    pub fn push_columns(&self, word: &str, dense: &mut Vec<f32>) {
        let flags = self.flags.get(word).copied().unwrap_or(0);
        dense.extend((0..self.bits).map(|bit| ((flags >> bit) & 1) as f32));
    }
}
