//! Brokers that are killed, connections that are slow, cut or gone, input that nobody would wish for: what readers of
//! committed records find is compared with an undisturbed run. On our own broker (`tests/broker`), by transactions, nothing may
//! be lost, wrong, or there twice.
//!
//! For longer runs: `STRAND_KAFKA_ROUNDS`, `STRAND_KAFKA_GONE_S` (how long the broker is out of reach, in seconds),
//! `STRAND_KAFKA_BAD` (records of the flood).

use crate::daemon_harness::{Daemon, Place, eventually};
use crate::kafka_harness::{Broker, Record, command, free_port};
use crate::kafka_load;
use crate::kafka_load::{DEAD_LETTERS, INPUT, LABELS, Load, Shape, Verdict, judge, kafka, report};
use crate::kafka_scene::{GROUP, Scene, exactly_once, goes_on, labelled, load, partitions, setting};
use crate::proxy::{Line, Proxy};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use strand_test_broker::{ApiKey, Fault};
use tempfile::TempDir;

/// kill -9 while two instances label: what the broker had acknowledged is there when it is back, the rest is sent again.
#[test]
fn a_broker_that_is_killed_again_and_again() {
    let (dir, port) = (TempDir::new().unwrap(), free_port());
    let mut broker = Broker::own_process(dir.path(), port);
    let scene = Scene::on(&broker, &[]);
    let daemons = ["one", "two"].map(|name| scene.instance(&broker, name));
    let (load, rounds) = (load(&broker), setting("STRAND_KAFKA_ROUNDS", 3));
    let mut random = ChaCha8Rng::seed_from_u64(strand::clock::unix_ms());
    for round in 0..rounds {
        // Not at the end of a transaction only.
        goes_on(&daemons[round % 2], 50.0);
        std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
        broker.kill();
        std::thread::sleep(Duration::from_millis(random.random_range(0..800)));
        broker = Broker::own_process(dir.path(), port);
    }
    daemons.iter().for_each(|daemon| goes_on(daemon, 20.0));
    let verdict = scene.verdict(&broker, load, daemons.into());
    exactly_once("broker killed with -9, two instances at work", rounds, &verdict, "");
}

/// Two instances behind a proxy.
struct Behind {
    proxy: Proxy,
    broker: Broker,
    scene: Scene,
    daemons: [Daemon; 2],
}

impl Behind {
    fn start() -> Behind {
        let proxy = Proxy::start();
        let broker = Broker::own_behind(proxy.address());
        proxy.lead_to(broker.faulty().behind_proxy().unwrap());
        let scene = Scene::on(&broker, &[]);
        let address = proxy.address().to_string();
        let daemons = ["one", "two"].map(|name| {
            let settings = scene.settings(name);
            let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
            Daemon::start(command(&scene.place, &address, name, &settings))
        });
        eventually("the partitions are shared", || daemons.iter().all(|daemon| partitions(daemon) == 4.0));
        Behind { proxy, broker, scene, daemons }
    }

    fn end(self, load: Load) -> Verdict {
        self.proxy.set(Line::Clear);
        self.scene.verdict(&self.broker, load, self.daemons.into())
    }
}

/// Connections that stay and say nothing, as with a network that is gone; and connections that are refused.
#[test]
fn a_broker_that_is_out_of_reach() {
    let behind = Behind::start();
    let load = load(&behind.broker);
    let gone = Duration::from_secs(setting("STRAND_KAFKA_GONE_S", 3) as u64);
    for line in [Line::Silent, Line::Refusing] {
        behind.daemons.iter().for_each(|daemon| goes_on(daemon, 50.0));
        behind.proxy.set(line);
        std::thread::sleep(gone);
        behind.proxy.set(Line::Clear);
        behind.daemons.iter().for_each(|daemon| goes_on(daemon, 50.0));
    }
    let verdict = behind.end(load);
    exactly_once(&format!("broker out of reach for {} s", gone.as_secs()), 2, &verdict, "once silent, once refusing");
}

