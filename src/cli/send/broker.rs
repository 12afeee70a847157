//! The broker as `strand send` sees it: is the topic there, and what became of the records.

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use strand::config::Config;
use strand::transport::Event;
use strand::transport::kafka::{client, explain, explain_complaint};
use strand::transport::line::Line;

/// How long one question may take; Ctrl-C waits for it.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long a reason is waited for.
const COMPLAINT: Duration = Duration::from_millis(200);
/// What key, headers and the protocol may add to a value.
const AROUND_A_VALUE: usize = 64 << 10;

/// What clients tell of themselves.
#[derive(Default)]
pub struct Told {
    acknowledged: AtomicU64,
    /// The line of the first record that was not taken, with the reason.
    refused: Mutex<Option<(usize, KafkaError)>>,
    /// The last complaint about the connection.
    complaint: Mutex<Option<String>>,
}

impl ClientContext for Told {
    /// Whatever matters comes as an error too.
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let mut complaint = lock(&self.complaint);
        // That all brokers are down says less than why one of them is.
        if error.rdkafka_error_code() == Some(Code::AllBrokersDown) && complaint.is_some() {
            return;
        }
        // What follows changes with every try: "(after 3ms in state CONNECT, 1 identical error(s) suppressed)".
        let reason = reason.split(" (after ").next().unwrap_or(reason);
        *complaint = Some(reason.to_string());
    }
}

impl ConsumerContext for Told {}

impl ProducerContext for Told {
    /// The line's number.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, line: usize) {
        match result {
            Ok(_) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
                *lock(&self.complaint) = None;
            }
            Err((error, _)) => {
                lock(&self.refused).get_or_insert_with(|| (line, error.clone()));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks whether the topic is there.
pub struct Question<'a> {
    config: &'a Config,
    asking: BaseConsumer<Told>,
}

/// What was found.
#[derive(Debug, PartialEq)]
pub enum Answer {
    There,
    /// Not yet, and why.
    NotYet(String),
}

impl Question<'_> {
    pub fn new(config: &Config) -> Result<Question<'_>, KafkaError> {
        // A consumer, for a producer's question would create the topic, with the broker's idea of its partitions.
        let defaults = [("client.id", "strand-send"), ("allow.auto.create.topics", "false")];
        Ok(Question { config, asking: client(&config.kafka, &defaults).create_with_context(Told::default())? })
    }

    /// The error does not pass by itself.
    pub fn ask(&self) -> Result<Answer, String> {
        let (topic, brokers) = (&self.config.kafka.input, &self.config.kafka.brokers);
        let doing = format!("asking for the topic {topic}");
        let metadata = match self.asking.fetch_metadata(Some(topic), TIMEOUT) {
            Ok(metadata) => metadata,
            Err(error) => {
                // Brings what the client has to complain about.
                let _ = self.asking.poll(COMPLAINT);
                let complaint = lock(&self.asking.context().complaint).clone();
                let why = complaint.map_or_else(|| explain(&doing, &error), |c| explain_complaint(brokers, &c));
                return Ok(Answer::NotYet(why));
            }
        };
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        match found.and_then(|found| found.error()).map(Code::from) {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) | None
                if found.is_none_or(|found| found.partitions().is_empty()) =>
            {
                let detail = format!(
                    "{brokers}: the topic {topic} does not exist; `strand run` creates it if kafka.input_partitions \
                     is set, or: kafka-topics.sh --bootstrap-server {brokers} --create --topic {topic} --partitions 8"
                );
                Ok(Answer::NotYet(detail))
            }
            None => Ok(Answer::There),
            Some(code @ (Code::TopicAuthorizationFailed | Code::InvalidTopic)) => {
                Err(explain(&doing, &KafkaError::MetadataFetch(code)))
            }
            Some(code) => Ok(Answer::NotYet(explain(&doing, &KafkaError::MetadataFetch(code)))),
        }
    }
}

/// The idempotent producer.
pub struct Broker {
    topic: String,
    brokers: String,
    producer: ThreadedProducer<Told>,
    pub sent: u64,
}

impl Broker {
    pub fn new(config: &Config) -> Result<Broker, KafkaError> {
        let largest = (config.input.max_record_bytes.len() + AROUND_A_VALUE).clamp(1_000_000, 1_000_000_000);
        let largest = largest.to_string();
        let defaults = [
            ("client.id", "strand-send"),
            ("compression.codec", "lz4"),
            ("linger.ms", "5"),
            ("message.max.bytes", &largest),
            // As Java's producers do, so that a key has one partition whoever sends it.
            ("partitioner", "murmur2_random"),
        ];
        let mut client = client(&config.kafka, &defaults);
        client.set("enable.idempotence", "true");
        let (topic, brokers) = (config.kafka.input.clone(), config.kafka.brokers.clone());
        Ok(Broker { topic, brokers, producer: client.create_with_context(Told::default())?, sent: 0 })
    }

    /// Hands a record to librdkafka. False: it has too many already.
    pub fn send(&mut self, number: usize, line: &Line, stream: &str) -> Result<bool, KafkaError> {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &Event::headers(line.event) {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let mut record = BaseRecord::with_opaque_to(&self.topic, number).key(stream).payload(&line.value);
        if line.event.is_some() {
            record = record.headers(headers);
        }
        match self.producer.send(record) {
            Ok(()) => {
                self.sent += 1;
                Ok(true)
            }
            Err((KafkaError::MessageProduction(Code::QueueFull), _)) => Ok(false),
            Err((error, _)) => Err(error),
        }
    }

    /// Waits a moment for what is under way.
    pub fn flush(&self, wait: Duration) {
        // That it is not done within a moment is no news.
        let _ = self.producer.flush(wait);
    }

    pub fn acknowledged(&self) -> u64 {
        self.producer.context().acknowledged.load(Ordering::Relaxed)
    }

    /// The line of a record that was not taken, and why.
    pub fn refused(&self) -> Option<(usize, String)> {
        let refused = lock(&self.producer.context().refused);
        refused.as_ref().map(|(line, error)| (*line, explain(&format!("sending to {}", self.topic), error)))
    }

    /// What the client complains about since something was last acknowledged.
    pub fn complaint(&self) -> Option<String> {
        lock(&self.producer.context().complaint).as_ref().map(|c| explain_complaint(&self.brokers, c))
    }
}
