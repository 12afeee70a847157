//! What a batch leads to, written to Kafka: in one transaction, or in the order that at-least-once delivery needs.
//!
//! With transactions everything is sent, then the group's offsets are added and the transaction is committed. Without:
//!
//! 1. labels and dead letters, all acknowledged;
//! 2. states, all acknowledged;
//! 3. the group's offsets.
//!
//! A crash between two steps repeats labels with equal bytes, and loses none: see [`super`].

use super::delivery::{Delivered, Outgoing, Producer};
use super::words::explain;
use super::{Connected, Shared};
use crate::clock::unix_ms;
use crate::config::KafkaConfig;
use crate::state::StreamId;
use crate::transport::{
    DeadLetter, Header, Origin, OutputRecord, Position, Sink, StateChange, Transaction, TransportError,
};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Headers of what Strand writes.
pub const SOURCE_HEADER: &str = "strand-source";
pub const MODEL_HEADER: &str = "strand-model";
pub const ERROR_HEADER: &str = "strand-error";
pub const DETAIL_HEADER: &str = "strand-error-detail";
/// Code of a dead letter whose labels the output topic does not take.
pub const OUTPUT_TOO_LARGE: &str = "output_too_large";
/// Set on a dead letter whose value the dead-letter topic does not take: the value's length.
pub const OMITTED_HEADER: &str = "strand-value-omitted";

/// How often ended streams are looked for whose numbering need not be kept any longer.
const FORGET_EVERY: Duration = Duration::from_secs(30);
/// Most of them at a time.
const FORGET_AT_ONCE: usize = 1000;

/// The producer and what is to be written with the next commit.
pub struct KafkaSink {
    shared: Arc<Shared>,
    producer: Option<Producer>,
    /// Dead letters of this batch for labels that are too large.
    unpublished: Vec<DeadLetter>,
    /// Records are sent one at a time, since one of the last batch was refused for its size by the broker.
    one_by_one: bool,
    /// The largest record that the output topic was seen to take is smaller than this.
    output_limit: usize,
    forget_next: Instant,
}

/// States are numbered from here on, outputs and dead letters from 0.
const STATES: usize = 1 << 40;

impl KafkaSink {
    pub fn new(shared: Arc<Shared>) -> KafkaSink {
        KafkaSink {
            shared,
            producer: None,
            unpublished: Vec::new(),
            one_by_one: false,
            output_limit: usize::MAX,
            forget_next: Instant::now() + FORGET_EVERY,
        }
    }

    fn write(&mut self, partitions: &BTreeSet<i32>, batch: &Transaction) -> Result<(), TransportError> {
        let shared = self.shared.clone();
        let connected = shared.connected()?;
        let mut producer = match self.producer.take().filter(|producer| !producer.is_dead()) {
            Some(producer) => producer,
            None => {
                let ready = connected.producer.lock().unwrap_or_else(PoisonError::into_inner).take();
                ready.map_or_else(|| shared.new_producer(&connected.layout), Ok)?
            }
        };
        let result = self.send(&connected, &mut producer, batch, partitions);
        self.producer = Some(producer);
        let forgotten = result?;
        // Only now: a state in the store is taken as proof that its labels are published.
        let failed = |e| TransportError::Transient(format!("the local copy of the states cannot be written: {e}"));
        shared.store.store(&batch.states).map_err(failed)?;
        if !forgotten.is_empty() {
            shared.store.forget(&forgotten).map_err(failed)?;
            shared.events.expired("streams", forgotten.len() as u64);
        }
        Ok(())
    }

