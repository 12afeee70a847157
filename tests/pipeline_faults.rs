//! The pipeline on a transport whose commits, polls and reads of states fail at random: whatever fails, what is
//! committed in the end is what one undisturbed pass gives.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use strand::config::Config;
use strand::events::Events;
use strand::health::Health;
use strand::model::testing::{TEXT, tiny_model};
use strand::model::{Model, Output, Session, Stepper};
use strand::pipeline::{Parts, Pipeline, System};
use strand::shutdown::Shutdown;
use strand::state::{IdlePage, MemoryStates, StateChange, StateFile, StateReadError, States, StreamId, StreamState};
use strand::transport::{
    DeadLetter, Event, Origin, OutputRecord, PollLimits, Polled, RawRecord, Sink, Source, Transaction, Transport,
    TransportError,
};

const STREAMS: usize = 9;

/// A queue in memory with everything that was committed from it, and a dice that makes calls fail.
struct World {
    records: Vec<RawRecord>,
    committed: Mutex<Committed>,
    states: MemoryStates,
    dice: Mutex<ChaCha8Rng>,
    /// Of a thousand calls, how many fail.
    faults: u32,
    failed: AtomicUsize,
}

#[derive(Default)]
struct Committed {
    next: i64,
    outputs: Vec<OutputRecord>,
    letters: Vec<DeadLetter>,
}

impl World {
    fn fails(&self) -> bool {
        let fails = self.dice.lock().unwrap().random_range(0..1000) < self.faults;
        self.failed.fetch_add(usize::from(fails), Ordering::Relaxed);
        fails
    }

    fn fault(&self, what: &str) -> Result<(), TransportError> {
        if self.fails() { Err(TransportError::Transient(format!("{what}: fault"))) } else { Ok(()) }
    }
}

struct FaultySource {
    world: Arc<World>,
    next: usize,
    paused: bool,
}

impl Source for FaultySource {
    fn poll(&mut self, limits: &PollLimits) -> Result<Polled, TransportError> {
        self.world.fault("poll")?;
        if self.paused {
            return Ok(Polled::Records(Vec::new()));
        }
        let left = &self.world.records[self.next..];
        if left.is_empty() {
            return Ok(Polled::End);
        }
        let records = left[..left.len().min(limits.records)].to_vec();
        self.next += records.len();
        Ok(Polled::Records(records))
    }

    fn rewind(&mut self) -> Result<(), TransportError> {
        self.world.fault("rewind")?;
        self.next = self.world.committed.lock().unwrap().next as usize;
        Ok(())
    }

    fn pause(&mut self) {
        self.paused = true;
    }

    fn resume(&mut self) {
        self.paused = false;
    }
}

struct FaultySink(Arc<World>);

impl Sink for FaultySink {
    fn commit(&mut self, transaction: Transaction) -> Result<(), TransportError> {
        let world = &self.0;
        if world.fails() {
            // Slow enough that the next batch is computed meanwhile, and the source paused at times.
            std::thread::sleep(Duration::from_millis(if world.fails() { 300 } else { 5 }));
            return Err(TransportError::Transient("commit: fault".to_string()));
        }
        let mut committed = world.committed.lock().unwrap();
        for position in transaction.positions {
            assert!(position.next_offset > committed.next, "never back");
            committed.next = position.next_offset;
        }
        committed.outputs.extend(transaction.outputs);
        committed.letters.extend(transaction.letters);
        world.states.store(transaction.states);
        Ok(())
    }
}

struct FaultyStates(Arc<World>);

impl States for FaultyStates {
    fn load(&self, keys: &[StreamId]) -> Result<Vec<Option<StreamState>>, StateReadError> {
        if self.0.fails() { Err(StateReadError("fault".to_string())) } else { self.0.states.load(keys) }
    }

    fn idle(&self, before_ms: u64, after: Option<&StreamId>, limit: usize) -> Result<IdlePage, StateReadError> {
        self.0.states.idle(before_ms, after, limit)
    }
}

