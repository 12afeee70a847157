//! Many live streams: memory, throughput with one in a hundred at work beside all in memory, and time to be ready again, or for
//! another instance to take over.
//!
//! ```sh
//! STRAND_BENCH_TRANSPORT=kafka STRAND_BENCH_STREAMS=1000000 cargo bench --bench streams
//! ```
//! Two daemons take turns: one holds all streams and works on a hundredth of them, the other knows only as many and has
//! them all in memory. `STRAND_BENCH_TRANSPORT` is "embedded" (default) or "kafka" (on the test broker),
//! `STRAND_BENCH_MODEL` another model than `models/ner-en`, `STRAND_BENCH_MEMORY` another `state.memory` than 1 GiB.

#[path = "../tests/daemon_harness/mod.rs"]
mod daemon_harness;
#[path = "../tests/kafka_harness/mod.rs"]
#[allow(unused_imports)]
mod kafka_harness;

use daemon_harness::{Daemon, STRAND};
use kafka_harness::Broker;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const WORDS: [&str; 12] =
    ["Ada", "Lovelace", "met", "Charles", "Babbage", "in", "London", "on", "a", "rainy", "Monday", "."];
/// Records of a pass, for each stream at work.
const RECORDS: usize = 5;
const PASSES: usize = 3;
const REQUEST: usize = 5000;
const PARTITIONS: usize = 8;

fn setting(name: &str, default: &str) -> String {
    std::env::var(format!("STRAND_BENCH_{name}")).unwrap_or_else(|_| default.to_string())
}

/// A daemon, and how records get to it.
struct Bench<'a> {
    broker: Option<&'a Broker>,
    name: &'static str,
    /// Of instances that share topics, whose state is where.
    instance: &'static str,
    standby: bool,
    dir: &'a Path,
    daemon: Option<Daemon>,
}

impl Bench<'_> {
    fn command(&self) -> Command {
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
        let mut sets = vec![format!("state.memory={}", setting("MEMORY", "1GiB"))];
        let dir = self.dir.join(self.instance);
        match self.broker {
            None => {
                command.arg("--data-dir").arg(dir);
                sets.push("embedded.queue_max_records=100000000".to_string());
            }
            Some(broker) => {
                sets.push("transport.kind=kafka".to_string());
                sets.push(format!("kafka.brokers={}", broker.address));
                sets.push(format!("kafka.state_dir={}", dir.display()));
                sets.push(format!("kafka.input_partitions={PARTITIONS}"));
                sets.push(format!("kafka.standby={}", self.standby));
                sets.push("kafka.replication_factor=1".to_string());
                sets.push("kafka.properties.session.timeout.ms=6000".to_string());
                for (key, topic) in [("group", "group"), ("input", "in"), ("output", "out")] {
                    sets.push(format!("kafka.{key}={}-{topic}", self.name));
                }
                sets.push(format!("kafka.changelog={}-state", self.name));
                sets.push(format!("kafka.dead_letters={}-dead", self.name));
            }
        }
        sets.iter().for_each(|set| _ = command.args(["--set", set]));
        command
    }

    /// Starts it; seconds until it is ready.
    fn start(&mut self) -> f64 {
        let begun = Instant::now();
        let mut daemon = Daemon::spawn(self.command());
        let ready = |daemon: &Daemon| {
            daemon.listens_at().is_some() && daemon.try_get("/readyz").is_ok_and(|answer| answer.status == 200)
        };
        while !ready(&daemon) {
            assert!(!daemon.has_ended(), "strand ended\n{}", daemon.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.daemon = Some(daemon);
        begun.elapsed().as_secs_f64()
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("it was started")
    }

    /// Resident memory now and at most, MiB.
    fn memory(&self) -> (usize, usize) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.daemon().id())).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("a line of /proc/PID/status");
            line.split_whitespace().nth(1).expect("a number").parse::<usize>().expect("a number") >> 10
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Has these records labelled; seconds until all are committed.
    fn label(&self, records: impl Iterator<Item = (usize, String)>) -> f64 {
        let before = self.daemon().metric("strand_records_total");
        let begun = Instant::now();
        let mut sent = 0;
        let records: Vec<(usize, String)> = records.collect();
        match self.broker {
            None => {
                for part in records.chunks(REQUEST) {
                    let line = |(stream, text): &(usize, String)| {
                        format!("{{\"stream\":\"s{stream}\",\"text\":\"{text} \"}}\n")
                    };
                    let body: String = part.iter().map(line).collect();
                    assert_eq!(self.daemon().post("/v1/records", body).status, 202);
                    sent += part.len();
                }
            }
            Some(broker) => {
                let sender = broker.sender();
                for (stream, text) in &records {
                    sender.piece(
                        &format!("{}-in", self.name),
                        &format!("s{stream}"),
                        format!("{text} ").as_bytes(),
                        None,
                    );
                    sent += 1;
                }
                sender.flush();
            }
        }
        while self.daemon().metric("strand_records_total") - before < sent as f64 {
            std::thread::sleep(Duration::from_millis(20));
        }
        begun.elapsed().as_secs_f64()
    }

    /// A pass over the streams at work; records a second.
    fn pass(&self, streams: &[usize], random: &mut ChaCha8Rng) -> f64 {
        let count = RECORDS * streams.len();
        let records: Vec<_> =
            (0..count).map(|_| (streams[random.random_range(0..streams.len())], WORDS.join(" "))).collect();
        count as f64 / self.label(records.into_iter())
    }

    fn serves(&self, partitions: usize) -> bool {
        let daemon = self.daemon();
        daemon.metric("strand_partitions_assigned") == partitions as f64 && daemon.get("/readyz").status == 200
    }

    /// Another instance joins, this one is killed: how long until the other serves all. Afterwards this one is alone again.
    fn fail_over(&mut self, instance: &'static str, standby: bool) {
        let mut other = Bench { instance, standby, daemon: None, ..*self };
        other.start();
        until(|| self.serves(PARTITIONS / 2) && other.serves(PARTITIONS / 2));
        // Until it has what there is of the partitions that it follows.
        let mut followed = -1.0;
        while standby && other.daemon().metric("strand_standby_states_total") > followed {
            followed = other.daemon().metric("strand_standby_states_total");
            std::thread::sleep(Duration::from_secs(3));
        }
        let begun = Instant::now();
        self.daemon.take().expect("it was started").kill();
        until(|| other.serves(PARTITIONS));
        let with = if standby { "with" } else { "without" };
        println!("failover {with} standby: all served {:.1} s after kill -9", begun.elapsed().as_secs_f64());
        self.start();
        other.daemon.take().expect("it was started").stop();
        until(|| self.serves(PARTITIONS));
    }

    fn again(&mut self, how: &str, end: impl FnOnce(Daemon)) {
        let begun = Instant::now();
        end(self.daemon.take().expect("it was started"));
        let ended = begun.elapsed().as_secs_f64();
        let ready = self.start();
        let live = self.daemon().metric("strand_streams_live");
        println!(
            "{how}: ended in {ended:.1} s, ready again in {ready:.1} s with {live} live streams, {:?} MiB",
            self.memory()
        );
    }
}

fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn main() {
    let streams: usize = setting("STREAMS", "100000").parse().expect("a number of streams");
    let dir = tempfile::tempdir().unwrap();
    let broker = match setting("TRANSPORT", "embedded").as_str() {
        "embedded" => None,
        "kafka" => Some(Broker::own()),
        other => panic!("STRAND_BENCH_TRANSPORT={other}: embedded or kafka"),
    };
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let [mut many, mut few] = ["many", "few"].map(|name| Bench {
        broker: broker.as_ref(),
        name,
        instance: name,
        standby: false,
        dir: dir.path(),
        daemon: None,
    });
    let piece = |stream: usize| (stream, WORDS[stream % WORDS.len()].to_string());

    many.start();
    let mut seconds = 0.0;
    for part in 0..streams.div_ceil(100_000) {
        seconds += many.label((part * 100_000..streams.min((part + 1) * 100_000)).map(piece));
    }
    let live = many.daemon().metric("strand_streams_live");
    println!("{live} live streams in {seconds:.0} s; resident now and at most {:?} MiB", many.memory());

    let at_work: Vec<usize> = (0..streams / 100).map(|_| random.random_range(0..streams)).collect();
    few.start();
    few.label(at_work.iter().copied().map(piece));
    println!("first pass, their states on disk: {:.0} records/s", many.pass(&at_work, &mut random));
    let mut rates = Vec::new();
    for _ in 0..PASSES {
        let (in_memory, of_many) = (few.pass(&at_work, &mut random), many.pass(&at_work, &mut random));
        println!(
            "{in_memory:.0} records/s with all in memory, {of_many:.0} with 1 % at work: {:.2}",
            of_many / in_memory
        );
        rates.push(of_many / in_memory);
    }
    rates.sort_by(f64::total_cmp);
    println!("median ratio {:.2}; resident now and at most {:?} MiB", rates[PASSES / 2], many.memory());

    // In order, by a crash, and, where there is a changelog, without the local copy, and to another instance.
    few.daemon.take().expect("it was started").stop();
    many.again("stopped", |daemon| assert!(daemon.stop().success()));
    many.again("killed", Daemon::kill);
    if broker.is_some() {
        let copy = dir.path().join("many").join("states.redb");
        many.again("stopped, the local copy deleted", |daemon| {
            assert!(daemon.stop().success());
            std::fs::remove_file(copy).unwrap();
        });
        // The group notices after its session timeout of 6 s.
        many.fail_over("stranger", false);
        many.fail_over("follower", true);
    }
    many.daemon.take().expect("it was started").stop();
}
