//! Clients that load the daemon with records known beforehand, and the verdict on what it made of them: compared byte
//! by byte with an undisturbed run of the same records.
//!
//! Clients number their records and send each one again until it is acknowledged, as a real client would.
#![allow(dead_code, reason = "each test file uses a part")]

use super::daemon_harness::{Answer, Daemon, Place};
use super::fault_report::{Row, report};
use base64::Engine as _;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Streams from this number on get nothing but records that cannot be read.
pub const BAD: usize = 1_000_000;
/// Lines that the undisturbed run is sent at once.
const LINES: u64 = 1000;

/// The `n`th record of a stream: always the same. Text cut anywhere, all events, bad input, several lives.
pub fn record(stream: usize, n: u64) -> (Vec<u8>, Option<&'static str>) {
    let mut random = ChaCha8Rng::seed_from_u64(stream as u64 * 1_000_003 + n);
    if stream >= BAD {
        return (vec![b'x', random.random_range(0x80..=0xff), b'y'], None);
    }
    let text = strand::model::testing::TEXT.as_bytes();
    let start = random.random_range(0..text.len());
    let mut piece = text[start..(start + random.random_range(1..40)).min(text.len())].to_vec();
    let event = match random.random_range(0..40) {
        0 => Some("start"),
        1 | 2 => Some("flush"),
        3 => Some("reset"),
        4 => Some("end"),
        5 => {
            piece.extend_from_slice(b"\xff\xfe");
            None
        }
        6 => {
            piece.extend_from_slice("é".as_bytes().split_at(1).0);
            None
        }
        _ => None,
    };
    if event == Some("end") && random.random_bool(0.5) {
        piece.clear();
    }
    (piece, event)
}

pub fn name(stream: usize) -> String {
    format!("stream-{stream}")
}

/// A record as a line of `POST /v1/records`.
fn line(stream: usize, n: u64) -> String {
    let (piece, event) = record(stream, n);
    let piece = base64::engine::general_purpose::STANDARD.encode(piece);
    json!({"stream": name(stream), "base64": piece, "event": event, "id": n}).to_string() + "\n"
}

/// Who sends, and how.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub clients: usize,
    /// Streams of each client; no two clients share one.
    pub streams_each: usize,
    /// Number of the first client's first stream.
    pub first: usize,
    /// Part of each client's records that goes to its first stream.
    pub hot: f64,
    /// Most records in a request.
    pub most: u64,
    /// How long a client waits after each request.
    pub pause: Duration,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape { clients: 4, streams_each: 8, first: 0, hot: 0.0, most: 12, pause: Duration::ZERO }
    }
}

/// A client with its streams, each of which has come so far.
struct Client {
    streams: Vec<(usize, u64)>,
    shape: Shape,
    random: ChaCha8Rng,
    agent: ureq::Agent,
    address: Arc<Mutex<String>>,
    again: u64,
    refused: u64,
}

impl Client {
    fn new(index: usize, shape: Shape, address: Arc<Mutex<String>>) -> Client {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let first = shape.first + index * shape.streams_each;
        Client {
            streams: (first..first + shape.streams_each).map(|stream| (stream, 0)).collect(),
            shape,
            random: ChaCha8Rng::seed_from_u64(first as u64),
            agent: config.timeout_global(Some(Duration::from_secs(5))).build().new_agent(),
            address,
            again: 0,
            refused: 0,
        }
    }

    /// One request, until it is acknowledged; returns its records.
    fn turn(&mut self) -> u64 {
        let sent = match self.random.random_range(0..3) {
            0 => self.one(""),
            1 => self.one("&wait=1"),
            _ => self.many(),
        };
        std::thread::sleep(self.shape.pause);
        sent
    }

    /// Where the next record goes: index of a stream, its number.
    fn next(&mut self) -> (usize, u64) {
        let hot = self.shape.hot > 0.0 && self.random.random_bool(self.shape.hot);
        let at = if hot { 0 } else { self.random.random_range(0..self.streams.len()) };
        let next = self.streams[at];
        self.streams[at].1 += 1;
        next
    }

