//! An instance that is frozen for longer than its session lasts, as a paused virtual machine is: others take its
//! partitions over, and when it wakes up, in the middle of what it was writing, it must do no harm.

mod daemon_harness;
mod kafka_harness;
mod kafka_load;

use daemon_harness::{Daemon, Place, eventually};
use kafka_harness::{Broker, start};
use kafka_load::{INPUT, Load, judge};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};

/// Longer than the session's 6 seconds.
const FROZEN: Duration = Duration::from_secs(8);
const GROUP: &str = "strand";

/// Whether labels are published of records that the group does not know to be done: a batch is being written.
fn is_writing(broker: &Broker, partitions: &[usize]) -> bool {
    let committed = broker.committed(GROUP, INPUT);
    let newest = broker.tail("strand-labels", 1);
    newest.iter().any(|record| {
        let partition = record.partition as usize;
        let source = record.header("strand-source");
        partitions.contains(&partition)
            && source.rsplit('/').next().unwrap().parse::<i64>().unwrap() >= committed[partition]
    })
}

/// The partitions that this instance serves, by its own metrics.
fn served(daemon: &Daemon) -> Vec<usize> {
    let text = daemon.get("/metrics").body;
    let lines = text.lines().filter_map(|line| line.strip_prefix("strand_consumer_lag_records{partition=\""));
    lines.map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn an_instance_that_wakes_up_after_its_partitions_went_to_another_does_no_harm() {
    let (broker, place) = (Broker::start(), Place::new());
    let settings = ["kafka.input_partitions=8", "pipeline.batch_records=8", "state.max_resident=20"];
    let [frozen, other] = ["one", "two"].map(|name| start(&place, &broker, name, &settings));
    let assigned = |daemon: &Daemon| daemon.metric("strand_partitions_assigned");
    eventually("the partitions are shared", || assigned(&frozen) == 4.0 && assigned(&other) == 4.0);
    let load = Load::start(&broker, 60, 700, None);
    eventually("both are at work", || {
        [&frozen, &other].iter().all(|daemon| daemon.metric("strand_records_total") > 100.0)
    });

    // Frozen while it writes: what it has not written yet, it will write when it wakes up.
    let (mut random, partitions) = (ChaCha8Rng::seed_from_u64(strand::clock::unix_ms()), served(&frozen));
    assert_eq!(partitions.len(), 4);
    let mut tries = 0;
    loop {
        frozen.signal("STOP");
        if is_writing(&broker, &partitions) {
            break;
        }
        frozen.signal("CONT");
        tries += 1;
        assert!(tries < 200, "it is never caught writing");
        std::thread::sleep(Duration::from_micros(random.random_range(5_000..50_000)));
    }
    let begun = Instant::now();
    let mut sent = load.stop();
    eventually("the other has all partitions", || assigned(&other) == 8.0);
    broker.settle(GROUP, INPUT, Duration::from_secs(60));
    std::thread::sleep(FROZEN.saturating_sub(begun.elapsed()));
    // Whatever it writes now is the last in the changelog, and older than what is there.
    frozen.signal("CONT");
    eventually("it knows that it was left behind", || {
        frozen.log().contains("partitions lost") || assigned(&frozen) < 4.0
    });
    eventually("it is in the group again", || assigned(&frozen) > 0.0 && assigned(&other) < 8.0);
    let load = Load::start(&broker, 60, 700, None);
    std::thread::sleep(Duration::from_secs(2));
    sent += load.stop();
    broker.settle(GROUP, INPUT, Duration::from_secs(60));
    let skipped = other.metric("strand_records_skipped_total");
    assert!(frozen.stop().success() && other.stop().success());

    let verdict = judge(&broker, &Place::new(), sent);
    println!("frozen while it wrote: {verdict}, read again and skipped {skipped}");
    assert!(verdict.is_good() && verdict.letters > 0, "{verdict}");
    // What was published and not committed was labelled again, or its states were found.
    assert!(verdict.repeated > 0 || skipped > 0.0, "it was not frozen in the middle of a batch");
}
