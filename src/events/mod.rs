//! Everything that happens in the daemon is one named event here, which writes its log line and moves its metrics in
//! the same place, so that the two cannot drift apart. No other module touches a metric.

mod draining;
mod metrics;

pub use metrics::{Metrics, resident_memory_bytes};

use crate::state::StreamId;
use crate::transport::Origin;
use draining::Draining;
use prometheus::local::LocalHistogram;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::{debug, error, info, warn};

/// The events. Cheap to clone; handed to every part of the daemon.
#[derive(Clone)]
pub struct Events(Arc<Inner>);

struct Inner {
    metrics: Metrics,
    /// The labels that are counted: all that the models give.
    labels: Vec<String>,
    draining: Mutex<Draining>,
    started: Instant,
    /// Seconds since `started` (plus one) when records' rejections were last logged.
    rejections_logged: AtomicU64,
}

/// A stage of the pipeline, by which its time is counted: once a batch, never once a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Taking records from the transport; without the time in which there were none.
    Poll,
    /// Sessions from memory or from the store, and back.
    Resident,
    /// Events, bytes to units to features.
    Decode,
    /// The network.
    Engine,
    /// Output records written down.
    Render,
    /// States as bytes.
    State,
    /// Transactions, beside all others.
    Commit,
}

impl Stage {
    pub const ALL: [Stage; 7] =
        [Stage::Poll, Stage::Resident, Stage::Decode, Stage::Engine, Stage::Render, Stage::State, Stage::Commit];

    pub fn name(self) -> &'static str {
        match self {
            Stage::Poll => "poll",
            Stage::Resident => "resident",
            Stage::Decode => "decode",
            Stage::Engine => "engine",
            Stage::Render => "render",
            Stage::State => "state",
            Stage::Commit => "commit",
        }
    }
}

/// What a batch of records amounts to; counted when it is committed, and only then.
#[derive(Debug)]
pub struct Tally {
    pub records: u64,
    pub bytes: u64,
    pub steps: u64,
    pub unknown: u64,
    /// Labels given, by their places among those that are counted.
    pub labels: Vec<u64>,
    pub ended: u64,
    pub expired: u64,
    /// Records that were taken before.
    pub skipped: u64,
    confidence: LocalHistogram,
    /// From language models: units above the threshold, and -ln P of all.
    surprising: u64,
    surprise: LocalHistogram,
}

impl Tally {
    /// One label of the output: its place by [`Events::place_of_label`].
    pub fn label(&mut self, place: Option<usize>, score: f32) {
        self.steps += 1;
        if let Some(count) = place.and_then(|place| self.labels.get_mut(place)) {
            *count += 1;
        }
        self.confidence.observe(f64::from(score));
    }

    /// A unit that a language model was this surprised by.
    pub fn unit(&mut self, nats: f32, is_surprising: bool) {
        self.surprising += u64::from(is_surprising);
        self.surprise.observe(f64::from(nats));
    }

    /// The batch was not committed: nothing of it counts.
    pub fn discard(self) {
        self.confidence.clear();
        self.surprise.clear();
    }
}

impl Events {
    pub fn new(labels: &[String]) -> Result<Events, prometheus::Error> {
        let inner = Inner {
            metrics: Metrics::new()?,
            labels: labels.to_vec(),
            draining: Mutex::default(),
            started: Instant::now(),
            rejections_logged: AtomicU64::new(0),
        };
        // Families are there from the start, so that a dashboard shows zeros and not gaps.
        for label in labels {
            inner.metrics.labels.with_label_values(&[label.as_str()]);
        }
        for outcome in ["committed", "aborted"] {
            inner.metrics.transactions.with_label_values(&[outcome]);
        }
        for outcome in ["accepted", "refused", "overloaded", "failed"] {
            inner.metrics.ingest_requests.with_label_values(&[outcome]);
        }
        for table in ["labels", "dead_letters", "streams", "clients"] {
            inner.metrics.expired.with_label_values(&[table]);
        }
        for cause in ["event", "ttl"] {
            inner.metrics.streams_ended.with_label_values(&[cause]);
        }
        Ok(Events(Arc::new(inner)))
    }

    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The place of a label among those that are counted; one that is not counted has none.
    pub fn place_of_label(&self, label: &str) -> Option<usize> {
        self.0.labels.iter().position(|counted| counted == label)
    }

