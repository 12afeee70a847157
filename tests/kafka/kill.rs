//! Two instances share the partitions of a topic, and one of them is killed with -9, again and again: at any time, as
//! soon as it has taken partitions over and works off what has come up, and while it reads states back. No label may be
//! missing or wrong; one may come twice, then with equal bytes and an equal `strand-source`. A Prometheus watches it all
//! and is asked every query of the dashboard meanwhile.
//!
//! For longer runs: `STRAND_KAFKA_ROUNDS`, `STRAND_KAFKA_STREAMS`, `STRAND_KAFKA_RATE` (records a second),
//! `STRAND_KAFKA_TEXT` (a file, each line a piece of a stream's text), `STRAND_KAFKA_MODEL` (a model's directory) and
//! `STRAND_KAFKA_SHOW=1` (Prometheus's answers are printed).

use crate::daemon_harness::{Daemon, Place};
use crate::kafka_harness::{Broker, free_port, settings};
use crate::kafka_load::{INPUT, Load, Verdict, judge, kafka, report};
use crate::stack_queries::{Answer, Prometheus, check, dashboard_queries, settled};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const GROUP: &str = "strand";
/// Small batches and few resident streams: most of the time something is being written, and states are read often.
const SETTINGS: [&str; 4] =
    ["kafka.input_partitions=8", "pipeline.batch_records=16", "state.max_resident=50", "pipeline.threads=2"];

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// The lines of the file that is asked for.
fn lines() -> Option<Vec<String>> {
    let text = std::fs::read_to_string(std::env::var("STRAND_KAFKA_TEXT").ok()?).unwrap();
    Some(text.lines().filter(|line| !line.is_empty()).map(|line| format!("{line} ")).collect())
}

/// Metrics that only the embedded queue moves.
const EMBEDDED: [&str; 5] =
    ["strand_queue_", "strand_store_bytes", "strand_ingest_requests", "strand_followers", "strand_expired"];

struct Instance {
    name: &'static str,
    delivery: &'static str,
    http: String,
    daemon: Option<Daemon>,
}

impl Instance {
    fn start(&mut self, place: &Place, broker: &Broker) {
        let delivery = format!("kafka.delivery={}", self.delivery);
        let sets = settings(place, &broker.address, self.name, &[&SETTINGS[..], &[delivery.as_str()]].concat());
        let command = place.command_at(&self.http, &sets.iter().map(String::as_str).collect::<Vec<_>>());
        self.daemon = Some(Daemon::spawn(command));
    }

    /// kill -9; what it was at, and how many records it had skipped that it read again.
    fn kill(&mut self) -> (Doing, f64) {
        let doing = self.doing();
        let skipped = if doing == Doing::Starting { 0.0 } else { self.skipped() };
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
        (doing, skipped)
    }

    fn log(&self) -> String {
        self.daemon.as_ref().unwrap().log()
    }

    fn skipped(&self) -> f64 {
        self.daemon.as_ref().unwrap().metric("strand_records_skipped_total")
    }

    /// What it is at, by its own word.
    fn doing(&self) -> Doing {
        let Some(daemon) = self.daemon.as_ref().filter(|daemon| daemon.listens_at().is_some()) else {
            return Doing::Starting;
        };
        let Ok(answer) = daemon.try_get("/readyz") else { return Doing::Starting };
        if answer.status != 200 {
            let restores = answer.json()["waiting_for"].get("restore").is_some();
            return if restores { Doing::ReadingStates } else { Doing::Joining };
        }
        match (daemon.metric("strand_partitions_assigned"), self.lag(daemon)) {
            (0.0, _) => Doing::Joining,
            (_, 0.0) => Doing::Serving,
            _ => Doing::Labelling,
        }
    }

    fn lag(&self, daemon: &Daemon) -> f64 {
        let text = daemon.get("/metrics").body;
        let lags = text.lines().filter(|line| line.starts_with("strand_consumer_lag_records{"));
        lags.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }
}

/// What an instance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Doing {
    Starting,
    Joining,
    ReadingStates,
    /// At work, with records to label.
    Labelling,
    /// At work, with nothing to do just then.
    Serving,
}

/// When one of them is killed.
#[derive(Clone, Copy)]
enum Moment {
    Any,
    /// Soon after it has records to label.
    Labelling,
    /// Soon after it was given partitions, whose states it reads.
    Given,
}

