//! The store's one writer: a thread that gathers what is asked of it into transactions.
//!
//! Whatever waits when a transaction begins (ingested records of many clients, the pipeline's commit, retention) goes
//! into it and is answered when it is on disk. So one fsync serves many, and nothing is acknowledged before it.

use super::acknowledged::Acknowledged;
use super::effects::{Told, commit, ingest};
use super::retention::Retention;
use super::tables::Counters;
use super::{Answer, IngestError, NewRecord, Progress, Shared, Taken};
use crate::clock::unix_ms;
use crate::state::StoreError;
use crate::transport::{Transaction, TransportError};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use tokio::sync::{mpsc, oneshot};

/// Most requests that share a transaction.
const GROUP: usize = 1024;
/// Once a group holds this many bytes of records, its transaction begins.
const GROUP_BYTES: usize = 16 << 20;

/// What the writer is asked for.
pub enum Write {
    Ingest {
        records: Vec<NewRecord>,
        reply: oneshot::Sender<Result<Vec<Taken>, IngestError>>,
    },
    Commit {
        transaction: Box<Transaction>,
        reply: SyncSender<Result<(), TransportError>>,
    },
    /// Delete what retention says.
    Sweep,
    Stop,
}

/// The writer's own knowledge: what is committed.
pub struct Writer {
    pub shared: Arc<Shared>,
    pub counters: Counters,
    pub acknowledged: Acknowledged,
    pub retention: Retention,
    /// Clients that wait for the output of a record, by its offset.
    pub waiting: HashMap<u64, Vec<oneshot::Sender<Answer>>>,
}

impl Writer {
    /// Works until [`Write::Stop`]; what waits behind it is not done, and its clients learn that nobody answers.
    pub fn run(mut self, mut requests: mpsc::Receiver<Write>) {
        while let Some(first) = requests.blocking_recv() {
            let mut group = vec![first];
            let mut bytes = 0;
            while group.len() < GROUP && bytes < GROUP_BYTES {
                let Ok(next) = requests.try_recv() else { break };
                bytes += size_of_ingest(&next);
                group.push(next);
            }
            self.shared.events.writes_waiting(requests.len());
            let stop = group.iter().position(|write| matches!(write, Write::Stop));
            group.truncate(stop.unwrap_or(group.len()));
            if !group.is_empty() {
                self.transact(group);
            }
            if stop.is_some() {
                return;
            }
        }
    }

    fn transact(&mut self, group: Vec<Write>) {
        let sizes: Vec<(u64, u64)> = group.iter().map(account_of).collect();
        let mut told = Told::default();
        let mut counters = self.counters;
        let mut group = group;
        let store = self.shared.clone();
        let mut figures = None;
        let result = store.file.write(|txn| {
            let now_ms = unix_ms();
            for write in &mut group {
                match write {
                    Write::Ingest { records, .. } => {
                        ingest(txn, records, &mut counters, now_ms, &mut told)?;
                    }
                    Write::Commit { transaction, .. } => {
                        figures = Some(commit(txn, transaction, &mut counters, now_ms, &mut told)?);
                    }
                    Write::Sweep => told.sweep_on |= self.retention.sweep(txn, &mut counters, now_ms)?,
                    Write::Stop => {}
                }
            }
            counters.write(txn)
        });
        match result {
            Ok(()) => {
                self.counters = counters;
                if let Err(error) = self.acknowledged.advance(counters.queue_next) {
                    self.shared.events.acknowledged_not_noted(&error);
                }
                if let Some(figures) = figures {
                    self.shared.events.streams_stored(figures.live, figures.state_bytes);
                    self.shared.events.streams_draining(figures.draining);
                }
                self.answer(group, told);
            }
            Err(error) => self.refuse(group, &sizes, &error),
        }
        let (records, bytes) = self.shared.load();
        self.shared.events.queue(records, bytes);
    }

    /// All of the group is on disk.
    fn answer(&mut self, group: Vec<Write>, told: Told) {
        self.shared.release(told.released.0, told.released.1);
        for (offset, client) in told.waiting {
            self.waiting.entry(offset).or_default().push(client);
        }
        // Before anybody is answered: who has the answer finds the labels.
        if group.iter().any(|write| matches!(write, Write::Commit { .. })) {
            self.shared
                .progress
                .send_replace(Progress { log_next: self.counters.log_next, dead_next: self.counters.dead_next });
        }
        let mut taken = told.taken.into_iter();
        for write in group {
            match write {
                Write::Ingest { records, reply } => {
                    self.shared.events.ingested(records.len());
                    // Nobody waits any more if the client has gone; the records are taken all the same.
                    let _ = reply.send(Ok(taken.next().unwrap_or_default()));
                }
                Write::Commit { transaction, reply } => {
                    self.tell_waiting(&transaction);
                    let _ = reply.send(Ok(()));
                }
                Write::Sweep => self.retention.swept(),
                Write::Stop => {}
            }
        }
        self.shared.events.stored("labels", self.counters.labels_bytes);
        self.shared.events.stored("dead_letters", self.counters.dead_bytes);
        self.shared.tail.advance(self.counters.queue_next);
        if told.sweep_on {
            // More to delete than one transaction should; a full queue of requests means that there will be others.
            let _ = self.shared.writes.upgrade().map(|writes| writes.try_send(Write::Sweep));
        }
    }

    /// Nothing of the group happened.
    fn refuse(&mut self, group: Vec<Write>, sizes: &[(u64, u64)], error: &StoreError) {
        for (write, (records, bytes)) in group.into_iter().zip(sizes) {
            match write {
                Write::Ingest { reply, .. } => {
                    self.shared.release(*records, *bytes);
                    self.shared.events.ingest_failed(error);
                    let _ = reply.send(Err(IngestError::Failed(error.to_string())));
                }
                Write::Commit { reply, .. } => {
                    let _ = reply.send(Err(TransportError::Transient(error.to_string())));
                }
                Write::Sweep => self.shared.events.retention_failed(error),
                Write::Stop => {}
            }
        }
    }

    fn tell_waiting(&mut self, transaction: &Transaction) {
        if self.waiting.is_empty() {
            return;
        }
        for output in &transaction.outputs {
            self.tell(output.input.origin.offset(), || Answer::Output(output.value.clone()));
        }
        for letter in &transaction.letters {
            let answer = || Answer::Rejected { code: letter.code, detail: letter.detail.clone() };
            self.tell(letter.record.origin.offset(), answer);
        }
        self.waiting.retain(|_, clients| {
            clients.retain(|client| !client.is_closed());
            !clients.is_empty()
        });
    }

    /// Tells all who wait for the record at `offset`; those who have gone need not hear it.
    fn tell(&mut self, offset: Option<i64>, answer: impl Fn() -> Answer) {
        for client in offset_of(offset).and_then(|offset| self.waiting.remove(&offset)).unwrap_or_default() {
            let _ = client.send(answer());
        }
    }
}

/// Offsets of the embedded queue are never negative.
fn offset_of(offset: Option<i64>) -> Option<u64> {
    offset.and_then(|offset| u64::try_from(offset).ok())
}

fn size_of_ingest(write: &Write) -> usize {
    account_of(write).1 as usize
}

/// Records and bytes by which a request burdens the queue.
fn account_of(write: &Write) -> (u64, u64) {
    match write {
        Write::Ingest { records, .. } => super::burden(records),
        _ => (0, 0),
    }
}
