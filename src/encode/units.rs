//! The units that sentences are translated from and to: characters, words, or the pieces of words that byte-pair encoding
//! finds (Sennrich, Haddow and Birch 2016). A sentence becomes rows of a table, and rows become text again.
//!
//! Words and pieces know whether white space was before them (`▁`, U+2581), so that their text can be put together as it
//! was: `Wie geht's?` is `▁Wie ▁geht ' s ?`. A run of letters and digits is a word, any other character is one alone.
//!
//! The file of a vocabulary has a line for each row: `<UNK>`, `</s>` (the end of a sentence, and what is before its
//! beginning), then the units; of byte-pair encoding the characters, then the merges, `left right`, in the order in which
//! they were found.

use super::EncoderError;
use super::vocab::{fingerprint, lines, read, write};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// The row of what is in no vocabulary.
pub const UNKNOWN: u32 = 0;
/// The row of the end of a sentence; also what comes before its first unit.
pub const END: u32 = 1;

const MARKS: [&str; 2] = ["<UNK>", "</s>"];
/// White space before a word.
const SPACE: char = '\u{2581}';
/// A longer run of letters is cut here for byte-pair encoding, so that no single word takes long.
const MAX_PIECE_CHARS: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitKind {
    #[default]
    Chars,
    Words,
    /// Byte-pair encoding within words.
    Bpe,
}

/// What [`Units::learn`] is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnitChoice {
    pub kind: UnitKind,
    /// Characters, words or pairs that training has seen less often are none.
    pub min_count: u32,
    /// The most rows, those of the two marks included.
    pub max_units: usize,
}

/// A vocabulary of units. Immutable.
#[derive(Debug, Clone)]
pub struct Units {
    kind: UnitKind,
    /// Text of each row but those of the marks.
    entries: Vec<String>,
    rows: HashMap<String, u32>,
    merges: Vec<(u32, u32)>,
    /// Rank of a pair among the merges, and the row of both together.
    pairs: HashMap<(u32, u32), (u32, u32)>,
}

