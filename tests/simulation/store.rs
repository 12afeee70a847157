//! The committed states as an instance reads them: what the daemon keeps in a file, here in a map.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use strand::state::{IdlePage, StateChange, StateReadError, States, StreamId, StreamState};

use crate::scheduler::Sim;

/// States of a partition by key, as bytes.
pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default, Clone)]
struct Table {
    states: Rows,
    /// Whole, and in charge: it is read, and its streams may be ended for their silence.
    serving: bool,
    /// Up to which offset of the changelog it is whole.
    mark: i64,
    /// The same, and behind it nothing but ends of transactions when it was last read to its end.
    whole: i64,
}

/// Where what a batch wrote to a partition of the changelog lies.
pub struct Written {
    pub first: i64,
    pub last: i64,
    pub records: i64,
}

/// An instance's copy of the states of its partitions.
#[derive(Default)]
pub struct Store {
    tables: Mutex<BTreeMap<i32, Table>>,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Table>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What of it outlives a crash, if it is saved now.
    pub fn saved(&self) -> Store {
        let tables = self.lock().clone().into_iter();
        let left = tables.map(|(partition, table)| (partition, Table { serving: false, ..table }));
        Store { tables: Mutex::new(left.collect()) }
    }

    /// Takes up a state, unless what is there has seen more.
    pub fn put(&self, partition: i32, key: &[u8], state: Vec<u8>) {
        put(&mut self.lock().entry(partition).or_default().states, key, state);
    }

    /// The changelog was read up to here.
    pub fn restored_to(&self, partition: i32, mark: i64) {
        self.lock().entry(partition).or_default().mark = mark;
    }

    /// Up to where a partition is whole.
    pub fn mark(&self, partition: i32) -> i64 {
        self.lock().get(&partition).map_or(0, |table| table.mark)
    }

    /// Takes up what a batch changed. `sure`: nobody else can have written meanwhile. False: a partition is not served, or has
    /// something in the changelog that is not here.
    pub fn store(&self, changes: &[StateChange], written: &BTreeMap<i32, Written>, sure: bool) -> bool {
        let mut tables = self.lock();
        let takes = |change: &StateChange| {
            let partition = change.stream.partition();
            tables.get(&partition).is_some_and(|table| {
                let follows = |written: &Written| {
                    written.first == table.whole && written.last - written.first + 1 == written.records
                };
                table.serving && (sure || written.get(&partition).is_some_and(follows))
            })
        };
        if !changes.iter().all(takes) {
            return false;
        }
        for change in changes {
            let table = tables.entry(change.stream.partition()).or_default();
            put(&mut table.states, change.stream.as_bytes(), change.state.encode());
        }
        for (partition, written) in written {
            let table = tables.entry(*partition).or_default();
            (table.mark, table.whole) = (written.last + 1, written.last + 1);
        }
        true
    }

    /// The changelog was read to its end.
    pub fn read_to(&self, partition: i32, end: i64) {
        let mut tables = self.lock();
        let table = tables.entry(partition).or_default();
        table.whole = table.mark.max(end);
    }

    pub fn clear(&self, partition: i32) {
        self.lock().remove(&partition);
    }

    pub fn serve(&self, partition: i32) {
        self.lock().entry(partition).or_default().serving = true;
    }

    pub fn leave(&self, partition: i32) {
        if let Some(table) = self.lock().get_mut(&partition) {
            table.serving = false;
        }
    }

    pub fn serving(&self) -> Vec<i32> {
        self.lock().iter().filter(|(_, table)| table.serving).map(|(partition, _)| *partition).collect()
    }

    pub fn rows(&self, partition: i32) -> Rows {
        self.lock().get(&partition).map(|table| table.states.clone()).unwrap_or_default()
    }
}

/// The rule by which states are read back: one that has seen less than the one before it was written too late.
pub fn put(states: &mut Rows, key: &[u8], state: Vec<u8>) {
    let seen = |state: &[u8]| StreamState::entry_of(state).unwrap().seen;
    if states.get(key).is_none_or(|there| seen(there) <= seen(&state)) {
        states.insert(key.to_vec(), state);
    }
}

/// [`Store`] as engine threads read it, side by side: which reads fail follows from the seed and the streams, not from who
/// is first.
pub struct FaultyStates {
    pub store: Arc<Store>,
    pub sim: Arc<Sim>,
    pub salt: u64,
    /// Of a million reads, how many fail.
    pub failing_ppm: u64,
    pub failed: Arc<AtomicU64>,
    pub reads: Mutex<HashMap<StreamId, u64>>,
}

impl FaultyStates {
    fn fails(&self, first: &StreamId) -> bool {
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let count = reads.entry(first.clone()).or_insert(0);
        *count += 1;
        let mut hasher = DefaultHasher::new();
        (self.salt, first, *count).hash(&mut hasher);
        !self.sim.calm.load(Ordering::Relaxed) && hasher.finish() % 1_000_000 < self.failing_ppm
    }
}

impl States for FaultyStates {
    fn load(&self, keys: &[StreamId]) -> Result<Vec<Option<StreamState>>, StateReadError> {
        if keys.first().is_some_and(|first| self.fails(first)) {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return Err(StateReadError("fault".to_string()));
        }
        let tables = self.store.lock();
        let serving = |key: &StreamId| tables.get(&key.partition()).is_some_and(|table| table.serving);
        if !keys.iter().all(serving) {
            return Err(StateReadError("it is being read back".to_string()));
        }
        let state = |key: &StreamId| tables.get(&key.partition()).and_then(|table| table.states.get(key.as_bytes()));
        Ok(keys.iter().map(|key| state(key).map(|bytes| StreamState::decode(bytes).unwrap())).collect())
    }

    fn idle(&self, before_ms: u64, after: Option<&StreamId>, limit: usize) -> Result<IdlePage, StateReadError> {
        let tables = self.store.lock();
        let streams = tables.iter().filter(|(_, table)| table.serving).flat_map(|(partition, table)| {
            table.states.iter().map(|(key, state)| (StreamId::within(*partition, key).unwrap(), state))
        });
        let mut page = IdlePage::default();
        for (stream, state) in streams.filter(|(stream, _)| after.is_none_or(|after| stream > after)) {
            let entry = StreamState::entry_of(state).unwrap();
            if !entry.ended && entry.active_ms < before_ms {
                page.streams.push(stream.clone());
            }
            if page.streams.len() == limit {
                page.next = Some(stream);
                break;
            }
        }
        Ok(page)
    }
}
