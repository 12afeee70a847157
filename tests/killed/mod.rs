//! The same records through a daemon that is left alone and through one that is killed now and then.

use crate::daemon_harness::Daemon;
use base64::Engine as _;
use serde_json::json;
use strand::model::testing::TEXT;

const STREAMS: usize = 5;

/// Records of several streams: pieces of the text, over and over, cut anywhere, also inside a character; some flushed or
/// reset; then the end of each.
fn records(text: &str) -> Vec<String> {
    let mut random = 11u64;
    let mut below = |n: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize % n
    };
    let (mut records, mut at) = (Vec::new(), [0; STREAMS]);
    for n in 0..120 {
        let stream = below(at.len());
        let piece = 1 + below(40);
        let event = [Some("flush"), Some("reset")].get(below(12)).copied().flatten();
        let mut end = at[stream] + piece;
        while event.is_some() && !text.is_char_boundary(end % text.len()) {
            end += 1;
        }
        let bytes: Vec<u8> = text.bytes().cycle().skip(at[stream]).take(end - at[stream]).collect();
        at[stream] = end;
        let mut record = json!({"stream": format!("s{stream}"), "id": n});
        record["base64"] = json!(base64::engine::general_purpose::STANDARD.encode(bytes));
        if let Some(event) = event {
            record["event"] = json!(event);
        }
        records.push(record.to_string());
    }
    for (k, at) in at.iter().enumerate() {
        let rest: Vec<u8> = text.bytes().cycle().skip(*at).take_while(|byte| byte & 0xc0 == 0x80).collect();
        let rest = base64::engine::general_purpose::STANDARD.encode(rest);
        records.push(json!({"stream": format!("s{k}"), "base64": rest, "event": "end", "id": 1000}).to_string());
    }
    records
}

/// `start` starts a daemon on the data directory of this name. Output records of each stream, which are the same, byte for
/// byte, whether the daemon is killed every thirty records or never.
#[allow(dead_code)] // Each test file uses its part.
pub fn in_the_middle(start: impl Fn(&str) -> Daemon) -> Vec<String> {
    in_the_middle_of(TEXT, start)
}

/// The same with the pieces of this text.
pub fn in_the_middle_of(text: &str, start: impl Fn(&str) -> Daemon) -> Vec<String> {
    let records = records(text);
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
