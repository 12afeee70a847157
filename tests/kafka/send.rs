//! `strand send` on a real broker: what arrives, what it waits for, how it ends.

use crate::daemon_harness::{STRAND, eventually};
use crate::kafka_harness::{Broker, Record, free_port};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SAMPLE: &str = r#"{"stream":"b","text":"Ada Love"}
{"stream":"a","tokens":["Grace","Hopper"],"id":7}
{"stream":"b","text":"lace ","event":"flush"}

{"stream":"a","value":[1.5,-2]}
{"stream":"b","base64":"//4A"}
{"stream":"b","event":"end"}
"#;

/// A file with this content, in a directory that lives as long as the test.
fn file(content: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.jsonl");
    std::fs::write(&path, content).unwrap();
    (dir, path)
}

fn command(brokers: &str, file: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(STRAND);
    command.args(["send", "--brokers", brokers]).arg(file).args(more).stdin(Stdio::null());
    command
}

/// Runs it to its end: exit code and what it said.
fn send(brokers: &str, file: &Path, more: &[&str]) -> (i32, String) {
    let output = command(brokers, file, more).output().unwrap();
    assert_eq!(output.stdout, b"");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A `strand send` that goes on, and what it says.
struct Sending {
    child: Child,
    said: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Sending {
    fn start(mut command: Command) -> Sending {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (lines, said) = (BufReader::new(child.stderr.take().unwrap()).lines(), Arc::new(Mutex::new(String::new())));
        let heard = said.clone();
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *heard.lock().unwrap() += &(line + "\n");
            }
        });
        Sending { child, said, reader: Some(reader) }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// How it ended, once it has.
    fn end(mut self) -> (i32, String) {
        eventually("strand send ends", || self.child.try_wait().unwrap().is_some());
        self.reader.take().unwrap().join().unwrap();
        (self.child.wait().unwrap().code().unwrap(), self.said())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Each record of a stream as `value` or `value+event`, in order.
fn pieces(records: &[Record], stream: &str) -> Vec<String> {
    let of_stream = records.iter().filter(|record| record.key.as_deref() == Some(stream.as_bytes()));
    let shown = of_stream.map(|record| {
        let event = record.headers.first().map(|(name, value)| {
            assert_eq!((name.as_str(), record.headers.len()), ("strand-event", 1));
            format!("+{}", String::from_utf8(value.clone().unwrap()).unwrap())
        });
        String::from_utf8_lossy(record.value.as_deref().unwrap()).into_owned() + &event.unwrap_or_default()
    });
    shown.collect()
}

#[test]
fn lines_become_records_with_their_key_value_and_event() {
    let (broker, (_dir, path)) = (Broker::start(), file(SAMPLE));
    broker.topic("strand-input", 8, &[]);
    let (code, said) = send(&broker.address, &path, &[]);
    assert_eq!(code, 0, "{said}");
    let summary = format!("sent 6 records to strand-input at {}, 6 acknowledged, in ", broker.address);
    assert!(said.starts_with(&summary) && said.lines().count() == 1, "{said}");

    let records = broker.read("strand-input");
    assert_eq!(records.len(), 6);
    assert_eq!(pieces(&records, "a"), [r#"["Grace","Hopper"]"#, "[1.5,-2]"]);
    assert_eq!(pieces(&records, "b"), ["Ada Love", "lace +flush", "\u{fffd}\u{fffd}\0", "+end"]);
    let raw = records.iter().filter(|record| record.key.as_deref() == Some(b"b")).nth(2).unwrap();
    assert_eq!(raw.value.as_deref(), Some(&b"\xff\xfe\x00"[..]));
    // A key has the partition that Java's producers give it.
    let sender = broker.sender();
    ["a", "b"].iter().for_each(|key| sender.piece("strand-input", key, b"later", None));
    sender.flush();
    for key in ["a", "b"] {
        let of_key = broker.read("strand-input").into_iter().filter(|record| record.key_text() == key);
        let partitions: Vec<i32> = of_key.map(|record| record.partition).collect();
        assert!(partitions.len() > 2 && partitions.iter().all(|p| *p == partitions[0]), "{partitions:?}");
    }
}

#[test]
fn a_file_becomes_many_streams_that_interleave() {
    let (broker, (_dir, path)) = (Broker::start(), file(SAMPLE));
    broker.topic("elsewhere", 1, &[]);
    let (code, said) = send(&broker.address, &path, &["--topic", "elsewhere", "--streams", "5"]);
    assert!(code == 0 && said.contains("sent 30 records to elsewhere"), "{said}");
    let records = broker.read("elsewhere");
    assert_eq!(records.len(), 30);
    for copy in 0..5 {
        assert_eq!(pieces(&records, &format!("a-{copy}")), [r#"["Grace","Hopper"]"#, "[1.5,-2]"]);
        assert_eq!(pieces(&records, &format!("b-{copy}")).len(), 4);
    }
    // The second copy begins before the first has ended.
    let place =
        |key: &str, which: usize| records.iter().filter(|record| record.key_text() == key).nth(which).unwrap().offset;
    assert!(place("b-0", 0) < place("b-1", 0) && place("b-1", 0) < place("b-0", 3));
}

#[test]
fn it_waits_for_the_broker_and_for_the_topic_and_creates_none() {
    let (port, (_dir, path)) = (free_port(), file(SAMPLE));
    let address = format!("127.0.0.1:{port}");
    let sending = Sending::start(command(&address, &path, &[]));
    eventually("it says what it waits for", || sending.said().contains("no broker answers"));
    assert!(sending.said().contains("Connection refused"), "{}", sending.said());
    let broker = Broker::start_at(port);
    eventually("it says that there is no topic", || sending.said().contains("strand-input does not exist"));
    let create = format!("--bootstrap-server {address} --create --topic strand-input");
    assert!(sending.said().contains(&create), "{}", sending.said());
    // Had it been created by asking for it, this would fail.
    broker.topic("strand-input", 2, &[]);
    let (code, said) = sending.end();
    assert!(code == 0 && said.contains("sent 6 records") && said.contains(", 6 acknowledged"), "{said}");
    assert_eq!(said.matches("no broker answers").count(), 1, "said once: {said}");
    assert_eq!(broker.read("strand-input").len(), 6);
}

#[test]
fn ended_while_waiting_it_has_sent_nothing() {
    let (broker, (_dir, path)) = (Broker::start(), file(SAMPLE));
    let sending = Sending::start(command(&broker.address, &path, &[]));
    eventually("it says that there is no topic", || sending.said().contains("strand-input does not exist"));
    sending.signal("INT");
    let (code, said) = sending.end();
    assert!(code == 0 && said.contains("sent 0 records"), "{said}");
}

#[test]
fn repeating_at_a_rate_it_goes_on_until_it_is_told_to_end() {
    let (broker, (_dir, path)) = (Broker::start(), file(SAMPLE));
    broker.topic("strand-input", 3, &[]);
    let begun = Instant::now();
    let sending = Sending::start(command(&broker.address, &path, &["--repeat", "--rate", "200", "--streams", "2"]));
    let count = || broker.ends("strand-input").iter().map(|(low, high)| high - low).sum::<i64>();
    eventually("records arrive", || count() > 100);
    sending.signal("TERM");
    let (code, said) = sending.end();
    let most = begun.elapsed().as_secs_f64() * 200.0 + 1.0;
    assert_eq!(code, 0, "{said}");
    let records = broker.read("strand-input");
    let summary = format!("sent {0} records to strand-input at {1}, {0} acknowledged", records.len(), broker.address);
    assert!(said.contains(&summary), "{} records; {said}", records.len());
    assert!((records.len() as f64) < most, "{} records, more than {most}", records.len());
    // The first copy has been through the file several times; after the end its stream begins anew.
    let of_b = pieces(&records, "b-0");
    let expected = ["Ada Love", "lace +flush", "\u{fffd}\u{fffd}\0", "+end"];
    assert!(of_b.len() > 8 && of_b.iter().zip(expected.iter().cycle()).all(|(a, b)| a == b), "{of_b:?}");
}

#[test]
fn standard_input_is_sent_as_it_comes() {
    let broker = Broker::start();
    broker.topic("strand-input", 1, &[]);
    let mut sending = Sending::start({
        let mut command = command(&broker.address, Path::new("-"), &[]);
        command.stdin(Stdio::piped());
        command
    });
    let mut stdin = sending.child.stdin.take().unwrap();
    stdin.write_all(b"{\"stream\":\"s\",\"text\":\"Ada \"}\n").unwrap();
    // The input goes on.
    assert_eq!(pieces(&broker.read_at_least("strand-input", 1), "s"), ["Ada "]);
    stdin
        .write_all(b"{\"stream\":\"s\",\"text\":\"Grace \"}\nnonsense\n{\"stream\":\"s\",\"text\":\"never\"}\n")
        .unwrap();
    let (code, said) = sending.end();
    assert!(code == 1 && said.contains("strand: standard input, line 3: "), "{said}");
    assert!(said.contains("sent 2 records") && said.contains(", 2 acknowledged"), "{said}");
    assert_eq!(pieces(&broker.read("strand-input"), "s"), ["Ada ", "Grace "]);
}

#[test]
fn a_bad_line_in_a_file_that_is_held_stops_it_before_anything_is_sent() {
    let (broker, (_dir, path)) = (Broker::start(), file("{\"stream\":\"s\",\"text\":\"x\"}\n{\"text\":\"y\"}\n"));
    broker.topic("strand-input", 1, &[]);
    let (code, said) = send(&broker.address, &path, &["--streams", "2"]);
    assert!(code == 1 && said.contains("records.jsonl, line 2: \"stream\" is missing"), "{said}");
    assert!(broker.read("strand-input").is_empty());
}

#[test]
fn a_record_that_is_too_large_is_told_with_its_line() {
    let large = "x".repeat(5000);
    let content = format!("{{\"stream\":\"s\",\"text\":\"small\"}}\n{{\"stream\":\"s\",\"text\":\"{large}\"}}\n");
    let (broker, (_dir, path)) = (Broker::start(), file(&content));
    broker.topic("strand-input", 1, &[]);
    // By our own limit ...
    let (code, said) = send(&broker.address, &path, &["--set", "kafka.properties.message.max.bytes=2000"]);
    assert!(code == 1 && said.contains("records.jsonl, line 2: ") && said.contains("size"), "{said}");
    assert!(said.contains("sent 1 records") && said.contains(", 1 acknowledged"), "{said}");
    assert_eq!(pieces(&broker.read("strand-input"), "s"), ["small"]);
    // ... and by the broker's.
    let mock = Broker::mock(1);
    mock.topic("strand-input", 1, &[]);
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    mock.cluster().request_errors(RDKafkaApiKey::Produce, &[refusal]);
    let (_dir, path) = file("\n{\"stream\":\"s\",\"text\":\"small\"}\n");
    let (code, said) = send(&mock.address, &path, &[]);
    assert!(code == 1 && said.contains("records.jsonl, line 2: sending to strand-input: "), "{said}");
    assert!(said.contains("max.message.bytes") && said.contains("sent 1 records"), "{said}");
    assert!(said.contains(", 0 acknowledged"), "{said}");
}

#[test]
fn a_broker_that_goes_away_for_a_while_is_waited_for() {
    let mock = Broker::mock(1);
    mock.topic("strand-input", 1, &[]);
    let (_dir, path) = file(SAMPLE);
    let sending = Sending::start(command(&mock.address, &path, &["--repeat", "--rate", "100"]));
    let count = || mock.ends("strand-input")[0].1;
    eventually("records arrive", || count() > 20);
    mock.cluster().broker_down(1).unwrap();
    eventually("it says what it waits for", || sending.said().contains("strand: waiting: "));
    mock.cluster().broker_up(1).unwrap();
    let before = count();
    eventually("records arrive again", || count() > before + 20);
    sending.signal("TERM");
    let (code, said) = sending.end();
    assert_eq!(code, 0, "{said}");
    // Nothing twice, nothing lost: the records are the lines over and over.
    let records = mock.read("strand-input");
    let summary = format!("sent {0} records to strand-input at {1}, {0} acknowledged", records.len(), mock.address);
    assert!(said.contains(&summary), "{} records; {said}", records.len());
    let expected = ["b", "a", "b", "a", "b", "b"];
    assert!(
        records.iter().map(Record::key_text).eq(expected.iter().cycle().take(records.len()).map(|k| k.to_string()))
    );
}

#[test]
fn brokers_topic_and_properties_come_from_the_configuration_too() {
    let (broker, (dir, path)) = (Broker::start(), file(SAMPLE));
    broker.topic("orders", 1, &[]);
    let config = dir.path().join("strand.toml");
    let text = format!(
        "model = \"not/there\"\n[kafka]\nbrokers = \"{}\"\ninput = \"orders\"\n[kafka.properties]\n\"acks\" = \"all\"\n",
        broker.address
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(STRAND);
    command.arg("send").arg(&path).arg("--config").arg(&config);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(broker.read("orders").len(), 6);
    command.args(["--set", "kafka.properties.compresion.codec=lz4"]);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && said.contains("compresion.codec"), "{said}");
}

#[test]
fn what_cannot_be_is_wrong_usage() {
    let (_dir, path) = file(SAMPLE);
    for (arguments, words) in [
        ("--rate=0", "--rate must be greater than 0"),
        ("--rate=-3", "--rate must be greater than 0"),
        ("--rate=NaN", "--rate must be greater than 0"),
        ("--streams=0", "--streams must be at least 1"),
        ("--set=kafka.group.id", "key=value"),
    ] {
        let (code, said) = send("127.0.0.1:1", &path, &[arguments]);
        assert!(code == 2 && said.contains(words), "{arguments}: {code}, {said}");
    }
    let (code, said) = send("127.0.0.1:1", Path::new("no/such/file"), &[]);
    assert!(code == 2 && said.contains("cannot read no/such/file"), "{said}");
    let begun = Instant::now();
    assert_eq!(send("127.0.0.1:1", &path, &["--streams", "x"]).0, 2);
    assert!(begun.elapsed() < Duration::from_secs(5), "no broker is needed to say so");
}
