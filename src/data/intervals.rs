//! Coding intervals: `accession, start, end, strand, note` as tab-separated lines, 1-based, the end included.

use super::{DataError, Lines, Source};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Which strand a gene is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strand {
    Forward,
    Reverse,
}

/// A coding interval in 0-based half-open positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    pub start: usize,
    pub end: usize,
    pub strand: Strand,
    pub note: String,
}

impl Interval {
    /// Position of the base at the gene's 3' end.
    pub fn three_prime(&self) -> usize {
        match self.strand {
            Strand::Forward => self.end - 1,
            Strand::Reverse => self.start,
        }
    }
}

/// The intervals of each sequence, sorted by start and, where starts are equal, the longer first.
pub fn read_intervals(path: &Path) -> Result<BTreeMap<String, Vec<Interval>>, DataError> {
    parse_intervals(Source::open(path)?)
}

fn parse_intervals(source: Source) -> Result<BTreeMap<String, Vec<Interval>>, DataError> {
    let mut lines = Lines::new(source);
    let mut by_sequence: BTreeMap<String, Vec<Interval>> = BTreeMap::new();
    let mut line = String::new();
    while lines.next_into(&mut line)? {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let columns: Vec<&str> = line.split('\t').collect();
        let [accession, start, end, strand, note @ ..] = &columns[..] else {
            return Err(lines.error(format!(
                "expected accession, start, end, strand and note parted by tabs, found {} columns",
                columns.len()
            )));
        };
        let number = |text: &str, what: &str| {
            text.parse::<usize>().map_err(|_| lines.error(format!("the {what} `{text}` is no whole number")))
        };
        let (first, end) = (number(start, "start")?, number(end, "end")?);
        if first < 1 || end < first {
            return Err(lines.error(format!("expected 1 <= start <= end, found start {first} and end {end}")));
        }
        let strand = match *strand {
            "+" => Strand::Forward,
            "-" => Strand::Reverse,
            other => return Err(lines.error(format!("expected the strand as + or -, found `{other}`"))),
        };
        let note = note.first().copied().unwrap_or_default().to_string();
        let interval = Interval { start: first - 1, end, strand, note };
        by_sequence.entry(accession.to_string()).or_default().push(interval);
    }
    for intervals in by_sequence.values_mut() {
        intervals.sort_by_key(|interval| (interval.start, std::cmp::Reverse(interval.end)));
    }
    Ok(by_sequence)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn parse(text: &'static str) -> Result<BTreeMap<String, Vec<Interval>>, DataError> {
        parse_intervals(Source::new("x.tsv", Cursor::new(text)).unwrap())
    }

    #[test]
    fn positions_become_half_open_and_sorted() {
        let found = parse("#accession\tstart\tend\tstrand\tnote\ns\t7\t9\t-\tx\ns\t1\t3\t+\t\ns\t1\t6\t+\n").unwrap();
        let bounds: Vec<_> = found["s"].iter().map(|i| (i.start, i.end, i.three_prime())).collect();
        assert_eq!(bounds, [(0, 6, 5), (0, 3, 2), (6, 9, 6)]);
    }

    #[test]
    fn errors_tell_the_line_and_what_was_expected() {
        let error = |text| parse(text).unwrap_err().to_string();
        assert_eq!(error("s\t1\t3\t*\n"), "x.tsv, line 1: expected the strand as + or -, found `*`");
        assert_eq!(error("s\t5\t3\t+\n"), "x.tsv, line 1: expected 1 <= start <= end, found start 5 and end 3");
        assert_eq!(error("s 1 3 +\n").split(": ").next(), Some("x.tsv, line 1"));
    }
}
