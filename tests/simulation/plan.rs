//! What a seed stands for: the records, the settings, and which faults there are and how often.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;
use strand::config::{Period, PipelineConfig, StateConfig};
use strand::transport::{EVENT_HEADER, Origin, RawRecord};

pub const TOPIC: &str = "input";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Kafka, all of a batch in one transaction.
    ExactlyOnce,
    /// Kafka, labels, states, offsets one after the other.
    AtLeastOnce,
    /// One store, one atomic commit.
    Embedded,
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Transport::ExactlyOnce => "Kafka's model, exactly once",
            Transport::AtLeastOnce => "Kafka's model, at least once",
            Transport::Embedded => "embedded store's model",
        }
    }
}

pub struct Plan {
    pub seed: u64,
    pub transport: Transport,
    pub partitions: i32,
    pub instances: usize,
    /// As they will be appended, with their offsets; those of a partition in order, offsets with gaps.
    pub records: Vec<RawRecord>,
    /// When each is appended (microseconds).
    pub times_us: Vec<u64>,
    pub pipeline: PipelineConfig,
    pub state: StateConfig,
    pub faults: Faults,
    /// Which kind of step is hit more often than others, by the hash of its name.
    pub hot: u64,
    pub session_us: u64,
    /// After this a transaction is aborted by the coordinator.
    pub transaction_us: u64,
    /// How long a partition that is taken away waits for a write under way.
    pub hand_over_us: u64,
}

/// Of a million chances, how many are taken; and how often at most.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub crash_ppm: u32,
    pub freeze_ppm: u32,
    pub restart_ppm: u32,
    /// A request that is not done.
    pub error_ppm: u32,
    /// A request that is done and whose answer does not come.
    pub lost_ppm: u32,
    pub slow_ppm: u32,
    /// Heartbeats are lost for a while, other requests are not.
    pub deaf_ppm: u32,
    pub jump_ppm: u32,
    pub load_ppm: u32,
    /// Of crashes, freezes, restarts, deafness and jumps together.
    pub budget: u32,
}

/// Words with characters of one to four bytes, that cuts may go through.
const TEXT: &str = "Ada Lovelace née Byron met Charles Babbage in London in June 1833 . Ångström wrote to Gauß , \
    and 東京 answered Zürich ; Menabrea , in Turin , wrote the first account 🙂 . She lived at St James's Square . ";

fn piece(random: &mut ChaCha8Rng) -> (Vec<u8>, Option<&'static str>) {
    let start = random.random_range(0..TEXT.len());
    let mut value = TEXT.as_bytes()[start..(start + random.random_range(1..30)).min(TEXT.len())].to_vec();
    // Half of the pieces are cut between characters, where most real ones are.
    if random.random_bool(0.7) {
        value = String::from_utf8_lossy(&value).replace('\u{fffd}', "").into_bytes();
    }
    let event = match random.random_range(0..32) {
        0 | 1 => Some("start"),
        2 | 3 => Some("flush"),
        4 => Some("reset"),
        5 | 6 => Some("end"),
        7 => Some("stop it"),
        8 => {
            value.push(0xff);
            None
        }
        _ => None,
    };
    if event.is_some() && random.random_bool(0.4) {
        value.clear();
    }
    (value, event)
}

impl Plan {
    pub fn new(seed: u64) -> Plan {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let random = &mut random;
        let transport = match random.random_range(0..7) {
            0..3 => Transport::ExactlyOnce,
            3..6 => Transport::AtLeastOnce,
            _ => Transport::Embedded,
        };
        let kafka = transport != Transport::Embedded;
        let partitions = if kafka { random.random_range(1..=4) } else { 1 };
        let instances = if kafka { random.random_range(1..=3) } else { 1 };
        let streams = random.random_range(3..=12);
        let keys: Vec<(i32, String)> = (0..streams)
            .map(|k| (random.random_range(0..partitions), format!("s{}", if random.random_bool(0.2) { 0 } else { k })))
            .collect();
        let count = random.random_range(20..=80);
        let mut next = vec![0; partitions as usize];
        let gaps = kafka && random.random_bool(0.5);
        let records = (0..count).map(|k| {
            let (partition, key) = keys[random.random_range(0..keys.len())].clone();
            let next = &mut next[partition as usize];
            if gaps && random.random_bool(0.3) {
                *next += random.random_range(1..4);
            }
            let (value, event) = piece(random);
            let event = event.map(|event| (EVENT_HEADER.to_string(), Some(event.as_bytes().to_vec())));
            *next += 1;
            RawRecord {
                origin: Origin::Record { topic: TOPIC.into(), partition, offset: *next - 1 },
                key: (!random.random_bool(0.02)).then(|| key.into_bytes()),
                value,
                headers: event.into_iter().collect(),
                timestamp_ms: 1_700_000_000_000 + k,
                defect: None,
            }
        });
        let records: Vec<RawRecord> = records.collect();
        let span_us = random.random_range(100_000..12_000_000);
        let mut times_us: Vec<u64> = records.iter().map(|_| random.random_range(0..span_us)).collect();
        times_us.sort_unstable();

        let ttl = random.random_bool(0.2).then(|| Duration::from_millis(random.random_range(200..4000)));
        let interval = random.random_bool(0.5).then(|| Duration::from_millis(random.random_range(5..1500)));
        let session_us = random.random_range(500_000..4_000_000);
        Plan {
            seed,
            transport,
            partitions,
            instances,
            records,
            times_us,
            pipeline: PipelineConfig {
                threads: random.random_range(1..=3),
                batch_records: random.random_range(1..=16),
                commit_interval: Period(interval.unwrap_or_default()),
                catch_up_interval: Period(Duration::from_secs(2 * (seed % 2))),
                commit_records: random.random_range(1..=40),
                ..PipelineConfig::default()
            },
            state: StateConfig {
                max_resident: random.random_range(1..=6),
                stream_ttl: Period(ttl.unwrap_or_default()),
                ..StateConfig::default()
            },
            faults: Faults::new(random),
            hot: random.random_range(0..KINDS),
            session_us,
            transaction_us: random.random_range(session_us / 2..4 * session_us),
            hand_over_us: if random.random_bool(0.3) { 5_000 } else { random.random_range(100_000..3 * session_us) },
        }
    }
}

/// Of how many kinds of steps one is hot.
pub const KINDS: u64 = 24;
/// How much more often it is hit.
const HOTTER: u32 = 12;

impl Faults {
    /// As they hit the hot kind of step.
    pub fn hotter(self) -> Faults {
        Faults {
            crash_ppm: self.crash_ppm * HOTTER,
            freeze_ppm: self.freeze_ppm * HOTTER,
            restart_ppm: self.restart_ppm * HOTTER,
            deaf_ppm: self.deaf_ppm * HOTTER,
            ..self
        }
    }

    /// Each kind in half of the seeds, rare in some and frequent in others.
    fn new(random: &mut ChaCha8Rng) -> Faults {
        let mut some = |most: u32| if random.random_bool(0.5) { random.random_range(1..=most) } else { 0 };
        Faults {
            crash_ppm: some(30_000),
            freeze_ppm: some(15_000),
            restart_ppm: some(8_000),
            error_ppm: some(40_000),
            lost_ppm: some(60_000),
            slow_ppm: some(30_000),
            deaf_ppm: some(8_000),
            jump_ppm: some(5_000),
            load_ppm: some(60_000),
            budget: some(11) + 1,
        }
    }
}
