//! Once streams are under way the engine asks for no memory: [`Network::forward`] and [`Network::forward_ahead`] over many
//! steps of many streams, counted by an allocator of this test's own.
//!
//! [`Stepper::step`] hands out labels, and their text belongs to whoever gets them; what it allocates besides is by the
//! call, not by the step.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell as Counter;
use std::path::Path;
use std::sync::Arc;
use strand::encode::{Encoder, EncoderSpec, Features, InputFormat, ReaderState, VectorSpec};
use strand::model::lookahead::AheadLane;
use strand::model::network::{Lane, Network, Scratch};
use strand::model::params::{NetShape, Params};
use strand::model::testing::{TEXT, dna_spec, layers, look_ahead_spec, random_model, words_spec};
use strand::model::{LookAhead, Model, ModelSpec, Output, Session, Stepper};
use strand::rnn::Cell;
use strand::rnn::matrix::Precision;

struct Counting;

thread_local! {
    static ASKED: Counter<usize> = const { Counter::new(0) };
}

fn count() {
    // A thread that ends has no counter any more.
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
}

// SAFETY: everything is the system allocator's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How often this thread asks for memory while it runs `f`.
fn asked(f: impl FnOnce()) -> usize {
    let before = ASKED.get();
    f();
    ASKED.get() - before
}

/// What `streams` streams read, each at another place of it.
fn features(encoder: &Encoder, format: InputFormat, input: &[u8], streams: usize) -> Vec<Features> {
    let of_stream = |stream: usize| {
        let (mut state, mut units, mut features) = (ReaderState::default(), Vec::new(), Features::default());
        let cuts: Vec<usize> = (0..input.len()).filter(|at| input[*at] == b' ').collect();
        let from = cuts.get(stream % cuts.len().max(1)).copied().unwrap_or(0).min(input.len() / 2);
        encoder.push(&mut state, format, &input[from..], &mut units, &mut features).unwrap();
        features
    };
    (0..streams).map(of_stream).collect()
}

/// Allocations of five rounds of steps after two to warm up.
fn of_network(spec: &ModelSpec, format: InputFormat, input: &[u8], streams: usize, precision: Precision) -> usize {
    let text = String::from_utf8_lossy(input);
    let encoder = Encoder::learn(&spec.encoder, &mut text.split_whitespace(), Path::new(".")).unwrap();
    let shape = NetShape::of(spec, encoder.layout()).unwrap();
    let mut rng: rand_chacha::ChaCha8Rng = rand::SeedableRng::seed_from_u64(1);
    let net = Network::with_precision(&shape, &Params::random(&shape, &mut rng), precision);
    let features = features(&encoder, format, input, streams);
    assert!(features.iter().all(|features| features.steps > 1));
    let (mut states, mut probabilities) = (vec![vec![0.0; net.state_len()]; streams], vec![Vec::new(); streams]);
    let mut scratch = Scratch::default();
    let mut count = 0;
    for round in 0..7 {
        probabilities.iter_mut().for_each(Vec::clear);
        let lanes = features.iter().zip(&mut states).zip(&mut probabilities);
        let lanes = lanes.map(|((features, state), probabilities)| Lane { features, state, probabilities });
        let of_round = if shape.window.is_some() {
            let lanes = lanes.map(|lane| AheadLane { ready: lane.features.steps, lane });
            let mut lanes: Vec<AheadLane<'_>> = lanes.collect();
            asked(|| net.forward_ahead(&mut lanes, 0..usize::MAX, &mut scratch))
        } else {
            let mut lanes: Vec<Lane<'_>> = lanes.collect();
            asked(|| net.forward(&mut lanes, &mut scratch))
        };
        count += if round < 2 { 0 } else { of_round };
    }
    count
}

const STREAMS: [usize; 4] = [1, 8, 64, 200];
const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

#[test]
fn labelling_words_asks_for_no_memory_once_the_words_are_known() {
    for streams in STREAMS {
        for cell in [Cell::Lstm, Cell::Gru, Cell::GruSimplified, Cell::LstmPeephole, Cell::Rnn] {
            let spec = words_spec("words", layers(&[cell; 2], 24));
            let count = of_network(&spec, InputFormat::Text, TEXT.as_bytes(), streams, Precision::F32);
            assert_eq!(count, 0, "{cell:?}, {streams} streams");
        }
    }
}

#[test]
fn labelling_bases_asks_for_no_memory() {
    let bases = b"ACGTTGCANNACGTAGGCTA".repeat(10);
    for streams in STREAMS {
        for precision in PRECISIONS {
            let spec = dna_spec("dna", layers(&[Cell::Gru, Cell::Lstm], 40));
            assert_eq!(of_network(&spec, InputFormat::Dna, &bases, streams, precision), 0, "{precision:?}, {streams}");
        }
    }
}

#[test]
fn labelling_vectors_asks_for_no_memory() {
    let vectors = "[0.5,-1,2,0.25,0,1]".repeat(20).replace("][", "],[");
    let vectors = format!("[{vectors}]");
    for streams in STREAMS {
        for precision in PRECISIONS {
            let encoder = EncoderSpec::Vector(VectorSpec { width: 6 });
            let spec = ModelSpec { encoder, ..words_spec("vectors", layers(&[Cell::Lstm; 2], 40)) };
            let count = of_network(&spec, InputFormat::Vector, vectors.as_bytes(), streams, precision);
            assert_eq!(count, 0, "{precision:?}, {streams}");
        }
    }
}

#[test]
fn looking_ahead_asks_for_no_memory() {
    for streams in STREAMS {
        let ahead = Some(LookAhead { steps: 3, block: Some(2) });
        let spec = look_ahead_spec("ahead", layers(&[Cell::Lstm; 2], 16), ahead);
        let count = of_network(&spec, InputFormat::Text, TEXT.as_bytes(), streams, Precision::F32);
        assert_eq!(count, 0, "{streams} streams");
    }
}

#[test]
fn a_stepper_allocates_by_the_record_and_not_by_the_step() {
    let dir = tempfile::tempdir().unwrap();
    random_model(dir.path(), &words_spec("words", layers(&[Cell::Lstm; 2], 24)), TEXT, 3).unwrap();
    let model = Arc::new(Model::load(dir.path()).unwrap());
    let mut stepper = Stepper::new(model.clone());
    let mut of_record = |copies: usize| {
        let mut sessions: Vec<Session> = (0..64).map(|_| Session::new(&model)).collect();
        let mut least = usize::MAX;
        for _ in 0..5 {
            for session in &mut sessions {
                session.push(&model, InputFormat::Text, TEXT.repeat(copies).as_bytes()).unwrap();
            }
            let steps = sessions[0].waiting();
            let mut outputs = vec![Output::default(); sessions.len()];
            // The labels and spans themselves: room for all of them at once, so that they need no more.
            outputs.iter_mut().for_each(|output| {
                output.labels.reserve(steps);
                output.spans.reserve(steps);
            });
            let mut at_work: Vec<&mut Session> = sessions.iter_mut().collect();
            let count = asked(|| stepper.step(&mut at_work, &mut outputs));
            // A span that closes has a label of its own.
            let spans: usize = outputs.iter().map(|output| output.spans.len()).sum();
            least = least.min(count - spans.min(count));
        }
        least
    };
    let (short, long) = (of_record(1), of_record(10));
    assert!(long <= short + 64, "{short} allocations for 64 records, {long} for records ten times as long");
}
