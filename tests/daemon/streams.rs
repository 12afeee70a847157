//! Streams through the running daemon: pieces, events, lives, bad input, time to live.

use crate::daemon_harness::{Daemon, Place, eventually, words};
use serde_json::{Value, json};

#[test]
fn a_word_cut_between_two_records_is_labelled_once() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let first = daemon.post("/v1/streams/s?wait=1", "Ada Love");
    assert_eq!(first.status, 200, "{first:?}");
    let first = first.json();
    assert_eq!((&first["stream"], &first["seq"], &first["model"]), (&json!("s"), &json!(0), &json!("tiny")));
    assert_eq!(first["final"], false);
    let second = daemon.post("/v1/streams/s?wait=1", "lace met Babbage").json();
    let third = daemon.post("/v1/streams/s?wait=1&event=end", "").json();
    assert_eq!(third["final"], true);
    assert_eq!(words(&[first, second.clone(), third]), ["Ada", "Lovelace", "met", "Babbage"]);
    let lovelace = &second["labels"][0];
    assert_eq!((&lovelace["start"], &lovelace["end"]), (&json!(4), &json!(12)));
    assert!(lovelace["score"].as_f64().unwrap() > 0.0);
}

#[test]
fn labels_do_not_depend_on_how_the_text_is_cut() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let text = "Čapek's robots met Ada in Zürich, and Menabrea wrote. ".repeat(5);
    let lines = |cut: usize, stream: &str| -> String {
        let pieces = text.as_bytes().chunks(cut);
        // Cut inside characters too, hence base64.
        let encode = |piece: &[u8]| {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(piece)
        };
        let mut lines: String =
            pieces.map(|piece| json!({"stream": stream, "base64": encode(piece)}).to_string() + "\n").collect();
        lines += &(json!({"stream": stream, "event": "end"}).to_string() + "\n");
        lines
    };
    let labels = |stream: &str| -> Vec<serde_json::Value> {
        let records = daemon.labels(stream);
        assert_eq!(records.last().unwrap()["final"], true);
        records.iter().flat_map(|record| record["labels"].as_array().unwrap().clone()).collect()
    };
    let spans = |stream: &str| -> Vec<serde_json::Value> {
        daemon.labels(stream).iter().flat_map(|record| record["spans"].as_array().unwrap().clone()).collect()
    };
    // All at once, so that they are stepped together.
    let all: String = [1, 7, 64, 1000].iter().map(|cut| lines(*cut, &format!("cut{cut}"))).collect();
    assert_eq!(daemon.post("/v1/records", all).status, 202);
    daemon.settle();
    let whole = labels("cut1000");
    assert!(whole.len() > 40, "{}", whole.len());
    for cut in [1, 7, 64] {
        assert_eq!(labels(&format!("cut{cut}")), whole, "cut every {cut} bytes");
        assert_eq!(spans(&format!("cut{cut}")), spans("cut1000"));
    }
}

#[test]
fn events_flush_reset_start_and_end() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let post = |query: &str, text: &str| daemon.post(&format!("/v1/streams/s?wait=1&{query}"), text).json();
    let label = |record: &serde_json::Value, k: usize| record["labels"][k].clone();

    let fresh = post("event=flush", "Turin");
    assert_eq!(words(std::slice::from_ref(&fresh)), ["Turin"]);
    assert_eq!(words(&[post("event=flush", "")]), [""; 0]);

    // h and c carried from before change the scores; after a reset they are those of a fresh stream, further on.
    let carried = label(&post("event=flush", " Turin"), 0);
    assert_ne!(carried["score"], fresh["labels"][0]["score"]);
    let reset = post("event=reset", " Turin");
    assert_eq!(words(std::slice::from_ref(&reset)), [""; 0], "the word is not complete yet");
    let reset = label(&post("event=flush", ""), 0);
    assert_eq!((&reset["score"], &reset["label"]), (&fresh["labels"][0]["score"], &fresh["labels"][0]["label"]));
    assert_eq!(reset["start"], 12);

    // A new life: what was unfinished is gone, positions begin again, seq goes on.
    post("", " Menab");
    let started = post("event=start", "Turin ");
    assert_eq!(words(std::slice::from_ref(&started)), ["Turin"]);
    assert_eq!(started["labels"][0], fresh["labels"][0]);
    assert_eq!(started["seq"], 6);

    let ended = post("event=end", "Ada");
    assert_eq!((&ended["final"], words(std::slice::from_ref(&ended))), (&json!(true), vec!["Ada".to_string()]));
    assert_eq!(daemon.get("/v1/streams/s").json()["state"], "ended");
    assert_eq!(daemon.get("/v1/streams/s").json()["state_bytes"], 0);
    let next = post("event=flush", "Turin");
    assert_eq!((&next["seq"], &next["labels"][0]), (&json!(8), &fresh["labels"][0]));
    assert_eq!(daemon.get("/v1/streams/s").json()["state"], "live");
}

