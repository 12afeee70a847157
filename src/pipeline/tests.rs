//! The pipeline on a transport made for the test, whose commits fail when told to.

use super::*;
use crate::config::{InputConfig, PipelineConfig, StateConfig};
use crate::encode::InputFormat;
use crate::model::Model;
use crate::state::{IdlePage, MemoryStates, StateReadError, StreamState};
use crate::transport::{DeadLetter, Event, Origin, OutputRecord, RawRecord, Sink, Transaction};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What source and sink share, and what the test looks at afterwards.
#[derive(Default)]
struct Shared {
    records: Vec<RawRecord>,
    states: Arc<MemoryStates>,
    outputs: Mutex<Vec<OutputRecord>>,
    letters: Mutex<Vec<DeadLetter>>,
    /// First record that is not committed.
    committed: AtomicUsize,
    attempts: AtomicUsize,
    rewinds: AtomicUsize,
    pauses: AtomicUsize,
    polls: AtomicUsize,
    /// The state of the stream "late" is read only after so many polls.
    load_after: usize,
    /// Commits that fail, by their number from 1.
    failing: BTreeSet<usize>,
    commit_takes: Duration,
    poll_takes: Duration,
}

struct TestSource {
    shared: Arc<Shared>,
    next: usize,
    paused: bool,
}

impl Source for TestSource {
    fn poll(&mut self, limits: &PollLimits) -> Result<Polled, TransportError> {
        if self.paused {
            return Ok(Polled::Records(Vec::new()));
        }
        std::thread::sleep(self.shared.poll_takes);
        self.shared.polls.fetch_add(1, Ordering::SeqCst);
        let rest = &self.shared.records[self.next..];
        let records = rest[..rest.len().min(limits.records)].to_vec();
        self.next += records.len();
        Ok(if records.is_empty() { Polled::End } else { Polled::Records(records) })
    }

    fn rewind(&mut self) -> Result<(), TransportError> {
        self.shared.rewinds.fetch_add(1, Ordering::SeqCst);
        self.next = self.shared.committed.load(Ordering::SeqCst);
        Ok(())
    }

    fn pause(&mut self) {
        self.shared.pauses.fetch_add(1, Ordering::SeqCst);
        self.paused = true;
    }

    fn resume(&mut self) {
        self.paused = false;
    }
}

/// The committed states, as engine threads read them.
struct TestStates(Arc<Shared>);

impl States for TestStates {
    fn load(&self, keys: &[StreamId]) -> Result<Vec<Option<StreamState>>, StateReadError> {
        let patience = Instant::now() + Duration::from_secs(30);
        let late = keys.iter().any(|key| key.as_bytes() == b"late");
        while late && self.0.polls.load(Ordering::SeqCst) < self.0.load_after {
            assert!(Instant::now() < patience, "nobody polls");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.0.states.load(keys)
    }

    fn idle(&self, before_ms: u64, after: Option<&StreamId>, limit: usize) -> Result<IdlePage, StateReadError> {
        self.0.states.idle(before_ms, after, limit)
    }
}

struct TestSink(Arc<Shared>);

impl Sink for TestSink {
    fn commit(&mut self, transaction: Transaction) -> Result<(), TransportError> {
        let shared = &self.0;
        std::thread::sleep(shared.commit_takes);
        let attempt = shared.attempts.fetch_add(1, Ordering::SeqCst) + 1;
        if shared.failing.contains(&attempt) {
            return Err(TransportError::Transient(format!("commit {attempt} fails")));
        }
        shared.outputs.lock().unwrap().extend(transaction.outputs);
        shared.letters.lock().unwrap().extend(transaction.letters);
        shared.states.store(transaction.states);
        for position in transaction.positions {
            let next = position.next_offset as usize;
            assert!(next > shared.committed.swap(next, Ordering::SeqCst), "positions only go on");
        }
        Ok(())
    }
}

fn record(offset: usize, stream: &str, value: &[u8], event: Option<Event>) -> RawRecord {
    RawRecord {
        origin: Origin::Record { topic: "test".into(), partition: 0, offset: offset as i64 },
        key: Some(stream.as_bytes().to_vec()),
        value: value.to_vec(),
        headers: Event::headers(event),
        timestamp_ms: 1,
        defect: None,
    }
}

/// Five streams cut within words, with a bad piece now and then; the first of them ends.
fn records() -> Vec<RawRecord> {
    let pieces: Vec<&[u8]> = crate::model::testing::TEXT.as_bytes().chunks(17).collect();
    let mut records = Vec::new();
    for (k, piece) in pieces.iter().enumerate() {
        for stream in ["a", "b", "c", "d", "e"] {
            let value = if k % 7 == 3 && stream == "c" { b"\xff" } else { *piece };
            records.push(record(records.len(), stream, value, None));
        }
    }
    records.push(record(records.len(), "a", b"", Some(Event::End)));
    records
}

/// Runs the whole of [`records`] through a pipeline; what became of them, and the metrics.
fn run(failing: &[usize], commit_takes: Duration, end_streams_at_end: bool) -> (Arc<Shared>, Events) {
    // Each batch is committed alone, so that the number of commits is known.
    let pipeline = PipelineConfig { commit_records: 1, ..PipelineConfig::default() };
    run_with(pipeline, failing, commit_takes, end_streams_at_end)
}

/// A clock that goes on by 50 ms whenever it is looked at.
struct Hasty {
    begun: Instant,
    looks: AtomicUsize,
}

impl Runtime for Hasty {
    fn now(&self) -> Instant {
        self.begun + Duration::from_millis(50) * self.looks.fetch_add(1, Ordering::SeqCst) as u32
    }