    /// Sends a batch and waits until it is written. The streams that are forgotten with it.
    fn send(
        &mut self,
        connected: &Connected,
        producer: &mut Producer,
        batch: &Transaction,
        partitions: &BTreeSet<i32>,
    ) -> Result<Vec<StreamId>, TransportError> {
        let forgotten = self.take_forgettable(&batch.states)?;
        if !producer.is_transactional() {
            self.publish(connected, producer, batch)?;
            self.acknowledged(producer, batch)?;
            self.shared.assignment.go_on_writing()?;
            self.keep(connected, producer, &batch.states, &forgotten)?;
            self.acknowledged(producer, batch)?;
            return Ok(forgotten);
        }
        producer.begin()?;
        let result = self
            .publish(connected, producer, batch)
            .and_then(|()| self.keep(connected, producer, &batch.states, &forgotten))
            .and_then(|()| self.acknowledged(producer, batch))
            .and_then(|()| self.commit_transaction(connected, producer, partitions, &batch.positions));
        match result {
            Ok(()) => Ok(forgotten),
            Err(error) => {
                // If aborting fails too the producer is given up; its successor's first call aborts what it left open.
                if producer.abort().is_err() || producer.is_dead() {
                    *producer = self.shared.new_producer(&connected.layout)?;
                }
                Err(error)
            }
        }
    }

    fn commit_transaction(
        &self,
        connected: &Connected,
        producer: &Producer,
        partitions: &BTreeSet<i32>,
        positions: &[Position],
    ) -> Result<(), TransportError> {
        // Partitions of which nothing was read (streams that were ended for their silence) go along with the position
        // that they have: it is by the offsets that the group refuses an instance that is no longer in charge.
        let mut next: BTreeMap<i32, i64> = self.shared.assignment.labelled().into_iter().collect();
        next.retain(|partition, _| partitions.contains(partition));
        next.extend(positions.iter().map(|position| (position.partition, position.next_offset)));
        let mut list = TopicPartitionList::new();
        for (partition, next) in next {
            list.add_partition_offset(&self.shared.config.input, partition, Offset::Offset(next))
                .map_err(|error| TransportError::Fatal(explain("adding offsets", &error)))?;
        }
        let group = connected.consumer.group_metadata();
        let group = group.ok_or_else(|| TransportError::Transient("the consumer is in no group".to_string()))?;
        // Only now: by the generation that was just asked for, the partitions are still those that the batch was begun with.
        // Should they go to others later, it is this generation that the group refuses.
        self.shared.assignment.go_on_writing()?;
        producer.commit(&list, &group)
    }

    /// Labels and dead letters.
    fn publish(
        &mut self,
        connected: &Connected,
        producer: &Producer,
        batch: &Transaction,
    ) -> Result<(), TransportError> {
        let config = &self.shared.config;
        let layout = &connected.layout;
        let limit = layout.output.max_bytes.min(self.output_limit);
        let same_partition = layout.output.partitions == layout.input_partitions;
        let model = self.shared.model_name.as_bytes().to_vec();
        let mut too_large = Vec::new();
        for (number, output) in batch.outputs.iter().enumerate() {
            let headers: [Header; 2] = [
                (SOURCE_HEADER.to_string(), Some(output.input.origin.to_string().into_bytes())),
                (MODEL_HEADER.to_string(), Some(model.clone())),
            ];
            let outgoing = Outgoing {
                topic: &config.output,
                partition: same_partition.then_some(output.stream.partition()),
                key: Some(output.stream.as_bytes()),
                value: Some(&output.value),
                headers: &headers,
                timestamp_ms: output.input.timestamp_ms as i64,
            };
            if outgoing.size() > limit {
                too_large.push((output, outgoing.size(), limit));
                continue;
            }
            producer.send(number, &outgoing)?;
            if self.one_by_one
                && let Delivered::TooLarge(_) = producer.wait(&format!("writing to {}", config.output))?
            {
                self.output_limit = self.output_limit.min(outgoing.size() - 1);
                if producer.is_transactional() {
                    // The transaction is spoilt; the next one leaves this record out.
                    return Err(TransportError::Transient(format!("{} takes no record of this size", config.output)));
                }
                too_large.push((output, outgoing.size(), outgoing.size() - 1));
            }
        }
        let unpublished: Vec<DeadLetter> =
            too_large.iter().map(|(output, size, limit)| self.unpublished(output, *size, *limit)).collect();
        for (number, letter) in batch.letters.iter().chain(&unpublished).enumerate() {
            self.publish_letter(connected, producer, batch.outputs.len() + number, letter)?;
        }
        self.unpublished = unpublished;
        Ok(())
    }

