//! The consumer: connects, polls, and keeps the positions.
//!
//! [`KafkaSource::poll`] never waits for a broker: until one answers and the topics are in order it gives no records,
//! tries again with growing pauses, and `/readyz` says why.

use super::clients;
use super::context::{ConsumerContext, PlainContext, Seen};
use super::restore::Restorer;
use super::topics::{Topics, Trouble};
use super::words::explain;
use super::{Connected, Shared};
use crate::clock::unix_ms;
use crate::events::Stage;
use crate::transport::{Defect, Header, Origin, PollLimits, Polled, RawRecord, Source, TransportError};
use rdkafka::admin::AdminClient;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, TopicPartitionList};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(15);

pub struct KafkaSource {
    shared: Arc<Shared>,
    restorer: Restorer,
    topic: Arc<str>,
    consumer: Option<Arc<BaseConsumer<ConsumerContext>>>,
    retry: Duration,
    next_try: Instant,
    /// Ends of the partitions as last seen.
    ends: BTreeMap<i32, i64>,
    /// First offset that was not polled, by partition.
    next: BTreeMap<i32, i64>,
    /// What was polled together with the news that partitions are gone, or while paused.
    kept: Vec<RawRecord>,
    paused: bool,
}

impl KafkaSource {
    pub fn new(shared: Arc<Shared>, restorer: Restorer) -> KafkaSource {
        KafkaSource {
            topic: shared.config.input.as_str().into(),
            shared,
            restorer,
            consumer: None,
            retry: FIRST_RETRY,
            next_try: Instant::now(),
            ends: BTreeMap::new(),
            next: BTreeMap::new(),
            kept: Vec::new(),
            paused: false,
        }
    }

    fn make_consumer(&mut self) -> Result<Arc<BaseConsumer<ConsumerContext>>, TransportError> {
        if let Some(consumer) = &self.consumer {
            return Ok(consumer.clone());
        }
        let context = ConsumerContext {
            voice: self.shared.voice.clone(),
            topic: self.shared.config.input.clone(),
            shared: Arc::downgrade(&self.shared),
            restorer: self.restorer.clone(),
            seen: Mutex::default(),
        };
        let consumer = clients::consumer(&self.shared.config).create_with_context(context);
        let consumer = consumer.map_err(|error| TransportError::Fatal(explain("creating the consumer", &error)))?;
        Ok(self.consumer.insert(Arc::new(consumer)).clone())
    }

    /// Tries to connect, if it is time to. False: not yet.
    fn connect(&mut self, wait: Duration) -> Result<bool, TransportError> {
        if self.shared.connected().is_ok() {
            return Ok(true);
        }
        let now = Instant::now();
        if now < self.next_try {
            std::thread::sleep(wait.min(self.next_try - now));
            return Ok(false);
        }
        let consumer = self.make_consumer()?;
        let admin: AdminClient<PlainContext> = clients::admin(&self.shared.config)
            .create_with_context(PlainContext(self.shared.voice.clone()))
            .map_err(|error| TransportError::Fatal(explain("creating the admin client", &error)))?;
        let topics = Topics {
            config: &self.shared.config,
            max_record_bytes: self.shared.max_record_bytes,
            consumer: &consumer,
            admin: &admin,
            events: &self.shared.events,
        };
        let prepared = topics.prepare(true).and_then(|(layout, _)| {
            let producer = self.shared.new_producer(&layout).map_err(|error| Trouble::Refuse(error.to_string()))?;
            // Before the group is joined: of partitions in a transaction that was left open it tells no offsets.
            producer.try_to_take_up().map_err(Trouble::Wait)?;
            Ok((layout, producer))
        });
        match prepared {
            Ok((layout, producer)) => {
                if let Some(cluster) = consumer.client().fetch_cluster_id(TIMEOUT) {
                    let checked = self.shared.store.check_cluster(&cluster);
                    checked.map_err(|error| {
                        TransportError::Fatal(format!("the local copy of the states cannot be written: {error}"))
                    })?;
                }
                if self.shared.config.standby {
                    (0..layout.input_partitions).for_each(|partition| self.restorer.leave(partition));
                }
                let subscribed = consumer.subscribe(&[&self.shared.config.input]);
                subscribed.map_err(|error| TransportError::Fatal(explain("subscribing", &error)))?;
                self.shared.voice.all_is_well();
                let detail = format!("joining the group {}", self.shared.config.group);
                self.shared.health.trouble("group", detail);
                self.shared.health.fine("kafka");
                let producer = Mutex::new(Some(producer));
                self.shared.set_connected(Some(Connected { consumer, layout, producer }));
                Ok(true)
            }
            Err(Trouble::Refuse(reason)) => Err(TransportError::Fatal(reason)),
            Err(Trouble::Wait(reason)) => {
                super::context::hear_out(&consumer);
                let advice = self.shared.voice.advice(&self.shared.config.brokers);
                self.shared.health.trouble("kafka", reason + &advice);
                self.next_try = Instant::now() + self.retry;
                self.retry = (self.retry * 2).min(LAST_RETRY);
                Ok(false)
            }
        }
    }

