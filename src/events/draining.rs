//! When it may be said that no stream of the previous model is left.
//!
//! On Kafka only the streams of partitions whose states are read back are known, so nothing is said while one that was
//! assigned is not; nor by an instance that has none.

use std::collections::BTreeSet;

/// What is known of the streams that go on with the previous model.
#[derive(Debug, Default)]
pub struct Draining {
    /// There is a previous model.
    pub on: bool,
    /// The store's count; absent until it has told one.
    left: Option<u64>,
    /// Partitions whose states are not read back yet, and those whose are. Both empty where there are no partitions.
    awaited: BTreeSet<i32>,
    restored: BTreeSet<i32>,
    /// Records come from partitions that are assigned and taken away.
    partitioned: bool,
    said: bool,
}

impl Draining {
    pub fn counted(&mut self, left: u64) {
        self.left = Some(left);
        // Should more come (with a partition), it is said again when they have ended.
        self.said &= left == 0;
    }

    pub fn assigned(&mut self, partitions: &[i32]) {
        self.partitioned = true;
        for partition in partitions {
            self.restored.remove(partition);
            self.awaited.insert(*partition);
        }
    }

    pub fn restored(&mut self, partition: i32) {
        if self.awaited.remove(&partition) {
            self.restored.insert(partition);
        }
    }

    pub fn revoked(&mut self, partitions: &[i32]) {
        for partition in partitions {
            self.awaited.remove(partition);
            self.restored.remove(partition);
        }
    }

    /// Whether now is the time to say that all is drained, and where records come from partitions, how many it is of.
    pub fn is_news(&mut self) -> Option<usize> {
        let whole = self.awaited.is_empty() && (!self.partitioned || !self.restored.is_empty());
        if !self.on || self.said || self.left != Some(0) || !whole {
            return None;
        }
        self.said = true;
        Some(self.restored.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_and_only_with_a_previous_model() {
        let mut draining = Draining::default();
        draining.counted(0);
        assert_eq!(draining.is_news(), None);
        draining.on = true;
        draining.counted(2);
        assert_eq!(draining.is_news(), None);
        draining.counted(0);
        assert_eq!((draining.is_news(), draining.is_news()), (Some(0), None));
        draining.counted(1);
        draining.counted(0);
        assert_eq!(draining.is_news(), Some(0));
    }

    #[test]
    fn on_kafka_all_assigned_partitions_are_awaited() {
        let mut draining = Draining { on: true, ..Draining::default() };
        draining.assigned(&[0, 1]);
        draining.counted(0);
        draining.restored(1);
        assert_eq!(draining.is_news(), None, "partition 0 may have some");
        draining.restored(0);
        draining.counted(3);
        assert_eq!(draining.is_news(), None);
        // They went to another instance with their partition: this one has none left, but the other has.
        draining.revoked(&[0, 1]);
        draining.counted(0);
        assert_eq!(draining.is_news(), None);
        draining.assigned(&[1]);
        draining.restored(1);
        assert_eq!(draining.is_news(), Some(1));
    }
}