    pub fn uptime(&self) -> Duration {
        self.0.started.elapsed()
    }

    // The daemon's life.

    pub fn starting(&self, version: &str, model: &str, fingerprint: &str) {
        self.0.metrics.build_info.with_label_values(&[version]).set(1.0);
        self.0.metrics.model_info.with_label_values(&[model, fingerprint]).set(1.0);
        info!(version, model, fingerprint, "starting");
    }

    /// `on_model_change = "drain"`: streams that this model began go on with it.
    pub fn previous_model(&self, model: &str, fingerprint: &str) {
        self.draining(|draining| draining.on = true);
        info!(model, fingerprint, "previous model: its live streams go on with it until they end");
    }

    /// Something that decides whether any stream of the previous model is left.
    fn draining(&self, happens: impl FnOnce(&mut Draining)) {
        // Each change is whole when the lock is given back, so that a panic elsewhere does no harm.
        let mut draining = self.0.draining.lock().unwrap_or_else(PoisonError::into_inner);
        happens(&mut draining);
        match draining.is_news() {
            None => {}
            Some(0) => info!("drained: previous_model can be removed from the configuration"),
            Some(partitions) => info!(
                partitions,
                "drained: previous_model can be removed from the configuration, once every instance says so"
            ),
        }
    }

    pub fn listening(&self, address: SocketAddr) {
        info!(target: "strand::http", %address, "http: listening on http://{address}/");
    }

    pub fn ready(&self) {
        self.0.metrics.ready.set(1);
        info!("ready");
    }

    pub fn not_ready(&self, part: &str, reason: &str) {
        self.0.metrics.ready.set(0);
        info!(part, reason, "not ready");
    }

    pub fn store_opened(&self, path: &Path, took: Duration, live: u64, queued: u64) {
        self.0.metrics.streams_live.set(clamp(live));
        info!(path = %path.display(), took_ms = took.as_millis() as u64, live, queued, "data directory opened");
    }

    pub fn store_repairing(&self, progress: f64) {
        info!(percent = (progress * 100.0) as u64, "data directory: checking after an unclean end");
    }

    pub fn store_reopened(&self, cause: &dyn Display) {
        warn!(%cause, "data directory: reopened after an error");
    }

    pub fn checkpoint_taken_up(&self, path: &Path, states: u64, took: Duration) {
        let took_ms = took.as_millis() as u64;
        info!(path = %path.display(), states, took_ms, "the local copy of the states is taken up");
    }

    pub fn checkpoint_put_aside(&self, reason: &dyn Display) {
        warn!(%reason, "the local copy of the states is put aside; they are read from the changelog again");
    }

    pub fn checkpoint_not_saved(&self, cause: &dyn Display) {
        warn!(%cause, "the local copy of the states cannot be saved; the next start reads more of the changelog");
    }

    pub fn states_reset(&self, streams: u64, found: &str) {
        warn!(streams, found, "states of another model dropped (on_model_change = \"reset\")");
    }

    pub fn state_reset(&self, stream: &str, found: &str) {
        debug!(stream, found, "state of another model dropped (on_model_change = \"reset\")");
    }

    pub fn stopped(&self) {
        info!("stopped");
    }

    pub fn failed(&self, cause: &dyn Display) {
        error!(%cause, "ending because of an error");
    }

    // Batches and transactions.

    /// A batch's figures begin.
    pub fn tally(&self) -> Tally {
        Tally {
            records: 0,
            bytes: 0,
            steps: 0,
            unknown: 0,
            labels: vec![0; self.0.labels.len()],
            ended: 0,
            expired: 0,
            skipped: 0,
            confidence: self.0.metrics.label_confidence.local(),
            surprising: 0,
            surprise: self.0.metrics.surprise_nats.local(),
        }
    }

