//! A small mutator for the tests on stable: what libFuzzer does, without knowing what the program covers.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// Numbers and bytes at which programs stumble.
const BITS: [&[u8]; 28] = [
    b"0",
    b"-1",
    b"18446744073709551615",
    b"9223372036854775807",
    b"4294967296",
    b"65536",
    b"1e308",
    b"1e-999",
    b"NaN",
    b"null",
    b"[]",
    b"{}",
    b"[[",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xe2\x80",
    b"\xf0\x9f",
    b"\xef\xbf\xbd",
    b"\n",
    b"\r\n",
    b"\t",
    b"\x1f\x8b\x08",
    b"%00",
    b"${",
];

/// The seeds of a target, in the order of their names.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} holds no seeds", dir.display());
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Runs `check` on the target's seeds, then on `rounds` inputs made of them (`STRAND_HOSTILE_ROUNDS` times as many).
/// An input at which it panics is told in a form that can be put into a test.
pub fn run(target: &str, rounds: usize, check: impl Fn(&[u8])) {
    let times = std::env::var("STRAND_HOSTILE_ROUNDS").ok().map_or(1, |times| times.parse().unwrap());
    let seeds = seeds(target);
    let tell = |input: &[u8]| {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(input))).is_err() {
            panic!("{target}: it does not hold for b\"{}\"", input.escape_ascii());
        }
    };
    seeds.iter().for_each(|seed| tell(seed));
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for _ in 0..rounds * times {
        let mut input = seeds[rng.random_range(0..seeds.len())].clone();
        for _ in 0..rng.random_range(1..6) {
            mutate(&mut input, &seeds, &mut rng);
        }
        tell(&input);
    }
}

fn mutate(input: &mut Vec<u8>, seeds: &[Vec<u8>], rng: &mut impl Rng) {
    let at = rng.random_range(0..=input.len());
    let end = (at + rng.random_range(0..=40)).min(input.len());
    match rng.random_range(0..8) {
        0 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
        1 if at < input.len() => input[at] = rng.random(),
        2 => drop(input.drain(at..end)),
        3 => {
            let again = input[at..end].repeat(rng.random_range(1..9));
            input.splice(at..at, again);
        }
        4 => {
            let other = &seeds[rng.random_range(0..seeds.len())];
            let from = rng.random_range(0..=other.len());
            input.splice(at..end, other[from..].iter().copied().take(200));
        }
        5 => {
            // A number that stands there.
            let digits = input[at..].iter().position(u8::is_ascii_digit).map_or(at, |k| at + k);
            let length = input[digits..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            input.splice(digits..digits + length, BITS[rng.random_range(0..7)].iter().copied());
        }
        6 if at < input.len() => {
            let word = [0u64, 1, 0xff, 0xffff, u64::from(u32::MAX), u64::MAX][rng.random_range(0..6)].to_le_bytes();
            input.iter_mut().skip(at).zip(word).for_each(|(byte, new)| *byte = new);
        }
        _ => drop(input.splice(at..at, BITS[rng.random_range(0..BITS.len())].iter().copied())),
    }
}
