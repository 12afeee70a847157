//! The local copy of the states of the partitions in charge: what engine threads read, and what is shown of them.
//!
//! A file of redb's in `kafka.state_dir`, one table a partition: key of the stream → the bytes that are in the changelog.
//! It is a copy, made anew at each start; nothing is synced to disk. Streams are bounded by disk, not by memory.

use crate::config::OnModelChange;
use crate::events::Events;
use crate::model::Session;
use crate::state::{
    IdlePage, Maker, ModelPolicy, StateChange, StateReadError, States, StoreError, StreamEntry, StreamId, StreamState,
};
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most streams that one call of [`States::idle`] or [`Store::forgettable`] looks at.
const LOOK_AT: usize = 20_000;

/// A record of the changelog: key and state, or a tombstone.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    live: u64,
    /// Of these, those that go on with the previous model, and those of models that are not there.
    draining: u64,
    foreign: u64,
    bytes: u64,
    /// Largest offset that a stream of the partition has seen.
    seen: i64,
    /// Complete, and the partition is in charge: its streams may be ended by `state.stream_ttl`.
    serving: bool,
}

/// Why a changelog cannot be taken up. Nothing of the partition is served then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    #[error("the changelog's record for stream {stream:?} cannot be read: {detail}")]
    Damaged { stream: String, detail: String },
    #[error(
        "the changelog holds {live} live streams with states of another model (fingerprint {found:.12}…; {given}). Let their streams go on with \
         the model that made them until they end, with --on-model-change drain --previous-model DIR (one such model at \
         a time); or run with that model; or drop the states with --on-model-change reset (streams then begin anew); or \
         name another topic in kafka.changelog"
    )]
    OtherModel { live: u64, found: String, given: String },
    #[error("the local copy of the states cannot be written: {0}")]
    Store(String),
}

pub struct Store {
    database: Database,
    /// Locked as long as the process lives.
    _lock: File,
    path: PathBuf,
    policy: ModelPolicy,
    figures: Mutex<BTreeMap<i32, Figures>>,
    events: Events,
}

/// The name of a partition's table.
fn name(partition: i32) -> String {
    format!("partition-{partition}")
}

fn table(name: &str) -> TableDefinition<'_, &'static [u8], &'static [u8]> {
    TableDefinition::new(name)
}

