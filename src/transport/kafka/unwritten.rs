//! States that commits have changed and the file of the local copy does not have yet.
//!
//! What is not saved is lost with the process either way and read from the changelog again; so a state that changes with
//! every commit need not go to the file with every commit.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Bytes that an entry takes beside key and value, about.
const OVERHEAD: usize = 96;

/// A key and its new value; none: it is deleted.
type Change<'a> = (&'a [u8], Option<&'a [u8]>);

/// By partition and key: the state's bytes, or that there is none any more.
#[derive(Default)]
pub struct Unwritten {
    of: BTreeMap<i32, HashMap<Vec<u8>, Option<Vec<u8>>>>,
    /// Partitions whose mark has moved.
    marked: BTreeSet<i32>,
    bytes: usize,
}

impl Unwritten {
    /// What is to be written for a key; the outer `None`: nothing.
    pub fn get(&self, partition: i32, key: &[u8]) -> Option<Option<&[u8]>> {
        self.of.get(&partition)?.get(key).map(Option::as_deref)
    }

    pub fn put(&mut self, partition: i32, key: &[u8], value: Option<Vec<u8>>) {
        let size = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        self.bytes += size(&value);
        let of = self.of.entry(partition).or_default();
        match of.get_mut(key) {
            Some(place) => {
                self.bytes -= size(place);
                *place = value;
            }
            None => {
                self.bytes += key.len() + OVERHEAD;
                of.insert(key.to_vec(), value);
            }
        }
    }

    pub fn mark(&mut self, partition: i32) {
        self.marked.insert(partition);
    }

    /// Takes over what `later` holds.
    pub fn absorb(&mut self, later: Unwritten) {
        for (partition, changes) in later.of {
            changes.into_iter().for_each(|(key, value)| self.put(partition, &key, value));
        }
        self.marked.extend(later.marked);
    }

    pub fn drop_partition(&mut self, partition: i32) {
        let gone = self.of.remove(&partition).unwrap_or_default();
        let size =
            |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| key.len() + OVERHEAD + value.as_ref().map_or(0, Vec::len);
        self.bytes -= gone.iter().map(size).sum::<usize>();
        self.marked.remove(&partition);
    }

    /// Partitions of which there is something, each with its keys in order.
    pub fn sorted(&self) -> impl Iterator<Item = (i32, Vec<Change<'_>>)> {
        self.of.iter().map(|(partition, changes)| {
            let mut changes: Vec<_> = changes.iter().map(|(key, value)| (&key[..], value.as_deref())).collect();
            changes.sort_unstable_by_key(|(key, _)| *key);
            (*partition, changes)
        })
    }

    pub fn marked(&self) -> &BTreeSet<i32> {
        &self.marked
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty() && self.marked.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_key_the_last_value_counts() {
        let mut unwritten = Unwritten::default();
        unwritten.put(0, b"b", Some(vec![1; 10]));
        unwritten.put(0, b"a", Some(vec![2; 20]));
        let mut later = Unwritten::default();
        later.put(0, b"b", None);
        later.put(1, b"b", Some(vec![3]));
        unwritten.absorb(later);
        assert_eq!(unwritten.get(0, b"b"), Some(None));
        assert_eq!(unwritten.get(0, b"c"), None);
        assert_eq!(unwritten.bytes(), 3 * (OVERHEAD + 1) + 21);
        let keys: Vec<_> =
            unwritten.sorted().map(|(p, of)| (p, of.iter().map(|(k, _)| *k).collect::<Vec<_>>())).collect();
        assert_eq!(keys, [(0, vec![&b"a"[..], b"b"]), (1, vec![&b"b"[..]])]);
        unwritten.drop_partition(0);
        unwritten.drop_partition(1);
        assert_eq!(unwritten.bytes(), 0);
    }
}