    /// Waits until all that was sent is acknowledged.
    fn acknowledged(&mut self, producer: &Producer, batch: &Transaction) -> Result<(), TransportError> {
        let KafkaConfig { output, changelog, .. } = &self.shared.config;
        match producer.wait(&format!("writing to {output}, dead letters or {changelog}"))? {
            Delivered::All => {
                self.one_by_one = false;
                Ok(())
            }
            Delivered::TooLarge(numbers) => match numbers.iter().find(|number| **number >= STATES) {
                Some(number) => {
                    let change = &batch.states[number - STATES];
                    let size = change.state.encode().len();
                    Err(TransportError::Fatal(state_too_large(changelog, &change.stream, size, size)))
                }
                // Which of those that were sent together is too large is found out when they are sent one by one.
                None => {
                    self.one_by_one = true;
                    let detail = format!("{} records are refused by the broker for their size", numbers.len());
                    Err(TransportError::Transient(detail))
                }
            },
        }
    }

    /// The dead letter of a record whose labels are too large to be published.
    fn unpublished(&self, output: &OutputRecord, size: usize, limit: usize) -> DeadLetter {
        let detail = format!(
            "the record was taken, but its labels take {size} bytes and {} takes at most {limit} a record: send \
             smaller pieces, or raise max.message.bytes of the topic and message.max.bytes in [kafka.properties]",
            self.shared.config.output
        );
        DeadLetter { record: output.input.clone(), code: OUTPUT_TOO_LARGE, detail }
    }

    fn publish_letter(
        &self,
        connected: &Connected,
        producer: &Producer,
        number: usize,
        letter: &DeadLetter,
    ) -> Result<(), TransportError> {
        let (record, layout) = (&letter.record, &connected.layout);
        let mut headers = record.headers.clone();
        for (name, value) in [
            (ERROR_HEADER, letter.code.to_string()),
            (DETAIL_HEADER, letter.detail.clone()),
            (SOURCE_HEADER, record.origin.to_string()),
        ] {
            headers.push((name.to_string(), Some(value.into_bytes())));
        }
        let partition = match record.origin {
            Origin::Record { partition, .. } => partition,
            Origin::Strand => 0,
        };
        let mut outgoing = Outgoing {
            topic: &self.shared.config.dead_letters,
            partition: (layout.dead_letters.partitions == layout.input_partitions).then_some(partition),
            key: record.key.as_deref(),
            value: Some(&record.value),
            headers: &headers,
            timestamp_ms: record.timestamp_ms as i64,
        };
        let limit = layout.dead_letters.max_bytes;
        let shortened;
        if outgoing.size() > limit {
            // Where it is and why it failed can still be said.
            let omitted = record.value.len().to_string().into_bytes();
            let own = headers.len() - 3;
            let kept = if outgoing.size() - record.value.len() > limit { own } else { 0 };
            shortened = [&headers[kept..], &[(OMITTED_HEADER.to_string(), Some(omitted))]].concat();
            outgoing.value = None;
            outgoing.headers = &shortened;
        }
        producer.send(number, &outgoing)
    }

    /// States, to the changelog, and tombstones for what is forgotten.
    fn keep(
        &self,
        connected: &Connected,
        producer: &Producer,
        states: &[StateChange],
        forgotten: &[StreamId],
    ) -> Result<(), TransportError> {
        let (topic, limit) = (&self.shared.config.changelog, connected.layout.changelog.max_bytes);
        let now_ms = unix_ms() as i64;
        for (number, change) in states.iter().enumerate() {
            let value = change.state.encode();
            let outgoing = state_record(topic, &change.stream, Some(&value), now_ms);
            if outgoing.size() > limit {
                return Err(TransportError::Fatal(state_too_large(topic, &change.stream, outgoing.size(), limit)));
            }
            producer.send(STATES + number, &outgoing)?;
        }
        for stream in forgotten {
            producer.send(0, &state_record(topic, stream, None, now_ms))?;
        }
        Ok(())
    }