fn piece(random: &mut ChaCha8Rng) -> (Vec<u8>, Option<Event>) {
    let start = random.random_range(0..TEXT.len());
    let end = (start + random.random_range(1..30)).min(TEXT.len());
    let event = match random.random_range(0..25) {
        0 => Some(Event::Start),
        1 => Some(Event::Flush),
        2 => Some(Event::Reset),
        3 => Some(Event::End),
        _ => None,
    };
    let mut value = TEXT.as_bytes()[start..end].to_vec();
    if random.random_range(0..20) == 0 {
        value.push(0xff);
    }
    (value, event)
}

fn records(seed: u64, count: usize) -> Vec<RawRecord> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|offset| {
            let (value, event) = piece(&mut random);
            let key = format!("stream-{}", random.random_range(0..STREAMS));
            RawRecord {
                origin: Origin::Record { topic: "t".into(), partition: 0, offset: offset as i64 },
                key: Some(key.into_bytes()),
                value,
                headers: Event::headers(event),
                timestamp_ms: 0,
                defect: None,
            }
        })
        .collect()
}

impl World {
    fn new(seed: u64, faults: u32) -> Arc<World> {
        Arc::new(World {
            records: records(seed, 600),
            committed: Mutex::default(),
            states: MemoryStates::default(),
            dice: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
            faults,
            failed: AtomicUsize::new(0),
        })
    }

    /// Runs the pipeline over all records.
    fn run(self: &Arc<World>, model: &Arc<Model>, sets: &[&str]) {
        let sets: Vec<String> = sets.iter().map(|set| set.to_string()).collect();
        let config = Config::load(None, &sets).unwrap();
        let events = Events::new(&model.spec().labels).unwrap();
        let states: Arc<dyn States> = Arc::new(FaultyStates(self.clone()));
        let transport = Transport {
            source: Box::new(FaultySource { world: self.clone(), next: 0, paused: false }),
            sink: Box::new(FaultySink(self.clone())),
            states: states.clone(),
            replays: false,
            end_streams_at_end: false,
        };
        let parts = Parts {
            model: model.clone(),
            previous: None,
            states,
            events: events.clone(),
            input: &config.input,
            format: config.input.resolve(model.encoder().spec()).unwrap(),
            pipeline: &config.pipeline,
            state: &config.state,
            runtime: Arc::new(System),
        };
        let health = Health::new(events, &["pipeline"]);
        Pipeline::start(transport, &parts, health, Shutdown::new()).unwrap().run().unwrap();
        assert_eq!(self.committed.lock().unwrap().next, 600, "everything was read");
    }
}

/// Runs the pipeline over the records; outputs by stream, dead letters, and how many calls failed.
fn run(
    model: &Arc<Model>,
    seed: u64,
    faults: u32,
    sets: &[&str],
) -> (BTreeMap<String, Vec<String>>, Vec<String>, usize) {
    let world = World::new(seed, faults);
    world.run(model, sets);
    let committed = world.committed.lock().unwrap();
    let mut streams: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for output in &committed.outputs {
        let of = streams.entry(output.stream.text().into_owned()).or_default();
        assert_eq!(output.seq, of.len() as u64, "numbered without gaps");
        of.push(String::from_utf8(output.value.clone()).unwrap());
    }
    let letters = committed.letters.iter().map(|letter| format!("{} {}", letter.record.origin, letter.code)).collect();
    (streams, letters, world.failed.load(Ordering::Relaxed))
}

fn model() -> Arc<Model> {
    let dir = tempfile::tempdir().unwrap();
    tiny_model(dir.path()).unwrap();
    Arc::new(Model::load(dir.path()).unwrap())
}

