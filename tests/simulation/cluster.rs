//! A Kafka cluster, as far as the daemon can tell: logs with control records, producers with epochs, transactions whose
//! markers come one by one, the group's offsets.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    Labels,
    Letters,
    Changelog,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    /// `strand-source`; nothing in the changelog.
    pub source: String,
    /// `strand-error` of a dead letter.
    pub code: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its transaction is not decided.
    Open,
    Committed,
    Aborted,
}

pub struct Entry {
    pub offset: i64,
    /// The producer in whose transaction it is.
    writer: Option<usize>,
    pub fate: Fate,
    /// Absent: a control record.
    pub message: Option<Message>,
}

/// A partition's log.
#[derive(Default)]
pub struct Log {
    pub entries: Vec<Entry>,
    pub end: i64,
}

impl Log {
    fn push(&mut self, writer: Option<usize>, message: Option<Message>) {
        let fate = if writer.is_some() && message.is_some() { Fate::Open } else { Fate::Committed };
        self.entries.push(Entry { offset: self.end, writer, fate, message });
        self.end += 1;
    }

    /// The last stable offset: readers of committed records come no further.
    pub fn stable(&self) -> i64 {
        self.entries.iter().find(|entry| entry.fate == Fate::Open).map_or(self.end, |entry| entry.offset)
    }

    /// Records that a reader of committed ones may see, from an offset on.
    pub fn committed(&self, from: i64) -> impl Iterator<Item = (i64, &Message)> {
        let stable = self.stable();
        let seen = self.entries.iter().filter(move |entry| (from..stable).contains(&entry.offset));
        seen.filter(|e| e.fate == Fate::Committed).filter_map(|e| e.message.as_ref().map(|m| (e.offset, m)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Empty,
    Ongoing,
    /// Decided; markers are on their way.
    Ending(bool),
}

/// A transactional id.
struct Producer {
    epoch: u32,
    phase: Phase,
    /// How the last transaction of this epoch ended.
    last: Option<bool>,
    /// Partitions whose markers are due.
    touched: BTreeSet<(Topic, i32)>,
    offsets: BTreeMap<i32, i64>,
    /// Which transaction it is, for timers.
    number: u64,
}

/// Why a request about a transaction was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Another time.
    Busy,
    /// Another producer has this id now, or the transaction was given up.
    Fenced,
    /// The member is not of this generation.
    Generation,
}

#[derive(Default)]
pub struct Cluster {
    pub logs: BTreeMap<(Topic, i32), Log>,
    producers: Vec<Producer>,
    pub offsets: BTreeMap<i32, i64>,
    pub aborted: u64,
    pub committed: u64,
    pub fenced: u64,
}

/// A transaction that began or was decided: what the world does about it in time.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    Began {
        id: usize,
        number: u64,
    },
    /// With the places where markers are due; `None`: the group's offsets.
    Decided {
        id: usize,
        markers: Vec<Option<(Topic, i32)>>,
    },
}

impl Cluster {
    /// Returns the message's offset.
    pub fn append(&mut self, topic: Topic, partition: i32, message: Message) -> i64 {
        let log = self.logs.entry((topic, partition)).or_default();
        log.push(None, Some(message));
        log.end - 1
    }

    pub fn new_id(&mut self) -> usize {
        self.producers.push(Producer {
            epoch: 0,
            phase: Phase::Empty,
            last: None,
            touched: BTreeSet::new(),
            offsets: BTreeMap::new(),
            number: 0,
        });
        self.producers.len() - 1
    }

    /// A producer takes the id up; what its predecessor left open is aborted first.
    pub fn init(&mut self, id: usize, news: &mut Vec<News>) -> Result<u32, Refusal> {
        match self.producers[id].phase {
            Phase::Empty => {
                let producer = &mut self.producers[id];
                producer.epoch += 1;
                producer.last = None;
                Ok(producer.epoch)
            }
            Phase::Ongoing => {
                self.producers[id].epoch += 1;
                self.decide(id, false, news);
                Err(Refusal::Busy)
            }
            Phase::Ending(_) => Err(Refusal::Busy),
        }
    }

