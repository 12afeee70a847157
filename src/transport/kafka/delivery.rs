//! The producer: records handed to librdkafka, and what became of each.

use super::clients;
use super::context::Voice;
use super::topics::{Layout, RECORD_OVERHEAD};
use super::words::{explain, explain_code};
use crate::config::KafkaConfig;
use crate::shutdown::Shutdown;
use crate::transport::TransportError;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext as RdProducerContext, PurgeConfig, ThreadedProducer,
};
use rdkafka::{Message, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Once shutdown is requested, how long acknowledgements are still waited for.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// A record to be produced.
pub struct Outgoing<'a> {
    pub topic: &'a str,
    /// Absent: by the key.
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    /// Absent: a tombstone.
    pub value: Option<&'a [u8]>,
    /// Names and values.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    pub timestamp_ms: i64,
}

impl Outgoing<'_> {
    /// Bytes as a broker counts them, at most.
    pub fn size(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len) + 16).sum();
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers + RECORD_OVERHEAD
    }
}

/// Records with a number from here on are the changelog's, whose offsets are remembered.
pub const STATES: usize = 1 << 40;

/// Where records of the changelog came to lie in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// Smallest and largest offset, and the number of the record that lies at the largest.
    pub first: i64,
    pub last: i64,
    pub number: usize,
    pub records: i64,
}

impl Reached {
    fn add(&mut self, offset: i64, number: usize) {
        self.first = self.first.min(offset);
        (self.last, self.number) = (offset, number).max((self.last, self.number));
        self.records += 1;
    }
}

/// Acknowledgements that are waited for.
#[derive(Default)]
struct Ledger {
    waiting: usize,
    /// Of the changelog's partitions.
    reached: BTreeMap<i32, Reached>,
    /// Numbers of records that were refused, with the reason.
    refused: Vec<(usize, Code)>,
}

struct ProducerContext {
    ledger: Mutex<Ledger>,
    settled: Condvar,
    voice: Voice,
}

impl ProducerContext {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for ProducerContext {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        self.voice.log(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.voice.error(&error, reason);
    }
}

impl RdProducerContext for ProducerContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        let mut ledger = self.ledger();
        ledger.waiting -= 1;
        match result {
            Ok(message) if number >= STATES && message.offset() >= 0 => {
                let offset = message.offset();
                let first = Reached { first: offset, last: offset, number, records: 0 };
                ledger.reached.entry(message.partition()).or_insert(first).add(offset, number);
            }
            Ok(_) => {}
            Err((error, _)) => ledger.refused.push((number, error.rdkafka_error_code().unwrap_or(Code::Fail))),
        }
        if ledger.waiting == 0 {
            self.settled.notify_all();
        }
    }
}

/// What became of records that were handed over together.
#[derive(Debug, PartialEq, Eq)]
pub enum Delivered {
    All,
    /// The broker refuses these for their size.
    TooLarge(Vec<usize>),
}

/// The idempotent producer, with a thread of its own for acknowledgements. Used by one thread; records are handed over
/// in groups, each ended by [`Producer::wait`].
pub struct Producer {
    producer: ThreadedProducer<ProducerContext>,
    shutdown: Shutdown,
    /// With `delivery = "exactly_once"`: whether the coordinator has taken up the transactional id.
    transactions: Option<AtomicBool>,
}

/// How long librdkafka's count of messages is waited for to become 0 once all are acknowledged.
const GIVING_BACK: Duration = Duration::from_millis(20);
const GIVING_BACK_STEP: Duration = Duration::from_micros(20);

/// How long one call that is about a transaction may take before it is made again.
const TRANSACTION_CALL: Duration = Duration::from_secs(5);

const TAKING_UP: &str = "taking up the transactional id";

