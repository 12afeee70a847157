//! The examples in `examples/kafka`, run as users would: against a broker, and against Strand on it.

use crate::daemon_harness::{Daemon, Place, STRAND, eventually};
use crate::kafka_harness::{Broker, settings, tool, with_librdkafka};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/kafka").join(name)
}

/// A Python example, on this broker.
fn python(broker: &Broker, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(tool("venv/bin/python"));
    command.arg(example(name)).args(arguments).args(["--brokers", &broker.address]);
    command
}

/// A shell example, on this broker.
fn shell(broker: &Broker, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(example(name));
    with_librdkafka(&mut command);
    command.args(arguments).env("BROKERS", &broker.address).env_remove("TOPIC");
    command
}

/// Runs it to its end with this input; it must go well.
fn run(mut command: Command, input: &[u8]) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert!(status.success(), "{command:?}: {status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// `consumer.py` in the background, and what it has printed.
struct Consumer {
    child: Child,
    printed: Arc<Mutex<String>>,
}

impl Consumer {
    /// The broker of these tests needs a short session.
    fn start(broker: &Broker, arguments: &[&str]) -> Consumer {
        let mut command = python(broker, "consumer.py", &["-X", "session.timeout.ms=6000"]);
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let (mut stdout, printed) = (child.stdout.take().unwrap(), Arc::new(Mutex::new(String::new())));
        let copy = printed.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = std::io::Read::read(&mut stdout, &mut buffer) {
                *copy.lock().unwrap() += std::str::from_utf8(&buffer[..count]).unwrap();
            }
        });
        Consumer { child, printed }
    }

    /// What it has printed once there are this many lines.
    fn lines(&self, count: usize) -> Vec<String> {
        let lines = || self.printed.lock().unwrap().lines().map(ToString::to_string).collect::<Vec<_>>();
        eventually(&format!("{count} lines"), || lines().len() >= count);
        lines()
    }

    /// Ctrl-C, and that it ends in order.
    fn stop(mut self) {
        let sent = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        eventually("consumer.py ends", || self.child.try_wait().unwrap().is_some());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Strand with the shipped English model on this broker.
fn strand(place: &Place, broker: &Broker) -> Daemon {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/ner-en");
    let mut command = Command::new(STRAND);
    command.args(["run", "--log-format", "json", "--http", "127.0.0.1:0", "--model"]).arg(model);
    command.args(settings(place, &broker.address, "examples", &["kafka.input_partitions=8"])).env_remove("RUST_LOG");
    Daemon::start(command)
}

/// The fenced block of the examples' README that begins with this line.
fn block_of_readme(begin: &str) -> Vec<String> {
    let readme = std::fs::read_to_string(example("README.md")).unwrap();
    let block = readme.split("```").find(|block| block.lines().nth(1) == Some(begin)).unwrap();
    block.lines().skip(1).map(ToString::to_string).collect()
}

#[test]
fn both_languages_send_texts_and_show_their_entities() {
    let (broker, place) = (Broker::start(), Place::new());
    let _strand = strand(&place, &broker);
    let consumer = Consumer::start(&broker, &[]);

    // As the README says, with the answer that it promises.
    let promised = block_of_readme("news\tPER\tAngela Merkel\tstrand-input/1/0");
    run(python(&broker, "producer.py", &["news"]), b"Angela Merkel met Barack Obama in Berlin.\n");
    assert_eq!(consumer.lines(3), promised);

    // An entity that goes over two records is put together again.
    let text = b"Ada Lovelace lived in\nLondon. She met Charles\nBabbage there.\n";
    run(shell(&broker, "produce.sh", &["letter"]), text);
    let lines = consumer.lines(5);
    let entities: Vec<&str> = lines[3..].iter().map(|line| line.rsplit_once('\t').unwrap().0).collect();
    assert_eq!(entities, ["letter\tLOC\tLondon", "letter\tPER\tCharles Babbage"]);
    assert!(lines[4].ends_with("/2"), "{lines:?}");
    consumer.stop();

    let shown = run(shell(&broker, "consume.sh", &["-e"]), b"");
    let of_news: Vec<&str> = shown.lines().filter(|line| line.starts_with("news\t")).collect();
    let [first, last] = of_news[..] else { panic!("{shown}") };
    assert!(
        first.starts_with("news\tstrand-source=strand-input/1/0,strand-model=ner-en\t{\"stream\":\"news\""),
        "{first}"
    );
    assert!(last.ends_with("\"final\":true}"), "{last}");
    assert_eq!(shown.lines().filter(|line| line.starts_with("letter\t")).count(), 4);
}

#[test]
fn the_python_producer_sends_pieces_cut_anywhere_and_ends_the_stream() {
    let broker = Broker::start();
    broker.topic("elsewhere", 4, &[]);
    // 64 bytes end within a character of it.
    let text = "x".to_string() + &"Zażółć gęślą jaźń. ".repeat(20);
    run(python(&broker, "producer.py", &["s", "--topic", "elsewhere"]), text.as_bytes());
    run(python(&broker, "producer.py", &["s", "--topic", "elsewhere", "--event", "flush"]), b"more");
    let records = broker.read("elsewhere");
    assert!(records.iter().all(|record| record.key_text() == "s"));
    let values: Vec<u8> = records.iter().flat_map(|record| record.value.clone().unwrap()).collect();
    assert_eq!(String::from_utf8(values).unwrap(), text + "more");
    let events = records.iter().filter(|record| !record.headers.is_empty());
    let events: Vec<String> = events.map(|record| record.header("strand-event")).collect();
    assert_eq!(events, ["end", "flush"]);
    // Pieces are small, and some end within a character.
    let largest = records.iter().map(|record| record.value.as_ref().unwrap().len()).max().unwrap();
    let cut = records.iter().any(|record| std::str::from_utf8(record.value.as_ref().unwrap()).is_err());
    assert!(largest <= 64 && cut, "{records:?}");
    // Where the key's records lie is where other clients would put them.
    broker.sender().piece("elsewhere", "s", b"", None);
    let partitions: Vec<i32> =
        broker.read_at_least("elsewhere", records.len() + 1).iter().map(|r| r.partition).collect();
    assert!(partitions.iter().all(|partition| *partition == partitions[0]), "{partitions:?}");
}

#[test]
fn the_python_producer_says_what_was_not_sent() {
    let broker = Broker::start();
    let large =
        ["s", "-X", "message.max.bytes=1000", "-X", "bootstrap.servers=127.0.0.1:1", "-X", "message.timeout.ms=500"];
    let mut command = python(&broker, "producer.py", &large);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"Ada ").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("producer.py: not all was sent: "), "{said}");
    assert!(said.contains("_MSG_TIMED_OUT"), "{said}");
}

