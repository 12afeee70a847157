//! The local copy of the states of the partitions in charge: what engine threads read, and what is shown of them.
//!
//! A file of redb's in `kafka.state_dir`, one table a partition: key of the stream → the bytes that are in the changelog.
//! Streams are bounded by disk, not by memory. Each table knows up to which offset of the changelog it is complete, so
//! that after a restart, or when a partition comes back, only what came since is read: [`super::checkpoint`].

use super::checkpoint::{self, Identity, Mark, Saved};
use super::unwritten::Unwritten;
use crate::clock::unix_ms;
use crate::config::OnModelChange;
use crate::events::Events;
use crate::model::Session;
use crate::state::{
    IdlePage, Maker, ModelPolicy, StateReadError, States, StoreError, StreamEntry, StreamId, StreamState,
};
use redb::{
    Database, Durability, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError,
};
use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// Most streams that one call of [`States::idle`] or [`Store::forgettable`] looks at.
const LOOK_AT: usize = 20_000;

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

/// What a partition's table holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    pub rows: u64,
    pub live: u64,
    /// Of these, those that go on with the previous model, and those of models that are not there.
    pub draining: u64,
    pub foreign: u64,
    pub bytes: u64,
    /// Largest offset that a stream of the partition has seen; -1 for none.
    pub seen: i64,
    /// Up to where the changelog is in it. Absent: not known to be complete.
    pub mark: Option<Mark>,
    /// Since the changelog was read to its end: offset before which all that there is in it is in the table too.
    whole: Option<i64>,
    /// Whole, and the partition is in charge: only then do engine threads read it and commits change it.
    serving: bool,
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
    database: RwLock<Option<Database>>,
    /// How often it was opened: what was written before, and not saved, is not in it.
    opened: AtomicU64,
    /// Locked as long as the process lives.
    _lock: File,
    path: PathBuf,
    /// Of pages of the file, and of what is unwritten, each.
    cache_bytes: usize,
    identity: Identity,
    figures: Mutex<BTreeMap<i32, Figures>>,
    unwritten: RwLock<Unwritten>,
    /// It could not be saved: the file must be opened anew.
    unsaved: AtomicBool,
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

impl Default for Figures {
    fn default() -> Self {
        Figures {
            rows: 0,
            live: 0,
            draining: 0,
            foreign: 0,
            bytes: 0,
            seen: -1,
            mark: None,
            whole: None,
            serving: false,
        }
    }
}

impl Figures {
    /// A state is in the table now.
    pub fn add(&mut self, bytes: &[u8], entry: &StreamEntry, policy: &ModelPolicy) {
        let maker = StreamState::session_of(bytes).map(|session| policy.maker(session));
        self.rows += 1;
        self.live += u64::from(!entry.ended);
        self.draining += u64::from(maker == Some(Maker::Previous));
        self.foreign += u64::from(maker == Some(Maker::Other));
        self.bytes += bytes.len() as u64;
        self.seen = self.seen.max(entry.seen);
    }

