//! The known traps of exactly-once delivery, each sprung on purpose on a broker that does transactions by Kafka's book
//! (`tests/broker`). What readers of committed records find is compared with an undisturbed run: nothing lost, nothing
//! wrong, nothing twice. That a frozen instance is fenced when it wakes up is in `frozen`.
//!
//! For longer runs: `STRAND_KAFKA_ROUNDS` (from 2 on, also every error that a request may be answered with).

use crate::daemon_harness::eventually;
use crate::kafka_harness::{Broker, free_port};
use crate::kafka_load::{INPUT, Load, Shape};
use crate::kafka_scene::{GROUP, Scene, aborted, exactly_once, goes_on, labelled, load, partitions, setting, suffers};
use std::time::Duration;
use strand_test_broker::{ApiKey, Fault, ResponseError as Error};
use tempfile::TempDir;

/// How often each fault is made in a longer run.
fn rounds(default: usize) -> usize {
    setting("STRAND_KAFKA_ROUNDS", default)
}

/// It labels on and does not know that the group has given its partitions away: what it computes and the offsets that it
/// sends with its old generation are refused.
#[test]
fn offsets_of_an_older_generation_do_not_survive_a_rebalance() {
    let broker = Broker::own();
    let scene = Scene::on(&broker, &["kafka.properties.session.timeout.ms=20000"]);
    let [zombie, other] = ["zombie", "other"].map(|name| scene.instance(&broker, name));
    eventually("the partitions are shared", || partitions(&zombie) == 4.0 && partitions(&other) == 4.0);
    let (load, rounds) = (load(&broker), rounds(2));
    for round in 0..rounds {
        goes_on(&zombie, 100.0);
        let refused = aborted(&zombie);
        if round % 2 == 1 {
            // These offsets are on their way when the group goes on without it.
            broker.faulty().fault_of("zombie", ApiKey::TxnOffsetCommit, 1, Fault::Late(Duration::from_secs(1)));
        }
        broker.faulty().fault_of("zombie", ApiKey::Heartbeat, 10_000, Fault::DropBefore);
        broker.faulty().expire_members(GROUP, "zombie");
        eventually("the other has all partitions", || partitions(&other) == 8.0);
        goes_on(&other, 100.0);
        eventually("the zombie was refused", || aborted(&zombie) > refused);
        assert_eq!(partitions(&zombie), 4.0, "it knows already");
        broker.faulty().clear_faults();
        eventually("both are at work again", || partitions(&zombie) == 4.0 && partitions(&other) == 4.0);
    }
    let refused = aborted(&zombie);
    let verdict = scene.verdict(&broker, load, vec![zombie, other]);
    exactly_once("an instance labels on after its session has ended", rounds, &verdict, &format!("{refused} refused"));
}

/// Its partitions are lost and come back while its records are on their way to the broker: it is a new assignment, and
/// what was computed by the old one is not committed by the new generation.
#[test]
fn what_was_begun_before_partitions_were_lost_is_not_committed_when_they_are_back() {
    let broker = Broker::own();
    let scene = Scene::on(&broker, &[]);
    let daemon = scene.instance(&broker, "one");
    let (load, rounds) = (load(&broker), rounds(3));
    let restored = || daemon.log().matches("states restored").count();
    for _ in 0..rounds {
        goes_on(&daemon, 50.0);
        let before = restored();
        suffers(&broker, "one", ApiKey::Produce, &[Fault::Hold]);
        broker.faulty().expire_members(GROUP, "one");
        // Those whose states are part of what is held wait until that is decided.
        eventually("its partitions are back", || partitions(&daemon) == 8.0 && restored() > before);
        broker.faulty().release(ApiKey::Produce);
        eventually("all states are read back", || restored() >= before + 8);
    }
    goes_on(&daemon, 50.0);
    let verdict = scene.verdict(&broker, load, vec![daemon]);
    exactly_once("partitions lost and given back within a transaction", rounds, &verdict, "");
}

