//! The streams that a shard holds in memory: a bounded cache over the committed states.
//!
//! A stream may be dropped only when its last change is committed; until then its state is nowhere else. States become
//! bytes when a transaction is about to take them ([`Residents::collect`]), not with every batch: of a stream that comes again
//! before that only the last one is needed.

use super::tagger::Live;
use crate::state::{StateChange, StreamEntry, StreamId, StreamState};
use std::collections::{HashMap, VecDeque};

/// A stream's session, if it has one.
#[derive(Debug, Clone)]
pub enum Held {
    /// Never begun, or over.
    None,
    Live(Live),
    /// The stored state cannot be read, for this reason. Never taken as empty.
    Damaged(String),
}

/// What memory holds of a stream.
#[derive(Debug, Clone)]
pub struct Slot {
    pub entry: StreamEntry,
    pub held: Held,
    /// The batch that last changed it.
    pub changed_in: u64,
    /// Changed since it was last collected for a transaction.
    pub fresh: bool,
}

impl Slot {
    pub fn new(entry: StreamEntry, held: Held) -> Slot {
        Slot { entry, held, changed_in: 0, fresh: false }
    }

    /// As the store keeps it.
    pub fn state(&self) -> StreamState {
        let session = match &self.held {
            Held::Live(live) => Some(live.encode()),
            _ => None,
        };
        StreamState { entry: self.entry, session }
    }
}

struct Resident {
    slot: Slot,
    bytes: usize,
    /// When it was last used; the entry of `order` with the same number is the valid one.
    used: u64,
}

/// The bounded cache. Least recently used streams leave first.
pub struct Residents {
    streams: HashMap<StreamId, Resident>,
    /// Uses, oldest first; entries whose number is outdated are skipped.
    order: VecDeque<(StreamId, u64)>,
    /// Streams that ended: they leave as soon as that is committed, whatever room there is.
    over: Vec<StreamId>,
    /// Streams that are fresh, and the bytes that they take, about.
    fresh: Vec<StreamId>,
    fresh_bytes: usize,
    clock: u64,
    bytes: usize,
    max_streams: usize,
    max_bytes: usize,
}

impl Residents {
    pub fn new(max_streams: usize, max_bytes: usize) -> Residents {
        Residents {
            streams: HashMap::new(),
            order: VecDeque::new(),
            over: Vec::new(),
            fresh: Vec::new(),
            fresh_bytes: 0,
            clock: 0,
            bytes: 0,
            max_streams: max_streams.max(1),
            max_bytes,
        }
    }