    /// A state is no longer in the table. What it has seen stays seen.
    fn remove(&mut self, bytes: &[u8], policy: &ModelPolicy) {
        let maker = StreamState::session_of(bytes).map(|session| policy.maker(session));
        self.rows -= 1;
        self.draining -= u64::from(maker == Some(Maker::Previous));
        self.foreign -= u64::from(maker == Some(Maker::Other));
        self.live -= u64::from(StreamState::entry_of(bytes).is_some_and(|entry| !entry.ended));
        self.bytes -= bytes.len() as u64;
    }
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
        let cache_bytes = cache_bytes / 2;
        let path = dir.join("states.redb");
        let identity = Identity { models, changelog: changelog.to_string() };
        let Saved { database, figures } = checkpoint::open(&path, cache_bytes, &identity, &events)?;
        Ok(Store {
            database: RwLock::new(Some(database)),
            opened: AtomicU64::new(0),
            _lock: lock,
            path,
            cache_bytes,
            identity,
            figures: Mutex::new(figures),
            unwritten: RwLock::default(),
            unsaved: AtomicBool::new(false),
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

    fn with<T>(&self, f: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, redb::Error> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        f(database.as_ref().ok_or(redb::Error::PreviousIo)?)
    }

    fn begin_read(&self) -> Result<ReadTransaction, redb::Error> {
        self.with(|database| Ok(database.begin_read()?))
    }

    /// After an error of the disk: opens the file anew, as it was when it was last saved. No partition is served then;
    /// each must be restored first.
    pub fn open_again(&self) -> Result<(), StoreError> {
        let _writing = self.writing();
        self.unsaved.store(false, Ordering::Relaxed);
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let well = database.as_ref().is_some_and(|database| {
            let txn = database.begin_write().map_err(redb::Error::from);
            txn.and_then(|txn| txn.commit().map_err(redb::Error::from)).is_ok()
        });
        if well {
            return Ok(());
        }
        *database = None;
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.figures().values_mut().for_each(|figures| (figures.serving, figures.whole) = (false, None));
        *self.unwritten.write().unwrap_or_else(PoisonError::into_inner) = Unwritten::default();
        let saved = checkpoint::open(&self.path, self.cache_bytes, &self.identity, &self.events)?;
        *database = Some(saved.database);
        *self.figures() = saved.figures;
        self.events.store_reopened(&"an error of the disk");
        Ok(())
    }

    /// Changes whenever it is opened anew. What is to be written behind what was written before is of use only as long as
    /// this is the same.
    pub fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// The broker's cluster is known now: a copy of another's states is put aside.
    pub fn check_cluster(&self, cluster: &str) -> Result<(), redb::Error> {
        let other = self.with(|database| checkpoint::is_of_other_cluster(database, cluster))?;
        if let Some(other) = other {
            let partitions: Vec<i32> = self.figures().keys().copied().collect();
            partitions.into_iter().try_for_each(|partition| self.clear(partition))?;
            self.events.checkpoint_put_aside(&format!("it is of the cluster {other}, and this is {cluster}"));
        }
        self.with(|database| checkpoint::set_cluster(database, cluster))
    }

    /// Makes all that was written last: a later start goes on from here.
    pub fn save(&self) -> Result<(), redb::Error> {
        let saved = self.try_to_save();
        if saved.is_err() {
            self.unsaved.store(true, Ordering::Relaxed);
        }
        saved
    }

    /// Saving failed since [`Store::open_again`]: the disk is full or broken, and the file no longer to be relied on.
    pub fn is_unsaved(&self) -> bool {
        self.unsaved.load(Ordering::Relaxed)
    }

    fn try_to_save(&self) -> Result<(), redb::Error> {
        let _writing = self.writing();
        self.write_down()?;
        let served: Vec<(i32, Option<Mark>)> =
            self.figures().iter().filter(|(_, f)| f.serving).map(|(partition, f)| (*partition, f.mark)).collect();
        self.with(|database| checkpoint::save(database, &served, unix_ms()))
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

    /// Why a partition whose changelog was read to its end must not be served: it has live streams of a model that is not
    /// there.
    pub fn refusal(&self, partition: i32) -> Option<RestoreError> {
        let live = self.held(partition).foreign;
        if live == 0 {
            return None;
        }
        match self.find_foreign(partition) {
            Ok(found) => Some(RestoreError::OtherModel { live, found, given: self.models().given() }),
            Err(error) => Some(RestoreError::Store(format!("{}: {error}", self.path.display()))),
        }
    }

    /// The fingerprint of a model that is not there and made one of the partition's states.
    fn find_foreign(&self, partition: i32) -> Result<String, redb::Error> {
        let txn = self.begin_whole_read()?;
        if let Some(streams) = open_table(&txn, partition)? {
            for row in streams.iter()? {
                let (_, value) = row?;
                let session = StreamState::session_of(value.value());
                let foreign = session.filter(|session| self.models().maker(session) == Maker::Other);
                if let Some(Ok(found)) = foreign.map(Session::fingerprint) {
                    return Ok(found);
                }
            }
        }
        Err(unreadable())
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
        let _writing = self.writing();
        if self.opened() != opened {
            return Err(redb::Error::Corrupted("it was opened anew meanwhile".to_string()));
        }
        // Before anything is changed, so that an error leaves all as it was.
        if self.unwritten().bytes() > self.cache_bytes {
            self.write_down()?;
        }
        let before = self.figures().clone();
        let mut after: BTreeMap<i32, Figures> = BTreeMap::new();
        let mut later = Unwritten::default();
        {
            let unwritten = self.unwritten();
            let txn = self.begin_read()?;
            let mut tables = HashMap::new();
            for Change { partition, key, value } in changes {
                if let Entry::Vacant(place) = tables.entry(*partition) {
                    place.insert(open_table(&txn, *partition)?);
                }
                let known = later.get(*partition, key).or_else(|| unwritten.get(*partition, key));
                let written = match (known, &tables[partition]) {
                    (None, Some(table)) => table.get(*key)?,
                    _ => None,
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
        self.unwritten.write().unwrap_or_else(PoisonError::into_inner).absorb(later);
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

    /// Held by whoever changes what is held of the states.
    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unwritten(&self) -> RwLockReadGuard<'_, Unwritten> {
        self.unwritten.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings what is unwritten into the file. Call with [`Store::writing`].
    fn write_down(&self) -> Result<(), redb::Error> {
        let unwritten = self.unwritten();
        if unwritten.is_empty() {
            return Ok(());
        }
        let mut figures = self.figures().clone();
        figures.retain(|partition, _| unwritten.marked().contains(partition));
        self.with(|database| {
            let mut txn = database.begin_write()?;
            txn.set_durability(Durability::None)?;
            for (partition, changes) in unwritten.sorted() {
                let name = name(partition);
                let mut table = txn.open_table(table(&name))?;
                for (key, value) in changes {
                    match value {
                        Some(value) => _ = table.insert(key, value)?,
                        None => _ = table.remove(key)?,
                    }
                }
            }
            checkpoint::note(&txn, &figures)?;
            txn.commit()?;
            Ok(())
        })?;
        drop(unwritten);
        // Only now: who did not find it there finds it in the file.
        *self.unwritten.write().unwrap_or_else(PoisonError::into_inner) = Unwritten::default();
        Ok(())
    }

    /// A view of the file with all in it.
    fn begin_whole_read(&self) -> Result<ReadTransaction, redb::Error> {
        let _writing = self.writing();
        self.write_down()?;
        self.begin_read()
    }

    /// What is held of a partition.
    pub fn held(&self, partition: i32) -> Figures {
        self.figures().get(&partition).copied().unwrap_or_default()
    }

    /// From now on the partition is read, and its idle streams may be ended; not if it is not whole any more.
    pub fn serve(&self, partition: i32) {
        if let Some(figures) = self.figures().get_mut(&partition) {
            figures.serving = figures.whole.is_some();
        }
        self.tell();
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
        let _writing = self.writing();
        self.with(|database| checkpoint::delete(database, partition))?;
        self.unwritten.write().unwrap_or_else(PoisonError::into_inner).drop_partition(partition);
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

    /// Ended streams whose last record came before `before_ms` and below the partition's `labelled` offset: no record
    /// of theirs is read again. At most `limit`.
    pub fn forgettable(
        &self,
        before_ms: u64,
        labelled: &[(i32, i64)],
        limit: usize,
    ) -> Result<Vec<StreamId>, redb::Error> {
        let mut found = Vec::new();
        let txn = self.begin_whole_read()?;
        for (partition, next) in labelled {
            let Some(streams) = open_table(&txn, *partition)? else { continue };
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
        let served = self.serving();
        let read = |bytes: &[u8]| StreamState::decode(bytes).map_err(|e| redb::Error::Corrupted(e.to_string()));
        let (mut states, mut elsewhere) = (Vec::with_capacity(keys.len()), Vec::new());
        {
            let unwritten = self.unwritten();
            for (place, key) in keys.iter().enumerate() {
                let partition = key.partition();
                if !served.contains(&partition) {
                    return Err(redb::Error::Corrupted(format!("partition {partition} is being read back")));
                }
                let found = unwritten.get(partition, key.as_bytes());
                if found.is_none() {
                    elsewhere.push(place);
                }
                states.push(found.flatten().map(read).transpose()?);
            }
        }
        if elsewhere.is_empty() {
            return Ok(states);
        }
        // Begun after the look at what is unwritten: what has left that since is here.
        let txn = self.begin_read()?;
        let mut tables = HashMap::new();
        for place in elsewhere {
            let key = &keys[place];
            if let Entry::Vacant(vacant) = tables.entry(key.partition()) {
                vacant.insert(open_table(&txn, key.partition())?);
            }
            if let Some(table) = &tables[&key.partition()] {
                states[place] = table.get(key.as_bytes())?.map(|bytes| read(bytes.value())).transpose()?;
            }
        }
        Ok(states)
    }

    fn look_idle(&self, before_ms: u64, after: Option<&StreamId>, limit: usize) -> Result<IdlePage, redb::Error> {
        let mut page = IdlePage::default();
        let mut looked_at = 0;
        let txn = self.begin_whole_read()?;
        let first = after.map_or(i32::MIN, StreamId::partition);
        for partition in self.serving().into_iter().filter(|partition| *partition >= first) {
            let Some(streams) = open_table(&txn, partition)? else { continue };
            let from = match after.filter(|after| after.partition() == partition) {
                Some(after) => Bound::Excluded(after.as_bytes()),
                None => Bound::Unbounded,
            };
            for row in streams.range::<&[u8]>((from, Bound::Unbounded))? {
                let (key, value) = row?;
                let stream = StreamId::within(partition, key.value());
                let stream = stream.map_err(|e| redb::Error::Corrupted(e.to_string()))?;
                let entry = StreamState::entry_of(value.value()).ok_or_else(unreadable)?;
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

type Streams = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A partition's table, if there is one.
fn open_table(txn: &ReadTransaction, partition: i32) -> Result<Option<Streams>, redb::Error> {
    match txn.open_table(table(&name(partition))) {
        Ok(streams) => Ok(Some(streams)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn unreadable() -> redb::Error {
    redb::Error::Corrupted("a state cannot be read".to_string())
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
mod tests;
