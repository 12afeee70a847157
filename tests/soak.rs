//! A soak: a daemon under load, with a fault every few seconds, for as long as `STRAND_SOAK_SECONDS` says (20 minutes for
//! docs/images/soak.svg, which `STRAND_SOAK_PICTURE=FILE` draws). Nothing may be lost, repeated or wrong by the end, and
//! memory, open files and threads stay flat.
//!
//! In the first and the last quarter the daemon is killed too. In the half between one process must bear everything
//! else: it is there that what grows would show.
#![cfg(target_os = "linux")]

mod daemon_harness;
mod fault_report;
mod faults;
mod soak_figures;

use daemon_harness::{Daemon, Place};
use faults::{BAD, Load, Sent, Shape, judge};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use soak_figures::Figures;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A queue that is soon full, few resident streams, and a small cache: all bounds are reached.
const SETTINGS: [&str; 12] = [
    "--set",
    "embedded.queue_max_records=300",
    "--set",
    "embedded.cache=16MiB",
    "--set",
    "state.max_resident=20",
    "--set",
    "http.max_followers=16",
    "--set",
    "http.wait_timeout=2s",
    "--set",
    "pipeline.threads=2",
];
/// Streams of the bursts, beside those of the steady load.
const BURST: usize = 1000;

/// The faults, in the order of the picture's marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Kill,
    Stop,
    Bad,
    FullQueue,
    SlowReaders,
    BrokenRequests,
}

pub const FAULTS: [Fault; 6] =
    [Fault::Kill, Fault::Stop, Fault::Bad, Fault::FullQueue, Fault::SlowReaders, Fault::BrokenRequests];

struct Soak {
    place: Place,
    /// There but while it is being replaced.
    daemon: Option<Daemon>,
    load: Load,
    random: ChaCha8Rng,
    /// How many bursts there were; each has streams of its own.
    bursts: usize,
    sent: Vec<Sent>,
    /// Readers that do not read.
    slow: Vec<TcpStream>,
    figures: Figures,
}

impl Soak {
    fn start() -> Soak {
        let place = Place::new();
        let daemon = place.start(&SETTINGS);
        let load = Load::start(Shape { pause: Duration::from_millis(8), ..Shape::default() });
        load.point_at(&daemon);
        let random = ChaCha8Rng::seed_from_u64(strand::clock::unix_ms());
        let daemon = Some(daemon);
        Soak { place, daemon, load, random, bursts: 0, sent: Vec::new(), slow: Vec::new(), figures: Figures::new() }
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    /// Waits, and notes how the process is meanwhile.
    fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.figures.sample(self.daemon.as_ref().unwrap().id());
            std::thread::sleep(Duration::from_millis(200).min(until.saturating_duration_since(Instant::now())));
        }
    }

    fn restart(&mut self) {
        self.daemon.take().into_iter().for_each(Daemon::kill);
        self.daemon = Some(self.place.start(&SETTINGS));
        self.load.point_at(self.daemon());
    }

    /// A burst of requests until so many records are taken.
    fn burst(&mut self, first: usize, records: u64) {
        let first = first + 100 * self.bursts;
        self.bursts += 1;
        let load = Load::start(Shape { clients: 4, streams_each: 4, first, most: 400, ..Shape::default() });
        load.point_at(self.daemon());
        while load.acknowledged() < records {
            self.pass(Duration::from_millis(50));
        }
        self.sent.push(load.stop());
    }

    fn connect(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.daemon().address()).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn fault(&mut self, fault: Fault) {
        self.figures.mark(fault);
        match fault {
            Fault::Kill => self.restart(),
            Fault::Stop => {
                self.daemon().signal("STOP");
                let time = Duration::from_millis(self.random.random_range(100..3000));
                self.pass(time);
                self.daemon().signal("CONT");
            }
            Fault::Bad => self.burst(BAD, 300),
            Fault::FullQueue => self.burst(BURST, 4000),
            Fault::SlowReaders => {
                // Those before go; more come than there are places for.
                self.slow.clear();
                let get = "GET /v1/labels?follow=1&from=0 HTTP/1.1\r\nhost: strand\r\n\r\n";
                self.slow = (0..24).map(|_| self.connect(get)).collect();
            }
            Fault::BrokenRequests => {
                for k in 0..50 {
                    let mut broken = match k % 3 {
                        0 => self.connect(
                            "POST /v1/streams/never HTTP/1.1\r\nhost: strand\r\ncontent-length: 900\r\n\r\nAda",
                        ),
                        1 => self.connect("POST /v1/rec"),
                        _ => self.connect("\0\0\0 nonsense\r\n\r\n"),
                    };
                    // What it says to it, if it does, and away.
                    broken.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
                    let _ = broken.read(&mut [0; 64]);
                }
            }
        }
    }
}

#[test]
fn under_load_and_faults_nothing_is_lost_and_memory_and_handles_stay_flat() {
    let seconds = fault_report::size("STRAND_SOAK_SECONDS", 12);
    let mut soak = Soak::start();
    let whole = Duration::from_secs(seconds);
    let quarter = |k: u32| whole * k / 4;
    let every = (seconds as f64 / 40.0).min(4.0);
    let (mut count, mut counts) = (0, [0u64; FAULTS.len()]);
    let mut alone = (None, None);
    while soak.figures.elapsed() < whole {
        let now = soak.figures.elapsed();
        let between = quarter(1) < now && now < quarter(3);
        if between && alone.0.is_none() {
            // One process from here on.
            soak.restart();
            alone.0 = Some(soak.figures.elapsed());
        }
        if now >= quarter(3) && alone.1.is_none() {
            alone.1 = Some(now);
        }
        let kinds = if between { &FAULTS[1..] } else { &FAULTS[..] };
        let fault = kinds[count as usize % kinds.len()];
        counts[fault as usize] += 1;
        count += 1;
        soak.fault(fault);
        let pause = Duration::from_secs_f64(every * soak.random.random_range(0.5..1.5));
        soak.pass(pause);
    }
    let Soak { daemon: Some(daemon), load, mut sent, slow, figures, .. } = soak else { panic!("there is a daemon") };
    drop(slow);
    let ended = figures.elapsed();
    sent.push(load.stop());
    let sent = sent.into_iter().fold(Sent::default(), |mut all, more| {
        all.streams.extend(more.streams);
        (all.again, all.refused) = (all.again + more.again, all.refused + more.refused);
        all
    });
    let flat = figures.flat(alone.0.unwrap(), alone.1.unwrap_or(ended));
    if let Some(path) = std::env::var_os("STRAND_SOAK_PICTURE") {
        figures.draw(path.as_ref()).unwrap();
    }
    let verdict = judge(&daemon, &sent);
    let faults: Vec<String> = FAULTS.iter().zip(counts).map(|(fault, count)| format!("{fault:?} {count}")).collect();
    println!(
        "{} s, {}; {} requests sent again, {} refused: {verdict:?}",
        ended.as_secs(),
        faults.join(", "),
        sent.again,
        sent.refused
    );
    verdict.must_be_good("soak: all of them", count, format!("{} s; {flat}", ended.as_secs()));
    assert!(counts.iter().all(|count| *count > 0) && sent.refused > 0, "{counts:?}, refused {}", sent.refused);
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    flat.must_hold();
    assert!(daemon.stop().success());
}
