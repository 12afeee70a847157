//! Which partitions this instance is in charge of, and how far each is. Shared by source, sink and restorer.

use crate::events::Events;
use crate::transport::{Position, TransportError};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How far a partition is on its way to being served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its changelog is being read.
    Restoring,
    /// Its states are there; its position is not set yet.
    Restored,
    /// Records of it are polled.
    Served,
}

#[derive(Debug)]
struct Partition {
    phase: Phase,
    /// Which assignment this is: what belongs to an earlier one must not be taken for this.
    epoch: u64,
    /// What the group had committed when its states began to be read.
    offset: Option<i64>,
    /// First offset that is not labelled yet; from here on it is read again after an error.
    labelled: i64,
    /// First offset that the group does not know to be done.
    committed: i64,
}

#[derive(Debug, Default)]
struct Inner {
    partitions: BTreeMap<i32, Partition>,
    epoch: u64,
    /// The batch that is being written: its partitions, each with the number of the assignment by which it was ours.
    writing: Option<BTreeMap<i32, u64>>,
    /// The group has answered once.
    joined: bool,
    /// Partitions that went to others and of which the pipeline does not know yet.
    lost: BTreeSet<i32>,
    /// Why this instance must not go on at all.
    refusal: Option<String>,
    /// Partitions that are being taken away: nothing more of them is written.
    leaving: BTreeSet<i32>,
}

/// The assignment. Its lock is never held while anything waits for the network.
pub struct Assignment {
    inner: Mutex<Inner>,
    written: Condvar,
    events: Events,
}

impl Assignment {
    pub fn new(events: Events) -> Assignment {
        Assignment { inner: Mutex::default(), written: Condvar::new(), events }
    }

    /// Every change is finished before the lock is given back, so that a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The group gave these partitions; each with the number of its assignment.
    pub fn assign(&self, partitions: &[i32]) -> Vec<(i32, u64)> {
        let mut inner = self.lock();
        inner.joined = true;
        inner.epoch += 1;
        let epoch = inner.epoch;
        for partition in partitions {
            let new = Partition { phase: Phase::Restoring, epoch, offset: None, labelled: -1, committed: -1 };
            inner.partitions.insert(*partition, new);
            inner.leaving.remove(partition);
        }
        self.events.partitions_assigned(partitions, inner.partitions.len());
        partitions.iter().map(|partition| (*partition, epoch)).collect()
    }

    /// What is known of these partitions is not certain any more: they are restored again, as if they had just been given.
    pub fn restore_again(&self, partitions: &[i32]) -> Vec<(i32, u64)> {
        let mut inner = self.lock();
        inner.epoch += 1;
        let epoch = inner.epoch;
        for partition in partitions {
            if let Some(p) = inner.partitions.get_mut(partition) {
                (p.phase, p.epoch) = (Phase::Restoring, epoch);
            }
        }
        partitions.iter().map(|partition| (*partition, epoch)).collect()
    }

    /// The group takes these partitions: nothing more of them is begun to be written, and what is being written is
    /// waited for. `lost`: they are with others already.
    pub fn revoke(&self, partitions: &[i32], lost: bool, wait: Duration) {
        let until = Instant::now() + wait;
        let mut inner = self.lock();
        if lost {
            inner.leaving.extend(partitions);
        }
        while inner.writing.is_some() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inner = self.written.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        inner.leaving.extend(partitions);
        let stay = inner.partitions.len() - partitions.iter().filter(|p| inner.partitions.contains_key(p)).count();
        self.events.partitions_revoked(partitions, stay, lost);
    }

    /// They are gone.
    pub fn forget(&self, partitions: &[i32]) {
        let mut inner = self.lock();
        inner.joined = true;
        for partition in partitions {
            inner.partitions.remove(partition);
            inner.leaving.remove(partition);
            inner.lost.insert(*partition);
        }
    }

    /// Partitions that went to others since this was last asked.
    pub fn take_lost(&self) -> Vec<i32> {
        std::mem::take(&mut self.lock().lost).into_iter().collect()
    }

    /// The daemon must end, for this reason.
    pub fn refuse(&self, reason: String) {
        self.lock().refusal = Some(reason);
    }

    pub fn refusal(&self) -> Option<String> {
        self.lock().refusal.clone()
    }

    pub fn is_joined(&self) -> bool {
        self.lock().joined
    }

