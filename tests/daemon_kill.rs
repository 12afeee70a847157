//! kill -9 under load, fifty times at random instants: what comes out is byte for byte what an undisturbed daemon gives,
//! nothing is lost, nothing is there twice.
//!
//! The clients number their records (`?id=`) and send again what was not acknowledged: that is how an answer lost in
//! the crash does not become a record taken twice.

mod daemon_harness;

use daemon_harness::{Daemon, Place};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use strand::model::testing::TEXT;

const KILLS: usize = 50;
const STREAMS: usize = 24;
const CLIENTS: usize = 6;

/// The records of one stream: pieces of text cut anywhere, now and then an event or bytes that are bad input.
fn records(stream: usize) -> Vec<Value> {
    let mut rng = ChaCha8Rng::seed_from_u64(stream as u64);
    let text: Vec<char> = TEXT.chars().cycle().skip(stream * 31).take(6000).collect();
    let (mut records, mut at) = (Vec::new(), 0);
    while at < text.len() {
        let piece = rng.random_range(1..40).min(text.len() - at);
        let text: String = text[at..at + piece].iter().collect();
        at += piece;
        let mut record = json!({"stream": format!("s{stream}"), "text": text, "id": records.len()});
        match rng.random_range(0..40) {
            0 => record["event"] = json!("flush"),
            1 => record["event"] = json!("reset"),
            2 => record["event"] = json!("end"),
            3 => record = json!({"stream": format!("s{stream}"), "base64": "/w==", "id": records.len()}),
            _ => {}
        }
        records.push(record);
    }
    records
}

/// Sends batches of records until all of the client's streams are through or the daemon is gone. `sent[stream]` counts
/// the records known to be on disk.
fn client(daemon: &Daemon, streams: &[(usize, Vec<Value>)], sent: &[AtomicU64], stop: &AtomicBool, seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    loop {
        let mut body = String::new();
        let mut taken = Vec::new();
        for (stream, records) in streams {
            let from = sent[*stream].load(Ordering::SeqCst) as usize;
            let to = (from + rng.random_range(1..4)).min(records.len());
            records[from..to].iter().for_each(|record| body += &(record.to_string() + "\n"));
            taken.push((*stream, to));
        }
        if body.is_empty() || stop.load(Ordering::SeqCst) {
            return;
        }
        match daemon.try_post("/v1/records", &body) {
            Ok(answer) if answer.status == 202 => {
                taken.iter().for_each(|(stream, to)| sent[*stream].store(*to as u64, Ordering::SeqCst));
            }
            Ok(answer) => assert!([429, 503].contains(&answer.status), "{answer:?}"),
            Err(_) => return,
        }
    }
}

fn all_sent(sent: &[AtomicU64], streams: &[Vec<Value>]) -> bool {
    sent.iter().zip(streams).all(|(sent, records)| sent.load(Ordering::SeqCst) as usize == records.len())
}

/// Runs the clients against the daemon until `until` says so.
fn load(daemon: &Daemon, streams: &[Vec<Value>], sent: &[AtomicU64], seed: u64, until: impl FnOnce(&AtomicBool)) {
    let stop = AtomicBool::new(false);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for c in 0..CLIENTS {
            let share: Vec<(usize, Vec<Value>)> =
                (c..STREAMS).step_by(CLIENTS).map(|s| (s, streams[s].clone())).collect();
            let (stop, failed) = (&stop, &failed);
            scope.spawn(move || {
                let run = std::panic::AssertUnwindSafe(|| client(daemon, &share, sent, stop, seed + c as u64));
                if let Err(panic) = std::panic::catch_unwind(run) {
                    failed.lock().unwrap().push(panic.downcast_ref::<String>().cloned());
                }
            });
        }
        until(&stop);
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{failed:?}");
}

/// Labels of every stream as the bytes the daemon gives, and the dead letters without where and when.
fn outcome(daemon: &Daemon) -> (Vec<String>, Vec<String>) {
    daemon.settle();
    let labels = (0..STREAMS).map(|s| daemon.get(&format!("/v1/labels?stream=s{s}&limit=100000")).body).collect();
    let letters = daemon.get("/v1/dead-letters?limit=100000").lines();
    let mut letters: Vec<String> =
        letters.iter().map(|l| format!("{} {} {}", l["stream"], l["error"], l["value_base64"])).collect();
    letters.sort();
    (labels, letters)
}

#[test]
fn fifty_kills_under_load_change_no_byte_of_the_labels() {
    let streams: Vec<Vec<Value>> = (0..STREAMS).map(records).collect();
    let total: usize = streams.iter().map(Vec::len).sum();
    let fresh = || (0..STREAMS).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();

    let place = Place::new();
    let daemon = place.start(&[]);
    let sent = fresh();
    load(&daemon, &streams, &sent, 1, |_| {});
    assert!(all_sent(&sent, &streams));
    let (labels, letters) = outcome(&daemon);
    assert!(daemon.stop().success());

    let place = Place::new();
    let mut rng = ChaCha8Rng::seed_from_u64(42);
    let mut sent = fresh();
    let (mut kills, mut in_work, mut rounds) = (0, 0, 0);
    while kills < KILLS {
        let daemon = place.start(&["--set", "pipeline.threads=2"]);
        // The same records again from the start when all are through: the ids make them no news.
        if all_sent(&sent, &streams) {
            sent = fresh();
            rounds += 1;
        }
        let pause = Duration::from_micros(rng.random_range(500..60_000));
        load(&daemon, &streams, &sent, 1000 * kills as u64, |stop| {
            std::thread::sleep(pause);
            in_work += usize::from(!all_sent(&sent, &streams));
            daemon.signal("KILL");
            stop.store(true, Ordering::SeqCst);
        });
        kills += 1;
    }
    let daemon = place.start(&[]);
    load(&daemon, &streams, &sent, 9, |_| {});
    let (after, letters_after) = outcome(&daemon);
    let missing: usize =
        labels.iter().zip(&after).map(|(a, b)| a.lines().count().saturating_sub(b.lines().count())).sum();
    println!(
        "{kills} kills, {in_work} of them under load, {total} records in {STREAMS} streams, {rounds} repeats; \
         output records lost: {missing}"
    );
    for (stream, (want, got)) in labels.iter().zip(&after).enumerate() {
        assert!(want == got, "stream s{stream} differs:\n{}", first_difference(want, got));
    }
    assert_eq!(letters, letters_after, "dead letters");
    assert!(in_work >= KILLS / 2, "only {in_work} kills fell into the load: it is too short");
}

fn first_difference(want: &str, got: &str) -> String {
    let lines = want.lines().zip(got.lines()).enumerate().find(|(_, (a, b))| a != b);
    lines.map_or_else(
        || format!("{} lines, {} wanted", got.lines().count(), want.lines().count()),
        |(k, (a, b))| format!("line {k}\nwanted {a}\n   got {b}"),
    )
}
