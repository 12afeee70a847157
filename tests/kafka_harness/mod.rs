//! A real broker (Tansu, fetched by `tests/setup.sh`) as a child process, our own (`tests/broker`), in this process or as
//! one that can be killed, librdkafka's mock cluster for errors that a real one does not make on demand, and what tests
//! do with them.
//!
//! Tansu keeps all in memory and speaks Kafka's protocol as far as is needed here: topics and their settings, idempotent
//! producing, groups. Three things to know: a group needs `session.timeout.ms=6000` (with 45 s a join hangs); a fetch
//! waits for `fetch.wait.max.ms` even when there is something to fetch; asked for the end of a partition, it names the
//! second record of the last batch, so ends must be found by reading. The mock cluster has no admin interface.
#![allow(dead_code, reason = "each test file uses a part")]

use super::daemon_harness::{Daemon, Place};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use strand_test_broker::Options;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// A tool that `tests/setup.sh` puts in place.
pub fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools").join(name);
    assert!(path.exists(), "{} is missing: run tests/setup.sh first", path.display());
    path
}

/// kcat, with a librdkafka that understands the broker.
pub fn kcat() -> Command {
    let mut command = Command::new("kcat");
    with_librdkafka(&mut command);
    command
}

/// Has a program, and those that it starts, use the librdkafka that `tests/setup.sh` fetched: Debian 12's cannot read
/// the broker's first answer.
pub fn with_librdkafka(command: &mut Command) {
    command.env("LD_LIBRARY_PATH", tool("lib/librdkafka.so.1").parent().unwrap());
}

/// A port that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A running broker. Killed when dropped.
pub struct Broker {
    kind: Kind,
    /// As in `kafka.brokers`.
    pub address: String,
}

enum Kind {
    Tansu(Child),
    Own(strand_test_broker::Broker, Option<TempDir>),
    OwnProcess { child: Child, control: String },
    Mock(MockCluster<'static, DefaultProducerContext>),
}

/// A record as it lies in a topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    pub timestamp_ms: Option<i64>,
}

impl Record {
    pub fn header(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name}: {self:?}"));
        String::from_utf8(found.1.clone().unwrap()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(self.value.as_ref().unwrap()).unwrap()
    }

    pub fn key_text(&self) -> String {
        String::from_utf8(self.key.clone().unwrap()).unwrap()
    }
}

impl Broker {
    pub fn start() -> Broker {
        Broker::start_at(free_port())
    }

