//! `strand run` on a real broker: what goes in, what comes out, and what is said when something is wrong.

use crate::daemon_harness;
use crate::daemon_harness::{Daemon, Place, STRAND, eventually};
use crate::kafka_harness::{Broker, Record, command, free_port, settings, start};
use rdkafka::types::{RDKafkaApiKey as Requests, RDKafkaRespErr as Errors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;
use strand::model::testing::{TEXT, layers, random_model, words_spec};
use strand_test_broker::Access;

const INPUT: [&str; 1] = ["kafka.input_partitions=4"];

/// The outputs of a stream, in order.
fn outputs<'a>(records: &'a [Record], stream: &str) -> Vec<&'a Record> {
    records.iter().filter(|record| record.key.as_deref() == Some(stream.as_bytes())).collect()
}

fn words(records: &[&Record]) -> Vec<String> {
    daemon_harness::words(&records.iter().map(|record| record.json()).collect::<Vec<_>>())
}

/// What `/readyz` says of a part, while it is not ready.
fn reason(daemon: &Daemon, part: &str) -> String {
    daemon.get("/readyz").json()["waiting_for"][part].as_str().unwrap_or_default().to_string()
}

/// A daemon that listens but need not be ready.
fn listening(command: Command) -> Daemon {
    let daemon = Daemon::spawn(command);
    eventually("listening", || daemon.listens_at().is_some());
    daemon
}

