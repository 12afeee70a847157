//! What is read of the states: those that engine threads need, and those whose time is up.

use super::*;
use redb::ReadableTable;
use std::ops::ControlFlow;

/// Most streams that one call of [`States::idle`] or [`Store::forgettable`] looks at: the commits or polls that it comes
/// between wait for it.
const LOOK_AT: usize = if cfg!(test) { 5 } else { 4000 };

impl Store {
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
        // Taken after the look at what is unwritten: what has left that since is here.
        let mut tables = self.tables()?;
        for place in elsewhere {
            let key = &keys[place];
            states[place] =
                tables.get(key.partition(), key.as_bytes())?.map(|bytes| read(bytes.value())).transpose()?;
        }
        Ok(states)
    }

    /// The first streams of `partitions` behind `after`, in their order, that are `wanted`; at most `limit`.
    fn look(
        &self,
        partitions: impl Iterator<Item = i32>,
        after: Option<&StreamId>,
        limit: usize,
        wanted: impl Fn(i32, &StreamEntry) -> bool,
    ) -> Result<IdlePage, redb::Error> {
        let mut page = IdlePage::default();
        let mut left = LOOK_AT;
        let first = after.map_or(i32::MIN, StreamId::partition);
        for partition in partitions.filter(|partition| *partition >= first) {
            let from = match after.filter(|after| after.partition() == partition) {
                Some(after) => Bound::Excluded(after.as_bytes()),
                None => Bound::Unbounded,
            };
            self.scan(partition, from, left, |key, entry| {
                let stream = || StreamId::within(partition, key).map_err(|e| redb::Error::Corrupted(e.to_string()));
                if entry.is_some_and(|entry| wanted(partition, &entry)) {
                    page.streams.push(stream()?);
                }
                left -= 1;
                if page.streams.len() < limit && left > 0 {
                    return Ok(ControlFlow::Continue(()));
                }
                page.next = Some(stream()?);
                Ok(ControlFlow::Break(()))
            })?;
            if page.next.is_some() {
                break;
            }
        }
        Ok(page)
    }

    /// Calls `look` for the streams of a partition, in the order of keys, and for those that are deleted and in the file
    /// still. It must break off after `at_most`.
    fn scan(
        &self,
        partition: i32,
        from: Bound<&[u8]>,
        at_most: usize,
        mut look: impl FnMut(&[u8], Option<StreamEntry>) -> Result<ControlFlow<()>, redb::Error>,
    ) -> Result<(), redb::Error> {
        let entry_of = |bytes: &[u8]| StreamState::entry_of(bytes).ok_or_else(unreadable);
        // Before the file: what is filed meanwhile is found there.
        let mut newer: BTreeMap<Vec<u8>, Option<StreamEntry>> = BTreeMap::new();
        for layer in self.unwritten().layers() {
            for (key, value) in layer.range(partition, from).take(at_most) {
                newer.insert(key.to_vec(), value.map(entry_of).transpose()?);
            }
        }
        let mut newer = newer.into_iter().peekable();
        let mut tables = self.tables()?;
        let rows = tables.of(partition)?.map(|table| table.range::<&[u8]>((from, Bound::Unbounded))).transpose()?;
        for row in rows.into_iter().flatten() {
            let (key, value) = row?;
            let key = key.value();
            while let Some((newer, entry)) = newer.next_if(|(newer, _)| &newer[..] < key) {
                if look(&newer, entry)?.is_break() {
                    return Ok(());
                }
            }
            let entry = match newer.next_if(|(newer, _)| newer == key) {
                Some((_, entry)) => entry,
                None => Some(entry_of(value.value())?),
            };
            if look(key, entry)?.is_break() {
                return Ok(());
            }
        }
        for (key, entry) in newer {
            if look(&key, entry)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Streams that have ended, whose last record came before `before_ms` and below the partition's `labelled` offset: no
    /// record of theirs is read again. At most `limit`, behind `after`.
    pub fn forgettable(
        &self,
        before_ms: u64,
        labelled: &[(i32, i64)],
        after: Option<&StreamId>,
        limit: usize,
    ) -> Result<IdlePage, redb::Error> {
        let labelled: BTreeMap<i32, i64> = labelled.iter().copied().collect();
        self.look(labelled.keys().copied(), after, limit, |partition, entry| {
            entry.ended && entry.active_ms < before_ms && entry.seen < labelled[&partition]
        })
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
        let foreign = |bytes: &[u8]| {
            let session = StreamState::session_of(bytes);
            let session = session.filter(|session| self.models().maker(session) == Maker::Other)?;
            Session::fingerprint(session).ok()
        };
        // Nobody opens the file anew meanwhile, who would wait for what is locked here.
        let _filing = self.filing();
        let unwritten = self.unwritten();
        for layer in unwritten.layers() {
            for (key, value) in layer.range(partition, Bound::Unbounded) {
                if unwritten.get(partition, key) == Some(value)
                    && let Some(found) = value.and_then(foreign)
                {
                    return Ok(found);
                }
            }
        }
        let mut tables = self.tables()?;
        if let Some(streams) = tables.of(partition)? {
            for row in streams.iter()? {
                let (key, value) = row?;
                if unwritten.get(partition, key.value()).is_none()
                    && let Some(found) = foreign(value.value())
                {
                    return Ok(found);
                }
            }
        }
        Err(unreadable())
    }
}

pub(super) fn unreadable() -> redb::Error {
    redb::Error::Corrupted("a state cannot be read".to_string())
}

impl States for Store {
    fn load(&self, keys: &[StreamId]) -> Result<Vec<Option<StreamState>>, StateReadError> {
        self.load_all(keys).map_err(|e| StateReadError(format!("{}: {e}", self.path.display())))
    }

    fn idle(&self, before_ms: u64, after: Option<&StreamId>, limit: usize) -> Result<IdlePage, StateReadError> {
        let idle = |_: i32, entry: &StreamEntry| !entry.ended && entry.active_ms < before_ms;
        self.look(self.serving().into_iter(), after, limit, idle)
            .map_err(|e| StateReadError(format!("{}: {e}", self.path.display())))
    }
}
