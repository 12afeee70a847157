//! The disk is full, or read-only: errors are told and go away, nothing is lost, work goes on once there is space.
#![cfg(target_os = "linux")]

use crate::daemon_harness::{Daemon, Place, ended, eventually};
use crate::fault_report;
use crate::faults::{Load, Shape, judge};
use crate::small_disk::Disk;
use std::time::{Duration, Instant};

/// Small batches, so that commits fail too and not requests alone; the file is to grow fast.
const SETTINGS: [&str; 4] = ["--set", "pipeline.batch_records=64", "--set", "http.wait_timeout=2s"];

/// Runs it where it should not start; exit code and what it said.
fn fails(disk: &Disk, place: &Place) -> (i32, String) {
    ended(disk.inside(&place.command(&SETTINGS)))
}

fn failed_requests(daemon: &Daemon) -> f64 {
    daemon.metric("strand_ingest_requests_total{outcome=\"failed\"}")
}

/// As long as there is still room in the file, records are taken meanwhile.
fn wait_for_failures(daemon: &Daemon, load: &Load, count: f64, unready: &mut u64) {
    let (mut before, mut since) = ((0.0, 0), Instant::now());
    while failed_requests(daemon) < count {
        let ready = daemon.get("/readyz");
        *unready += u64::from(ready.status == 503 && ready.body.contains("commit"));
        let now = (failed_requests(daemon), load.acknowledged());
        if now != before {
            (before, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < Duration::from_secs(30), "neither taken nor refused\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for_more(load: &Load, records: u64) {
    let before = load.acknowledged();
    eventually("records are acknowledged", || load.acknowledged() >= before + records);
}

#[test]
fn a_full_disk_loses_nothing_and_work_goes_on_when_there_is_space() {
    let runs = fault_report::size("STRAND_FULL_DISKS", 3);
    let place = Place::new();
    let mut megabytes = 16;
    let disk = Disk::at(place.data(), megabytes);
    let mut daemon = Daemon::start(disk.inside(&place.command(&SETTINGS)));
    let load = Load::start(Shape { most: 200, ..Shape::default() });
    load.point_at(&daemon);
    let (mut unready, mut served, mut not_started) = (0, 0, 0);
    for run in 0..runs {
        wait_for_more(&load, 200);
        // Something else takes the space on the same disk, or the daemon itself has taken it all.
        let before = failed_requests(&daemon);
        let ballast = disk.fill("ballast");
        wait_for_failures(&daemon, &load, before + 10.0, &mut unready);
        // What is there is served if the store can be opened again without space; else the client is told to come later.
        let answer = daemon.get("/v1/labels?limit=10");
        match answer.status {
            200 => served += u64::from(answer.lines().len() == 10),
            _ => assert_eq!((answer.status, answer.retry_after.as_deref()), (503, Some("1")), "{answer:?}"),
        }
        match run % 3 {
            0 => std::fs::remove_file(&ballast).unwrap(),
            1 => {
                megabytes += 16;
                disk.remount(&format!("size={megabytes}m"));
            }
            _ => {
                // Killed while the disk is full: it starts all the same, or says why not.
                daemon.kill();
                let mut full = Daemon::spawn(disk.inside(&place.command(&SETTINGS)));
                eventually("it listens or has ended", || full.listens_at().is_some() || full.has_ended());
                if full.has_ended() {
                    let (status, said) = (full.wait(), full.log());
                    assert_eq!(status.code(), Some(1), "{said}");
                    assert!(said.contains("No space left") && said.contains("strand.redb"), "{said}");
                    not_started += 1;
                }
                assert!(!full.log().contains("panicked"), "{}", full.log());
                full.kill();
                std::fs::remove_file(&ballast).unwrap();
                daemon = Daemon::start(disk.inside(&place.command(&SETTINGS)));
                load.point_at(&daemon);
            }
        }
        eventually("it is ready again", || daemon.get("/readyz").status == 200);
        wait_for_more(&load, 200);
        let _ = std::fs::remove_file(&ballast);
        // Room for the next run.
        megabytes += 16;
        disk.remount(&format!("size={megabytes}m"));
    }
    let sent = load.stop();
    let verdict = judge(&daemon, &sent);
    let refused = sent.refused;
    let note = format!(
        "{refused} requests refused; labels served meanwhile: {served}; not started without space: {not_started}"
    );
    verdict.must_be_good("disk full", runs, note);
    assert!(refused >= runs && unready > 0, "refused {refused}, unready {unready}");
    assert!(daemon.stop().success());
}

#[test]
fn on_a_read_only_disk_it_does_not_start_and_says_why() {
    let runs = fault_report::size("STRAND_READ_ONLY_DISKS", 3);
    let place = Place::new();
    let disk = Disk::at(place.data(), 64);
    let load = Load::start(Shape::default());
    // Nothing there yet.
    disk.remount("ro");
    let (code, said) = fails(&disk, &place);
    assert!(code == 1 && said.contains("Read-only file system"), "{code}: {said}");
    for _ in 0..runs {
        disk.remount("rw");
        let daemon = Daemon::start(disk.inside(&place.command(&SETTINGS)));
        load.point_at(&daemon);
        wait_for_more(&load, 300);
        daemon.kill();
        disk.remount("ro");
        let (code, said) = fails(&disk, &place);
        assert!(code == 1 && said.contains("strand.redb") && said.contains("Read-only file system"), "{code}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    disk.remount("rw");
    let daemon = Daemon::start(disk.inside(&place.command(&SETTINGS)));
    load.point_at(&daemon);
    let sent = load.stop();
    judge(&daemon, &sent).must_be_good("disk read-only", runs, "not started, with words; then as before".to_string());
    assert!(daemon.stop().success());
}
