//! Our own test broker (`tests/broker`) as librdkafka sees it: it must do what Kafka does, or tests against it prove
//! nothing.

use crate::daemon_harness::eventually;
use crate::kafka_harness::{Broker, Record, free_port};
use rdkafka::admin::TopicReplication;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use strand_test_broker::{Access, ApiKey, Fault, Options, ResponseError};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);
type Sender = ThreadedProducer<DefaultProducerContext>;

/// What a reader of this isolation level finds in partition 0, to the end.
fn seen(broker: &Broker, topic: &str, level: &str) -> Vec<String> {
    let mut client = broker.client();
    client.set("group.id", "reader").set("isolation.level", level).set("enable.partition.eof", "true");
    let consumer: BaseConsumer = client.set("fetch.wait.max.ms", "10").create().unwrap();
    read(&consumer, topic, Offset::Beginning)
}

fn committed(broker: &Broker, topic: &str) -> Vec<String> {
    seen(broker, topic, "read_committed")
}

fn read(consumer: &BaseConsumer, topic: &str, from: Offset) -> Vec<String> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, from).unwrap();
    consumer.assign(&list).unwrap();
    let (mut values, begun) = (Vec::new(), Instant::now());
    loop {
        assert!(begun.elapsed() < PATIENCE, "{topic} cannot be read to its end: {values:?}");
        match consumer.poll(Duration::from_millis(50)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => return values,
            Some(message) => values.push(text(message.unwrap().payload().unwrap())),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn transactional(broker: &Broker, id: &str, timeout_ms: u32) -> Sender {
    let mut client = broker.client();
    client.set("transactional.id", id).set("transaction.timeout.ms", timeout_ms.to_string()).set("linger.ms", "0");
    let producer: Sender = client.set("message.timeout.ms", timeout_ms.to_string()).create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

fn send(producer: &Sender, topic: &str, value: &str) {
    let record = BaseRecord::<[u8], [u8]>::to(topic).partition(0).payload(value.as_bytes()).key(b"key");
    producer.send(record).map_err(|(error, _)| error).unwrap();
}

fn send_all(producer: &Sender, topic: &str, values: &[String]) {
    values.iter().for_each(|value| send(producer, topic, value));
    producer.flush(PATIENCE).unwrap();
}

fn numbered(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|k| format!("{name}{k}")).collect()
}

fn code<T>(result: KafkaResult<T>) -> RDKafkaErrorCode {
    result.err().expect("an error").rdkafka_error_code().expect("an error of the broker's")
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn own(topics: &[&str]) -> Broker {
    let broker = Broker::own();
    topics.iter().for_each(|topic| broker.topic(topic, 1, &[]));
    broker
}

#[test]
fn a_transaction_is_seen_once_it_is_committed_and_never_if_it_is_aborted() {
    let broker = own(&["t"]);
    let producer = transactional(&broker, "id", 10_000);
    producer.begin_transaction().unwrap();
    send_all(&producer, "t", &numbered("c", 50));
    // What others write after it is held back with it.
    let other: Sender = broker.client().create().unwrap();
    send_all(&other, "t", &numbered("o", 1));
    assert_eq!(committed(&broker, "t"), [""; 0]);
    assert_eq!(seen(&broker, "t", "read_uncommitted").len(), 51);
    producer.commit_transaction(PATIENCE).unwrap();
    let expected: Vec<String> = numbered("c", 50).into_iter().chain(numbered("o", 1)).collect();
    assert_eq!(committed(&broker, "t"), expected);

    producer.begin_transaction().unwrap();
    send_all(&producer, "t", &numbered("a", 50));
    producer.abort_transaction(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    send_all(&producer, "t", &numbered("d", 1));
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(committed(&broker, "t"), [expected, numbered("d", 1)].concat());
    assert_eq!(seen(&broker, "t", "read_uncommitted").len(), 102);
}

#[test]
fn a_zombie_is_fenced_at_once_and_its_records_stay_hidden() {
    let broker = own(&["t"]);
    let zombie = transactional(&broker, "id", 10_000);
    zombie.begin_transaction().unwrap();
    send_all(&zombie, "t", &numbered("z", 1));
    let successor = transactional(&broker, "id", 10_000);
    successor.begin_transaction().unwrap();
    send_all(&successor, "t", &numbered("n", 1));
    let begun = Instant::now();
    // It may notice at its record already.
    let record = BaseRecord::<[u8], [u8]>::to("t").partition(0).payload(b"z1");
    let _ = zombie.send(record);
    let error = zombie.commit_transaction(PATIENCE).unwrap_err();
    let KafkaError::Transaction(error) = error else { panic!("{error}") };
    assert!(error.is_fatal() && begun.elapsed() < Duration::from_secs(3), "{error} after {:?}", begun.elapsed());
    successor.commit_transaction(PATIENCE).unwrap();
    assert_eq!(committed(&broker, "t"), ["n0"]);
    // One that has only a commit left is fenced at that.
    let zombie = successor;
    zombie.begin_transaction().unwrap();
    send_all(&zombie, "t", &numbered("y", 1));
    let _successor = transactional(&broker, "id", 10_000);
    let KafkaError::Transaction(error) = zombie.commit_transaction(PATIENCE).unwrap_err() else { panic!() };
    assert!(error.is_fatal(), "{error}");
    assert_eq!(committed(&broker, "t"), ["n0"]);
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced() {
    let broker = own(&["t"]);
    let slow = transactional(&broker, "id", 1000);
    slow.begin_transaction().unwrap();
    send_all(&slow, "t", &numbered("s", 3));
    let other: Sender = broker.client().create().unwrap();
    send_all(&other, "t", &numbered("o", 1));
    assert_eq!(committed(&broker, "t"), [""; 0]);
    let begun = Instant::now();
    eventually("the abort", || committed(&broker, "t") == ["o0"]);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let KafkaError::Transaction(error) = slow.commit_transaction(PATIENCE).unwrap_err() else { panic!() };
    assert!(error.is_fatal(), "{error}");
    assert_eq!(committed(&broker, "t"), ["o0"]);
}

/// A member of a group that counts how often it got or lost partitions.
#[derive(Default)]
struct Moves(AtomicUsize);

struct Watched(Arc<Moves>);

impl ClientContext for Watched {}

impl ConsumerContext for Watched {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) | Rebalance::Revoke(list) => _ = self.0.0.fetch_add(list.count(), Ordering::SeqCst),
            Rebalance::Error(_) => {}
        }
    }
}

struct Member {
    consumer: BaseConsumer<Watched>,
    moves: Arc<Moves>,
}

impl Member {
    fn join(broker: &Broker, topic: &str, settings: &[(&str, &str)]) -> Member {
        let mut client = broker.client();
        client.set("group.id", "g").set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        client.set("heartbeat.interval.ms", "100");
        settings.iter().for_each(|(name, value)| _ = client.set(*name, *value));
        let moves = Arc::new(Moves::default());
        let consumer: BaseConsumer<Watched> = client.create_with_context(Watched(moves.clone())).unwrap();
        consumer.subscribe(&[topic]).unwrap();
        Member { consumer, moves }
    }

    /// How many partitions it has, after doing what is to be done.
    fn has(&self) -> usize {
        // Records are of no interest here.
        let _ = self.consumer.poll(Duration::from_millis(20));
        self.consumer.assignment().unwrap().count()
    }

    /// Its partitions. A list of librdkafka's own would keep the consumer from closing.
    fn parts(&self) -> Vec<i32> {
        self.consumer.assignment().unwrap().elements().iter().map(|part| part.partition()).collect()
    }

    fn moved(&self) -> usize {
        self.moves.0.load(Ordering::SeqCst)
    }

    fn read(&self, count: usize) -> Vec<String> {
        let (mut values, begun) = (Vec::new(), Instant::now());
        while values.len() < count {
            assert!(begun.elapsed() < PATIENCE, "{values:?}");
            if let Some(message) = self.consumer.poll(Duration::from_millis(50)) {
                values.push(text(message.unwrap().payload().unwrap()));
            }
        }
        values
    }
}

fn until(offset: i64) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("in", 0, Offset::Offset(offset)).unwrap();
    list
}

#[test]
fn offsets_in_a_transaction_count_with_its_commit() {
    let broker = own(&["in", "out"]);
    send_all(&broker.client().create().unwrap(), "in", &numbered("i", 10));
    let begun = Instant::now();
    let member = Member::join(&broker, "in", &[]);
    assert_eq!(member.read(10), numbered("i", 10));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let producer = transactional(&broker, "id", 10_000);
    let metadata = member.consumer.group_metadata().unwrap();
    for (offset, commit, then) in [(4, true, 4), (7, false, 4), (10, true, 10)] {
        producer.begin_transaction().unwrap();
        send_all(&producer, "out", &numbered("o", 1));
        producer.send_offsets_to_transaction(&until(offset), &metadata, PATIENCE).unwrap();
        if commit {
            producer.commit_transaction(PATIENCE).unwrap();
        } else {
            producer.abort_transaction(PATIENCE).unwrap();
        }
        assert_eq!(broker.committed("g", "in"), [then]);
    }
    assert_eq!(committed(&broker, "out").len(), 2);
}

/// While offsets are in an open transaction, who asks for them waits.
#[test]
fn offsets_in_an_open_transaction_are_waited_for() {
    let broker = own(&["in"]);
    let member = Member::join(&broker, "in", &[]);
    eventually("joined", || member.has() == 1);
    let producer = transactional(&broker, "id", 10_000);
    producer.begin_transaction().unwrap();
    let metadata = member.consumer.group_metadata().unwrap();
    producer.send_offsets_to_transaction(&until(3), &metadata, PATIENCE).unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition("in", 0);
    let result = member.consumer.committed_offsets(list.clone(), Duration::from_secs(1));
    // librdkafka asks again until its time is over.
    assert_eq!(code(result), RDKafkaErrorCode::OperationTimedOut);
    producer.commit_transaction(PATIENCE).unwrap();
    let offsets = member.consumer.committed_offsets(list, PATIENCE).unwrap();
    assert_eq!(offsets.elements()[0].offset(), Offset::Offset(3));
}

#[test]
fn a_member_of_an_older_generation_cannot_commit_in_a_transaction() {
    let broker = own(&["in", "out"]);
    let one = Member::join(&broker, "in", &[]);
    eventually("joined", || one.has() == 1);
    let stale = one.consumer.group_metadata().unwrap();
    let two = Member::join(&broker, "in", &[]);
    eventually("both in", || one.has() + two.has() == 1 && one.moved() + two.moved() > 1);
    let producer = transactional(&broker, "id", 10_000);
    producer.begin_transaction().unwrap();
    send_all(&producer, "out", &numbered("o", 1));
    let error = producer.send_offsets_to_transaction(&until(1), &stale, PATIENCE);
    assert_eq!(code(error), RDKafkaErrorCode::IllegalGeneration);
    producer.abort_transaction(PATIENCE).unwrap();
    // With what it is now it can.
    producer.begin_transaction().unwrap();
    let current = one.consumer.group_metadata().unwrap();
    producer.send_offsets_to_transaction(&until(1), &current, PATIENCE).unwrap();
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(broker.committed("g", "in"), [1]);
    assert_eq!(committed(&broker, "out"), [""; 0]);
}

#[test]
fn members_come_and_go_and_only_what_must_moves() {
    let broker = Broker::own();
    broker.topic("in", 4, &[]);
    for (strategy, moves) in [("cooperative-sticky", 6), ("range", 10)] {
        let settings = [("partition.assignment.strategy", strategy), ("group.id", strategy)];
        let one = Member::join(&broker, "in", &settings);
        eventually("joined", || one.has() == 4);
        let two = Member::join(&broker, "in", &settings);
        eventually("shared", || (one.has(), two.has()) == (2, 2));
        // Cooperative: two are given up. Eager: four are given up and two come back.
        assert_eq!(one.moved(), moves, "{strategy}");
        let Member { consumer, .. } = two;
        drop(consumer);
        eventually("left", || one.has() == 4);
    }
}

#[test]
fn a_member_that_is_silent_is_missed_after_its_session() {
    let broker = own(&["in"]);
    let dir = TempDir::new().unwrap();
    let mut options = Options::new(dir.path());
    options.session_timeouts = Duration::from_secs(1)..=Duration::from_secs(10);
    let impatient = Broker::own_with(options, Some(dir));
    impatient.topic("in", 1, &[]);
    let settings = [("session.timeout.ms", "1000"), ("max.poll.interval.ms", "10000")];
    let silent = Member::join(&impatient, "in", &settings);
    eventually("joined", || silent.has() == 1);
    // Its heartbeats do not come through.
    impatient.faulty().fault(ApiKey::Heartbeat, 1000, Fault::DropBefore);
    let begun = Instant::now();
    let other = Member::join(&impatient, "in", &[("session.timeout.ms", "5000"), ("heartbeat.interval.ms", "3000")]);
    eventually("taken over", || other.has() == 1);
    assert!((Duration::from_millis(700)..Duration::from_secs(12)).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    // Kafka's shortest session is six seconds.
    let refused = Member::join(&broker, "in", &[("session.timeout.ms", "1000")]);
    let begun = Instant::now();
    let error = loop {
        match refused.consumer.poll(Duration::from_millis(50)) {
            Some(Err(error)) => break error,
            _ => assert!(begun.elapsed() < PATIENCE, "nothing is said"),
        }
    };
    assert!(error.to_string().contains("InvalidSessionTimeout"), "{error}");
}

#[test]
fn a_static_member_comes_back_unnoticed_and_only_one_has_its_name() {
    let broker = Broker::own();
    broker.topic("in", 4, &[]);
    let one = Member::join(&broker, "in", &[("group.instance.id", "one")]);
    let two = Member::join(&broker, "in", &[("group.instance.id", "two")]);
    eventually("shared", || (one.has(), two.has()) == (2, 2));
    let (moved, parts) = (one.moved(), two.parts());
    let Member { consumer, .. } = two;
    drop(consumer);
    let two = Member::join(&broker, "in", &[("group.instance.id", "two")]);
    eventually("back", || (one.has(), two.has()) == (2, 2));
    assert_eq!((one.moved(), two.parts()), (moved, parts));
    // Another of the same name takes its place.
    let usurper = Member::join(&broker, "in", &[("group.instance.id", "two")]);
    eventually("taken over", || usurper.has() == 2);
    let begun = Instant::now();
    let fatal = loop {
        let _ = two.consumer.poll(Duration::from_millis(50));
        if let Some(fatal) = two.consumer.client().fatal_error() {
            break fatal;
        }
        assert!(begun.elapsed() < PATIENCE, "the first is not fenced");
    };
    assert_eq!(fatal.0, RDKafkaErrorCode::FencedInstanceId);
    assert_eq!(one.moved(), moved);
}

/// An acknowledgement that does not come makes the producer send again; what it sent is there once all the same.
#[test]
fn what_a_fault_makes_a_producer_send_again_is_there_once() {
    let broker = own(&["t"]);
    let producer: Sender = broker.client().set("enable.idempotence", "true").create().unwrap();
    let mut sent = Vec::new();
    let not_leader = ResponseError::NotLeaderOrFollower;
    for fault in [Fault::DropAfter, Fault::Cut, Fault::DropBefore, Fault::Error(not_leader)] {
        broker.faulty().fault(ApiKey::Produce, 1, fault);
        let values = numbered(&format!("{fault:?}-"), 10);
        send_all(&producer, "t", &values);
        sent.extend(values);
    }
    assert_eq!(committed(&broker, "t"), sent);
    broker.faulty().fault(ApiKey::Produce, 1, Fault::Delay(Duration::from_millis(500)));
    let begun = Instant::now();
    send_all(&producer, "t", &numbered("late", 1));
    assert!(begun.elapsed() >= Duration::from_millis(500));
    // Without idempotence it is there twice.
    let producer: Sender = broker.client().create().unwrap();
    broker.faulty().fault(ApiKey::Produce, 1, Fault::DropAfter);
    send_all(&producer, "t", &numbered("twice", 1));
    assert_eq!(committed(&broker, "t")[41..], ["twice0", "twice0"]);
}

#[test]
fn what_was_acknowledged_outlives_a_killed_broker() {
    let (dir, port) = (TempDir::new().unwrap(), free_port());
    let broker = Broker::own_process(dir.path(), port);
    broker.topic("t", 1, &[("max.message.bytes", "123456")]);
    broker.topic("in", 1, &[]);
    let member = Member::join(&broker, "in", &[]);
    eventually("joined", || member.has() == 1);
    let one = transactional(&broker, "one", 60_000);
    one.begin_transaction().unwrap();
    send_all(&one, "t", &numbered("one", 20));
    let metadata = member.consumer.group_metadata().unwrap();
    one.send_offsets_to_transaction(&until(5), &metadata, PATIENCE).unwrap();
    let two = transactional(&broker, "two", 60_000);
    two.begin_transaction().unwrap();
    send_all(&two, "t", &numbered("two", 20));
    let plain: Sender = broker.client().set("enable.idempotence", "true").create().unwrap();
    send_all(&plain, "t", &numbered("before", 20));
    broker.kill();

    let broker = Broker::own_process(dir.path(), port);
    // Both transactions are still open: one is committed by its producer, the other aborted by its successor.
    assert_eq!(committed(&broker, "t"), [""; 0]);
    one.commit_transaction(PATIENCE).unwrap();
    send_all(&plain, "t", &numbered("after", 20));
    let _successor = transactional(&broker, "two", 60_000);
    let expected = [numbered("one", 20), numbered("before", 20), numbered("after", 20)].concat();
    assert_eq!(committed(&broker, "t"), expected);
    assert_eq!(broker.committed("g", "in"), [5]);
    assert_eq!(broker.settings("t")["max.message.bytes"], "123456");
    // The group goes on without a rebalance.
    assert_eq!((member.has(), member.moved()), (1, 1));
    one.begin_transaction().unwrap();
    let metadata = member.consumer.group_metadata().unwrap();
    one.send_offsets_to_transaction(&until(6), &metadata, PATIENCE).unwrap();
    one.commit_transaction(PATIENCE).unwrap();
    assert_eq!(broker.committed("g", "in"), [6]);
}

#[test]
fn a_broker_killed_again_and_again_loses_nothing_and_doubles_nothing() {
    let (dir, port) = (TempDir::new().unwrap(), free_port());
    let mut broker = Broker::own_process(dir.path(), port);
    broker.topic("t", 1, &[]);
    let mut client = broker.client();
    client.set("enable.idempotence", "true").set("linger.ms", "0").set("reconnect.backoff.max.ms", "200");
    let producer: Sender = client.create().unwrap();
    let values = numbered("", 3000);
    for (k, value) in values.iter().enumerate() {
        send(&producer, "t", value);
        if k % 500 == 400 {
            // In the middle of what is on its way.
            std::thread::sleep(Duration::from_millis(3));
            broker.kill();
            broker = Broker::own_process(dir.path(), port);
        }
    }
    producer.flush(PATIENCE).unwrap();
    assert_eq!(committed(&broker, "t"), values);
}

/// The decision to commit is written, the broker dies before it acts on it: the commit is completed at the next start.
#[test]
fn a_commit_that_was_decided_is_completed_after_a_death() {
    let (dir, port) = (TempDir::new().unwrap(), free_port());
    let broker = Broker::own_process(dir.path(), port);
    broker.topic("t", 1, &[]);
    broker.topic("in", 1, &[]);
    let member = Member::join(&broker, "in", &[]);
    eventually("joined", || member.has() == 1);
    let producer = transactional(&broker, "id", 60_000);
    producer.begin_transaction().unwrap();
    send_all(&producer, "t", &numbered("c", 5));
    let metadata = member.consumer.group_metadata().unwrap();
    producer.send_offsets_to_transaction(&until(5), &metadata, PATIENCE).unwrap();
    broker.command("fault die EndTxn 1");
    std::thread::scope(|scope| {
        let commit = scope.spawn(|| producer.commit_transaction(PATIENCE));
        broker.ended();
        let broker = Broker::own_process(dir.path(), port);
        assert_eq!(committed(&broker, "t"), numbered("c", 5));
        assert_eq!(broker.committed("g", "in"), [5]);
        // The producer asks again, and is told that it is done.
        commit.join().unwrap().unwrap();
    });
}

#[test]
fn topics_are_made_changed_and_deleted() {
    let broker = Broker::own();
    let admin: AdminClient<DefaultClientContext> = broker.client().create().unwrap();
    let options = AdminOptions::new();
    let create = |topic: &NewTopic<'_>| wait(admin.create_topics([topic], &options)).unwrap().remove(0);
    let new = |name, partitions| NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    wait(admin.create_topics([&new("tried", 1)], &AdminOptions::new().validate_only(true))).unwrap();
    create(&new("log", 2).set("cleanup.policy", "compact")).unwrap();
    for (topic, expected) in [
        (new("log", 2), RDKafkaErrorCode::TopicAlreadyExists),
        (new("a/b", 2), RDKafkaErrorCode::InvalidTopic),
        (new("none", 0), RDKafkaErrorCode::InvalidPartitions),
        (new("odd", 1).set("colour", "red"), RDKafkaErrorCode::InvalidConfig),
        (NewTopic::new("far", 1, TopicReplication::Fixed(3)), RDKafkaErrorCode::InvalidReplicationFactor),
    ] {
        assert_eq!(create(&topic), Err((topic.name.to_string(), expected)));
    }
    assert_eq!(broker.settings("log")["cleanup.policy"], "compact");
    assert_eq!(broker.settings("log")["max.message.bytes"], "1048588");

    let grown = wait(admin.create_partitions([&NewPartitions::new("log", 3)], &options)).unwrap().remove(0);
    assert_eq!(grown, Ok("log".to_string()));
    let fewer = wait(admin.create_partitions([&NewPartitions::new("log", 1)], &options)).unwrap().remove(0);
    assert_eq!(fewer.unwrap_err().1, RDKafkaErrorCode::InvalidPartitions);
    let change = AlterConfig::new(ResourceSpecifier::Topic("log")).set("max.message.bytes", "1000");
    wait(admin.alter_configs([&change], &options)).unwrap().remove(0).unwrap();
    let settings = broker.settings("log");
    assert_eq!((&*settings["max.message.bytes"], &*settings["cleanup.policy"]), ("1000", "delete"));

    let consumer: BaseConsumer = broker.client().create().unwrap();
    let names = || {
        let metadata = consumer.fetch_metadata(None, PATIENCE).unwrap();
        metadata.topics().iter().map(|t| (t.name().to_string(), t.partitions().len())).collect::<Vec<_>>()
    };
    assert_eq!(names(), [("log".to_string(), 3)]);
    let unknown = consumer.fetch_metadata(Some("unknown"), PATIENCE).unwrap();
    assert!(unknown.topics()[0].error().is_some());
    assert_eq!(
        wait(admin.delete_topics(&["log", "gone"], &options)).unwrap(),
        [Ok("log".to_string()), Err(("gone".to_string(), RDKafkaErrorCode::UnknownTopicOrPartition)),]
    );
    assert_eq!(names(), []);
}

#[test]
fn a_topic_is_created_unasked_only_where_that_is_allowed() {
    let dir = TempDir::new().unwrap();
    let mut options = Options::new(dir.path());
    (options.auto_create_topics, options.default_partitions) = (true, 3);
    let broker = Broker::own_with(options, Some(dir));
    broker.sender().record("new", Some(2), None, Some(b"x"), &[], None);
    assert_eq!(broker.ends("new"), [(0, 0), (0, 0), (0, 1)]);
}

/// What a producer is told about a record.
fn refusal(broker: &Broker, topic: &str, key: Option<&[u8]>, value: &[u8]) -> Option<RDKafkaErrorCode> {
    let mut client = broker.client();
    client.set("message.max.bytes", "2000000").set("message.timeout.ms", "3000");
    let producer: rdkafka::producer::FutureProducer = client.create().unwrap();
    let mut record = rdkafka::producer::FutureRecord::<[u8], [u8]>::to(topic).payload(value);
    record.key = key;
    let sent = producer.send_result(record).map_err(|(error, _)| error).unwrap();
    wait(sent).unwrap().err().map(|(error, _)| error.rdkafka_error_code().unwrap())
}

#[test]
fn records_that_a_topic_does_not_take_are_refused() {
    let broker = own(&["t"]);
    broker.topic("small", 1, &[("max.message.bytes", "1000")]);
    broker.topic("log", 1, &[("cleanup.policy", "compact")]);
    assert_eq!(refusal(&broker, "small", None, &[b'x'; 900]), None);
    assert_eq!(refusal(&broker, "small", None, &[b'x'; 1000]), Some(RDKafkaErrorCode::MessageSizeTooLarge));
    assert_eq!(refusal(&broker, "t", None, &[b'x'; 1_048_588]), Some(RDKafkaErrorCode::MessageSizeTooLarge));
    assert_eq!(refusal(&broker, "log", Some(b"k"), b"x"), None);
    assert_eq!(refusal(&broker, "log", None, b"x"), Some(RDKafkaErrorCode::InvalidRecord));
    broker.faulty().set_topic_access("t", Access::Write, false);
    assert_eq!(refusal(&broker, "t", None, b"x"), Some(RDKafkaErrorCode::TopicAuthorizationFailed));
    broker.faulty().set_topic_access("t", Access::Write, true);
    assert_eq!(refusal(&broker, "t", None, b"x"), None);
    broker.faulty().set_topic_access("t", Access::Read, false);
    broker.faulty().set_group_access("g", false);
    let member = Member::join(&broker, "t", &[]);
    let error = member.consumer.poll(PATIENCE).unwrap().map(|_| ());
    assert_eq!(code(error), RDKafkaErrorCode::GroupAuthorizationFailed);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Beginning).unwrap();
    let reader: BaseConsumer = broker.client().set("group.id", "other").create().unwrap();
    reader.assign(&list).unwrap();
    assert_eq!(code(reader.poll(PATIENCE).unwrap().map(|_| ())), RDKafkaErrorCode::TopicAuthorizationFailed);
}

#[test]
fn records_are_found_by_time_whatever_packs_them() {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let broker = own(&["t"]);
        let mut client = broker.client();
        let producer: Sender = client.set("compression.codec", codec).set("linger.ms", "50").create().unwrap();
        let value = "the same again ".repeat(20);
        for k in 0..100 {
            let record =
                BaseRecord::<[u8], [u8]>::to("t").partition(0).payload(value.as_bytes()).timestamp(5000 + 10 * k);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        let consumer: BaseConsumer = broker.client().create().unwrap();
        let at = |time: i64| {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset("t", 0, Offset::Offset(time)).unwrap();
            consumer.offsets_for_times(list, PATIENCE).unwrap().elements()[0].offset()
        };
        assert_eq!([at(0), at(5425), at(5990)], [0, 43, 99].map(Offset::Offset), "{codec}");
        assert_eq!(at(5991), Offset::End, "{codec}");
        assert_eq!(consumer.fetch_watermarks("t", 0, PATIENCE).unwrap(), (0, 100));
        assert!(committed(&broker, "t").iter().all(|read| *read == value), "{codec}");
    }
}

#[test]
fn deleted_records_are_out_of_range() {
    let broker = own(&["t"]);
    let producer: Sender = broker.client().create().unwrap();
    for value in numbered("r", 10) {
        send_all(&producer, "t", &[value]);
    }
    let admin: AdminClient<DefaultClientContext> = broker.client().create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(6)).unwrap();
    wait(admin.delete_records(&list, &AdminOptions::new())).unwrap();
    assert_eq!(committed(&broker, "t"), numbered("r", 10)[6..]);
    assert_eq!(broker.ends("t"), [(6, 10)]);
    let mut client = broker.client();
    client.set("group.id", "late").set("auto.offset.reset", "error");
    let consumer: BaseConsumer = client.create().unwrap();
    list.set_partition_offset("t", 0, Offset::Offset(2)).unwrap();
    consumer.assign(&list).unwrap();
    assert_eq!(code(consumer.poll(PATIENCE).unwrap().map(|_| ())), RDKafkaErrorCode::AutoOffsetReset);
}

