//! What is known of a partition's table without reading it.

use super::super::checkpoint::Mark;
use crate::state::{Maker, ModelPolicy, StreamEntry, StreamState};

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
    pub(super) whole: Option<i64>,
    /// Whole, and the partition is in charge: only then do engine threads read it and commits change it.
    pub(super) serving: bool,
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
    pub(super) fn remove(&mut self, bytes: &[u8], policy: &ModelPolicy) {
        let maker = StreamState::session_of(bytes).map(|session| policy.maker(session));
        self.rows -= 1;
        self.draining -= u64::from(maker == Some(Maker::Previous));
        self.foreign -= u64::from(maker == Some(Maker::Other));
        self.live -= u64::from(StreamState::entry_of(bytes).is_some_and(|entry| !entry.ended));
        self.bytes -= bytes.len() as u64;
    }
}