#[test]
fn a_slow_line() {
    let behind = Behind::start();
    behind.proxy.set(Line::Slow { latency: Duration::from_millis(20), bytes_per_second: 50_000 });
    let load = Load::of(&behind.broker, Shape { rate: 200, ..Shape::default() });
    let records = 60.0 * setting("STRAND_KAFKA_ROUNDS", 1) as f64;
    behind.daemons.iter().for_each(|daemon| goes_on(daemon, records));
    let verdict = behind.end(load);
    exactly_once("a line of 50 KB/s with 20 ms of latency", 1, &verdict, "");
}

#[test]
fn a_line_that_is_cut_again_and_again() {
    let behind = Behind::start();
    let load = load(&behind.broker);
    let (_, before) = behind.proxy.counts();
    behind.proxy.set(Line::Cutting(Duration::from_millis(400)));
    let cuts = 60 * setting("STRAND_KAFKA_ROUNDS", 1);
    let begun = Instant::now();
    while behind.proxy.counts().1 < before + cuts {
        assert!(begun.elapsed() < Duration::from_secs(600), "nobody connects: {:?}", behind.proxy.counts());
        std::thread::sleep(Duration::from_millis(50));
    }
    // Now and then something gets through.
    behind.daemons.iter().for_each(|daemon| goes_on(daemon, 1.0));
    let cut = behind.proxy.counts().1 - before;
    let verdict = behind.end(load);
    exactly_once("connections cut every 0.2 to 0.6 s, in mid-message", cut, &verdict, "");
}

/// Nine tenths of all records are of one stream; producers' clocks jump by years, too.
#[test]
fn one_key_has_most_of_the_traffic_and_clocks_jump() {
    for (broker, delivery) in [(Broker::own(), "exactly_once"), (Broker::start(), "at_least_once")] {
        let scene = Scene::on(&broker, &[&format!("kafka.delivery={delivery}"), "pipeline.batch_records=64"]);
        let daemons = ["one", "two"].map(|name| scene.instance(&broker, name));
        let records = setting("STRAND_KAFKA_RECORDS", 3000) as u64;
        let shape = Shape { hot: 90, clocks_jump: true, count: Some(records), rate: 4000, ..Shape::default() };
        let sent = Load::of(&broker, shape).whole();
        broker.settle(GROUP, INPUT, Duration::from_secs(300));
        // One after the other: Tansu lets nobody join any more when members leave at once.
        for daemon in daemons {
            assert!(daemon.stop().success());
        }
        let verdict = judge(&broker, &Place::new(), sent);
        report("nine tenths of the records of one key, clocks jump", &kafka(&broker, delivery), 1, &verdict, "");
        assert!(verdict.is_exactly_once() && verdict.records as u64 == records, "{verdict}");
    }
}

/// It is read, told as a dead letter with its size, and what comes after it is labelled.
#[test]
fn a_record_of_50_mib_becomes_a_dead_letter() {
    const LARGE: usize = 50 << 20;
    let broker = Broker::own();
    let most = (64 << 20).to_string();
    broker.topic(INPUT, 8, &[("max.message.bytes", &most)]);
    broker.topic(DEAD_LETTERS, 8, &[("max.message.bytes", &most)]);
    let scene = Scene {
        place: Place::new(),
        settings: vec![
            "kafka.delivery=exactly_once".to_string(),
            format!("kafka.properties.message.max.bytes={most}"),
            "kafka.properties.fetch.message.max.bytes=1048576".to_string(),
        ],
    };
    let daemon = scene.instance(&broker, "one");
    let sender = broker.sender_of(&[("message.max.bytes", &most)]);
    sender.record(INPUT, Some(0), Some(b"before"), Some(b"It comes first. "), &[], None);
    sender.record(INPUT, Some(0), Some(b"large"), Some(&vec![b'x'; LARGE]), &[], None);
    sender.record(INPUT, Some(0), Some(b"large"), Some(b"The same stream goes on. "), &[], None);
    sender.record(INPUT, Some(1), Some(b"other"), Some(b"And so do others. "), &[], None);
    sender.flush();
    broker.settle(GROUP, INPUT, Duration::from_secs(30));
    let (labels, letters) = (broker.read(LABELS), broker.read(DEAD_LETTERS));
    let keys: BTreeSet<String> = labels.iter().map(Record::key_text).collect();
    assert_eq!(keys, ["before", "large", "other"].map(String::from).into());
    assert_eq!((labels.len(), letters.len()), (3, 1));
    let letter = &letters[0];
    assert_eq!(
        (letter.header("strand-error"), letter.header("strand-source")),
        ("too_large".to_string(), format!("{INPUT}/0/1"))
    );
    assert_eq!(letter.value.as_ref().map(Vec::len), Some(LARGE));
    assert_eq!(daemon.metric("strand_dead_letters_total{code=\"too_large\"}"), 1.0);
    assert!(daemon.stop().success());
    let verdict = Verdict { records: 4, letters: 1, ..Verdict::default() };
    report("a record of 50 MiB", &kafka(&broker, "exactly_once"), 1, &verdict, "a dead letter, whole");
}