impl Units {
    /// Counts the training texts' units.
    pub fn learn<'a>(choice: UnitChoice, texts: impl Iterator<Item = &'a str>) -> Units {
        let mut units = Units::empty(choice.kind);
        // In the order of their text, so that equals always come in the same order.
        let (mut chars, mut words) = (BTreeMap::<String, u32>::new(), BTreeMap::<String, u32>::new());
        for text in texts {
            match choice.kind {
                UnitKind::Chars => text.chars().for_each(|c| *chars.entry(c.into()).or_default() += 1),
                UnitKind::Words => pieces(text, |word| *words.entry(word.into()).or_default() += 1),
                UnitKind::Bpe => pieces(text, |word| {
                    *words.entry(word.into()).or_default() += 1;
                    word.chars().for_each(|c| *chars.entry(c.into()).or_default() += 1);
                }),
            }
        }
        let counted = if choice.kind == UnitKind::Words { &words } else { &chars };
        let mut counted: Vec<(&String, u32)> = counted.iter().map(|(unit, &count)| (unit, count)).collect();
        counted.retain(|(_, count)| *count >= choice.min_count);
        counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (unit, _) in counted.into_iter().take(choice.max_units.saturating_sub(MARKS.len())) {
            units.insert(unit.clone());
        }
        if choice.kind == UnitKind::Bpe {
            units.learn_merges(&words, choice);
        }
        units
    }

    fn empty(kind: UnitKind) -> Units {
        let none = HashMap::new();
        Units { kind, entries: Vec::new(), rows: HashMap::new(), merges: Vec::new(), pairs: none }
    }

    /// The row of this text, a new one if it has none yet.
    fn insert(&mut self, text: String) -> u32 {
        if let Some(&row) = self.rows.get(&text) {
            return row;
        }
        let row = (self.entries.len() + MARKS.len()) as u32;
        self.entries.push(text.clone());
        self.rows.insert(text, row);
        row
    }

    /// Puts two rows together; false where they are already.
    fn merge(&mut self, pair: (u32, u32)) -> bool {
        if self.pairs.contains_key(&pair) {
            return false;
        }
        let text = [self.text(pair.0), self.text(pair.1)].concat();
        let row = self.insert(text);
        self.pairs.insert(pair, (self.merges.len() as u32, row));
        self.merges.push(pair);
        true
    }

    /// Merges the most frequent pair of neighbours within words, again and again; of equals the one with the lowest rows.
    fn learn_merges(&mut self, words: &BTreeMap<String, u32>, choice: UnitChoice) {
        let row = |c: char| self.rows.get(c.encode_utf8(&mut [0; 4]) as &str).copied().unwrap_or(UNKNOWN);
        let mut words: Vec<(Vec<u32>, i64)> =
            words.iter().map(|(word, &count)| (word.chars().map(row).collect(), i64::from(count))).collect();
        let mut counts: HashMap<(u32, u32), i64> = HashMap::new();
        let mut places: HashMap<(u32, u32), HashSet<usize>> = HashMap::new();
        for (k, (word, count)) in words.iter().enumerate() {
            for pair in word.windows(2) {
                *counts.entry((pair[0], pair[1])).or_default() += count;
                places.entry((pair[0], pair[1])).or_default().insert(k);
            }
        }
        while self.rows() < choice.max_units {
            let known = |pair: &(u32, u32)| pair.0 != UNKNOWN && pair.1 != UNKNOWN;
            let best = counts
                .iter()
                .filter(|(pair, _)| known(pair))
                .max_by_key(|&(&pair, &count)| (count, std::cmp::Reverse(pair)));
            let Some((&pair, &count)) = best else { break };
            if count < i64::from(choice.min_count.max(2)) || !self.merge(pair) {
                break;
            }
            let row = self.pairs[&pair].1;
            let mut touched: Vec<usize> = places.remove(&pair).unwrap_or_default().into_iter().collect();
            touched.sort_unstable();
            for k in touched {
                let (word, count) = &mut words[k];
                for old in word.windows(2) {
                    *counts.entry((old[0], old[1])).or_default() -= *count;
                }
                let mut at = 0;
                while at + 1 < word.len() {
                    if (word[at], word[at + 1]) == pair {
                        word[at] = row;
                        word.remove(at + 1);
                    }
                    at += 1;
                }
                for new in word.windows(2) {
                    *counts.entry((new[0], new[1])).or_default() += *count;
                    places.entry((new[0], new[1])).or_default().insert(k);
                }
            }
            counts.remove(&pair);
        }
    }

    /// Rows of the table, those of the marks included.
    pub fn rows(&self) -> usize {
        self.entries.len() + MARKS.len()
    }

    pub fn kind(&self) -> UnitKind {
        self.kind
    }

    /// What a row stands for; of the marks nothing.
    pub fn text(&self, row: u32) -> &str {
        (row as usize).checked_sub(MARKS.len()).and_then(|at| self.entries.get(at)).map_or("", String::as_str)
    }

    /// The rows of a sentence, without its end; of words also their text, with `▁` where white space was before them.
    pub fn encode(&self, text: &str) -> (Vec<u32>, Vec<String>) {
        let (mut rows, mut texts) = (Vec::new(), Vec::new());
        let row = |unit: &str| self.rows.get(unit).copied().unwrap_or(UNKNOWN);
        match self.kind {
            UnitKind::Chars => rows.extend(text.chars().map(|c| row(c.encode_utf8(&mut [0; 4])))),
            UnitKind::Words => pieces(text, |word| {
                rows.push(row(word));
                texts.push(word.to_string());
            }),
            UnitKind::Bpe => pieces(text, |word| {
                let mut parts: Vec<u32> = word.chars().map(|c| row(c.encode_utf8(&mut [0; 4]))).collect();
                while let Some((_, at, merged)) = (parts.windows(2).enumerate())
                    .filter_map(|(at, pair)| {
                        let (rank, merged) = self.pairs.get(&(pair[0], pair[1]))?;
                        Some((*rank, at, *merged))
                    })
                    .min()
                {
                    parts[at] = merged;
                    parts.remove(at + 1);
                }
                rows.extend(parts);
            }),
        }
        (rows, texts)
    }

    /// The text that these units make, without white space at its ends.
    pub fn join<'a>(&self, units: impl Iterator<Item = &'a str>) -> String {
        let text: String = units.collect();
        match self.kind {
            UnitKind::Chars => text.trim().to_string(),
            UnitKind::Words | UnitKind::Bpe => text.replace(SPACE, " ").trim().to_string(),
        }
    }

    pub fn load(kind: UnitKind, path: &Path) -> Result<Units, EncoderError> {
        let mut units = Units::empty(kind);
        for (number, line) in lines(&read(path)?, path)? {
            let wrong = |detail: String| EncoderError::line(path, number, detail);
            if let Some(mark) = MARKS.get(number - 1) {
                if line != *mark {
                    return Err(wrong(format!("expected {mark}, found {line:?}")));
                }
                continue;
            }
            if let (UnitKind::Bpe, Some((left, right))) = (kind, line.split_once(' ')) {
                let row = |unit: &str| units.rows.get(unit).copied();
                let (Some(left), Some(right)) = (row(left), row(right)) else {
                    return Err(wrong(format!("{line:?} merges units of which one is in no line before it")));
                };
                if !units.merge((left, right)) {
                    return Err(wrong(format!("{line:?} a second time")));
                }
                continue;
            }
            let text = match (kind, line) {
                (UnitKind::Chars, "\\n") => "\n",
                (UnitKind::Chars, "\\r") => "\r",
                (_, "") => return Err(wrong("an empty line".into())),
                (UnitKind::Chars | UnitKind::Bpe, line) if line.chars().count() != 1 => {
                    return Err(wrong(format!("expected one character, found {line:?}")));
                }
                (_, line) => line,
            };
            if units.rows.contains_key(text) {
                return Err(wrong(format!("{line:?} a second time")));
            }
            units.insert(text.to_string());
        }
        Ok(units)
    }

    pub fn save(&self, path: &Path) -> Result<(), EncoderError> {
        write(path, &self.listed())
    }

    fn listed(&self) -> String {
        let mut text: String = MARKS.iter().map(|mark| format!("{mark}\n")).collect();
        let merged: HashSet<u32> = self.pairs.values().map(|(_, row)| *row).collect();
        for (at, entry) in self.entries.iter().enumerate() {
            if merged.contains(&((at + MARKS.len()) as u32)) {
                continue;
            }
            match entry.as_str() {
                "\n" => text.push_str("\\n"),
                "\r" => text.push_str("\\r"),
                entry => text.push_str(entry),
            }
            text.push('\n');
        }
        for (left, right) in &self.merges {
            text.push_str(&format!("{} {}\n", self.text(*left), self.text(*right)));
        }
        text
    }

    pub fn fingerprint_into(&self, hash: &mut Sha256) {
        fingerprint(hash, std::iter::once(self.listed().as_str()));
    }
}

