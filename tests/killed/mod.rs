//! The same records through a daemon that is left alone and through one that is killed now and then.

#![allow(dead_code, reason = "each test file uses a part")]

use crate::daemon_harness::Daemon;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use strand::model::testing::TEXT;

pub const STREAMS: usize = 5;

/// Records of several streams: pieces of the text of at most so many bytes, over and over, cut anywhere, also inside a
/// character; some flushed or reset; then the end of each.
pub fn records(text: &str, longest: usize) -> Vec<String> {
    let mut at = [0; STREAMS];
    let mut records = shuffled(longest, |stream, piece, has_event, record| {
        let mut end = at[stream] + piece;
        while has_event && !text.is_char_boundary(end % text.len()) {
            end += 1;
        }
        let bytes: Vec<u8> = text.bytes().cycle().skip(at[stream]).take(end - at[stream]).collect();
        at[stream] = end;
        record["base64"] = json!(BASE64.encode(bytes));
    });
    for (k, at) in at.iter().enumerate() {
        let rest: Vec<u8> = text.bytes().cycle().skip(*at).take_while(|byte| byte & 0xc0 == 0x80).collect();
        records.push(
            json!({"stream": format!("s{k}"), "base64": BASE64.encode(rest), "event": "end", "id": 1000}).to_string(),
        );
    }
    records
}

/// The same with values made by `piece`, which no record cuts.
pub fn records_of(mut piece: impl FnMut() -> Value) -> Vec<String> {
    let mut records = shuffled(1, |_, _, _, record| record["value"] = piece());
    records.extend((0..STREAMS).map(|k| json!({"stream": format!("s{k}"), "event": "end", "id": 1000}).to_string()));
    records
}

/// 120 records, which `fill` completes: stream, length of the piece, whether there is an event.
fn shuffled(longest: usize, mut fill: impl FnMut(usize, usize, bool, &mut Value)) -> Vec<String> {
    let mut random = 11u64;
    let mut below = |n: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize % n
    };
    (0..120)
        .map(|n| {
            let (stream, piece) = (below(STREAMS), 1 + below(longest));
            let event = ["flush", "reset"].get(below(12));
            let mut record = json!({"stream": format!("s{stream}"), "id": n});
            fill(stream, piece, event.is_some(), &mut record);
            if let Some(event) = event {
                record["event"] = json!(event);
            }
            record.to_string()
        })
        .collect()
}

/// `start` starts a daemon on the data directory of this name. Output records of each stream, which are the same, byte for
/// byte, whether the daemon is killed every thirty records or never.
pub fn in_the_middle(start: impl Fn(&str) -> Daemon) -> Vec<String> {
    in_the_middle_of(&records(TEXT, 40), start)
}

/// The same with these records of the streams `s0` to `s4`, of which each ends.
pub fn in_the_middle_of(records: &[String], start: impl Fn(&str) -> Daemon) -> Vec<String> {
    let all = |daemon: &Daemon| {
        daemon.settle();
        let labels = |k| daemon.get(&format!("/v1/labels?stream=s{k}&limit=1000")).body;
        (0..STREAMS).map(labels).collect::<Vec<String>>()
    };
    let undisturbed = start("undisturbed");
    for record in records {
        assert_eq!(undisturbed.post("/v1/records", record).status, 202);
    }
    let wanted = all(&undisturbed);
    assert!(wanted.iter().all(|labels| labels.contains("\"final\":true")));

    let mut disturbed = start("disturbed");
    for (n, record) in records.iter().enumerate() {
        assert_eq!(disturbed.post("/v1/records", record).status, 202);
        if n % 30 == 29 {
            // What is queued, being computed or not committed yet is taken up by the next.
            disturbed.kill();
            disturbed = start("disturbed");
            // Sent again under its id it is no news.
            disturbed.post("/v1/records", record);
        }
    }
    assert_eq!(all(&disturbed), wanted);
    wanted
}