#[test]
fn the_end_of_an_unknown_stream_is_fine() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let output = daemon.post("/v1/streams/never?wait=1&event=end", "").json();
    assert_eq!(output, json!({"stream": "never", "seq": 0, "model": "tiny", "labels": [], "spans": [], "final": true}));
    assert_eq!(daemon.metric("strand_streams_live"), 0.0);
}

#[test]
fn bad_input_disturbs_no_other_stream_and_not_its_own() {
    let place = Place::new();
    let daemon = place.start(&[]);
    daemon.post("/v1/streams/a?wait=1", "Ada ");
    let bad = daemon.post("/v1/streams/a?wait=1", b"Love\xff\xfelace");
    assert_eq!((bad.status, bad.code()), (422, "invalid_utf8".to_string()));
    // Bad input with "start" or "reset" leaves the stream's state as it was.
    assert_eq!(daemon.post("/v1/streams/a?wait=1&event=start", b"\xff").status, 422);
    assert_eq!(daemon.post("/v1/streams/a?wait=1&event=reset", b"\xff").status, 422);
    let after = daemon.post("/v1/streams/a?wait=1&event=flush", "Lovelace").json();
    daemon.post("/v1/streams/b?wait=1", "Ada ");
    let undisturbed = daemon.post("/v1/streams/b?wait=1&event=flush", "Lovelace").json();
    assert_eq!(after["labels"], undisturbed["labels"]);
    assert_eq!(after["seq"], 1);

    let letters = daemon.get("/v1/dead-letters").lines();
    assert_eq!(letters.len(), 3);
    assert_eq!(letters[0]["error"], "invalid_utf8");
    assert_eq!((&letters[0]["stream"], &letters[0]["source"]), (&json!("a"), &json!("queue/0/1")));
    assert_eq!(letters[0]["value_base64"], "TG92Zf/+bGFjZQ==");
    assert_eq!(letters[1]["headers"]["strand-event"], "start");
    assert_eq!(daemon.get("/v1/dead-letters?from=2").lines(), letters[2..]);
    assert_eq!(daemon.metric("strand_dead_letters_total{code=\"invalid_utf8\"}"), 3.0);
    assert_eq!(daemon.metric("strand_records_total"), 4.0);
}

#[test]
fn half_a_character_at_the_end_is_told_and_the_stream_ends() {
    let place = Place::new();
    let daemon = place.start(&[]);
    daemon.post("/v1/streams/s?wait=1", b"Ada \xc4");
    let end = daemon.post("/v1/streams/s?wait=1&event=end", "");
    assert_eq!((end.status, &end.json()["final"]), (200, &json!(true)));
    let letters = daemon.get("/v1/dead-letters").lines();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["error"], "invalid_utf8");
    assert!(letters[0]["detail"].as_str().unwrap().contains("the record was taken"), "{letters:?}");

    // Half a character that the next record does not complete costs its word, not the stream.
    daemon.post("/v1/streams/t?wait=1", b"Ada Z\xc3");
    let next = daemon.post("/v1/streams/t?wait=1", "met Turin ");
    assert_eq!((next.status, words(&[next.json()])), (200, vec!["met".to_string(), "Turin".to_string()]));
    assert_eq!(daemon.get("/v1/dead-letters").lines().len(), 2);
}

