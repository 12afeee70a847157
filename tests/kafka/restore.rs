//! How states come back: from the local copy and what the changelog has got since, from the changelog alone where the
//! copy does not fit, and from a copy that followed another instance.

use crate::daemon_harness::{Daemon, Place, eventually};
use crate::kafka_harness::{Broker, Record, start};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use strand_test_broker::Options;
use tempfile::TempDir;

const STREAMS: usize = 300;
const PARTITIONS: &str = "kafka.input_partitions=4";
const SAVE_OFTEN: &str = "kafka.state_save=50ms";

/// Sends each stream a piece and waits until all are labelled.
fn send(broker: &Broker, piece: &str) {
    let sender = broker.sender();
    for n in 0..STREAMS {
        sender.piece("strand-input", &format!("stream-{n}"), piece.as_bytes(), None);
    }
    sender.flush();
    broker.settle("strand", "strand-input", Duration::from_secs(20));
}

/// Each stream's words, put together.
fn text_of(records: &[Record], stream: &str) -> String {
    let of = records.iter().filter(|record| record.key_text() == stream);
    let labels = of.flat_map(|record| record.json()["labels"].as_array().unwrap().clone());
    labels.map(|label| label["text"].as_str().unwrap().to_string()).collect::<Vec<_>>().join(" ")
}

fn assert_all_say(broker: &Broker, text: &str) {
    let labels = broker.read("strand-labels");
    (0..STREAMS).map(|n| format!("stream-{n}")).for_each(|s| assert_eq!(text_of(&labels, &s), text, "{s}"));
}

fn restored(daemon: &Daemon) -> usize {
    daemon.metric("strand_restored_states_total") as usize
}

fn copy_of(place: &Place, instance: &str) -> PathBuf {
    place.path().join(format!("states-{instance}")).join("states.redb")
}

fn put_aside(daemon: &Daemon, why: &str) {
    let log = daemon.log();
    assert!(log.contains("put aside") && log.contains(why), "{why}:\n{log}");
}

#[test]
fn after_a_restart_only_what_is_new_is_read() {
    let (broker, place) = (Broker::own(), Place::new());
    let daemon = start(&place, &broker, "a", &[PARTITIONS]);
    send(&broker, "Ada Love");
    assert!(daemon.stop().success());
    let daemon = start(&place, &broker, "a", &[PARTITIONS, SAVE_OFTEN]);
    assert_eq!((restored(&daemon), daemon.metric("strand_streams_live")), (0, 300.0));
    send(&broker, "lace and ");

    // A crash: what was not saved comes from the changelog.
    daemon.kill();
    let daemon = start(&place, &broker, "a", &[PARTITIONS]);
    assert!(daemon.log().contains("taken up"), "{}", daemon.log());
    send(&broker, "Charles ");
    assert!(daemon.stop().success());
    assert_all_say(&broker, "Ada Lovelace and Charles");
}

/// The copy is of an earlier time: another instance has labelled since.
#[test]
fn a_copy_that_is_behind_catches_up() {
    let (broker, place) = (Broker::own(), Place::new());
    for (instance, piece, read) in [("a", "Ada Love", 0), ("b", "lace and ", STREAMS), ("a", "Charles ", STREAMS)] {
        let daemon = start(&place, &broker, instance, &[PARTITIONS]);
        assert_eq!(restored(&daemon), read, "{instance}");
        send(&broker, piece);
        assert!(daemon.stop().success());
    }
    assert_all_say(&broker, "Ada Lovelace and Charles");
}

#[test]
fn a_copy_that_does_not_fit_is_put_aside() {
    let (broker, place) = (Broker::own(), Place::new());
    let daemon = start(&place, &broker, "a", &[PARTITIONS]);
    send(&broker, "Ada Love");
    assert!(daemon.stop().success());
    let copy = copy_of(&place, "a");
    let good = fs::read(&copy).unwrap();

    fs::write(&copy, &good[..good.len() / 3]).unwrap();
    let daemon = start(&place, &broker, "a", &[PARTITIONS]);
    put_aside(&daemon, "damaged");
    assert_eq!(restored(&daemon), STREAMS);
    send(&broker, "lace ");
    assert!(daemon.stop().success());
    assert_all_say(&broker, "Ada Lovelace");

    // Another cluster, with topics of the same names and nothing in them.
    let dir = TempDir::new().unwrap();
    let mut options = Options::new(dir.path());
    options.cluster_id = "another".to_string();
    let other = Broker::own_with(options, Some(dir));
    let daemon = start(&place, &other, "a", &[PARTITIONS]);
    put_aside(&daemon, "another");
    assert_eq!((restored(&daemon), daemon.metric("strand_streams_live")), (0, 0.0));
    send(&other, "Grace ");
    assert_all_say(&other, "Grace");
    assert!(daemon.stop().success());
}

/// The changelog was deleted and has begun anew, on the same cluster, and is longer than the copy knows it.
#[test]
fn a_changelog_that_was_made_anew_is_told_from_the_one_before() {
    let place = Place::new();
    let first = Broker::own();
    let daemon = start(&place, &first, "a", &[PARTITIONS]);
    send(&first, "Ada Love");
    assert!(daemon.stop().success());
    let second = Broker::own();
    let daemon = start(&place, &second, "b", &[PARTITIONS]);
    send(&second, "Charles ");
    send(&second, "Babbage ");
    assert!(daemon.stop().success());

    let daemon = start(&place, &second, "a", &[PARTITIONS]);
    put_aside(&daemon, "made anew");
    send(&second, "met ");
    assert_all_say(&second, "Charles Babbage met");
    assert!(daemon.stop().success());
}

#[test]
fn who_follows_takes_over_without_reading_back() {
    let (broker, place) = (Broker::own(), Place::new());
    let first = start(&place, &broker, "a", &[PARTITIONS]);
    send(&broker, "Ada Love");
    let second = start(&place, &broker, "b", &["kafka.standby=true"]);
    let assigned = |daemon: &Daemon| daemon.metric("strand_partitions_assigned");
    eventually("the partitions are shared", || assigned(&first) == 2.0 && assigned(&second) == 2.0);
    eventually("the others are followed", || second.metric("strand_standby_partitions") == 2.0);
    // Every state that the second was not given in charge it has from following.
    eventually("all that was there is known", || {
        restored(&second) as f64 + second.metric("strand_standby_states_total") >= STREAMS as f64
    });
    send(&broker, "lace and ");
    let followed = |daemon: &Daemon| daemon.metric("strand_standby_states_total");
    let labelled = second.metric("strand_records_total");
    eventually("what the first labels is followed", || followed(&second) + labelled >= STREAMS as f64);
    std::thread::sleep(Duration::from_millis(500));
    let before = restored(&second);
    first.kill();
    eventually("it has all", || assigned(&second) == 4.0 && second.get("/readyz").status == 200);
    // Nothing, or what the first wrote last.
    assert!(restored(&second) - before < STREAMS / 10, "{} after {before}", restored(&second));
    assert_eq!(second.metric("strand_streams_live"), STREAMS as f64);
    send(&broker, "Charles ");
    assert!(second.stop().success());
    assert_all_say(&broker, "Ada Lovelace and Charles");
}
