//! Records as JSON lines on standard input, output records as lines on standard output, dead letters on standard error.
//!
//! Streams live as long as the input: at its end those still live are ended. With a state file they go on in the next
//! run instead. Standard output knows no transactions: output is flushed before states are stored, so that after a
//! crash nothing is missing but the last batch may come twice.

use super::line::Line;
use super::{
    Defect, Event, Origin, PollLimits, Polled, RawRecord, Sink, Source, Transaction, Transport, TransportError,
};
use crate::clock::unix_ms;
use crate::config::Config;
use crate::events::Events;
use crate::state::{MemoryStates, ModelPolicy, StateFile, StoreError, read_figures, write_model, write_states};
use std::io::{BufRead, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};

/// Lines that are read ahead.
const READ_AHEAD: usize = 256;
/// Pages of the state file that are kept in memory.
const CACHE_BYTES: usize = 64 << 20;
/// A line may be longer than its value: field names, escapes (`\u00e9` for two bytes), base64.
const LINE_FACTOR: usize = 6;

/// Standard input and output as a transport.
pub fn open(config: &Config, policy: &ModelPolicy, events: &Events) -> Result<Transport, StoreError> {
    let limit = config.input.max_record_bytes.len().saturating_mul(LINE_FACTOR).saturating_add(64 << 10);
    let source = Box::new(LineSource::start(std::io::stdin(), limit));
    let Some(path) = &config.stdio.state_file else {
        let states = Arc::new(MemoryStates::default());
        let sink = LineSink::standard(Keep::Memory(states.clone()), events);
        return Ok(Transport { source, sink: Box::new(sink), states, replays: false, end_streams_at_end: true });
    };
    let file = Arc::new(StateFile::open_with(path, CACHE_BYTES, events.clone(), |txn| write_model(txn, policy))?);
    file.check_model(policy)?;
    let figures = file.read(read_figures)?;
    events.streams_stored(figures.live, figures.state_bytes);
    events.streams_draining(figures.draining);
    let sink = LineSink::standard(Keep::File(file.clone()), events);
    Ok(Transport { source, sink: Box::new(sink), states: file, replays: false, end_streams_at_end: false })
}

/// Lines, read by a thread of their own: reading cannot be interrupted, and ends with the process.
struct LineSource {
    lines: Receiver<std::io::Result<RawRecord>>,
    paused: bool,
    /// What was polled and not committed yet would have to be kept to be read again; after an error it is gone.
    broken: bool,
}

impl LineSource {
    fn start(input: impl Read + Send + 'static, limit: usize) -> LineSource {
        let (sender, lines) = sync_channel(READ_AHEAD);
        std::thread::spawn(move || read_lines(std::io::BufReader::new(input), limit, &sender));
        LineSource { lines, paused: false, broken: false }
    }
}

fn read_lines(mut input: impl BufRead, limit: usize, records: &SyncSender<std::io::Result<RawRecord>>) {
    let topic: Arc<str> = "stdin".into();
    for number in 1.. {
        let mut line = Vec::new();
        let read = input.by_ref().take(limit as u64 + 1).read_until(b'\n', &mut line);
        let record = match read {
            Ok(0) => return,
            Ok(_) => {
                let whole = line.ends_with(b"\n");
                if whole {
                    line.pop();
                }
                let too_long = !whole && line.len() > limit;
                if too_long && let Err(error) = input.skip_until(b'\n') {
                    Err(error)
                } else if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                } else {
                    let origin = Origin::Record { topic: topic.clone(), partition: 0, offset: number };
                    Ok(record_of(line, origin, too_long.then_some(limit)))
                }
            }
            Err(error) => Err(error),
        };
        let failed = record.is_err();
        if records.send(record).is_err() || failed {
            return;
        }
    }
}

/// A line as a record; a line that is none keeps its bytes and says why.
fn record_of(line: Vec<u8>, origin: Origin, longer_than: Option<usize>) -> RawRecord {
    let timestamp_ms = unix_ms();
    let parsed = match longer_than {
        Some(limit) => Err(Defect { code: "too_large", detail: format!("the line is longer than {limit} bytes") }),
        None => Line::parse(&line).map_err(|e| Defect { code: e.code, detail: e.detail }),
    };
    match parsed {
        Ok(Line { stream, value, event, id: _ }) => {
            let (key, headers) = (Some(stream.into_bytes()), Event::headers(event));
            RawRecord { origin, key, value, headers, timestamp_ms, defect: None }
        }
        Err(defect) => {
            RawRecord { origin, key: None, value: line, headers: Vec::new(), timestamp_ms, defect: Some(defect) }
        }
    }
}

