//! Where bytes come from: a file or standard input, plain or gzip, told apart by the first bytes.
//!
//! [`Source`] hands out bytes as they arrive, [`Lines`] hands out whole lines and knows their numbers.

use super::DataError;
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Bytes held ready for reading.
const BUFFER_BYTES: usize = 64 * 1024;
/// The longest line that is taken; a longer one is an error, so that memory stays flat.
const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// How a gzip file begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// An input with a name for messages. Reads block only when nothing is buffered.
pub struct Source {
    name: String,
    reader: BufReader<Box<dyn Read + Send>>,
}

impl Source {
    /// Opens a file; `-` is standard input.
    pub fn open(path: &Path) -> Result<Source, DataError> {
        if path == Path::new("-") {
            return Source::new("standard input", io::stdin());
        }
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Source::new(&name, file),
            Err(source) => Err(DataError::Read { name, source }),
        }
    }

    /// Wraps any reader, unpacking it if what it gives is gzip. Waits for the first byte.
    pub fn new(name: &str, reader: impl Read + Send + 'static) -> Result<Source, DataError> {
        let failed = |source| DataError::Read { name: name.to_string(), source };
        let mut rest = BufReader::with_capacity(BUFFER_BYTES, reader);
        let head = rest.fill_buf().map_err(failed)?;
        let (mut is_gzip, alone) = (head.starts_with(&GZIP), head == &GZIP[..1]);
        if alone {
            // A slow pipe may give the second byte later.
            rest.consume(1);
            is_gzip = rest.fill_buf().map_err(failed)?.first() == Some(&GZIP[1]);
        }
        // What was at hand at once stays in one piece.
        let packed = io::Cursor::new(&GZIP[..usize::from(alone)]).chain(rest);
        let plain: Box<dyn Read + Send> =
            if is_gzip { Box::new(MultiGzDecoder::new(packed)) } else { Box::new(packed) };
        Ok(Source { name: name.to_string(), reader: BufReader::with_capacity(BUFFER_BYTES, plain) })
    }

    /// The file's path, or `standard input`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bytes at hand, waiting for some if there are none; empty at the end of the input.
    pub fn available(&mut self) -> Result<&[u8], DataError> {
        self.reader.fill_buf().map_err(|source| DataError::Read { name: self.name.clone(), source })
    }

    /// Marks the first `bytes` of [`Source::available`] as read.
    pub fn consume(&mut self, bytes: usize) {
        self.reader.consume(bytes);
    }

    /// What has been read from the input but not consumed; never waits.
    pub fn buffered(&self) -> &[u8] {
        self.reader.buffer()
    }

    /// An error about a line of this input.
    pub fn error_at(&self, line: u64, detail: impl Into<String>) -> DataError {
        DataError::Line { name: self.name.clone(), line, detail: detail.into() }
    }
}

/// Lines of a source, counted from 1.
pub struct Lines {
    source: Source,
    line: u64,
    bytes: Vec<u8>,
}

impl Lines {
    pub fn new(source: Source) -> Lines {
        Lines { source, line: 0, bytes: Vec::new() }
    }

    /// Puts the next line, without its end, into `text`; false at the end of the input.
    pub fn next_into(&mut self, text: &mut String) -> Result<bool, DataError> {
        text.clear();
        self.bytes.clear();
        self.line += 1;
        loop {
            let at_hand = self.source.available()?;
            if at_hand.is_empty() && self.bytes.is_empty() {
                self.line -= 1;
                return Ok(false);
            }
            let (taken, done) = match at_hand.iter().position(|&byte| byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (at_hand.len(), at_hand.is_empty()),
            };
            self.bytes.extend_from_slice(&at_hand[..taken]);
            self.source.consume(taken);
            if self.bytes.len() > MAX_LINE_BYTES {
                return Err(self.error(format!("the line is longer than {} MiB", MAX_LINE_BYTES >> 20)));
            }
            if done {
                break;
            }
        }
        while matches!(self.bytes.last(), Some(b'\n' | b'\r')) {
            self.bytes.pop();
        }
        match std::str::from_utf8(&self.bytes) {
            Ok(line) => text.push_str(line),
            Err(error) => {
                return Err(self.error(format!("byte {} of the line is not valid UTF-8", error.valid_up_to() + 1)));
            }
        }
        Ok(true)
    }

    /// Number of the line given last.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The input's name.
    pub fn name(&self) -> &str {
        self.source.name()
    }

    /// An error about the line given last.
    pub fn error(&self, detail: impl Into<String>) -> DataError {
        self.source.error_at(self.line, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::{Cursor, Write};

    fn lines_of(bytes: Vec<u8>) -> Result<Vec<String>, DataError> {
        let mut lines = Lines::new(Source::new("x", Cursor::new(bytes))?);
        let (mut all, mut line) = (Vec::new(), String::new());
        while lines.next_into(&mut line)? {
            all.push(line.clone());
        }
        Ok(all)
    }

    #[test]
    fn gzip_is_known_by_its_content() {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(b"one\ntwo\n").unwrap();
        assert_eq!(lines_of(packed.finish().unwrap()).unwrap(), ["one", "two"]);
    }

    /// Gives one byte a read, as a slow pipe may.
    struct Drip(Cursor<Vec<u8>>);

    impl Read for Drip {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let end = buffer.len().min(1);
            self.0.read(&mut buffer[..end])
        }
    }

    #[test]
    fn what_only_begins_like_gzip_is_plain_however_slowly_it_comes() {
        for bytes in [&b"\x1f\x01 text"[..], b"\x1f"] {
            let mut lines = Lines::new(Source::new("x", Drip(Cursor::new(bytes.to_vec()))).unwrap());
            let mut line = String::new();
            assert!(lines.next_into(&mut line).unwrap());
            assert_eq!(line.as_bytes(), bytes);
        }
    }

    #[test]
    fn line_ends_of_every_kind_are_taken_off() {
        assert_eq!(lines_of(b"a\r\n\nb".to_vec()).unwrap(), ["a", "", "b"]);
        assert!(lines_of(Vec::new()).unwrap().is_empty());
    }

    #[test]
    fn bad_utf8_is_told_with_its_line() {
        let error = lines_of(b"fine\nb\xff".to_vec()).unwrap_err().to_string();
        assert_eq!(error, "x, line 2: byte 2 of the line is not valid UTF-8");
    }
}