    fn one(&mut self, query: &str) -> u64 {
        let (stream, n) = self.next();
        let (piece, event) = record(stream, n);
        let event = event.map(|event| format!("&event={event}")).unwrap_or_default();
        self.send(&format!("/v1/streams/{}?id={n}{event}{query}", name(stream)), &piece);
        1
    }

    fn many(&mut self) -> u64 {
        let count = self.random.random_range(2..=self.shape.most);
        let mut lines = String::new();
        for _ in 0..count {
            let (stream, n) = self.next();
            lines += &line(stream, n);
        }
        self.send("/v1/records", lines.as_bytes());
        count
    }

    /// Until it is on disk; what was sent before without an answer may be taken already.
    fn send(&mut self, path: &str, body: &[u8]) {
        loop {
            let url = format!("http://{}{path}", self.address.lock().unwrap());
            match self.agent.post(&url).send(body).map(|answer| answer.status().as_u16()) {
                // 422: it went to the dead letters, as it would again.
                Ok(200 | 202 | 422) => return,
                Ok(429 | 503) => self.refused += 1,
                Ok(status) => panic!("{url}: {status}"),
                Err(_) => self.again += 1,
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}

/// Clients at work.
pub struct Load {
    address: Arc<Mutex<String>>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Client>>,
}

/// What was sent and acknowledged.
#[derive(Debug, Default)]
pub struct Sent {
    /// Streams with the number of their records.
    pub streams: Vec<(usize, u64)>,
    /// Requests sent again since no answer came.
    pub again: u64,
    /// Requests turned away with 429 or 503, and sent again.
    pub refused: u64,
}

impl Load {
    /// Begins to send, to nobody yet.
    pub fn start(shape: Shape) -> Load {
        let mut load = Load {
            // Nobody listens there.
            address: Arc::new(Mutex::new("127.0.0.1:1".to_string())),
            stop: Arc::default(),
            acknowledged: Arc::default(),
            clients: Vec::new(),
        };
        for index in 0..shape.clients {
            let mut client = Client::new(index, shape, load.address.clone());
            let (stop, acknowledged) = (load.stop.clone(), load.acknowledged.clone());
            load.clients.push(std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    acknowledged.fetch_add(client.turn(), Ordering::Relaxed);
                }
                client
            }));
        }
        load
    }

    /// From now on to this daemon, if it listens yet.
    pub fn point_at(&self, daemon: &Daemon) {
        if let Some(listens) = daemon.listens_at() {
            self.address.lock().unwrap().clone_from(listens);
        }
    }

    /// Records acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends once all that was sent is acknowledged: a daemon must be there for it.
    pub fn stop(self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        let mut sent = Sent::default();
        for client in self.clients {
            let client = client.join().unwrap();
            sent.streams.extend(client.streams);
            sent.again += client.again;
            sent.refused += client.refused;
        }
        sent
    }
}

/// What became of the records, against what becomes of them in an undisturbed run.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub records: u64,
    pub labels: u64,
    /// Dead letters of the undisturbed run.
    pub rejected: u64,
    /// Output records and dead letters that are not there.
    pub lost: u64,
    /// There more than once.
    pub repeated: u64,
    /// There, but not so in the undisturbed run, or not in their place.
    pub wrong: u64,
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        (self.lost, self.repeated, self.wrong) == (0, 0, 0) && self.records > 0 && self.labels > 0
    }

    /// Puts it into the table of faults, and demands that it be good.
    pub fn must_be_good(&self, fault: &str, runs: u64, note: String) {
        let Verdict { records, lost, repeated, wrong, .. } = *self;
        report(&Row { fault, transport: "embedded", runs, records, lost, repeated, wrong, note });
        assert!(self.is_good(), "{fault}: {self:?}");
    }

    /// Compares two lists of lines, of which the second is right; its lines differ from each other.
    fn compare(&mut self, found: &[String], expected: &[String]) {
        let places: HashMap<&str, usize> = expected.iter().enumerate().map(|(k, line)| (line.as_str(), k)).collect();
        let (mut seen, mut latest) = (vec![false; expected.len()], 0);
        for line in found {
            match places.get(line.as_str()) {
                Some(place) if seen[*place] => self.repeated += 1,
                Some(place) => {
                    self.wrong += u64::from(*place < latest);
                    (seen[*place], latest) = (true, *place);
                }
                None => self.wrong += 1,
            }
        }
        self.lost += seen.iter().filter(|seen| !**seen).count() as u64;
    }
}

