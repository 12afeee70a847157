//! Instances that come and go: joining, leaving in order and killed, under load; static members that are back before
//! they are missed; and partitions that stay where they are, which nothing that happens to others may hold up.
//!
//! For longer runs: `STRAND_KAFKA_ROUNDS`.

use crate::daemon_harness::{Daemon, eventually};
use crate::kafka_harness::{Broker, command};
use crate::kafka_load::LABELS;
use crate::kafka_scene::{Scene, exactly_once, goes_on, load, partitions, setting};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;
use strand_test_broker::{ApiKey, Fault};

fn rebalances(daemon: &Daemon) -> f64 {
    daemon.metric("strand_rebalances_total")
}

/// The partitions that it serves.
fn served(daemon: &Daemon) -> Vec<i32> {
    let text = daemon.get("/metrics").body;
    let lines = text.lines().filter_map(|line| line.strip_prefix("strand_consumer_lag_records{partition=\""));
    let mut served: Vec<i32> = lines.map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect();
    served.sort_unstable();
    served
}

/// Starts an instance with more settings than the scene's, and waits for nothing.
fn spawn(scene: &Scene, broker: &Broker, name: &str, more: &[String]) -> Daemon {
    let settings = [scene.settings(name), more.to_vec()].concat();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    Daemon::spawn(command(&scene.place, &broker.address, name, &settings))
}

#[test]
fn three_instances_come_and_go_under_load() {
    let broker = Broker::own();
    let scene = Scene::on(&broker, &[]);
    let names = ["one", "two", "three"];
    let mut daemons: Vec<Option<Daemon>> = names.iter().map(|name| Some(spawn(&scene, &broker, name, &[]))).collect();
    let (load, rounds) = (load(&broker), setting("STRAND_KAFKA_ROUNDS", 5));
    let mut random = ChaCha8Rng::seed_from_u64(strand::clock::unix_ms());
    let mut killed = 0;
    for round in 0..rounds {
        // At any time: also while others read states back or are being given partitions.
        std::thread::sleep(Duration::from_millis(random.random_range(0..2500)));
        let number = random.random_range(0..3);
        match daemons[number].take() {
            None => daemons[number] = Some(spawn(&scene, &broker, names[number], &[])),
            Some(daemon) if round % 2 == 0 => {
                daemon.kill();
                killed += 1;
            }
            Some(daemon) => assert!(daemon.stop().success()),
        }
    }
    for (daemon, name) in daemons.iter_mut().zip(names) {
        daemon.get_or_insert_with(|| spawn(&scene, &broker, name, &[]));
    }
    let daemons: Vec<Daemon> = daemons.into_iter().flatten().collect();
    let all = || daemons.iter().filter(|daemon| daemon.listens_at().is_some()).map(partitions).sum::<f64>();
    // Those that were killed are missed after their sessions.
    eventually("all partitions have somebody", || all() == 8.0);
    let verdict = scene.verdict(&broker, load, daemons);
    exactly_once("three instances come and go", rounds, &verdict, &format!("{killed} of them killed with -9"));
}

/// With `group.instance.id`, an instance that is back within its session has what it had, and nobody else notices.
#[test]
fn a_static_member_that_is_back_in_time_is_not_missed() {
    let broker = Broker::own();
    let scene = Scene::on(&broker, &["kafka.properties.session.timeout.ms=20000"]);
    let start = |name: &str| {
        let daemon = spawn(&scene, &broker, name, &[format!("kafka.properties.group.instance.id={name}")]);
        eventually("listening", || daemon.listens_at().is_some());
        eventually("ready", || daemon.get("/readyz").status == 200);
        daemon
    };
    let (stays, mut goes) = (start("stays"), start("goes"));
    eventually("the partitions are shared", || partitions(&stays) == 4.0 && partitions(&goes) == 4.0);
    eventually("all are served", || served(&stays).len() == 4 && served(&goes).len() == 4);
    let (load, rounds) = (load(&broker), setting("STRAND_KAFKA_ROUNDS", 4));
    let (before, of_both) = (rebalances(&stays), [served(&stays), served(&goes)]);
    for round in 0..rounds {
        goes_on(&goes, 50.0);
        if round % 2 == 0 {
            goes.kill();
        } else {
            assert!(goes.stop().success());
        }
        goes_on(&stays, 50.0);
        goes = start("goes");
        eventually("it has partitions", || served(&goes).len() == 4);
        goes_on(&goes, 50.0);
        assert_eq!([served(&stays), served(&goes)], of_both);
    }
    assert_eq!(rebalances(&stays), before, "{}", stays.log());
    let verdict = scene.verdict(&broker, load, vec![stays, goes]);
    exactly_once("a static member restarted within its session", rounds, &verdict, "rebalances of the other 0");
}

