//! Loads that are faults of those who send: a flood of bad records, a record of 50 MiB, a stream that does not end, one
//! stream that gets nearly everything.
//!
//! Sizes: `STRAND_BAD_RECORDS`, `STRAND_STREAM_RECORDS`, `STRAND_HOT_RECORDS`, `STRAND_LARGE_RECORD_MIB`.

use crate::daemon_harness::{Daemon, Place, eventually};
use crate::fault_report::{Row, report, size};
use crate::faults::{Load, Sent, Shape, judge, memory_peak_mib};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::sync::Arc;
use strand::model::{Model, Output, Session, Stepper};

/// Records in a request.
const LINES: u64 = 1000;
/// The store keeps little, so that what grows shows in memory and not in the cache.
const SETTINGS: [&str; 8] = [
    "--set",
    "embedded.cache=16MiB",
    "--set",
    "embedded.labels_max_bytes=64MiB",
    "--set",
    "embedded.dead_letters_max_bytes=64MiB",
    "--set",
    "pipeline.threads=1",
];

/// What one pass over a stream gives, record by record.
struct OnePass {
    model: Arc<Model>,
    stepper: Stepper,
    session: Session,
}

impl OnePass {
    fn new(place: &Place) -> OnePass {
        let model = Arc::new(Model::load(&place.model()).unwrap());
        OnePass { stepper: Stepper::new(model.clone()), session: Session::new(&model), model }
    }

    fn push(&mut self, piece: &[u8]) -> Output {
        let mut output = Output::default();
        self.session.push(&self.model, self.model.encoder().format(), piece).unwrap();
        self.stepper.step(&mut [&mut self.session], std::slice::from_mut(&mut output));
        output
    }

    /// Whether an output record's labels are those.
    fn is(&self, record: &Value, output: &Output) -> bool {
        let labels = record["labels"].as_array().unwrap();
        labels.len() == output.labels.len()
            && labels.iter().zip(&output.labels).all(|(json, label)| {
                json["text"] == label.text
                    && (json["start"].as_u64(), json["end"].as_u64()) == (Some(label.start), Some(label.end))
                    && json["label"] == self.model.spec().labels[label.label]
                    && json["score"].as_f64().unwrap() as f32 == label.score
            })
    }
}

/// Memory may not grow with what has gone through: its peak by the end is no higher than early on, but for some slack.
fn must_be_flat(early_mib: f64, daemon: &Daemon) -> f64 {
    let peak = memory_peak_mib(daemon.id());
    assert!(peak < early_mib * 1.25 + 16.0, "the peak of memory grew from {early_mib:.0} to {peak:.0} MiB");
    peak
}

/// The `n`th piece of the endless stream.
fn piece(n: u64) -> String {
    let words = strand::model::testing::TEXT.split_whitespace().count() as u64;
    let word = |k: u64| strand::model::testing::TEXT.split_whitespace().nth((k % words) as usize).unwrap();
    format!("{} ", word(n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33))
}

#[test]
fn a_stream_of_many_records_is_labelled_as_in_one_pass_and_memory_is_flat() {
    let count = size("STRAND_STREAM_RECORDS", 100_000).next_multiple_of(LINES);
    let place = Place::new();
    let daemon = place.start(&SETTINGS);
    let mut pass = OnePass::new(&place);
    let (mut lost, mut repeated, mut wrong, mut early, mut read) = (0, 0, 0, 0.0, 0);
    let mut read_to = |read: &mut u64, until: u64, pass: &mut OnePass| {
        while *read < until {
            let mut page = Vec::new();
            eventually("there are labels", || {
                page = daemon.get(&format!("/v1/labels?stream=long&from={read}&limit=5000")).lines();
                !page.is_empty()
            });
            for record in page {
                let seq = record["seq"].as_u64().unwrap();
                lost += seq.saturating_sub(*read);
                repeated += u64::from(seq < *read);
                // What went by unread must be passed over all the same.
                (*read..seq).for_each(|n| drop(pass.push(piece(n).as_bytes())));
                let expected = pass.push(piece(seq).as_bytes());
                wrong += u64::from(!pass.is(&record, &expected));
                *read = seq + 1;
            }
        }
    };
    for from in (0..count).step_by(LINES as usize) {
        let lines =
            (from..from + LINES).map(|n| json!({"stream": "long", "text": piece(n), "id": n}).to_string() + "\n");
        assert_eq!(daemon.post("/v1/records", lines.collect::<String>()).json()["accepted"], LINES);
        // Not far behind: old labels are deleted.
        read_to(&mut read, from.saturating_sub(20_000), &mut pass);
        if from < count / 4 {
            early = memory_peak_mib(daemon.id());
        }
    }
    daemon.settle();
    read_to(&mut read, count, &mut pass);
    let peak = memory_peak_mib(daemon.id());
    let note = format!("one stream; memory at most {early:.0} MiB in the first quarter, {peak:.0} MiB in all");
    report(&Row {
        fault: "endless stream",
        transport: "embedded",
        runs: 1,
        records: count,
        lost,
        repeated,
        wrong,
        note,
    });
    assert_eq!((lost, repeated, wrong), (0, 0, 0));
    must_be_flat(early, &daemon);
    assert!(daemon.stop().success());
}