/// `strand check --online`: exit code and all that it said.
fn check_online(place: &Place, brokers: &str, more: &[&str]) -> (i32, String) {
    let output = Command::new(STRAND)
        .args(["check", "--online", "--model"])
        .arg(place.model())
        .args(settings(place, brokers, "check", more))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

#[test]
fn streams_in_labels_out_keyed_and_placed_like_the_input() {
    let (broker, place) = (Broker::start(), Place::new());
    let daemon = start(&place, &broker, "a", &INPUT);
    let sender = broker.sender();
    // Cut within words and within a character, interleaved; one stream has a key of any bytes.
    let odd_key: &[u8] = b"\xff\x00key";
    for (one, other) in [("Ada Love", "Grace Hop"), ("lace went to Par", "per saw caf\u{e9}"), ("is. ", "s. ")] {
        sender.piece("strand-input", "one", one.as_bytes(), None);
        let (head, tail) = other.as_bytes().split_at(other.len() - 1);
        let headers = [("trace", Some(&b"\x00\xfe"[..])), ("nothing", None)];
        sender.record("strand-input", Some(2), Some(odd_key), Some(head), &headers, Some(1_700_000_000_123));
        sender.record("strand-input", Some(2), Some(odd_key), Some(tail), &[], None);
    }
    sender.piece("strand-input", "one", b"", Some("end"));
    sender.flush();
    let labels = broker.read_at_least("strand-labels", 10);

    let one = outputs(&labels, "one");
    assert_eq!(words(&one), ["Ada", "Lovelace", "went", "to", "Paris", "."]);
    let input = broker.read("strand-input");
    for (k, record) in one.iter().enumerate() {
        assert_eq!((record.json()["seq"].as_u64(), record.json()["final"].as_bool()), (Some(k as u64), Some(k == 3)));
        // Timestamp, partition and source are the input's.
        let source = record.header("strand-source");
        let of = input.iter().find(|r| format!("strand-input/{}/{}", r.partition, r.offset) == source).unwrap();
        assert_eq!((&of.key, of.timestamp_ms, of.partition), (&record.key, record.timestamp_ms, record.partition));
        assert_eq!(record.header("strand-model"), "tiny");
    }
    let odd: Vec<&Record> = labels.iter().filter(|record| record.key.as_deref() == Some(odd_key)).collect();
    assert_eq!(words(&odd), ["Grace", "Hopper", "saw", "caf\u{e9}s", "."]);
    assert!(odd.iter().all(|record| record.partition == 2) && odd[0].timestamp_ms == Some(1_700_000_000_123));

    // The group knows how far it is, and so do the metrics.
    broker.settle("strand", "strand-input", Duration::from_secs(5));
    eventually("no lag", || daemon.get("/metrics").body.contains("strand_consumer_lag_records{partition=\"2\"} 0"));
    assert_eq!(daemon.metric("strand_partitions_assigned"), 4.0);
    assert_eq!(daemon.metric("strand_restore_progress_ratio{partition=\"3\"}"), 1.0);
    eventually("counted", || daemon.metric("strand_latency_seconds_count") == 10.0);
    assert!(daemon.stop().success());
}

#[test]
fn what_cannot_be_labelled_is_a_dead_letter_as_it_came() {
    let (broker, place) = (Broker::start(), Place::new());
    let _daemon = start(&place, &broker, "a", &INPUT);
    let sender = broker.sender();
    let headers = [("trace", Some(&b"\x00\xfe"[..])), ("nothing", None)];
    sender.record("strand-input", Some(1), None, Some(b"no key"), &headers, Some(1_700_000_000_000));
    sender.record("strand-input", Some(1), Some(&[b'k'; 1025]), Some(b"x"), &[], None);
    sender.record("strand-input", Some(1), Some(b"s"), Some(b"bad \xff\xff"), &[], None);
    sender.record("strand-input", Some(1), Some(b"s"), Some(b"x"), &[("strand-event", Some(b"stop"))], None);
    sender.record("strand-input", Some(1), Some(b"s"), Some(b"x"), &[("strand-event", None)], None);
    sender.record("strand-input", Some(1), Some(b"s"), Some(b"a good one "), &[], None);
    sender.flush();
    let letters = broker.read_at_least("strand-dead-letters", 5);
    let codes: Vec<String> = letters.iter().map(|letter| letter.header("strand-error")).collect();
    assert_eq!(codes, ["missing_key", "key_too_long", "invalid_utf8", "unknown_event", "unknown_event"]);
    let first = &letters[0];
    assert_eq!(
        (&first.key, first.value.as_deref(), first.timestamp_ms),
        (&None, Some(&b"no key"[..]), Some(1_700_000_000_000))
    );
    assert_eq!(first.headers[0], ("trace".to_string(), Some(b"\x00\xfe".to_vec())));
    assert_eq!(first.headers[1], ("nothing".to_string(), None));
    assert!(first.header("strand-error-detail").contains("no key") && first.partition == 1);
    assert_eq!(first.header("strand-source"), "strand-input/1/0");
    assert_eq!(words(&outputs(&broker.read_at_least("strand-labels", 1), "s")), ["a", "good", "one"]);
}

/// A header whose name is no UTF-8 cannot be made with our own client; kcat can (Debian's does not know Tansu).
#[test]
fn a_header_of_any_bytes_does_no_harm() {
    use std::os::unix::ffi::OsStrExt;
    let (broker, place) = mock();
    let daemon = start(&place, &broker, "a", &[]);
    let mut kcat = Command::new("kcat");
    kcat.args(["-P", "-b", &broker.address, "-t", "strand-input", "-p", "0", "-k", "s", "-H"]);
    kcat.arg(std::ffi::OsStr::from_bytes(b"\xff\xfe=x")).stdin(Stdio::piped());
    let mut child = kcat.spawn().expect("kcat is missing: run tests/setup.sh first");
    child.stdin.take().unwrap().write_all(b"Ada \n").unwrap();
    assert!(child.wait().unwrap().success());
    let letters = broker.read_at_least("strand-dead-letters", 1);
    assert_eq!(letters[0].header("strand-error"), "invalid_header");
    assert_eq!(letters[0].value.as_deref(), Some(&b"Ada "[..]));
    assert_eq!(daemon.get("/readyz").status, 200);
}

/// librdkafka's mock cluster, which makes errors on demand, with the four topics.
fn mock() -> (Broker, Place) {
    let broker = Broker::mock(1);
    for topic in ["strand-input", "strand-labels", "strand-dead-letters", "strand-state"] {
        broker.topic(topic, 2, &[]);
    }
    (broker, Place::new())
}

#[test]
fn a_topic_that_we_may_not_read_is_told_in_words() {
    let (broker, place) = mock();
    let cluster = broker.cluster();
    cluster.topic_error("strand-input", Errors::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED).unwrap();
    let daemon = listening(command(&place, &broker.address, "a", &[]));
    eventually("a reason", || reason(&daemon, "kafka").contains("topic authorization failed"));
    let said = reason(&daemon, "kafka");
    assert!(said.contains("strand-input") && said.contains("READ and DESCRIBE on the input"), "{said}");
    let (code, said) = check_online(&place, &broker.address, &[]);
    assert!(code == 1 && said.contains("topic authorization failed"), "{said}");
    // Somebody allows it.
    cluster.topic_error("strand-input", Errors::RD_KAFKA_RESP_ERR_NO_ERROR).unwrap();
    eventually("ready", || daemon.get("/readyz").status == 200);
}

#[test]
fn a_group_that_we_may_not_join_is_told_in_words() {
    let (broker, place) = mock();
    let cluster = broker.cluster();
    let refused = [Errors::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED; 5];
    cluster.request_errors(Requests::JoinGroup, &refused);
    let daemon = listening(command(&place, &broker.address, "a", &[]));
    eventually("a reason", || reason(&daemon, "group").contains("group authorization failed"));
    assert!(reason(&daemon, "group").contains("READ on the group"));
    cluster.clear_request_errors(Requests::JoinGroup);
    eventually("ready", || daemon.get("/readyz").status == 200);
}

/// A daemon with two records before it, whose first produce requests are answered with this error.
fn cannot_write(errors: &[Errors]) -> (Broker, Place, Daemon) {
    let (broker, place) = mock();
    let sender = broker.sender();
    sender.piece("strand-input", "s", b"Ada ", None);
    sender.piece("strand-input", "s", b"Lovelace ", None);
    sender.flush();
    broker.cluster().request_errors(Requests::Produce, errors);
    let daemon = listening(command(&place, &broker.address, "a", &["kafka.delivery=at_least_once"]));
    eventually("aborted", || daemon.metric("strand_transactions_total{outcome=\"aborted\"}") >= 1.0);
    (broker, place, daemon)
}

#[test]
fn while_labels_may_not_be_written_the_records_wait() {
    let (broker, _place, daemon) = cannot_write(&[Errors::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 1000]);
    eventually("a reason", || reason(&daemon, "commit").contains("topic authorization failed"));
    let said = reason(&daemon, "commit");
    assert!(said.contains("writing to strand-labels") && said.contains("WRITE and DESCRIBE on output"), "{said}");
    assert_eq!(broker.committed("strand", "strand-input").iter().max(), Some(&-1));
    // Somebody allows it.
    broker.cluster().clear_request_errors(Requests::Produce);
    eventually("ready", || daemon.get("/readyz").status == 200);
    broker.settle("strand", "strand-input", Duration::from_secs(20));
    assert_eq!(words(&outputs(&broker.read("strand-labels"), "s")), ["Ada", "Lovelace"]);
}

/// The same with transactions: what could not be written is aborted, and written once it may be.
#[test]
fn while_a_transaction_may_not_write_the_records_wait() {
    let (broker, place) = (Broker::own(), Place::new());
    let daemon = start(&place, &broker, "a", &INPUT);
    let access = |allowed| broker.faulty().set_topic_access("strand-labels", Access::Write, allowed);
    access(false);
    let sender = broker.sender();
    for piece in ["Ada ", "Lovelace "] {
        sender.piece("strand-input", "s", piece.as_bytes(), None);
    }
    sender.flush();
    eventually("a reason", || reason(&daemon, "commit").contains("topic authorization failed"));
    assert_eq!(broker.committed("strand", "strand-input").iter().max(), Some(&-1));
    access(true);
    eventually("ready", || daemon.get("/readyz").status == 200);
    broker.settle("strand", "strand-input", Duration::from_secs(20));
    assert_eq!(words(&outputs(&broker.read("strand-labels"), "s")), ["Ada", "Lovelace"]);
}

/// Records that are sent together are refused together; which of them is too large shows when they are sent one by one.
#[test]
fn a_record_is_a_dead_letter_for_its_size_only_if_it_is_refused_alone() {
    let (broker, _place, daemon) = cannot_write(&[Errors::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE]);
    eventually("ready", || daemon.get("/readyz").status == 200);
    broker.settle("strand", "strand-input", Duration::from_secs(20));
    // Without transactions, one that was sent beside the refused one may be there before, and comes again.
    let said = words(&outputs(&broker.read("strand-labels"), "s"));
    assert!(said.ends_with(&["Ada".to_string(), "Lovelace".to_string()]) && said.len() <= 3, "{said:?}");
    assert_eq!(broker.read("strand-dead-letters"), []);
}

#[test]
fn states_survive_in_the_changelog_alone() {
    let (broker, place) = (Broker::start(), Place::new());
    let daemon = start(&place, &broker, "first", &INPUT);
    let sender = broker.sender();
    sender.piece("strand-input", "s", b"Ada Love", None);
    sender.piece("strand-input", "over", b"Grace ", Some("end"));
    sender.flush();
    broker.settle("strand", "strand-input", Duration::from_secs(10));
    assert!(daemon.stop().success());

    // Another directory: what it knows, it knows from the changelog.
    let daemon = start(&place, &broker, "second", &[]);
    assert!(daemon.metric("strand_restored_states_total") >= 2.0);
    assert_eq!(daemon.metric("strand_streams_live"), 1.0);
    sender.piece("strand-input", "s", b"lace ", None);
    sender.piece("strand-input", "over", b"Hopper ", None);
    sender.flush();
    let labels = broker.read_at_least("strand-labels", 4);
    assert_eq!(words(&outputs(&labels, "s")), ["Ada", "Lovelace"]);
    // An ended stream begins anew; its numbering goes on.
    let over = outputs(&labels, "over");
    assert_eq!(over.iter().map(|r| r.json()["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(over[1].json()["labels"][0]["start"], 0);
}

/// The group's offsets are set back: what the states have seen is skipped, what they have not is labelled.
#[test]
fn what_is_read_again_is_skipped() {
    let (broker, place) = (Broker::start(), Place::new());
    let daemon = start(&place, &broker, "a", &INPUT);
    let sender = broker.sender();
    for piece in ["Ada ", "went ", "to "] {
        sender.piece("strand-input", "s", piece.as_bytes(), None);
    }
    sender.flush();
    broker.settle("strand", "strand-input", Duration::from_secs(10));
    assert!(daemon.stop().success());
    // Another group has no offsets, so it reads all again.
    let daemon = start(&place, &broker, "b", &["kafka.group=another"]);
    sender.piece("strand-input", "s", b"Paris ", None);
    sender.flush();
    broker.settle("another", "strand-input", Duration::from_secs(10));
    assert_eq!(words(&outputs(&broker.read("strand-labels"), "s")), ["Ada", "went", "to", "Paris"]);
    eventually("counted", || daemon.metric("strand_records_skipped_total") == 3.0);
}

#[test]
fn a_stream_that_is_silent_for_long_is_ended() {
    let (broker, place) = (Broker::start(), Place::new());
    let _daemon = start(&place, &broker, "a", &["kafka.input_partitions=4", "state.stream_ttl=1s"]);
    broker.sender().piece("strand-input", "s", b"Ada Love", None);
    let labels = broker.read_at_least("strand-labels", 2);
    let last = labels.last().unwrap();
    assert_eq!((last.json()["final"].as_bool(), last.header("strand-source").as_str()), (Some(true), "strand"));
    assert_eq!(words(&outputs(&labels, "s")), ["Ada", "Love"]);
}

#[test]
fn a_broker_that_is_not_there_yet_is_waited_for() {
    let (port, place) = (free_port(), Place::new());
    let daemon = listening(command(&place, &format!("127.0.0.1:{port}"), "a", &INPUT));
    eventually("a reason", || reason(&daemon, "kafka").contains("Connection refused"));
    let said = reason(&daemon, "kafka");
    assert!(said.contains("no broker answers") && said.contains(&format!("127.0.0.1:{port}")), "{said}");
    assert_eq!(daemon.get("/healthz").status, 200);
    let (code, said) = check_online(&place, &format!("127.0.0.1:{port}"), &[]);
    assert!(code == 1 && said.contains("Connection refused") && said.contains("kafka.brokers"), "{said}");

    let broker = Broker::start_at(port);
    eventually("ready", || daemon.get("/readyz").status == 200);
    broker.sender().piece("strand-input", "s", b"Ada ", None);
    assert_eq!(words(&outputs(&broker.read_at_least("strand-labels", 1), "s")), ["Ada"]);
    // It goes away while we run.
    broker.kill();
    eventually("a reason", || !reason(&daemon, "kafka").is_empty());
    assert!(daemon.stop().success());
}

#[test]
fn an_input_that_does_not_exist_is_waited_for_with_the_command_that_creates_it() {
    let (broker, place) = (Broker::start(), Place::new());
    let daemon = listening(command(&place, &broker.address, "a", &["kafka.input=orders"]));
    eventually("a reason", || reason(&daemon, "kafka").contains("orders does not exist"));
    let said = reason(&daemon, "kafka");
    assert!(said.contains("--create --topic orders") && said.contains("kafka.input_partitions"), "{said}");
    let (code, said) = check_online(&place, &broker.address, &["kafka.input=orders"]);
    assert!(code == 1 && said.contains("orders does not exist"), "{said}");
    broker.topic("orders", 3, &[]);
    eventually("ready", || daemon.get("/readyz").status == 200);
    assert_eq!(daemon.metric("strand_partitions_assigned"), 3.0);
}

#[test]
fn topics_that_are_missing_are_created_with_what_they_need() {
    let (broker, place) = (Broker::start(), Place::new());
    let daemon = start(&place, &broker, "a", &["kafka.input_partitions=3", "input.max_record_bytes=2MiB"]);
    // Room for the labels of the largest record.
    let large: BTreeMap<String, String> = [("max.message.bytes".to_string(), (32 << 20).to_string())].into();
    assert_eq!(broker.settings("strand-state"), [("cleanup.policy".to_string(), "compact".to_string())].into());
    assert_eq!((broker.settings("strand-labels"), broker.settings("strand-dead-letters")), (large.clone(), large));
    for topic in ["strand-input", "strand-state", "strand-labels", "strand-dead-letters"] {
        assert_eq!(broker.ends(topic).len(), 3, "{topic}");
    }
    assert!(daemon.stop().success());
}

#[test]
fn a_changelog_that_does_not_fit_is_refused_with_the_command_that_fixes_it() {
    let (broker, place) = (Broker::start(), Place::new());
    broker.topic("strand-input", 4, &[]);
    broker.topic("deleting", 4, &[("cleanup.policy", "delete")]);
    broker.topic("small", 3, &[("cleanup.policy", "compact")]);
    for (topic, expected) in [
        ("deleting", ["cleanup.policy=delete", "--entity-name deleting --add-config cleanup.policy=compact"]),
        ("small", ["small has 3 partitions, the input strand-input has 4", "--delete --topic small"]),
    ] {
        let set = format!("kafka.changelog={topic}");
        let output = command(&place, &broker.address, "a", &[&set]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let (code, checked) = check_online(&place, &broker.address, &[&set]);
        assert_eq!(code, 1, "{checked}");
        for words in expected {
            assert!(said.contains(words) && checked.contains(words), "{words} is not in\n{said}\nor\n{checked}");
        }
    }
}

#[test]
fn labels_that_the_output_topic_does_not_take_are_a_dead_letter() {
    let (broker, place) = (Broker::start(), Place::new());
    broker.topic("strand-labels", 4, &[("max.message.bytes", "20000")]);
    let daemon = start(&place, &broker, "a", &INPUT);
    let sender = broker.sender();
    let long = "word ".repeat(1000);
    for (stream, piece) in [("s", "Ada "), ("s", long.as_str()), ("s", "Grace "), ("t", "Paris ")] {
        sender.piece("strand-input", stream, piece.as_bytes(), None);
    }
    sender.flush();
    let letters = broker.read_at_least("strand-dead-letters", 1);
    assert_eq!((letters.len(), letters[0].header("strand-error").as_str()), (1, "output_too_large"));
    assert_eq!(letters[0].value.as_deref(), Some(long.as_bytes()));
    assert!(letters[0].header("strand-error-detail").contains("max.message.bytes"));
    // The stream goes on: what was not published has its number.
    let labels = broker.read_at_least("strand-labels", 3);
    let numbers: Vec<u64> = outputs(&labels, "s").iter().map(|r| r.json()["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [0, 2]);
    assert!(outputs(&labels, "s")[1].json()["labels"][0]["start"].as_u64().unwrap() > 4000);
    eventually("counted", || daemon.metric("strand_dead_letters_total{code=\"output_too_large\"}") == 1.0);
}

#[test]
fn a_port_that_does_not_speak_tls_is_told_in_words() {
    let (broker, place) = (Broker::start(), Place::new());
    // The broker takes the greeting for the length of a request and waits for it.
    let silent = "kafka.properties.socket.connection.setup.timeout.ms=1500";
    let tls = ["kafka.properties.security.protocol=ssl", silent];
    let daemon = listening(command(&place, &broker.address, "a", &tls));
    eventually("a reason", || reason(&daemon, "kafka").contains("security.protocol"));
    let (code, said) = check_online(&place, &broker.address, &tls);
    assert!(code == 1 && said.contains("TLS could not be agreed on") && said.contains("librdkafka says"), "{said}");
}

#[test]
fn a_broker_that_does_not_take_the_credentials_is_told_in_words() {
    let (broker, place) = (Broker::start(), Place::new());
    let sasl = [
        "kafka.properties.security.protocol=sasl_plaintext",
        "kafka.properties.sasl.mechanism=PLAIN",
        "kafka.properties.sasl.username=ada",
        "kafka.properties.sasl.password=hush",
    ];
    let daemon = listening(command(&place, &broker.address, "a", &sasl));
    eventually("a reason", || reason(&daemon, "kafka").contains("sasl"));
    let (code, said) = check_online(&place, &broker.address, &sasl);
    assert!(code == 1 && said.contains("sasl.mechanism"), "{said}");
    assert!(!said.contains("hush") && !daemon.log().contains("hush"));
}

#[test]
fn states_of_another_model_are_refused_or_reset() {
    let (broker, place) = (Broker::start(), Place::new());
    let daemon = start(&place, &broker, "a", &INPUT);
    broker.sender().piece("strand-input", "s", b"Ada Love", None);
    broker.settle("strand", "strand-input", Duration::from_secs(10));
    assert!(daemon.stop().success());

    let other = Place::new();
    let spec = words_spec("tiny", layers(&[strand::rnn::Cell::Gru], 5));
    random_model(&other.model(), &spec, TEXT, 1).unwrap();
    let output = command(&other, &broker.address, "a", &[]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("states of another model"), "{said}");
    assert!(said.contains("--on-model-change reset"), "{said}");
    let mut reset = command(&other, &broker.address, "a", &[]);
    reset.args(["--on-model-change", "reset"]);
    let daemon = Daemon::start(reset);
    assert_eq!(daemon.metric("strand_streams_live"), 0.0);
    broker.sender().piece("strand-input", "s", b"lace ", None);
    assert_eq!(words(&outputs(&broker.read_at_least("strand-labels", 2), "s")), ["Ada", "lace"]);
}

#[test]
fn a_damaged_state_stops_its_partition_and_no_other() {
    let (broker, place) = (Broker::start(), Place::new());
    broker.topic("strand-state", 4, &[("cleanup.policy", "compact")]);
    let sender = broker.sender();
    sender.record("strand-state", Some(1), Some(b"s"), Some(b"no state"), &[], None);
    sender.flush();
    let daemon = listening(command(&place, &broker.address, "a", &INPUT));
    eventually("a reason", || reason(&daemon, "restore").contains("partition 1 is not served"));
    let said = reason(&daemon, "restore");
    assert!(said.contains("stream \"s\"") && said.contains("cannot be read"), "{said}");
    for partition in [0, 1, 2] {
        sender.record("strand-input", Some(partition), Some(b"k"), Some(b"Ada "), &[], None);
    }
    sender.flush();
    let labels = broker.read_at_least("strand-labels", 2);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(labels.iter().map(|record| record.partition).collect::<Vec<_>>(), [0, 2]);
    assert_eq!(broker.read("strand-labels").len(), 2);
}

#[test]
fn an_input_that_was_created_anew_is_not_skipped_in_silence() {
    let (broker, place) = (Broker::start(), Place::new());
    let daemon = start(&place, &broker, "a", &INPUT);
    for _ in 0..5 {
        broker.sender().record("strand-input", Some(0), Some(b"s"), Some(b"Ada "), &[], None);
    }
    broker.settle("strand", "strand-input", Duration::from_secs(10));
    assert!(daemon.stop().success());
    // The same changelog with an input that ends earlier.
    broker.topic("fresh", 4, &[]);
    let daemon = listening(command(&place, &broker.address, "b", &["kafka.input=fresh", "kafka.group=other"]));
    eventually("a reason", || reason(&daemon, "group").contains("partition 0 is not served"));
    let said = reason(&daemon, "group");
    assert!(said.contains("created anew") && said.contains("--reset-offsets"), "{said}");
}

#[test]
fn two_instances_share_the_partitions_and_hand_states_over() {
    let (broker, place) = (Broker::start(), Place::new());
    let settings = ["kafka.input_partitions=8"];
    let one = start(&place, &broker, "one", &settings);
    let sender = broker.sender();
    let streams: Vec<String> = (0..40).map(|k| format!("stream-{k}")).collect();
    let send = |piece: &str| streams.iter().for_each(|s| sender.piece("strand-input", s, piece.as_bytes(), None));
    send("Ada Love");
    broker.settle("strand", "strand-input", Duration::from_secs(10));
    let two = start(&place, &broker, "two", &settings);
    eventually("shared", || {
        let of = |daemon: &Daemon| daemon.metric("strand_partitions_assigned");
        (of(&one), of(&two)) == (4.0, 4.0)
    });
    send("lace went to Par");
    broker.settle("strand", "strand-input", Duration::from_secs(20));
    // Counted right after the group was told.
    eventually("both counted", || {
        two.metric("strand_restored_states_total") > 0.0 && two.metric("strand_records_total") > 0.0
    });
    // An orderly end hands everything back.
    assert!(two.stop().success());
    send("is ");
    broker.settle("strand", "strand-input", Duration::from_secs(20));
    let labels = broker.read("strand-labels");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for stream in &streams {
        let records = outputs(&labels, stream);
        assert_eq!(words(&records), ["Ada", "Lovelace", "went", "to", "Paris"], "{stream}");
        *counts.entry(format!("{} records", records.len())).or_default() += 1;
    }
    // Nothing crashed, so nothing is repeated.
    assert_eq!(counts, BTreeMap::from([("3 records".to_string(), 40)]));
    let seqs: Vec<Value> = outputs(&labels, "stream-7").iter().map(|r| r.json()["seq"].clone()).collect();
    assert_eq!(seqs, [0, 1, 2]);
    assert!(one.stop().success());
}
