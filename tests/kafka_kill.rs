//! Two instances share the partitions of a topic, and one of them is killed with -9 at random instants, again and
//! again: while it works, while it joins, while it reads states back. No label may be missing or wrong; one may come
//! twice, then with equal bytes and an equal `strand-source`. A Prometheus watches it all and is asked every query of the
//! dashboard meanwhile.
//!
//! For longer runs: `STRAND_KAFKA_ROUNDS`, `STRAND_KAFKA_STREAMS`, `STRAND_KAFKA_RATE` (records a second),
//! `STRAND_KAFKA_TEXT` (a file, each line a stream's text), `STRAND_KAFKA_MODEL` (a model's directory) and
//! `STRAND_KAFKA_SHOW=1` (Prometheus's answers are printed).

mod daemon_harness;
mod kafka_harness;
mod stack_queries;

use daemon_harness::{Daemon, Place};
use kafka_harness::{Broker, Record, free_port, settings};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use stack_queries::{Answer, Prometheus, check, dashboard_queries, settled};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PARTITIONS: &str = "kafka.input_partitions=8";
const GROUP: &str = "strand";

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// What a stream sends: pieces cut anywhere, also within characters, and events now and then; some are bad.
struct Stream {
    text: Vec<u8>,
    at: usize,
    random: ChaCha8Rng,
}

