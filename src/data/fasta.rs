//! FASTA files, streamed: `>name description`, then lines of bases.

use super::{DataError, Source};
use std::path::Path;

/// A sequence read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    pub name: String,
    /// IUPAC codes as they stand in the file, upper and lower case.
    pub bases: Vec<u8>,
}

/// Reads a FASTA file piece by piece, with memory independent of the sequences' lengths.
pub struct FastaReader {
    source: Source,
    line: u64,
    at_line_start: bool,
    sequences: u64,
}

impl FastaReader {
    pub fn new(source: Source) -> FastaReader {
        FastaReader { source, line: 1, at_line_start: true, sequences: 0 }
    }

    pub fn open(path: &Path) -> Result<FastaReader, DataError> {
        Ok(FastaReader::new(Source::open(path)?))
    }

    /// Goes to the next sequence and returns its name (the header's first word), or nothing at the end of the file.
    pub fn next_sequence(&mut self) -> Result<Option<String>, DataError> {
        let mut skipped = Vec::new();
        // Before the first header one base is enough to say that there is none.
        let most = if self.sequences == 0 { 1 } else { usize::MAX };
        while self.read(&mut skipped, most)? > 0 {
            if self.sequences == 0 {
                return Err(self.error("expected a header line `>name` before the first bases"));
            }
            skipped.clear();
        }
        if self.source.available()?.is_empty() {
            return Ok(None);
        }
        let mut header = Vec::new();
        loop {
            let at_hand = self.source.available()?;
            let end = at_hand.iter().position(|&byte| byte == b'\n');
            let taken = end.unwrap_or(at_hand.len());
            // Names are short; the rest of a long description is not needed.
            header.extend_from_slice(&at_hand[..taken.min(4096usize.saturating_sub(header.len()))]);
            let at_end = at_hand.is_empty();
            self.source.consume(taken);
            if end.is_some() || at_end {
                break;
            }
        }
        self.at_line_start = false;
        self.sequences += 1;
        let header = String::from_utf8_lossy(&header);
        let name = header.trim_start_matches('>').split_whitespace().next().map(str::to_string);
        Ok(Some(name.unwrap_or_else(|| format!("sequence{}", self.sequences))))
    }

    /// Appends to `bases` up to `max` more bases of the sequence; returns how many, 0 at its end.
    ///
    /// Returns early, with at least one base, when waiting for input would be needed for more.
    pub fn read(&mut self, bases: &mut Vec<u8>, max: usize) -> Result<usize, DataError> {
        let mut count = 0;
        while count < max && (count == 0 || !self.source.buffered().is_empty()) {
            let at_hand = self.source.available()?;
            let (mut taken, mut bad) = (0, None);
            for &byte in at_hand {
                if count == max || (self.at_line_start && byte == b'>') {
                    break;
                }
                taken += 1;
                match byte {
                    b'\n' => {
                        self.line += 1;
                        self.at_line_start = true;
                        continue;
                    }
                    b' ' | b'\t' | b'\r' => {}
                    _ if is_iupac(byte) => {
                        bases.push(byte);
                        count += 1;
                    }
                    _ => {
                        bad = Some(byte);
                        break;
                    }
                }
                self.at_line_start = false;
            }
            let stopped = taken == 0;
            self.source.consume(taken);
            if let Some(byte) = bad {
                return Err(self.error(format!("`{}` is no IUPAC base code", byte.escape_ascii())));
            }
            if stopped {
                break;
            }
        }
        Ok(count)
    }

    /// Whether the sequence is known, without waiting for input, to have no more bases.
    pub fn is_sequence_over(&self) -> bool {
        self.at_line_start && self.source.buffered().first() == Some(&b'>')
    }

    /// Number of the line that is being read.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// An error about the line that is being read.
    pub fn error(&self, detail: impl Into<String>) -> DataError {
        self.source.error_at(self.line, detail)
    }
}

fn is_iupac(byte: u8) -> bool {
    matches!(byte.to_ascii_uppercase(), b'A' | b'C' | b'G' | b'T' | b'U' | b'N')
        || matches!(byte.to_ascii_uppercase(), b'R' | b'Y' | b'S' | b'W' | b'K' | b'M' | b'B' | b'D' | b'H' | b'V')
}

/// All sequences of a file.
pub fn read_sequences(path: &Path) -> Result<Vec<Sequence>, DataError> {
    let mut reader = FastaReader::open(path)?;
    let mut sequences = Vec::new();
    while let Some(name) = reader.next_sequence()? {
        let mut bases = Vec::new();
        while reader.read(&mut bases, usize::MAX)? > 0 {}
        sequences.push(Sequence { name, bases });
    }
    if sequences.is_empty() {
        let name = path.display().to_string();
        return Err(DataError::File { name, detail: "the file holds no sequence".to_string() });
    }
    Ok(sequences)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Read};

    /// Gives one byte a read, as a slow pipe may.
    struct Drip(Cursor<&'static [u8]>);

    impl Read for Drip {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let end = buffer.len().min(1);
            self.0.read(&mut buffer[..end])
        }
    }

    fn all(mut reader: FastaReader, piece: usize) -> Result<Vec<(String, String)>, DataError> {
        let mut found = Vec::new();
        while let Some(name) = reader.next_sequence()? {
            let mut bases = Vec::new();
            while reader.read(&mut bases, piece)? > 0 {}
            found.push((name, String::from_utf8(bases).unwrap()));
        }
        Ok(found)
    }

    const TWO: &[u8] = b"\n>one first of two\r\nacgt\r\nNNA\r\n\n>two\nGATTACA";

    #[test]
    fn pieces_of_any_size_make_the_same_sequences() {
        let expected = [("one".to_string(), "acgtNNA".to_string()), ("two".to_string(), "GATTACA".to_string())];
        for piece in [1, 2, 3, 7, 100] {
            let whole = FastaReader::new(Source::new("x.fna", Cursor::new(TWO)).unwrap());
            assert_eq!(all(whole, piece).unwrap(), expected);
            let dripped = FastaReader::new(Source::new("x.fna", Drip(Cursor::new(TWO))).unwrap());
            assert_eq!(all(dripped, piece).unwrap(), expected);
        }
    }

    #[test]
    fn a_sequence_may_be_skipped_or_empty() {
        let mut reader = FastaReader::new(Source::new("x.fna", Cursor::new(&b">a\n>b\nAC\n>\nG"[..])).unwrap());
        assert_eq!(reader.next_sequence().unwrap().unwrap(), "a");
        assert_eq!(reader.next_sequence().unwrap().unwrap(), "b");
        assert_eq!(reader.next_sequence().unwrap().unwrap(), "sequence3");
        assert_eq!(reader.next_sequence().unwrap(), None);
    }

    #[test]
    fn errors_tell_the_line() {
        let reader = |text: &'static [u8]| FastaReader::new(Source::new("x.fna", Cursor::new(text)).unwrap());
        let error = all(reader(b">a\nACGT\nAC1T\n"), 9).unwrap_err().to_string();
        assert_eq!(error, "x.fna, line 3: `1` is no IUPAC base code");
        let error = all(reader(b"ACGT\n"), 9).unwrap_err().to_string();
        assert!(error.contains("expected a header line"), "{error}");
    }
}
