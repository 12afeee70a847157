//! States that commits have changed and the file of the local copy does not have yet.
//!
//! What is not saved is lost with the process either way and read from the changelog again; so a state that changes with
//! every commit need not go to the file with every commit. When it does, what there is is set aside, and commits and
//! readers go on above it while it is written: neither waits for the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

/// Bytes that an entry takes beside key and value, about.
const OVERHEAD: usize = 96;

/// A key and its new value; none: it is deleted.
type Change<'a> = (&'a [u8], Option<&'a [u8]>);

/// By partition and key: the state's bytes, or that there is none any more.
#[derive(Default, Clone)]
pub struct Layer {
    of: BTreeMap<i32, BTreeMap<Vec<u8>, Option<Vec<u8>>>>,
    /// Partitions whose mark has moved.
    marked: BTreeSet<i32>,
    bytes: usize,
}

impl Layer {
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
    fn absorb(&mut self, later: Layer) {
        for (partition, changes) in later.of {
            changes.into_iter().for_each(|(key, value)| self.put(partition, &key, value));
        }
        self.marked.extend(later.marked);
    }

    fn drop_partition(&mut self, partition: i32) {
        let gone = self.of.remove(&partition).unwrap_or_default();
        let size =
            |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| key.len() + OVERHEAD + value.as_ref().map_or(0, Vec::len);
        self.bytes -= gone.iter().map(size).sum::<usize>();
        self.marked.remove(&partition);
    }

    /// Partitions of which there is something.
    pub fn partitions(&self) -> impl Iterator<Item = i32> {
        self.of.keys().copied()
    }

    /// What there is of a partition from `from` on, in the order of keys.
    pub fn range(&self, partition: i32, from: Bound<&[u8]>) -> impl Iterator<Item = Change<'_>> {
        let of = self.of.get(&partition);
        let changes = of.map(|of| of.range::<[u8], _>((from, Bound::Unbounded)));
        changes.into_iter().flatten().map(|(key, value)| (&key[..], value.as_deref()))
    }

    pub fn marked(&self) -> &BTreeSet<i32> {
        &self.marked
    }
}

/// All that the file lacks.
#[derive(Default)]
pub struct Unwritten {
    /// What has come since it was last set aside.
    latest: Layer,
    /// What is being written. What is in `latest` is newer.
    aside: Option<Arc<Layer>>,
}

impl Unwritten {
    /// What is to be written for a key; the outer `None`: nothing.
    pub fn get(&self, partition: i32, key: &[u8]) -> Option<Option<&[u8]>> {
        self.latest.get(partition, key).or_else(|| self.aside.as_ref()?.get(partition, key))
    }

    pub fn absorb(&mut self, later: Layer) {
        self.latest.absorb(later);
    }

    /// The layers, older first: of a key that is in both, the second tells.
    pub fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.aside.as_deref().into_iter().chain([&self.latest])
    }

    /// Bytes that are not being written yet.
    pub fn bytes(&self) -> usize {
        self.latest.bytes
    }

    /// What is to be written now. It is found here until [`Unwritten::filed`].
    pub fn set_aside(&mut self) -> Arc<Layer> {
        self.take_back();
        self.aside.insert(Arc::new(std::mem::take(&mut self.latest))).clone()
    }

    /// What was set aside is in the file. Whoever looked here first and looks there then, misses nothing.
    pub fn filed(&mut self) -> Option<Arc<Layer>> {
        self.aside.take()
    }

    /// It could not be written.
    pub fn take_back(&mut self) {
        if let Some(aside) = self.aside.take() {
            let later = std::mem::replace(&mut self.latest, Arc::unwrap_or_clone(aside));
            self.latest.absorb(later);
        }
    }

    pub fn drop_partition(&mut self, partition: i32) {
        self.take_back();
        self.latest.drop_partition(partition);
    }

    #[cfg(test)]
    pub fn is_being_written(&self) -> bool {
        self.aside.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entry<'a> = (i32, &'a [u8], Option<Vec<u8>>);

    fn later<const N: usize>(entries: [Entry; N]) -> Layer {
        let mut layer = Layer::default();
        entries.into_iter().for_each(|(partition, key, value)| layer.put(partition, key, value));
        layer
    }

    fn keys(layer: &Layer, partition: i32, from: Bound<&[u8]>) -> Vec<Vec<u8>> {
        layer.range(partition, from).map(|(key, _)| key.to_vec()).collect()
    }

    #[test]
    fn of_each_key_the_last_value_counts() {
        let mut layer = later([(0, b"b", Some(vec![1; 10])), (0, b"a", Some(vec![2; 20]))]);
        layer.absorb(later([(0, b"b", None), (1, b"b", Some(vec![3]))]));
        assert_eq!(layer.get(0, b"b"), Some(None));
        assert_eq!(layer.get(0, b"c"), None);
        assert_eq!(layer.bytes, 3 * (OVERHEAD + 1) + 21);
        assert_eq!(layer.partitions().collect::<Vec<_>>(), [0, 1]);
        assert_eq!(keys(&layer, 0, Bound::Unbounded), [b"a", b"b"]);
        assert_eq!(keys(&layer, 0, Bound::Excluded(b"a")), [b"b"]);
        assert!(keys(&layer, 2, Bound::Unbounded).is_empty());
        layer.drop_partition(0);
        layer.drop_partition(1);
        assert_eq!(layer.bytes, 0);
        assert!(layer.of.is_empty() && layer.marked.is_empty());
    }

    #[test]
    fn what_is_set_aside_is_found_until_it_is_filed_or_taken_back_below_what_came_since() {
        let mut unwritten = Unwritten::default();
        unwritten.absorb(later([(0, b"a", Some(vec![1])), (0, b"b", Some(vec![1])), (0, b"c", None)]));
        let aside = unwritten.set_aside();
        assert_eq!((aside.get(0, b"a"), unwritten.bytes()), (Some(Some(&[1][..])), 0));
        let newer = later([(0, b"a", Some(vec![2])), (0, b"b", None), (0, b"d", Some(vec![2]))]);
        unwritten.absorb(newer.clone());
        let all = [b"a", b"b", b"c", b"d", b"e"];
        let expected = [Some(Some(&[2][..])), Some(None), Some(None), Some(Some(&[2][..])), None];
        assert_eq!(all.map(|key| unwritten.get(0, key)), expected);
        drop(aside);
        // The disk is full: all of it must be written the next time.
        unwritten.take_back();
        assert_eq!(all.map(|key| unwritten.get(0, key)), expected);
        assert_eq!(keys(&unwritten.set_aside(), 0, Bound::Unbounded), [b"a", b"b", b"c", b"d"]);
        unwritten.filed();
        assert_eq!(all.map(|key| unwritten.get(0, key)), [None; 5]);
    }
}
