//! The restorer: a thread that reads the changelog of partitions that were assigned into the local store, from where the
//! store has it.
//!
//! Several partitions are read side by side. A partition is done when the broker says that its end is reached, and not
//! when the end is reached that it named before: some brokers name an older one. Then the source may serve it. With
//! `kafka.standby` the partitions that others are in charge of are followed all the time.

use super::Shared;
use super::checkpoint::{Mark, checksum};
use super::clients;
use super::context::PlainContext;
use super::store::{Record, RestoreError};
use super::words::explain;
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
    Leave { partition: i32 },
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

    /// Others are in charge of a partition. With `kafka.standby` it is followed from now on.
    pub fn leave(&self, partition: i32) {
        let _ = self.0.send(Order::Leave { partition });
    }
}

pub fn start(shared: Arc<Shared>) -> std::io::Result<Restorer> {
    let (sender, orders) = channel();
    let run = move || {
        Thread { shared, reader: None, all: None, jobs: BTreeMap::new(), told: Instant::now(), saved: Instant::now() }
            .run(&orders)
    };
    std::thread::Builder::new().name("restorer".to_string()).spawn(run)?;
    Ok(Restorer(sender))
}

/// A partition that is being read.
struct Job {
    /// Which assignment it is restored for; absent where it is only followed.
    epoch: Option<u64>,
    begun: Instant,
    /// Begins (again) at this time, if it is not being read.
    waits_until: Option<Instant>,
    /// [`Store::opened`](super::store::Store::opened) when reading began.
    opened: u64,
    /// The changelog's first offset and the one after its last, when reading began.
    low: i64,
    high: i64,
    next: i64,
    /// All transactions that were open when reading began are decided, and reading goes on from before that was known.
    decided: bool,
    /// Where the store's copy ends: the first record must be this one, if it is still there.
    expected: Option<Mark>,
    /// What the group had committed before.
    committed: Option<i64>,
    records: u64,
    chunk: Vec<Record>,
    chunk_bytes: usize,
    /// Offset of the chunk's last record.
    chunk_last: i64,
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
    saved: Instant,
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
                        self.take(partition, Some(epoch));
                        self.shared.events.restore_progress(partition, 0, 1);
                        news = true;
                    }
                    Ok(Order::Leave { partition }) => {
                        self.stop(partition);
                        if self.shared.config.standby {
                            self.take(partition, None);
                        }
                        news = true;
                    }
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
            self.save();
        }
    }

    fn take(&mut self, partition: i32, epoch: Option<u64>) {
        self.stop(partition);
        let now = Instant::now();
        let job = Job {
            epoch,
            begun: now,
            waits_until: Some(now),
            opened: 0,
            low: 0,
            high: 0,
            next: 0,
            decided: false,
            expected: None,
            committed: None,
            records: 0,
            chunk: Vec::new(),
            chunk_bytes: 0,
            chunk_last: -1,
            heard: now,
            trouble: None,
        };
        self.jobs.insert(partition, job);
    }

    /// Stops reading a partition; what was read is kept.
    fn stop(&mut self, partition: i32) {
        self.write(partition);
        self.stop_reading(partition);
        self.jobs.remove(&partition);
    }

    /// Saves the local copy, now and then.
    fn save(&mut self) {
        if self.saved.elapsed() < self.shared.config.state_save.0 {
            // Whom it fails is told by the next commit, or by the next save.
            _ = self.shared.store.relieve();
            return;
        }
        self.saved = Instant::now();
        match self.shared.store.save() {
            Ok(()) => self.shared.health.fine("checkpoint"),
            Err(error) => self.shared.copy_fails("saved", &error),
        }
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
        // After an error of the disk.
        if due.iter().any(|partition| self.jobs[partition].trouble.is_some())
            && let Err(error) = self.shared.store.open_again()
        {
            for partition in due {
                self.fail(partition, format!("the local copy of the states: {error}"), RETRY);
            }
            return;
        }
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
        // is in the changelog then, or never will be. Asked before the states are read, so that these know all up to there.
        let restores = self.jobs.get(&partition).is_some_and(|job| job.epoch.is_some());
        let mut committed = None;
        if let Ok(connected) = shared.connected()
            && restores
        {
            let mut list = TopicPartitionList::new();
            list.add_partition(&shared.config.input, partition);
            let offsets = connected.consumer.committed_offsets(list, TIMEOUT);
            let offsets = offsets.map_err(|error| explain("asking for the group's offsets", &error))?;
            committed = offsets.elements().first().and_then(|element| match element.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            });
        }
        let reader = self.reader()?;
        let watermarks = reader.fetch_watermarks(topic, partition, TIMEOUT);
        // For this reader, the first record that is not decided.
        let (low, stable) = watermarks.map_err(|error| explain(&doing, &error))?;
        // Up to here whatever there is, also behind a transaction that is still open.
        let (_, high) = self
            .all()
            .and_then(|all| all.fetch_watermarks(topic, partition, TIMEOUT).map_err(|error| explain(&doing, &error)))?;
        let opened = shared.store.opened();
        let expected = self.take_up(partition, low, high)?;
        // The last record that is known is read again: if it is another, so is the changelog.
        let low = expected.map_or(low, |mark| mark.last.max(low));
        let reader = self.reader()?;
        if low < high {
            clients::positions(topic, [(partition, low)])
                .and_then(|list| reader.incremental_assign(&list))
                .map_err(|error| explain(&doing, &error))?;
        }
        if let Some(job) = self.jobs.get_mut(&partition) {
            (job.low, job.high, job.next, job.records, job.expected) = (low, high, low, 0, expected);
            (job.committed, job.decided, job.opened) = (committed, stable >= high, opened);
            (job.waits_until, job.trouble, job.heard) = (None, None, Instant::now());
        }
        if low >= high {
            self.finish(partition);
        }
        Ok(())
    }

    /// Where the store's copy of a partition ends, if it can be gone on with; otherwise it is put aside. The changelog
    /// has offsets from `low` to `high`.
    fn take_up(&self, partition: i32, low: i64, high: i64) -> Result<Option<Mark>, String> {
        let store = &self.shared.store;
        let mark = store.held(partition).mark;
        let reason = match mark {
            Some(mark) if mark.next < low => {
                format!("partition {partition}: it ends at offset {}, and the changelog begins at {low}", mark.next)
            }
            Some(mark) if mark.next > high => {
                format!("partition {partition}: it ends at offset {}, and the changelog at {high}", mark.next)
            }
            Some(mark) => return Ok(Some(mark)),
            None => String::new(),
        };
        if mark.is_some() {
            self.shared.events.checkpoint_put_aside(&reason);
        }
        // A clean table: what an earlier try left may be old.
        store.clear(partition).map_err(|error| format!("the local copy of the states cannot be written: {error}"))?;
        Ok(None)
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
        let (mut full, mut ended, mut other, mut failed) = (Vec::new(), Vec::new(), Vec::new(), None);
        let mut wait = Duration::from_millis(50);
        for _ in 0..CHUNK_RECORDS {
            match reader.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    let partition = message.partition();
                    let Some(job) = self.jobs.get_mut(&partition) else { continue };
                    job.next = message.offset() + 1;
                    job.heard = Instant::now();
                    if let Some(mark) = job.expected.take().filter(|mark| mark.last == message.offset()) {
                        let found = checksum(message.key().unwrap_or_default(), message.payload());
                        if found != mark.checksum {
                            other.push(partition);
                            break;
                        }
                        continue;
                    }
                    let key = message.key().unwrap_or_default().to_vec();
                    let value = message.payload().map(<[u8]>::to_vec);
                    job.chunk_bytes += key.len() + value.as_ref().map_or(0, Vec::len);
                    job.chunk.push((key, value));
                    job.chunk_last = message.offset();
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
        let silent = self.jobs.iter().filter(|(_, job)| {
            job.epoch.is_some() && job.waits_until.is_none() && job.next >= job.high && job.heard.elapsed() > SILENCE
        });
        ended.extend(silent.map(|(partition, _)| *partition));
        for partition in other {
            self.begin_anew(partition);
        }
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

    /// The changelog is not the one whose states the store has.
    fn begin_anew(&mut self, partition: i32) {
        let reason = format!("partition {partition}: the changelog {} was made anew", self.shared.config.changelog);
        self.shared.events.checkpoint_put_aside(&reason);
        self.stop_reading(partition);
        if let Err(error) = self.shared.store.clear(partition) {
            return self.fail(partition, format!("the local copy of the states cannot be written: {error}"), RETRY);
        }
        if let Some(job) = self.jobs.get_mut(&partition) {
            (job.waits_until, job.chunk, job.chunk_bytes) = (Some(Instant::now()), Vec::new(), 0);
        }
    }

    /// Whether all that was there when reading began was read. Behind a transaction that is still open there may be states
    /// that are committed and cannot be read yet: then the broker tells the end again later. That it is decided by now
    /// does not say that it was when the end was told, so what is left is read once more.
    fn is_whole(&mut self, partition: i32) -> bool {
        let (Some(reader), Some(job)) = (&self.reader, self.jobs.get_mut(&partition)) else { return false };
        if job.next >= job.high || job.decided {
            return true;
        }
        let topic = &self.shared.config.changelog;
        let stable = reader.fetch_watermarks(topic, partition, TIMEOUT);
        job.decided = stable.is_ok_and(|(_, stable)| stable >= job.high);
        if job.decided {
            let next = job.next;
            self.stop_reading(partition);
            let again = clients::positions(topic, [(partition, next)]);
            let again = self.reader.as_ref().map(|reader| again.and_then(|list| reader.incremental_assign(&list)));
            if let Some(Err(error)) = again {
                self.fail(partition, explain(&format!("reading {topic}/{partition}"), &error), RETRY);
            }
        }
        false
    }

    /// Brings what was read into the store. False: it could not be taken up.
    fn write(&mut self, partition: i32) -> bool {
        let Some(job) = self.jobs.get_mut(&partition) else { return false };
        let chunk = std::mem::take(&mut job.chunk);
        job.chunk_bytes = 0;
        job.records += chunk.len() as u64;
        let restores = job.epoch.is_some();
        let (done, all) = ((job.next - job.low).unsigned_abs(), (job.high - job.low).unsigned_abs());
        let mark = chunk.last().map(|(key, value)| Mark::new(job.chunk_last, key, value.as_deref()));
        if chunk.is_empty() {
            return true;
        }
        let opened = job.opened;
        match self.shared.store.restore(partition, &chunk, mark, opened) {
            Ok(()) if restores => {
                self.shared.events.states_restored(chunk.len() as u64);
                self.shared.events.restore_progress(partition, done, all);
                true
            }
            Ok(()) => {
                self.shared.events.states_followed(chunk.len() as u64);
                true
            }
            Err(error) => {
                let retry = if matches!(error, RestoreError::Store(_)) { RETRY } else { RETRY_BAD };
                self.fail(partition, error.to_string(), retry);
                false
            }
        }
    }

    /// The end is reached. Whoever only follows waits for more.
    fn finish(&mut self, partition: i32) {
        let Some(epoch) = self.jobs.get(&partition).and_then(|job| job.epoch) else { return };
        if let Some(error) = self.shared.store.refusal(partition) {
            if let RestoreError::OtherModel { .. } = &error {
                // Somebody must decide: the source ends the daemon with these words.
                self.shared.assignment.refuse(error.to_string());
            }
            return self.fail(partition, error.to_string(), RETRY_BAD);
        }
        let Some(Job { high, next, opened, .. }) = self.jobs.get(&partition) else { return };
        if !self.shared.store.read_to(partition, *high.max(next), *opened) {
            return self.fail(partition, "the local copy of the states was opened anew meanwhile".to_string(), RETRY);
        }
        self.stop_reading(partition);
        let Some(job) = self.jobs.remove(&partition) else { return };
        let streams = self.shared.store.held(partition).live;
        self.shared.events.partition_restored(partition, job.records, streams, job.low, job.begun.elapsed());
        self.shared.assignment.restored(partition, epoch, job.committed);
        self.tell(true);
    }

    /// The partition is not served until a later try goes well.
    fn fail(&mut self, partition: i32, detail: String, retry: Duration) {
        self.stop_reading(partition);
        let Some(job) = self.jobs.get_mut(&partition) else { return };
        if job.trouble.as_ref() != Some(&detail) {
            match job.epoch {
                Some(_) => self.shared.events.restore_failed(partition, &detail),
                None => self.shared.events.following_failed(partition, &detail),
            }
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
        let (restoring, following): (Vec<_>, Vec<_>) = self.jobs.iter().partition(|(_, job)| job.epoch.is_some());
        self.shared.events.standby(following.len());
        if restoring.is_empty() {
            // Otherwise the source says so, once it serves them.
            if self.shared.is_all_served() {
                self.shared.health.fine("restore");
            }
            return;
        }
        let parts = restoring.iter().map(|(partition, job)| match &job.trouble {
            Some(trouble) => format!("partition {partition} is not served: {trouble}"),
            None if job.waits_until.is_some() => format!("partition {partition} waits"),
            None => {
                format!("partition {partition}: {} of {} changelog records", job.next - job.low, job.high - job.low)
            }
        });
        let text = format!("reading states back: {}", parts.collect::<Vec<_>>().join("; "));
        self.shared.health.trouble("restore", text + &self.shared.voice.advice(&self.shared.config.brokers));
    }
}