/// It dies with all partitions in a transaction: the next process has that aborted before it asks where the partitions are,
/// and does not wait until the coordinator gives it up.
#[test]
fn a_transaction_over_all_partitions_that_a_dead_process_left_open() {
    let broker = Broker::own();
    let scene = Scene::on(&broker, &["pipeline.commit_interval=500ms", "kafka.properties.session.timeout.ms=6000"]);
    let first = scene.instance(&broker, "one");
    let load = load(&broker);
    goes_on(&first, 50.0);
    broker.faulty().fault_of("one", ApiKey::EndTxn, 10_000, Fault::DropBefore);
    eventually("a transaction is not decided", || broker.faulty().faults_left() < 10_000);
    drop(first);
    broker.faulty().clear_faults();
    let begun = std::time::Instant::now();
    let next = scene.instance(&broker, "one");
    goes_on(&next, 50.0);
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    let verdict = scene.verdict(&broker, load, vec![next]);
    exactly_once("kill -9 with all partitions in an open transaction", 1, &verdict, "");
}

/// What is committed is the offset after the last record: nothing is read again, nothing is left out.
#[test]
fn a_restart_when_all_is_done_reads_nothing_again() {
    let broker = Broker::own();
    let scene = Scene::on(&broker, &[]);
    let first = scene.instance(&broker, "one");
    let sent = Load::of(&broker, Shape { count: Some(1000), rate: 2000, ..Shape::default() }).whole();
    broker.settle(GROUP, INPUT, Duration::from_secs(30));
    assert!(first.stop().success());
    let ends: Vec<i64> = broker.ends(INPUT).iter().map(|(_, end)| *end).collect();
    assert_eq!(broker.committed(GROUP, INPUT), ends);
    assert_eq!(ends.iter().sum::<i64>(), sent as i64);
    let there = (broker.ends("strand-labels"), broker.ends("strand-state"));

    let second = scene.instance(&broker, "one");
    eventually("all partitions are served", || second.metric("strand_partitions_assigned") == 8.0);
    eventually("it knows where they end", || second.get("/metrics").body.contains("strand_consumer_lag_records{"));
    assert_eq!((labelled(&second), second.metric("strand_records_skipped_total")), (0.0, 0.0));
    assert_eq!((broker.ends("strand-labels"), broker.ends("strand-state")), there);
    // And goes on with the very next one.
    broker.sender().piece(INPUT, "late", b"One more. ", None);
    eventually("one more", || labelled(&second) == 1.0);
    let verdict = scene.verdict_of(&broker, sent + 1, vec![second]);
    exactly_once("a restart when all is labelled", 1, &verdict, "records read again 0");
}

/// The answer to a commit comes late, or never, or half: whatever the outcome was, it stands.
#[test]
fn a_commit_whose_outcome_is_unknown_is_asked_for_again() {
    let broker = Broker::own();
    let scene = Scene::on(&broker, &[]);
    let daemon = scene.instance(&broker, "one");
    let (load, rounds) = (load(&broker), rounds(1));
    let slow = Fault::Delay(Duration::from_millis(300));
    for _ in 0..rounds {
        for faults in [
            &[Fault::DropAfter][..],
            &[Fault::Cut],
            &[Fault::DropBefore],
            &[Fault::DropAfter; 3],
            &[slow, Fault::Cut, Fault::DropAfter],
            &[Fault::Late(Duration::from_millis(300)), Fault::DropBefore, Fault::Cut],
        ] {
            goes_on(&daemon, 30.0);
            suffers(&broker, "one", ApiKey::EndTxn, faults);
        }
    }
    // Longer than any call for a commit waits for.
    goes_on(&daemon, 30.0);
    suffers(&broker, "one", ApiKey::EndTxn, &[Fault::Delay(Duration::from_secs(6)), Fault::DropAfter]);
    goes_on(&daemon, 30.0);
    assert_eq!(aborted(&daemon), 0.0, "{}", daemon.log());
    let verdict = scene.verdict(&broker, load, vec![daemon]);
    exactly_once("answers to commits late, lost, cut", rounds * 11 + 2, &verdict, "transactions aborted 0");
}

