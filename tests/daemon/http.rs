//! HTTP as clients meet it: records in, labels out, refusals, limits, secrets, health.

use crate::daemon_harness::{Answer, Daemon, Place, eventually, words};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// NDJSON of `count` records of one word, over `streams` streams.
fn many(count: usize, streams: usize) -> String {
    (0..count).map(|k| json!({"stream": format!("s{}", k % streams), "text": "Ada "}).to_string() + "\n").collect()
}

fn refused(daemon: &Daemon) -> f64 {
    daemon.metric("strand_ingest_requests_total{outcome=\"refused\"}")
}

/// A request as bytes; the whole answer as text.
fn raw(daemon: &Daemon, request: &str) -> String {
    let mut connection = TcpStream::connect(daemon.address()).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    // The server may close before it has read everything; what it said counts.
    let _ = connection.read_to_string(&mut answer);
    answer
}

/// Lines of an answer that goes on; ends with the connection.
fn follow(daemon: &Daemon, path: &str, headers: &[(&str, &str)]) -> impl Iterator<Item = String> + use<> {
    let mut request = ureq::get(daemon.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    BufReader::new(request.call().unwrap().into_body().into_reader()).lines().map(Result::unwrap)
}

#[test]
fn a_record_sent_again_under_its_id_is_taken_once() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let first = daemon.post("/v1/streams/s?id=7&wait=1", "Ada met ");
    assert_eq!((first.status, words(&[first.json()])), (200, vec!["Ada".to_string(), "met".to_string()]));
    assert_eq!(daemon.post("/v1/streams/s?id=7&wait=1", "Ada met "), first, "the same output again");
    let again = daemon.post("/v1/streams/s?id=7", "Ada met ");
    assert_eq!((again.status, again.json()), (202, json!({"stream": "s", "offset": 0, "duplicate": true})));
    let older = daemon.post("/v1/streams/s?id=3", "Babbage ").json();
    assert_eq!(older, json!({"stream": "s", "offset": null, "duplicate": true}));
    // Another stream has numbers of its own.
    assert_eq!(daemon.post("/v1/streams/t?id=3", "Babbage ").json()["duplicate"], false);

    // Numbers outlive the process, however it ended.
    daemon.kill();
    let daemon = place.start(&[]);
    assert_eq!(daemon.post("/v1/streams/s?id=7", "Ada met ").json()["duplicate"], true);
    assert_eq!(daemon.post("/v1/streams/s?id=7&wait=1", "Ada met "), first);
    let lines = [(6, "no "), (8, "Babbage "), (8, "Babbage "), (10, "there ")];
    let lines: String =
        lines.iter().map(|(id, text)| json!({"stream": "s", "id": id, "text": text}).to_string() + "\n").collect();
    let taken = daemon.post("/v1/records", &lines).json();
    assert_eq!(taken, json!({"accepted": 2, "duplicates": 2, "first_offset": 2, "last_offset": 3}));
    let taken = daemon.post("/v1/records", &lines).json();
    assert_eq!(taken, json!({"accepted": 0, "duplicates": 4, "first_offset": null, "last_offset": null}));
    daemon.settle();
    assert_eq!(words(&daemon.labels("s")), ["Ada", "met", "Babbage", "there"]);
}

#[test]
fn two_clients_that_send_the_same_record_both_hear_of_it() {
    let place = Place::new();
    // One record a commit, so that the record still waits when it comes again.
    let daemon = place.start(&["--set", "pipeline.batch_records=1"]);
    assert_eq!(daemon.post("/v1/records", many(1000, 4)).status, 202);
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let ask = || daemon.post("/v1/streams/s?id=1&wait=1", "Ada ");
        let asked: Vec<_> = (0..3).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(answers[0].status, 200, "{answers:?}");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(daemon.labels("s").len(), 1);
}

