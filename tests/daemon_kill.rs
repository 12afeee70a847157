//! kill -9 at random instants under load: nothing that was acknowledged is lost, nothing is labelled twice, and every
//! byte of the labels is what an undisturbed run gives.
//!
//! Clients number their records and send each one again until it is acknowledged, as a real client would. The number
//! of kills can be set with `STRAND_KILLS`.

mod daemon_harness;

use daemon_harness::{Daemon, Place};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const CLIENTS: usize = 4;
const STREAMS_EACH: usize = 8;
/// Small batches and few resident streams: every path is taken often.
const SETTINGS: [&str; 8] = [
    "--set",
    "pipeline.batch_records=16",
    "--set",
    "state.max_resident=8",
    "--set",
    "pipeline.threads=2",
    "--set",
    "http.wait_timeout=2s",
];

/// The `n`th record of a stream: always the same. Text cut anywhere, all events, bad input, several lives.
fn record(stream: usize, n: u64) -> (Vec<u8>, Option<&'static str>) {
    let mut random = ChaCha8Rng::seed_from_u64(stream as u64 * 1_000_003 + n);
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

fn name(stream: usize) -> String {
    format!("stream-{stream}")
}

/// A client with its streams, each of which has come so far.
struct Client {
    streams: Vec<(usize, u64)>,
    random: ChaCha8Rng,
    agent: ureq::Agent,
    repeated: u64,
}

impl Client {
    fn new(index: usize) -> Client {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        Client {
            streams: (0..STREAMS_EACH).map(|k| (index * STREAMS_EACH + k, 0)).collect(),
            random: ChaCha8Rng::seed_from_u64(index as u64),
            agent: config.timeout_global(Some(Duration::from_secs(5))).build().new_agent(),
            repeated: 0,
        }
    }

    /// Sends records until told to stop, each until it is acknowledged.
    fn run(&mut self, address: &Mutex<String>, stop: &AtomicBool, acknowledged: &AtomicU64) {
        while !stop.load(Ordering::Relaxed) {
            let sent = match self.random.random_range(0..3) {
                0 => self.one("", address),
                1 => self.one("&wait=1", address),
                _ => self.many(address),
            };
            acknowledged.fetch_add(sent, Ordering::Relaxed);
        }
    }

    fn one(&mut self, query: &str, address: &Mutex<String>) -> u64 {
        let at = self.random.random_range(0..self.streams.len());
        let (stream, n) = self.streams[at];
        let (piece, event) = record(stream, n);
        let event = event.map(|event| format!("&event={event}")).unwrap_or_default();
        self.send(address, &format!("/v1/streams/{}?id={n}{event}{query}", name(stream)), &piece);
        self.streams[at].1 += 1;
        1
    }

    fn many(&mut self, address: &Mutex<String>) -> u64 {
        use base64::Engine as _;
        let mut lines = String::new();
        let count = self.random.random_range(2..12);
        for _ in 0..count {
            let at = self.random.random_range(0..self.streams.len());
            let (stream, n) = self.streams[at];
            let (piece, event) = record(stream, n);
            let piece = base64::engine::general_purpose::STANDARD.encode(piece);
            lines += &json!({"stream": name(stream), "base64": piece, "event": event, "id": n}).to_string();
            lines.push('\n');
            self.streams[at].1 += 1;
        }
        self.send(address, "/v1/records", lines.as_bytes());
        count
    }

    /// Until it is on disk; what was sent before without an answer may be taken already.
    fn send(&mut self, address: &Mutex<String>, path: &str, body: &[u8]) {
        loop {
            let url = format!("http://{}{path}", address.lock().unwrap());
            match self.agent.post(&url).send(body) {
                // 422: it went to the dead letters, as it would again.
                Ok(answer) if [200, 202, 422].contains(&answer.status().as_u16()) => return,
                Ok(answer) => assert!(answer.status().as_u16() == 503, "{url}: {answer:?}"),
                Err(_) => {}
            }
            self.repeated += 1;
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}

/// What does not depend on when a record was rejected.
fn rejections(daemon: &Daemon) -> Vec<String> {
    let letters = daemon.get("/v1/dead-letters").lines();
    let what = |letter: &Value| {
        json!([
            letter["stream"],
            letter["error"],
            letter["detail"],
            letter["headers"],
            letter["value"],
            letter["value_base64"]
        ])
    };
    let mut rejections: Vec<String> = letters.iter().map(|letter| what(letter).to_string()).collect();
    rejections.sort();
    rejections
}

#[test]
fn labels_after_50_kills_are_those_of_an_undisturbed_run() {
    let kills: usize = std::env::var("STRAND_KILLS").ok().map_or(50, |kills| kills.parse().unwrap());
    let begun = Instant::now();
    let place = Place::new();
    let mut random = ChaCha8Rng::seed_from_u64(strand::clock::unix_ms());
    let address = Arc::new(Mutex::new("127.0.0.1:1".to_string()));
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|index| {
            let (address, stop, acknowledged) = (address.clone(), stop.clone(), acknowledged.clone());
            std::thread::spawn(move || {
                let mut client = Client::new(index);
                client.run(&address, &stop, &acknowledged);
                client
            })
        })
        .collect();

    let (mut while_starting, mut at_work) = (0, 0);
    for _ in 0..kills {
        let daemon = Daemon::spawn(place.command(&SETTINGS));
        let until = Instant::now() + Duration::from_micros(random.random_range(0..400_000));
        let before = acknowledged.load(Ordering::Relaxed);
        while Instant::now() < until {
            if let Some(listens) = daemon.listens_at() {
                address.lock().unwrap().clone_from(listens);
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        match daemon.listens_at() {
            None => while_starting += 1,
            Some(_) => at_work += usize::from(acknowledged.load(Ordering::Relaxed) > before),
        }
        daemon.kill();
    }
    let daemon = place.start(&SETTINGS);
    address.lock().unwrap().clone_from(daemon.listens_at().unwrap());
    stop.store(true, Ordering::Relaxed);
    let clients: Vec<Client> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    daemon.settle();
    assert!(at_work > kills / 3, "{at_work} of {kills} kills hit a daemon at work");

    // The same records, never disturbed, and in batches of another shape.
    let calm = Place::new();
    let calm = calm.start(&["--set", "pipeline.threads=1"]);
    let streams: Vec<(usize, u64)> = clients.iter().flat_map(|client| client.streams.clone()).collect();
    for (stream, count) in &streams {
        use base64::Engine as _;
        let line = |n: u64| {
            let (piece, event) = record(*stream, n);
            let piece = base64::engine::general_purpose::STANDARD.encode(piece);
            json!({"stream": name(*stream), "base64": piece, "event": event}).to_string() + "\n"
        };
        let lines: String = (0..*count).map(line).collect();
        assert_eq!(calm.post("/v1/records", lines).json()["accepted"], *count);
    }
    calm.settle();

    let (mut records, mut labels, mut lost, mut twice, mut wrong) = (0, 0, 0, 0, 0);
    for (stream, count) in &streams {
        let path = format!("/v1/labels?stream={}", name(*stream));
        let (disturbed, expected) = (daemon.get(&path).body, calm.get(&path).body);
        let (disturbed, expected): (Vec<&str>, Vec<&str>) = (disturbed.lines().collect(), expected.lines().collect());
        records += count;
        labels += expected.iter().map(|line| line.matches("\"label\":").count()).sum::<usize>();
        lost += expected.len().saturating_sub(disturbed.len());
        twice += disturbed.len().saturating_sub(expected.len());
        wrong += disturbed.iter().zip(&expected).filter(|(a, b)| a != b).count();
    }
    let rejected = rejections(&calm);
    let repeated: u64 = clients.iter().map(|client| client.repeated).sum();
    println!(
        "{kills} kills ({while_starting} while starting, {at_work} at work) in {:.1} s: {records} records of {} streams, \
         {repeated} requests sent again; {labels} labels: lost {lost}, twice {twice}, wrong {wrong}; {} dead letters",
        begun.elapsed().as_secs_f64(),
        streams.len(),
        rejected.len()
    );
    assert_eq!((lost, twice, wrong), (0, 0, 0));
    assert_eq!(rejections(&daemon), rejected);
    assert!(records > kills as u64 * 5 && !rejected.is_empty());
    assert!(daemon.stop().success() && calm.stop().success());
}
