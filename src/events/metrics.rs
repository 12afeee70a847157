//! The metrics themselves: names, help, buckets. What changes them is in the parent module.

use crate::clock::unix_ms;
use prometheus::{
    CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// Every metric of the daemon. Base units, prefix `strand_`; no label takes unbounded values.
pub struct Metrics {
    registry: Registry,
    pub records: IntCounter,
    pub bytes: IntCounter,
    pub steps: IntCounter,
    pub labels: IntCounterVec,
    pub dead_letters: IntCounterVec,
    pub unknown_tokens: IntCounter,
    pub label_confidence: Histogram,
    pub surprising: IntCounter,
    pub surprise_nats: Histogram,
    pub batch_streams: Histogram,
    pub batch_steps: Histogram,
    pub step_seconds: Histogram,
    pub stage_seconds: CounterVec,
    pub latency_seconds: Histogram,
    pub transactions: IntCounterVec,
    pub transaction_seconds: Histogram,
    pub streams_live: IntGauge,
    pub streams_draining: IntGauge,
    pub streams_resident: IntGauge,
    pub streams_spilled: IntGauge,
    pub streams_ended: IntCounterVec,
    pub states_loaded: IntCounter,
    pub states_evicted: IntCounter,
    pub state_bytes: IntGaugeVec,
    pub queue_depth: IntGaugeVec,
    pub queue_bytes: IntGauge,
    pub source_paused: IntGauge,
    pub source_lag: IntGauge,
    pub consumer_lag: IntGaugeVec,
    pub partitions_assigned: IntGauge,
    pub rebalances: IntCounter,
    pub restore_progress: GaugeVec,
    pub restored_states: IntCounter,
    pub standby_partitions: IntGauge,
    pub standby_states: IntCounter,
    pub records_skipped: IntCounter,
    pub records_missed: IntCounter,
    pub ingest_requests: IntCounterVec,
    pub followers: IntGauge,
    pub expired: IntCounterVec,
    pub store_bytes: IntGaugeVec,
    pub ready: IntGauge,
    pub resident_memory: Gauge,
    pub start_time: Gauge,
    pub model_info: GaugeVec,
    pub build_info: GaugeVec,
}

/// Powers of two from 1 to 2^`last`.
fn powers(last: i32) -> Vec<f64> {
    (0..=last).map(|k| f64::from(k).exp2()).collect()
}

/// 1, 2.5, 5 times powers of ten, from 10^`first` up to 10^`last` seconds.
fn seconds(first: i32, last: i32) -> Vec<f64> {
    let mut buckets: Vec<f64> = (first..last).flat_map(|k| [1.0, 2.5, 5.0].map(|m| m * 10f64.powi(k))).collect();
    buckets.push(10f64.powi(last));
    buckets
}

impl Metrics {
    /// Registers everything. Fails only if two metrics share a name.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Metrics {
            records: counter(r, "records_total", "Records taken into a stream (committed)")?,
            bytes: counter(r, "bytes_total", "Bytes of values taken into a stream (committed)")?,
            steps: counter(r, "steps_total", "Steps of the network (words, characters, bases, events)")?,
            labels: counters(r, "labels_total", "Labels given, by label (committed)", "label")?,
            dead_letters: counters(r, "dead_letters_total", "Records that could not be labelled, by code", "code")?,
            unknown_tokens: counter(r, "unknown_tokens_total", "Steps whose word or event is not in the vocabulary")?,
            label_confidence: histogram(
                r,
                "label_confidence",
                "Probability of the label given",
                (1..=20).map(|k| f64::from(k) / 20.0).collect(),
            )?,
            surprising: counter(r, "surprising_total", "Units of language models above the threshold (committed)")?,
            surprise_nats: histogram(
                r,
                "surprise_nats",
                "-ln P of the units of language models, after those before them",
                vec![0.01, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0],
            )?,
            batch_streams: histogram(r, "batch_streams", "Streams stepped together", powers(13))?,
            batch_steps: histogram(r, "batch_steps", "Steps of all streams in one batch", powers(20))?,
            step_seconds: histogram(r, "step_seconds", "Time to step one batch through the network", seconds(-5, 1))?,
            stage_seconds: seconds_by(r, "stage_seconds_total", "Time spent, by stage of the pipeline", "stage")?,
            latency_seconds: histogram(
                r,
                "latency_seconds",
                "From a record's timestamp to its commit",
                seconds(-3, 3),
            )?,
            transactions: counters(r, "transactions_total", "Transactions by outcome", "outcome")?,
            transaction_seconds: histogram(r, "transaction_seconds", "Time to commit one transaction", seconds(-4, 2))?,
            streams_live: gauge(r, "streams_live", "Streams that have begun and not ended")?,
            streams_draining: gauge(
                r,
                "streams_draining",
                "Live streams that go on with the previous model (on_model_change = \"drain\")",
            )?,
            streams_resident: gauge(r, "streams_resident", "Streams whose state is in memory")?,
            streams_spilled: gauge(r, "streams_spilled", "Live streams whose state is only on disk")?,
            streams_ended: counters(r, "streams_ended_total", "Streams that ended, by cause", "cause")?,
            states_loaded: counter(r, "states_loaded_total", "States read back from the store")?,
            states_evicted: counter(r, "states_evicted_total", "States dropped from memory (they are on disk)")?,
            state_bytes: gauges(r, "state_bytes", "Size of the streams' states, by place", "place")?,
            queue_depth: gauges(r, "queue_depth", "Entries that wait, by queue", "queue")?,
            queue_bytes: gauge(r, "queue_bytes", "Bytes of records that wait in the embedded queue")?,
            source_paused: gauge(r, "source_paused", "1 while the source is paused by back-pressure")?,
            source_lag: gauge(r, "source_lag_records", "Records taken in and not yet committed")?,
            consumer_lag: gauges(
                r,
                "consumer_lag_records",
                "Records of an assigned Kafka partition that are not yet committed",
                "partition",
            )?,
            partitions_assigned: gauge(
                r,
                "partitions_assigned",
                "Kafka partitions of which this instance is in charge",
            )?,
            rebalances: counter(r, "rebalances_total", "Times that Kafka gave or took partitions")?,
            restore_progress: info(
                r,
                "restore_progress_ratio",
                "Part of an assigned partition's changelog that is read back (1: all)",
                &["partition"],
            )?,
            restored_states: counter(r, "restored_states_total", "States read back from the changelog")?,
            standby_partitions: gauge(r, "standby_partitions", "Partitions of others whose states are followed")?,
            standby_states: counter(r, "standby_states_total", "States taken up of partitions of others")?,
            records_skipped: counter(
                r,
                "records_skipped_total",
                "Records read again whose labels were published before (delivery at_least_once)",
            )?,
            records_missed: counter(
                r,
                "records_missed_total",
                "Records that the broker deleted before they were read",
            )?,
            ingest_requests: counters(r, "ingest_requests_total", "HTTP requests with records, by outcome", "outcome")?,
            followers: gauge(r, "followers", "HTTP clients that follow labels or dead letters")?,
            expired: counters(r, "expired_total", "Rows deleted by retention, by table", "table")?,
            store_bytes: gauges(r, "store_bytes", "Bytes kept in the embedded store, by table", "table")?,
            ready: gauge(r, "ready", "1 while /readyz answers 200")?,
            resident_memory: registered(
                r,
                Gauge::with_opts(Opts::new("process_resident_memory_bytes", "Resident memory of the process")),
            )?,
            start_time: registered(
                r,
                Gauge::with_opts(Opts::new("process_start_time_seconds", "Unix time at which the process was started")),
            )?,
            model_info: info(r, "model_info", "The model in use", &["name", "fingerprint"])?,
            build_info: info(r, "build_info", "This build", &["version"])?,
            registry,
        };
        metrics.start_time.set(unix_ms() as f64 / 1e3);
        Ok(metrics)
    }

    /// Prometheus's text format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        if let Some(bytes) = resident_memory_bytes() {
            self.resident_memory.set(bytes as f64);
        }
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

/// Resident memory as the kernel counts it.
pub fn resident_memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

fn registered<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    collector: Result<C, prometheus::Error>,
) -> Result<C, prometheus::Error> {
    let collector = collector?;
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("strand")
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    registered(registry, IntCounter::with_opts(opts(name, help)))
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> Result<IntCounterVec, prometheus::Error> {
    registered(registry, IntCounterVec::new(opts(name, help), &[label]))
}

fn seconds_by(registry: &Registry, name: &str, help: &str, label: &str) -> Result<CounterVec, prometheus::Error> {
    registered(registry, CounterVec::new(opts(name, help), &[label]))
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    registered(registry, IntGauge::with_opts(opts(name, help)))
}

fn gauges(registry: &Registry, name: &str, help: &str, label: &str) -> Result<IntGaugeVec, prometheus::Error> {
    registered(registry, IntGaugeVec::new(opts(name, help), &[label]))
}

fn info(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, prometheus::Error> {
    registered(registry, GaugeVec::new(opts(name, help), labels))
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: Vec<f64>) -> Result<Histogram, prometheus::Error> {
    let opts = HistogramOpts::new(name, help).namespace("strand").buckets(buckets);
    registered(registry, Histogram::with_opts(opts))
}
