//! What librdkafka calls back: its log, errors and statistics, rebalances of the group, acknowledgements.

use super::Shared;
use super::restore::Restorer;
use super::words::explain_complaint;
use crate::events::Events;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long a batch that is being written may delay the handing over of partitions.
const HAND_OVER: Duration = Duration::from_secs(20);

/// What clients say about the connection; the last complaint of any of them.
#[derive(Clone)]
pub struct Voice {
    last: Arc<Mutex<Option<String>>>,
    events: Events,
}

impl Voice {
    pub fn new(events: Events) -> Voice {
        Voice { last: Arc::default(), events }
    }

    /// An error that a client reports.
    pub fn error(&self, error: &KafkaError, reason: &str) {
        // That the end of a partition is reached comes as an error too.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            self.hear(reason);
        }
    }

    fn hear(&self, reason: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_deref() != Some(reason) {
            self.events.kafka_trouble(reason);
            *last = Some(reason.to_string());
        }
    }

    /// The last complaint since all was well.
    pub fn complaint(&self) -> Option<String> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same with advice, to be added to what is being waited for; empty if there is none.
    pub fn advice(&self, brokers: &str) -> String {
        self.complaint().map(|complaint| format!("; {}", explain_complaint(brokers, &complaint))).unwrap_or_default()
    }

    pub fn all_is_well(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A line of a client's log.
    pub fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(fac, message, "librdkafka");
        let serious = !matches!(level, RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug);
        // Not every failure to connect comes as an error, but each is logged, after the name of a thread.
        if serious && fac == "FAIL" {
            self.hear(message.split_once("]: ").map_or(message, |(_, reason)| reason));
        }
    }
}

/// Takes what a client without an assignment has to complain about: it tells only who polls, one thing a poll.
pub fn hear_out<C: rdkafka::consumer::ConsumerContext>(consumer: &BaseConsumer<C>) {
    let until = Instant::now() + Duration::from_millis(50);
    while Instant::now() < until {
        // There can be no records, and errors go to the context.
        let _ = consumer.poll(Duration::from_millis(5));
    }
}

/// For clients that only ask and answer.
pub struct PlainContext(pub Voice);

impl ClientContext for PlainContext {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        self.0.log(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(&error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for PlainContext {}

/// How far the partitions of the input reach, and whether a broker is there, by librdkafka's own statistics.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub ends: BTreeMap<i32, i64>,
    pub broker_up: bool,
}

/// For the consumer of the input.
pub struct ConsumerContext {
    pub voice: Voice,
    pub topic: String,
    pub shared: Weak<Shared>,
    pub restorer: Restorer,
    pub seen: Mutex<Option<Seen>>,
}

impl ConsumerContext {
    /// The newest statistics, once.
    pub fn take_seen(&self) -> Option<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn assigned(&self, shared: &Shared, consumer: &BaseConsumer<ConsumerContext>, list: &mut TopicPartitionList) {
        // Where to begin is found out when the states are there; until then nothing is fetched.
        let result = list
            .set_all_offsets(Offset::Beginning)
            .and_then(|()| consumer.incremental_assign(list))
            .and_then(|()| consumer.pause(list));
        if let Err(error) = result {
            self.voice.hear(&format!("partitions that the group gave could not be taken: {error}"));
        }
        let partitions = partitions_of(list);
        if !partitions.is_empty() {
            // The restorer takes it back.
            shared.health.trouble("restore", format!("reading states back: {} partitions", partitions.len()));
        }
        for (partition, epoch) in shared.assignment.assign(&partitions) {
            self.restorer.restore(partition, epoch);
        }
    }

    fn revoked(&self, shared: &Shared, consumer: &BaseConsumer<ConsumerContext>, list: &TopicPartitionList) {
        let (partitions, lost) = (partitions_of(list), consumer.assignment_lost());
        // What is being written must be whole before another instance reads the changelog.
        shared.assignment.revoke(&partitions, lost, if lost { Duration::ZERO } else { HAND_OVER });
        partitions.iter().for_each(|partition| shared.store.leave(*partition));
        if !lost {
            super::sink::commit_offsets(shared, consumer);
        }
        shared.assignment.forget(&partitions);
        if let Err(error) = consumer.incremental_unassign(list) {
            self.voice.hear(&format!("partitions that the group took could not be given back: {error}"));
        }
        for partition in partitions {
            self.restorer.leave(partition);
        }
    }
}

impl ClientContext for ConsumerContext {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        self.voice.log(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.voice.error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let broker_up = statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP");
        let partitions = statistics.topics.get(&self.topic).into_iter().flat_map(|topic| topic.partitions.values());
        let ends = partitions.filter(|p| p.partition >= 0 && p.ls_offset >= 0).map(|p| (p.partition, p.ls_offset));
        let seen = Seen { ends: ends.collect(), broker_up };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }
}

impl rdkafka::consumer::ConsumerContext for ConsumerContext {
    fn rebalance(&self, consumer: &BaseConsumer<ConsumerContext>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        // Gone only when the transport is being torn down, after the consumer.
        let Some(shared) = self.shared.upgrade() else { return };
        if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.assigned(&shared, consumer, list);
        } else {
            self.revoked(&shared, consumer, list);
        }
    }
}

fn partitions_of(list: &TopicPartitionList) -> Vec<i32> {
    list.elements().iter().map(|element| element.partition()).collect()
}