    pub fn stepped(&self, streams: usize, steps: usize, took: Duration) {
        let metrics = &self.0.metrics;
        metrics.batch_streams.observe(streams as f64);
        metrics.batch_steps.observe(steps as f64);
        metrics.step_seconds.observe(took.as_secs_f64());
        self.spent(Stage::Engine, took);
    }

    /// A batch has spent this time in a stage.
    pub fn spent(&self, stage: Stage, time: Duration) {
        self.0.metrics.stage_seconds.with_label_values(&[stage.name()]).inc_by(time.as_secs_f64());
    }

    /// A transaction was committed: only now does anything of its batch count.
    pub fn committed(&self, tallies: Vec<Tally>, timestamps_ms: &[u64], now_ms: u64, took: Duration) {
        let metrics = &self.0.metrics;
        metrics.transactions.with_label_values(&["committed"]).inc();
        metrics.transaction_seconds.observe(took.as_secs_f64());
        self.spent(Stage::Commit, took);
        let latency = metrics.latency_seconds.local();
        for timestamp in timestamps_ms {
            latency.observe(now_ms.saturating_sub(*timestamp) as f64 / 1e3);
        }
        let (mut records, mut steps) = (0, 0);
        for tally in tallies {
            records += tally.records;
            steps += tally.steps;
            metrics.bytes.inc_by(tally.bytes);
            metrics.unknown_tokens.inc_by(tally.unknown);
            metrics.records_skipped.inc_by(tally.skipped);
            for (label, count) in self.0.labels.iter().zip(&tally.labels).filter(|(_, count)| **count > 0) {
                metrics.labels.with_label_values(&[label.as_str()]).inc_by(*count);
            }
            metrics.streams_ended.with_label_values(&["event"]).inc_by(tally.ended);
            metrics.streams_ended.with_label_values(&["ttl"]).inc_by(tally.expired);
            tally.confidence.flush();
            metrics.surprising.inc_by(tally.surprising);
            tally.surprise.flush();
        }
        metrics.records.inc_by(records);
        metrics.steps.inc_by(steps);
        debug!(records, steps, took_us = took.as_micros() as u64, "committed");
    }

    pub fn aborted(&self, cause: &dyn Display, retry_in: Duration) {
        self.0.metrics.transactions.with_label_values(&["aborted"]).inc();
        warn!(%cause, retry_in_ms = retry_in.as_millis() as u64, "transaction aborted; the records are read again");
    }

    /// A record went to the dead letters. Logged at debug, one a second at warn: a flood must not fill the log.
    pub fn rejected(&self, origin: &Origin, code: &'static str, detail: &str) {
        self.0.metrics.dead_letters.with_label_values(&[code]).inc();
        let now = self.0.started.elapsed().as_secs() + 1;
        if self.0.rejections_logged.swap(now, Ordering::Relaxed) == now {
            debug!(%origin, code, detail, "record rejected");
        } else {
            warn!(%origin, code, detail, "record rejected, see the dead letters (further ones of this second: at debug)");
        }
    }

    pub fn source_paused(&self, paused: bool) {
        self.0.metrics.source_paused.set(i64::from(paused));
        debug!(paused, "back-pressure");
    }

    pub fn source_depth(&self, depth: u64) {
        self.0.metrics.source_lag.set(clamp(depth));
    }

    // Kafka.

    /// The broker cannot be used for now. Logged by [`Events::not_ready`] too, as the reason for which we wait.
    pub fn kafka_trouble(&self, detail: &str) {
        warn!(detail, "kafka");
    }

    /// The group is being shared out; the offsets go with the next commit.
    pub fn offsets_not_committed(&self, cause: &dyn Display) {
        info!(%cause, "kafka: offsets not committed now; nothing is lost, what is read again is skipped");
    }

    pub fn topic_created(&self, topic: &str, partitions: i32) {
        info!(topic, partitions, "kafka: topic created");
    }

    /// The broker does not tell a topic's settings: they are not checked.
    pub fn topic_unchecked(&self, topic: &str, cause: &dyn Display) {
        warn!(topic, %cause, "kafka: the topic's settings cannot be read, so they are not checked");
    }