#[test]
fn whatever_fails_the_outputs_are_those_of_an_undisturbed_pass() {
    let model = model();
    let mut failed = 0;
    for seed in 0..12 {
        let expected = run(&model, seed, 0, &["pipeline.threads=1", "pipeline.batch_records=1000"]);
        assert_eq!(expected.2, 0);
        let sets = ["pipeline.threads=2", "pipeline.batch_records=30", "state.max_resident=4"];
        let disturbed = run(&model, seed, 90, &sets);
        assert_eq!((disturbed.0, disturbed.1), (expected.0, expected.1), "seed {seed}");
        failed += disturbed.2;
    }
    assert!(failed > 40, "{failed}");
}

#[test]
fn the_pipeline_labels_as_a_lone_session_does() {
    let model = model();
    let mut expected: BTreeMap<String, (Session, Vec<String>)> = BTreeMap::new();
    let mut stepper = Stepper::new(model.clone());
    let plain: Vec<RawRecord> = records(77, 600);
    for record in &plain {
        let key = String::from_utf8(record.key.clone().unwrap()).unwrap();
        let (session, labels) = expected.entry(key).or_insert_with(|| (Session::new(&model), Vec::new()));
        let event = record.headers.first().and_then(|(_, value)| value.as_deref());
        let before = session.clone();
        let mut output = Output::default();
        let mut step = |session: &mut Session| stepper.step(&mut [session], std::slice::from_mut(&mut output));
        match event {
            Some(b"start") => *session = Session::new(&model),
            Some(b"reset") => {
                session.finish_unit(&model).unwrap();
                step(session);
                session.reset();
            }
            _ => {}
        }
        if session.push(&model, model.encoder().format(), &record.value).is_err() {
            *session = before;
            continue;
        }
        if matches!(event, Some(b"flush" | b"end")) {
            session.finish_unit(&model).unwrap();
        }
        step(session);
        if event == Some(b"end") {
            *session = Session::new(&model);
        }
        labels
            .extend(output.labels.iter().map(|l| format!("{} {} {} {} {}", l.start, l.end, l.text, l.label, l.score)));
    }
    let (streams, _, _) = run(&model, 77, 0, &[]);
    for (stream, (_, labels)) in expected {
        let given: Vec<String> = streams[&stream]
            .iter()
            .flat_map(|record| {
                let record: serde_json::Value = serde_json::from_str(record).unwrap();
                record["labels"].as_array().unwrap().clone()
            })
            .map(|l| {
                let label = model.spec().labels.iter().position(|name| l["label"] == name.as_str()).unwrap();
                let score = l["score"].as_f64().unwrap() as f32;
                format!("{} {} {} {label} {score}", l["start"], l["end"], l["text"].as_str().unwrap())
            })
            .collect();
        assert_eq!(given, labels, "{stream}");
    }
}

#[test]
fn a_damaged_state_stops_its_stream_and_no_other() {
    let model = model();
    let dir = tempfile::tempdir().unwrap();
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
    file.write(|txn| strand::state::write_states(txn, &[change])).unwrap();
    assert_eq!(file.load(std::slice::from_ref(&stream)).unwrap(), [Some(state.clone())]);

    let world = World::new(6, 0);
    world.states.store(vec![StateChange { stream, state }]);
    world.run(&model, &[]);
    let committed = world.committed.lock().unwrap();
    let first_start = world.records.iter().position(|record| {
        record.key.as_deref() == Some(b"stream-0") && record.headers == Event::headers(Some(Event::Start))
    });
    let damaged: Vec<i64> = committed
        .letters
        .iter()
        .filter(|letter| letter.code == "state_damaged")
        .map(|letter| letter.record.origin.offset().unwrap())
        .collect();
    let expected: Vec<i64> = world.records[..first_start.unwrap()]
        .iter()
        .filter(|record| record.key.as_deref() == Some(b"stream-0"))
        .map(|record| record.origin.offset().unwrap())
        .collect();
    assert_eq!(damaged, expected);
    assert!(committed.outputs.iter().any(|output| output.stream.as_bytes() == b"stream-0"), "\"start\" begins it anew");
    assert!(committed.outputs.len() > 400);
}