/// The commit is done, its answer lost, and asked again the coordinator says that this producer is no more: only the
/// topics and the group's offsets can tell how it ended.
#[test]
fn a_commit_whose_outcome_is_never_told_is_not_done_twice() {
    let broker = Broker::own();
    let scene = Scene::on(&broker, &[]);
    let daemon = scene.instance(&broker, "one");
    let (load, rounds) = (load(&broker), rounds(1));
    let errors =
        [Error::ProducerFenced, Error::InvalidProducerEpoch, Error::InvalidProducerIdMapping, Error::InvalidTxnState];
    for error in std::iter::repeat_n(errors, rounds).flatten() {
        for lost in [Fault::DropAfter, Fault::Cut] {
            goes_on(&daemon, 30.0);
            suffers(&broker, "one", ApiKey::EndTxn, &[lost, Fault::Error(error)]);
        }
    }
    goes_on(&daemon, 30.0);
    let verdict = scene.verdict(&broker, load, vec![daemon]);
    exactly_once("commits done, never told, producer refused", rounds * errors.len() * 2, &verdict, "");
}

/// The decision to commit is written and not acted on; the broker is started again.
#[test]
fn a_broker_that_dies_between_a_decision_and_its_markers_does_what_it_decided() {
    let (dir, port) = (TempDir::new().unwrap(), free_port());
    let mut broker = Broker::own_process(dir.path(), port);
    let scene = Scene::on(&broker, &[]);
    let daemon = scene.instance(&broker, "one");
    let (load, rounds) = (load(&broker), rounds(4));
    for _ in 0..rounds {
        goes_on(&daemon, 50.0);
        broker.command("fault die EndTxn 1");
        broker.ended();
        broker = Broker::own_process(dir.path(), port);
    }
    goes_on(&daemon, 50.0);
    let verdict = scene.verdict(&broker, load, vec![daemon]);
    exactly_once("broker dies between a decision and its markers", rounds, &verdict, "");
}

/// Records that are not acknowledged in `message.timeout.ms` spoil the transaction; the producer goes on with its next
/// epoch, so that the broker takes what it sends.
#[test]
fn after_records_timed_out_the_producer_goes_on_with_its_next_epoch() {
    let broker = Broker::own();
    let scene = Scene::on(&broker, &["kafka.properties.message.timeout.ms=800"]);
    let daemon = scene.instance(&broker, "one");
    let (load, rounds) = (load(&broker), rounds(1));
    let time = Duration::from_millis(1500);
    for fault in std::iter::repeat_n([Fault::Delay(time), Fault::Late(time)], rounds).flatten() {
        goes_on(&daemon, 50.0);
        let (gave_up, epoch) = (aborted(&daemon), broker.faulty().epochs());
        suffers(&broker, "one", ApiKey::Produce, &[fault]);
        eventually("the transaction is given up", || aborted(&daemon) > gave_up);
        goes_on(&daemon, 50.0);
        assert_ne!(broker.faulty().epochs(), epoch);
    }
    // The answers of all that it sends get lost for a while, longer than a record is waited for.
    let gave_up = aborted(&daemon);
    broker.faulty().fault_of("one", ApiKey::Produce, 100_000, Fault::DropAfter);
    eventually("the transaction is given up", || aborted(&daemon) > gave_up);
    broker.faulty().clear_faults();
    goes_on(&daemon, 50.0);
    let gave_up = aborted(&daemon);
    let verdict = scene.verdict(&broker, load, vec![daemon]);
    exactly_once("records time out", rounds * 2 + 1, &verdict, &format!("transactions aborted {gave_up}"));
}