    /// The states of a partition are there. `offset`: what the group had committed before they were read. Whatever others
    /// may have committed since, these states do not know of it.
    pub fn restored(&self, partition: i32, epoch: u64, offset: Option<i64>) {
        if let Some(p) = self.lock().partitions.get_mut(&partition).filter(|p| p.epoch == epoch) {
            (p.phase, p.offset) = (Phase::Restored, offset);
        }
    }

    /// Partitions whose position is to be set, each with the group's offset that belongs to its states.
    pub fn to_position(&self) -> Vec<(i32, Option<i64>)> {
        let inner = self.lock();
        let restored = inner.partitions.iter().filter(|(_, p)| p.phase == Phase::Restored);
        restored.map(|(number, p)| (*number, p.offset)).collect()
    }

    pub fn is_all_served(&self) -> bool {
        self.lock().partitions.values().all(|p| p.phase == Phase::Served)
    }

    /// Partitions whose records are polled.
    pub fn served(&self) -> Vec<i32> {
        let inner = self.lock();
        inner.partitions.iter().filter(|(_, p)| p.phase == Phase::Served).map(|(number, _)| *number).collect()
    }

    /// A partition is served from `next` on.
    pub fn serve(&self, partition: i32, next: i64) {
        if let Some(p) = self.lock().partitions.get_mut(&partition) {
            (p.phase, p.labelled, p.committed) = (Phase::Served, next, next);
        }
    }

    /// Where each served partition is read from after an error.
    pub fn labelled(&self) -> Vec<(i32, i64)> {
        let inner = self.lock();
        let served = inner.partitions.iter().filter(|(_, p)| p.phase == Phase::Served);
        served.map(|(number, p)| (*number, p.labelled)).collect()
    }

    /// For each served partition, how many records before `ends` are not committed.
    pub fn lags(&self, ends: &BTreeMap<i32, i64>) -> Vec<(i32, u64)> {
        let inner = self.lock();
        let served = inner.partitions.iter().filter(|(_, p)| p.phase == Phase::Served);
        served
            .filter_map(|(number, p)| Some((*number, u64::try_from(ends.get(number)? - p.committed).unwrap_or(0))))
            .collect()
    }

    /// Number of the last assignment.
    pub fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// Begins to write a batch with records or states of these partitions, polled when `epoch` was the last assignment.
    pub fn begin_writing(&self, partitions: &BTreeSet<i32>, epoch: u64) -> Result<(), TransportError> {
        let mut inner = self.lock();
        // One that was given later is not that of the batch.
        let epoch_of = |p: &i32| (*p, inner.partitions.get(p).map_or(0, |partition| partition.epoch.min(epoch)));
        let batch: BTreeMap<i32, u64> = partitions.iter().map(epoch_of).collect();
        let gone = gone(&inner, &batch);
        if gone.is_empty() {
            inner.writing = Some(batch);
            return Ok(());
        }
        Err(TransportError::Reassigned(gone))
    }

    /// A batch is being written: [`Assignment::revoke`] would wait.
    pub fn is_writing(&self) -> bool {
        self.lock().writing.is_some()
    }

    /// Whether the partitions are still ours: asked between two steps of writing. One that was taken away and came back
    /// meanwhile is not: others may have labelled what this batch did.
    pub fn go_on_writing(&self) -> Result<(), TransportError> {
        let inner = self.lock();
        let gone = inner.writing.as_ref().map_or_else(Vec::new, |batch| gone(&inner, batch));
        if gone.is_empty() { Ok(()) } else { Err(TransportError::Reassigned(gone)) }
    }

    /// Nothing is being written any more; `positions` are labelled if it went well.
    pub fn end_writing(&self, positions: &[Position]) {
        let mut inner = self.lock();
        let batch = inner.writing.take().unwrap_or_default();
        for Position { partition, next_offset, .. } in positions {
            if let Some(p) = inner.partitions.get_mut(partition)
                && batch.get(partition) == Some(&p.epoch)
            {
                p.labelled = p.labelled.max(*next_offset);
            }
        }
        self.written.notify_all();
    }

    /// Positions that the group does not know yet.
    pub fn uncommitted(&self) -> Vec<(i32, i64)> {
        let inner = self.lock();
        let behind = inner.partitions.iter().filter(|(_, p)| p.phase == Phase::Served && p.committed < p.labelled);
        behind.map(|(number, p)| (*number, p.labelled)).collect()
    }

