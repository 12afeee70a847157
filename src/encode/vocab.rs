//! A vocabulary: texts to table rows, counted from training data, kept in a file with one entry a line.

use super::EncoderError;
use super::index::Index;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;

/// First line of every vocabulary file: row 0 stands for all that is in none of the others.
const UNKNOWN: &str = "<UNK>";

/// Bytes that are handed to a hash at once, at least.
const HASHED_TOGETHER: usize = 1 << 14;

/// How often each text was seen.
#[derive(Debug, Default)]
pub(super) struct Counts(HashMap<Box<str>, u64>);

impl Counts {
    pub fn add(&mut self, text: &str) {
        match self.0.get_mut(text) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(text.into(), 1)),
        }
    }

    /// What was seen at least `least` times, most frequent first, equals in order of their text; at most `most`.
    pub fn ranked(self, least: u64, most: usize) -> Vec<Box<str>> {
        let mut seen: Vec<_> = self.0.into_iter().filter(|(_, count)| *count >= least).collect();
        seen.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        seen.truncate(most);
        seen.into_iter().map(|(text, _)| text).collect()
    }
}

/// Texts and their rows, from 1; row 0 is unknown.
#[derive(Debug, Clone, Default)]
pub(super) struct Vocabulary(Index);

impl Vocabulary {
    /// The vocabulary of what was counted. Texts that a line of the file can't hold stay unknown.
    pub fn learn(counts: Counts, least: u32, most: usize) -> Vocabulary {
        let mut vocabulary = Vocabulary::default();
        for entry in counts.ranked(least.into(), usize::MAX) {
            if vocabulary.0.len() >= most {
                break;
            }
            if !entry.is_empty() && !entry.contains(['\n', '\r']) && &*entry != UNKNOWN {
                vocabulary.0.insert(&entry);
            }
        }
        vocabulary
    }

    pub fn row(&self, text: &str) -> u32 {
        self.0.find(text).map_or(0, |number| number as u32 + 1)
    }

    /// The text of a row but 0, if there is such a row.
    pub fn entry(&self, row: u32) -> Option<&str> {
        self.0.get((row as usize).checked_sub(1)?)
    }

    /// Rows of the table, the unknown one included.
    pub fn rows(&self) -> usize {
        self.0.len() + 1
    }

    /// Reads a file whose line k + 1 holds the entry of row k.
    pub fn load(path: &Path) -> Result<Vocabulary, EncoderError> {
        let bytes = read(path)?;
        let count = bytes.iter().filter(|&&byte| byte == b'\n').count();
        let mut vocabulary = Vocabulary(Index::with_capacity(count, bytes.len()));
        for (number, line) in lines(&bytes, path)? {
            match (number, line) {
                (1, UNKNOWN) => {}
                (1, _) => return Err(EncoderError::line(path, 1, format!("expected {UNKNOWN}, found {line:?}"))),
                (_, "") => return Err(EncoderError::line(path, number, "an empty entry")),
                (_, UNKNOWN) => return Err(EncoderError::line(path, number, format!("{UNKNOWN} a second time"))),
                _ if !vocabulary.0.insert(line) => {
                    return Err(EncoderError::line(path, number, format!("{line:?} a second time")));
                }
                _ => {}
            }
        }
        Ok(vocabulary)
    }

    pub fn save(&self, path: &Path) -> Result<(), EncoderError> {
        let mut text = String::from(UNKNOWN);
        for entry in self.0.iter() {
            text.push('\n');
            text.push_str(entry);
        }
        text.push('\n');
        write(path, &text)
    }

    pub fn fingerprint_into(&self, hash: &mut Sha256) {
        fingerprint(hash, self.0.iter());
    }
}

/// Hashes a list so that no two lists hash alike.
pub(super) fn fingerprint(hash: &mut Sha256, entries: impl ExactSizeIterator<Item = impl AsRef<str>>) {
    let mut list = ListHash::new(hash, entries.len());
    entries.for_each(|entry| list.add(entry.as_ref()));
    list.finish();
}

/// A list on its way into a hash; in few calls, since each has its price.
pub(super) struct ListHash<'a> {
    hash: &'a mut Sha256,
    together: Vec<u8>,
}

