//! The default transport: a durable queue, labels, states and dead letters in one file of the data directory.
//!
//! One redb file, one process, one [`writer`] thread. Clients hand records in through [`Embedded::ingest`] and read
//! through [`reader`]; the pipeline polls the queue and commits through the traits of the parent module. Everything
//! that a batch leads to is one transaction of the file, on disk before anybody hears of it.

mod acknowledged;
mod effects;
mod reader;
mod retention;
mod sink;
mod source;
mod tables;
mod writer;

pub use reader::{Feed, Row, StreamInfo};

use crate::config::EmbeddedConfig;
use crate::events::Events;
use crate::state::{ModelPolicy, StateFile, StoreError, StreamId, read_figures, write_model};
use crate::transport::{Event, Transport};
use acknowledged::Acknowledged;
use retention::Retention;
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tables::Counters;
use tokio::sync::{mpsc, oneshot, watch};
use writer::{Write, Writer};

/// The queue's name in `strand-source`.
pub const TOPIC: &str = "queue";
/// Requests that may wait for the writer.
const WAITING_WRITES: usize = 1024;
/// How often retention looks for what is due.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// A record that a client hands in.
#[derive(Debug)]
pub struct NewRecord {
    pub stream: StreamId,
    pub event: Option<Event>,
    pub value: Vec<u8>,
    /// The client's number of this record in its stream. One that is not greater than the last is not taken again.
    pub id: Option<u64>,
    /// Told when the record's output is committed.
    pub wait: Option<oneshot::Sender<Answer>>,
}

/// What became of a record handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    At {
        offset: u64,
    },
    /// It was taken before; `offset` is known if it was the client's last one.
    Before {
        offset: Option<u64>,
    },
}

/// What became of a record in the pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The output record's JSON.
    Output(Vec<u8>),
    Rejected {
        code: &'static str,
        detail: String,
    },
}

/// Why records were not taken. None of them was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    #[error("the queue is full ({records} records, {bytes} bytes wait)")]
    Overloaded { records: u64, bytes: u64 },
    #[error("strand is stopping")]
    Stopping,
    #[error("the records could not be written: {0}")]
    Failed(String),
}

/// How far labels and dead letters go; changes with every commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    pub log_next: u64,
    pub dead_next: u64,
}

/// The embedded store, as clients use it. Cheap to clone.
#[derive(Clone)]
pub struct Embedded {
    shared: Arc<Shared>,
    writes: mpsc::Sender<Write>,
}

struct Shared {
    file: Arc<StateFile>,
    writes: mpsc::WeakSender<Write>,
    tail: Tail,
    progress: watch::Sender<Progress>,
    /// Records and bytes that are in the queue or on their way into it.
    records: AtomicU64,
    bytes: AtomicU64,
    max_records: u64,
    max_bytes: u64,
    events: Events,
}

/// The end of the queue, for the source to wait on.
#[derive(Default)]
struct Tail {
    next: Mutex<u64>,
    moved: Condvar,
}

/// The writer's thread, to be joined at the end.
pub struct WriterThread {
    writes: mpsc::Sender<Write>,
    thread: JoinHandle<()>,
}

impl Embedded {
    /// Opens the data directory (made if it isn't there) and begins to write.
    pub fn open(
        config: &EmbeddedConfig,
        policy: &ModelPolicy,
        events: &Events,
    ) -> Result<(Embedded, WriterThread), StoreError> {
        let path = config.data_dir.join("strand.redb");
        let opened = Embedded::open_at(&path, config, policy, events);
        opened.map_err(|error| error.damage_of(&path))
    }