    /// Streams that ended long ago, now and then: what is kept of them is deleted.
    fn take_forgettable(&mut self, states: &[StateChange]) -> Result<Vec<StreamId>, TransportError> {
        let Some(keep) = self.shared.config.ended_keep.on().filter(|_| Instant::now() >= self.forget_next) else {
            return Ok(Vec::new());
        };
        let before_ms = unix_ms().saturating_sub(keep.as_millis() as u64);
        let labelled = self.shared.assignment.labelled();
        let found = self.shared.store.forgettable(before_ms, &labelled, FORGET_AT_ONCE);
        let mut found = found.map_err(|e| TransportError::Transient(format!("the local copy of the states: {e}")))?;
        if found.len() < FORGET_AT_ONCE {
            self.forget_next = Instant::now() + FORGET_EVERY;
        }
        // One that begins anew in this very batch stays.
        let begun: BTreeSet<&StreamId> = states.iter().map(|change| &change.stream).collect();
        found.retain(|stream| !begun.contains(stream));
        Ok(found)
    }
}

fn state_record<'a>(topic: &'a str, stream: &'a StreamId, value: Option<&'a [u8]>, now_ms: i64) -> Outgoing<'a> {
    Outgoing {
        topic,
        partition: Some(stream.partition()),
        key: Some(stream.as_bytes()),
        value,
        headers: &[],
        timestamp_ms: now_ms,
    }
}

fn state_too_large(topic: &str, stream: &StreamId, size: usize, limit: usize) -> String {
    format!(
        "the state of stream {stream:?} takes {size} bytes, but the changelog {topic} takes at most {limit} a record. \
         Raise max.message.bytes of the topic and message.max.bytes in [kafka.properties], and start again"
    )
}

impl Sink for KafkaSink {
    fn commit(&mut self, transaction: Transaction) -> Result<(), TransportError> {
        self.unpublished.clear();
        let positions = &transaction.positions;
        let states = transaction.states.iter().map(|change| change.stream.partition());
        let partitions: BTreeSet<i32> = positions.iter().map(|p| p.partition).chain(states).collect();
        self.shared.assignment.begin_writing(&partitions)?;
        let result = self.write(&partitions, &transaction);
        // Not before the states are there may a partition be handed over; not after an error does it count.
        self.shared.assignment.end_writing(if result.is_ok() { positions } else { &[] });
        result?;
        for letter in std::mem::take(&mut self.unpublished) {
            self.shared.events.rejected(&letter.record.origin, letter.code, &letter.detail);
        }
        if self.shared.transactional_id.is_some() {
            let committed: Vec<(i32, i64)> = positions.iter().map(|p| (p.partition, p.next_offset)).collect();
            self.shared.assignment.committed(&committed);
            return Ok(());
        }
        let connected = self.shared.connected()?;
        match commit_offsets(&self.shared, &connected.consumer) {
            None => Ok(()),
            Some(reason) => Err(TransportError::Transient(reason)),
        }
    }
}

/// Tells the group how far the partitions are. That it cannot take it just now, because it is being shared out, is no
/// error: what the states have seen is skipped wherever it is read again. Other reasons are returned.
pub fn commit_offsets<C: rdkafka::consumer::ConsumerContext>(
    shared: &Shared,
    consumer: &rdkafka::consumer::BaseConsumer<C>,
) -> Option<String> {
    let positions = shared.assignment.uncommitted();
    if positions.is_empty() {
        return None;
    }
    let mut list = TopicPartitionList::new();
    for (partition, next) in &positions {
        if let Err(error) = list.add_partition_offset(&shared.config.input, *partition, Offset::Offset(*next)) {
            return Some(explain("committing offsets", &error));
        }
    }
    match consumer.commit(&list, CommitMode::Sync) {
        Ok(()) => {
            shared.assignment.committed(&positions);
            None
        }
        Err(error) => match error.rdkafka_error_code() {
            Some(
                Code::RebalanceInProgress
                | Code::IllegalGeneration
                | Code::UnknownMemberId
                | Code::NoOffset
                | Code::AssignmentLost
                | Code::WaitingForCoordinator,
            ) => {
                shared.events.offsets_not_committed(&error);
                None
            }
            _ => Some(explain("committing offsets", &error)),
        },
    }
}