    /// On a port that something else has been told already.
    pub fn start_at(port: u16) -> Broker {
        let address = format!("127.0.0.1:{port}");
        let url = format!("tcp://{address}");
        let mut command = Command::new(tool("tansu"));
        command.args(["broker", "--listener-url", &url, "--advertised-listener-url", &url]);
        command.args(["--storage-engine", "memory://tansu/"]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let broker = Broker { kind: Kind::Tansu(child), address };
        let begun = Instant::now();
        while TcpStream::connect(&broker.address).is_err() {
            assert!(begun.elapsed() < PATIENCE, "the broker does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        broker
    }

    /// Our own broker, in this process.
    pub fn own() -> Broker {
        let dir = TempDir::new().unwrap();
        Broker::own_with(Options::new(dir.path()), Some(dir))
    }

    /// Our own broker on a port that something else has been told already.
    pub fn own_at(port: u16) -> Broker {
        let dir = TempDir::new().unwrap();
        let mut options = Options::new(dir.path());
        options.listen = format!("127.0.0.1:{port}");
        Broker::own_with(options, Some(dir))
    }

    /// Whether it is ours, and does transactions by the book.
    pub fn is_own(&self) -> bool {
        matches!(self.kind, Kind::Own(..) | Kind::OwnProcess { .. })
    }

    /// Our own broker with these options; the directory, if given, is removed with it.
    pub fn own_with(options: Options, dir: Option<TempDir>) -> Broker {
        let broker = strand_test_broker::Broker::start(options).unwrap();
        let address = broker.address();
        Broker { kind: Kind::Own(broker, dir), address }
    }

    /// Our own broker in this process, with a second address for a proxy to lead to: see [`Options::proxy`].
    pub fn own_behind(proxy: SocketAddr) -> Broker {
        let dir = TempDir::new().unwrap();
        let mut options = Options::new(dir.path());
        options.proxy = Some(proxy);
        Broker::own_with(options, Some(dir))
    }

    /// Our own broker as a process, on a directory that outlives it.
    pub fn own_process(dir: &Path, port: u16) -> Broker {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "kafka_harness::broker_process", "--ignored", "--nocapture"]);
        command.env("STRAND_TEST_BROKER_DIR", dir).env("STRAND_TEST_BROKER_PORT", port.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let control = lines.map_while(Result::ok).find_map(|line| Some(line.split_once("commands on ")?.1.to_string()));
        let control = control.expect("the broker's process says where it takes commands");
        Broker { kind: Kind::OwnProcess { child, control }, address: format!("127.0.0.1:{port}") }
    }

    /// Our own broker in this process, for faults.
    pub fn faulty(&self) -> &strand_test_broker::Broker {
        match &self.kind {
            Kind::Own(broker, _) => broker,
            _ => panic!("this is not our own broker in this process"),
        }
    }

    /// Tells our own broker's process what is to go wrong: see `strand-test-broker --help`.
    pub fn command(&self, line: &str) {
        let Kind::OwnProcess { control, .. } = &self.kind else { panic!("this is not our own broker's process") };
        let mut stream = TcpStream::connect(control).unwrap();
        writeln!(stream, "{line}").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert_eq!(answer, "ok\n");
    }

    /// Waits until a fault has ended our own broker's process.
    pub fn ended(mut self) {
        let Kind::OwnProcess { child, .. } = &mut self.kind else { panic!("this is not our own broker's process") };
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "the broker goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A mock cluster of this many brokers in this process; programs reach it over TCP.
    pub fn mock(brokers: i32) -> Broker {
        let cluster = MockCluster::new(brokers).unwrap();
        let address = cluster.bootstrap_servers();
        Broker { kind: Kind::Mock(cluster), address }
    }

    /// The mock cluster, for making errors.
    pub fn cluster(&self) -> &MockCluster<'static, DefaultProducerContext> {
        match &self.kind {
            Kind::Mock(cluster) => cluster,
            _ => panic!("this is no mock cluster"),
        }
    }

    pub fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.address).set("session.timeout.ms", "6000");
        client
    }