/// A fetch waits, but not when there is something.
#[test]
fn a_waiting_reader_is_told_at_once() {
    let broker = own(&["t"]);
    let mut client = broker.client();
    client.set("group.id", "g").set("fetch.wait.max.ms", "10000");
    let consumer: BaseConsumer = client.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    assert!(consumer.poll(Duration::from_millis(500)).is_none());
    let producer: Sender = broker.client().set("linger.ms", "0").create().unwrap();
    let begun = Instant::now();
    send(&producer, "t", "x");
    assert_eq!(consumer.poll(PATIENCE).unwrap().unwrap().payload(), Some(&b"x"[..]));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn who_has_no_password_gets_nothing() {
    let dir = TempDir::new().unwrap();
    let mut options = Options::new(dir.path());
    options.users.insert("ada".to_string(), "secret".to_string());
    let broker = Broker::own_with(options, Some(dir));
    let as_user = |protocol: &str, password: &str| {
        let mut client: ClientConfig = broker.client();
        client.set("security.protocol", protocol).set("sasl.mechanism", "PLAIN");
        client.set("sasl.username", "ada").set("sasl.password", password);
        let consumer: BaseConsumer = client.create().unwrap();
        consumer.fetch_metadata(None, Duration::from_secs(3)).map(|metadata| metadata.brokers().len())
    };
    assert_eq!(as_user("sasl_plaintext", "secret"), Ok(1));
    assert!(as_user("sasl_plaintext", "wrong").is_err());
    assert!(as_user("plaintext", "secret").is_err());
}

#[test]
fn keys_values_headers_and_times_come_back_as_they_were_sent() {
    let broker = own(&["t"]);
    let sender = broker.sender();
    let headers = [("name", Some(&b"\x00\xff"[..])), ("nothing", None)];
    sender.record("t", Some(0), Some(b"\xff"), None, &headers, Some(1_700_000_000_123));
    sender.record("t", Some(0), None, Some(b""), &[], Some(5));
    sender.flush();
    let headers = vec![("name".to_string(), Some(b"\x00\xff".to_vec())), ("nothing".to_string(), None)];
    let record =
        |offset, key, value, headers, ms| Record { partition: 0, offset, key, value, headers, timestamp_ms: Some(ms) };
    assert_eq!(
        broker.read("t"),
        [
            record(0, Some(b"\xff".to_vec()), None, headers, 1_700_000_000_123),
            record(1, None, Some(Vec::new()), Vec::new(), 5),
        ]
    );
}

/// Faults can be those of one client: others are not disturbed, and what is held is handled once it is released.
#[test]
fn a_client_whose_requests_are_held_waits_alone() {
    let broker = own(&["t"]);
    let of = |name: &str| -> Sender { broker.client().set("client.id", name).set("linger.ms", "0").create().unwrap() };
    let (ada, bob) = (of("ada"), of("bob"));
    broker.faulty().fault_of("ada", ApiKey::Produce, 1, Fault::Hold);
    send(&ada, "t", "held");
    eventually("it is held", || broker.faulty().faults_left() == 0);
    send_all(&bob, "t", &numbered("b", 1));
    assert_eq!(committed(&broker, "t"), ["b0"]);
    broker.faulty().release(ApiKey::Produce);
    ada.flush(PATIENCE).unwrap();
    broker.faulty().fault_of("bob", ApiKey::Produce, 1, Fault::Late(Duration::from_millis(300)));
    let begun = Instant::now();
    send_all(&bob, "t", &numbered("late", 1));
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(committed(&broker, "t"), ["b0", "held", "late0"]);
}

#[test]
fn who_comes_by_a_proxy_stays_with_it() {
    let proxy = ([127, 0, 0, 1], free_port()).into();
    let broker = Broker::own_behind(proxy);
    let told = |address: String| {
        let mut client = broker.client();
        client.set("bootstrap.servers", address);
        let begun = Instant::now();
        loop {
            // A client that has heard of the proxy already asks there, where nobody is: another one asks anew.
            let consumer: BaseConsumer = client.create().unwrap();
            if let Ok(metadata) = consumer.fetch_metadata(None, Duration::from_secs(1)) {
                return format!("{}:{}", metadata.brokers()[0].host(), metadata.brokers()[0].port());
            }
            assert!(begun.elapsed() < PATIENCE, "nobody answers");
        }
    };
    assert_eq!(told(broker.faulty().behind_proxy().unwrap().to_string()), proxy.to_string());
    assert_eq!(told(broker.address.clone()), broker.address);
}

/// As if it had been silent for too long: it learns of it with its next heartbeat.
#[test]
fn a_session_can_be_ended() {
    let broker = Broker::own();
    broker.topic("in", 2, &[]);
    let [one, other] = ["one", "other"].map(|name| Member::join(&broker, "in", &[("client.id", name)]));
    // Each with its own: nobody is joining any more.
    eventually("joined", || (one.has(), other.has()) == (1, 1));
    broker.faulty().fault_of("one", ApiKey::Heartbeat, 1000, Fault::Hold);
    broker.faulty().expire_members("g", "one");
    eventually("taken over", || other.has() == 2);
    assert_eq!(one.has(), 1, "it has heard of it");
    broker.faulty().clear_faults();
    eventually("it comes back", || (one.has(), other.has()) == (1, 1) && broker.faulty().state_of("g") == "Stable");
}
