//! The local copy of the states of the partitions in charge: what engine threads read, and what is shown of them.
//!
//! A file of redb's in `kafka.state_dir`, one table a partition: key of the stream → the bytes that are in the changelog.
//! Streams are bounded by disk, not by memory. Each table knows up to which offset of the changelog it is complete, so
//! that after a restart, or when a partition comes back, only what came since is read: [`super::checkpoint`].

use super::checkpoint::{self, Identity, Mark, Saved};
use super::unwritten::{Layer, Unwritten};
use crate::clock::unix_ms;
use crate::config::OnModelChange;
use crate::events::Events;
use crate::model::Session;
use crate::state::{
    IdlePage, Maker, ModelPolicy, StateReadError, States, StoreError, StreamEntry, StreamId, StreamState,
};
pub use figures::Figures;
use file::{StateFile, Tables};
use reading::unreadable;
use redb::TableDefinition;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

mod figures;
mod file;
mod reading;
mod saving;

/// A record of the changelog: key and state, or a tombstone.
pub type Record = (Vec<u8>, Option<Vec<u8>>);

/// A record that is brought into a partition's table.
pub struct Change<'a> {
    pub partition: i32,
    pub key: &'a [u8],
    /// The state's bytes; absent for a stream that is forgotten.
    pub value: Option<Cow<'a, [u8]>>,
}

/// Where a batch's changes lie in a partition of the changelog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub first: i64,
    pub records: i64,
    /// At the last of them.
    pub mark: Mark,
}

impl Written {
    /// Whether they are the next after `whole`, and nothing of others lies between.
    fn follows(&self, whole: Option<i64>) -> bool {
        Some(self.first) == whole && self.mark.next - self.first == self.records
    }
}

/// Why a changelog cannot be taken up. Nothing of the partition is served then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error("the changelog's record for stream {stream:?} cannot be read: {detail}")]
    Damaged { stream: String, detail: String },
    #[error(
        "the changelog holds {live} live streams with states of another model (fingerprint {found:.12}…; {given}). Let \
         them go on with the model that made them until they end, with --on-model-change drain --previous-model DIR (one \
         such model at a time); or run with that model; or drop the states with --on-model-change reset (streams then \
         begin anew); or name another topic in kafka.changelog"
    )]
    OtherModel { live: u64, found: String, given: String },
    #[error("the local copy of the states cannot be written: {0}")]
    Store(String),
}

pub struct Store {
    /// Absent only while, or after, opening it anew failed.
    file: RwLock<Option<StateFile>>,
    /// How often it was opened: what was written before, and not saved, is not in it.
    opened: AtomicU64,
    /// Locked as long as the process lives.
    _lock: File,
    path: PathBuf,
    /// Of pages of the file.
    cache_bytes: usize,
    /// Of what is unwritten, and as much again while that is being written.
    layer_bytes: usize,
    identity: Identity,
    figures: Mutex<BTreeMap<i32, Figures>>,
    unwritten: RwLock<Unwritten>,
    /// It could not be saved: the file must be opened anew.
    unsaved: AtomicBool,
    /// Held while the file is written, which takes as long as the disk takes.
    filing: Mutex<()>,
    /// Held while what is held of the states changes.
    writing: Mutex<()>,
    events: Events,
}

/// The name of a partition's table.
pub fn name(partition: i32) -> String {
    format!("partition-{partition}")
}