    pub fn committed(&self, positions: &[(i32, i64)]) {
        let mut inner = self.lock();
        for (partition, next) in positions {
            if let Some(p) = inner.partitions.get_mut(partition) {
                p.committed = p.committed.max(*next);
            }
        }
    }
}

/// Partitions of a batch that are no longer ours by the assignments by which they were.
fn gone(inner: &Inner, batch: &BTreeMap<i32, u64>) -> Vec<i32> {
    let ours = |(p, epoch): &(&i32, &u64)| {
        inner.partitions.get(p).is_some_and(|now| now.epoch == **epoch) && !inner.leaving.contains(p)
    };
    batch.iter().filter(|entry| !ours(entry)).map(|(partition, _)| *partition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment() -> Assignment {
        Assignment::new(Events::new(&[]).unwrap())
    }

    #[test]
    fn a_partition_is_served_once_it_is_restored_and_positioned() {
        let assignment = assignment();
        let epoch = assignment.assign(&[3])[0].1;
        assert!(assignment.to_position().is_empty() && assignment.served().is_empty());
        // News of an earlier assignment is no news of this one.
        assignment.restored(3, epoch - 1, Some(7));
        assert!(assignment.to_position().is_empty());
        assignment.restored(3, epoch, Some(7));
        assert_eq!(assignment.to_position(), [(3, Some(7))]);
        assignment.serve(3, 17);
        assert_eq!(assignment.labelled(), [(3, 17)]);
        assert_eq!(assignment.lags(&BTreeMap::from([(3, 20), (4, 9)])), [(3, 3)]);
    }

    #[test]
    fn partitions_are_handed_over_only_when_nothing_of_them_is_being_written() {
        let assignment = std::sync::Arc::new(assignment());
        assignment.assign(&[0, 1]);
        assignment.serve(0, 5);
        assignment.begin_writing(&[0].into(), assignment.epoch()).unwrap();
        let other = assignment.clone();
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            other.go_on_writing().unwrap();
            other.end_writing(&[Position { topic: "t".into(), partition: 0, next_offset: 9 }]);
        });
        assignment.revoke(&[0], false, Duration::from_secs(10));
        assert_eq!(assignment.uncommitted(), [(0, 9)]);
        assert!(assignment.begin_writing(&[0, 1].into(), assignment.epoch()).is_err());
        assignment.forget(&[0]);
        writer.join().unwrap();
        assert_eq!(assignment.take_lost(), [0]);
        assert!(assignment.take_lost().is_empty());
        assert!(assignment.begin_writing(&[1].into(), assignment.epoch()).is_ok());
    }

    #[test]
    fn what_is_lost_is_not_written_any_further() {
        let assignment = assignment();
        assignment.assign(&[0]);
        assignment.serve(0, 5);
        assignment.begin_writing(&[0].into(), assignment.epoch()).unwrap();
        assignment.revoke(&[0], true, Duration::ZERO);
        assert!(matches!(assignment.go_on_writing(), Err(TransportError::Reassigned(gone)) if gone == [0]));
    }

    #[test]
    fn a_batch_does_not_go_on_when_its_partition_was_elsewhere_meanwhile() {
        let assignment = assignment();
        let position = |next_offset| [Position { topic: "t".into(), partition: 0, next_offset }];
        assignment.assign(&[0]);
        assignment.serve(0, 5);
        assignment.begin_writing(&[0].into(), assignment.epoch()).unwrap();
        assignment.revoke(&[0], false, Duration::ZERO);
        assignment.forget(&[0]);
        assignment.assign(&[0]);
        assignment.serve(0, 16);
        assert!(assignment.go_on_writing().is_err());
        assignment.end_writing(&position(30));
        assert_eq!(assignment.labelled(), [(0, 16)], "what was written by the earlier assignment does not count");
        assignment.begin_writing(&[0].into(), assignment.epoch()).unwrap();
        assignment.go_on_writing().unwrap();
        assignment.end_writing(&position(18));
        assert_eq!(assignment.labelled(), [(0, 18)]);
        // Nor one that was polled before and is begun only now.
        assert!(assignment.begin_writing(&[0].into(), assignment.epoch() - 1).is_err());
    }
}