/// Nearly all records are bad: each is a dead letter once, and the few good ones between them are labelled.
#[test]
fn a_flood_of_bad_records() {
    let broker = Broker::own();
    let scene = Scene::on(&broker, &["pipeline.batch_records=1024"]);
    let daemon = scene.instance(&broker, "one");
    let records = setting("STRAND_KAFKA_BAD", 20_000);
    let shape = Shape { bad: 980, count: Some(records as u64), rate: 1_000_000, ..Shape::default() };
    let sent = Load::of(&broker, shape).whole();
    broker.settle(GROUP, INPUT, Duration::from_secs(600));
    assert_eq!(daemon.get("/readyz").status, 200);
    let counted = daemon.metric("strand_dead_letters_total{code=\"invalid_utf8\"}");
    assert!(daemon.stop().success());
    let calm = ["--set", "embedded.dead_letters_max_bytes=8GiB", "--set", "embedded.labels_max_bytes=8GiB"];
    let verdict = kafka_load::judge_with(&broker, &Place::new(), sent, &calm);
    let note = format!("{} dead letters, {counted} counted", verdict.letters);
    exactly_once("a flood of bad records", 1, &verdict, &note);
    assert!(verdict.letters > records * 3 / 4, "{verdict}");
    assert!(counted as usize <= verdict.letters && counted > 0.0, "{note}");
}

/// While it reads states back it is told to end: it does, in order, and the next start reads them all.
#[test]
fn told_to_end_while_it_reads_states_back() {
    let broker = Broker::own();
    let scene = Scene::on(&broker, &[]);
    let first = scene.instance(&broker, "one");
    let mut sent = Load::of(&broker, Shape { streams: 500, count: Some(2000), rate: 4000, ..Shape::default() }).whole();
    broker.settle(GROUP, INPUT, Duration::from_secs(60));
    assert!(first.stop().success());
    let rounds = setting("STRAND_KAFKA_ROUNDS", 2);
    let settings = scene.settings("one");
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        // An empty directory, or the one of the last start.
        let name = if round % 2 == 0 { format!("new-{round}") } else { "one".to_string() };
        broker.faulty().fault_of("one", ApiKey::Fetch, 10_000, Fault::Late(Duration::from_millis(100)));
        let daemon = Daemon::spawn(command(&scene.place, &broker.address, &name, &settings));
        eventually("it reads states back", || {
            daemon.listens_at().is_some()
                && daemon.get("/readyz").json()["waiting_for"]["restore"].as_str().is_some_and(|r| r.contains(" of "))
        });
        let begun = Instant::now();
        assert!(daemon.stop().success());
        slowest = slowest.max(begun.elapsed());
        broker.faulty().clear_faults();
    }
    let next = scene.instance(&broker, "one");
    sent += Load::of(&broker, Shape { streams: 500, count: Some(2000), rate: 4000, ..Shape::default() }).whole();
    eventually("it labels", || labelled(&next) > 0.0);
    let verdict = scene.verdict_of(&broker, sent, vec![next]);
    let note = format!("ended with code 0 after {:.1} s at most", slowest.as_secs_f64());
    exactly_once("SIGTERM while states are read back", rounds, &verdict, &note);
}