    /// Sets the position of partitions whose states are there, and serves them.
    fn begin_restored(&mut self, consumer: &BaseConsumer<ConsumerContext>) {
        let mut served_more = false;
        for (partition, committed) in self.shared.assignment.to_position() {
            match self.first_offset(consumer, partition, committed) {
                Ok((next, end)) => {
                    if let Err(error) = self.seek(consumer, &[(partition, next)]) {
                        // The client may not have the partition ready yet.
                        self.shared.health.trouble("group", format!("setting the position of a partition: {error}"));
                        continue;
                    }
                    if !self.shared.store.serve(partition) {
                        // The copy was opened anew since, because of another partition.
                        self.restore_again(&[partition]);
                        continue;
                    }
                    self.shared.assignment.serve(partition, next);
                    served_more = true;
                    self.ends.insert(partition, end);
                    if !self.paused
                        && let Err(error) = consumer.resume(&self.list(&[partition]))
                    {
                        self.shared.health.trouble("group", format!("partition {partition}: {error}"));
                    }
                }
                Err(reason) => {
                    self.shared.health.trouble("group", format!("partition {partition} is not served: {reason}"));
                }
            }
        }
        if self.shared.assignment.is_joined() && self.shared.assignment.to_position().is_empty() {
            self.shared.health.fine("group");
        }
        if served_more && self.shared.is_all_served() {
            self.shared.health.fine("restore");
        }
    }

    fn restore_again(&self, partitions: &[i32]) {
        for (partition, epoch) in self.shared.assignment.restore_again(partitions) {
            self.restorer.restore(partition, epoch);
        }
    }

    /// Where a partition is read from, whose group has `committed`, and where it ends.
    fn first_offset(
        &self,
        consumer: &BaseConsumer<ConsumerContext>,
        partition: i32,
        committed: Option<i64>,
    ) -> Result<(i64, i64), String> {
        let topic = &self.shared.config.input;
        let place = format!("{topic}/{partition}");
        let ends = consumer.fetch_watermarks(topic, partition, TIMEOUT);
        let (low, mut high) = ends.map_err(|error| explain(&format!("asking where {place} ends"), &error))?;
        let seen = self.shared.store.held(partition).seen;
        let before = committed.unwrap_or(0).max(seen + 1);
        if before > high {
            // Some brokers name an end that is too low; what can be read is the truth.
            high = self.end_by_reading(partition, low.max(high - 1))?;
        }
        if before > high {
            return Err(format!(
                "{place} ends at offset {high}, but was read up to {before} before: the topic was created anew, or has \
                 lost records. To begin anew with it, stop all instances, then: kafka-topics.sh --bootstrap-server \
                 {brokers} --delete --topic {changelog}; kafka-consumer-groups.sh --bootstrap-server {brokers} \
                 --group {group} --topic {topic} --reset-offsets --to-earliest --execute",
                brokers = self.shared.config.brokers,
                changelog = self.shared.config.changelog,
                group = self.shared.config.group,
            ));
        }
        let next = match committed {
            Some(committed) if committed < low => {
                self.shared.events.records_missed(partition, committed, low);
                low
            }
            Some(committed) => committed,
            // The group's offsets expire, states do not: whatever they have seen is skipped.
            None if seen >= 0 || !self.begins_at_the_end() => low,
            None => high,
        };
        Ok((next, high))
    }

    /// The end of a partition, by reading from `from` on.
    fn end_by_reading(&self, partition: i32, from: i64) -> Result<i64, String> {
        let topic = &self.shared.config.input;
        let doing = format!("reading {topic}/{partition} to its end");
        let reader: BaseConsumer<PlainContext> = clients::changelog_reader(&self.shared.config)
            .create_with_context(PlainContext(self.shared.voice.clone()))
            .map_err(|error| explain(&doing, &error))?;
        clients::positions(topic, [(partition, from)])
            .and_then(|list| reader.assign(&list))
            .map_err(|error| explain(&doing, &error))?;
        let (mut end, mut heard, until) = (from, Instant::now(), Instant::now() + TIMEOUT);
        while Instant::now() < until {
            match reader.poll(Duration::from_millis(100)) {
                // Should a broker not tell the end.
                None if end > from && heard.elapsed() > Duration::from_secs(1) => return Ok(end),
                None => {}
                Some(Ok(message)) => (end, heard) = (message.offset() + 1, Instant::now()),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(end),
                Some(Err(error)) => return Err(explain(&doing, &error)),
            }
        }
        Err(format!("{doing}: not reached in {TIMEOUT:?}"))
    }

