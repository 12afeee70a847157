//! A steady flow of records of many streams into Kafka, and the verdict on what `strand run` made of them: compared
//! with an undisturbed run of the same records on the embedded transport.
#![allow(dead_code, reason = "each test file uses a part")]

use super::daemon_harness::{Daemon, Place};
use super::fault_report::{Row, report as report_fault};
use super::kafka_harness::{Broker, Record, Sender};
use base64::Engine as _;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const INPUT: &str = "strand-input";
pub const LABELS: &str = "strand-labels";
pub const DEAD_LETTERS: &str = "strand-dead-letters";

/// What a stream sends: pieces cut anywhere, also within characters, and events now and then; some are bad.
struct Source {
    name: String,
    text: Vec<u8>,
    at: usize,
    random: ChaCha8Rng,
}

impl Source {
    fn new(number: usize, text: Vec<u8>) -> Source {
        Source { name: format!("stream-{number}"), text, at: 0, random: ChaCha8Rng::seed_from_u64(number as u64) }
    }

    /// `bad`: in how many of a thousand records that have no event there is something that is no text.
    fn send(&mut self, sender: &Sender, bad: u32, timestamp_ms: Option<i64>) {
        let send = |piece: &[u8], event: Option<&str>| {
            let headers: Vec<(&str, Option<&[u8]>)> =
                event.map(|event| ("strand-event", Some(event.as_bytes()))).into_iter().collect();
            sender.record(INPUT, None, Some(self.name.as_bytes()), Some(piece), &headers, timestamp_ms);
        };
        if self.at == self.text.len() {
            self.at = 0;
            return send(b"", Some("end"));
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
        if bad > 0 && event.is_none() && self.random.random_range(0..1000) < bad {
            piece.extend_from_slice(b"\xff\xfe");
        }
        send(&piece, event);
    }
}

/// Texts for this many streams: the lines in turn, several for each.
fn texts(streams: usize, lines: &[String]) -> Vec<Vec<u8>> {
    let several = lines.len().div_ceil(streams).max(3);
    let text = |stream: usize| (0..several).flat_map(|k| lines[(stream * several + k) % lines.len()].bytes()).collect();
    (0..streams).map(text).collect()
}

/// What is sent.
#[derive(Debug, Clone)]
pub struct Shape {
    pub streams: usize,
    /// Records a second.
    pub rate: usize,
    /// What the texts are made of; absent: made up.
    pub lines: Option<Vec<String>>,
    /// How many of a hundred records are of the first stream, beside its share of the others.
    pub hot: u32,
    /// How many of a thousand records are bad, beside those few that are always.
    pub bad: u32,
    /// Producers' clocks jump, by years.
    pub clocks_jump: bool,
    /// Ends by itself after so many records.
    pub count: Option<u64>,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { streams: 60, rate: 600, lines: None, hot: 0, bad: 0, clocks_jump: false, count: None }
    }
}

/// Records of many streams that are being sent.
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Load {
    /// Sends `rate` records a second of this many streams, whose texts are these lines (absent: made-up ones).
    pub fn start(broker: &Broker, streams: usize, rate: usize, lines: Option<Vec<String>>) -> Load {
        Load::of(broker, Shape { streams, rate, lines, ..Shape::default() })
    }

    pub fn of(broker: &Broker, shape: Shape) -> Load {
        let Shape { streams, rate, lines, hot, bad, clocks_jump, count: until } = shape;
        let made_up = || strand::model::testing::TEXT.split_inclusive(". ").map(str::to_string).collect();
        let texts = texts(streams, &lines.unwrap_or_else(made_up));
        let (stop, sender) = (Arc::new(AtomicBool::new(false)), broker.sender());
        let stopped = stop.clone();
        let send = move || {
            let mut sources: Vec<Source> =
                texts.into_iter().enumerate().map(|(k, text)| Source::new(k, text)).collect();
            let (mut random, begun, mut count) = (ChaCha8Rng::seed_from_u64(77), Instant::now(), 0);
            while !stopped.load(Ordering::Relaxed) && until.is_none_or(|until| count < until) {
                let chosen = if random.random_range(0..100) < hot { 0 } else { random.random_range(0..streams) };
                let now_ms = strand::clock::unix_ms() as i64;
                let jump_ms = random.random_range(-20..20) * 365 * 86_400_000;
                sources[chosen].send(&sender, bad, clocks_jump.then_some(now_ms + jump_ms));
                count += 1;
                let due = begun + Duration::from_secs_f64(count as f64 / rate as f64);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            sender.flush();
            count
        };
        Load { stop, thread: std::thread::spawn(send) }
    }

    /// How many records were sent, once the broker has all.
    pub fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.whole()
    }

    /// Waits until a load of so many records is sent.
    pub fn whole(self) -> u64 {
        self.thread.join().unwrap()
    }
}