impl ListHash<'_> {
    /// For a list of so many entries.
    pub fn new(hash: &mut Sha256, entries: usize) -> ListHash<'_> {
        ListHash { hash, together: (entries as u64).to_le_bytes().to_vec() }
    }

    pub fn add(&mut self, entry: &str) {
        self.together.extend_from_slice(&(entry.len() as u64).to_le_bytes());
        self.together.extend_from_slice(entry.as_bytes());
        if self.together.len() >= HASHED_TOGETHER {
            self.hash.update(&self.together);
            self.together.clear();
        }
    }

    pub fn finish(self) {
        self.hash.update(&self.together);
    }
}

/// Characters and their rows, from 1; row 0 is unknown.
#[derive(Debug, Clone)]
pub(super) struct CharVocabulary {
    entries: Vec<char>,
    /// Rows of the characters below 128, which are most of them.
    ascii: [u32; 128],
    others: HashMap<char, u32>,
}

impl CharVocabulary {
    /// The vocabulary of the characters in the counted texts' order of frequency.
    pub fn learn(counts: HashMap<char, u64>, least: u32) -> CharVocabulary {
        let mut seen: Vec<_> = counts.into_iter().filter(|(_, count)| *count >= least.into()).collect();
        seen.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let mut vocabulary = CharVocabulary::empty();
        for (c, _) in seen {
            vocabulary.insert(c);
        }
        vocabulary
    }

    fn empty() -> CharVocabulary {
        CharVocabulary { entries: Vec::new(), ascii: [0; 128], others: HashMap::new() }
    }

    /// False if the character was there before.
    fn insert(&mut self, c: char) -> bool {
        if self.row(c) != 0 {
            return false;
        }
        self.entries.push(c);
        let row = self.entries.len() as u32;
        match self.ascii.get_mut(c as usize) {
            Some(slot) => *slot = row,
            None => drop(self.others.insert(c, row)),
        }
        true
    }

    pub fn row(&self, c: char) -> u32 {
        match self.ascii.get(c as usize) {
            Some(&row) => row,
            None => self.others.get(&c).copied().unwrap_or(0),
        }
    }

    /// The character of a row but 0, if there is such a row.
    pub fn entry(&self, row: u32) -> Option<char> {
        self.entries.get((row as usize).checked_sub(1)?).copied()
    }

    /// Rows of the table, the unknown one included.
    pub fn rows(&self) -> usize {
        self.entries.len() + 1
    }

    /// Reads a file whose line k + 1 holds the character of row k; a line break is written `\n` or `\r`.
    pub fn load(path: &Path) -> Result<CharVocabulary, EncoderError> {
        let mut vocabulary = CharVocabulary::empty();
        for (number, line) in lines(&read(path)?, path)? {
            if number == 1 && line == UNKNOWN {
                continue;
            }
            let mut chars = line.chars();
            let c = match (line, chars.next(), chars.next()) {
                _ if number == 1 => {
                    return Err(EncoderError::line(path, 1, format!("expected {UNKNOWN}, found {line:?}")));
                }
                ("\\n", ..) => '\n',
                ("\\r", ..) => '\r',
                (_, Some(c), None) => c,
                _ => return Err(EncoderError::line(path, number, format!("expected one character, found {line:?}"))),
            };
            if !vocabulary.insert(c) {
                return Err(EncoderError::line(path, number, format!("{line:?} a second time")));
            }
        }
        Ok(vocabulary)
    }

    pub fn save(&self, path: &Path) -> Result<(), EncoderError> {
        let mut text = String::from(UNKNOWN);
        for &c in &self.entries {
            text.push('\n');
            match c {
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                c => text.push(c),
            }
        }
        text.push('\n');
        write(path, &text)
    }

    pub fn fingerprint_into(&self, hash: &mut Sha256) {
        let text: String = self.entries.iter().collect();
        fingerprint(hash, std::iter::once(text.as_str()));
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, EncoderError> {
    std::fs::read(path).map_err(|source| EncoderError::Read { path: path.into(), source })
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), EncoderError> {
    std::fs::write(path, text).map_err(|source| EncoderError::Write { path: path.into(), source })
}

/// The numbered lines (from 1) of a UTF-8 file; a carriage return before the line's end is not part of it.
pub(super) fn lines<'a>(
    bytes: &'a [u8],
    path: &Path,
) -> Result<impl Iterator<Item = (usize, &'a str)> + use<'a>, EncoderError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count();
        EncoderError::line(path, line, "not valid UTF-8")
    })?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).enumerate().map(|(k, line)| (k + 1, line)))
}