/// The coordinator ends a transaction that takes longer than `transaction.timeout.ms`, and fences its producer.
#[test]
fn a_transaction_that_the_coordinator_gave_up_is_done_again() {
    let broker = Broker::own();
    let scene = Scene::on(&broker, &["kafka.properties.transaction.timeout.ms=1000"]);
    let daemon = scene.instance(&broker, "one");
    let (load, rounds) = (load(&broker), rounds(1));
    let apis = [ApiKey::AddOffsetsToTxn, ApiKey::TxnOffsetCommit, ApiKey::AddPartitionsToTxn];
    for api in std::iter::repeat_n(apis, rounds).flatten() {
        goes_on(&daemon, 50.0);
        let gave_up = aborted(&daemon);
        suffers(&broker, "one", api, &[Fault::Delay(Duration::from_millis(1500))]);
        eventually("the transaction is given up", || aborted(&daemon) > gave_up);
    }
    // The decision comes when there is nothing to decide any more.
    goes_on(&daemon, 50.0);
    suffers(&broker, "one", ApiKey::EndTxn, &[Fault::Late(Duration::from_millis(1500))]);
    goes_on(&daemon, 50.0);
    let gave_up = aborted(&daemon);
    let verdict = scene.verdict(&broker, load, vec![daemon]);
    let note = format!("transactions aborted {gave_up}");
    exactly_once("the coordinator gives transactions up", rounds * apis.len() + 1, &verdict, &note);
}

/// Thousands of records are read ahead when a commit fails: going back neither leaves any out nor takes any twice.
#[test]
fn positions_are_set_back_with_records_read_ahead() {
    let broker = Broker::own();
    let scene = Scene::on(&broker, &["pipeline.batch_records=64", "pipeline.commit_records=64"]);
    let records = setting("STRAND_KAFKA_RECORDS", 3000) as u64;
    let sent = Load::of(&broker, Shape { count: Some(records), rate: 100_000, ..Shape::default() }).whole();
    let daemon = scene.instance(&broker, "one");
    let (mut failures, unknown) = (0, Fault::Error(Error::UnknownServerError));
    let apis = [ApiKey::EndTxn, ApiKey::TxnOffsetCommit, ApiKey::Produce, ApiKey::AddOffsetsToTxn];
    for api in apis.into_iter().cycle() {
        let (done, gave_up) = (labelled(&daemon), aborted(&daemon));
        if done + 1000.0 > records as f64 {
            break;
        }
        suffers(&broker, "one", api, &[unknown]);
        eventually("the transaction is given up", || aborted(&daemon) > gave_up);
        failures += 1;
        goes_on(&daemon, 64.0);
    }
    assert!(failures > 5, "{failures}");
    let verdict = scene.verdict_of(&broker, sent, vec![daemon]);
    exactly_once("commits fail with records read ahead", failures, &verdict, "");
}

/// Another instance comes while a transaction is on its way, and goes again.
#[test]
fn a_rebalance_in_the_middle_of_a_transaction() {
    let broker = Broker::own();
    let scene = Scene::on(&broker, &[]);
    let one = scene.instance(&broker, "one");
    let load = load(&broker);
    let apis = [ApiKey::EndTxn, ApiKey::Produce, ApiKey::TxnOffsetCommit];
    let apis: Vec<ApiKey> = std::iter::repeat_n(apis, rounds(1)).flatten().collect();
    for (k, api) in apis.iter().enumerate() {
        goes_on(&one, 50.0);
        let fault = if k % 2 == 0 { Fault::Delay } else { Fault::Late };
        broker.faulty().fault_of("one", *api, 1, fault(Duration::from_millis(1500)));
        let two = scene.instance(&broker, "two");
        eventually("the partitions are shared", || partitions(&two) == 4.0 && partitions(&one) == 4.0);
        eventually("the fault has happened", || broker.faulty().faults_left() == 0);
        goes_on(&two, 30.0);
        broker.faulty().fault_of("two", *api, 1, fault(Duration::from_millis(500)));
        assert!(two.stop().success());
        broker.faulty().clear_faults();
        eventually("all is back", || partitions(&one) == 8.0);
    }
    let verdict = scene.verdict(&broker, load, vec![one]);
    exactly_once("rebalances in the middle of a transaction", apis.len() * 2, &verdict, "");
}