/// What a run made of its input, against what an undisturbed run makes of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub records: usize,
    pub streams: usize,
    pub labels: usize,
    pub letters: usize,
    /// Input records of which neither labels nor a dead letter was published.
    pub lost: usize,
    /// Labels or dead letters that differ from the undisturbed run's, or are not where they belong.
    pub wrong: usize,
    /// Published again with another content.
    pub contradicted: usize,
    /// Labels that appeared before those of an earlier record of their stream.
    pub disordered: usize,
    /// Labels published again, the same in every respect, and dead letters. At least once allows it.
    pub repeated: usize,
    pub letters_repeated: usize,
}

impl Verdict {
    /// Nothing lost, wrong, contradicted or disordered, and enough to say so of.
    pub fn is_good(&self) -> bool {
        (self.lost, self.wrong, self.contradicted, self.disordered) == (0, 0, 0, 0)
    }

    /// As [`Verdict::is_good`], and nothing is there twice.
    pub fn is_exactly_once(&self) -> bool {
        self.is_good() && (self.repeated, self.letters_repeated) == (0, 0)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Verdict { records, streams, labels, letters, lost, wrong, contradicted, disordered, .. } = self;
        let Verdict { repeated, letters_repeated, .. } = self;
        write!(
            f,
            "{records} records of {streams} streams, {labels} labels, {letters} dead letters: lost {lost}, wrong {wrong}, \
             contradicted {contradicted}, out of order {disordered}, repeated with equal bytes and source {repeated} and {letters_repeated}"
        )
    }
}

/// What the table of faults calls this broker and delivery.
pub fn kafka(broker: &Broker, delivery: &str) -> String {
    let broker = if broker.is_own() { "own broker" } else { "Tansu" };
    format!("kafka ({broker}), {}", delivery.replace('_', " "))
}

/// Adds what a fault did to the table of faults.
pub fn report(fault: &str, transport: &str, runs: usize, verdict: &Verdict, note: &str) {
    println!("{fault} ({transport}, {runs}): {verdict}; {note}");
    let Verdict { records, lost, wrong, contradicted, disordered, repeated, letters_repeated, .. } = verdict;
    report_fault(&Row {
        fault,
        transport,
        runs: runs as u64,
        records: *records as u64,
        lost: *lost as u64,
        repeated: (repeated + letters_repeated) as u64,
        wrong: (wrong + contradicted + disordered) as u64,
        note: note.to_string(),
    });
}

/// Reads the three topics once all is labelled, and has an undisturbed instance in `place` label the input again, in
/// batches of another shape. `sent`: how many records there must be.
pub fn judge(broker: &Broker, place: &Place, sent: u64) -> Verdict {
    judge_with(broker, place, sent, &[])
}

/// The same with these arguments for the undisturbed instance.
pub fn judge_with(broker: &Broker, place: &Place, sent: u64, arguments: &[&str]) -> Verdict {
    let input = by_key(broker.read(INPUT));
    let (mut labels, mut letters) = (by_key(broker.read(LABELS)), by_key(broker.read(DEAD_LETTERS)));
    let mut verdict =
        Verdict { records: input.values().map(Vec::len).sum(), streams: input.len(), letters: 0, ..Verdict::default() };
    assert_eq!(verdict.records as u64, sent, "what was sent is not what is in the topic");
    let calm = place.start(&[&["--set", "pipeline.threads=1"], arguments].concat());
    label(&calm, &input);
    let mut rejected: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for letter in calm.get("/v1/dead-letters").lines() {
        rejected.entry(letter["stream"].as_str().unwrap().to_string()).or_default().push(letter);
    }
    for (stream, input) in &input {
        let sources: BTreeMap<String, &Record> =
            input.iter().map(|record| (format!("{INPUT}/{}/{}", record.partition, record.offset), record)).collect();
        let (labels, repeated) = verdict.first_of_each(&labels.remove(stream).unwrap_or_default());
        let (letters, letters_repeated) = verdict.first_of_each(&letters.remove(stream).unwrap_or_default());
        verdict.repeated += repeated;
        verdict.letters_repeated += letters_repeated;
        verdict.letters += letters.len();
        let published = |source: &String| labels.contains_key(source) || letters.contains_key(source);
        verdict.lost += sources.keys().filter(|source| !published(source)).count();

        let expected = calm.get(&format!("/v1/labels?stream={stream}")).body;
        let expected: Vec<&str> = expected.lines().collect();
        let refused = rejected.remove(stream).unwrap_or_default();
        assert_eq!(expected.len() + refused.len(), input.len(), "{stream}: the undisturbed run is not whole");
        verdict.labels += expected.iter().map(|line| line.matches("\"label\":").count()).sum::<usize>();
        let mut compare = |published: &[&Record], expected: usize, equal: &dyn Fn(usize, &Record, &Record) -> bool| {
            verdict.wrong += published.len().saturating_sub(expected);
            let wrong = published.iter().take(expected).enumerate().filter(|(k, record)| {
                let source = sources.get(&record.header("strand-source"));
                !source.is_some_and(|source| belongs(record, source) && equal(*k, record, source))
            });
            verdict.wrong += wrong.count();
        };
        compare(&in_order(&labels), expected.len(), &|k, record, _| {
            names(record) == ["strand-source", "strand-model"]
                && record.value.as_deref() == Some(expected[k].as_bytes())
        });
        compare(&in_order(&letters), refused.len(), &|k, record, source| is_letter(record, source, &refused[k]));
    }
    verdict.wrong += labels.values().chain(letters.values()).map(Vec::len).sum::<usize>();
    assert!(calm.stop().success());
    verdict
}