    /// Without a committed offset: `auto.offset.reset`, as librdkafka understands it.
    fn begins_at_the_end(&self) -> bool {
        let reset = self.shared.config.properties.get("auto.offset.reset").map(ToString::to_string);
        matches!(reset.as_deref(), Some("latest" | "end" | "largest"))
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(&self.shared.config.input, *partition);
        }
        list
    }

    fn seek(&mut self, consumer: &BaseConsumer<ConsumerContext>, positions: &[(i32, i64)]) -> Result<(), String> {
        if positions.is_empty() {
            return Ok(());
        }
        let answered = clients::positions(&self.shared.config.input, positions.iter().copied())
            .and_then(|list| consumer.seek_partitions(list, TIMEOUT))
            .map_err(|error| error.to_string())?;
        for element in answered.elements() {
            element.error().map_err(|error| format!("partition {}: {error}", element.partition()))?;
        }
        self.next.extend(positions.iter().copied());
        Ok(())
    }

    /// What librdkafka's statistics say, once a second.
    fn look_at_statistics(&mut self, consumer: &BaseConsumer<ConsumerContext>) {
        let Some(Seen { ends, broker_up }) = consumer.context().take_seen() else { return };
        if broker_up {
            self.shared.voice.all_is_well();
            self.shared.health.fine("kafka");
        } else {
            let advice = self.shared.voice.advice(&self.shared.config.brokers);
            self.shared.health.trouble("kafka", format!("no broker answers{advice}"));
        }
        for (partition, end) in ends {
            let known = self.ends.entry(partition).or_insert(end);
            *known = end.max(*known);
        }
        self.shared.events.consumer_lag(&self.shared.assignment.lags(&self.ends));
    }

    /// A consumer's error that is not about one record.
    fn polling_failed(
        &mut self,
        consumer: &BaseConsumer<ConsumerContext>,
        error: &KafkaError,
    ) -> Result<(), TransportError> {
        if let Some((code, detail)) = consumer.client().fatal_error() {
            return Err(TransportError::Fatal(format!("the consumer was given up: {code}: {detail}")));
        }
        match error.rdkafka_error_code() {
            // Told by the statistics, as long as it lasts; librdkafka connects again by itself.
            Some(Code::AllBrokersDown | Code::BrokerTransportFailure | Code::OperationTimedOut | Code::Resolve) => {}
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => self.skip_what_is_gone(consumer),
            Some(Code::PollExceeded | Code::UnknownMemberId | Code::IllegalGeneration) => {
                self.shared.events.kafka_trouble(&explain("reading", error));
            }
            _ => {
                let doing = format!("reading {} as group {}", self.shared.config.input, self.shared.config.group);
                self.shared.health.trouble("group", explain(&doing, error));
            }
        }
        Ok(())
    }

    /// The broker has deleted records that were not read yet: tells which, and goes on after them.
    fn skip_what_is_gone(&mut self, consumer: &BaseConsumer<ConsumerContext>) {
        for partition in self.shared.assignment.served() {
            let next = self.next.get(&partition).copied().unwrap_or(0);
            match consumer.fetch_watermarks(&self.shared.config.input, partition, TIMEOUT) {
                Ok((low, _)) if next < low => {
                    self.shared.events.records_missed(partition, next, low);
                    if let Err(error) = self.seek(consumer, &[(partition, low)]) {
                        self.shared.health.trouble("group", format!("setting the position of a partition: {error}"));
                    }
                }
                _ => {}
            }
        }
    }

    fn record(&self, message: &BorrowedMessage<'_>) -> RawRecord {
        let origin =
            Origin::Record { topic: self.topic.clone(), partition: message.partition(), offset: message.offset() };
        // The bindings panic at a header whose name is no UTF-8.
        let headers = catch_unwind(AssertUnwindSafe(|| headers(message)));
        let (headers, defect) = match headers {
            Ok(headers) => (headers, None),
            Err(_) => {
                let detail = "a header's name is no UTF-8; the headers are left out here".to_string();
                (Vec::new(), Some(Defect { code: "invalid_header", detail }))
            }
        };
        RawRecord {
            origin,
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().unwrap_or_default().to_vec(),
            headers,
            timestamp_ms: message.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok()).unwrap_or_else(unix_ms),
            defect,
        }
    }

    /// Records until a limit of the poll is reached or there are no more.
    fn drain(
        &mut self,
        consumer: &BaseConsumer<ConsumerContext>,
        limits: &PollLimits,
    ) -> Result<Vec<RawRecord>, TransportError> {
        let mut records = std::mem::take(&mut self.kept);
        let mut bytes: usize = records.iter().map(|record| record.value.len()).sum();
        // Also with the limit reached, so that the group hears of us.
        let mut wait = if records.is_empty() { limits.wait } else { Duration::ZERO };
        let mut first = None;
        loop {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    first.get_or_insert_with(Instant::now);
                    let next = self.next.entry(message.partition()).or_insert(0);
                    // Polled before, or of a position that is no more.
                    if message.offset() < *next {
                        continue;
                    }
                    *next = message.offset() + 1;
                    bytes += message.payload_len();
                    records.push(self.record(&message));
                }
                Some(Err(error)) => self.polling_failed(consumer, &error)?,
            }
            if limits.reached(records.len(), bytes) {
                break;
            }
            wait = Duration::ZERO;
        }
        if let Some(first) = first {
            self.shared.events.spent(Stage::Poll, first.elapsed());
        }
        Ok(records)
    }
}