#[test]
fn values_are_read_as_tokens_or_as_a_field_of_an_object() {
    let place = Place::new();
    let daemon = place.start(&["--set", "input.format=tokens"]);
    let output = daemon.post("/v1/streams/s?wait=1", r#"["Ada","met","Mr. Babbage"]"#).json();
    assert_eq!(words(&[output]), ["Ada", "met", "Mr. Babbage"]);
    assert_eq!(daemon.post("/v1/streams/s?wait=1", "Ada").code(), "invalid_json");
    assert!(daemon.stop().success());

    let place = Place::new();
    let daemon = place.start(&["--set", "input.format=json", "--set", "input.pointer=/body/text"]);
    let output = daemon.post("/v1/streams/s?wait=1", r#"{"body": {"text": "Ada met "}, "more": 1}"#).json();
    assert_eq!(words(&[output]), ["Ada", "met"]);
    assert_eq!(daemon.post("/v1/streams/s?wait=1", r#"{"body": {}}"#).code(), "wrong_shape");
}

#[test]
fn abandoned_streams_are_ended_by_their_time_to_live() {
    let place = Place::new();
    let daemon = place.start(&["--set", "state.stream_ttl=400ms"]);
    daemon.post("/v1/streams/idle?wait=1", "Ada Lovelace");
    let busy = || daemon.post("/v1/streams/busy?wait=1", "x ").json();
    eventually("the idle stream ends", || {
        busy();
        daemon.get("/v1/streams/idle").json()["state"] == "ended"
    });
    let records = daemon.labels("idle");
    assert_eq!(words(&records), ["Ada", "Lovelace"], "what was unfinished is labelled");
    assert_eq!(records.last().unwrap()["final"], true);
    assert_eq!(daemon.get("/v1/streams/busy").json()["state"], "live");
    assert_eq!(daemon.metric("strand_streams_ended_total{cause=\"ttl\"}"), 1.0);
}

#[test]
fn few_resident_streams_label_as_many_would() {
    let place = Place::new();
    let daemon = place.start(&["--set", "state.max_resident=2", "--set", "pipeline.threads=2"]);
    let roomy = Place::new();
    let roomy = roomy.start(&["--set", "pipeline.threads=1"]);
    for round in 0..4 {
        let lines: String = (0..40)
            .map(|k| json!({"stream": format!("s{k}"), "text": format!("Ada {k} met {round} Bab")}).to_string() + "\n")
            .collect();
        for daemon in [&daemon, &roomy] {
            assert_eq!(daemon.post("/v1/records", &lines).json()["accepted"], 40);
            daemon.settle();
        }
    }
    let evicted = daemon.metric("strand_states_evicted_total");
    assert!(evicted > 50.0, "{evicted}");
    assert_eq!(roomy.metric("strand_states_evicted_total"), 0.0);
    for k in 0..40 {
        assert_eq!(daemon.labels(&format!("s{k}")), roomy.labels(&format!("s{k}")));
    }
    assert_eq!(daemon.metric("strand_streams_live"), 40.0);
}

/// States of half the size: which are in memory and when the daemon was killed changes no label, and another setting
/// takes up the streams that there are.
#[test]
fn half_size_states_label_the_same_whatever_happens_to_them() {
    let half = ["--set", "state.precision=bf16"];
    let few = ["--set", "state.precision=bf16", "--set", "state.max_resident=2", "--set", "pipeline.threads=2"];
    let (place, roomy, exact) = (Place::new(), Place::new(), Place::new());
    let (roomy, exact) = (roomy.start(&half), exact.start(&[]));
    let mut killed = place.start(&few);
    let rounds = |from: usize, to: usize, daemons: &[&Daemon]| {
        for round in from..to {
            let text = |k: usize| json!({"stream": format!("s{k}"), "text": format!("Ada {k} met {round} Bab")});
            let lines: String = (0..40).map(|k| text(k).to_string() + "\n").collect();
            for daemon in daemons {
                assert_eq!(daemon.post("/v1/records", &lines).json()["accepted"], 40);
                daemon.settle();
            }
        }
    };
    for round in 0..4 {
        rounds(round, round + 1, &[&killed, &roomy, &exact]);
        killed.kill();
        killed = place.start(&few);
    }
    let labels = |daemon: &Daemon| (0..40).map(|k| daemon.labels(&format!("s{k}"))).collect::<Vec<_>>();
    assert_eq!(labels(&killed), labels(&roomy));
    assert_ne!(labels(&killed), labels(&exact), "nothing was rounded");
    let in_memory = |daemon: &Daemon| daemon.metric("strand_state_bytes{place=\"memory\"}");
    assert!(in_memory(&roomy) < in_memory(&exact));
    assert!(killed.stop().success());

    let killed = place.start(&[]);
    rounds(4, 6, &[&killed, &exact]);
    assert_eq!(killed.metric("strand_streams_live"), 40.0);
    let scores = |daemon: &Daemon| -> Vec<f64> {
        let all: Vec<Value> = labels(daemon).into_iter().flatten().collect();
        let labels = all.iter().flat_map(|record| record["labels"].as_array().unwrap());
        labels.map(|label| label["score"].as_f64().unwrap()).collect()
    };
    let (rounded, exact) = (scores(&killed), scores(&exact));
    let far = rounded.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(rounded.len() == exact.len() && far < 0.1, "{far}");
}