impl Verdict {
    /// Each source's record by its first appearance, and how many came again; those must be equal.
    fn first_of_each(&mut self, records: &[Record]) -> (BTreeMap<String, Record>, usize) {
        let mut first: BTreeMap<String, Record> = BTreeMap::new();
        let (mut latest, mut repeated) = (-1, 0);
        for record in records {
            let source = record.header("strand-source");
            match first.get(&source) {
                Some(before) if Record { offset: before.offset, ..record.clone() } == *before => repeated += 1,
                Some(_) => self.contradicted += 1,
                None => {
                    let offset = offset_of(record);
                    self.disordered += usize::from(offset < latest);
                    latest = offset;
                    first.insert(source, record.clone());
                }
            }
        }
        (first, repeated)
    }
}

/// By key, each in the order of its partition.
fn by_key(records: Vec<Record>) -> BTreeMap<String, Vec<Record>> {
    let mut streams: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for record in records {
        streams.entry(record.key_text()).or_default().push(record);
    }
    streams
}

fn offset_of(record: &Record) -> i64 {
    record.header("strand-source").rsplit('/').next().unwrap().parse().unwrap()
}

fn in_order(records: &BTreeMap<String, Record>) -> Vec<&Record> {
    let mut records: Vec<&Record> = records.values().collect();
    records.sort_by_key(|record| offset_of(record));
    records
}

fn names(record: &Record) -> Vec<&str> {
    record.headers.iter().map(|(name, _)| name.as_str()).collect()
}

/// Partition, key and time are the input record's.
fn belongs(record: &Record, source: &Record) -> bool {
    (record.partition, record.timestamp_ms, &record.key) == (source.partition, source.timestamp_ms, &source.key)
}

/// The input record as it came, with the reason that the undisturbed run gives too.
fn is_letter(record: &Record, source: &Record, expected: &Value) -> bool {
    let (own, added) = record.headers.split_at(source.headers.len());
    own == source.headers
        && record.value == source.value
        && added.iter().map(|(name, _)| name).eq(["strand-error", "strand-error-detail", "strand-source"])
        && record.header("strand-error") == expected["error"].as_str().unwrap()
        && record.header("strand-error-detail") == expected["detail"].as_str().unwrap()
}

/// Hands the records to the embedded queue, and waits until they are labelled.
fn label(calm: &Daemon, input: &BTreeMap<String, Vec<Record>>) {
    let line = |record: &Record| {
        let piece = base64::engine::general_purpose::STANDARD.encode(record.value.as_ref().unwrap());
        let event = record.headers.first().map(|_| record.header("strand-event"));
        json!({"stream": record.key_text(), "base64": piece, "event": event}).to_string() + "\n"
    };
    // Each request is synced to disk, so there should be few.
    let all: Vec<&Record> = input.values().flatten().collect();
    for records in all.chunks(1000) {
        let answer = calm.post("/v1/records", records.iter().map(|record| line(record)).collect::<String>());
        assert_eq!(answer.json()["accepted"], records.len(), "{answer:?}");
    }
    let (begun, mut before) = (Instant::now(), u64::MAX);
    loop {
        let left = calm.get("/v1/stats").json()["queue_records"].as_u64().unwrap();
        if left == 0 {
            return;
        }
        assert!(left < before || begun.elapsed() < Duration::from_secs(600), "{left} records are never labelled");
        before = left;
        std::thread::sleep(Duration::from_millis(200));
    }
}