    fn unix_ms(&self) -> u64 {
        System.unix_ms()
    }

    fn sleep(&self, time: Duration) {
        System.sleep(time);
    }

    fn committer(&self, commit: Commit) -> std::io::Result<Box<dyn Committer>> {
        System.committer(commit)
    }
}

fn run_with(
    pipeline: PipelineConfig,
    failing: &[usize],
    commit_takes: Duration,
    end_streams_at_end: bool,
) -> (Arc<Shared>, Events) {
    let shared = Shared { failing: failing.iter().copied().collect(), commit_takes, ..Shared::default() };
    run_on(Arc::new(System), pipeline, shared, end_streams_at_end)
}

fn run_on(
    runtime: Arc<dyn Runtime>,
    pipeline: PipelineConfig,
    shared: Shared,
    end_streams_at_end: bool,
) -> (Arc<Shared>, Events) {
    let dir = tempfile::tempdir().unwrap();
    crate::model::testing::tiny_model(dir.path()).unwrap();
    let model = Arc::new(Model::load(dir.path()).unwrap());
    let events = Events::new(&model.spec().labels).unwrap();
    let given = if shared.records.is_empty() { records() } else { shared.records };
    let shared = Arc::new(Shared { records: given, ..shared });
    let transport = Transport {
        source: Box::new(TestSource { shared: shared.clone(), next: 0, paused: false }),
        sink: Box::new(TestSink(shared.clone())),
        states: shared.states.clone(),
        replays: false,
        end_streams_at_end,
    };
    let parts = Parts {
        model,
        previous: None,
        states: Arc::new(TestStates(shared.clone())),
        events: events.clone(),
        input: &InputConfig::default(),
        format: (InputFormat::Text, None),
        pipeline: &PipelineConfig { threads: 2, batch_records: 12, ..pipeline },
        state: &StateConfig::default(),
        runtime,
    };
    let health = Health::new(events.clone(), &["pipeline"]);
    Pipeline::start(transport, &parts, health.clone(), Shutdown::new()).unwrap().run().unwrap();
    assert!(health.troubles().is_empty(), "{:?}", health.troubles());
    (shared, events)
}

fn outputs(shared: &Shared) -> Vec<OutputRecord> {
    shared.outputs.lock().unwrap().clone()
}

#[test]
fn after_a_failed_commit_the_labels_are_what_they_would_have_been() {
    let (undisturbed, _) = run(&[], Duration::ZERO, false);
    let (all, batches) = (undisturbed.records.len(), undisturbed.attempts.load(Ordering::SeqCst));
    assert!(outputs(&undisturbed).len() > 80 && batches > 5, "{batches} batches");
    // The first, two in a row, and the last, after which the source says that it has ended.
    let failing = [1, 4, 5, batches + 3];
    let (shared, events) = run(&failing, Duration::ZERO, false);
    assert_eq!(outputs(&shared), outputs(&undisturbed));
    assert_eq!(*shared.letters.lock().unwrap(), *undisturbed.letters.lock().unwrap());
    assert_eq!(shared.committed.load(Ordering::SeqCst), all);
    let keys: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|key| StreamId::new(key.as_bytes()).unwrap()).collect();
    let states = |shared: &Shared| -> Vec<_> {
        let states = shared.states.load(&keys).unwrap().into_iter().flatten();
        states.map(|state| (state.session, state.entry.records, state.entry.next_seq)).collect()
    };
    assert_eq!(states(&shared), states(&undisturbed));
    assert_eq!(shared.rewinds.load(Ordering::SeqCst), failing.len());
    // What was computed in vain is not counted.
    let metrics = events.metrics();
    let letters = shared.letters.lock().unwrap().len() as u64;
    assert_eq!(
        (metrics.records.get(), metrics.transactions.with_label_values(&["aborted"]).get()),
        (all as u64 - letters, 4)
    );
}