impl Store {
    /// Makes an empty copy in `dir`, which one process may use at a time.
    pub fn open(dir: &Path, cache_bytes: usize, policy: ModelPolicy, events: Events) -> Result<Store, StoreError> {
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
        let path = dir.join("states.redb");
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(&path, &e)),
            _ => {}
        }
        let database = Database::builder().set_cache_size(cache_bytes).create(&path).map_err(|e| failed(&path, &e))?;
        Ok(Store { database, _lock: lock, path, policy, figures: Mutex::default(), events })
    }

    /// Figures are changed as a whole, so that a panic elsewhere leaves them right.
    fn figures(&self) -> MutexGuard<'_, BTreeMap<i32, Figures>> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write<T>(&self, f: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let mut txn = self.database.begin_write()?;
        txn.set_durability(Durability::None)?;
        let value = f(&txn)?;
        txn.commit()?;
        Ok(value)
    }

    /// Takes up records of a partition's changelog, in their order. States of models that are not there may be among them,
    /// if later ones take their place: [`Store::refusal`] tells at the end.
    pub fn restore(&self, partition: i32, records: &[Change]) -> Result<(), RestoreError> {
        let mut checked = Vec::with_capacity(records.len());
        for (key, value) in records {
            checked.push((key.as_slice(), value.as_deref().map(|value| self.check(key, value)).transpose()?));
        }
        // A state that has seen less than the one before it was written late, by an instance that was not in charge any
        // more: put() leaves it out.
        self.put(partition, checked.iter().map(|(key, state)| (*key, state.as_ref())))
            .map_err(|e| RestoreError::Store(format!("{}: {e}", self.path.display())))
    }

    /// A changelog record's state: never taken as empty if it cannot be read.
    fn check(&self, key: &[u8], value: &[u8]) -> Result<StreamState, RestoreError> {
        let stream = || String::from_utf8_lossy(key).into_owned();
        let damaged = |e: &dyn std::fmt::Display| RestoreError::Damaged { stream: stream(), detail: e.to_string() };
        let mut state = StreamState::decode(value).map_err(|e| damaged(&e))?;
        let Some(session) = &state.session else { return Ok(state) };
        let found = Session::fingerprint(session).map_err(|e| damaged(&e))?;
        if !self.policy.accepts(&found) && self.policy.on_model_change == OnModelChange::Reset {
            // The stream ends without a word; the numbering of its outputs goes on.
            state = StreamState { entry: StreamEntry { ended: true, ..state.entry }, session: None };
            self.events.state_reset(&String::from_utf8_lossy(key), &found);
        }
        Ok(state)
    }

    /// Why a partition whose changelog was read to its end must not be served: it has live streams of a model that is not
    /// there.
    pub fn refusal(&self, partition: i32) -> Option<RestoreError> {
        let live = self.figures().get(&partition).map_or(0, |figures| figures.foreign);
        if live == 0 {
            return None;
        }
        match self.find_foreign(partition) {
            Ok(found) => Some(RestoreError::OtherModel { live, found, given: self.policy.given() }),
            Err(error) => Some(RestoreError::Store(format!("{}: {error}", self.path.display()))),
        }
    }

    /// The fingerprint of a model that is not there and made one of the partition's states.
    fn find_foreign(&self, partition: i32) -> Result<String, redb::Error> {
        let txn = self.database.begin_read()?;
        let name = name(partition);
        for row in txn.open_table(table(&name))?.iter()? {
            let (_, value) = row?;
            let foreign = StreamState::session_of(value.value()).filter(|s| self.policy.maker(s) == Maker::Other);
            if let Some(Ok(found)) = foreign.map(Session::fingerprint) {
                return Ok(found);
            }
        }
        Err(redb::Error::Corrupted("states of another model were counted and are not there".to_string()))
    }

    /// Stores what a batch changed. Called when the changelog has it.
    pub fn store(&self, changes: &[StateChange]) -> Result<(), redb::Error> {
        let mut by_partition: BTreeMap<i32, Vec<&StateChange>> = BTreeMap::new();
        for change in changes {
            by_partition.entry(change.stream.partition()).or_default().push(change);
        }
        by_partition.into_iter().try_for_each(|(partition, changes)| {
            self.put(partition, changes.into_iter().map(|change| (change.stream.as_bytes(), Some(&change.state))))
        })
    }

    /// Forgets ended streams.
    pub fn forget(&self, streams: &[StreamId]) -> Result<(), redb::Error> {
        streams.iter().try_for_each(|stream| self.put(stream.partition(), [(stream.as_bytes(), None)].into_iter()))
    }

    fn put<'a>(
        &self,
        partition: i32,
        states: impl Iterator<Item = (&'a [u8], Option<&'a StreamState>)>,
    ) -> Result<(), redb::Error> {
        let new = Figures { seen: -1, ..Figures::default() };
        let mut figures = self.figures().get(&partition).copied().unwrap_or(new);
        let name = name(partition);
        self.write(|txn| {
            let mut table = txn.open_table(table(&name))?;
            for (key, state) in states {
                let before = match state {
                    Some(state) => {
                        let there = table.get(key)?.and_then(|old| StreamState::entry_of(old.value()));
                        if there.is_some_and(|there| there.seen > state.entry.seen) {
                            continue;
                        }
                        figures.seen = figures.seen.max(state.entry.seen);
                        let bytes = state.encode();
                        let counts = self.measure(&bytes);
                        figures.live += counts.live;
                        figures.draining += counts.draining;
                        figures.foreign += counts.foreign;
                        figures.bytes += counts.bytes;
                        table.insert(key, bytes.as_slice())?.map(|old| self.measure(old.value()))
                    }
                    None => table.remove(key)?.map(|old| self.measure(old.value())),
                };
                if let Some(counts) = before {
                    figures.live -= counts.live;
                    figures.draining -= counts.draining;
                    figures.foreign -= counts.foreign;
                    figures.bytes -= counts.bytes;
                }
            }
            Ok(())
        })?;
        {
            let mut all = self.figures();
            // Whether it is served is decided elsewhere, perhaps meanwhile.
            let serving = all.get(&partition).is_some_and(|now| now.serving);
            all.insert(partition, Figures { serving, ..figures });
        }
        self.tell();
        Ok(())
    }

    /// Live streams of this partition, and the largest offset that any has seen (-1: none).
    pub fn restored(&self, partition: i32) -> (u64, i64) {
        self.figures().get(&partition).map_or((0, -1), |figures| (figures.live, figures.seen))
    }

    /// The partition is whole: from now on its idle streams may be ended.
    pub fn serve(&self, partition: i32) {
        let new = Figures { seen: -1, ..Figures::default() };
        self.figures().entry(partition).or_insert(new).serving = true;
    }

    /// Another instance is in charge: its streams are no longer ours to end.
    pub fn leave(&self, partition: i32) {
        if let Some(figures) = self.figures().get_mut(&partition) {
            figures.serving = false;
        }
    }

    /// Deletes what is held of a partition.
    pub fn clear(&self, partition: i32) -> Result<(), redb::Error> {
        let name = name(partition);
        self.write(|txn| Ok(txn.delete_table(table(&name))?))?;
        self.figures().remove(&partition);
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        let figures = self.figures();
        let (live, bytes) = figures.values().fold((0, 0), |sum, one| (sum.0 + one.live, sum.1 + one.bytes));
        self.events.streams_stored(live, bytes);
        self.events.streams_draining(figures.values().map(|one| one.draining).sum());
    }

    /// What a stored state counts as.
    fn measure(&self, bytes: &[u8]) -> Figures {
        let maker = StreamState::session_of(bytes).map(|session| self.policy.maker(session));
        Figures {
            live: u64::from(maker.is_some()),
            draining: u64::from(maker == Some(Maker::Previous)),
            foreign: u64::from(maker == Some(Maker::Other)),
            bytes: bytes.len() as u64,
            ..Figures::default()
        }
    }

    fn serving(&self) -> Vec<i32> {
        self.figures().iter().filter(|(_, figures)| figures.serving).map(|(partition, _)| *partition).collect()
    }

    /// Ended streams whose last record came before `before_ms` and below the partition's `labelled` offset: no record
    /// of theirs is read again. At most `limit`.
    pub fn forgettable(
        &self,
        before_ms: u64,
        labelled: &[(i32, i64)],
        limit: usize,
    ) -> Result<Vec<StreamId>, redb::Error> {
        let mut found = Vec::new();
        let txn = self.database.begin_read()?;
        for (partition, next) in labelled {
            let name = name(*partition);
            let streams = match txn.open_table(table(&name)) {
                Ok(streams) => streams,
                Err(TableError::TableDoesNotExist(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            for row in streams.iter()?.take(LOOK_AT) {
                let (key, value) = row?;
                let Some(entry) = StreamState::entry_of(value.value()) else { continue };
                if entry.ended && entry.active_ms < before_ms && entry.seen < *next {
                    found.extend(StreamId::within(*partition, key.value()));
                }
                if found.len() == limit {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    fn load_all(&self, keys: &[StreamId]) -> Result<Vec<Option<StreamState>>, redb::Error> {
        let txn = self.database.begin_read()?;
        let mut tables = HashMap::new();
        let mut states = Vec::with_capacity(keys.len());
        for key in keys {
            let table = match tables.entry(key.partition()) {
                std::collections::hash_map::Entry::Occupied(there) => there.into_mut(),
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(match txn.open_table(table(&name(key.partition()))) {
                        Ok(table) => Some(table),
                        Err(TableError::TableDoesNotExist(_)) => None,
                        Err(error) => return Err(error.into()),
                    })
                }
            };
            let Some(table) = table else {
                states.push(None);
                continue;
            };
            let bytes = table.get(key.as_bytes())?;
            let state = bytes.map(|bytes| StreamState::decode(bytes.value())).transpose();
            states.push(state.map_err(|e| redb::Error::Corrupted(e.to_string()))?);
        }
        Ok(states)
    }

    fn look_idle(&self, before_ms: u64, after: Option<&StreamId>, limit: usize) -> Result<IdlePage, redb::Error> {
        let mut page = IdlePage::default();
        let mut looked_at = 0;
        let txn = self.database.begin_read()?;
        let first = after.map_or(i32::MIN, StreamId::partition);
        for partition in self.serving().into_iter().filter(|partition| *partition >= first) {
            let streams = match txn.open_table(table(&name(partition))) {
                Ok(streams) => streams,
                Err(TableError::TableDoesNotExist(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let from = match after.filter(|after| after.partition() == partition) {
                Some(after) => Bound::Excluded(after.as_bytes()),
                None => Bound::Unbounded,
            };
            for row in streams.range::<&[u8]>((from, Bound::Unbounded))? {
                let (key, value) = row?;
                let corrupted = |e: &dyn std::fmt::Display| redb::Error::Corrupted(e.to_string());
                let stream = StreamId::within(partition, key.value()).map_err(|e| corrupted(&e))?;
                let entry = StreamState::entry_of(value.value()).ok_or_else(|| corrupted(&"a state"))?;
                if !entry.ended && entry.active_ms < before_ms {
                    page.streams.push(stream.clone());
                }
                looked_at += 1;
                if page.streams.len() == limit || looked_at == LOOK_AT {
                    page.next = Some(stream);
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }
}

impl States for Store {
    fn load(&self, keys: &[StreamId]) -> Result<Vec<Option<StreamState>>, StateReadError> {
        self.load_all(keys).map_err(|e| StateReadError(format!("{}: {e}", self.path.display())))
    }

    fn idle(&self, before_ms: u64, after: Option<&StreamId>, limit: usize) -> Result<IdlePage, StateReadError> {
        self.look_idle(before_ms, after, limit).map_err(|e| StateReadError(format!("{}: {e}", self.path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(dir: &Path) -> Result<Store, StoreError> {
        let policy =
            ModelPolicy { fingerprint: "f".to_string(), previous: None, on_model_change: OnModelChange::Refuse };
        Store::open(dir, 1 << 20, policy, Events::new(&[]).unwrap())
    }

    fn change(partition: i32, key: &str, seen: i64, ended: bool) -> StateChange {
        let entry = StreamEntry { seen, ended, active_ms: 5, ..StreamEntry::default() };
        let state = StreamState { entry, session: (!ended).then(|| vec![1, 2, 3]) };
        StateChange { stream: StreamId::within(partition, key.as_bytes()).unwrap(), state }
    }

    #[test]
    fn the_same_key_in_two_partitions_is_two_streams() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).unwrap();
        store.store(&[change(0, "a", 3, false), change(1, "a", 9, false)]).unwrap();
        let keys: Vec<_> = [0, 1, 2].map(|p| StreamId::within(p, b"a").unwrap()).into();
        let seen: Vec<_> = store.load(&keys).unwrap().into_iter().map(|s| s.map(|s| s.entry.seen)).collect();
        assert_eq!(seen, [Some(3), Some(9), None]);
        store.clear(1).unwrap();
        assert_eq!(store.load(&keys).unwrap().iter().flatten().count(), 1);
        assert_eq!((store.restored(0), store.restored(1)), ((1, 3), (0, -1)));
    }

    #[test]
    fn only_streams_of_partitions_in_charge_are_idle() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).unwrap();
        store.store(&[change(0, "a", 1, false), change(1, "b", 1, false), change(1, "c", 1, true)]).unwrap();
        assert_eq!(store.idle(10, None, 10).unwrap().streams, []);
        store.serve(1);
        assert_eq!(store.idle(10, None, 10).unwrap().streams, [StreamId::within(1, b"b").unwrap()]);
        store.serve(0);
        let page = store.idle(10, None, 1).unwrap();
        let rest = store.idle(10, page.next.as_ref(), 10).unwrap();
        assert_eq!((page.streams.len(), rest.streams.len(), rest.next), (1, 1, None));
        store.leave(1);
        assert_eq!(store.idle(10, None, 10).unwrap().streams.len(), 1);
    }

    #[test]
    fn a_state_that_was_written_too_late_does_not_undo_a_newer_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).unwrap();
        let record = |seen| (b"a".to_vec(), Some(change(0, "a", seen, true).state.encode()));
        store.restore(0, &[record(5), record(9), record(7)]).unwrap();
        assert_eq!(store.restored(0), (0, 9));
        let state = store.load(&[StreamId::within(0, b"a").unwrap()]).unwrap().remove(0).unwrap();
        assert_eq!(state.entry.seen, 9);
    }

    #[test]
    fn an_ended_stream_is_forgotten_only_when_none_of_its_records_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).unwrap();
        store.store(&[change(0, "a", 7, true), change(0, "b", 8, true), change(0, "c", 1, false)]).unwrap();
        assert_eq!(store.forgettable(10, &[(0, 7)], 9).unwrap(), []);
        assert_eq!(store.forgettable(5, &[(0, 8)], 9).unwrap(), []);
        let found = store.forgettable(10, &[(0, 8)], 9).unwrap();
        assert_eq!(found, [StreamId::within(0, b"a").unwrap()]);
        store.forget(&found).unwrap();
        assert_eq!(store.load(&found).unwrap(), [None]);
    }

    #[test]
    fn a_damaged_changelog_is_never_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).unwrap();
        let good = change(0, "a", 1, true).state.encode();
        let mut bad = good.clone();
        bad[10] ^= 1;
        store.restore(0, &[(b"a".to_vec(), Some(good))]).unwrap();
        let error = store.restore(0, &[(b"b".to_vec(), Some(bad))]).unwrap_err();
        assert!(matches!(error, RestoreError::Damaged { stream, .. } if stream == "b"));
    }

    #[test]
    fn only_the_last_state_of_a_stream_decides_whose_partition_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let print = |model: u8| format!("{model:02x}").repeat(32);
        let policy = |previous: Option<u8>, on_model_change| ModelPolicy {
            fingerprint: print(2),
            previous: previous.map(print),
            on_model_change,
        };
        let open = |policy| Store::open(dir.path(), 1 << 20, policy, Events::new(&[]).unwrap()).unwrap();
        let state = |key: &str, seen, model: Option<u8>| {
            let mut change = change(0, key, seen, model.is_none());
            change.state.session = model.map(|model| [&[1], &[model; 32][..]].concat());
            (key.as_bytes().to_vec(), Some(change.state.encode()))
        };
        // As a compacted topic has them that is not compacted yet: each stream's states, one after the other.
        let records = [state("a", 1, Some(1)), state("b", 2, Some(1)), state("a", 3, Some(2)), state("c", 4, Some(1))];
        let ends = [state("b", 5, None), (b"c".to_vec(), None)];

        let store = open(policy(None, OnModelChange::Refuse));
        store.restore(0, &records).unwrap();
        let found = Some(RestoreError::OtherModel { live: 2, found: print(1), given: store.policy.given() });
        assert_eq!(store.refusal(0), found);
        store.restore(0, &ends).unwrap();
        assert_eq!((store.refusal(0), store.restored(0)), (None, (1, 5)));
        drop(store);

        let store = open(policy(Some(1), OnModelChange::Drain));
        let draining = || store.events.metrics().streams_draining.get();
        store.restore(0, &records).unwrap();
        assert_eq!((store.refusal(0), store.restored(0).0, draining()), (None, 3, 2));
        store.restore(0, &ends).unwrap();
        assert_eq!(draining(), 0);
        drop(store);
        // A third one's are refused with two models as with one.
        let store = open(policy(Some(3), OnModelChange::Drain));
        store.restore(0, &records).unwrap();
        assert!(matches!(store.refusal(0), Some(RestoreError::OtherModel { live: 2, .. })));
        drop(store);
        let store = open(policy(None, OnModelChange::Reset));
        store.restore(0, &records).unwrap();
        assert_eq!((store.refusal(0), store.restored(0).0), (None, 1));
    }

    #[test]
    fn a_directory_is_for_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let first = store(dir.path()).unwrap();
        assert!(matches!(store(dir.path()), Err(StoreError::Locked(_))));
        drop(first);
        assert!(store(dir.path()).is_ok());
    }
}