#[test]
fn the_shell_producer_keeps_lines_apart_and_ends_the_stream() {
    let broker = Broker::start();
    broker.topic("elsewhere", 4, &[]);
    let mut command = shell(&broker, "produce.sh", &["a stream", "-X", "linger.ms=1"]);
    command.env("TOPIC", "elsewhere");
    run(command, "Ada wrote\n\nto  Zoë".as_bytes());
    let records = broker.read("elsewhere");
    assert!(records.iter().all(|record| record.key_text() == "a stream"));
    let values: Vec<String> = records.iter().map(|r| String::from_utf8(r.value.clone().unwrap()).unwrap()).collect();
    assert_eq!(values, ["Ada wrote ", " ", "to  Zoë ", " "]);
    assert_eq!(records[3].header("strand-event"), "end");
    assert!(records[..3].iter().all(|record| record.headers.is_empty()));
    let output = shell(&broker, "produce.sh", &[]).stdin(Stdio::null()).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("usage: produce.sh STREAM"));
}

#[test]
fn the_python_consumer_takes_each_source_once() {
    let broker = Broker::start();
    broker.topic("labels", 1, &[]);
    let sender = broker.sender();
    let put = |stream: &str, source: &str, labels: &[(u64, &str, &str)], spans: &[(u64, u64, &str)], last: bool| {
        let labels = labels.iter().map(|(start, text, label)| {
            json!({"start": start, "end": start + text.len() as u64, "text": text, "label": label, "score": 0.9})
        });
        let spans = spans.iter().map(|(start, end, label)| json!({"start": start, "end": end, "label": label}));
        let (labels, spans) = (labels.collect::<Vec<_>>(), spans.collect::<Vec<_>>());
        let value = json!({"stream": stream, "seq": 0, "model": "m", "labels": labels, "spans": spans, "final": last});
        let headers = [("strand-source", Some(source.as_bytes())), ("strand-model", Some(b"m".as_slice()))];
        sender.record("labels", Some(0), Some(stream.as_bytes()), Some(value.to_string().as_bytes()), &headers, None);
    };
    // Two words that touch, and an entity that is open at the end of a record.
    let first = || put("s", "in/0/5", &[(0, "Rolls", "B-ORG"), (5, "-", "I-ORG"), (6, "Royce", "I-ORG")], &[], false);
    let second = || put("s", "in/0/6", &[(12, "Ltd", "I-ORG"), (16, "paid", "O")], &[(0, 15, "ORG")], false);
    first();
    put("t", "in/0/7", &[(0, "Rome", "B-LOC")], &[(0, 4, "LOC")], true);
    second();
    // What comes again after a crash, with the same source.
    first();
    second();
    put("s", "in/0/8", &[(21, "Ada", "B-PER"), (25, "Paris", "B-LOC")], &[(21, 24, "PER"), (25, 30, "LOC")], false);
    put("s", "strand", &[], &[], true);
    // A stream that begins anew.
    put("s", "in/0/9", &[(0, "Oslo", "B-LOC"), (5, "is", "O")], &[(0, 4, "LOC")], false);
    sender.flush();
    let consumer = Consumer::start(&broker, &["--topic", "labels", "--group", "g"]);
    let expected = [
        "t\tLOC\tRome\tin/0/7",
        "s\tORG\tRolls-Royce Ltd\tin/0/6",
        "s\tPER\tAda\tin/0/8",
        "s\tLOC\tParis\tin/0/8",
        "s\tLOC\tOslo\tin/0/9",
    ];
    assert_eq!(consumer.lines(5), expected);
    consumer.stop();
    // Its group has taken all: who comes next goes on from there.
    assert_eq!(broker.lag("g", "labels"), [0]);
    put("u", "in/0/10", &[(0, "Bonn", "B-LOC")], &[(0, 4, "LOC")], false);
    sender.flush();
    let consumer = Consumer::start(&broker, &["--topic", "labels", "--group", "g"]);
    assert_eq!(consumer.lines(1), ["u\tLOC\tBonn\tin/0/10"]);
}