    fn open_at(
        path: &Path,
        config: &EmbeddedConfig,
        policy: &ModelPolicy,
        events: &Events,
    ) -> Result<(Embedded, WriterThread), StoreError> {
        let start = Instant::now();
        let file = StateFile::open_with(path, config.cache.len(), events.clone(), |txn| {
            tables::create(txn)?;
            write_model(txn, policy)
        })?;
        let file = Arc::new(file);
        file.check_model(policy)?;
        // Not there where a file was made without them: writing waits for the disk.
        if !file.read(|txn| Ok(tables::exist(txn)))? {
            file.write(tables::create)?;
        }
        let (counters, figures) = file.read(|txn| Ok((Counters::read(txn)?, read_figures(txn)?)))?;
        let acknowledged = Acknowledged::open(path, counters.queue_next)?;
        let (writes, requests) = mpsc::channel(WAITING_WRITES);
        let progress = Progress { log_next: counters.log_next, dead_next: counters.dead_next };
        let shared = Arc::new(Shared {
            file,
            writes: writes.downgrade(),
            tail: Tail::default(),
            progress: watch::Sender::new(progress),
            records: AtomicU64::new(counters.queued()),
            bytes: AtomicU64::new(counters.queue_bytes),
            max_records: config.queue_max_records,
            max_bytes: config.queue_max_bytes.0,
            events: events.clone(),
        });
        shared.tail.advance(counters.queue_next);
        events.store_opened(path, start.elapsed(), figures.live, counters.queued());
        events.streams_stored(figures.live, figures.state_bytes);
        events.streams_draining(figures.draining);
        events.queue(counters.queued(), counters.queue_bytes);
        let retention = Retention::new(config, events.clone());
        let writer = Writer { shared: shared.clone(), counters, acknowledged, retention, waiting: HashMap::new() };
        let thread = std::thread::Builder::new().name("store".to_string()).spawn(move || writer.run(requests));
        let thread =
            thread.map_err(|e| StoreError::Open { path: path.to_path_buf(), detail: format!("no thread: {e}") })?;
        let embedded = Embedded { shared, writes: writes.clone() };
        Ok((embedded, WriterThread { writes, thread }))
    }

    /// The three parts for the pipeline.
    pub fn transport(&self) -> Result<Transport, StoreError> {
        Ok(Transport {
            source: Box::new(source::QueueSource::new(self.shared.clone())?),
            sink: Box::new(sink::StoreSink::new(self.writes.clone())),
            states: self.shared.file.clone(),
            replays: false,
            end_streams_at_end: false,
        })
    }

    /// Takes all of `records` or none; returns when they are on disk.
    pub async fn ingest(&self, records: Vec<NewRecord>) -> Result<Vec<Taken>, IngestError> {
        let (count, bytes) = burden(&records);
        self.shared.reserve(count, bytes)?;
        let (reply, answer) = oneshot::channel();
        if self.writes.send(Write::Ingest { records, reply }).await.is_err() {
            self.shared.release(count, bytes);
            return Err(IngestError::Stopping);
        }
        answer.await.unwrap_or(Err(IngestError::Stopping))
    }

    /// Sees to retention until the store closes.
    pub async fn sweep_regularly(self) {
        let mut ticks = tokio::time::interval(SWEEP_EVERY);
        loop {
            ticks.tick().await;
            if self.writes.send(Write::Sweep).await.is_err() {
                return;
            }
        }
    }

    /// Changes whenever labels or dead letters were committed.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.shared.progress.subscribe()
    }

    /// Records and bytes that wait.
    pub fn load(&self) -> (u64, u64) {
        self.shared.load()
    }
}

impl WriterThread {
    /// Ends the writer after what it has begun. Clients that still wait learn that nobody answers.
    pub fn stop(self) {
        // Fails only if the thread has ended already.
        let _ = self.writes.blocking_send(Write::Stop);
        let _ = self.thread.join();
    }
}

impl Shared {
    fn reserve(&self, count: u64, bytes: u64) -> Result<(), IngestError> {
        let before = (self.records.fetch_add(count, Ordering::Relaxed), self.bytes.fetch_add(bytes, Ordering::Relaxed));
        // Into an empty queue everything fits: a request is bounded by itself.
        if before.0 > 0 && (before.0 + count > self.max_records || before.1 + bytes > self.max_bytes) {
            self.release(count, bytes);
            self.events.ingest_overloaded(before.0, before.1);
            return Err(IngestError::Overloaded { records: before.0, bytes: before.1 });
        }
        Ok(())
    }

    fn release(&self, count: u64, bytes: u64) {
        self.records.fetch_sub(count, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn load(&self) -> (u64, u64) {
        (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// Bytes of a record in the queue.
fn burden_of(record: &NewRecord) -> u64 {
    (11 + record.stream.as_bytes().len() + record.value.len()) as u64
}

fn burden(records: &[NewRecord]) -> (u64, u64) {
    (records.len() as u64, records.iter().map(burden_of).sum())
}

impl Tail {
    fn advance(&self, next: u64) {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = next;
        self.moved.notify_all();
    }

    /// Waits until there is something at `offset`, at most `wait`; returns the end of the queue.
    fn wait_beyond(&self, offset: u64, wait: Duration) -> u64 {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.moved.wait_timeout_while(next, wait, |next| *next <= offset);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
