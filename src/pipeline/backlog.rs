//! Whether the source has had more than is labelled for a while.
//!
//! Then each record has waited already, about as long as that while, and a transaction may grow for half of it, up to
//! `pipeline.catch_up_interval`: of a stream that comes again in one only the last state is written, and the broker or the disk
//! has less to do for each label.

use crate::transport::PollLimits;
use std::time::{Duration, Instant};

/// Polls must have come back full for this long.
const LASTS: Duration = Duration::from_millis(250);

/// Told of each poll.
#[derive(Debug, Default)]
pub struct Backlog {
    since: Option<Instant>,
}

impl Backlog {
    /// A poll with these limits has brought so many records, and bytes of their values. A full one begins a backlog, one less than
    /// half full ends it.
    pub fn note(&mut self, records: usize, bytes: usize, limits: &PollLimits, now: Instant) {
        if limits.reached(records, bytes) {
            self.since.get_or_insert(now);
        } else if !limits.reached(2 * records, 2 * bytes) {
            self.since = None;
        }
    }

    /// For how long there has been a backlog, if that is long enough to call it one.
    pub fn lasts(&self, now: Instant) -> Option<Duration> {
        self.since.map(|since| now.saturating_duration_since(since)).filter(|lasts| *lasts >= LASTS)
    }

    /// How long a transaction may grow, `most` at most; zero where there is no backlog.
    pub fn interval(&self, now: Instant, most: Duration) -> Duration {
        self.lasts(now).map_or(Duration::ZERO, |lasts| most.min(lasts / 2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_what_lasts_and_ends_with_a_poll_less_than_half_full() {
        let limits = PollLimits { records: 10, bytes: 100, wait: Duration::ZERO };
        let (mut backlog, begun) = (Backlog::default(), Instant::now());
        let at = |ms| begun + Duration::from_millis(ms);
        backlog.note(9, 99, &limits, at(0));
        assert_eq!(backlog.lasts(at(1000)), None);
        backlog.note(10, 5, &limits, at(0));
        backlog.note(5, 10, &limits, at(100));
        backlog.note(3, 100, &limits, at(200));
        assert_eq!(backlog.lasts(at(249)), None);
        assert_eq!(backlog.lasts(at(250)), Some(Duration::from_millis(250)));
        assert_eq!(backlog.interval(at(250), Duration::from_secs(1)), Duration::from_millis(125));
        assert_eq!(backlog.interval(at(9000), Duration::from_secs(1)), Duration::from_secs(1));
        backlog.note(4, 49, &limits, at(300));
        assert_eq!(backlog.interval(at(2000), Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(backlog.lasts(at(2000)), None);
        backlog.note(10, 5, &limits, at(300));
        assert_eq!(backlog.lasts(at(549)), None);
        assert_eq!(backlog.lasts(at(550)), Some(Duration::from_millis(250)));
    }
}