/// Cuts a sentence into words: runs of letters and digits, and each other character alone; `▁` before those that have
/// white space before them.
fn pieces(text: &str, mut take: impl FnMut(&str)) {
    let (mut piece, mut chars) = (String::new(), 0);
    let mut after_space = true;
    for c in text.chars() {
        let in_word = c.is_alphanumeric();
        if c.is_whitespace() || c == SPACE || !in_word || after_space || chars >= MAX_PIECE_CHARS {
            if !piece.is_empty() {
                take(&piece);
            }
            piece.clear();
            chars = 0;
        }
        if c.is_whitespace() || c == SPACE {
            after_space = true;
            continue;
        }
        if after_space {
            piece.push(SPACE);
        }
        after_space = false;
        piece.push(c);
        chars += 1;
        if !in_word {
            take(&piece);
            piece.clear();
            chars = 0;
        }
    }
    if !piece.is_empty() {
        take(&piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(text: &str) -> Vec<String> {
        let mut all = Vec::new();
        pieces(text, |piece| all.push(piece.to_string()));
        all
    }

    const TEXTS: [&str; 4] =
        ["low lower lowest", "the lowest, new: newer.", "Wie geht's? (low-new)", "newest widest lower new"];

    fn learnt(kind: UnitKind, max_units: usize) -> Units {
        Units::learn(UnitChoice { kind, min_count: 1, max_units }, TEXTS.into_iter())
    }

    #[test]
    fn a_word_knows_the_space_before_it() {
        assert_eq!(cut("Wie  geht's? (A4)"), ["▁Wie", "▁geht", "'", "s", "?", "▁(", "A4", ")"]);
        assert_eq!(cut(" \n"), Vec::<String>::new());
    }

    #[test]
    fn frequent_pairs_are_merged_first() {
        let units = learnt(UnitKind::Bpe, 40);
        let (rows, _) = units.encode("lower");
        let parts: Vec<&str> = rows.iter().map(|&row| units.text(row)).collect();
        assert_eq!(parts.concat(), "▁lower");
        assert!(parts.len() < 4 && units.rows() <= 40, "{parts:?}");
        let (rows, _) = units.encode("xow");
        assert_eq!(rows[1], UNKNOWN);
    }

    #[test]
    fn a_file_gives_the_same_units_again() {
        let dir = tempfile::tempdir().unwrap();
        for kind in [UnitKind::Chars, UnitKind::Words, UnitKind::Bpe] {
            let (units, path) = (learnt(kind, 50), dir.path().join("units.txt"));
            units.save(&path).unwrap();
            let again = Units::load(kind, &path).unwrap();
            assert_eq!((&again.rows, &again.entries, &again.pairs), (&units.rows, &units.entries, &units.pairs));
        }
        std::fs::write(dir.path().join("bad.txt"), "<UNK>\n</s>\na\na b\n").unwrap();
        let error = Units::load(UnitKind::Bpe, &dir.path().join("bad.txt")).unwrap_err().to_string();
        assert!(error.contains("bad.txt:4") && error.contains("no line before"), "{error}");
    }

    proptest! {
        #[test]
        fn text_of_known_units_comes_back(words in proptest::collection::vec("[a-z']{1,6}[.,]?", 0..6)) {
            let text = words.join(" ");
            for kind in [UnitKind::Chars, UnitKind::Words, UnitKind::Bpe] {
                let units = Units::learn(UnitChoice { kind, min_count: 1, max_units: 60 }, [text.as_str()].into_iter());
                let (rows, _) = units.encode(&text);
                prop_assert!(!rows.contains(&UNKNOWN));
                prop_assert_eq!(units.join(rows.iter().map(|&row| units.text(row))), text.as_str());
            }
        }
    }
}
