//! A lexicon: facts about exact word forms, each fact one 0/1 column.

use super::EncoderError;
use super::index::Index;
use super::vocab::{ListHash, lines, read, write};
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
        let count = bytes.iter().filter(|&&byte| byte == b'\n').count();
        let (mut words, mut flags) = (Index::with_capacity(count + 1, bytes.len()), Vec::with_capacity(count + 1));
        let (mut before, mut in_order) = ("", true);
        for (number, line) in lines(&bytes, path)?.filter(|_| !bytes.is_empty()) {
            let Some((word, mask)) = line.rsplit_once('\t').filter(|(word, _)| !word.is_empty()) else {
                return Err(EncoderError::line(path, number, format!("expected word<TAB>flags, found {line:?}")));
            };
            match mask.parse::<u32>() {
                Ok(mask) if u64::from(mask) < 1 << bits => flags.push(mask),
                Ok(_) => {
                    let detail = format!("flags {mask} have more bits than lexicon_bits = {bits}");
                    return Err(EncoderError::line(path, number, detail));
                }
                Err(_) => return Err(EncoderError::line(path, number, format!("flags {mask:?} are no number"))),
            }
            if !words.insert(word) {
                return Err(EncoderError::line(path, number, format!("{word:?} a second time")));
            }
            in_order &= before < word;
            before = word;
        }
        let lexicon = Lexicon { words, flags, bits };
        // As it was saved it is in order already.
        Ok(if in_order { lexicon } else { lexicon.sorted() })
    }

    fn sorted(self) -> Lexicon {
        let mut entries: Vec<(&str, u32)> = self.words.iter().zip(self.flags).collect();
        entries.sort_unstable();
        let mut words = Index::with_capacity(entries.len(), entries.iter().map(|(word, _)| word.len()).sum());
        entries.iter().for_each(|(word, _)| _ = words.insert(word));
        Lexicon { flags: entries.iter().map(|(_, flags)| *flags).collect(), words, bits: self.bits }
    }

    pub fn save(&self, path: &Path) -> Result<(), EncoderError> {
        let mut text = String::new();
        self.each_line(|line| {
            text.push_str(line);
            text.push('\n');
        });
        write(path, &text)
    }

    pub fn fingerprint_into(&self, hash: &mut Sha256) {
        let mut list = ListHash::new(hash, self.words.len());
        self.each_line(|line| list.add(line));
        list.finish();
    }

    /// The lines of the file.
    fn each_line(&self, mut take: impl FnMut(&str)) {
        let (mut line, mut digits) = (String::new(), itoa::Buffer::new());
        for (word, &flags) in self.words.iter().zip(&self.flags) {
            line.clear();
            line.push_str(word);
            line.push('\t');
            line.push_str(digits.format(flags));
            take(&line);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::Digest;

    #[test]
    fn the_order_of_the_lines_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Lexicon::load(&path, 4).unwrap()
        };
        let (one, other) = (of("b\t3\na\t10\nab\t1\n"), of("a\t10\r\nab\t01\nb\t3"));
        let hash = |lexicon: &Lexicon| {
            let mut hash = Sha256::new();
            lexicon.fingerprint_into(&mut hash);
            hash.finalize()
        };
        assert_eq!(hash(&one), hash(&other));
        for lexicon in [one, other] {
            lexicon.save(&path).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\t10\nab\t1\nb\t3\n");
            let mut columns = Vec::new();
            ["a", "b", "c"].iter().for_each(|word| lexicon.push_columns(word, &mut columns));
            assert_eq!(columns, [0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        }
    }
}