#[test]
fn batches_are_committed_together_for_an_interval_and_up_to_a_size() {
    let (undisturbed, _) = run(&[], Duration::ZERO, false);
    let states = |shared: &Shared| {
        let keys = ["a", "b", "c", "d", "e"].map(|key| StreamId::new(key.as_bytes()).unwrap());
        let states = shared.states.load(&keys).unwrap().into_iter().flatten();
        states.map(|state| (state.session, state.entry.next_seq, state.entry.records)).collect::<Vec<_>>()
    };
    let interval = PipelineConfig { commit_interval: crate::config::Period::seconds(600), ..PipelineConfig::default() };
    let all = undisturbed.records.len();
    for (commit_records, failing, commits) in
        [(usize::MAX, &[][..], 1), (36, &[], all.div_ceil(36)), (36, &[2], all.div_ceil(36) + 1)]
    {
        let (shared, _) =
            run_with(PipelineConfig { commit_records, ..interval.clone() }, failing, Duration::ZERO, false);
        assert!(outputs(&shared) == outputs(&undisturbed), "{commit_records}");
        assert!(states(&shared) == states(&undisturbed), "{commit_records}");
        assert_eq!(shared.attempts.load(Ordering::SeqCst), commits);
    }
    let (shared, _) =
        run_with(PipelineConfig { commit_bytes: crate::config::Bytes(1), ..interval }, &[], Duration::ZERO, false);
    assert_eq!(shared.attempts.load(Ordering::SeqCst), undisturbed.attempts.load(Ordering::SeqCst));
}

#[test]
fn while_one_batch_is_computed_the_next_is_polled() {
    // The second batch of twelve has a stream of its own, whose state is not read before the third is polled.
    let mut records = records();
    records[13].key = Some(b"late".to_vec());
    let commit_interval = crate::config::Period::seconds(600);
    let all = |load_after: usize, failing: &[usize]| {
        let failing = failing.iter().copied().collect();
        let shared = Shared { records: records.clone(), load_after, failing, ..Shared::default() };
        let config = PipelineConfig { commit_interval, ..PipelineConfig::default() };
        let (shared, _) = run_on(Arc::new(System), config, shared, false);
        assert_eq!(shared.committed.load(Ordering::SeqCst), shared.records.len());
        outputs(&shared)
    };
    let undisturbed = all(0, &[]);
    assert_eq!(all(3, &[]), undisturbed);
    assert_eq!(all(3, &[1]), undisturbed);
}

#[test]
fn what_is_labelled_during_a_commit_is_committed_next_together() {
    let (undisturbed, _) = run(&[], Duration::ZERO, false);
    let (shared, _) = run_with(PipelineConfig::default(), &[], Duration::from_millis(100), false);
    assert_eq!(outputs(&shared), outputs(&undisturbed));
    let commits = |shared: &Shared| shared.attempts.load(Ordering::SeqCst);
    assert!(2 * commits(&shared) < commits(&undisturbed), "{} of {}", commits(&shared), commits(&undisturbed));
    let records = PipelineConfig { commit_records: 24, ..PipelineConfig::default() };
    let (bounded, _) = run_with(records, &[], Duration::from_millis(100), false);
    assert!(commits(&bounded) >= undisturbed.records.len().div_ceil(36));
}

#[test]
fn while_there_is_a_backlog_transactions_grow() {
    let (undisturbed, _) = run(&[], Duration::ZERO, false);
    let all = |shared: &Shared| (outputs(shared), shared.committed.load(Ordering::SeqCst));
    let commits = |catch_up: u64| {
        let catch_up_interval = crate::config::Period::seconds(catch_up);
        let hasty = Hasty { begun: Instant::now(), looks: AtomicUsize::new(0) };
        // Each commit is over before the next poll.
        let shared = Shared { poll_takes: Duration::from_millis(20), ..Shared::default() };
        let config = PipelineConfig { catch_up_interval, ..PipelineConfig::default() };
        let (shared, _) = run_on(Arc::new(hasty), config, shared, false);
        assert_eq!(all(&shared), all(&undisturbed));
        shared.attempts.load(Ordering::SeqCst)
    };
    let (growing, not) = (commits(600), commits(0));
    assert!(growing <= 4 && not > 2 * growing, "{growing} and {not} commits");
}

#[test]
fn a_slow_commit_pauses_the_source() {
    let (shared, events) = run(&[], PAUSE_AFTER * 3 / 2, true);
    assert!(shared.pauses.load(Ordering::SeqCst) > 0);
    assert_eq!(events.metrics().source_paused.get(), 0);
    assert_eq!(shared.committed.load(Ordering::SeqCst), shared.records.len());
    // The source has ended: so have the streams.
    assert_eq!(shared.states.live(), 0);
    let last: Vec<_> = outputs(&shared).split_off(outputs(&shared).len() - 4);
    assert!(
        last.iter().all(|output| output.input.origin == Origin::Strand && output.value.ends_with(b"\"final\":true}"))
    );
}