    /// Creates a topic with these settings, of which a mock cluster has none.
    pub fn topic(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        if let Kind::Mock(cluster) = &self.kind {
            assert!(settings.is_empty(), "a mock cluster has no settings of topics");
            return cluster.create_topic(name, partitions, 1).unwrap();
        }
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in settings {
            topic = topic.set(key, value);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let results = runtime.block_on(admin.create_topics([&topic], &options)).unwrap();
        results.into_iter().for_each(|result| _ = result.unwrap());
    }

    /// The settings of a topic, as far as the broker tells: Tansu tells those that the topic was created with.
    pub fn settings(&self, topic: &str) -> BTreeMap<String, String> {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let options = AdminOptions::new().request_timeout(Some(PATIENCE));
        let topic = [ResourceSpecifier::Topic(topic)];
        let answers = runtime.block_on(admin.describe_configs(&topic, &options)).unwrap();
        let entries = answers.into_iter().flat_map(|answer| answer.unwrap().entries);
        entries.map(|entry| (entry.name, entry.value.unwrap_or_default())).collect()
    }

    pub fn sender(&self) -> Sender {
        self.sender_of(&[])
    }

    /// A sender with these settings of librdkafka's.
    pub fn sender_of(&self, settings: &[(&str, &str)]) -> Sender {
        let mut client = self.client();
        settings.iter().for_each(|(name, value)| _ = client.set(*name, *value));
        client.set("linger.ms", "1").set("partitioner", "murmur2_random").set("enable.idempotence", "true");
        Sender { producer: client.create().unwrap() }
    }

    fn consumer(&self) -> BaseConsumer {
        let mut client = self.client();
        client.set("group.id", "reader").set("enable.auto.commit", "false").set("fetch.wait.max.ms", "10");
        client.set("enable.partition.eof", "true").create().unwrap()
    }

    /// First and next offset of each partition.
    pub fn ends(&self, topic: &str) -> Vec<(i64, i64)> {
        let consumer = self.consumer();
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        let partitions = metadata.topics()[0].partitions().len() as i32;
        let named = (0..partitions).map(|partition| consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap());
        let mut ends: Vec<(i64, i64)> = named.collect();
        let from: Vec<i64> = ends.iter().map(|(low, high)| *low.max(&(high - 1))).collect();
        for record in read_on(&consumer, topic, &from) {
            ends[record.partition as usize].1 = record.offset + 1;
        }
        ends
    }

    /// All records of a topic, partition by partition.
    pub fn read(&self, topic: &str) -> Vec<Record> {
        let consumer = self.consumer();
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        let partitions = metadata.topics()[0].partitions().len() as i32;
        let lows = (0..partitions).map(|partition| consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap().0);
        let mut records = read_on(&consumer, topic, &lows.collect::<Vec<_>>());
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// The last records of each partition, this many at most.
    pub fn tail(&self, topic: &str, count: i64) -> Vec<Record> {
        let from: Vec<i64> = self.ends(topic).iter().map(|(low, high)| *low.max(&(high - count))).collect();
        read_on(&self.consumer(), topic, &from)
    }

    /// For each partition, whether it has records whose transaction has not ended.
    pub fn open_transactions(&self, topic: &str) -> Vec<bool> {
        let ends = ["read_committed", "read_uncommitted"].map(|isolation| {
            let consumer: BaseConsumer =
                self.client().set("group.id", "reader").set("isolation.level", isolation).create().unwrap();
            let partitions = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap().topics()[0].partitions().len();
            let end = |partition| consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap().1;
            (0..partitions as i32).map(end).collect::<Vec<i64>>()
        });
        ends[0].iter().zip(&ends[1]).map(|(committed, all)| committed < all).collect()
    }

    /// Records of a topic once there are this many.
    pub fn read_at_least(&self, topic: &str, count: usize) -> Vec<Record> {
        let begun = Instant::now();
        loop {
            // Ends tell less: the end of a transaction takes an offset too.
            let there = self.read(topic);
            if there.len() >= count {
                return there;
            }
            assert!(begun.elapsed() < PATIENCE, "{topic} has {} records, not {count}", there.len());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What a group has committed, by partition; -1 for nothing.
    pub fn committed(&self, group: &str, topic: &str) -> Vec<i64> {
        let mut client = self.client();
        let consumer: BaseConsumer = client.set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, self.ends(topic).len() as i32 - 1);
        let committed = consumer.committed_offsets(list, PATIENCE).unwrap();
        let mut offsets: Vec<(i32, i64)> =
            committed.elements().iter().map(|e| (e.partition(), e.offset().to_raw().unwrap_or(-1).max(-1))).collect();
        offsets.sort_unstable();
        offsets.into_iter().map(|(_, offset)| offset).collect()
    }

    /// How many records of each partition the group has still to read.
    pub fn lag(&self, group: &str, topic: &str) -> Vec<i64> {
        let (ends, committed) = (self.ends(topic), self.committed(group, topic));
        ends.iter().zip(&committed).map(|((low, high), done)| high - low.max(done)).collect()
    }

    /// Waits until the group has committed all of the topic.
    pub fn settle(&self, group: &str, topic: &str, patience: Duration) {
        let begun = Instant::now();
        loop {
            let lag = self.lag(group, topic);
            if lag.iter().all(|&lag| lag == 0) {
                return;
            }
            assert!(begun.elapsed() < patience, "{topic} is not done; by partition, there are {lag:?} records to read");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// kill -9; our own broker in this process stops as abruptly.
    pub fn kill(mut self) {
        if let Kind::Own(..) = self.kind {
            return;
        }
        let (Kind::Tansu(child) | Kind::OwnProcess { child, .. }) = &mut self.kind else {
            panic!("this broker is no process")
        };
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// Reads each partition from this offset to its end.
fn read_on(consumer: &BaseConsumer, topic: &str, from: &[i64]) -> Vec<Record> {
    let mut list = TopicPartitionList::new();
    for (partition, offset) in from.iter().enumerate() {
        list.add_partition_offset(topic, partition as i32, Offset::Offset(*offset)).unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut records, mut at_end, begun, mut heard) = (Vec::new(), BTreeSet::new(), Instant::now(), Instant::now());
    while at_end.len() < from.len() {
        assert!(
            begun.elapsed() < 4 * PATIENCE,
            "{topic} cannot be read to its end: from {from:?} there came {} records; ended: {at_end:?}",
            records.len()
        );
        let message = match consumer.poll(Duration::from_millis(100)) {
            // Now and then Tansu does not tell the end of a partition.
            None if !at_end.is_empty() && heard.elapsed() > Duration::from_secs(2) => break,
            None => continue,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                heard = Instant::now();
                at_end.insert(partition);
                continue;
            }
            Some(message) => message.unwrap(),
        };
        heard = Instant::now();
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        records.push(Record {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers.map(|h| (h.key.to_string(), h.value.map(<[u8]>::to_vec))).collect(),
            timestamp_ms: message.timestamp().to_millis(),
        });
    }
    records
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Kind::Tansu(child) | Kind::OwnProcess { child, .. } = &mut self.kind {
            // It may have ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// No test: what the process of our own broker runs, which is this test program once more.
#[test]
#[ignore = "run by tests that kill a broker"]
fn broker_process() {
    let Some(dir) = std::env::var_os("STRAND_TEST_BROKER_DIR") else { return };
    // Ends with the test that has started it.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
    let mut options = Options::new(PathBuf::from(dir));
    options.listen = format!("127.0.0.1:{}", std::env::var("STRAND_TEST_BROKER_PORT").unwrap());
    options.control = Some("127.0.0.1:0".to_string());
    let broker = strand_test_broker::Broker::start(options).unwrap();
    println!("commands on {}", broker.control().unwrap());
    broker.wait();
    std::process::exit(1);
}

/// Puts records into topics.
pub struct Sender {
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Sender {
    /// A piece of a stream, into the partition of its key.
    pub fn piece(&self, topic: &str, stream: &str, piece: &[u8], event: Option<&str>) {
        let headers: Vec<(&str, Option<&[u8]>)> =
            event.map(|event| ("strand-event", Some(event.as_bytes()))).into_iter().collect();
        self.record(topic, None, Some(stream.as_bytes()), Some(piece), &headers, None);
    }

    pub fn record(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
        timestamp_ms: Option<i64>,
    ) {
        let mut owned = OwnedHeaders::new();
        for (key, value) in headers {
            owned = owned.insert(Header { key, value: *value });
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).headers(owned);
        (record.key, record.payload, record.partition, record.timestamp) = (key, value, partition, timestamp_ms);
        loop {
            match self.producer.send(record) {
                Ok(()) => return,
                Err((error, back)) => {
                    assert!(error.to_string().contains("QueueFull"), "{error}");
                    record = back;
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    /// Waits until the broker has all.
    pub fn flush(&self) {
        self.producer.flush(PATIENCE).unwrap();
    }
}

impl Drop for Sender {
    /// What was sent is not lost with its sender.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.flush();
        }
    }
}

/// Settings of `strand run` for a broker, with states in a directory of this name.
pub fn settings(place: &Place, brokers: &str, instance: &str, more: &[&str]) -> Vec<String> {
    let state_dir = place.path().join(format!("states-{instance}"));
    let mut sets = vec![
        "transport.kind=kafka".to_string(),
        format!("kafka.brokers={brokers}"),
        format!("kafka.state_dir={}", state_dir.display()),
        "kafka.replication_factor=1".to_string(),
        "kafka.properties.session.timeout.ms=6000".to_string(),
        "kafka.properties.heartbeat.interval.ms=500".to_string(),
        "kafka.properties.fetch.wait.max.ms=10".to_string(),
    ];
    sets.extend(more.iter().map(ToString::to_string));
    sets.into_iter().flat_map(|set| ["--set".to_string(), set]).collect()
}

/// `strand run` on a broker.
pub fn command(place: &Place, brokers: &str, instance: &str, more: &[&str]) -> Command {
    let settings = settings(place, brokers, instance, more);
    place.command(&settings.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Starts it and waits until it is ready.
pub fn start(place: &Place, broker: &Broker, instance: &str, more: &[&str]) -> Daemon {
    Daemon::start(command(place, &broker.address, instance, more))
}
