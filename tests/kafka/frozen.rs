//! An instance that is frozen for longer than its session lasts, as a paused virtual machine is: others take its
//! partitions over, and when it wakes up, in the middle of what it was writing, it must do no harm.

use crate::daemon_harness::{Daemon, Place, eventually};
use crate::kafka_harness::{Broker, start};
use crate::kafka_load::{INPUT, Load, Verdict, judge, kafka, report};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::time::Duration;
use strand::state::StreamState;

/// How long the others go on while it is frozen.
const FROZEN: Duration = Duration::from_secs(3);
const GROUP: &str = "strand";

/// Whether a batch of these partitions is being written: labels are published, their states are not.
fn labels_wait_for_states(broker: &Broker, partitions: &[usize]) -> bool {
    let mut seen = [-1; 8];
    for record in broker.tail("strand-state", 16) {
        let state = StreamState::entry_of(record.value.as_ref().unwrap()).unwrap();
        let seen: &mut i64 = &mut seen[record.partition as usize];
        *seen = state.seen.max(*seen);
    }
    broker.tail("strand-labels", 1).iter().any(|record| {
        let source = record.header("strand-source");
        let offset: i64 = source.rsplit('/').next().unwrap().parse().unwrap();
        partitions.contains(&(record.partition as usize)) && offset > seen[record.partition as usize]
    })
}

/// Whether a transaction is open that has labels of these partitions.
fn transaction_is_open(broker: &Broker, partitions: &[usize]) -> bool {
    let open = broker.open_transactions("strand-labels");
    partitions.iter().any(|partition| open[*partition])
}

/// How many states in the changelog have seen less than one of their stream before them.
fn written_late(broker: &Broker) -> usize {
    let mut latest: BTreeMap<(i32, Vec<u8>), i64> = BTreeMap::new();
    let late = broker.read("strand-state").into_iter().filter(|record| {
        let seen = StreamState::entry_of(record.value.as_ref().unwrap()).unwrap().seen;
        let latest = latest.entry((record.partition, record.key.clone().unwrap())).or_insert(seen);
        let is_late = seen < *latest;
        *latest = seen.max(*latest);
        is_late
    });
    late.count()
}

/// The partitions that this instance serves, by its own metrics.
fn served(daemon: &Daemon) -> Vec<usize> {
    let text = daemon.get("/metrics").body;
    let lines = text.lines().filter_map(|line| line.strip_prefix("strand_consumer_lag_records{partition=\""));
    lines.map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
}

/// What it writes when it wakes up is the last in the changelog, and older than what is there.
#[test]
fn an_instance_that_wakes_up_after_its_partitions_went_to_another_does_no_harm() {
    let verdict = freeze(&Broker::start(), "at_least_once", labels_wait_for_states);
    // What was published without its states was labelled by the other again.
    assert!(verdict.repeated > 0, "it was not frozen in the middle of a batch: {verdict}");
}

/// Its transaction is open while others go on; when it wakes up, it must not be committed beside theirs.
#[test]
fn a_transaction_that_was_frozen_is_not_committed_beside_that_of_another() {
    let verdict = freeze(&Broker::own(), "exactly_once", transaction_is_open);
    assert!(verdict.is_exactly_once(), "{verdict}");
}

fn freeze(broker: &Broker, delivery: &str, is_writing: impl Fn(&Broker, &[usize]) -> bool) -> Verdict {
    let place = Place::new();
    let delivered = format!("kafka.delivery={delivery}");
    let settings = ["kafka.input_partitions=8", "pipeline.batch_records=8", "state.max_resident=20", &delivered];
    let [frozen, other] = ["one", "two"].map(|name| start(&place, broker, name, &settings));
    let assigned = |daemon: &Daemon| daemon.metric("strand_partitions_assigned");
    eventually("the partitions are shared", || assigned(&frozen) == 4.0 && assigned(&other) == 4.0);
    let load = Load::start(broker, 60, 700, None);
    eventually("both are at work", || {
        [&frozen, &other].iter().all(|daemon| daemon.metric("strand_records_total") > 100.0)
    });

    let (mut random, partitions) = (ChaCha8Rng::seed_from_u64(strand::clock::unix_ms()), served(&frozen));
    assert_eq!(partitions.len(), 4);
    let mut tries = 0;
    loop {
        frozen.signal("STOP");
        if is_writing(broker, &partitions) {
            break;
        }
        frozen.signal("CONT");
        tries += 1;
        assert!(tries < 200, "it is never caught writing");
        std::thread::sleep(Duration::from_micros(random.random_range(5_000..50_000)));
    }
    let mut sent = load.stop();
    eventually("the other has all partitions", || assigned(&other) == 8.0);
    std::thread::sleep(FROZEN);
    frozen.signal("CONT");
    eventually("it knows that it was left behind", || {
        frozen.log().contains("partitions lost") || assigned(&frozen) < 4.0
    });
    eventually("it is in the group again", || assigned(&frozen) > 0.0 && assigned(&other) < 8.0);
    broker.settle(GROUP, INPUT, Duration::from_secs(60));
    // One after the other: Tansu lets nobody join any more when members leave at once.
    assert!(frozen.stop().success());
    eventually("the other has all partitions again", || assigned(&other) == 8.0);
    assert!(other.stop().success());
    let late = written_late(broker);

    // Who comes now knows the streams from the changelog alone.
    let third = start(&place, broker, "three", &settings);
    let load = Load::start(broker, 60, 700, None);
    std::thread::sleep(Duration::from_secs(2));
    sent += load.stop();
    broker.settle(GROUP, INPUT, Duration::from_secs(60));
    assert!(third.stop().success());
    let verdict = judge(broker, &Place::new(), sent);
    let note = format!("caught at try {tries}, {late} states written late");
    report("frozen while it writes, past its session, then awake", &kafka(broker, delivery), 1, &verdict, &note);
    assert!(verdict.is_good() && verdict.letters > 0, "{verdict}");
    verdict
}