pub fn table(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

impl Store {
    /// Opens the copy in `dir`, which one process may use at a time. One that is damaged, or of another model or
    /// changelog, is put aside, and a new one begun.
    pub fn open(
        dir: &Path,
        cache_bytes: usize,
        changelog: &str,
        models: ModelPolicy,
        events: Events,
    ) -> Result<Store, StoreError> {
        let failed = |path: &Path, e: &dyn std::fmt::Display| StoreError::Open {
            path: path.to_path_buf(),
            detail: e.to_string(),
        };
        std::fs::create_dir_all(dir).map_err(|e| failed(dir, &e))?;
        let lock_path = dir.join("lock");
        let lock = File::create(&lock_path).map_err(|e| failed(&lock_path, &e))?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => StoreError::Locked(dir.to_path_buf()),
            std::fs::TryLockError::Error(e) => failed(&lock_path, &e),
        })?;
        let layer_bytes = cache_bytes / 8 * 3;
        let cache_bytes = cache_bytes / 4;
        let path = dir.join("states.redb");
        let identity = Identity { models, changelog: changelog.to_string() };
        let Saved { database, figures } = checkpoint::open(&path, cache_bytes, &identity, &events)?;
        let file = StateFile::new(database).map_err(|e| failed(&path, &e))?;
        Ok(Store {
            file: RwLock::new(Some(file)),
            opened: AtomicU64::new(0),
            _lock: lock,
            path,
            cache_bytes,
            layer_bytes,
            identity,
            figures: Mutex::new(figures),
            unwritten: RwLock::default(),
            unsaved: AtomicBool::new(false),
            filing: Mutex::default(),
            writing: Mutex::default(),
            events,
        })
    }

    fn models(&self) -> &ModelPolicy {
        &self.identity.models
    }

    /// Figures are changed as a whole, so that a panic elsewhere leaves them right.
    fn figures(&self) -> MutexGuard<'_, BTreeMap<i32, Figures>> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, f: impl FnOnce(&StateFile) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let file = self.file.read().unwrap_or_else(PoisonError::into_inner);
        f(file.as_ref().ok_or(redb::Error::PreviousIo)?)
    }

    /// What is in the file. Of use behind a look at what is unwritten, never before it.
    fn tables(&self) -> Result<Tables, redb::Error> {
        self.with(|file| Ok(file.tables()))
    }

    /// Changes whenever it is opened anew. What is to be written behind what was written before is of use only as long as
    /// this is the same.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// The broker's cluster is known now: a copy of another's states is put aside.
    pub fn check_cluster(&self, cluster: &str) -> Result<(), redb::Error> {
        let other = self.with(|file| checkpoint::is_of_other_cluster(file.database(), cluster))?;
        if let Some(other) = other {
            let partitions: Vec<i32> = self.figures().keys().copied().collect();
            partitions.into_iter().try_for_each(|partition| self.clear(partition))?;
            self.events.checkpoint_put_aside(&format!("it is of the cluster {other}, and this is {cluster}"));
        }
        self.with(|file| checkpoint::set_cluster(file.database(), cluster))
    }

    /// Takes up records of a partition's changelog, in their order; afterwards it is complete up to `mark`. States of models
    /// that are not there may be among them, if later ones take their place: [`Store::refusal`] tells at the end.
    /// `opened`: [`Store::opened`] when it was asked where to begin.
    pub fn restore(
        &self,
        partition: i32,
        records: &[Record],
        mark: Option<Mark>,
        opened: u64,
    ) -> Result<(), RestoreError> {
        let mut changes = Vec::with_capacity(records.len());
        for (key, value) in records {
            let value = value.as_deref().map(|value| self.check(key, value)).transpose()?;
            changes.push(Change { partition, key, value });
        }
        // A state that has seen less than the one before it was written late, by an instance that was not in charge any
        // more: put() leaves it out.
        self.put(&changes, &mark.map(|mark| (partition, mark)).into_iter().collect(), opened)
            .map_err(|e| RestoreError::Store(format!("{}: {e}", self.path.display())))
    }

    /// A changelog record's state: never taken as empty if it cannot be read.
    fn check<'a>(&self, key: &[u8], value: &'a [u8]) -> Result<Cow<'a, [u8]>, RestoreError> {
        let stream = || String::from_utf8_lossy(key).into_owned();
        let damaged = |e: &dyn std::fmt::Display| RestoreError::Damaged { stream: stream(), detail: e.to_string() };
        let mut state = StreamState::decode(value).map_err(|e| damaged(&e))?;
        let Some(session) = &state.session else { return Ok(value.into()) };
        let found = Session::fingerprint(session).map_err(|e| damaged(&e))?;
        if self.models().on_model_change == OnModelChange::Reset && !self.models().accepts(&found) {
            // The stream ends without a word; the numbering of its outputs goes on.
            state = StreamState { entry: StreamEntry { ended: true, ..state.entry }, session: None };
            self.events.state_reset(&String::from_utf8_lossy(key), &found);
            return Ok(state.encode().into());
        }
        Ok(value.into())
    }

    /// Stores what a batch changed, once the changelog has it. Partitions that are not served are refused: what is missing of
    /// them must be read back first. `sure`: nobody else can have written to the partitions meanwhile, and no batch of this
    /// instance is there that failed. Otherwise both is told from the offsets: a partition with something in between is
    /// refused too.
    pub fn store(
        &self,
        changes: &[Change<'_>],
        written: &BTreeMap<i32, Written>,
        sure: bool,
    ) -> Result<(), redb::Error> {
        let opened = self.opened();
        let figures = self.figures();
        for Change { partition, .. } in changes {
            let Some(held) = figures.get(partition).filter(|held| held.serving) else {
                return Err(redb::Error::Corrupted(format!("partition {partition} is being read back")));
            };
            if !sure && !written.get(partition).is_some_and(|written| written.follows(held.whole)) {
                let what = format!("partition {partition} has records in the changelog that the copy lacks");
                return Err(redb::Error::Corrupted(what));
            }
        }
        drop(figures);
        let marks = written.iter().map(|(partition, written)| (*partition, written.mark)).collect();
        self.put(changes, &marks, opened)
    }

    /// The changelog of a partition was read to its end, which is here. False: the store was opened anew meanwhile.
    pub fn read_to(&self, partition: i32, end: i64, opened: u64) -> bool {
        let mut figures = self.figures();
        if self.opened() != opened {
            return false;
        }
        let figures = figures.entry(partition).or_default();
        figures.whole = Some(figures.mark.map_or(end, |mark| mark.next.max(end)));
        true
    }

    fn put(&self, changes: &[Change<'_>], marks: &BTreeMap<i32, Mark>, opened: u64) -> Result<(), redb::Error> {
        // Before anything is changed, so that an error leaves all as it was.
        self.make_room()?;
        let _writing = self.writing();
        if self.opened() != opened {
            return Err(redb::Error::Corrupted("it was opened anew meanwhile".to_string()));
        }
        let before = self.figures().clone();
        let mut after: BTreeMap<i32, Figures> = BTreeMap::new();
        let mut later = Layer::default();
        {
            let unwritten = self.unwritten();
            // After the look at what is unwritten: what has left that since is here.
            let mut tables = self.tables()?;
            for Change { partition, key, value } in changes {
                let known = later.get(*partition, key).or_else(|| unwritten.get(*partition, key));
                let written = match known {
                    None => tables.get(*partition, key)?,
                    Some(_) => None,
                };
                let old = known.unwrap_or_else(|| written.as_ref().map(|written| written.value()));
                let figures =
                    after.entry(*partition).or_insert_with(|| before.get(partition).copied().unwrap_or_default());
                let entry = match value {
                    Some(value) => Some(StreamState::entry_of(value).ok_or_else(unreadable)?),
                    None => None,
                };
                let there = old.and_then(StreamState::entry_of);
                if let (Some(there), Some(entry)) = (there, &entry)
                    && there.seen > entry.seen
                {
                    continue;
                }
                if let Some(old) = old {
                    figures.remove(old, self.models());
                }
                if let (Some(value), Some(entry)) = (value, &entry) {
                    figures.add(value, entry, self.models());
                }
                later.put(*partition, key, value.as_deref().map(<[u8]>::to_vec));
            }
        }
        for (partition, mark) in marks {
            let figures = after.entry(*partition).or_insert_with(|| before.get(partition).copied().unwrap_or_default());
            figures.mark = Some(*mark);
            figures.whole = figures.whole.map(|_| mark.next);
            later.mark(*partition);
        }
        self.unwritten_mut().absorb(later);
        let mut all = self.figures();
        for (partition, figures) in after {
            // Whether it is served is decided elsewhere, perhaps meanwhile.
            let serving = all.get(&partition).is_some_and(|now| now.serving);
            all.insert(partition, Figures { serving, ..figures });
        }
        drop(all);
        self.tell();
        Ok(())
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unwritten(&self) -> RwLockReadGuard<'_, Unwritten> {
        self.unwritten.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn unwritten_mut(&self) -> RwLockWriteGuard<'_, Unwritten> {
        self.unwritten.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is held of a partition.
    pub fn held(&self, partition: i32) -> Figures {
        self.figures().get(&partition).copied().unwrap_or_default()
    }

    /// From now on the partition is read, and its idle streams may be ended. False: it is not whole any more, and must be
    /// restored again.
    pub fn serve(&self, partition: i32) -> bool {
        let mut figures = self.figures();
        let whole = figures.get_mut(&partition).is_some_and(|figures| {
            figures.serving = figures.whole.is_some();
            figures.serving
        });
        drop(figures);
        self.tell();
        whole
    }

    /// Another instance is in charge: its streams are no longer ours to end. What is held of it stays.
    pub fn leave(&self, partition: i32) {
        if let Some(figures) = self.figures().get_mut(&partition) {
            (figures.serving, figures.whole) = (false, None);
        }
        self.tell();
    }

    /// Deletes what is held of a partition.
    pub fn clear(&self, partition: i32) -> Result<(), redb::Error> {
        let _filing = self.filing();
        let _writing = self.writing();
        self.with(|file| file.write(|database| checkpoint::delete(database, partition)))?;
        self.unwritten_mut().drop_partition(partition);
        self.figures().remove(&partition);
        self.tell();
        Ok(())
    }

    /// Streams of the partitions in charge; those that are held for others are theirs to count.
    fn tell(&self) {
        let figures = self.figures();
        let served = || figures.iter().filter(|(_, figures)| figures.serving);
        let (live, bytes) = served().fold((0, 0), |sum, (_, one)| (sum.0 + one.live, sum.1 + one.bytes));
        self.events.streams_stored(live, bytes);
        let draining = served().map(|(_, one)| one.draining).sum();
        self.events.streams_draining_in(draining, served().map(|(partition, _)| *partition).collect());
    }

    pub fn serving(&self) -> Vec<i32> {
        self.figures().iter().filter(|(_, figures)| figures.serving).map(|(partition, _)| *partition).collect()
    }
}

#[cfg(test)]
mod tests;
