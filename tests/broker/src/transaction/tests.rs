//! What the coordinator answers in cases that clients do not bring about on demand.

use super::*;
use crate::Options;
use crate::batch::tests::batch;
use crate::node::Node;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::protocol::StrBytes;
use std::path::Path;
use std::time::Instant;

const CONTEXT: fn() -> Context = || Context {
    version: 3,
    client_id: String::new(),
    host: String::new(),
    told: ([127, 0, 0, 1], 1).into(),
    fault: None,
};

fn node(dir: &Path) -> Node {
    Node::open(Options::new(dir)).unwrap()
}

fn with_topic(dir: &Path) -> Node {
    let mut node = node(dir);
    let topic = CreatableTopic::default().with_name(StrBytes::from_static_str("t").into()).with_num_partitions(2);
    let request = CreateTopicsRequest::default().with_topics(vec![topic.with_replication_factor(1)]);
    node.create_topics(&CONTEXT(), &request);
    node
}

fn name(error: i16) -> String {
    ResponseError::try_from_code(error).map_or("ok".to_string(), |error| error.to_string())
}

/// Asks for an id and an epoch; with the ones that the producer has, if it has some.
fn init(node: &mut Node, has: Option<(i64, i16)>, timeout_ms: i32) -> Result<(i64, i16), String> {
    let (id, epoch) = has.unwrap_or((-1, -1));
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(StrBytes::from_static_str("id").into()))
        .with_transaction_timeout_ms(timeout_ms)
        .with_producer_id(id.into())
        .with_producer_epoch(epoch);
    let context = Context { version: 4, ..CONTEXT() };
    let response = node.init_producer_id(&context, &request);
    let owner = (response.producer_id.0, response.producer_epoch);
    if response.error_code == 0 { Ok(owner) } else { Err(name(response.error_code)) }
}

fn add(node: &mut Node, producer: (i64, i16), partitions: &[i32]) -> Vec<String> {
    let topic = AddPartitionsToTxnTopic::default().with_name(StrBytes::from_static_str("t").into());
    let request = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(StrBytes::from_static_str("id").into())
        .with_v3_and_below_producer_id(producer.0.into())
        .with_v3_and_below_producer_epoch(producer.1)
        .with_v3_and_below_topics(vec![topic.with_partitions(partitions.to_vec())]);
    let response = node.add_partitions(&CONTEXT(), &request);
    let results = response.results_by_topic_v3_and_below[0].results_by_partition.iter();
    results.map(|result| name(result.partition_error_code)).collect()
}

fn end(node: &mut Node, producer: (i64, i16), commit: bool) -> String {
    let request = EndTxnRequest::default()
        .with_transactional_id(StrBytes::from_static_str("id").into())
        .with_producer_id(producer.0.into())
        .with_producer_epoch(producer.1)
        .with_committed(commit);
    node.end_txn(&CONTEXT(), &request).map_or("dead".to_string(), |response| name(response.error_code))
}

fn produce(node: &mut Node, producer: (i64, i16), partition: i32, sequence: i32) -> String {
    let data = produce_request::PartitionProduceData::default().with_index(partition);
    let data = data.with_records(Some(batch(producer, sequence, true, &["x"]).into()));
    let topic = produce_request::TopicProduceData::default().with_name(StrBytes::from_static_str("t").into());
    let request = ProduceRequest::default()
        .with_transactional_id(Some(StrBytes::from_static_str("id").into()))
        .with_acks(-1)
        .with_topic_data(vec![topic.with_partition_data(vec![data])]);
    name(node.produce(&CONTEXT(), &request).responses[0].partition_responses[0].error_code)
}

#[test]
fn each_owner_has_an_epoch_of_its_own_and_older_ones_are_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = with_topic(dir.path());
    let one = init(&mut node, None, 1000).unwrap();
    assert_eq!(add(&mut node, one, &[0]), ["ok"]);
    assert_eq!(produce(&mut node, one, 0, 0), "ok");
    // Its transaction is aborted first.
    assert_eq!(init(&mut node, None, 1000), Err("ConcurrentTransactions".to_string()));
    let two = init(&mut node, None, 1000).unwrap();
    assert_eq!((two.0, two.1 > one.1), (one.0, true));
    assert_eq!(produce(&mut node, one, 0, 1), "InvalidProducerEpoch");
    assert_eq!(add(&mut node, one, &[0]), ["ProducerFenced"]);
    assert_eq!(end(&mut node, one, true), "ProducerFenced");
    assert_eq!(init(&mut node, Some(one), 1000), Err("ProducerFenced".to_string()));
    // An owner may ask for its next epoch, also once more if it did not hear the answer.
    let next = init(&mut node, Some(two), 1000).unwrap();
    assert_eq!(init(&mut node, Some(two), 1000), Ok(next));
    assert_eq!(init(&mut node, Some((next.0 + 1, 0)), 1000), Err("ProducerFenced".to_string()));
    assert_eq!(init(&mut node, None, 0), Err("InvalidTransactionTimeout".to_string()));
    assert_eq!(init(&mut node, None, 900_001), Err("InvalidTransactionTimeout".to_string()));
}