#[test]
fn what_is_too_large_is_refused_and_counted() {
    let place = Place::new();
    let daemon = place.start(&["--set", "input.max_record_bytes=1KiB", "--set", "http.max_request_bytes=4KiB"]);
    let large = "x".repeat(1025);
    let answer = daemon.post("/v1/streams/s", &large);
    assert_eq!((answer.status, answer.code()), (413, "too_large".to_string()));
    assert!(answer.json()["detail"].as_str().unwrap().contains("input.max_record_bytes = 1024"), "{answer:?}");
    assert_eq!(refused(&daemon), 1.0);
    // One that doesn't say how long it is.
    let head = "POST /v1/streams/s HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = raw(&daemon, &format!("{head}401\r\n{large}\r\n0\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("too_large"), "{answer}");
    assert_eq!(refused(&daemon), 2.0);
    // A line of many: all are refused, and it is said which it was.
    let lines =
        json!({"stream": "s", "text": "Ada "}).to_string() + "\n" + &json!({"stream": "s", "text": large}).to_string();
    let answer = daemon.post("/v1/records", lines);
    assert_eq!((answer.status, answer.code()), (413, "too_large".to_string()));
    assert!(answer.json()["detail"].as_str().unwrap().starts_with("line 2: "), "{answer:?}");
    let answer = daemon.post("/v1/records", many(1000, 3));
    assert!(answer.json()["detail"].as_str().unwrap().contains("http.max_request_bytes = 4096"), "{answer:?}");
    assert_eq!(refused(&daemon), 4.0);
    assert_eq!(daemon.post("/v1/streams/s?wait=1", &large[..1024]).status, 200, "as large as allowed");
    assert_eq!(daemon.get("/v1/labels").lines().len(), 1);
}

#[test]
fn a_request_that_cannot_be_meant_is_refused_in_words() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let long = "k".repeat(1025);
    let cases = [
        ("/v1/streams/s?event=stop".to_string(), "unknown_event", "start, flush, reset and end"),
        (format!("/v1/streams/{long}"), "key_too_long", "1025 bytes"),
        ("/v1/streams/s?colour=red".to_string(), "bad_query", "colour"),
        ("/v1/streams/s?wait=perhaps".to_string(), "bad_query", "wait=perhaps"),
        ("/v1/streams/s?id=-1".to_string(), "bad_query", "id"),
        ("/v1/streams/%ff".to_string(), "bad_path", "UTF-8"),
    ];
    for (path, code, words) in &cases {
        let answer = daemon.post(path, "Ada ");
        assert_eq!((answer.status, answer.code()), (400, code.to_string()), "{answer:?}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(words), "{answer:?}");
    }
    assert_eq!(refused(&daemon), cases.len() as f64);
    assert_eq!(daemon.get("/v1/labels?from=x").code(), "bad_query");
    assert_eq!(daemon.get("/v1/dead-letters?stream=s").code(), "bad_query");
    assert_eq!(daemon.get("/v1/streams/never").status, 404);
    assert_eq!(daemon.get("/v2").code(), "not_found");
    assert_eq!(daemon.get("/v1/records").status, 405);
    // A key is any text, in the path percent-encoded.
    let key = daemon.post("/v1/streams/a%2Fb%20%C3%A9?wait=1", "Ada ").json();
    assert_eq!(key["stream"], "a/b é");
    assert_eq!(daemon.get("/v1/labels?stream=a%2Fb%20%C3%A9").lines(), [key]);
    assert_eq!(daemon.post(&format!("/v1/streams/{}?wait=1", &long[1..]), "Ada ").status, 200);
}