/// A record that cannot be read, as a line, and the code that it is rejected with.
fn bad(n: u64, stream: &str) -> (Value, &'static str) {
    match n % 4 {
        0 => (json!({"stream": stream, "base64": "eyJ0ZXh0IjogIv8ifQ=="}), "invalid_json"),
        1 => (json!({"stream": stream, "text": format!("no JSON {n}")}), "invalid_json"),
        2 => (json!({"stream": stream, "value": [n]}), "wrong_shape"),
        _ => (json!({"stream": stream, "value": {"other": n}}), "wrong_shape"),
    }
}

#[test]
fn a_flood_of_bad_records_disturbs_nobody() {
    let count = size("STRAND_BAD_RECORDS", 50_000).next_multiple_of(LINES);
    let place = Place::new();
    let settings = [&SETTINGS[..], &["--set", "input.format=json"]].concat();
    let daemon = place.start(&settings);
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let (mut lost, mut wrong, mut early, mut read) = (0, 0, 0.0, 0);
    let mut codes: Vec<&str> = Vec::new();
    let mut good: Vec<(OnePass, u64)> = (0..4).map(|_| (OnePass::new(&place), 0)).collect();
    let mut outputs: Vec<Vec<Output>> = vec![Vec::new(); 4];
    let mut read_to = |until: usize, codes: &[&str], lost: &mut u64, wrong: &mut u64| {
        while read < until {
            let mut letters = Vec::new();
            eventually("there are dead letters", || {
                letters = daemon.get(&format!("/v1/dead-letters?from={read}&limit=5000")).lines();
                !letters.is_empty()
            });
            for letter in letters {
                let number = letter["number"].as_u64().unwrap() as usize;
                *lost += (number - read) as u64;
                *wrong += u64::from(letter["error"] != codes[number]);
                read = number + 1;
            }
        }
    };
    for from in (0..count).step_by(LINES as usize) {
        let mut lines = String::new();
        for n in from..from + LINES {
            // Each into a stream of its own kind, or among the good records of another.
            let stream = format!("{}-{}", ["bad", "good"][random.random_range(0..2)], n % 4);
            let (line, code) = bad(random.random_range(0..4), &stream);
            lines += &(line.to_string() + "\n");
            codes.push(code);
            if n % 10 == 0 {
                let (pass, sent) = &mut good[(n / 10 % 4) as usize];
                outputs[(n / 10 % 4) as usize].push(pass.push(piece(*sent).as_bytes()));
                let line = json!({"stream": format!("good-{}", n / 10 % 4), "value": {"text": piece(*sent)}});
                lines += &(line.to_string() + "\n");
                *sent += 1;
            }
        }
        let answer = daemon.post("/v1/records", lines);
        assert_eq!(answer.json()["accepted"], LINES + LINES / 10, "{answer:?}");
        read_to(codes.len().saturating_sub(20_000), &codes, &mut lost, &mut wrong);
        if from < count / 4 {
            early = memory_peak_mib(daemon.id());
        }
    }
    daemon.settle();
    read_to(codes.len(), &codes, &mut lost, &mut wrong);
    let mut records = count;
    for (k, (pass, sent)) in good.iter().enumerate() {
        records += sent;
        let labels = daemon.labels(&format!("good-{k}"));
        lost += sent - labels.len() as u64;
        wrong += labels.iter().zip(&outputs[k]).filter(|(record, output)| !pass.is(record, output)).count() as u64;
    }
    let (peak, log) = (memory_peak_mib(daemon.id()), daemon.log().len() >> 10);
    let note =
        format!("{count} bad; memory at most {early:.0} MiB in the first quarter, {peak:.0} MiB in all; log {log} KiB");
    report(&Row {
        fault: "flood of bad records",
        transport: "embedded",
        runs: 1,
        records,
        lost,
        repeated: 0,
        wrong,
        note,
    });
    assert_eq!((lost, wrong), (0, 0));
    // Two lines a second at most tell of rejections; they are counted, not all written down.
    assert!(log < 1024, "the log has {log} KiB");
    must_be_flat(early, &daemon);
    assert!(daemon.stop().success());
}

