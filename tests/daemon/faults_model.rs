//! A corrupt or truncated model: refused with words, never a panic, never other labels; with the model whole again the
//! daemon goes on where it was.
//!
//! The number of damaged models can be set with `STRAND_DAMAGED_MODELS`.

use crate::daemon_harness;
use crate::daemon_harness::Place;
use crate::fault_report;
use crate::fault_report::{Row, report};
use crate::faults::{Load, Shape, judge};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use strand::model::Model;

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn damage(kind: u64, bytes: &mut Vec<u8>, random: &mut ChaCha8Rng) -> String {
    let at = random.random_range(0..bytes.len());
    match kind {
        0 => {
            bytes.truncate(at);
            format!("cut to {at} bytes")
        }
        1 => {
            bytes[at] ^= 1 << random.random_range(0..8);
            format!("a bit of byte {at} turned")
        }
        2 => {
            let until = (at + random.random_range(1..512)).min(bytes.len());
            bytes[at..until].fill(0);
            format!("bytes {at}..{until} zeroed")
        }
        3 => {
            // The length that a safetensors file begins with, and the start of any other.
            let head = bytes.len().min(8);
            random.fill(&mut bytes[..head]);
            "the first bytes random".to_string()
        }
        4 => {
            bytes.extend((0..random.random_range(1..64)).map(|_| b'x'));
            "something appended".to_string()
        }
        _ => {
            bytes.clear();
            "emptied".to_string()
        }
    }
}

#[test]
fn a_damaged_model_is_refused_or_the_same() {
    let runs = fault_report::size("STRAND_DAMAGED_MODELS", 1200);
    let seed = strand::clock::unix_ms();
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let place = Place::new();
    let whole = files(&place.model());
    let fingerprint = Model::load(&place.model()).unwrap().fingerprint().to_string();
    let (mut refused, mut harmless, mut wrong) = (0, 0, 0);
    for run in 0..runs {
        let (path, bytes) = whole.iter().nth(run as usize / 6 % whole.len()).unwrap();
        let mut damaged = bytes.clone();
        let what = format!("{}: {}", path.display(), damage(run % 6, &mut damaged, &mut random));
        std::fs::write(path, &damaged).unwrap();
        let loaded = catch_unwind(AssertUnwindSafe(|| Model::load(&place.model())));
        match loaded.unwrap_or_else(|_| panic!("loading panicked: {what}")) {
            Err(error) => {
                // The file that is wrong, or the one against which it was checked.
                let said = error.to_string();
                assert!(said.contains(place.model().to_str().unwrap()) && said.len() > 40, "{what}: {said}");
                refused += 1;
            }
            // A comment, a space, a digit behind what is read.
            Ok(model) if model.fingerprint() == fingerprint => harmless += 1,
            Ok(_) => {
                println!("taken for another model: {what}");
                wrong += 1;
            }
        }
        std::fs::write(path, bytes).unwrap();
    }
    let note = format!("{refused} refused with words, {harmless} without effect");
    report(&Row { fault: "model cut or damaged", transport: "any", runs, wrong, note, ..Row::default() });
    assert_eq!(wrong, 0);
    assert!(refused > runs / 2);
}

#[test]
fn with_the_model_whole_again_the_daemon_goes_on() {
    let place = Place::new();
    let whole = files(&place.model());
    let load = Load::start(Shape::default());
    let mut random = ChaCha8Rng::seed_from_u64(5);
    for (run, (path, bytes)) in whole.iter().enumerate() {
        let daemon = place.start(&[]);
        load.point_at(&daemon);
        let before = load.acknowledged();
        daemon_harness::eventually("records are taken", || load.acknowledged() > before + 200);
        // While it runs it does not read the files any more.
        let mut damaged = bytes.clone();
        let what = damage([0, 3][run % 2], &mut damaged, &mut random);
        std::fs::write(path, &damaged).unwrap();
        let before = load.acknowledged();
        daemon_harness::eventually("records are taken", || load.acknowledged() > before + 200);
        daemon.kill();
        let (code, said) = place.fails(&[]);
        assert_eq!(code, 1, "{}: {what}: {said}", path.display());
        assert!(said.contains(place.model().to_str().unwrap()) && !said.contains("panicked"), "{what}: {said}");
        std::fs::write(path, bytes).unwrap();
    }
    let daemon = place.start(&[]);
    load.point_at(&daemon);
    let sent = load.stop();
    let runs = whole.len() as u64;
    judge(&daemon, &sent).must_be_good("model damaged under a daemon", runs, "not started until whole".to_string());
}
