//! A shard: one engine thread with the sessions of its share of the streams. Shards share nothing but the models.

use super::labelling::{Active, Job, Labeller, Outcome};
use super::residents::{Held, Residents, Slot};
use super::tagger::Taggers;
use crate::events::{Events, Stage};
use crate::inbox::Inbox;
use crate::state::{StateChange, StateReadError, States, StreamEntry, StreamId, StreamState};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

/// What the coordinator asks of a shard.
pub enum Work {
    /// Label these jobs. `committed` is the last batch that is committed; `now_ms` is the time (Unix milliseconds).
    Batch { epoch: u64, committed: u64, now_ms: u64, jobs: Vec<(StreamId, Job)> },
    /// Give the states that have changed since this was last asked.
    Collect,
    /// What was computed is not committed, or these partitions went to others: drop the sessions.
    Forget(Option<Vec<i32>>),
}

/// A shard's answer to [`Work::Batch`] or [`Work::Collect`].
pub struct Reply {
    pub shard: usize,
    pub answer: Answer,
}

pub enum Answer {
    Labelled { epoch: u64, outcome: Box<Result<Outcome, StateReadError>>, holds: Holds },
    Collected(Vec<StateChange>),
}

/// What a shard has in memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Holds {
    pub streams: u64,
    pub bytes: u64,
    /// Bytes of states that have changed and were not collected, about.
    pub fresh_bytes: usize,
}

pub struct Shard {
    pub index: usize,
    pub taggers: Taggers,
    pub labeller: Labeller,
    pub residents: Residents,
    pub states: Arc<dyn States>,
    pub events: Events,
}

impl Shard {
    /// Works until the coordinator hangs up.
    pub fn run(mut self, work: &Inbox<Work>, replies: &SyncSender<Reply>) {
        while let Ok(work) = work.receive() {
            let answer = match work {
                Work::Forget(partitions) => {
                    match partitions {
                        None => self.residents.clear(),
                        Some(partitions) => self.residents.forget(&partitions),
                    }
                    continue;
                }
                Work::Batch { epoch, committed, now_ms, jobs } => {
                    let outcome = Box::new(self.batch([epoch, committed], now_ms, jobs));
                    let residents = &self.residents;
                    let holds = Holds {
                        streams: residents.len() as u64,
                        bytes: residents.bytes() as u64,
                        fresh_bytes: residents.fresh_bytes(),
                    };
                    Answer::Labelled { epoch, outcome, holds }
                }
                Work::Collect => {
                    let collecting = Instant::now();
                    let states = self.residents.collect();
                    self.events.spent(Stage::State, collecting.elapsed());
                    Answer::Collected(states)
                }
            };
            if replies.send(Reply { shard: self.index, answer }).is_err() {
                return;
            }
        }
    }

    fn batch(
        &mut self,
        [epoch, committed]: [u64; 2],
        now_ms: u64,
        jobs: Vec<(StreamId, Job)>,
    ) -> Result<Outcome, StateReadError> {
        let gathering = Instant::now();
        let evicted = self.residents.evict(committed);
        let mut actives = self.gather(jobs)?;
        let gathering = gathering.elapsed();
        let outcome = self.labeller.label(&mut actives, now_ms);
        let putting = Instant::now();
        for active in actives {
            self.residents.put(active.stream, active.slot, active.changed.then_some(epoch));
        }
        self.events.spent(Stage::Resident, gathering + putting.elapsed());
        self.events.states_evicted(evicted);
        Ok(outcome)
    }

    /// Jobs by stream, with each stream's slot from memory or from the store.
    fn gather(&mut self, jobs: Vec<(StreamId, Job)>) -> Result<Vec<Active>, StateReadError> {
        let mut queues: Vec<(StreamId, VecDeque<Job>)> = Vec::new();
        let mut places: HashMap<StreamId, usize> = HashMap::new();
        for (stream, job) in jobs {
            let place = *places.entry(stream.clone()).or_insert_with(|| {
                queues.push((stream, VecDeque::new()));
                queues.len() - 1
            });
            queues[place].1.push_back(job);
        }
        let mut slots: Vec<Option<Slot>> = queues.iter().map(|(stream, _)| self.residents.take(stream)).collect();
        let missing: Vec<usize> = (0..slots.len()).filter(|k| slots[*k].is_none()).collect();
        if !missing.is_empty() {
            let keys: Vec<StreamId> = missing.iter().map(|k| queues[*k].0.clone()).collect();
            let states = self.states.load(&keys)?;
            self.events.states_loaded(states.iter().flatten().count());
            for (place, state) in missing.into_iter().zip(states) {
                slots[place] = Some(self.restore(&queues[place].0, state));
            }
        }
        let actives = queues.into_iter().zip(slots).filter_map(|((stream, jobs), slot)| {
            // Every missing slot was just filled.
            slot.map(|slot| Active::new(stream, slot, jobs))
        });
        Ok(actives.collect())
    }

    fn restore(&self, stream: &StreamId, state: Option<StreamState>) -> Slot {
        let Some(state) = state else {
            return Slot::new(StreamEntry::default(), Held::None);
        };
        let held = match state.session {
            None => Held::None,
            Some(bytes) => match self.taggers.decode(&bytes) {
                Ok(live) => Held::Live(live),
                Err(error) => {
                    self.events.state_damaged(stream, &error);
                    Held::Damaged(error.to_string())
                }
            },
        };
        Slot::new(state.entry, held)
    }
}
