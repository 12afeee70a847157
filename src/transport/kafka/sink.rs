//! What a batch leads to, written to Kafka: in one transaction, or in the order that at-least-once delivery needs.
//!
//! With transactions everything is sent, then the group's offsets are added and the transaction is committed. Without:
//!
//! 1. labels and dead letters, all acknowledged;
//! 2. states, all acknowledged;
//! 3. the group's offsets.
//!
//! A crash between two steps repeats labels with equal bytes, and loses none: see [`super`].

use super::checkpoint::Mark;
use super::clients;
use super::delivery::{Delivered, Outgoing, Producer, Reached, STATES};
use super::store::{Change, Written};
use super::words::explain;
use super::{Connected, Shared};
use crate::clock::unix_ms;
use crate::config::KafkaConfig;
use crate::state::StreamId;
use crate::transport::{DeadLetter, Origin, OutputRecord, Position, Sink, StateChange, Transaction, TransportError};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode as Code;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
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

/// Pauses between tries to take up the transactional id.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(5);

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
    /// Where the look for them goes on.
    forget_after: Option<StreamId>,
}

impl KafkaSink {
    pub fn new(shared: Arc<Shared>) -> KafkaSink {
        KafkaSink {
            shared,
            producer: None,
            unpublished: Vec::new(),
            one_by_one: false,
            output_limit: usize::MAX,
            forget_next: Instant::now() + FORGET_EVERY,
            forget_after: None,
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
        let forgotten = self.take_forgettable(&batch.states)?;
        let changes = changes(batch, &forgotten);
        let result = self.send(&connected, &mut producer, batch, &changes, partitions);
        let written = written(&changes, &producer.take_reached());
        self.producer = Some(producer);
        result?;
        // Only now: a state in the store is taken as proof that its labels are published.
        if let Err(error) = shared.store.store(&changes, &written, shared.transactional_id.is_some()) {
            // It is committed all the same, so it is no commit's trouble: perhaps none follows that could tell of its end. What
            // counts is what the changelog and the group say; saving the copy tells whether that works again.
            partitions.iter().for_each(|partition| shared.store.leave(*partition));
            shared.copy_fails("written", &error);
            return Err(TransportError::Reassigned(partitions.iter().copied().collect()));
        }
        shared.events.expired("streams", forgotten.len() as u64);
        Ok(())
    }

    /// Sends a batch and waits until it is written.
    fn send(
        &mut self,
        connected: &Connected,
        producer: &mut Producer,
        batch: &Transaction,
        changes: &[Change<'_>],
        partitions: &BTreeSet<i32>,
    ) -> Result<(), TransportError> {
        if !producer.is_transactional() {
            self.publish(connected, producer, batch)?;
            self.acknowledged(producer, changes)?;
            self.shared.assignment.go_on_writing()?;
            self.keep(connected, producer, changes)?;
            return self.acknowledged(producer, changes);
        }
        producer.begin()?;
        let result = self
            .publish(connected, producer, batch)
            .and_then(|()| self.keep(connected, producer, changes))
            .and_then(|()| self.acknowledged(producer, changes))
            .and_then(|()| self.commit_transaction(connected, producer, partitions, &batch.positions));
        if result.is_err() && (producer.abort().is_err() || producer.is_dead()) {
            *producer = self.successor(connected)?;
        }
        result
    }

    /// A producer in place of one that was given up. It takes up the transactional id now, which aborts what is left open, not
    /// with the next batch: that may be waiting for the offsets of partitions which are part of what is left open.
    fn successor(&self, connected: &Connected) -> Result<Producer, TransportError> {
        let mut pause = FIRST_RETRY;
        loop {
            let producer = self.shared.new_producer(&connected.layout)?;
            match producer.take_up() {
                Ok(()) => return Ok(producer),
                Err(error) => self.shared.events.kafka_trouble(&error.to_string()),
            }
            self.shared.shutdown.sleep(pause);
            if self.shared.shutdown.is_requested() {
                return Ok(producer);
            }
            pause = (pause * 2).min(LAST_RETRY);
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
        let list = clients::positions(&self.shared.config.input, next)
            .map_err(|error| TransportError::Fatal(explain("adding offsets", &error)))?;
        let group = connected.consumer.group_metadata();
        let group = group.ok_or_else(|| TransportError::Transient("the consumer is in no group".to_string()))?;
        // Only now: by the generation that was just asked for, the partitions are still those that the batch was begun with.
        // Should they go to others later, it is this generation that the group refuses.
        self.shared.assignment.go_on_writing()?;
        producer.commit(&list, &group).inspect_err(|_| {
            // Whether it is committed is not certain: what counts is what the changelog and the group say.
            partitions.iter().for_each(|partition| self.shared.store.leave(*partition));
        })
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
        let mut too_large = Vec::new();
        let mut source = String::new();
        for (number, output) in batch.outputs.iter().enumerate() {
            source.clear();
            // Fails never: the writer is a string.
            let _ = write!(source, "{}", output.input.origin);
            let headers = [(SOURCE_HEADER, Some(source.as_bytes())), (MODEL_HEADER, Some(output.model.as_bytes()))];
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
    fn acknowledged(&mut self, producer: &Producer, changes: &[Change<'_>]) -> Result<(), TransportError> {
        let KafkaConfig { output, changelog, .. } = &self.shared.config;
        match producer.wait(&format!("writing to {output}, dead letters or {changelog}"))? {
            Delivered::All => {
                self.one_by_one = false;
                Ok(())
            }
            Delivered::TooLarge(numbers) => {
                match numbers.iter().find_map(|number| changes.get(number.wrapping_sub(STATES))) {
                    Some(change) => {
                        let size = change.value.as_ref().map_or(0, |value| value.len());
                        Err(TransportError::Fatal(state_too_large(changelog, change.key, size, size)))
                    }
                    // Which of those that were sent together is too large is found out when they are sent one by one.
                    None => {
                        self.one_by_one = true;
                        let detail = format!("{} records are refused by the broker for their size", numbers.len());
                        Err(TransportError::Transient(detail))
                    }
                }
            }
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
        let source = record.origin.to_string();
        let mut headers: Vec<(&str, Option<&[u8]>)> =
            record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        headers.extend([
            (ERROR_HEADER, Some(letter.code.as_bytes())),
            (DETAIL_HEADER, Some(letter.detail.as_bytes())),
            (SOURCE_HEADER, Some(source.as_bytes())),
        ]);
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
        let (shortened, omitted);
        if outgoing.size() > limit {
            // Where it is and why it failed can still be said.
            omitted = record.value.len().to_string();
            let own = headers.len() - 3;
            let kept = if outgoing.size() - record.value.len() > limit { own } else { 0 };
            shortened = [&headers[kept..], &[(OMITTED_HEADER, Some(omitted.as_bytes()))]].concat();
            outgoing.value = None;
            outgoing.headers = &shortened;
        }
        producer.send(number, &outgoing)
    }

    /// States, to the changelog, and tombstones for what is forgotten.
    fn keep(&self, connected: &Connected, producer: &Producer, changes: &[Change<'_>]) -> Result<(), TransportError> {
        let (topic, limit) = (&self.shared.config.changelog, connected.layout.changelog.max_bytes);
        let now_ms = unix_ms() as i64;
        for (number, change) in changes.iter().enumerate() {
            let outgoing = Outgoing {
                topic,
                partition: Some(change.partition),
                key: Some(change.key),
                value: change.value.as_deref(),
                headers: &[],
                timestamp_ms: now_ms,
            };
            if outgoing.size() > limit {
                return Err(TransportError::Fatal(state_too_large(topic, change.key, outgoing.size(), limit)));
            }
            producer.send(STATES + number, &outgoing)?;
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
        let page = self.shared.store.forgettable(before_ms, &labelled, self.forget_after.as_ref(), FORGET_AT_ONCE);
        let page = page.map_err(|e| TransportError::Transient(format!("the local copy of the states: {e}")))?;
        if page.next.is_none() {
            self.forget_next = Instant::now() + FORGET_EVERY;
        }
        self.forget_after = page.next;
        let mut found = page.streams;
        // One that begins anew in this very batch stays.
        let begun: BTreeSet<&StreamId> = states.iter().map(|change| &change.stream).collect();
        found.retain(|stream| !begun.contains(stream));
        Ok(found)
    }
}

/// What a batch writes to the changelog: its states, and tombstones for streams that are forgotten.
fn changes<'a>(batch: &'a Transaction, forgotten: &'a [StreamId]) -> Vec<Change<'a>> {
    let change = |stream: &'a StreamId, value| Change { partition: stream.partition(), key: stream.as_bytes(), value };
    let states = batch.states.iter().map(|state| change(&state.stream, Some(Cow::Owned(state.state.encode()))));
    states.chain(forgotten.iter().map(|stream| change(stream, None))).collect()
}

/// Where these changes lie in the changelog.
fn written(changes: &[Change<'_>], reached: &BTreeMap<i32, Reached>) -> BTreeMap<i32, Written> {
    let written = reached.iter().filter_map(|(partition, Reached { first, last, number, records })| {
        let change = changes.get(number - STATES)?;
        let mark = Mark::new(*last, change.key, change.value.as_deref());
        Some((*partition, Written { first: *first, records: *records, mark }))
    });
    written.collect()
}

fn state_too_large(topic: &str, key: &[u8], size: usize, limit: usize) -> String {
    let stream = String::from_utf8_lossy(key);
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
        self.shared.assignment.begin_writing(&partitions, transaction.assignment)?;
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
    let committed = clients::positions(&shared.config.input, positions.iter().copied())
        .and_then(|list| consumer.commit(&list, CommitMode::Sync));
    match committed {
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