impl Moment {
    /// Waits for it, and says whose it is. What does not come in time is not waited for any longer.
    fn wait(self, instances: &[Instance; 2], random: &mut ChaCha8Rng) -> usize {
        let given = || instances.each_ref().map(|instance| instance.log().matches("partitions assigned").count());
        let (before, until) = (given(), Instant::now() + Duration::from_secs(15));
        let (found, within) = loop {
            let found = match self {
                Moment::Any => {
                    std::thread::sleep(Duration::from_millis(random.random_range(500..9000)));
                    return random.random_range(0..2);
                }
                Moment::Labelling => instances.iter().position(|instance| instance.doing() == Doing::Labelling),
                Moment::Given => given().iter().zip(before).position(|(now, before)| *now > before),
            };
            match found {
                Some(found) => break (found, random.random_range(0..60)),
                None if Instant::now() > until => break (random.random_range(0..2), 0),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        std::thread::sleep(Duration::from_millis(within));
        found
    }
}

/// A place with the model that is asked for.
fn place() -> Place {
    let place = Place::new();
    if let Ok(model) = std::env::var("STRAND_KAFKA_MODEL") {
        std::fs::remove_dir_all(place.model()).unwrap();
        std::os::unix::fs::symlink(std::fs::canonicalize(model).unwrap(), place.model()).unwrap();
    }
    place
}

/// Every query of the dashboard that is about Kafka, or anything else that goes on here, has an answer.
fn ask_the_dashboard(prometheus: &Prometheus) {
    let queries: Vec<(String, String)> = dashboard_queries()
        .into_iter()
        .filter(|(_, query)| !EMBEDDED.iter().any(|name| query.contains(name)))
        .collect();
    let answers = settled(|| check(&prometheus.url, &queries));
    let faults: Vec<String> = answers.iter().filter_map(Answer::fault).collect();
    assert!(faults.is_empty(), "queries of the dashboard:\n{}", faults.join("\n"));
    let silent: Vec<&Answer> = answers.iter().filter(|answer| answer.is_empty()).collect();
    assert!(silent.is_empty(), "queries without an answer: {silent:#?}");
    println!("Prometheus answered all {} queries of the dashboard", answers.len());
    if std::env::var("STRAND_KAFKA_SHOW").is_ok() {
        for Answer { panel, query, series, .. } in &answers {
            let series = series.as_ref().unwrap();
            let value = |series: &serde_json::Value| format!("{} {}", series["metric"], series["value"][1]);
            let first = series.first().map(value).unwrap_or_default();
            println!("| {panel} | `{query}` | {} series | {first} |", series.len());
        }
    }
}

#[test]
fn labels_after_kills_of_one_of_two_instances_are_those_of_an_undisturbed_run() {
    kill_again_and_again(&Broker::start(), "at_least_once", 6);
}

/// On a broker that hides what was aborted, as Kafka does: nothing is there twice.
#[test]
fn with_transactions_each_label_is_there_once() {
    let verdict = kill_again_and_again(&Broker::own(), "exactly_once", 4);
    assert!(verdict.is_exactly_once(), "{verdict}");
}

fn kill_again_and_again(broker: &Broker, delivery: &'static str, rounds: usize) -> Verdict {
    let (rounds, streams) = (setting("STRAND_KAFKA_ROUNDS", rounds), setting("STRAND_KAFKA_STREAMS", 100));
    let rate = setting("STRAND_KAFKA_RATE", 600);
    let (place, begun) = (place(), Instant::now());
    let mut instances = ["one", "two"].map(|name| Instance {
        name,
        delivery,
        http: format!("127.0.0.1:{}", free_port()),
        daemon: None,
    });
    let prometheus = Prometheus::start(&[&instances[0].http, &instances[1].http]);
    broker.topic(INPUT, 8, &[]);
    instances.iter_mut().for_each(|instance| instance.start(&place, broker));
    let load = Load::start(broker, streams, rate, lines());

    let mut random = ChaCha8Rng::seed_from_u64(strand::clock::unix_ms());
    let (mut killed, mut skipped): (BTreeMap<Doing, usize>, f64) = (BTreeMap::new(), 0.0);
    for moment in [Moment::Labelling, Moment::Any, Moment::Given].into_iter().cycle().take(rounds) {
        let instance = &mut instances[moment.wait(&instances, &mut random)];
        let (doing, skipped_by_it) = instance.kill();
        *killed.entry(doing).or_default() += 1;
        skipped += skipped_by_it;
        std::thread::sleep(Duration::from_millis(random.random_range(0..3000)));
        instance.start(&place, broker);
    }
    std::thread::sleep(Duration::from_secs(2));
    ask_the_dashboard(&prometheus);
    let sent = load.stop();
    broker.settle(GROUP, INPUT, Duration::from_secs(300));
    skipped += instances.iter().map(Instance::skipped).sum::<f64>();
    for instance in &mut instances {
        assert!(instance.daemon.take().unwrap().stop().success());
    }
    let seconds = begun.elapsed().as_secs_f64();

    let verdict = judge(broker, &self::place(), sent);
    let note = format!("{seconds:.0} s, {killed:?}, read again and skipped {skipped}");
    report("kill -9 of one of two instances", &kafka(broker, delivery), rounds, &verdict, &note);
    assert!(verdict.is_good(), "{verdict}");
    assert!(verdict.records > rounds * 100 && verdict.letters > 0 && verdict.streams == streams, "{verdict}");
    // Otherwise nothing was disturbed.
    assert!(killed.contains_key(&Doing::Labelling), "{killed:?}");
    verdict
}
