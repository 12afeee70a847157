//! What `strand send` sends, and when: lines of a file, once or over and over, as one stream or many.

use std::io::BufRead;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};
use strand::transport::line::Line;

/// Lines that may wait between the thread that reads them and the producer.
const READ_AHEAD: usize = 1024;

/// A line of the input, checked, with its number (from 1).
#[derive(Debug, Clone, PartialEq)]
pub struct Numbered {
    pub number: usize,
    pub line: Line,
}

/// What comes next.
#[derive(Debug, PartialEq)]
pub enum Next {
    /// The line with this copy's number.
    Line(Numbered, usize),
    /// Nothing yet.
    Nothing,
    End,
}

/// Where lines come from.
pub enum Lines {
    /// As they come.
    Live(Receiver<Result<Numbered, String>>),
    /// From memory: replayed, copied, or both.
    Held { lines: Vec<Numbered>, schedule: Schedule },
}

impl Lines {
    /// Reads lines on a thread of their own as they come; `name` is the input's, for errors.
    pub fn live(input: Box<dyn BufRead + Send>, name: String) -> std::io::Result<Lines> {
        let (sender, receiver) = sync_channel(READ_AHEAD);
        let read = move || {
            for line in numbered(input, &name) {
                let failed = line.is_err();
                // Nobody listens any more once sending has ended.
                if sender.send(line).is_err() || failed {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("lines".to_string()).spawn(read)?;
        Ok(Lines::Live(receiver))
    }

    /// Reads and checks all lines before the first is sent.
    pub fn held(input: impl BufRead, name: &str, copies: usize, repeat: bool) -> Result<Lines, String> {
        let lines = numbered(input, name).collect::<Result<Vec<_>, _>>()?;
        let schedule = Schedule::new(lines.len(), copies, repeat);
        Ok(Lines::Held { lines, schedule })
    }

    /// How many there will be, if that is known.
    pub fn total(&self) -> Option<u64> {
        match self {
            Lines::Live(_) => None,
            Lines::Held { schedule, .. } => schedule.total(),
        }
    }

    /// The next line, or nothing if none came within `wait`.
    pub fn next(&mut self, wait: Duration) -> Result<Next, String> {
        match self {
            Lines::Live(receiver) => match receiver.recv_timeout(wait) {
                Ok(line) => Ok(Next::Line(line?, 0)),
                Err(RecvTimeoutError::Timeout) => Ok(Next::Nothing),
                Err(RecvTimeoutError::Disconnected) => Ok(Next::End),
            },
            Lines::Held { lines, schedule } => {
                Ok(schedule.next().map_or(Next::End, |(line, copy)| Next::Line(lines[line].clone(), copy)))
            }
        }
    }
}

/// The lines that say something, checked; an error names its line.
fn numbered(input: impl BufRead, name: &str) -> impl Iterator<Item = Result<Numbered, String>> {
    let lines = input.split(b'\n').enumerate().map(|(k, line)| (k + 1, line));
    lines.filter_map(move |(number, line)| match line {
        Err(error) => Some(Err(format!("cannot read {name}: {error}"))),
        Ok(line) if line.trim_ascii().is_empty() => None,
        Ok(line) => Some(match Line::parse(&line) {
            Ok(line) => Ok(Numbered { number, line }),
            Err(error) => Err(format!("{name}, line {number}: {error}")),
        }),
    })
}

/// The order in which lines are sent: in each round every copy that has begun sends its next line. Copies begin one
/// after another, spread over the length of the file, so that at any moment they are at different places in it.
#[derive(Debug, Clone)]
pub struct Schedule {
    lines: usize,
    copies: usize,
    repeat: bool,
    round: u64,
    copy: usize,
}

impl Schedule {
    pub fn new(lines: usize, copies: usize, repeat: bool) -> Schedule {
        Schedule { lines, copies, repeat, round: 0, copy: 0 }
    }

    fn total(&self) -> Option<u64> {
        (!self.repeat || self.lines == 0).then_some(self.lines as u64 * self.copies as u64)
    }

    /// The round in which a copy begins.
    fn begins(&self, copy: usize) -> u64 {
        (copy as u128 * self.lines as u128 / self.copies as u128) as u64
    }
}

impl Iterator for Schedule {
    /// Line and copy.
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let lines = self.lines as u64;
        if lines == 0 {
            return None;
        }
        loop {
            if self.copy == self.copies {
                (self.copy, self.round) = (0, self.round + 1);
            }
            if !self.repeat && self.round >= lines + self.begins(self.copies - 1) {
                return None;
            }
            let copy = self.copy;
            let Some(at) = self.round.checked_sub(self.begins(copy)) else {
                // Nor has any copy after it begun.
                self.copy = self.copies;
                continue;
            };
            self.copy += 1;
            if self.repeat || at < lines {
                return Some(((at % lines) as usize, copy));
            }
        }
    }
}

/// So many records a second, evenly.
pub struct Pace {
    /// Absent: as fast as possible.
    rate: Option<f64>,
    from: Instant,
    sent: u64,
}

impl Pace {
    /// Who was held up for longer does not make up for it.
    const CATCH_UP: Duration = Duration::from_secs(1);

    pub fn new(rate: Option<f64>, now: Instant) -> Pace {
        Pace { rate, from: now, sent: 0 }
    }

    /// How long the next record has still to wait.
    pub fn wait(&mut self, now: Instant) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let due = self.from + Duration::from_secs_f64(self.sent as f64 / rate);
        if now > due + Pace::CATCH_UP {
            (self.from, self.sent) = (now, 0);
            return Duration::ZERO;
        }
        due.saturating_duration_since(now)
    }

    pub fn sent(&mut self) {
        self.sent += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each copy sends, and the order of copies in each round.
    fn order(lines: usize, copies: usize, repeat: bool, many: usize) -> Vec<(usize, usize)> {
        Schedule::new(lines, copies, repeat).take(many).collect()
    }

    #[test]
    fn every_copy_sends_every_line_once_and_in_order() {
        for (lines, copies) in [(1, 1), (5, 1), (1, 7), (4, 3), (3, 10), (12, 5)] {
            let sent = order(lines, copies, false, 1000);
            assert_eq!(Schedule::new(lines, copies, false).total(), Some(sent.len() as u64));
            for copy in 0..copies {
                let of_copy: Vec<usize> = sent.iter().filter(|(_, c)| *c == copy).map(|(line, _)| *line).collect();
                assert_eq!(of_copy, (0..lines).collect::<Vec<_>>(), "{lines} lines, copy {copy} of {copies}");
            }
        }
        assert_eq!(order(0, 3, true, 10), []);
    }

    #[test]
    fn copies_interleave_at_different_places_of_the_file() {
        assert_eq!(order(2, 2, false, 10), [(0, 0), (1, 0), (0, 1), (1, 1)]);
        assert_eq!(order(4, 2, false, 8), [(0, 0), (1, 0), (2, 0), (0, 1), (3, 0), (1, 1), (2, 1), (3, 1)]);
    }

    #[test]
    fn repeating_goes_round_and_round() {
        let sent = order(4, 2, true, 14);
        assert_eq!(sent[..4], [(0, 0), (1, 0), (2, 0), (0, 1)]);
        assert_eq!(sent[4..12], [(3, 0), (1, 1), (0, 0), (2, 1), (1, 0), (3, 1), (2, 0), (0, 1)]);
        assert_eq!(Schedule::new(4, 2, true).total(), None);
    }

    #[test]
    fn lines_without_a_record_are_skipped_but_counted() {
        let text = "\n{\"stream\":\"a\",\"text\":\"x\"}\n  \n{\"stream\":\"a\",\"event\":\"end\"}";
        let mut lines = Lines::held(text.as_bytes(), "f", 1, false).unwrap();
        let mut numbers = Vec::new();
        while let Next::Line(line, 0) = lines.next(Duration::ZERO).unwrap() {
            numbers.push(line.number);
        }
        assert_eq!((numbers, lines.total()), (vec![2, 4], Some(2)));
    }

    #[test]
    fn a_bad_line_is_told_with_its_number() {
        let text = "{\"stream\":\"a\",\"text\":\"x\"}\n\n{\"stream\":\"a\"}\n";
        let error = Lines::held(text.as_bytes(), "f", 1, false).err().unwrap();
        assert!(error.starts_with("f, line 3: one of \"text\""), "{error}");
        // As they come, those before it are given.
        let mut lines = Lines::live(Box::new(text.as_bytes()), "f".to_string()).unwrap();
        let wait = Duration::from_secs(10);
        assert!(matches!(lines.next(wait), Ok(Next::Line(Numbered { number: 1, .. }, 0))));
        assert_eq!(lines.next(wait).unwrap_err(), error);
        assert_eq!(lines.next(wait).unwrap(), Next::End);
    }

    #[test]
    fn the_pace_is_even_and_delays_are_not_made_up_for() {
        let begun = Instant::now();
        let (mut pace, ms) = (Pace::new(Some(100.0), begun), |ms| begun + Duration::from_millis(ms));
        assert_eq!(pace.wait(begun), Duration::ZERO);
        pace.sent();
        assert_eq!(pace.wait(ms(4)), Duration::from_millis(6));
        // A little late is made up for.
        pace.sent();
        pace.sent();
        assert_eq!((pace.wait(ms(500)), pace.wait(ms(25))), (Duration::ZERO, Duration::from_millis(5)));
        // A broker that was away for ten seconds is not flooded with a thousand records.
        assert_eq!(pace.wait(ms(10_000)), Duration::ZERO);
        pace.sent();
        assert_eq!(pace.wait(ms(10_000)), Duration::from_millis(10));
        assert_eq!(Pace::new(None, begun).wait(begun), Duration::ZERO);
    }
}
