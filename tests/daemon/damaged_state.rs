//! A state that cannot be read: the records of its stream are rejected until it begins anew, and no other stream is
//! disturbed.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use strand::config::Config;
use strand::events::Events;
use strand::health::Health;
use strand::model::testing::{TEXT, tiny_model};
use strand::model::{Model, Session};
use strand::pipeline::{Parts, Pipeline, System};
use strand::shutdown::Shutdown;
use strand::state::{MemoryStates, StateChange, StateFile, States, StreamId, StreamState};
use strand::transport::{
    DeadLetter, Event, Origin, OutputRecord, PollLimits, Polled, RawRecord, Sink, Source, Transaction, Transport,
    TransportError,
};

struct Records(std::vec::IntoIter<RawRecord>);

impl Source for Records {
    fn poll(&mut self, limits: &PollLimits) -> Result<Polled, TransportError> {
        let records: Vec<RawRecord> = self.0.by_ref().take(limits.records).collect();
        Ok(if records.is_empty() { Polled::End } else { Polled::Records(records) })
    }

    fn rewind(&mut self) -> Result<(), TransportError> {
        unreachable!("nothing fails")
    }

    fn pause(&mut self) {}

    fn resume(&mut self) {}
}

#[derive(Default)]
struct Committed {
    outputs: Vec<OutputRecord>,
    letters: Vec<DeadLetter>,
}

struct Kept(Arc<MemoryStates>, Arc<Mutex<Committed>>);

impl Sink for Kept {
    fn commit(&mut self, transaction: Transaction) -> Result<(), TransportError> {
        self.0.store(transaction.states);
        let mut committed = self.1.lock().unwrap();
        committed.outputs.extend(transaction.outputs);
        committed.letters.extend(transaction.letters);
        Ok(())
    }
}

/// Pieces of nine streams; now and then one begins anew.
fn records() -> Vec<RawRecord> {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let record = |offset| {
        let start = random.random_range(0..TEXT.len() - 30);
        let event = (random.random_range(0..25) == 0).then_some(Event::Start);
        RawRecord {
            origin: Origin::Record { topic: "t".into(), partition: 0, offset },
            key: Some(format!("stream-{}", random.random_range(0..9)).into_bytes()),
            value: TEXT.as_bytes()[start..start + random.random_range(1..30)].to_vec(),
            headers: Event::headers(event),
            timestamp_ms: 0,
            defect: None,
        }
    };
    (0..600).map(record).collect()
}

/// What the pipeline makes of the records, with these states to begin with.
fn run(model: &Arc<Model>, states: Vec<StateChange>) -> Committed {
    let config = Config::load(None, &[]).unwrap();
    let events = Events::new(&model.spec().labels).unwrap();
    let (kept, committed) = (Arc::new(MemoryStates::default()), Arc::new(Mutex::default()));
    kept.store(states);
    let transport = Transport {
        source: Box::new(Records(records().into_iter())),
        sink: Box::new(Kept(kept.clone(), committed.clone())),
        states: kept.clone(),
        replays: false,
        end_streams_at_end: false,
    };
    let parts = Parts {
        model: model.clone(),
        previous: None,
        states: kept,
        events: events.clone(),
        input: &config.input,
        format: config.input.resolve(model.encoder().spec()).unwrap(),
        pipeline: &config.pipeline,
        state: &config.state,
        runtime: Arc::new(System),
    };
    let health = Health::new(events, &["pipeline"]);
    Pipeline::start(transport, &parts, health, Shutdown::new()).unwrap().run().unwrap();
    std::mem::take(&mut committed.lock().unwrap())
}

#[test]
fn a_damaged_state_stops_its_stream_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model(dir.path()).unwrap();
    let model = Arc::new(Model::load(dir.path()).unwrap());
    let events = Events::new(&model.spec().labels).unwrap();
    let file = StateFile::open(&dir.path().join("states.redb"), 1 << 20, events).unwrap();
    let mut session = Vec::new();
    Session::new(&model).encode(&model, &mut session);
    let last = session.len() - 1;
    session[last] ^= 1;
    assert!(Session::decode(&model, &session).is_err());
    let stream = StreamId::new(b"stream-0").unwrap();
    let state = StreamState { entry: Default::default(), session: Some(session) };
    let change = StateChange { stream: stream.clone(), state: state.clone() };
    file.write(|txn| strand::state::write_states(txn, std::slice::from_ref(&change))).unwrap();
    assert_eq!(file.load(std::slice::from_ref(&stream)).unwrap(), [Some(state)]);

    let (undisturbed, damaged) = (run(&model, Vec::new()), run(&model, vec![change]));
    let is_stream = |record: &RawRecord| record.key.as_deref() == Some(stream.as_bytes());
    let own: Vec<RawRecord> = records().into_iter().filter(is_stream).collect();
    let first_start = own.iter().position(|record| !record.headers.is_empty()).unwrap();
    assert!(first_start > 0);
    let rejected: Vec<_> = damaged.letters.iter().map(|letter| (letter.code, letter.record.clone())).collect();
    let expected: Vec<_> = own[..first_start].iter().map(|record| ("state_damaged", record.clone())).collect();
    assert_eq!(rejected, expected, "until \"start\" begins it anew");
    let labels = |committed: &Committed, own: bool| {
        let mut streams: BTreeMap<StreamId, Vec<Vec<u8>>> = BTreeMap::new();
        for output in committed.outputs.iter().filter(|output| (output.stream == stream) == own) {
            streams.entry(output.stream.clone()).or_default().push(output.value.clone());
        }
        streams
    };
    assert_eq!(labels(&damaged, false), labels(&undisturbed, false));
    assert_eq!(labels(&damaged, true)[&stream].len(), own.len() - first_start);
}
