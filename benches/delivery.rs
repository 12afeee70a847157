//! What exactly-once delivery costs on Kafka: records a second beside at-least-once delivery, by turns on the same input,
//! and the time from record to commit for several `pipeline.commit_interval`.
//!
//! ```sh
//! STRAND_BENCH_BROKER=tansu cargo bench --bench delivery
//! ```
//! `STRAND_BENCH_BROKER` is "own" (the test broker, default) or "tansu" (fetched by `tests/setup.sh`);
//! `STRAND_BENCH_MODEL` another model than `models/ner-en`, `STRAND_BENCH_RECORDS` another number of records.

#[path = "../tests/daemon_harness/mod.rs"]
mod daemon_harness;
#[path = "../tests/kafka_harness/mod.rs"]
#[allow(unused_imports)]
mod kafka_harness;

use daemon_harness::{Daemon, Place, STRAND};
use kafka_harness::{Broker, settings};
use std::process::Command;
use std::time::{Duration, Instant};

const TEXT: &str = "Ada Lovelace met Charles Babbage in London on a rainy Monday . ";
const STREAMS: usize = 500;
const ROUNDS: usize = 5;
/// Records a second, and for how long, when it is the latency that counts.
const RATE: usize = 200;
const SECONDS: usize = 10;

fn setting(name: &str, default: &str) -> String {
    std::env::var(format!("STRAND_BENCH_{name}")).unwrap_or_else(|_| default.to_string())
}

/// A daemon with topics and group of its own, but for the input.
fn start(place: &Place, broker: &Broker, name: &str, input: &str, more: &[&str]) -> Daemon {
    let mut command = Command::new(STRAND);
    command.args([
        "run",
        "--log-format",
        "json",
        "--http",
        "127.0.0.1:0",
        "--model",
        &setting("MODEL", "models/ner-en"),
    ]);
    let topics = [("group", "group"), ("output", "out"), ("changelog", "state"), ("dead_letters", "dead")];
    let mut own: Vec<String> = topics.iter().map(|(key, topic)| format!("kafka.{key}={name}-{topic}")).collect();
    own.extend([format!("kafka.input={input}"), "kafka.input_partitions=8".to_string()]);
    own.extend(more.iter().map(ToString::to_string));
    command.args(settings(place, &broker.address, name, &own.iter().map(String::as_str).collect::<Vec<_>>()));
    Daemon::start(command)
}

fn send(broker: &Broker, input: &str, count: usize, rate: Option<usize>) {
    let (sender, begun) = (broker.sender(), Instant::now());
    for n in 0..count {
        if let Some(rate) = rate {
            std::thread::sleep(Duration::from_secs_f64(n as f64 / rate as f64).saturating_sub(begun.elapsed()));
        }
        sender.piece(input, &format!("stream-{}", n % STREAMS), TEXT.as_bytes(), None);
    }
    sender.flush();
}

fn labelled(daemon: &Daemon, count: usize) {
    while daemon.metric("strand_records_total") < count as f64 {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Records a second, from the first that is labelled to the last.
fn rate(daemon: &Daemon, count: usize) -> f64 {
    labelled(daemon, 1);
    let (begun, before) = (Instant::now(), daemon.metric("strand_records_total"));
    labelled(daemon, count);
    (count as f64 - before) / begun.elapsed().as_secs_f64()
}

fn main() {
    let records: usize = setting("RECORDS", "20000").parse().expect("a number of records");
    let broker = match setting("BROKER", "own").as_str() {
        "own" => Broker::own(),
        "tansu" => Broker::start(),
        other => panic!("STRAND_BENCH_BROKER={other}: own or tansu"),
    };
    let place = Place::new();
    broker.topic("input", 8, &[]);
    send(&broker, "input", records, None);
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let [once, least] = ["exactly_once", "at_least_once"].map(|delivery| {
            let delivery_set = format!("kafka.delivery={delivery}");
            let daemon = start(&place, &broker, &format!("{delivery}-{round}"), "input", &[&delivery_set]);
            let rate = rate(&daemon, records);
            assert!(daemon.stop().success());
            rate
        });
        println!("exactly once {once:.0} records/s, at least once {least:.0}: {:.2}", once / least);
        ratios.push(once / least);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2} ({:.2} to {:.2})", ratios[ROUNDS / 2], ratios[0], ratios[ROUNDS - 1]);

    for (delivery, interval) in [
        ("at_least_once", "off"),
        ("exactly_once", "off"),
        ("exactly_once", "20ms"),
        ("exactly_once", "100ms"),
        ("exactly_once", "500ms"),
    ] {
        let name = format!("{delivery}-{interval}");
        let sets = [format!("kafka.delivery={delivery}"), format!("pipeline.commit_interval={interval}")];
        let daemon = start(&place, &broker, &name, &format!("{name}-in"), &[&sets[0], &sets[1]]);
        send(&broker, &format!("{name}-in"), 50, Some(RATE));
        labelled(&daemon, 50);
        let figures = |daemon: &Daemon| {
            ["latency_seconds_sum", "latency_seconds_count", "transactions_total{outcome=\"committed\"}"]
                .map(|name| daemon.metric(&format!("strand_{name}")))
        };
        let before = figures(&daemon);
        send(&broker, &format!("{name}-in"), RATE * SECONDS, Some(RATE));
        labelled(&daemon, 50 + RATE * SECONDS);
        let after = figures(&daemon);
        let [seconds, count, commits] = [0, 1, 2].map(|k| after[k] - before[k]);
        println!(
            "{delivery}, commit_interval = {interval}: {:.1} ms from record to commit (mean), {:.1} records a transaction",
            1e3 * seconds / count,
            count / commits
        );
        assert!(daemon.stop().success());
    }
}