    /// The producer of this epoch goes on with its transaction, or begins one.
    fn ongoing(&mut self, id: usize, epoch: u32, news: &mut Vec<News>) -> Result<&mut Producer, Refusal> {
        let producer = &mut self.producers[id];
        if producer.epoch != epoch {
            self.fenced += 1;
            return Err(Refusal::Fenced);
        }
        match producer.phase {
            Phase::Ending(_) => return Err(Refusal::Busy),
            Phase::Ongoing => {}
            Phase::Empty => {
                producer.phase = Phase::Ongoing;
                producer.last = None;
                producer.number += 1;
                news.push(News::Began { id, number: producer.number });
            }
        }
        Ok(producer)
    }

    pub fn produce(
        &mut self,
        (id, epoch): (usize, u32),
        (topic, partition): (Topic, i32),
        message: Message,
        news: &mut Vec<News>,
    ) -> Result<i64, Refusal> {
        self.ongoing(id, epoch, news)?.touched.insert((topic, partition));
        let log = self.logs.entry((topic, partition)).or_default();
        log.push(Some(id), Some(message));
        Ok(log.end - 1)
    }

    /// The group's offsets are added to the transaction. Whether the group agrees was asked before.
    pub fn send_offsets(
        &mut self,
        (id, epoch): (usize, u32),
        offsets: &BTreeMap<i32, i64>,
        news: &mut Vec<News>,
    ) -> Result<(), Refusal> {
        self.ongoing(id, epoch, news)?.offsets.extend(offsets);
        Ok(())
    }

    pub fn end(&mut self, (id, epoch): (usize, u32), commit: bool, news: &mut Vec<News>) -> Result<(), Refusal> {
        let producer = &self.producers[id];
        if producer.epoch != epoch {
            self.fenced += 1;
            return Err(Refusal::Fenced);
        }
        match producer.phase {
            Phase::Ongoing => {
                self.decide(id, commit, news);
                Ok(())
            }
            Phase::Ending(decided) if decided == commit => Ok(()),
            Phase::Empty if producer.last.unwrap_or(commit) == commit => Ok(()),
            Phase::Ending(_) | Phase::Empty => Err(Refusal::Fenced),
        }
    }

    /// The coordinator gives a transaction up that has taken too long.
    pub fn time_out(&mut self, id: usize, number: u64, news: &mut Vec<News>) -> bool {
        let producer = &mut self.producers[id];
        let is_open = producer.phase == Phase::Ongoing && producer.number == number;
        if is_open {
            producer.epoch += 1;
            self.decide(id, false, news);
        }
        is_open
    }

    fn decide(&mut self, id: usize, commit: bool, news: &mut Vec<News>) {
        let producer = &mut self.producers[id];
        producer.phase = Phase::Ending(commit);
        (self.committed, self.aborted) = (self.committed + u64::from(commit), self.aborted + u64::from(!commit));
        let offsets = (!producer.offsets.is_empty()).then_some(None);
        news.push(News::Decided { id, markers: producer.touched.iter().copied().map(Some).chain(offsets).collect() });
        self.rest(id, commit);
    }

    /// A marker arrives at a partition; `None`: at the group's offsets.
    pub fn mark(&mut self, id: usize, place: Option<(Topic, i32)>) {
        let producer = &mut self.producers[id];
        let Phase::Ending(commit) = producer.phase else { unreachable!("markers come of a decision") };
        match place {
            Some(place) => {
                producer.touched.remove(&place);
                let log = self.logs.entry(place).or_default();
                let fate = if commit { Fate::Committed } else { Fate::Aborted };
                let open = log.entries.iter_mut().filter(|e| e.writer == Some(id) && e.fate == Fate::Open);
                open.for_each(|entry| entry.fate = fate);
                log.push(Some(id), None);
            }
            None => {
                let offsets = std::mem::take(&mut producer.offsets);
                if commit {
                    self.offsets.extend(offsets);
                }
            }
        }
        self.rest(id, commit);
    }

    /// Once all markers have arrived the next transaction may begin.
    fn rest(&mut self, id: usize, commit: bool) {
        let producer = &mut self.producers[id];
        if producer.touched.is_empty() && producer.offsets.is_empty() {
            (producer.phase, producer.last) = (Phase::Empty, Some(commit));
        }
    }

    /// Whether a transaction has sent offsets of this partition and is not over.
    pub fn is_unstable(&self, partition: i32) -> bool {
        self.producers.iter().any(|producer| producer.offsets.contains_key(&partition))
    }

    /// Nothing is open or on its way.
    pub fn is_quiet(&self) -> bool {
        self.producers.iter().all(|producer| producer.phase == Phase::Empty)
    }
}