impl Source for LineSource {
    fn poll(&mut self, limits: &PollLimits) -> Result<Polled, TransportError> {
        let failed = |e: std::io::Error| TransportError::Fatal(format!("cannot read standard input: {e}"));
        if self.paused {
            return Ok(Polled::Records(Vec::new()));
        }
        let first = match self.lines.recv_timeout(limits.wait) {
            Ok(record) => record.map_err(failed)?,
            Err(RecvTimeoutError::Timeout) => return Ok(Polled::Records(Vec::new())),
            Err(RecvTimeoutError::Disconnected) => return Ok(Polled::End),
        };
        let mut bytes = first.value.len();
        let mut records = vec![first];
        while !limits.reached(records.len(), bytes) {
            let Ok(record) = self.lines.try_recv() else { break };
            let record = record.map_err(failed)?;
            bytes += record.value.len();
            records.push(record);
        }
        self.broken = true;
        Ok(Polled::Records(records))
    }

    fn rewind(&mut self) -> Result<(), TransportError> {
        match self.broken {
            true => Err(TransportError::Fatal("standard input cannot be read again after an error".to_string())),
            false => Ok(()),
        }
    }

    fn pause(&mut self) {
        self.paused = true;
    }

    fn resume(&mut self) {
        self.paused = false;
    }
}

/// Where states go.
enum Keep {
    Memory(Arc<MemoryStates>),
    File(Arc<StateFile>),
}

struct LineSink<O, E> {
    output: O,
    errors: E,
    keep: Keep,
    events: Events,
}

impl LineSink<std::io::Stdout, std::io::Stderr> {
    fn standard(keep: Keep, events: &Events) -> Self {
        LineSink { output: std::io::stdout(), errors: std::io::stderr(), keep, events: events.clone() }
    }
}

fn write_lines(to: &mut impl Write, lines: impl Iterator<Item = Vec<u8>>) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    for line in lines {
        buffer.extend_from_slice(&line);
        buffer.push(b'\n');
    }
    to.write_all(&buffer)?;
    to.flush()
}

impl<O: Write + Send, E: Write + Send> Sink for LineSink<O, E> {
    fn commit(&mut self, transaction: Transaction) -> Result<(), TransportError> {
        let Transaction { outputs, states, letters, .. } = transaction;
        let failed = |what| move |e: std::io::Error| TransportError::Fatal(format!("cannot write to {what}: {e}"));
        let outputs = outputs.into_iter().map(|output| output.value);
        write_lines(&mut self.output, outputs).map_err(failed("standard output"))?;
        let letters = letters.into_iter().map(|l| serde_json::Value::Object(l.to_json()).to_string().into_bytes());
        write_lines(&mut self.errors, letters).map_err(failed("standard error"))?;
        match &self.keep {
            Keep::Memory(memory) => {
                memory.store(states);
                self.events.streams_stored(memory.live() as u64, 0);
            }
            Keep::File(file) => {
                // The labels are out already; they cannot be taken back and tried again.
                let figures = file.write(|txn| write_states(txn, &states));
                let figures = figures.map_err(|e| TransportError::Fatal(e.to_string()))?;
                self.events.streams_stored(figures.live, figures.state_bytes);
                self.events.streams_draining(figures.draining);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn read(input: &str, limit: usize) -> Vec<RawRecord> {
        let (sender, records) = sync_channel(100);
        read_lines(input.as_bytes(), limit, &sender);
        drop(sender);
        records.iter().map(Result::unwrap).collect()
    }

    #[test]
    fn lines_become_records_and_bad_lines_say_why() {
        let long = format!("{{\"stream\":\"a\",\"text\":\"{}\"}}", "x".repeat(100));
        let input =
            format!("{{\"stream\":\"a\",\"text\":\"hi\"}}\n\n{{}}\n{long}\n{{\"stream\":\"b\",\"event\":\"end\"}}");
        let records = read(&input, 60);
        assert_eq!(records.len(), 4);
        assert_eq!((records[0].key.as_deref(), &records[0].value[..]), (Some(&b"a"[..]), &b"hi"[..]));
        assert_eq!(records[1].defect.as_ref().map(|d| d.code), Some("missing_key"));
        assert_eq!(records[1].origin.to_string(), "stdin/0/3");
        assert_eq!(records[2].defect.as_ref().map(|d| d.code), Some("too_large"));
        assert_eq!(records[3].headers, Event::headers(Some(Event::End)));
    }

    #[test]
    fn the_end_of_the_input_is_the_end_of_the_source() {
        let mut source = LineSource::start(&b"{\"stream\":\"a\",\"text\":\"hi\"}\n"[..], 100);
        let limits = PollLimits { records: 10, bytes: 100, wait: Duration::from_secs(5) };
        assert!(matches!(source.poll(&limits), Ok(Polled::Records(records)) if records.len() == 1));
        assert!(matches!(source.poll(&limits), Ok(Polled::End)));
        assert!(source.rewind().is_err());
    }
}
