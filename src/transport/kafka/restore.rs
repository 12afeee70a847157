//! The restorer: a thread that reads the changelog of partitions that were assigned into the local store.
//!
//! Several partitions are read side by side. A partition is done when the broker says that its end is reached, and not
//! when the end is reached that it named before: some brokers name an older one. Then the source may serve it.

use super::Shared;
use super::clients;
use super::context::PlainContext;
use super::store::{Change, RestoreError};
use super::words::{explain, explain_complaint};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::{Message, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(5);
/// Records, and bytes of theirs, that are written to the store together.
const CHUNK_RECORDS: usize = 1000;
const CHUNK_BYTES: usize = 4 << 20;
/// The next try, after the broker did not answer, and after what was read could not be taken up.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_BAD: Duration = Duration::from_secs(30);
/// After this long without a record, a partition is at its end if the end that was named is passed.
const SILENCE: Duration = Duration::from_secs(2);
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

enum Order {
    Restore { partition: i32, epoch: u64 },
    Drop { partition: i32 },
}

/// A handle on the thread. It ends when the last handle is dropped.
#[derive(Clone)]
pub struct Restorer(Sender<Order>);

impl Restorer {
    /// Reads the states of a partition; [`super::assignment::Assignment::restored`] is told at the end.
    pub fn restore(&self, partition: i32, epoch: u64) {
        // Fails only when the thread is gone, at the very end.
        let _ = self.0.send(Order::Restore { partition, epoch });
    }

    /// Stops reading a partition, and deletes its states.
    pub fn drop_partition(&self, partition: i32) {
        let _ = self.0.send(Order::Drop { partition });
    }
}

pub fn start(shared: Arc<Shared>) -> std::io::Result<Restorer> {
    let (sender, orders) = channel();
    let run =
        move || Thread { shared, reader: None, all: None, jobs: BTreeMap::new(), told: Instant::now() }.run(&orders);
    std::thread::Builder::new().name("restorer".to_string()).spawn(run)?;
    Ok(Restorer(sender))
}

/// A partition that is being restored.
struct Job {
    epoch: u64,
    begun: Instant,
    /// Begins (again) at this time, if it is not being read.
    waits_until: Option<Instant>,
    /// The changelog's first offset and the one after its last, when reading began.
    low: i64,
    high: i64,
    next: i64,
    records: u64,
    chunk: Vec<Change>,
    chunk_bytes: usize,
    /// When something of it was last read.
    heard: Instant,
    /// Why it is not going on.
    trouble: Option<String>,
}

struct Thread {
    shared: Arc<Shared>,
    reader: Option<BaseConsumer<PlainContext>>,
    all: Option<BaseConsumer<PlainContext>>,
    jobs: BTreeMap<i32, Job>,
    told: Instant,
}

impl Thread {
    fn run(mut self, orders: &Receiver<Order>) {
        loop {
            // Without work, wait for an order; with work, look whether there are any.
            let mut wait = if self.jobs.is_empty() { Duration::from_millis(500) } else { Duration::ZERO };
            let mut news = false;
            loop {
                match orders.recv_timeout(wait) {
                    Ok(Order::Restore { partition, epoch }) => {
                        self.take(partition, epoch);
                        news = true;
                    }
                    Ok(Order::Drop { partition }) => self.drop_partition(partition),
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => break,
                }
                wait = Duration::ZERO;
            }
            if self.shared.shutdown.is_requested() {
                return;
            }
            if news {
                self.tell(true);
            }
            self.begin_waiting();
            self.read();
            self.tell(false);
        }
    }

    fn take(&mut self, partition: i32, epoch: u64) {
        let now = Instant::now();
        let job = Job {
            epoch,
            begun: now,
            waits_until: Some(now),
            low: 0,
            high: 0,
            next: 0,
            records: 0,
            chunk: Vec::new(),
            chunk_bytes: 0,
            heard: now,
            trouble: None,
        };
        self.jobs.insert(partition, job);
        self.shared.events.restore_progress(partition, 0, 1);
    }

    fn drop_partition(&mut self, partition: i32) {
        self.jobs.remove(&partition);
        self.stop_reading(partition);
        if let Err(error) = self.shared.store.clear(partition) {
            self.shared.events.restore_failed(partition, &error);
        }
        self.tell(true);
    }

    /// The changelog's own consumer.
    fn reader(&mut self) -> Result<&BaseConsumer<PlainContext>, String> {
        if self.reader.is_none() {
            let context = PlainContext(self.shared.voice.clone());
            let client = clients::changelog_reader(&self.shared.config).create_with_context(context);
            self.reader = Some(client.map_err(|error| explain("creating the changelog's reader", &error))?);
        }
        self.reader.as_ref().ok_or_else(|| "no reader".to_string())
    }

    /// A client that sees the end of what is not committed too.
    fn all(&mut self) -> Result<&BaseConsumer<PlainContext>, String> {
        if self.all.is_none() {
            let context = PlainContext(self.shared.voice.clone());
            let mut client = clients::changelog_reader(&self.shared.config);
            let client = client.set("isolation.level", "read_uncommitted").create_with_context(context);
            self.all = Some(client.map_err(|error| explain("creating the changelog's reader", &error))?);
        }
        self.all.as_ref().ok_or_else(|| "no reader".to_string())
    }

    /// Begins to read partitions whose time has come.
    fn begin_waiting(&mut self) {
        let now = Instant::now();
        let due = self.jobs.iter().filter(|(_, job)| job.waits_until.is_some_and(|until| until <= now));
        let due: Vec<i32> = due.map(|(partition, _)| *partition).collect();
        for partition in due {
            if let Err(detail) = self.begin(partition) {
                self.fail(partition, detail, RETRY);
            }
        }
    }

    fn begin(&mut self, partition: i32) -> Result<(), String> {
        let shared = self.shared.clone();
        let topic = &shared.config.changelog;
        if let Ok(connected) = shared.connected()
            && partition >= connected.layout.changelog.partitions
        {
            let detail = format!(
                "the input has got more partitions than the {} of the changelog {topic}. Give the changelog as many \
                 (kafka-topics.sh --bootstrap-server {} --alter --topic {topic} --partitions N) and start anew",
                connected.layout.changelog.partitions, shared.config.brokers
            );
            return Err(detail);
        }
        let doing = format!("reading {topic}/{partition}");
        // Answered once a transaction is decided in which a predecessor has sent offsets of this partition: what it wrote
        // is in the changelog then, or never will be.
        if let Ok(connected) = shared.connected() {
            let mut list = TopicPartitionList::new();
            list.add_partition(&shared.config.input, partition);
            let offsets = connected.consumer.committed_offsets(list, TIMEOUT);
            offsets.map_err(|error| explain("asking for the group's offsets", &error))?;
        }
        let reader = self.reader()?;
        let watermarks = reader.fetch_watermarks(topic, partition, TIMEOUT);
        let (low, _) = watermarks.map_err(|error| explain(&doing, &error))?;
        // Up to here whatever there is, also behind a transaction that is still open.
        let (_, high) = self
            .all()
            .and_then(|all| all.fetch_watermarks(topic, partition, TIMEOUT).map_err(|error| explain(&doing, &error)))?;
        let reader = self.reader()?;
        // From a clean table: what an earlier try left may be old.
        shared.store.clear(partition).map_err(|error| error.to_string())?;
        if low < high {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition, Offset::Offset(low))
                .and_then(|()| reader.incremental_assign(&list))
                .map_err(|error| explain(&doing, &error))?;
        }
        if let Some(job) = self.jobs.get_mut(&partition) {
            (job.low, job.high, job.next, job.records) = (low, high, low, 0);
            (job.waits_until, job.trouble, job.heard) = (None, None, Instant::now());
        }
        if low >= high {
            self.finish(partition);
        }
        Ok(())
    }

    /// Takes what the reader has, for a moment.
    fn read(&mut self) {
        if self.jobs.values().all(|job| job.waits_until.is_some()) {
            if !self.jobs.is_empty() {
                std::thread::sleep(Duration::from_millis(20));
            }
            return;
        }
        let Some(reader) = &self.reader else { return };
        let (mut full, mut ended, mut failed) = (Vec::new(), Vec::new(), None);
        let mut wait = Duration::from_millis(50);
        for _ in 0..CHUNK_RECORDS {
            match reader.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let partition = message.partition();
                    let Some(job) = self.jobs.get_mut(&partition) else { continue };
                    let key = message.key().unwrap_or_default().to_vec();
                    let value = message.payload().map(<[u8]>::to_vec);
                    job.chunk_bytes += key.len() + value.as_ref().map_or(0, Vec::len);
                    job.chunk.push((key, value));
                    job.next = message.offset() + 1;
                    job.heard = Instant::now();
                    if job.chunk.len() >= CHUNK_RECORDS || job.chunk_bytes >= CHUNK_BYTES {
                        full.push(partition);
                        break;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => ended.push(partition),
                Some(Err(error)) => {
                    failed = Some(error);
                    break;
                }
            }
            wait = Duration::ZERO;
        }
        // Should a broker not tell the end: the one that it named is passed, and nothing comes any more.
        let silent = self
            .jobs
            .iter()
            .filter(|(_, job)| job.waits_until.is_none() && job.next >= job.high && job.heard.elapsed() > SILENCE);
        ended.extend(silent.map(|(partition, _)| *partition));
        for partition in full {
            self.write(partition);
        }
        ended.sort_unstable();
        ended.dedup();
        for partition in ended {
            if self.jobs.contains_key(&partition) && self.write(partition) && self.is_whole(partition) {
                self.finish(partition);
            }
        }
        if let Some(error) = failed {
            self.reading_failed(&error);
        }
    }

    /// Whether all that was there when reading began is decided: behind a transaction that is still open there may be
    /// states that are committed and cannot be read yet. Then the broker tells the end again later.
    fn is_whole(&self, partition: i32) -> bool {
        let (Some(reader), Some(job)) = (&self.reader, self.jobs.get(&partition)) else { return false };
        let stable = reader.fetch_watermarks(&self.shared.config.changelog, partition, TIMEOUT);
        job.next >= job.high || stable.is_ok_and(|(_, stable)| stable >= job.high)
    }

    /// Brings what was read into the store. False: it could not be taken up.
    fn write(&mut self, partition: i32) -> bool {
        let Some(job) = self.jobs.get_mut(&partition) else { return false };
        let chunk = std::mem::take(&mut job.chunk);
        job.chunk_bytes = 0;
        job.records += chunk.len() as u64;
        let (done, all) = ((job.next - job.low).unsigned_abs(), (job.high - job.low).unsigned_abs());
        match self.shared.store.restore(partition, &chunk) {
            Ok(()) => {
                self.shared.events.states_restored(chunk.len() as u64);
                self.shared.events.restore_progress(partition, done, all);
                true
            }
            Err(error) => {
                self.fail(partition, error.to_string(), RETRY_BAD);
                false
            }
        }
    }

    fn finish(&mut self, partition: i32) {
        if let Some(error) = self.shared.store.refusal(partition) {
            if let RestoreError::OtherModel { .. } = &error {
                // Somebody must decide: the source ends the daemon with these words.
                self.shared.assignment.refuse(error.to_string());
            }
            return self.fail(partition, error.to_string(), RETRY_BAD);
        }
        self.stop_reading(partition);
        let Some(job) = self.jobs.remove(&partition) else { return };
        let (streams, _) = self.shared.store.restored(partition);
        self.shared.events.partition_restored(partition, job.records, streams, job.low, job.begun.elapsed());
        self.shared.assignment.restored(partition, job.epoch);
        self.tell(true);
    }

    /// The partition is not served until a later try goes well.
    fn fail(&mut self, partition: i32, detail: String, retry: Duration) {
        self.stop_reading(partition);
        let Some(job) = self.jobs.get_mut(&partition) else { return };
        if job.trouble.as_ref() != Some(&detail) {
            self.shared.events.restore_failed(partition, &detail);
        }
        job.trouble = Some(detail);
        job.waits_until = Some(Instant::now() + retry);
        (job.chunk, job.chunk_bytes) = (Vec::new(), 0);
        self.tell(true);
    }

    /// An error that names no partition: those under way begin again, if it is one that does not pass by itself.
    fn reading_failed(&mut self, error: &KafkaError) {
        let passing = matches!(
            error.rdkafka_error_code(),
            Some(Code::BrokerTransportFailure | Code::AllBrokersDown | Code::OperationTimedOut | Code::Resolve)
        );
        if passing {
            return;
        }
        let detail = explain(&format!("reading {}", self.shared.config.changelog), error);
        let reading = self.jobs.iter().filter(|(_, job)| job.waits_until.is_none());
        for partition in reading.map(|(partition, _)| *partition).collect::<Vec<_>>() {
            self.fail(partition, detail.clone(), RETRY);
        }
    }

    fn stop_reading(&self, partition: i32) {
        let Some(reader) = &self.reader else { return };
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.shared.config.changelog, partition);
        let assigned =
            reader.assignment().is_ok_and(|now| now.elements().iter().any(|element| element.partition() == partition));
        if assigned && let Err(error) = reader.incremental_unassign(&list) {
            self.shared.events.restore_failed(partition, &error);
        }
    }

    /// What `/readyz` says, and the log now and then.
    fn tell(&mut self, changed: bool) {
        if !changed && self.told.elapsed() < TELL_EVERY {
            return;
        }
        self.told = Instant::now();
        if self.jobs.is_empty() {
            return self.shared.health.fine("restore");
        }
        let parts = self.jobs.iter().map(|(partition, job)| match &job.trouble {
            Some(trouble) => format!("partition {partition} is not served: {trouble}"),
            None if job.waits_until.is_some() => format!("partition {partition} waits"),
            None => {
                format!("partition {partition}: {} of {} changelog records", job.next - job.low, job.high - job.low)
            }
        });
        let mut text = format!("reading states back: {}", parts.collect::<Vec<_>>().join("; "));
        if let Some(complaint) = self.shared.voice.complaint() {
            text += &format!("; {}", explain_complaint(&self.shared.config.brokers, &complaint));
        }
        self.shared.health.trouble("restore", text);
    }
}