#[test]
fn after_the_last_epoch_there_is_a_new_producer_id() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = with_topic(dir.path());
    let one = init(&mut node, None, 1000).unwrap();
    node.transactions.get_mut("id").unwrap().epoch = i16::MAX - 1;
    let (id, epoch) = init(&mut node, None, 1000).unwrap();
    assert!(id != one.0 && epoch == 0);
}

#[test]
fn nothing_is_written_outside_a_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = with_topic(dir.path());
    let producer = init(&mut node, None, 1000).unwrap();
    assert_eq!(produce(&mut node, producer, 0, 0), "InvalidTxnState");
    assert_eq!(add(&mut node, producer, &[0, 7]), ["OperationNotAttempted", "UnknownTopicOrPartition"]);
    assert_eq!(add(&mut node, producer, &[0]), ["ok"]);
    assert_eq!(produce(&mut node, producer, 1, 0), "InvalidTxnState");
    assert_eq!(produce(&mut node, (producer.0 + 1, 0), 0, 0), "InvalidProducerIdMapping");
    assert_eq!(end(&mut node, producer, true), "ok");
    assert_eq!(produce(&mut node, producer, 0, 0), "InvalidTxnState");
}

#[test]
fn a_transaction_ends_once_and_in_one_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = with_topic(dir.path());
    let producer = init(&mut node, None, 1000).unwrap();
    assert_eq!(end(&mut node, producer, true), "InvalidTxnState");
    for (commit, other) in [(true, false), (false, true)] {
        assert_eq!(add(&mut node, producer, &[0, 1]), ["ok", "ok"]);
        assert_eq!(end(&mut node, producer, commit), "ok");
        assert_eq!(end(&mut node, producer, commit), "ok");
        assert_eq!(end(&mut node, producer, other), "InvalidTxnState");
    }
    // Two markers in each partition.
    assert_eq!(node.topics["t"].partitions.iter().map(|log| log.end).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn a_transaction_is_aborted_when_its_time_is_over_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = with_topic(dir.path());
    let producer = init(&mut node, None, 50).unwrap();
    add(&mut node, producer, &[0]);
    produce(&mut node, producer, 0, 0);
    let next = node.tick(Instant::now()).0.unwrap();
    assert!(next <= Instant::now() + std::time::Duration::from_millis(50));
    drop(node);
    std::thread::sleep(std::time::Duration::from_millis(60));
    let mut node = self::node(dir.path());
    assert_eq!(node.topics["t"].partitions[0].last_stable(), 0);
    assert!(node.tick(Instant::now()).1);
    assert_eq!(node.topics["t"].partitions[0].last_stable(), 2);
    assert_eq!(end(&mut node, producer, true), "ProducerFenced");
}

#[test]
fn what_was_decided_before_a_death_is_done_once_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = with_topic(dir.path());
    let producer = init(&mut node, None, 1000).unwrap();
    add(&mut node, producer, &[0, 1]);
    produce(&mut node, producer, 0, 0);
    produce(&mut node, producer, 1, 0);
    let request = EndTxnRequest::default()
        .with_transactional_id(StrBytes::from_static_str("id").into())
        .with_producer_id(producer.0.into())
        .with_producer_epoch(producer.1)
        .with_committed(true);
    assert!(node.end_txn(&Context { fault: Some(Fault::Die), ..CONTEXT() }, &request).is_none() && node.dead);
    // It came as far as one of the two markers.
    node.topics.get_mut("t").unwrap().partitions[0].end_transaction(producer.0, producer.1, true, 0);
    drop(node);
    for _ in 0..2 {
        let mut node = self::node(dir.path());
        let ends: Vec<_> = node.topics["t"].partitions.iter().map(|log| (log.last_stable(), log.end)).collect();
        assert_eq!(ends, [(2, 2), (2, 2)]);
        assert_eq!(node.topics["t"].partitions[1].aborted(0, 2), []);
        assert_eq!(end(&mut node, producer, true), "ok");
    }
}