const COORDINATOR: [Error; 4] = [
    Error::CoordinatorNotAvailable,
    Error::NotCoordinator,
    Error::CoordinatorLoadInProgress,
    Error::ConcurrentTransactions,
];
const PRODUCER: [Error; 6] = [
    Error::InvalidProducerEpoch,
    Error::ProducerFenced,
    Error::UnknownProducerId,
    Error::InvalidProducerIdMapping,
    Error::InvalidTxnState,
    Error::UnknownServerError,
];
const MEMBER: [Error; 3] = [Error::UnknownMemberId, Error::IllegalGeneration, Error::RebalanceInProgress];
const LEADER: [Error; 6] = [
    Error::NotLeaderOrFollower,
    Error::RequestTimedOut,
    Error::NotEnoughReplicas,
    Error::OutOfOrderSequenceNumber,
    Error::CorruptMessage,
    Error::UnknownTopicOrPartition,
];

/// Whatever a coordinator or a leader may answer, once to each kind of request.
#[test]
fn errors_of_every_request_of_a_transaction() {
    let mut cases = [
        (ApiKey::AddPartitionsToTxn, [&COORDINATOR[..], &PRODUCER].concat()),
        (ApiKey::Produce, [&LEADER[..], &PRODUCER].concat()),
        (ApiKey::AddOffsetsToTxn, [&COORDINATOR[..], &PRODUCER].concat()),
        (ApiKey::TxnOffsetCommit, [&MEMBER[..], &COORDINATOR, &PRODUCER].concat()),
        (ApiKey::EndTxn, [&COORDINATOR[..], &PRODUCER].concat()),
    ];
    if rounds(1) == 1 {
        // They take half a second each.
        cases.iter_mut().for_each(|(_, errors)| errors.truncate(6));
    }
    answered("errors of every request of a transaction", &cases, |_| {});
}

/// The same of what a producer asks for before its first transaction.
#[test]
fn errors_while_a_producer_begins() {
    let begin_anew = |broker: &Broker| {
        broker.faulty().fault_of("one", ApiKey::EndTxn, 1, Fault::Error(Error::ProducerFenced));
    };
    let mut cases = [
        (ApiKey::InitProducerId, [&COORDINATOR[..], &PRODUCER].concat()),
        (ApiKey::FindCoordinator, COORDINATOR.to_vec()),
    ];
    if rounds(1) == 1 {
        // Each takes a second or two.
        cases[0].1 = vec![Error::NotCoordinator, Error::ConcurrentTransactions, Error::InvalidProducerEpoch];
        cases[1].1.truncate(1);
    }
    answered("errors while a producer begins", &cases, begin_anew);
}

fn answered(fault: &str, cases: &[(ApiKey, Vec<Error>)], then: impl Fn(&Broker)) {
    let broker = Broker::own();
    let scene = Scene::on(&broker, &[]);
    let daemon = scene.instance(&broker, "one");
    let (load, rounds, mut errors) = (load(&broker), rounds(1), 0);
    for (api, list) in std::iter::repeat_n(cases, rounds).flatten() {
        for error in list {
            broker.faulty().fault_of("one", *api, 1, Fault::Error(*error));
            then(&broker);
            let what = format!("{api:?} was answered {error:?}");
            eventually(&what, || broker.faulty().faults_left() == 0);
            let before = labelled(&daemon);
            eventually(&format!("{what}, and it goes on"), || labelled(&daemon) > before);
            errors += 1;
        }
    }
    let gave_up = aborted(&daemon);
    let verdict = scene.verdict(&broker, load, vec![daemon]);
    exactly_once(fault, errors, &verdict, &format!("transactions aborted {gave_up}"));
}
