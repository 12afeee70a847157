//! The machine's clock jumps, by hours or decades, forwards and back: nothing is lost or labelled otherwise, nothing
//! panics; what goes by the clock (a stream's time to live, how long labels are kept) goes by what it says then.
//!
//! The daemon's clock is libfaketime's, which `tests/setup.sh` installs; the machine's own is left alone. Only Linux
//! has it in this form.
#![cfg(target_os = "linux")]

use crate::daemon_harness::{Daemon, Place, eventually};
use crate::fault_report;
use crate::faults::{Load, Shape, judge};
use std::path::PathBuf;

/// A clock that can be set, for the daemons that are started with it.
struct Clock {
    file: PathBuf,
    library: PathBuf,
}

impl Clock {
    fn new(place: &Place) -> Clock {
        let library =
            ["x86_64", "aarch64"].map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"));
        let library = library.into_iter().map(PathBuf::from).find(|path| path.exists());
        let library =
            library.expect("libfaketime is not there: tests/setup.sh installs it (Debian's package faketime)");
        let clock = Clock { file: place.path().join("clock"), library };
        clock.set("+0");
        clock
    }

    /// As libfaketime reads it: an offset such as `-2d`, or `@2030-01-01 00:00:00`.
    fn set(&self, time: &str) {
        // At once, so that no half of it is read.
        let new = self.file.with_extension("new");
        std::fs::write(&new, time).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    fn start(&self, place: &Place, arguments: &[&str]) -> Daemon {
        let mut command = place.command(arguments);
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.file);
        // Each look at the clock reads the file. The monotonic clock does not jump on a real machine either.
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Daemon::start(command)
    }
}

fn wait_for_more(load: &Load, records: u64) {
    let before = load.acknowledged();
    eventually("records are acknowledged", || load.acknowledged() >= before + records);
}

fn now_ms(daemon: &Daemon, stream: &str) -> u64 {
    daemon.get(&format!("/v1/streams/{stream}")).json()["active_ms"].as_u64().unwrap()
}

#[test]
fn nothing_is_lost_or_labelled_otherwise_when_the_clock_jumps() {
    let jumps = fault_report::size("STRAND_CLOCK_JUMPS", 30);
    let place = Place::new();
    let clock = Clock::new(&place);
    // Nothing ends or is deleted by age here.
    let settings = ["--set", "embedded.labels_keep=off", "--set", "embedded.dead_letters_keep=off"];
    let mut daemon = clock.start(&place, &settings);
    let load = Load::start(Shape::default());
    load.point_at(&daemon);
    // Linux lets no clock stand before 1970.
    let times = ["+2h", "-2h", "+3650d", "@1970-01-02 00:00:00", "@2200-01-01 00:00:00", "-1", "-9000d", "+0"];
    let mut restarts = 0;
    for jump in 0..jumps {
        clock.set(times[jump as usize % times.len()]);
        wait_for_more(&load, 100);
        assert_eq!(daemon.get("/readyz").status, 200);
        // Also over a restart: what is on disk has another day's times.
        if jump % 10 == 9 {
            assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
            daemon.kill();
            daemon = clock.start(&place, &settings);
            load.point_at(&daemon);
            restarts += 1;
        }
    }
    clock.set("+0");
    let sent = load.stop();
    let verdict = judge(&daemon, &sent);
    // A record that seems to come from the future took no time, not less.
    let sum = daemon.metric("strand_latency_seconds_sum");
    assert!(sum.is_finite() && sum >= 0.0, "{sum}");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    verdict.must_be_good("clock jumps", jumps, format!("{restarts} with kill -9; from 1970 to 2200"));
    assert!(daemon.stop().success());
}

#[test]
fn a_streams_time_to_live_goes_by_the_clock_and_survives_its_jumps() {
    let place = Place::new();
    let clock = Clock::new(&place);
    let daemon = clock.start(&place, &["--set", "state.stream_ttl=60s", "--set", "embedded.labels_keep=off"]);
    let state = |stream: &str| daemon.get(&format!("/v1/streams/{stream}")).json()["state"].clone();
    let post = |stream: &str| assert_eq!(daemon.post(&format!("/v1/streams/{stream}?wait=1"), "Ada ").status, 200);
    for stream in ["a", "b"] {
        post(stream);
    }
    // Back: nobody is idle, and what goes on is as old as the clock says.
    let before = now_ms(&daemon, "a");
    clock.set("-1d");
    post("a");
    assert!(now_ms(&daemon, "a") < before - 80_000_000);
    assert_eq!((state("a"), state("b")), ("live".into(), "live".into()));
    // To where it was: "a" now seems idle for a day, "b" for a moment.
    clock.set("+0");
    eventually("the idle stream has ended", || state("a") == "ended");
    assert_eq!(state("b"), "live");
    // Forwards: the other one is idle too. Its last output is there, nothing else came.
    clock.set("+2h");
    eventually("the other has ended", || state("b") == "ended");
    for (stream, outputs) in [("a", 3), ("b", 2)] {
        let labels = daemon.labels(stream);
        assert_eq!(labels.len(), outputs, "{labels:?}");
        assert_eq!(labels.last().unwrap()["final"], true);
    }
    // And a new life begins, whatever the clock says.
    clock.set("-3650d");
    post("a");
    assert_eq!(state("a"), "live");
    assert_eq!(daemon.labels("a").last().unwrap()["seq"], 3);
    assert!(!daemon.log().contains("panicked") && daemon.stop().success());
}

#[test]
fn labels_from_a_clock_that_stood_ahead_do_not_keep_younger_ones_for_ever() {
    let place = Place::new();
    let clock = Clock::new(&place);
    let start = || clock.start(&place, &["--set", "embedded.labels_keep=1h", "--set", "embedded.dead_letters_keep=1h"]);
    let mut daemon = start();
    let post = |daemon: &Daemon, text: &[u8], status| {
        assert_eq!(daemon.post("/v1/streams/s?wait=1", text).status, status);
    };
    clock.set("+10000d");
    post(&daemon, b"Ada ", 200);
    post(&daemon, b"\xff\xfe", 422);
    clock.set("+0");
    post(&daemon, b"Ada ", 200);
    post(&daemon, b"\xff\xfe", 422);
    // Retention looks when the daemon starts, and every ten seconds.
    daemon.kill();
    daemon = start();
    assert_eq!(daemon.labels("s").len(), 2);
    daemon.kill();
    clock.set("+2h");
    daemon = start();
    eventually("both labels have gone", || daemon.labels("s").is_empty());
    eventually("both dead letters have gone", || daemon.get("/v1/dead-letters").lines().is_empty());
    assert!(daemon.stop().success());
}
