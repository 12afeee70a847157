//! Records as JSON lines, and values of which one field is read, through a pipeline in this process.
//!
//! Bytes: `input.format` and pointer, then lines.

use super::{Choices, formats};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use strand::config::{Config, ValueFormat};
use strand::encode::InputFormat;
use strand::events::Events;
use strand::health::Health;
use strand::model::Model;
use strand::pipeline::{Parts, Pipeline, System};
use strand::shutdown::Shutdown;
use strand::state::MemoryStates;
use strand::transport::line::Line;
use strand::transport::{
    DeadLetter, Event, Origin, OutputRecord, PollLimits, Polled, RawRecord, Sink, Source, Transaction, Transport,
    TransportError,
};

const POINTERS: [&str; 6] = ["/text", "", "/a/0/b", "/~1~0", "/", "no pointer"];

/// Gives its records, so many at a time.
struct Records {
    records: VecDeque<RawRecord>,
    at_once: usize,
    paused: bool,
}

impl Source for Records {
    fn poll(&mut self, limits: &PollLimits) -> Result<Polled, TransportError> {
        if self.paused {
            return Ok(Polled::Records(Vec::new()));
        }
        if self.records.is_empty() {
            return Ok(Polled::End);
        }
        let count = self.records.len().min(limits.records).min(self.at_once);
        Ok(Polled::Records(self.records.drain(..count).collect()))
    }

    fn rewind(&mut self) -> Result<(), TransportError> {
        Err(TransportError::Fatal("nothing fails here".to_string()))
    }

    fn pause(&mut self) {
        self.paused = true;
    }

    fn resume(&mut self) {
        self.paused = false;
    }
}

/// Everything that was committed.
#[derive(Default)]
struct Committed {
    outputs: Vec<OutputRecord>,
    letters: Vec<DeadLetter>,
    states: MemoryStates,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Committed>>);

impl Sink for Shared {
    fn commit(&mut self, transaction: Transaction) -> Result<(), TransportError> {
        let mut committed = self.0.lock().unwrap();
        committed.outputs.extend(transaction.outputs);
        committed.states.store(transaction.states);
        committed.letters.extend(transaction.letters);
        Ok(())
    }
}

impl strand::state::States for Shared {
    fn load(
        &self,
        keys: &[strand::state::StreamId],
    ) -> Result<Vec<Option<strand::state::StreamState>>, strand::state::StateReadError> {
        self.0.lock().unwrap().states.load(keys)
    }

    fn idle(
        &self,
        before_ms: u64,
        after: Option<&strand::state::StreamId>,
        limit: usize,
    ) -> Result<strand::state::IdlePage, strand::state::StateReadError> {
        self.0.lock().unwrap().states.idle(before_ms, after, limit)
    }
}

/// A line is a record or is told why not; each record leads to an output or a dead letter, the same ones
/// whether they come one at a time or all together.
pub fn check(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let which = choices.byte();
    let pointer = choices.below(POINTERS.len() + 1);
    let mut records = Vec::new();
    for line in choices.rest().split(|&byte| byte == b'\n') {
        let origin = Origin::Record { topic: "lines".into(), partition: 0, offset: records.len() as i64 };
        let (key, value, headers) = match Line::parse(line) {
            Ok(line) => {
                same_in_base64(&line);
                (Some(line.stream.into_bytes()), line.value, Event::headers(line.event))
            }
            Err(error) => {
                assert!(!error.code.is_empty() && !error.detail.is_empty());
                // As a value it comes from elsewhere.
                (Some(b"s".to_vec()), line.to_vec(), Vec::new())
            }
        };
        records.push(RawRecord { origin, key, value, headers, timestamp_ms: 1, defect: None });
    }
    formats::with_models(|models| {
        let model = &models[usize::from(which) % models.len()];
        let pointer = POINTERS.get(pointer).copied();
        let (count, together) = (records.len(), run(model, pointer, &records, usize::MAX));
        for number in 0..count as i64 {
            let outputs = together.0.iter().filter(|(of, _)| *of == number).count();
            let letters = together.1.iter().filter(|(of, _)| *of == number).count();
            // Both: the record was taken, but what was unfinished before it was no whole character.
            assert!(outputs <= 1 && letters <= 1 && outputs + letters > 0, "{outputs} outputs, {letters} letters");
        }
        assert_eq!(run(model, pointer, &records, 1), together);
    });
}

/// The same record with its value in base64.
fn same_in_base64(line: &Line) {
    use base64::Engine as _;
    let value = base64::engine::general_purpose::STANDARD.encode(&line.value);
    let again = serde_json::json!({
        "id": line.id, "stream": line.stream, "base64": value, "event": line.event.map(Event::name),
    });
    assert_eq!(Line::parse(again.to_string().as_bytes()).as_ref(), Ok(line));
}

/// Outputs and codes of dead letters, by the number of their record.
type Result_ = (Vec<(i64, Vec<u8>)>, Vec<(i64, &'static str)>);

fn run(model: &Arc<Model>, pointer: Option<&str>, records: &[RawRecord], at_once: usize) -> Result_ {
    let mut config = Config::default();
    config.pipeline.threads = 1;
    if let Some(pointer) = pointer {
        (config.input.format, config.input.pointer) = (Some(ValueFormat::Json), pointer.to_string());
    }
    let format: (InputFormat, Option<String>) = config.input.resolve(model.encoder().spec()).unwrap();
    let events = Events::new(&model.spec().labels).unwrap();
    let committed = Shared::default();
    let transport = Transport {
        source: Box::new(Records { records: records.iter().cloned().collect(), at_once, paused: false }),
        sink: Box::new(committed.clone()),
        states: Arc::new(committed.clone()),
        replays: false,
        end_streams_at_end: false,
    };
    let parts = Parts {
        model: model.clone(),
        previous: None,
        states: transport.states.clone(),
        events: events.clone(),
        input: &config.input,
        format,
        pipeline: &config.pipeline,
        state: &config.state,
        runtime: Arc::new(System),
    };
    let health = Health::new(events, &["pipeline"]);
    Pipeline::start(transport, &parts, health, Shutdown::new()).unwrap().run().unwrap();
    drop(parts);
    let committed = std::mem::take(&mut *committed.0.lock().unwrap());
    for letter in &committed.letters {
        serde_json::to_vec(&letter.to_json()).unwrap();
    }
    let number = |record: &RawRecord| record.origin.offset().unwrap();
    let mut outputs: Vec<_> = committed.outputs.into_iter().map(|o| (number(&o.input), o.value)).collect();
    let mut letters: Vec<_> = committed.letters.iter().map(|l| (number(&l.record), l.code)).collect();
    outputs.sort();
    letters.sort();
    for (_, output) in &outputs {
        serde_json::from_slice::<serde_json::Value>(output).expect("an output is JSON");
    }
    (outputs, letters)
}
