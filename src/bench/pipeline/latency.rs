//! Latency with records that arrive at a fixed rate, whatever became of those before them.

use super::{BenchError, PATIENCE, Records, Running};
use hdrhistogram::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest latency that is told from longer ones, in microseconds.
const LONGEST_US: u64 = 600_000_000;

/// From due to committed, at one rate of arrival; milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    /// Share of the peak.
    pub load: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
}

/// When each record's labels were seen, in microseconds after `begun`; 0: not yet.
struct Seen {
    begun: Instant,
    at: Vec<AtomicU64>,
    count: AtomicU64,
    stop: AtomicBool,
}

/// `rates`: share of the peak, and records a second.
pub fn measure(
    running: Running,
    records: &Records,
    streams: usize,
    rates: &[(f64, f64)],
    lasts: Duration,
) -> Result<Vec<Latency>, BenchError> {
    let Running { program, mut feed, watch } = running;
    let Some(watch) = watch else { return Err(BenchError("nobody reads the labels".to_string())) };
    let counts: Vec<usize> = rates.iter().map(|(_, rate)| (rate * lasts.as_secs_f64()).ceil() as usize).collect();
    // All streams have begun before it counts.
    let warm = streams.max(1000);
    let all = warm + counts.iter().sum::<usize>();
    let seen = Arc::new(Seen {
        begun: Instant::now(),
        at: (0..all).map(|_| AtomicU64::new(0)).collect(),
        count: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    std::thread::scope(|scope| {
        let watching = {
            let seen = seen.clone();
            scope.spawn(move || {
                watch(&mut |output| {
                    if let Some(place) = records.number(output).and_then(|n| seen.at.get(n)) {
                        let now = seen.begun.elapsed().as_micros() as u64;
                        // Delivered again it was seen before.
                        if place.compare_exchange(0, now.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                            seen.count.fetch_add(1, Ordering::Release);
                        }
                    }
                    !seen.stop.load(Ordering::Relaxed)
                })
            })
        };
        let mut run = || -> Result<Vec<Latency>, BenchError> {
            feed.send(records, 0..warm)?;
            seen.wait_for(warm)?;
            let (mut latencies, mut next) = (Vec::new(), warm);
            for ((load, rate), count) in rates.iter().zip(&counts) {
                let due = |k: usize| seen.begun.elapsed() + Duration::from_secs_f64(k as f64 / rate);
                let first = due(0);
                let mut sent = 0;
                while sent < *count {
                    let passed = seen.begun.elapsed().saturating_sub(first).as_secs_f64();
                    let arrived = ((passed * rate) as usize + 1).min(*count);
                    if arrived > sent {
                        feed.send(records, next + sent..next + arrived)?;
                        sent = arrived;
                    } else {
                        let wait = Duration::from_secs_f64(sent as f64 / rate - passed);
                        std::thread::sleep(wait.clamp(Duration::from_micros(100), Duration::from_millis(5)));
                    }
                }
                seen.wait_for(next + count)?;
                latencies.push(seen.latency(*load, *rate, first, next..next + count)?);
                next += count;
            }
            Ok(latencies)
        };
        let latencies = run();
        seen.stop.store(true, Ordering::Relaxed);
        // Whoever reads from it comes to an end.
        drop(program);
        let watched = watching.join().map_err(|_| BenchError("the reading thread panicked".to_string()))?;
        let latencies = latencies?;
        // Once all was seen, that the daemon's end cut a connection is no error.
        let _ = watched;
        Ok(latencies)
    })
}

impl Seen {
    fn wait_for(&self, records: usize) -> Result<(), BenchError> {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let count = self.count.load(Ordering::Acquire);
            if count >= records as u64 {
                return Ok(());
            }
            if count > last {
                (last, since) = (count, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                return Err(BenchError(format!("labels of {count} of {records} records came, then none")));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Of these records, of which the first was due at `first` after the beginning.
    fn latency(
        &self,
        load: f64,
        rate: f64,
        first: Duration,
        range: std::ops::Range<usize>,
    ) -> Result<Latency, BenchError> {
        let histogram = Histogram::<u64>::new_with_bounds(1, LONGEST_US, 3);
        let mut histogram = histogram.map_err(|e| BenchError(format!("a histogram: {e}")))?;
        for (k, at) in self.at[range].iter().enumerate() {
            let due = first + Duration::from_secs_f64(k as f64 / rate);
            histogram.saturating_record(at.load(Ordering::Relaxed).saturating_sub(due.as_micros() as u64).max(1));
        }
        let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Latency { load, p50_ms: ms(0.5), p99_ms: ms(0.99), p999_ms: ms(0.999) })
    }
}