/// What an undisturbed run makes of the records.
pub struct Expected {
    /// Streams, with the number of their records and their output records.
    streams: Vec<(usize, u64, Vec<String>)>,
    rejections: Vec<String>,
}

impl Expected {
    pub fn of(sent: &Sent) -> Expected {
        Expected::at(&Place::new(), sent)
    }

    /// By the model of this place, which has no data yet.
    pub fn at(place: &Place, sent: &Sent) -> Expected {
        // In batches of another shape.
        let calm = place.start(&["--set", "pipeline.threads=1"]);
        for (stream, count) in &sent.streams {
            post_all(&calm, *stream, 0..*count);
        }
        calm.settle();
        let streams = sent.streams.iter().map(|&(stream, count)| (stream, count, labels(&calm, stream))).collect();
        let expected = Expected { streams, rejections: rejections(&calm) };
        assert!(calm.stop().success());
        expected
    }

    /// The verdict on a daemon that has labelled all that it was sent.
    pub fn compare(&self, disturbed: &Daemon) -> Verdict {
        let mut verdict = Verdict::default();
        for (stream, count, expected) in &self.streams {
            verdict.records += count;
            verdict.labels += expected.iter().map(|line| line.matches("\"label\":").count() as u64).sum::<u64>();
            verdict.compare(&labels(disturbed, *stream), expected);
        }
        verdict.rejected = self.rejections.len() as u64;
        verdict.compare(&rejections(disturbed), &self.rejections);
        verdict
    }
}

/// Hands these records of a stream to the queue.
pub fn post_all(daemon: &Daemon, stream: usize, records: Range<u64>) {
    for from in records.clone().step_by(LINES as usize) {
        let until = (from + LINES).min(records.end);
        let lines: String = (from..until).map(|n| line(stream, n)).collect();
        assert_eq!(daemon.post("/v1/records", lines).json()["accepted"], until - from);
    }
}

/// The verdict on a daemon that was sent all this.
pub fn judge(disturbed: &Daemon, sent: &Sent) -> Verdict {
    disturbed.settle();
    Expected::of(sent).compare(disturbed)
}

/// A stream's output records as they come.
pub fn labels(daemon: &Daemon, stream: usize) -> Vec<String> {
    lines(daemon.get(&format!("/v1/labels?stream={}", name(stream))))
}

fn lines(answer: Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body.lines().map(str::to_string).collect()
}

/// Dead letters without what depends on when a record was rejected: sorted, and equal ones numbered.
fn rejections(daemon: &Daemon) -> Vec<String> {
    let mut equal: HashMap<String, u64> = HashMap::new();
    let mut what = |letter: Value| {
        let fields = ["stream", "error", "detail", "headers", "value", "value_base64"];
        let what = json!(fields.map(|field| letter[field].clone())).to_string();
        let count = equal.entry(what.clone()).or_default();
        *count += 1;
        format!("{what} {count}")
    };
    let mut rejections: Vec<String> = daemon.get("/v1/dead-letters").lines().into_iter().map(&mut what).collect();
    rejections.sort();
    rejections
}

/// The most memory that a process has held so far.
pub fn memory_peak_mib(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}