    pub fn len(&self) -> usize {
        self.streams.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the states that [`Residents::collect`] would give, about.
    pub fn fresh_bytes(&self) -> usize {
        self.fresh_bytes
    }

    /// Takes a stream out, to be stepped; [`Residents::put`] brings it back.
    pub fn take(&mut self, stream: &StreamId) -> Option<Slot> {
        let resident = self.streams.remove(stream)?;
        self.bytes -= resident.bytes;
        Some(resident.slot)
    }

    /// Brings a stream (back). `changed_in`: the batch that has changed it just now.
    pub fn put(&mut self, stream: StreamId, mut slot: Slot, changed_in: Option<u64>) {
        let session = match &slot.held {
            Held::Live(live) => live.session.memory(),
            Held::None => 0,
            Held::Damaged(reason) => reason.len(),
        };
        // The key is shared between map and order; the rest is the map's own.
        let bytes =
            session + stream.as_bytes().len() + size_of::<(StreamId, Resident)>() + size_of::<(StreamId, u64)>();
        if let Some(epoch) = changed_in {
            slot.changed_in = epoch;
            if !std::mem::replace(&mut slot.fresh, true) {
                self.fresh.push(stream.clone());
                self.fresh_bytes += session;
            }
        }
        self.clock += 1;
        self.bytes += bytes;
        if matches!(slot.held, Held::None) {
            self.over.push(stream.clone());
        }
        self.order.push_back((stream.clone(), self.clock));
        self.streams.insert(stream, Resident { slot, bytes, used: self.clock });
        if self.order.len() > 2 * self.streams.len() + 1024 {
            let streams = &self.streams;
            self.order.retain(|(stream, used)| streams.get(stream).is_some_and(|resident| resident.used == *used));
        }
    }

    /// The states of all streams that have changed since this was last asked.
    pub fn collect(&mut self) -> Vec<StateChange> {
        self.fresh_bytes = 0;
        let states = std::mem::take(&mut self.fresh).into_iter().filter_map(|stream| {
            // Never evicted: it is not committed.
            let slot = &mut self.streams.get_mut(&stream)?.slot;
            slot.fresh = false;
            let state = slot.state();
            Some(StateChange { stream, state })
        });
        states.collect()
    }

    /// Drops streams that have ended, then the least recently used ones until the bounds hold, but none that batches
    /// after `committed` changed. Returns how many were dropped for the bounds.
    pub fn evict(&mut self, committed: u64) -> usize {
        let mut dropped = 0;
        let (streams, bytes) = (&mut self.streams, &mut self.bytes);
        self.over.retain(|stream| {
            let Some(resident) = streams.get(stream).filter(|r| matches!(r.slot.held, Held::None)) else {
                return false;
            };
            let stays = resident.slot.changed_in > committed;
            if !stays {
                *bytes -= resident.bytes;
                streams.remove(stream);
            }
            stays
        });
        while self.streams.len() > self.max_streams || self.bytes > self.max_bytes {
            let Some((stream, used)) = self.order.front() else { break };
            match self.streams.get(stream) {
                Some(resident) if resident.used == *used => {
                    if resident.slot.changed_in > committed {
                        break;
                    }
                    self.bytes -= resident.bytes;
                    self.streams.remove(stream);
                    dropped += 1;
                }
                _ => {}
            }
            self.order.pop_front();
        }
        dropped
    }

    /// Drops the streams of these partitions: others are in charge of them.
    pub fn forget(&mut self, partitions: &[i32]) {
        let bytes = &mut self.bytes;
        self.fresh.retain(|stream| !partitions.contains(&stream.partition()));
        self.streams.retain(|stream, resident| {
            let stays = !partitions.contains(&stream.partition());
            *bytes -= if stays { 0 } else { resident.bytes };
            stays
        });
    }

    /// Drops everything: what was computed is not to be committed.
    pub fn clear(&mut self) {
        self.streams.clear();
        self.order.clear();
        self.over.clear();
        self.fresh.clear();
        (self.bytes, self.fresh_bytes) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        Slot::new(StreamEntry::default(), Held::Damaged(String::new()))
    }

    #[test]
    fn an_ended_stream_leaves_once_that_is_committed() {
        let mut residents = Residents::new(10, usize::MAX);
        residents.put(id("a"), Slot { held: Held::None, ..slot() }, Some(2));
        residents.put(id("b"), slot(), Some(2));
        assert_eq!((residents.evict(1), residents.len()), (0, 2));
        assert_eq!((residents.evict(2), residents.len()), (0, 1));
        assert!(residents.take(&id("b")).is_some());
    }

    fn id(name: &str) -> StreamId {
        StreamId::new(name.as_bytes()).unwrap()
    }

    #[test]
    fn the_least_recently_used_leave_first() {
        let mut residents = Residents::new(2, usize::MAX);
        for name in ["a", "b", "c"] {
            residents.put(id(name), slot(), Some(1));
        }
        let a = residents.take(&id("a")).unwrap();
        residents.put(id("a"), a, None);
        assert_eq!(residents.evict(1), 1);
        assert!(residents.take(&id("b")).is_none());
        assert!(residents.take(&id("a")).is_some() && residents.take(&id("c")).is_some());
        assert_eq!(residents.bytes(), 0);
    }

    #[test]
    fn a_stream_that_changed_is_collected_once_as_it_is_then() {
        let mut residents = Residents::new(10, usize::MAX);
        residents.put(id("a"), slot(), Some(1));
        residents.put(id("b"), slot(), None);
        let mut a = residents.take(&id("a")).unwrap();
        a.entry.next_seq = 7;
        residents.put(id("a"), a, Some(2));
        let collected = residents.collect();
        assert_eq!(
            collected.iter().map(|c| (c.stream.clone(), c.state.entry.next_seq)).collect::<Vec<_>>(),
            [(id("a"), 7)]
        );
        assert_eq!((residents.collect().len(), residents.fresh_bytes()), (0, 0));
        let a = residents.take(&id("a")).unwrap();
        assert_eq!((a.changed_in, a.fresh), (2, false));
        residents.put(id("a"), a, Some(3));
        residents.clear();
        assert!(residents.collect().is_empty());
    }

    #[test]
    fn what_is_not_committed_stays() {
        let mut residents = Residents::new(1, usize::MAX);
        residents.put(id("a"), slot(), Some(1));
        residents.put(id("b"), slot(), Some(2));
        residents.put(id("c"), slot(), Some(2));
        assert_eq!(residents.evict(1), 1);
        assert_eq!(residents.len(), 2);
        assert_eq!(residents.evict(2), 1);
        assert_eq!(residents.len(), 1);
    }

    #[test]
    fn a_partition_that_went_to_others_is_forgotten() {
        let mut residents = Residents::new(10, usize::MAX);
        let of = |partition| StreamId::within(partition, b"same key").unwrap();
        residents.put(of(1), slot(), Some(1));
        residents.put(of(2), slot(), Some(1));
        residents.forget(&[1]);
        assert!(residents.take(&of(1)).is_none() && residents.take(&of(2)).is_some());
        assert_eq!(residents.bytes(), 0);
    }

    #[test]
    fn the_bound_in_bytes_holds() {
        let mut residents = Residents::new(usize::MAX, 2000);
        for n in 0..100 {
            residents.put(id(&format!("stream-{n}")), slot(), Some(0));
            residents.evict(0);
            assert!(residents.bytes() <= 2000);
        }
        assert!(residents.len() > 2);
        assert!(residents.order.len() < 1200);
    }
}
