//! kill -9 at random instants under load: nothing that was acknowledged is lost, nothing is labelled twice, and every
//! byte of the labels is what an undisturbed run gives.
//!
//! The number of kills can be set with `STRAND_KILLS`.

use crate::daemon_harness::{Daemon, Place};
use crate::fault_report;
use crate::faults::{Load, Shape, judge};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};

/// Small batches and few resident streams: every path is taken often.
const SETTINGS: [&str; 8] = [
    "--set",
    "pipeline.batch_records=16",
    "--set",
    "state.max_resident=8",
    "--set",
    "pipeline.threads=2",
    "--set",
    "http.wait_timeout=2s",
];

#[test]
fn labels_after_50_kills_are_those_of_an_undisturbed_run() {
    let kills = fault_report::size("STRAND_KILLS", 50);
    let begun = Instant::now();
    let place = Place::new();
    let mut random = ChaCha8Rng::seed_from_u64(strand::clock::unix_ms());
    let load = Load::start(Shape::default());

    let (mut while_starting, mut at_work) = (0, 0);
    for _ in 0..kills {
        let daemon = Daemon::spawn(place.command(&SETTINGS));
        let until = Instant::now() + Duration::from_micros(random.random_range(0..400_000));
        let before = load.acknowledged();
        while Instant::now() < until {
            load.point_at(&daemon);
            std::thread::sleep(Duration::from_micros(500));
        }
        match daemon.listens_at() {
            None => while_starting += 1,
            Some(_) => at_work += u64::from(load.acknowledged() > before),
        }
        daemon.kill();
    }
    let daemon = place.start(&SETTINGS);
    load.point_at(&daemon);
    let sent = load.stop();
    let verdict = judge(&daemon, &sent);
    println!(
        "{kills} kills in {:.1} s, {} requests sent again: {verdict:?}",
        begun.elapsed().as_secs_f64(),
        sent.again
    );
    verdict.must_be_good("kill -9", kills, format!("{at_work} at work, {while_starting} while starting"));
    assert!(at_work > kills / 3, "{at_work} of {kills} kills hit a daemon at work");
    assert!(verdict.records > kills * 5 && verdict.rejected > 0);
    assert!(daemon.stop().success());
}
