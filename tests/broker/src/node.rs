//! All that the broker knows, behind one lock. It is read from the directory at the start; changes are written to it
//! before they are acknowledged.

use crate::Options;
use crate::faults::Faults;
use crate::group::{Group, Kept};
use crate::journal::{Entry, Journal};
use crate::topics::{self, Topic};
use crate::transaction::{Phase, Transaction};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The id of the only node.
pub const NODE_ID: i32 = 1;

pub struct Node {
    pub options: Options,
    pub topics: BTreeMap<String, Topic>,
    pub groups: BTreeMap<String, Group>,
    pub transactions: BTreeMap<String, Transaction>,
    pub next_producer_id: i64,
    pub faults: Faults,
    /// A fault has ended the broker: it does nothing any more.
    pub dead: bool,
    journal: Journal,
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as i64
}

impl Node {
    /// What the directory says.
    pub fn open(options: Options) -> Result<Node> {
        std::fs::create_dir_all(&options.dir).with_context(|| options.dir.display().to_string())?;
        let (journal, entries) = Journal::open(&options.dir)?;
        let mut node = Node {
            topics: BTreeMap::new(),
            groups: BTreeMap::new(),
            transactions: BTreeMap::new(),
            next_producer_id: 1000,
            faults: Faults::default(),
            dead: false,
            journal,
            options,
        };
        node.restore(entries)?;
        node.journal.rewrite(&node.entries());
        node.finish_transactions();
        Ok(node)
    }

    fn restore(&mut self, entries: Vec<Entry>) -> Result<()> {
        let mut topics = BTreeMap::new();
        let mut starts = BTreeMap::new();
        for entry in entries {
            match entry {
                Entry::Topic { name, id, partitions, settings } => _ = topics.insert(name, (id, partitions, settings)),
                Entry::TopicDeleted { name } => {
                    topics.remove(&name);
                    starts.retain(|(topic, _), _| *topic != name);
                    self.forget_topic(&name);
                }
                Entry::Start { topic, partition, offset } => _ = starts.insert((topic, partition), offset),
                Entry::ProducerIds { next } => self.next_producer_id = next,
                Entry::Transaction { id, transaction } => _ = self.transactions.insert(id, transaction),
                Entry::Group { group, kept } => {
                    let offsets = self.groups.remove(&group).map(|group| group.offsets).unwrap_or_default();
                    self.group(&group, kept).offsets = offsets;
                }
                Entry::GroupDeleted { group } => _ = self.groups.remove(&group),
                Entry::Offset { group, topic, partition, committed } => {
                    self.group(&group, Kept::default()).offsets.insert((topic, partition), committed);
                }
            }
        }
        for (name, (id, partitions, settings)) in topics {
            let topic = Topic::open(topics::dir(&self.options.dir, id), id, partitions, settings)?;
            self.topics.insert(name, topic);
        }
        for ((topic, partition), offset) in starts {
            if let Some(partition) = self.topics.get_mut(&topic).and_then(|topic| topic.partition(partition)) {
                partition.start = offset;
            }
        }
        self.remove_unknown_files()
    }

    /// Files of topics whose deletion was cut short.
    fn remove_unknown_files(&self) -> Result<()> {
        let Ok(dirs) = std::fs::read_dir(self.options.dir.join("topics")) else { return Ok(()) };
        for dir in dirs {
            let path = dir?.path();
            if !self.topics.values().any(|topic| topics::dir(&self.options.dir, topic.id) == path) {
                std::fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }

    /// A group, made if there is none.
    pub fn group(&mut self, name: &str, kept: Kept) -> &mut Group {
        let delay = self.options.initial_rebalance_delay;
        self.groups.entry(name.to_string()).or_insert_with(|| Group::new(kept, delay, Instant::now()))
    }

    /// Ends the sessions of members of this name.
    pub fn expire_members(&mut self, group: &str, client_id: &str) {
        if let Some(found) = self.groups.get_mut(group) {
            found.expire(client_id, Instant::now());
            self.keep_group(group);
        }
    }

    /// What remains of a topic elsewhere goes with it.
    pub fn forget_topic(&mut self, name: &str) {
        for group in self.groups.values_mut() {
            group.offsets.retain(|(topic, _), _| topic != name);
        }
        for transaction in self.transactions.values_mut() {
            transaction.partitions.retain(|(topic, _)| topic != name);
            transaction.offsets.retain(|offset| offset.topic != name);
        }
    }

    /// Entries that say all that counts.
    fn entries(&self) -> Vec<Entry> {
        let mut entries = vec![Entry::ProducerIds { next: self.next_producer_id }];
        for (name, topic) in &self.topics {
            entries.push(self.topic_entry(name));
            for (partition, log) in (0..).zip(&topic.partitions).filter(|(_, log)| log.start > 0) {
                entries.push(Entry::Start { topic: name.clone(), partition, offset: log.start });
            }
        }
        for (group, state) in &self.groups {
            entries.push(Entry::Group { group: group.clone(), kept: state.kept() });
            for ((topic, partition), committed) in &state.offsets {
                let (group, topic, partition) = (group.clone(), topic.clone(), *partition);
                entries.push(Entry::Offset { group, topic, partition, committed: committed.clone() });
            }
        }
        for (id, transaction) in &self.transactions {
            entries.push(Entry::Transaction { id: id.clone(), transaction: transaction.clone() });
        }
        entries
    }

    fn topic_entry(&self, name: &str) -> Entry {
        let topic = &self.topics[name];
        let partitions = topic.partitions.len() as i32;
        Entry::Topic { name: name.to_string(), id: topic.id, partitions, settings: topic.settings.clone() }
    }

    pub fn keep(&mut self, entry: &Entry) {
        self.journal.append(entry);
        if self.journal.is_large() {
            self.journal.rewrite(&self.entries());
        }
    }

    pub fn keep_topic(&mut self, name: &str) {
        let entry = self.topic_entry(name);
        self.keep(&entry);
    }

    pub fn keep_transaction(&mut self, id: &str) {
        let entry = Entry::Transaction { id: id.to_string(), transaction: self.transactions[id].clone() };
        self.keep(&entry);
    }

    pub fn keep_group(&mut self, name: &str) {
        let Some(group) = self.groups.get_mut(name).filter(|group| group.changed) else { return };
        group.changed = false;
        let entry = Entry::Group { group: name.to_string(), kept: group.kept() };
        self.keep(&entry);
    }

    pub fn new_producer_id(&mut self) -> i64 {
        let id = self.next_producer_id;
        self.next_producer_id += 1;
        self.keep(&Entry::ProducerIds { next: self.next_producer_id });
        id
    }

    /// What has to be done at its time: sessions, rebalances and transactions that are over. When to look again, and
    /// whether there is something new for readers.
    pub fn tick(&mut self, now: Instant) -> (Option<Instant>, bool) {
        let mut next = Vec::new();
        let names: Vec<String> = self.groups.keys().cloned().collect();
        for name in names {
            next.extend(self.groups.get_mut(&name).expect("a group").tick(now));
            self.keep_group(&name);
        }
        let now_ms = now_ms();
        let ids: Vec<String> = self.transactions.keys().cloned().collect();
        let mut ended = false;
        for id in ids {
            let transaction = &self.transactions[&id];
            if transaction.phase != Phase::Ongoing {
                continue;
            }
            let left = transaction.started_ms + i64::from(transaction.timeout_ms) - now_ms;
            if left <= 0 {
                self.fence_and_abort(&id);
                ended = true;
            } else {
                next.push(now + std::time::Duration::from_millis(left as u64));
            }
        }
        (next.into_iter().min(), ended)
    }
}