type Piece = (Vec<u8>, Option<&'static str>);

impl Stream {
    fn new(number: usize, text: Vec<u8>) -> Stream {
        Stream { text, at: 0, random: ChaCha8Rng::seed_from_u64(number as u64) }
    }

    fn next(&mut self) -> Piece {
        if self.at == self.text.len() {
            self.at = 0;
            return (Vec::new(), Some("end"));
        }
        let end = (self.at + self.random.random_range(1..60)).min(self.text.len());
        let mut piece = self.text[self.at..end].to_vec();
        self.at = end;
        let event = match self.random.random_range(0..60) {
            0 => Some("flush"),
            1 => Some("reset"),
            2 => Some("start"),
            3 => {
                piece.extend_from_slice(b"\xff\xfe");
                None
            }
            _ => None,
        };
        (piece, event)
    }
}

fn name(stream: usize) -> String {
    format!("stream-{stream}")
}

/// Texts for this many streams: the file's lines in turn, or generated ones.
fn texts(streams: usize) -> Vec<Vec<u8>> {
    let lines: Vec<String> = match std::env::var("STRAND_KAFKA_TEXT") {
        Ok(path) => std::fs::read_to_string(path).unwrap().lines().map(|line| format!("{line} ")).collect(),
        Err(_) => strand::model::testing::TEXT.split_inclusive(". ").map(str::to_string).collect(),
    };
    let several = lines.len().div_ceil(streams).max(3);
    let text = |stream: usize| (0..several).flat_map(|k| lines[(stream * several + k) % lines.len()].bytes()).collect();
    (0..streams).map(text).collect()
}

/// Metrics that only the embedded queue moves.
const EMBEDDED: [&str; 5] =
    ["strand_queue_", "strand_store_bytes", "strand_ingest_requests", "strand_followers", "strand_expired"];

struct Instance {
    name: &'static str,
    http: String,
    daemon: Option<Daemon>,
}

impl Instance {
    fn start(&mut self, place: &Place, broker: &Broker) {
        let sets = [PARTITIONS, "pipeline.batch_records=256", "state.max_resident=50", "pipeline.threads=2"];
        let sets = settings(place, &broker.address, self.name, &sets);
        let command = place.command_at(&self.http, &sets.iter().map(String::as_str).collect::<Vec<_>>());
        self.daemon = Some(Daemon::spawn(command));
    }

    fn kill(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// What it is at, by its own word.
    fn state(&self) -> String {
        let Some(daemon) = self.daemon.as_ref().filter(|daemon| daemon.listens_at().is_some()) else {
            return "starting".to_string();
        };
        match daemon.try_get("/readyz") {
            Ok(answer) if answer.status == 200 && daemon.metric("strand_partitions_assigned") > 0.0 => {
                "at work".to_string()
            }
            Ok(answer) if answer.json()["waiting_for"].get("restore").is_some() => "reading states back".to_string(),
            _ => "joining".to_string(),
        }
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
    let (rounds, streams) = (setting("STRAND_KAFKA_ROUNDS", 4), setting("STRAND_KAFKA_STREAMS", 100));
    let rate = setting("STRAND_KAFKA_RATE", 400);
    let (broker, place, begun) = (Broker::start(), place(), Instant::now());
    let mut instances =
        ["one", "two"].map(|name| Instance { name, http: format!("127.0.0.1:{}", free_port()), daemon: None });
    let prometheus = Prometheus::start(&[&instances[0].http, &instances[1].http]);
    instances.iter_mut().for_each(|instance| instance.start(&place, &broker));
    broker.topic("strand-input", 8, &[]);

    // A steady flow, whose records are written down.
    let stop = Arc::new(AtomicBool::new(false));
    let sent: Arc<Mutex<Vec<Vec<Piece>>>> = Arc::new(Mutex::new(vec![Vec::new(); streams]));
    let sending = {
        let (stop, sent, sender) = (stop.clone(), sent.clone(), broker.sender());
        std::thread::spawn(move || {
            let mut sources: Vec<Stream> =
                texts(streams).into_iter().enumerate().map(|(k, t)| Stream::new(k, t)).collect();
            let mut random = ChaCha8Rng::seed_from_u64(77);
            let begun = Instant::now();
            for count in 1.. {
                let stream = random.random_range(0..streams);
                let (piece, event) = sources[stream].next();
                sender.piece("strand-input", &name(stream), &piece, event);
                sent.lock().unwrap()[stream].push((piece, event));
                let due = begun + Duration::from_secs_f64(f64::from(count) / rate as f64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if stop.load(Ordering::Relaxed) {
                    return sender.flush();
                }
            }
        })
    };

    let mut random = ChaCha8Rng::seed_from_u64(strand::clock::unix_ms());
    let mut killed: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(random.random_range(500..9000)));
        let instance = &mut instances[random.random_range(0..2)];
        *killed.entry(instance.state()).or_default() += 1;
        instance.kill();
        std::thread::sleep(Duration::from_millis(random.random_range(0..3000)));
        instance.start(&place, &broker);
    }
    std::thread::sleep(Duration::from_secs(2));
    ask_the_dashboard(&prometheus);
    stop.store(true, Ordering::Relaxed);
    sending.join().unwrap();
    broker.settle(GROUP, "strand-input", Duration::from_secs(300));
    let skipped: f64 =
        instances.iter().map(|i| i.daemon.as_ref().unwrap().metric("strand_records_skipped_total")).sum();
    for instance in &mut instances {
        assert!(instance.daemon.take().unwrap().stop().success());
    }

    // The same records, never disturbed, on another transport and in batches of another shape.
    let sent = std::mem::take(&mut *sent.lock().unwrap());
    let calm = self::place();
    let calm = calm.start(&["--set", "pipeline.threads=1"]);
    for (stream, pieces) in sent.iter().enumerate() {
        use base64::Engine as _;
        let line = |(piece, event): &Piece| {
            let piece = base64::engine::general_purpose::STANDARD.encode(piece);
            json!({"stream": name(stream), "base64": piece, "event": event}).to_string() + "\n"
        };
        for lines in pieces.chunks(1000) {
            let answer = calm.post("/v1/records", lines.iter().map(line).collect::<String>());
            assert_eq!(answer.json()["accepted"], lines.len());
        }
    }
    calm.settle();

    let mut published: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for record in broker.read("strand-labels") {
        published.entry(record.key_text()).or_default().push(record);
    }
    let (mut labels, mut lost, mut wrong, mut repeated, mut disorder) = (0, 0, 0, 0, 0);
    for stream in 0..streams {
        let expected = calm.get(&format!("/v1/labels?stream={}", name(stream))).body;
        let expected: Vec<&str> = expected.lines().collect();
        let records = published.remove(&name(stream)).unwrap_or_default();
        // Each source's record by its first appearance; whatever comes again must be equal.
        let mut first: BTreeMap<i64, &Record> = BTreeMap::new();
        let mut latest = -1;
        for record in &records {
            let source = record.header("strand-source");
            let offset: i64 = source.rsplit('/').next().unwrap().parse().unwrap();
            match first.get(&offset) {
                Some(before) => {
                    repeated += 1;
                    wrong += usize::from(before.value != record.value || before.headers != record.headers);
                }
                None => {
                    disorder += usize::from(offset < latest);
                    latest = offset;
                    first.insert(offset, record);
                }
            }
        }
        lost += expected.len().saturating_sub(first.len());
        wrong += first.len().saturating_sub(expected.len());
        let unequal = |(record, line): &(&&Record, &&str)| record.value.as_deref() != Some(line.as_bytes());
        wrong += first.values().zip(&expected).filter(unequal).count();
        labels += expected.iter().map(|line| line.matches("\"label\":").count()).sum::<usize>();
    }
    assert!(published.is_empty(), "labels of streams that nobody sent: {:?}", published.keys());

    let letters = broker.read("strand-dead-letters");
    let sources: BTreeSet<String> = letters.iter().map(|letter| letter.header("strand-source")).collect();
    let rejected = calm.get("/v1/dead-letters").lines().len();
    let records: usize = sent.iter().map(Vec::len).sum();
    println!(
        "{rounds} rounds in {:.0} s, killed {killed:?}: {records} records of {streams} streams, {labels} labels: lost {lost}, \
         wrong {wrong}, out of order {disorder}, repeated with equal bytes and source {repeated}, read again and skipped \
         {skipped}; {rejected} dead letters, repeated {}",
        begun.elapsed().as_secs_f64(),
        letters.len() - sources.len()
    );
    assert_eq!((lost, wrong, disorder), (0, 0, 0));
    assert_eq!(sources.len(), rejected);
    assert!(records > 100 && rejected > 0);
    assert!(calm.stop().success());
}
