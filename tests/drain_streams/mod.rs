//! Streams for tests in which one model takes another's place, and what a model that is never replaced makes of them.
#![allow(dead_code, reason = "each test file uses a part")]

use super::daemon_harness::{Daemon, Place};
use base64::Engine as _;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use strand::model::testing::{TEXT, chars_spec, layers, random_model};
use strand::rnn::Cell;

/// A record of a stream: the stream, a piece, an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    pub stream: String,
    pub piece: Vec<u8>,
    pub event: Option<&'static str>,
}

impl Sent {
    pub fn new(stream: &str, piece: &str, event: Option<&'static str>) -> Sent {
        Sent { stream: stream.to_string(), piece: piece.into(), event }
    }

    fn line(&self) -> String {
        let piece = base64::engine::general_purpose::STANDARD.encode(&self.piece);
        json!({"stream": self.stream, "base64": piece, "event": self.event}).to_string() + "\n"
    }
}

/// Records of a stream that does not end: text cut anywhere, also within characters, with `flush` and `reset` at times.
pub fn records(stream: &str, count: usize) -> Vec<Sent> {
    let seed = stream.bytes().fold(0, |seed, byte| seed * 31 + u64::from(byte));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let text = TEXT.replace("Turin", "Torinò").into_bytes();
    let mut at = random.random_range(0..20);
    // Events come where no character is unfinished: that would be told as a dead letter.
    let mut whole = true;
    let next = |_| {
        let end = at + random.random_range(1..25);
        let piece: Vec<u8> = text.iter().cycle().skip(at).take(end - at).copied().collect();
        at = end;
        let before = std::mem::replace(&mut whole, piece.last().is_some_and(u8::is_ascii));
        let event = match random.random_range(0..8) {
            0 if whole => Some("flush"),
            1 if before => Some("reset"),
            _ => None,
        };
        Sent { stream: stream.to_string(), piece, event }
    };
    (0..count).map(next).collect()
}

/// The first of each stream's records, then the second of each, and so on.
pub fn interleaved(streams: &[Vec<Sent>]) -> Vec<Sent> {
    let longest = streams.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest).flat_map(|k| streams.iter().filter_map(move |stream| stream.get(k).cloned())).collect()
}

/// Puts another model where the place's model was: other steps, other labels, other cells. Where the old one is now.
pub fn replace_model(place: &Place) -> PathBuf {
    let old = place.path().join("old");
    std::fs::rename(place.model(), &old).unwrap();
    random_model(&place.model(), &chars_spec("new", layers(&[Cell::Gru, Cell::Rnn], 6)), TEXT, 3).unwrap();
    old
}

/// The arguments with which the old model's streams go on with it.
pub fn drain(old: &Path) -> [String; 4] {
    ["--on-model-change", "drain", "--previous-model", old.to_str().unwrap()].map(String::from)
}

/// Has the embedded queue take records; returns when they are on disk, not when they are labelled.
pub fn post(daemon: &Daemon, records: &[Sent]) {
    let answer = daemon.post("/v1/records", records.iter().map(Sent::line).collect::<String>());
    assert_eq!(answer.status, 202, "{answer:?}");
}

/// The output records of streams, as a daemon gives them that knows no other model and is not disturbed.
pub fn undisturbed(model: &Path, streams: &[Vec<Sent>]) -> BTreeMap<String, Vec<String>> {
    let place = Place::new();
    std::fs::remove_dir_all(place.model()).unwrap();
    std::os::unix::fs::symlink(model, place.model()).unwrap();
    let daemon = place.start(&["--set", "pipeline.threads=1"]);
    streams.iter().for_each(|records| post(&daemon, records));
    daemon.settle();
    assert_eq!(daemon.get("/v1/dead-letters").body, "");
    let outputs = streams.iter().map(|records| {
        let stream = records[0].stream.clone();
        let outputs = outputs(&daemon, &stream);
        assert_eq!(outputs.len(), records.len());
        (stream, outputs)
    });
    outputs.collect()
}

/// A stream's output records.
pub fn outputs(daemon: &Daemon, stream: &str) -> Vec<String> {
    daemon.get(&format!("/v1/labels?stream={stream}")).body.lines().map(str::to_string).collect()
}
