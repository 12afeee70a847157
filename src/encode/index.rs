//! Texts numbered in the order in which they were added, all in one piece of memory, and found by their hash: a vocabulary of
//! a hundred thousand words is read in milliseconds.

/// Bytes that are hashed at once.
const WORD: usize = 8;
/// From Steele and Vigna, "Computationally easy, spectrally good multipliers", 2021.
const MULTIPLIER: u64 = 0xf135_7aea_2e62_a9c5;

#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    text: String,
    /// Where each text ends.
    ends: Vec<usize>,
    /// Number of a text + 1, or 0; as long as a power of two, at most half of it taken.
    slots: Vec<u32>,
}

impl Index {
    /// For so many texts, without growing.
    pub fn with_capacity(texts: usize, bytes: usize) -> Index {
        let slots = vec![0; (2 * texts).next_power_of_two()];
        Index { text: String::with_capacity(bytes), ends: Vec::with_capacity(texts), slots }
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// False if the text was there before.
    pub fn insert(&mut self, text: &str) -> bool {
        if 2 * (self.len() + 1) > self.slots.len() {
            self.grow();
        }
        let slot = self.slot_of(text);
        if self.slots[slot] != 0 {
            return false;
        }
        self.text.push_str(text);
        self.ends.push(self.text.len());
        self.slots[slot] = self.ends.len() as u32;
        true
    }

    /// The number of a text.
    pub fn find(&self, text: &str) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        (self.slots[self.slot_of(text)] as usize).checked_sub(1)
    }

    pub fn get(&self, number: usize) -> Option<&str> {
        let end = *self.ends.get(number)?;
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.text[start..end])
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|number| self.get(number).unwrap_or_default())
    }

    /// Where the text stands, or else would. There is always an empty slot.
    fn slot_of(&self, text: &str) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash(text.as_bytes()) as usize & mask;
        while let Some(number) = (self.slots[slot] as usize).checked_sub(1) {
            if self.get(number) == Some(text) {
                break;
            }
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn grow(&mut self) {
        let slots = vec![0; (2 * self.slots.len()).max(16)];
        self.slots = slots;
        for number in 0..self.len() {
            let slot = self.slot_of(self.get(number).unwrap_or_default());
            self.slots[slot] = number as u32 + 1;
        }
    }
}

/// Multiplied and folded word by word. The texts are those of a model, not of whoever sends records: nobody can make the
/// table a bad one from outside.
fn hash(bytes: &[u8]) -> u64 {
    let mut sum = bytes.len() as u64;
    let mut words = bytes.chunks_exact(WORD);
    let mut add = |word: [u8; WORD]| {
        let mixed = u128::from(sum ^ u64::from_le_bytes(word)) * u128::from(MULTIPLIER);
        sum = (mixed >> 64) as u64 ^ mixed as u64;
    };
    for word in &mut words {
        let mut whole = [0; WORD];
        whole.copy_from_slice(word);
        add(whole);
    }
    let mut last = [0; WORD];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    add(last);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn texts_are_found_as_in_a_map(texts in prop::collection::vec("[a-c]{0,3}|\\PC{0,20}", 0..200)) {
            let (mut index, mut map) = (Index::default(), HashMap::new());
            for text in &texts {
                prop_assert_eq!(index.find(text), map.get(text).copied());
                let number = map.len();
                let is_new = !map.contains_key(text);
                map.entry(text.clone()).or_insert(number);
                prop_assert_eq!(index.insert(text), is_new);
            }
            prop_assert_eq!(index.len(), map.len());
            for (text, number) in &map {
                prop_assert_eq!(index.find(text), Some(*number));
                prop_assert_eq!(index.get(*number), Some(text.as_str()));
            }
            prop_assert_eq!((index.get(map.len()), index.find("none such")), (None, None));
            let sized = Index::with_capacity(texts.len(), 0);
            prop_assert_eq!(sized.find("a"), None);
        }
    }
}