#[test]
fn many_records_are_taken_all_or_none() {
    let place = Place::new();
    let daemon = place.start(&[]);
    let good = r#"{"stream":"s","text":"Ada "}"#;
    let long = format!("{{\"stream\":\"{}\",\"text\":\"x\"}}", "k".repeat(1025));
    let cases = [
        ("{\"stream\"", "invalid_json"),
        (r#"{"stream":"s","txt":"x"}"#, "invalid_json"),
        (r#"{"text":"x"}"#, "missing_key"),
        (r#"{"stream":"","text":"x"}"#, "missing_key"),
        (r#"{"stream":"s","text":"x","event":"stop"}"#, "unknown_event"),
        (r#"{"stream":"s"}"#, "wrong_shape"),
        (r#"{"stream":"s","text":"x","tokens":["x"]}"#, "wrong_shape"),
        (&long, "key_too_long"),
    ];
    for (bad, code) in cases {
        let answer = daemon.post("/v1/records", format!("{good}\n\n{good}\n{bad}\n{good}\n"));
        assert_eq!((answer.status, answer.code()), (400, code.to_string()), "{answer:?}");
        let detail = answer.json()["detail"].as_str().unwrap().to_string();
        assert!(detail.starts_with("line 4: ") && detail.ends_with("nothing of this request was taken"), "{detail}");
    }
    assert_eq!(refused(&daemon), cases.len() as f64);
    let taken = daemon.post("/v1/records", format!("{good}\r\n\n{good}")).json();
    assert_eq!(taken, json!({"accepted": 2, "duplicates": 0, "first_offset": 0, "last_offset": 1}));
    assert_eq!(daemon.post("/v1/records", "\n").json()["accepted"], 0);
    daemon.settle();
    assert_eq!(words(&daemon.labels("s")), ["Ada", "Ada"]);
    assert_eq!(daemon.metric("strand_records_total"), 2.0);
}

#[test]
fn a_full_queue_turns_clients_away_until_there_is_room() {
    let place = Place::new();
    // One record a commit: the queue is full for long.
    let daemon = place.start(&["--set", "embedded.queue_max_records=10", "--set", "pipeline.batch_records=1"]);
    assert_eq!(daemon.post("/v1/records", many(2000, 7)).status, 202, "an empty queue takes any request");
    let turned_away = daemon.post("/v1/streams/x", "Ada ");
    assert_eq!((turned_away.status, turned_away.code()), (429, "overloaded".to_string()));
    assert_eq!(turned_away.retry_after.as_deref(), Some("1"));
    assert_eq!(daemon.post("/v1/records", many(1, 1)).status, 429);
    assert_eq!(daemon.metric("strand_ingest_requests_total{outcome=\"overloaded\"}"), 2.0);
    assert_eq!(refused(&daemon), 0.0);
    eventually("there is room", || daemon.post("/v1/streams/x", "Ada ").status == 202);
    daemon.settle();
    assert_eq!(daemon.labels("x").len(), 1, "what was turned away was not taken");
    assert_eq!(daemon.metric("strand_records_total"), 2001.0);
}

#[test]
fn who_waits_too_long_is_told_where_the_labels_will_be() {
    let place = Place::new();
    let daemon = place.start(&["--set", "http.wait_timeout=1ms", "--set", "pipeline.batch_records=1"]);
    assert_eq!(daemon.post("/v1/records", many(1000, 7)).status, 202);
    let answer = daemon.post("/v1/streams/x?wait=1", "Ada ");
    assert_eq!(answer.status, 202);
    let fields = answer.json();
    assert_eq!((&fields["pending"], &fields["offset"]), (&json!(true), &json!(1000)));
    assert!(fields["detail"].as_str().unwrap().contains("http.wait_timeout"), "{fields}");
    daemon.settle();
    assert_eq!(words(&daemon.labels("x")), ["Ada"]);
}

#[test]
fn labels_are_read_in_pages() {
    let place = Place::new();
    let daemon = place.start(&[]);
    assert_eq!(daemon.post("/v1/records", many(2500, 2)).status, 202);
    daemon.settle();
    let seqs = |path: &str| -> Vec<u64> {
        daemon.get(path).lines().iter().map(|record| record["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!(seqs("/v1/labels?stream=s1"), (0..1250).collect::<Vec<_>>());
    assert_eq!(seqs("/v1/labels?stream=s1&from=1247"), [1247, 1248, 1249]);
    assert_eq!(seqs("/v1/labels?stream=s1&from=5&limit=2"), [5, 6]);
    assert_eq!(seqs("/v1/labels?stream=s1&from=5&limit=0"), [0u64; 0]);
    assert_eq!(seqs("/v1/labels?stream=s1&from=1250"), [0u64; 0]);
    assert_eq!(seqs("/v1/labels?stream=never"), [0u64; 0]);
    // All streams, in the order of their commits: more than are read from the store at a time.
    let all = daemon.get("/v1/labels").lines();
    assert_eq!(all.len(), 2500);
    assert_eq!(daemon.get("/v1/labels?from=2000&limit=100").lines(), all[2000..2100]);
}

#[test]
fn labels_are_followed_as_lines() {
    let place = Place::new();
    let daemon = place.start(&[]);
    daemon.post("/v1/streams/s?wait=1", "Ada ");
    let mut of_stream = follow(&daemon, "/v1/labels?stream=s&follow=1", &[]);
    let mut of_all = follow(&daemon, "/v1/labels?follow=1", &[]);
    let mut letters = follow(&daemon, "/v1/dead-letters?follow=1", &[]);
    let next =
        |lines: &mut dyn Iterator<Item = String>| -> Value { serde_json::from_str(&lines.next().unwrap()).unwrap() };
    assert_eq!(words(&[next(&mut of_stream)]), ["Ada"], "a stream is read from its beginning");
    eventually("three follow", || daemon.metric("strand_followers") == 3.0);
    daemon.post("/v1/streams/t?wait=1", "Turin ");
    daemon.post("/v1/streams/s?wait=1", "met ");
    daemon.post("/v1/streams/s?wait=1", b"\xff");
    assert_eq!(words(&[next(&mut of_stream)]), ["met"]);
    assert_eq!(words(&[next(&mut of_all), next(&mut of_all)]), ["Turin", "met"], "all labels are followed from now on");
    assert_eq!(next(&mut letters)["error"], "invalid_utf8");
    // With a limit, following ends by itself.
    let two = daemon.get("/v1/labels?stream=s&follow=1&limit=2").lines();
    assert_eq!(words(&two), ["Ada", "met"]);
    drop((of_stream, of_all, letters));
    eventually("nobody follows", || {
        daemon.post("/v1/streams/s?wait=1", "x ");
        daemon.metric("strand_followers") == 0.0
    });
    // Followers do not hold up the end.
    let mut last = follow(&daemon, "/v1/labels?stream=t&follow=1", &[]);
    assert!(last.next().is_some());
    assert!(daemon.stop().success());
    assert!(last.next().is_none());
}

#[test]
fn labels_are_followed_as_server_sent_events() {
    let place = Place::new();
    let daemon = place.start(&[]);
    for text in ["Ada ", "met ", "Babbage "] {
        daemon.post("/v1/streams/s?wait=1", text);
    }
    assert_eq!(words(&daemon.events("/v1/labels?stream=s", 3)), ["Ada", "met", "Babbage"]);
    assert_eq!(words(&daemon.events("/v1/labels?from=1", 2)), ["met", "Babbage"]);
    // A browser that lost the connection says what it saw last.
    let headers = [("accept", "text/event-stream"), ("last-event-id", "1")];
    let mut resumed = follow(&daemon, "/v1/labels?stream=s&from=0", &headers);
    assert_eq!(resumed.next().unwrap(), "id: 2");
    assert!(resumed.next().unwrap().starts_with("data: {\"stream\":\"s\",\"seq\":2,"));
    assert_eq!(resumed.next().unwrap(), "");
    daemon.post("/v1/streams/s?wait=1", "there ");
    assert_eq!(resumed.next().unwrap(), "id: 3");
}

#[test]
fn too_many_followers_are_asked_to_come_later() {
    let place = Place::new();
    let daemon = place.start(&["--set", "http.max_followers=1"]);
    daemon.post("/v1/streams/s?wait=1", "Ada ");
    let mut first = follow(&daemon, "/v1/labels?stream=s&follow=1", &[]);
    assert!(first.next().is_some());
    let second = daemon.get("/v1/labels");
    assert_eq!((second.status, second.code(), second.retry_after.as_deref()), (503, "unavailable".into(), Some("1")));
    drop(first);
    eventually("there is a place", || {
        daemon.post("/v1/streams/s?wait=1", "x ");
        daemon.get("/v1/labels").status == 200
    });
}

#[test]
fn without_the_token_nothing_is_told() {
    let place = Place::new();
    let config = place.path().join("strand.toml");
    std::fs::write(&config, "[http]\ntoken = \"${STRAND_TEST_TOKEN}\"\n").unwrap();
    let mut command = place.command(&["--config", config.to_str().unwrap(), "--set", "log.level=debug"]);
    command.env("STRAND_TEST_TOKEN", "geheim-4711");
    let mut daemon = Daemon::start(command);
    for token in [None, Some("geheim"), Some("geheim-47111"), Some("")] {
        daemon.token = token.map(str::to_string);
        for path in ["/v1/labels", "/v1/dead-letters", "/v1/streams/s", "/v1/stats"] {
            let answer = daemon.get(path);
            assert_eq!((answer.status, answer.code()), (401, "unauthorized".to_string()), "{path}");
        }
        assert_eq!(daemon.post("/v1/streams/s", "Ada ").status, 401);
        assert_eq!(daemon.post("/v1/records", many(1, 1)).status, 401);
        for path in ["/", "/healthz", "/readyz", "/metrics"] {
            assert_eq!(daemon.get(path).status, 200, "{path}");
        }
    }
    daemon.token = Some("geheim-4711".to_string());
    assert_eq!(daemon.post("/v1/streams/s?wait=1", "Ada ").status, 200);
    assert_eq!(daemon.get("/v1/labels").lines().len(), 1);
    assert!(!daemon.log().contains("geheim"), "secrets are not logged");
}

#[test]
fn the_oldest_labels_leave_when_they_take_too_much() {
    let place = Place::new();
    let daemon = place.start(&[]);
    daemon.post("/v1/records", many(300, 1));
    daemon.post("/v1/records", "{\"stream\":\"bad\",\"base64\":\"/w==\"}\n".repeat(20));
    daemon.settle();
    let (before, letters) = (daemon.labels("s0"), daemon.get("/v1/dead-letters").lines());
    assert_eq!((before.len(), letters.len()), (300, 20));
    assert!(daemon.stop().success());

    // Retention looks when it starts.
    let sizes = ["--set", "embedded.labels_max_bytes=4KiB", "--set", "embedded.dead_letters_max_bytes=1KiB"];
    let daemon = place.start(&sizes);
    eventually("labels are deleted", || daemon.metric("strand_expired_total{table=\"labels\"}") > 0.0);
    let (left, left_letters) = (daemon.labels("s0"), daemon.get("/v1/dead-letters").lines());
    assert!(left.len() < 100 && !left.is_empty(), "{}", left.len());
    assert_eq!(left, before[300 - left.len()..]);
    assert!(!left_letters.is_empty() && left_letters == letters[20 - left_letters.len()..]);
    assert_eq!(daemon.metric("strand_expired_total{table=\"labels\"}"), 300.0 - left.len() as f64);
    assert_eq!(daemon.metric("strand_expired_total{table=\"dead_letters\"}"), 20.0 - left_letters.len() as f64);
    eventually("sizes are told", || {
        let bytes = daemon.metric("strand_store_bytes{table=\"labels\"}");
        bytes > 0.0 && bytes <= 4096.0
    });
    assert_eq!(daemon.post("/v1/streams/s0?wait=1", "Ada ").json()["seq"], 300, "the stream itself goes on");
}

#[test]
fn old_labels_and_ended_streams_are_forgotten() {
    let place = Place::new();
    let daemon = place.start(&[]);
    daemon.post("/v1/streams/live?wait=1&id=5", "Ada Love");
    daemon.post("/v1/streams/ended?wait=1&id=5&event=end", "Ada");
    daemon.post("/v1/streams/live?wait=1", b"\xff");
    assert!(daemon.stop().success());
    std::thread::sleep(Duration::from_millis(20));

    let daemon = place.start(&["--set", "embedded.labels_keep=10ms", "--set", "embedded.dead_letters_keep=10ms"]);
    eventually("all is deleted", || daemon.get("/v1/labels").lines().is_empty());
    eventually("the ended stream is forgotten", || daemon.get("/v1/streams/ended").status == 404);
    assert!(daemon.get("/v1/dead-letters").lines().is_empty());
    // A live stream keeps its state, its numbers and what its client sent last.
    assert_eq!(daemon.post("/v1/streams/live?id=5", "Ada Love").json()["duplicate"], true);
    let next = daemon.post("/v1/streams/live?wait=1&event=flush", "lace").json();
    assert_eq!((&next["seq"], words(std::slice::from_ref(&next))), (&json!(1), vec!["Lovelace".to_string()]));
}

#[test]
fn the_daemon_tells_how_it_is() {
    let place = Place::new();
    let daemon = place.start(&[]);
    assert_eq!(daemon.get("/healthz").body, "ok\n");
    assert_eq!(daemon.get("/readyz").json(), json!({"ready": true, "waiting_for": {}}));
    let page = daemon.get("/");
    assert!(page.status == 200 && page.body.starts_with("<!"), "{}", page.body);
    daemon.post("/v1/streams/s?wait=1", "Ada met Babbage ");
    daemon.post("/v1/streams/s?wait=1", b"\xff");
    let stats = daemon.get("/v1/stats").json();
    assert_eq!((&stats["model"], &stats["records"], &stats["steps"]), (&json!("tiny"), &json!(1), &json!(3)));
    assert_eq!(stats["ready"], true);

    let text = daemon.get("/metrics").body;
    for name in METRICS {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name} is not in\n{text}");
    }
    let told = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter_map(|line| line.split(' ').next());
    let unknown: Vec<&str> = told.filter(|name| !METRICS.contains(name)).collect();
    assert!(unknown.is_empty(), "metrics that this test does not know: {unknown:?}");
    assert_eq!(daemon.metric("strand_records_total"), 1.0);
    assert_eq!(daemon.metric("strand_bytes_total"), 16.0);
    assert_eq!(daemon.metric("strand_steps_total"), 3.0);
    assert_eq!(daemon.metric("strand_label_confidence_count"), 3.0);
    assert_eq!(daemon.metric("strand_latency_seconds_count"), 2.0);
    assert_eq!(daemon.metric("strand_dead_letters_total{code=\"invalid_utf8\"}"), 1.0);
    assert_eq!(daemon.metric("strand_streams_live"), 1.0);
    assert_eq!(daemon.metric("strand_transactions_total{outcome=\"aborted\"}"), 0.0);
    assert_eq!(daemon.metric("strand_ready"), 1.0);
    assert!(daemon.metric("strand_state_bytes{place=\"store\"}") > 0.0);
    let labels: f64 = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
        .map(|label| daemon.metric(&format!("strand_labels_total{{label=\"{label}\"}}")))
        .iter()
        .sum();
    assert_eq!(labels, 3.0);
}

/// All that `/metrics` tells once records, labels and dead letters have passed. Dashboards rest on these names.
const METRICS: [&str; 44] = [
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "strand_batch_steps",
    "strand_batch_streams",
    "strand_build_info",
    "strand_bytes_total",
    "strand_dead_letters_total",
    "strand_expired_total",
    "strand_followers",
    "strand_ingest_requests_total",
    "strand_label_confidence",
    "strand_labels_total",
    "strand_latency_seconds",
    "strand_model_info",
    "strand_partitions_assigned",
    "strand_queue_bytes",
    "strand_queue_depth",
    "strand_ready",
    "strand_rebalances_total",
    "strand_records_missed_total",
    "strand_records_skipped_total",
    "strand_records_total",
    "strand_restored_states_total",
    "strand_source_lag_records",
    "strand_source_paused",
    "strand_standby_partitions",
    "strand_standby_states_total",
    "strand_stage_seconds_total",
    "strand_state_bytes",
    "strand_states_evicted_total",
    "strand_states_loaded_total",
    "strand_step_seconds",
    "strand_steps_total",
    "strand_store_bytes",
    "strand_streams_draining",
    "strand_streams_ended_total",
    "strand_streams_live",
    "strand_streams_resident",
    "strand_streams_spilled",
    "strand_surprise_nats",
    "strand_surprising_total",
    "strand_transaction_seconds",
    "strand_transactions_total",
    "strand_unknown_tokens_total",
];
