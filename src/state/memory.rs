//! States in memory: for the stdio transport, whose streams live no longer than the process, and for tests.

use super::{IdlePage, StateChange, StateReadError, States, StreamId, StreamState};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};

/// Committed states in a map.
#[derive(Debug, Default)]
pub struct MemoryStates {
    streams: Mutex<BTreeMap<StreamId, StreamState>>,
}

impl MemoryStates {
    /// Stores what a transaction changed. An ended stream stays as its entry.
    pub fn store(&self, changes: Vec<StateChange>) {
        let mut streams = self.lock();
        for change in changes {
            streams.insert(change.stream, change.state);
        }
    }

    /// Streams that have not ended.
    pub fn live(&self) -> usize {
        self.lock().values().filter(|state| state.session.is_some()).count()
    }

    /// Changes to the map are single inserts, so that a panic elsewhere leaves it whole.
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<StreamId, StreamState>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl States for MemoryStates {
    fn load(&self, keys: &[StreamId]) -> Result<Vec<Option<StreamState>>, StateReadError> {
        let streams = self.lock();
        Ok(keys.iter().map(|key| streams.get(key).cloned()).collect())
    }

    fn idle(&self, before_ms: u64, after: Option<&StreamId>, limit: usize) -> Result<IdlePage, StateReadError> {
        let streams = self.lock();
        let mut page = IdlePage::default();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (stream, state) in streams.range::<StreamId, _>((from, Bound::Unbounded)) {
            if page.streams.len() == limit {
                page.next = page.streams.last().cloned();
                break;
            }
            if state.session.is_some() && state.entry.active_ms < before_ms {
                page.streams.push(stream.clone());
            }
        }
        Ok(page)
    }
}
