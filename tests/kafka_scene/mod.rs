//! Instances under load on a broker where things go wrong, up to the verdict. Every instance delivers exactly once
//! unless its settings say otherwise, and is known to the broker by its own name (librdkafka's `client.id`).
#![allow(dead_code, reason = "each test file uses a part")]

use super::daemon_harness::{Daemon, Place, eventually};
use super::kafka_harness::{Broker, start};
use super::kafka_load::{INPUT, Load, Shape, Verdict, judge, report};
use std::time::Duration;
use strand_test_broker::{ApiKey, Fault};

pub const GROUP: &str = "strand";
pub const PARTITIONS: i32 = 8;
/// Small batches and few resident streams: most of the time something is being written, and states are read often. A
/// broker that is back is noticed soon. The copy of the states is saved often, so that what is killed begins with one.
const SETTINGS: [&str; 5] = [
    "kafka.delivery=exactly_once",
    "pipeline.batch_records=16",
    "state.max_resident=30",
    "kafka.state_save=100ms",
    "kafka.properties.reconnect.backoff.max.ms=300",
];

/// A number from the environment, for longer runs.
pub fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// A place and the settings of all instances; `STRAND_KAFKA_SET` adds some, with commas between them.
pub struct Scene {
    pub place: Place,
    pub settings: Vec<String>,
}

impl Scene {
    /// With the input's topic on a broker that has nothing yet.
    pub fn on(broker: &Broker, settings: &[&str]) -> Scene {
        broker.topic(INPUT, PARTITIONS, &[]);
        let more = std::env::var("STRAND_KAFKA_SET").unwrap_or_default();
        let more: Vec<&str> = more.split(',').filter(|set| !set.is_empty()).collect();
        let settings = SETTINGS.iter().chain(&more).chain(settings).map(ToString::to_string).collect();
        Scene { place: Place::new(), settings }
    }

    /// What an instance of this name is started with.
    pub fn settings(&self, name: &str) -> Vec<String> {
        [&self.settings[..], &[format!("kafka.properties.client.id={name}")]].concat()
    }

    /// Starts an instance and waits until it is ready.
    pub fn instance(&self, broker: &Broker, name: &str) -> Daemon {
        let settings = self.settings(name);
        start(&self.place, broker, name, &settings.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Ends the load, waits until all is labelled, ends the instances, and judges.
    pub fn verdict(self, broker: &Broker, load: Load, daemons: Vec<Daemon>) -> Verdict {
        let sent = load.stop();
        self.verdict_of(broker, sent, daemons)
    }

    /// The same for records that were sent already.
    pub fn verdict_of(self, broker: &Broker, sent: u64, daemons: Vec<Daemon>) -> Verdict {
        broker.settle(GROUP, INPUT, Duration::from_secs(120));
        for mut daemon in daemons {
            daemon.terminate();
            assert!(daemon.wait().success());
            // Shown only if the test fails.
            println!("{}", daemon.log());
        }
        judge(broker, &Place::new(), sent)
    }
}

/// Notes what came of a fault, and holds it to what is promised.
pub fn exactly_once(fault: &str, runs: usize, verdict: &Verdict, note: &str) {
    report(fault, "kafka (own broker), exactly once", runs, verdict, note);
    assert!(verdict.is_exactly_once(), "{fault}: {verdict}");
    assert!(verdict.labels > 0, "{verdict}");
}

/// A steady load that is easily kept up with.
pub fn load(broker: &Broker) -> Load {
    Load::of(broker, Shape::default())
}

pub fn labelled(daemon: &Daemon) -> f64 {
    daemon.metric("strand_records_total")
}

pub fn partitions(daemon: &Daemon) -> f64 {
    daemon.metric("strand_partitions_assigned")
}

/// Waits until this instance has labelled so many records more.
pub fn goes_on(daemon: &Daemon, records: f64) {
    let before = labelled(daemon);
    eventually("labelling goes on", || labelled(daemon) >= before + records);
}

/// How many transactions of an instance were given up.
pub fn aborted(daemon: &Daemon) -> f64 {
    daemon.metric("strand_transactions_total{outcome=\"aborted\"}")
}

/// Has these faults happen to the next requests of the instance `name`, and waits until they have.
pub fn suffers(broker: &Broker, name: &str, api: ApiKey, faults: &[Fault]) {
    let faulty = broker.faulty();
    faults.iter().for_each(|fault| faulty.fault_of(name, api, 1, *fault));
    eventually("the faults have happened", || faulty.faults_left() == 0);
}