    pub fn partitions_assigned(&self, partitions: &[i32], now: usize) {
        self.0.metrics.rebalances.inc();
        self.0.metrics.partitions_assigned.set(clamp(now as u64));
        self.draining(|draining| draining.assigned(partitions));
        info!(?partitions, now, "kafka: partitions assigned");
    }

    /// `lost`: the group took them without asking, after this instance did not answer for too long.
    pub fn partitions_revoked(&self, partitions: &[i32], now: usize, lost: bool) {
        let metrics = &self.0.metrics;
        metrics.rebalances.inc();
        metrics.partitions_assigned.set(clamp(now as u64));
        self.draining(|draining| draining.revoked(partitions));
        for partition in partitions.iter().map(i32::to_string) {
            // A series that isn't there needs no removing.
            let _ = metrics.consumer_lag.remove_label_values(&[partition.as_str()]);
            let _ = metrics.restore_progress.remove_label_values(&[partition.as_str()]);
        }
        if lost {
            warn!(?partitions, now, "kafka: partitions lost to other members of the group");
        } else {
            info!(?partitions, now, "kafka: partitions handed over");
        }
    }

    pub fn restore_progress(&self, partition: i32, done: u64, all: u64) {
        let ratio = if all == 0 { 1.0 } else { done as f64 / all as f64 };
        self.0.metrics.restore_progress.with_label_values(&[partition.to_string()]).set(ratio.min(1.0));
    }

    pub fn partition_restored(&self, partition: i32, records: u64, streams: u64, from_offset: i64, took: Duration) {
        self.restore_progress(partition, 1, 1);
        let took_ms = took.as_millis() as u64;
        info!(partition, records, streams, from_offset, took_ms, "kafka: states restored, partition served");
    }

    pub fn states_restored(&self, count: u64) {
        self.0.metrics.restored_states.inc_by(count);
    }

    /// Partitions that others are in charge of and whose changelog is followed.
    pub fn standby(&self, partitions: usize) {
        self.0.metrics.standby_partitions.set(clamp(partitions as u64));
    }

    pub fn states_followed(&self, count: u64) {
        self.0.metrics.standby_states.inc_by(count);
    }

    pub fn following_failed(&self, partition: i32, cause: &dyn Display) {
        warn!(partition, %cause, "kafka: a partition's changelog cannot be followed; taking it over would take longer");
    }

    pub fn restore_failed(&self, partition: i32, cause: &dyn Display) {
        error!(partition, %cause, "kafka: the states of a partition cannot be restored; it is not served");
    }

    /// Records not yet committed, for each assigned partition.
    pub fn consumer_lag(&self, lags: &[(i32, u64)]) {
        for (partition, lag) in lags {
            self.0.metrics.consumer_lag.with_label_values(&[partition.to_string()]).set(clamp(*lag));
        }
        self.source_depth(lags.iter().map(|(_, lag)| lag).sum());
    }

    /// The broker's retention was faster than we: records that nobody will label.
    pub fn records_missed(&self, partition: i32, from: i64, to: i64) {
        self.0.metrics.records_missed.inc_by(u64::try_from(to - from).unwrap_or(0));
        error!(partition, from, to, "kafka: records were deleted by the broker before they were read");
    }

    // Streams and their states.

    pub fn states_loaded(&self, count: usize) {
        self.0.metrics.states_loaded.inc_by(count as u64);
    }

    pub fn states_evicted(&self, count: usize) {
        self.0.metrics.states_evicted.inc_by(count as u64);
    }

    pub fn state_damaged(&self, stream: &StreamId, cause: &dyn Display) {
        error!(?stream, %cause, "a stream's state cannot be read; its records are rejected until it is started anew");
    }

    /// Sums over the engine threads.
    pub fn residents(&self, streams: u64, bytes: u64) {
        let metrics = &self.0.metrics;
        metrics.streams_resident.set(clamp(streams));
        metrics.streams_spilled.set((metrics.streams_live.get() - clamp(streams)).max(0));
        metrics.state_bytes.with_label_values(&["memory"]).set(clamp(bytes));
    }