/// Only what moves pauses: what stays with an instance is labelled on while the group is being shared out, and while
/// another reads back the states of what it was given.
#[test]
fn partitions_that_stay_are_labelled_on_meanwhile() {
    let broker = Broker::own();
    let scene = Scene::on(&broker, &[]);
    let one = scene.instance(&broker, "one");
    let (load, rounds) = (load(&broker), setting("STRAND_KAFKA_ROUNDS", 2));
    let mut labelled_meanwhile = [0, 0];
    for _ in 0..rounds {
        eventually("all is here", || partitions(&one) == 8.0);
        goes_on(&one, 200.0);
        // The last step of the rebalance: who leads the group says what each has.
        broker.faulty().fault_of("one", ApiKey::SyncGroup, 1, Fault::Hold);
        // What the other will be given, it cannot read back for now.
        broker.faulty().fault_of("two", ApiKey::Fetch, 10_000, Fault::Hold);
        let joined = rebalances(&one);
        let two = spawn(&scene, &broker, "two", &[]);
        eventually("the group waits for one", || broker.faulty().state_of("strand") == "CompletingRebalance");
        let at = broker.ends(LABELS);
        goes_on(&one, 100.0);
        assert_eq!(broker.faulty().state_of("strand"), "CompletingRebalance", "the rebalance is over already");
        assert_eq!(rebalances(&one), joined);
        labelled_meanwhile[0] += grown(&at, &broker.ends(LABELS), None);
        broker.faulty().release(ApiKey::SyncGroup);

        eventually("the other was given its part", || two.listens_at().is_some() && partitions(&two) == 4.0);
        eventually("one knows", || partitions(&one) == 4.0);
        let (stay, at) = (served(&one), broker.ends(LABELS));
        assert_ne!(two.get("/readyz").status, 200, "its states are there already");
        goes_on(&one, 100.0);
        assert_ne!(two.get("/readyz").status, 200, "its states are there already");
        let now = broker.ends(LABELS);
        labelled_meanwhile[1] += grown(&at, &now, Some(&stay));
        // And what moved waits for its states.
        assert_eq!(grown(&at, &now, None), grown(&at, &now, Some(&stay)));
        broker.faulty().clear_faults();
        eventually("ready", || two.get("/readyz").status == 200);
        goes_on(&two, 50.0);
        assert!(two.stop().success());
    }
    assert!(labelled_meanwhile[0] > 0 && labelled_meanwhile[1] > 0, "{labelled_meanwhile:?}");
    let verdict = scene.verdict(&broker, load, vec![one]);
    let [sharing, restoring] = labelled_meanwhile;
    let note =
        format!("of partitions that stay: {sharing} offsets while sharing out, {restoring} while others restore");
    exactly_once("partitions that stay during a rebalance", rounds * 2, &verdict, &note);
}

/// By how much these partitions have grown, or all.
fn grown(before: &[(i64, i64)], now: &[(i64, i64)], partitions: Option<&[i32]>) -> i64 {
    let counts = |partition: usize| partitions.is_none_or(|list| list.contains(&(partition as i32)));
    let ends = before.iter().zip(now).enumerate().filter(|(partition, _)| counts(*partition));
    ends.map(|(_, ((_, before), (_, now)))| now - before).sum()
}