#[test]
fn one_hot_stream_is_labelled_in_order_and_the_others_too() {
    let count = size("STRAND_HOT_RECORDS", 50_000);
    let place = Place::new();
    let daemon = place.start(&["--set", "pipeline.threads=2", "--set", "embedded.cache=16MiB"]);
    // One client: its first stream gets nine of ten records.
    let load = Load::start(Shape { clients: 1, streams_each: 32, hot: 0.9, most: 500, ..Shape::default() });
    load.point_at(&daemon);
    while load.acknowledged() < count {
        let before = load.acknowledged();
        eventually("records are taken", || load.acknowledged() > before);
    }
    let sent: Sent = load.stop();
    let verdict = judge(&daemon, &sent);
    let hot = sent.streams[0].1 as f64 / verdict.records as f64;
    verdict.must_be_good(
        "hot stream",
        1,
        format!("{:.0}% of the records in one of {}", 100.0 * hot, sent.streams.len()),
    );
    assert!(hot > 0.85, "{hot}");
    assert!(daemon.stop().success());
}

#[test]
fn a_record_of_50_mib_is_refused_or_where_allowed_labelled() {
    const MIB: usize = 1 << 20;
    let text = strand::model::testing::TEXT;
    let large = text.repeat(50 * MIB / text.len() + 1);
    // Within the limits that are the default: refused, nothing is taken, and others go on.
    let place = Place::new();
    let daemon = place.start(&[]);
    let load = Load::start(Shape { clients: 2, ..Shape::default() });
    load.point_at(&daemon);
    let before = memory_peak_mib(daemon.id());
    let runs = 5;
    for _ in 0..runs {
        // The daemon need not read it all before it says no, so that the client may find the connection closed.
        if let Ok(answer) = daemon.try_post("/v1/streams/large", &large) {
            assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
        }
        let line = json!({"stream": "large", "text": large}).to_string();
        if let Ok(answer) = daemon.try_post("/v1/records", line) {
            assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"));
        }
    }
    assert!(daemon.metric("strand_ingest_requests_total{outcome=\"refused\"}") >= 2.0 * runs as f64);
    assert_eq!(daemon.get("/v1/streams/large").status, 404);
    let peak = memory_peak_mib(daemon.id());
    assert!(peak < before + 64.0, "memory rose from {before:.0} to {peak:.0} MiB");
    let verdict = judge(&daemon, &load.stop());
    verdict.must_be_good("record of 50 MiB, refused", runs * 2, format!("413; memory {before:.0} to {peak:.0} MiB"));
    assert!(daemon.stop().success());

    // Where it is allowed it is labelled, like any other.
    let place = Place::new();
    let daemon = place.start(&["--set", "input.max_record_bytes=64MiB", "--set", "http.max_request_bytes=64MiB"]);
    let mib = size("STRAND_LARGE_RECORD_MIB", 4);
    let allowed = &large.as_bytes()[..mib as usize * MIB];
    assert_eq!(daemon.post("/v1/streams/large", allowed).status, 202);
    assert_eq!(daemon.post("/v1/streams/small?event=flush", "Ada").status, 202);
    daemon.settle();
    let mut pass = OnePass::new(&place);
    let expected = pass.push(allowed);
    let labels = daemon.labels("large");
    let mut wrong = u64::from(!pass.is(&labels[0], &expected));
    wrong += u64::from(daemon.labels("small").len() != 1);
    let count = labels[0]["labels"].as_array().unwrap().len();
    let note = format!("{count} labels; memory at most {:.0} MiB", memory_peak_mib(daemon.id()));
    let fault = format!("record of {mib} MiB, allowed");
    report(&Row { fault: &fault, transport: "embedded", runs: 1, records: 2, lost: 0, repeated: 0, wrong, note });
    assert!(wrong == 0 && count as u64 > mib * 100_000, "{wrong} wrong, {count} labels");
    assert!(daemon.stop().success());
}
