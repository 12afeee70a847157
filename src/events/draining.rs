//! When it may be said that no stream of the previous model is left.
//!
//! On Kafka only the streams of partitions that are served are known, so nothing is said while one that was assigned is
//! not; nor by an instance that has none.

use std::collections::BTreeSet;

/// What is known of the streams that go on with the previous model.
#[derive(Debug, Default)]
pub struct Draining {
    /// There is a previous model.
    pub on: bool,
    /// The store's count; absent until it has told one.
    left: Option<u64>,
    assigned: BTreeSet<i32>,
    /// Partitions of which the count is; absent where there are no partitions.
    served: Option<Vec<i32>>,
    said: bool,
}

impl Draining {
    pub fn counted(&mut self, left: u64) {
        self.left = Some(left);
        // Should more come (with a partition), it is said again when they have ended.
        self.said &= left == 0;
    }

    pub fn counted_in(&mut self, left: u64, served: Vec<i32>) {
        self.counted(left);
        self.served = Some(served);
    }

    pub fn assigned(&mut self, partitions: &[i32]) {
        self.assigned.extend(partitions);
    }

    pub fn revoked(&mut self, partitions: &[i32]) {
        partitions.iter().for_each(|partition| _ = self.assigned.remove(partition));
    }

    /// Whether now is the time to say that all is drained, and where records come from partitions, of how many.
    pub fn is_news(&mut self) -> Option<usize> {
        let whole = match &self.served {
            None => self.assigned.is_empty(),
            Some(served) => !self.assigned.is_empty() && self.assigned.iter().all(|p| served.contains(p)),
        };
        if !self.on || self.said || self.left != Some(0) || !whole {
            return None;
        }
        self.said = true;
        Some(self.assigned.len())
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
    fn on_kafka_all_assigned_partitions_must_be_served() {
        let mut draining = Draining { on: true, ..Draining::default() };
        draining.counted_in(0, vec![]);
        assert_eq!(draining.is_news(), None, "before there are any partitions");
        draining.assigned(&[0, 1]);
        draining.counted_in(0, vec![1]);
        assert_eq!(draining.is_news(), None, "partition 0 may have some");
        draining.counted_in(3, vec![0, 1]);
        assert_eq!(draining.is_news(), None);
        // They went to another instance with their partition: this one has none left, but the other has.
        draining.counted_in(0, vec![]);
        draining.revoked(&[0, 1]);
        assert_eq!(draining.is_news(), None);
        draining.assigned(&[1]);
        draining.counted_in(0, vec![1]);
        assert_eq!(draining.is_news(), Some(1));
    }
}
