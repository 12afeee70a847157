//! Texts numbered in the order in which they were added, all in one piece of memory, and found by their hash: a vocabulary of
//! a hundred thousand words is read in milliseconds.

use hashbrown::hash_table::Entry;
use hashbrown::{DefaultHashBuilder, HashTable};
use std::hash::BuildHasher;

#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    text: String,
    /// Where each text ends.
    ends: Vec<usize>,
    /// The texts' numbers.
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Index {
    /// For so many texts, without growing.
    pub fn with_capacity(texts: usize, bytes: usize) -> Index {
        Index {
            text: String::with_capacity(bytes),
            ends: Vec::with_capacity(texts),
            numbers: HashTable::with_capacity(texts),
            hasher: DefaultHashBuilder::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// False if the text was there before.
    pub fn insert(&mut self, text: &str) -> bool {
        let (all, ends, hasher) = (&self.text, &self.ends, &self.hasher);
        let own = |number: &u32| text_of(all, ends, *number as usize).unwrap_or_default();
        let is_text = |number: &u32| own(number) == text;
        let hash_of = |number: &u32| hasher.hash_one(own(number));
        let Entry::Vacant(vacant) = self.numbers.entry(hasher.hash_one(text), is_text, hash_of) else { return false };
        vacant.insert(self.ends.len() as u32);
        self.text.push_str(text);
        self.ends.push(self.text.len());
        true
    }

    /// The number of a text.
    pub fn find(&self, text: &str) -> Option<usize> {
        let is_text = |number: &u32| self.get(*number as usize) == Some(text);
        self.numbers.find(self.hasher.hash_one(text), is_text).map(|number| *number as usize)
    }

    pub fn get(&self, number: usize) -> Option<&str> {
        text_of(&self.text, &self.ends, number)
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|number| self.get(number).unwrap_or_default())
    }
}

fn text_of<'a>(all: &'a str, ends: &[usize], number: usize) -> Option<&'a str> {
    let end = *ends.get(number)?;
    let start = number.checked_sub(1).map_or(0, |before| ends[before]);
    Some(&all[start..end])
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