impl Source for KafkaSource {
    fn poll(&mut self, limits: &PollLimits) -> Result<Polled, TransportError> {
        if !self.connect(limits.wait)? {
            return Ok(Polled::Records(Vec::new()));
        }
        if let Some(reason) = self.shared.assignment.refusal() {
            return Err(TransportError::Fatal(reason));
        }
        let consumer = self.shared.connected()?.consumer.clone();
        if self.shared.store.is_unsaved() {
            // What is held of the states is read anew, once the file can be written.
            return Err(TransportError::Reassigned(self.shared.assignment.served()));
        }
        let unwhole = self.shared.unwhole();
        if !unwhole.is_empty() {
            return Err(TransportError::Reassigned(unwhole));
        }
        self.begin_restored(&consumer);
        let records = self.drain(&consumer, limits)?;
        self.look_at_statistics(&consumer);
        let lost = self.shared.assignment.take_lost();
        if lost.is_empty() {
            if self.paused {
                // Nobody takes records now. Should there be any, they come first later.
                self.kept = records;
                return Ok(Polled::Records(Vec::new()));
            }
            return Ok(Polled::Records(records));
        }
        for partition in &lost {
            self.next.remove(partition);
            self.ends.remove(partition);
        }
        let stays = |record: &RawRecord| match &record.origin {
            Origin::Record { partition, .. } => !lost.contains(partition),
            Origin::Strand => true,
        };
        self.kept = records.into_iter().filter(stays).collect();
        Ok(Polled::Lost(lost))
    }

    fn rewind(&mut self) -> Result<(), TransportError> {
        self.kept.clear();
        let Ok(connected) = self.shared.connected() else { return Ok(()) };
        let consumer = connected.consumer.clone();
        let failed = |what: &str, error: &dyn std::fmt::Display| TransportError::Transient(format!("{what}: {error}"));
        self.shared.store.open_again().map_err(|error| failed("the local copy of the states", &error))?;
        // Where it is not certain what is committed, and where the copy is behind, the broker is asked.
        let doubtful = self.shared.unwhole();
        if !doubtful.is_empty() {
            let paused = consumer.pause(&self.list(&doubtful));
            paused.map_err(|error| failed("pausing partitions whose states are read back", &error))?;
            self.restore_again(&doubtful);
        }
        let positions = self.shared.assignment.labelled();
        self.seek(&consumer, &positions)
            .map_err(|error| TransportError::Transient(format!("going back to what is committed: {error}")))
    }

    fn pause(&mut self) {
        self.paused = true;
        self.set_paused(true);
    }

    fn resume(&mut self) {
        self.paused = false;
        self.set_paused(false);
    }

    fn assignment(&self) -> u64 {
        self.shared.assignment.epoch()
    }
}

impl KafkaSource {
    fn set_paused(&self, pause: bool) {
        let Ok(connected) = self.shared.connected() else { return };
        let list = self.list(&self.shared.assignment.served());
        let consumer = &connected.consumer;
        let result = if pause { consumer.pause(&list) } else { consumer.resume(&list) };
        if let Err(error) = result {
            self.shared.events.kafka_trouble(&explain("pausing and resuming", &error));
        }
    }
}

impl Drop for KafkaSource {
    /// Leaves the group in order: what is labelled is committed first.
    fn drop(&mut self) {
        if let Some(consumer) = &self.consumer {
            super::sink::commit_offsets(&self.shared, consumer);
        }
        if let Err(error) = self.shared.store.save() {
            self.shared.events.checkpoint_not_saved(&error);
        }
        // The last handle: the consumer closes, and its partitions are taken from it in order.
        self.shared.set_connected(None);
        self.consumer = None;
    }
}

fn headers(message: &BorrowedMessage<'_>) -> Vec<Header> {
    let Some(headers) = message.headers() else { return Vec::new() };
    headers.iter().map(|header| (header.key.to_string(), header.value.map(<[u8]>::to_vec))).collect()
}