impl Producer {
    pub fn new(
        config: &KafkaConfig,
        layout: &Layout,
        voice: Voice,
        shutdown: Shutdown,
        transactional_id: Option<&str>,
    ) -> Result<Producer, TransportError> {
        let context = ProducerContext { ledger: Mutex::default(), settled: Condvar::new(), voice };
        let mut client = clients::producer(config, layout.largest(), layout.smallest());
        if let Some(id) = transactional_id {
            client.set("transactional.id", id);
        }
        let producer: ThreadedProducer<ProducerContext> = client
            .create_with_context(context)
            .map_err(|error| TransportError::Fatal(explain("creating the producer", &error)))?;
        // So that the first batch does not wait for brokers to be found; whether that goes well shows when it is sent.
        for topic in [&config.output, &config.dead_letters, &config.changelog] {
            let _ = producer.client().fetch_metadata(Some(topic), Duration::from_secs(1));
        }
        let transactions = transactional_id.map(|_| AtomicBool::new(false));
        Ok(Producer { producer, shutdown, transactions })
    }

    /// Hands a record to librdkafka; `number` names it in the answer of [`Producer::wait`].
    pub fn send(&self, number: usize, record: &Outgoing<'_>) -> Result<(), TransportError> {
        let mut outgoing =
            BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, number).timestamp(record.timestamp_ms);
        if !record.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for (name, value) in record.headers {
                headers = headers.insert(KafkaHeader { key: name, value: *value });
            }
            outgoing = outgoing.headers(headers);
        }
        outgoing.key = record.key;
        outgoing.payload = record.value;
        outgoing.partition = record.partition;
        // Counted first: the acknowledgement may come at once.
        self.producer.context().ledger().waiting += 1;
        loop {
            match self.producer.send(outgoing) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(Code::QueueFull), back)) => {
                    outgoing = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => {
                    let mut ledger = self.producer.context().ledger();
                    ledger.waiting -= 1;
                    let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
                    if code == Code::MessageSizeTooLarge {
                        ledger.refused.push((number, code));
                        return Ok(());
                    }
                    return Err(TransportError::Transient(explain(&format!("writing to {}", record.topic), &error)));
                }
            }
        }
    }

    /// Waits until all that was handed over is acknowledged or refused. Whatever the answer, nothing is under way
    /// afterwards.
    pub fn wait(&self, doing: &str) -> Result<Delivered, TransportError> {
        let context = self.producer.context();
        // Sends at once what would linger. That it is not done within no time is no news.
        let _ = self.producer.flush(Duration::ZERO);
        let mut last = None;
        let mut ledger = context.ledger();
        while ledger.waiting > 0 {
            let wait = context.settled.wait_timeout(ledger, Duration::from_millis(100));
            ledger = wait.unwrap_or_else(PoisonError::into_inner).0;
            if self.shutdown.is_requested() {
                let until = *last.get_or_insert_with(|| Instant::now() + LAST_WAIT);
                if Instant::now() >= until && ledger.waiting > 0 {
                    // What is purged is told to the ledger, by another thread.
                    drop(ledger);
                    self.producer.purge(PurgeConfig::default().queue().inflight());
                    ledger = context.ledger();
                }
            }
        }
        let refused = std::mem::take(&mut ledger.refused);
        drop(ledger);
        if refused.is_empty() {
            return Ok(Delivered::All);
        }
        if refused.iter().all(|(_, code)| *code == Code::MessageSizeTooLarge) {
            return Ok(Delivered::TooLarge(refused.into_iter().map(|(number, _)| number).collect()));
        }
        // The first that is not a consequence of others.
        let consequence =
            |code: &Code| matches!(code, Code::PurgeQueue | Code::PurgeInflight | Code::MessageSizeTooLarge);
        let code = refused.iter().map(|(_, code)| *code).find(|code| !consequence(code));
        let code = code.or_else(|| self.spoilt_by()).unwrap_or(refused[0].1);
        let complaint = self.producer.context().voice.complaint().map(|c| format!(" ({c})")).unwrap_or_default();
        Err(TransportError::Transient(explain_code(doing, code) + &complaint))
    }

    /// The thread that told us of the last acknowledgement gives the messages back to librdkafka only then. A commit that comes
    /// before that finds messages under way, and the bindings' answer is to poll for 0.1 s, whatever happens meanwhile.
    fn until_given_back(&self) {
        let begun = Instant::now();
        while self.producer.in_flight_count() > 0 && begun.elapsed() < GIVING_BACK {
            std::thread::sleep(GIVING_BACK_STEP);
        }
    }

    /// Each of the changelog's partitions that was written to since this was last asked.
    pub fn take_reached(&self) -> BTreeMap<i32, Reached> {
        std::mem::take(&mut self.producer.context().ledger().reached)
    }

    /// Why the open transaction can only be aborted: the records in it tell no more than that they were dropped.
    fn spoilt_by(&self) -> Option<Code> {
        // Within a transaction this begins none, but says what is wrong with the one that is open.
        match self.transactions.as_ref().map(|_| self.producer.begin_transaction()) {
            Some(Err(KafkaError::Transaction(error))) if error.txn_requires_abort() => Some(error.code()),
            _ => None,
        }
    }

    pub fn is_transactional(&self) -> bool {
        self.transactions.is_some()
    }

    /// Takes up the transactional id, if that is still to be done: a transaction that a predecessor left open is aborted, and
    /// the predecessor fenced. Until then the group does not tell the offsets of partitions that are part of that
    /// transaction, so whoever waits for them must not be who begins the next one.
    pub fn take_up(&self) -> Result<(), TransportError> {
        self.until_answered(TAKING_UP, || self.init())
    }

    /// As [`Producer::take_up`], but waits for the answer for a few seconds only; then another producer must be made.
    pub fn try_to_take_up(&self) -> Result<(), String> {
        self.init().map_err(|error| explain(TAKING_UP, &error))
    }

    /// One call for the transactional id, if there is one that is not taken up.
    fn init(&self) -> KafkaResult<()> {
        if let Some(taken_up) = self.transactions.as_ref().filter(|taken_up| !taken_up.load(Ordering::Relaxed)) {
            self.producer.init_transactions(TRANSACTION_CALL)?;
            taken_up.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Begins a transaction.
    pub fn begin(&self) -> Result<(), TransportError> {
        if self.transactions.is_none() {
            return Ok(());
        }
        self.take_up()?;
        self.until_answered("beginning a transaction", || self.producer.begin_transaction())
    }

    /// Commits the transaction together with the group's offsets. The group's generation goes with them: an instance
    /// whose partitions went to others is refused here.
    pub fn commit(&self, offsets: &TopicPartitionList, group: &ConsumerGroupMetadata) -> Result<(), TransportError> {
        if offsets.count() > 0 {
            self.until_answered("sending offsets to the transaction", || {
                self.producer.send_offsets_to_transaction(offsets, group, TRANSACTION_CALL)
            })?;
        }
        self.until_given_back();
        // A call that times out leaves the outcome open: it is made again until there is one, and nothing else is done.
        self.until_answered("committing a transaction", || self.producer.commit_transaction(TRANSACTION_CALL))
    }

    /// Aborts the transaction, if one is open.
    pub fn abort(&self) -> Result<(), TransportError> {
        if self.transactions.is_none() || self.is_dead() {
            return Ok(());
        }
        self.until_answered("aborting a transaction", || self.producer.abort_transaction(TRANSACTION_CALL))
    }

    /// Makes a call again as long as its error says that this may help.
    fn until_answered(&self, doing: &str, call: impl Fn() -> KafkaResult<()>) -> Result<(), TransportError> {
        let mut last = None;
        loop {
            let error = match call() {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let retriable = matches!(&error, KafkaError::Transaction(e) if e.is_retriable() && !e.is_fatal());
            if self.shutdown.is_requested() {
                last.get_or_insert_with(|| Instant::now() + LAST_WAIT);
            }
            if !retriable || last.is_some_and(|last| Instant::now() >= last) {
                return Err(TransportError::Transient(explain(doing, &error)));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// librdkafka has given this producer up: another must be made.
    pub fn is_dead(&self) -> bool {
        self.producer.client().fatal_error().is_some()
    }
}
