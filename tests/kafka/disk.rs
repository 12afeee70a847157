//! The disk of the local copy of the states is full: while the changelog is read back, and under a daemon at work. Errors are
//! told, and go away once there is space.
#![cfg(target_os = "linux")]

use crate::daemon_harness::{Daemon, Place, eventually};
use crate::fault_report::{Row, report};
use crate::kafka_harness::{Broker, Record, command};
use crate::small_disk::Disk;
use std::collections::BTreeMap;
use std::time::Duration;

/// Enough that their states take more than the room that is left.
const STREAMS: usize = 20_000;
/// A small cache: otherwise nothing is written to the disk before the copy is saved.
const SETTINGS: [&str; 3] = ["kafka.input_partitions=4", "kafka.state_save=100ms", "kafka.state_cache=64KiB"];

fn send(broker: &Broker, piece: &str) {
    let sender = broker.sender();
    for n in 0..STREAMS {
        sender.piece("strand-input", &format!("stream-{n}"), piece.as_bytes(), None);
    }
    sender.flush();
}

fn settle(broker: &Broker) {
    broker.settle("strand", "strand-input", Duration::from_secs(60));
}

/// Each stream's words.
fn words(records: &[Record]) -> BTreeMap<String, Vec<String>> {
    let mut words: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in records {
        let labels = record.json()["labels"].as_array().unwrap().clone();
        let texts = labels.iter().map(|label| label["text"].as_str().unwrap().to_string());
        words.entry(record.key_text()).or_default().extend(texts);
    }
    words
}

fn told(daemon: &Daemon) -> bool {
    let answer = daemon.get("/readyz");
    answer.status == 503 && (answer.body.contains("No space left") || answer.body.contains("I/O error"))
}

#[test]
fn a_full_disk_is_told_and_work_goes_on_when_there_is_space() {
    let (broker, place) = (Broker::own(), Place::new());
    let states = place.path().join("states-a");
    let disk = Disk::at(states, 96);
    let run = || disk.inside(&command(&place, &broker.address, "a", &SETTINGS));
    let daemon = Daemon::start(run());
    send(&broker, "Ada Love");
    settle(&broker);
    assert!(daemon.stop().success());

    // While states are read back: there is room for an empty copy, and not for the states.
    std::fs::remove_file(disk.path("states.redb")).unwrap();
    let ballast = disk.fill("ballast");
    let taken = std::fs::metadata(&ballast).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&ballast).unwrap().set_len(taken - (2 << 20)).unwrap();
    let daemon = Daemon::spawn(run());
    eventually("it listens", || daemon.listens_at().is_some());
    eventually("it says that there is no space to read back", || told(&daemon));
    std::fs::remove_file(&ballast).unwrap();
    eventually("it is ready", || daemon.get("/readyz").status == 200);
    assert_eq!(daemon.metric("strand_streams_live"), STREAMS as f64);
    send(&broker, "lace and ");
    settle(&broker);

    // At work.
    let ballast = disk.fill("ballast");
    send(&broker, "Charles ");
    // What these changed may fit in the file's free pages. New streams need more room, sooner or later.
    let (sender, mut more) = (broker.sender(), 0);
    eventually("it says that there is no space", || {
        (more..more + 100).for_each(|n| sender.piece("strand-input", &format!("more-{n}"), b"Ada ", None));
        sender.flush();
        more += 100;
        told(&daemon)
    });
    std::fs::remove_file(&ballast).unwrap();
    settle(&broker);
    eventually("it is ready", || daemon.get("/readyz").status == 200);
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    assert!(daemon.stop().success());

    let mut words = words(&broker.read("strand-labels"));
    words.retain(|key, _| key.starts_with("stream-"));
    let wrong = words.values().filter(|words| words.join(" ") != "Ada Lovelace and Charles").count() as u64;
    let lost = (STREAMS - words.len()) as u64;
    report(&Row {
        fault: "disk of the local copy full, while reading back and at work",
        transport: "kafka (own broker), exactly once",
        runs: 2,
        records: 3 * STREAMS as u64,
        lost,
        wrong,
        ..Row::default()
    });
    assert_eq!((lost, wrong), (0, 0));
}
