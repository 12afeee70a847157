//! The same records through a daemon that is left alone and through one that is killed now and then.

#![allow(dead_code, reason = "each test file uses one of two")]

use crate::daemon_harness::Daemon;
use serde_json::json;
use strand::model::testing::TEXT;

const STREAMS: usize = 5;

/// Records of several streams: pieces cut anywhere, some flushed or reset, then the end of each.
fn records(text: &str, most: usize) -> Vec<String> {
    let mut random = 11u64;
    let mut below = |n: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize % n
    };
    let (mut records, mut at) = (Vec::new(), [0; STREAMS]);
    for n in 0..120 {
        let stream = below(at.len());
        let piece = 1 + below(most);
        let text: String = text.chars().cycle().skip(at[stream]).take(piece).collect();
        at[stream] += piece;
        let mut record = json!({"stream": format!("s{stream}"), "text": text, "id": n});
        match below(12) {
            0 => record["event"] = json!("flush"),
            1 => record["event"] = json!("reset"),
            _ => {}
        }
        records.push(record.to_string());
    }
    records.extend((0..STREAMS).map(|k| json!({"stream": format!("s{k}"), "event": "end", "id": 1000}).to_string()));
    records
}

/// `start` starts a daemon on the data directory of this name. Output records of each stream, which are the same, byte for
/// byte, whether the daemon is killed every thirty records or never.
pub fn in_the_middle(start: impl Fn(&str) -> Daemon) -> Vec<String> {
    in_the_middle_of(TEXT, 40, start)
}

/// The same with streams of this text, in pieces of up to so many characters.
pub fn in_the_middle_of(text: &str, most: usize, start: impl Fn(&str) -> Daemon) -> Vec<String> {
    let records = records(text, most);
    let all = |daemon: &Daemon| {
        daemon.settle();
        let labels = |k| daemon.get(&format!("/v1/labels?stream=s{k}&limit=1000")).body;
        (0..STREAMS).map(labels).collect::<Vec<String>>()
    };
    let undisturbed = start("undisturbed");
    for record in &records {
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