    /// The store's count of live streams and of the bytes of their states.
    pub fn streams_stored(&self, live: u64, bytes: u64) {
        let metrics = &self.0.metrics;
        metrics.streams_live.set(clamp(live));
        metrics.streams_spilled.set((clamp(live) - metrics.streams_resident.get()).max(0));
        metrics.state_bytes.with_label_values(&["store"]).set(clamp(bytes));
    }

    /// The store's count of live streams that go on with the previous model.
    pub fn streams_draining(&self, count: u64) {
        self.0.metrics.streams_draining.set(clamp(count));
        self.draining(|draining| draining.counted(count));
    }

    /// The same, of these partitions, which are served.
    pub fn streams_draining_in(&self, count: u64, served: Vec<i32>) {
        self.0.metrics.streams_draining.set(clamp(count));
        self.draining(|draining| draining.counted_in(count, served));
    }

    // Queues, ingestion, retention.

    pub fn queue(&self, records: u64, bytes: u64) {
        self.0.metrics.queue_depth.with_label_values(&["ingest"]).set(clamp(records));
        self.0.metrics.queue_bytes.set(clamp(bytes));
    }

    pub fn writes_waiting(&self, count: usize) {
        self.0.metrics.queue_depth.with_label_values(&["store"]).set(clamp(count as u64));
    }

    pub fn ingested(&self, records: usize) {
        self.0.metrics.ingest_requests.with_label_values(&["accepted"]).inc();
        debug!(records, "records on disk");
    }

    pub fn ingest_refused(&self, code: &str, detail: &str) {
        self.0.metrics.ingest_requests.with_label_values(&["refused"]).inc();
        debug!(code, detail, "request refused");
    }

    pub fn ingest_overloaded(&self, records: u64, bytes: u64) {
        self.0.metrics.ingest_requests.with_label_values(&["overloaded"]).inc();
        debug!(records, bytes, "queue full: request turned away");
    }

    pub fn ingest_failed(&self, cause: &dyn Display) {
        self.0.metrics.ingest_requests.with_label_values(&["failed"]).inc();
        warn!(%cause, "records could not be written; the client is told to try again");
    }

    /// The records are on disk all the same.
    pub fn acknowledged_not_noted(&self, cause: &dyn Display) {
        debug!(%cause, "how far records are acknowledged could not be noted beside the store");
    }

    pub fn follower(&self, change: i64) {
        self.0.metrics.followers.add(change);
    }

    pub fn expired(&self, table: &str, rows: u64) {
        if rows > 0 {
            self.0.metrics.expired.with_label_values(&[table]).inc_by(rows);
            debug!(table, rows, "deleted by retention");
        }
    }

    pub fn stored(&self, table: &str, bytes: u64) {
        self.0.metrics.store_bytes.with_label_values(&[table]).set(clamp(bytes));
    }

    pub fn retention_failed(&self, cause: &dyn Display) {
        warn!(%cause, "retention could not delete; tried again later");
    }
}

fn clamp(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_committed_counts() {
        let events = Events::new(&["O".to_string(), "B-PER".to_string()]).unwrap();
        let mut tally = events.tally();
        tally.records = 1;
        tally.label(Some(1), 0.9);
        tally.discard();
        let mut tally = events.tally();
        tally.records = 2;
        tally.label(events.place_of_label("O"), 0.5);
        tally.label(events.place_of_label("B-PER"), 0.7);
        events.committed(vec![tally], &[1000, 2000], 2500, Duration::from_millis(3));
        let text = events.metrics().render().unwrap();
        for line in [
            "strand_records_total 2",
            "strand_steps_total 2",
            "strand_labels_total{label=\"B-PER\"} 1",
            "strand_label_confidence_count 2",
            "strand_latency_seconds_count 2",
            "strand_transactions_total{outcome=\"committed\"} 1",
            "strand_transactions_total{outcome=\"aborted\"} 0",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
