//! The store's file after what a loss of power may do to it: cut off, its last pages zeroed or torn, bits turned. Strand
//! recovers to what it was, or refuses with words that say what to do. It never panics, never labels wrongly, and never
//! goes on in silence without records that it had acknowledged.
//!
//! The number of damaged files can be set with `STRAND_DAMAGED_STORES`.

use crate::daemon_harness::{Daemon, Place};
use crate::fault_report;
use crate::fault_report::{Row, report};
use crate::faults::{Expected, Sent, Verdict, post_all};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;
use std::time::{Duration, Instant};

const PAGE: usize = 4096;
const STREAMS: usize = 12;
/// One engine thread and small batches: some records are still in the queue when the daemon is killed.
const SETTINGS: [&str; 4] = ["--set", "pipeline.batch_records=16", "--set", "pipeline.threads=1"];

/// Does something to the file's bytes; what it did.
fn damage(kind: u64, bytes: &mut Vec<u8>, random: &mut ChaCha8Rng) -> String {
    let pages = bytes.len() / PAGE;
    // The last pages that were ever written to; behind them the file is empty.
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at / PAGE + 1);
    let some = random.random_range(1..=8.min(used - 1));
    match kind {
        0 => {
            let cut = random.random_range(1..pages);
            bytes.truncate((pages - cut) * PAGE);
            format!("cut by {cut} pages")
        }
        1 => {
            bytes.truncate((used - some) * PAGE);
            format!("cut, with {some} pages that were written to")
        }
        2 => {
            bytes.truncate(random.random_range(0..bytes.len()));
            format!("cut to {} bytes", bytes.len())
        }
        3 => {
            bytes[(used - some) * PAGE..used * PAGE].fill(0);
            format!("the last {some} pages zeroed")
        }
        4 => {
            let at = random.random_range(1..used);
            bytes[at * PAGE..(at + 1) * PAGE].fill(0);
            format!("page {at} zeroed")
        }
        5 => {
            // Half of a page was written, the rest is noise.
            let at = random.random_range(0..used) * PAGE;
            random.fill(&mut bytes[at + PAGE / 2..at + PAGE]);
            format!("page {} torn", at / PAGE)
        }
        6 => {
            let at = random.random_range(0..used * PAGE);
            bytes[at] ^= 1 << random.random_range(0..8);
            format!("a bit of byte {at} turned")
        }
        7 => {
            // Where the root of the last commit is written.
            let at = random.random_range(0..320);
            bytes[at] ^= 1 << random.random_range(0..8);
            format!("a bit of byte {at}, in the head, turned")
        }
        8 => {
            bytes[..PAGE].fill(0);
            "the head zeroed".to_string()
        }
        _ => {
            let (from, to) = (random.random_range(1..used), random.random_range(1..used));
            bytes.copy_within(from * PAGE..(from + 1) * PAGE, to * PAGE);
            format!("page {from} written over page {to}")
        }
    }
}

/// What a daemon made of a damaged store.
#[derive(Debug)]
enum End {
    Refused(String),
    Went(Verdict),
}

fn start_on(place: &Place, data: &Path, expected: &Expected) -> End {
    let mut daemon = Daemon::spawn(place.command_on(data, "127.0.0.1:0", &SETTINGS));
    let begun = Instant::now();
    loop {
        if daemon.has_ended() {
            let status = daemon.wait();
            let said = daemon.log();
            assert_eq!(status.code(), Some(1), "{said}");
            return End::Refused(said);
        }
        let stats = daemon.listens_at().and_then(|_| daemon.try_get("/v1/stats").ok());
        if stats.is_some_and(|stats| stats.json()["queue_records"] == 0) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "neither ended nor done\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    let verdict = expected.compare(&daemon);
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    assert!(daemon.stop().success());
    End::Went(verdict)
}

#[test]
fn a_damaged_store_is_recovered_or_refused_with_what_to_do() {
    let runs = fault_report::size("STRAND_DAMAGED_STORES", 100);
    let seed = strand::clock::unix_ms();
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let place = Place::new();
    let daemon = place.start(&SETTINGS);
    let mut sent = Sent::default();
    for stream in 0..STREAMS {
        post_all(&daemon, stream, 0..150);
        sent.streams.push((stream, 150 + 20));
    }
    daemon.settle();
    for stream in 0..STREAMS {
        post_all(&daemon, stream, 150..170);
    }
    daemon.kill();
    let whole = std::fs::read(place.data().join("strand.redb")).unwrap();
    let beside = std::fs::read(place.data().join("strand.acknowledged")).unwrap();
    let expected = Expected::of(&sent);
    let records: u64 = sent.streams.iter().map(|(_, count)| count).sum();

    let mut total = Verdict::default();
    let (mut refused, mut told, mut whole_again) = (0, 0, 0);
    for run in 0..runs {
        let data = place.path().join(format!("damaged-{run}"));
        std::fs::create_dir(&data).unwrap();
        let mut bytes = whole.clone();
        let what = damage(run % 10, &mut bytes, &mut random);
        std::fs::write(data.join("strand.redb"), &bytes).unwrap();
        std::fs::write(data.join("strand.acknowledged"), &beside).unwrap();
        match start_on(&place, &data, &expected) {
            End::Refused(said) => {
                assert!(!said.contains("panicked"), "{what}: {said}");
                let words = said.lines().last().unwrap_or_default();
                assert!(words.contains("strand.redb") && words.contains("from a backup"), "{what}: {said}");
                refused += 1;
                told += u64::from(words.contains("has lost records"));
            }
            End::Went(verdict) => {
                println!("{what}: {verdict:?}");
                whole_again += u64::from(verdict.is_good());
                total.lost += verdict.lost;
                total.repeated += verdict.repeated;
                total.wrong += verdict.wrong;
            }
        }
        std::fs::remove_dir_all(data).unwrap();
    }
    let note =
        format!("{whole_again} recovered whole, {refused} refused with words ({told} since older than acknowledged)");
    let Verdict { lost, repeated, wrong, .. } = total;
    report(&Row { fault: "store cut or damaged", transport: "embedded", runs, records, lost, repeated, wrong, note });
    assert_eq!((lost, repeated, wrong), (0, 0, 0));
    assert!(refused > 0 && whole_again > 0);
}

#[test]
fn a_store_that_has_gone_back_is_told_and_what_to_do_helps() {
    let place = Place::new();
    let daemon = place.start(&SETTINGS);
    post_all(&daemon, 0, 0..50);
    daemon.settle();
    daemon.kill();
    let store = place.data().join("strand.redb");
    let older = std::fs::read(&store).unwrap();
    let daemon = place.start(&SETTINGS);
    post_all(&daemon, 0, 50..60);
    daemon.settle();
    daemon.kill();
    std::fs::write(&store, older).unwrap();
    let (code, said) = place.fails(&SETTINGS);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("has lost records") && said.contains("before offset 50") && said.contains("60"), "{said}");
    std::fs::remove_file(place.data().join("strand.acknowledged")).unwrap();
    let daemon = place.start(&SETTINGS);
    post_all(&daemon, 0, 50..60);
    daemon.settle();
    let sent = Sent { streams: vec![(0, 60)], ..Sent::default() };
    let verdict = Expected::of(&sent).compare(&daemon);
    assert!(verdict.is_good(), "{verdict:?}");
}
