//! How fast the engine steps: stacked taggers of four sizes on the workloads of an online daemon. A step is one time
//! step of one stream; input vectors go in, class probabilities come out, h and c are carried.

use crate::encode::Features;
use crate::inbox::Inbox;
use crate::model::network::{Lane, Network, Scratch};
use crate::model::params::{NetShape, Params};
use crate::rnn::Cell;
use crate::rnn::LayerSpec;
use crate::rnn::matrix::Precision;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// A stack of `layers` layers.
#[derive(Debug, Clone, Copy)]
pub struct BenchModel {
    pub name: &'static str,
    pub cell: Cell,
    pub input: usize,
    pub hidden: usize,
    pub layers: usize,
    pub classes: usize,
}

/// `streams` streams with `steps` steps each.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    pub name: &'static str,
    pub streams: usize,
    pub steps: usize,
}

const fn model(
    name: &'static str,
    cell: Cell,
    input: usize,
    hidden: usize,
    layers: usize,
    classes: usize,
) -> BenchModel {
    BenchModel { name, cell, input, hidden, layers, classes }
}

const fn work(name: &'static str, streams: usize, steps: usize) -> Workload {
    Workload { name, streams, steps }
}

pub const MODELS: [BenchModel; 4] = [
    model("S", Cell::Lstm, 64, 128, 2, 16),
    model("M", Cell::Lstm, 100, 256, 2, 32),
    model("L", Cell::Lstm, 300, 512, 3, 64),
    model("Mgru", Cell::Gru, 100, 256, 2, 32),
];

pub const WORKLOADS: [Workload; 7] = [
    work("B1T1", 1, 1),
    work("B8T1", 8, 1),
    work("B64T1", 64, 1),
    work("B256T1", 256, 1),
    work("B1024T1", 1024, 1),
    work("B32T32", 32, 32),
    work("B1T1024", 1, 1024),
];

/// Steps per second: median, least, most. With several threads the streams are shared out among them.
///
/// `budget` is the time given to it; at least five rounds are measured.
pub fn steps_per_second(
    model: &BenchModel,
    work: &Workload,
    threads: usize,
    precision: Precision,
    budget: Duration,
) -> [f64; 3] {
    let layer = LayerSpec::new(model.cell, model.hidden);
    let layers = vec![layer; model.layers];
    let shape = NetShape { dense: model.input, layers, classes: model.classes, ..NetShape::default() };
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let net = Network::with_precision(&shape, &Params::random(&shape, &mut rng), precision);
    let lone = work.streams == 1;
    let shares = if lone { 1 } else { threads.min(work.streams) };
    let share = work.streams.div_ceil(shares);
    let mut parts: Vec<Part> = (0..work.streams)
        .step_by(share)
        .map(|from| Part::new(&net, share.min(work.streams - from), work.steps, model.input, &mut rng))
        .collect();
    parts.iter_mut().for_each(|part| part.scratch.threads = if lone { threads } else { 1 });
    let mut times = rounds(&net, parts, budget);
    times.remove(0);
    times.sort_by(f64::total_cmp);
    let all = (work.streams * work.steps) as f64;
    [all / times[times.len() / 2], all / times[times.len() - 1], all / times[0]]
}

/// Seconds that each round took: every part once, each on a thread of its own that waits for the next round, as the
/// daemon's shards wait for a batch.
fn rounds(net: &Network, parts: Vec<Part>, budget: Duration) -> Vec<f64> {
    let mut parts = parts.into_iter();
    let Some(mut own) = parts.next() else { return Vec::new() };
    let (mut times, started) = (Vec::new(), Instant::now());
    std::thread::scope(|scope| {
        let others: Vec<_> = parts
            .map(|mut part| {
                let (begin, begun) = sync_channel::<()>(1);
                let (end, ended) = sync_channel::<()>(1);
                let (begun, ended) = (Inbox::new(begun), Inbox::new(ended));
                scope.spawn(move || {
                    while begun.receive().is_ok() {
                        part.run(net);
                        if end.send(()).is_err() {
                            return;
                        }
                    }
                });
                (begin, ended)
            })
            .collect();
        while times.len() < 6 || (started.elapsed() < budget && times.len() < 2000) {
            let round = Instant::now();
            others.iter().for_each(|(begin, _)| begin.send(()).expect("the thread waits"));
            own.run(net);
            others.iter().for_each(|(_, ended)| ended.receive().expect("the thread ends its round"));
            times.push(round.elapsed().as_secs_f64());
        }
    });
    times
}

/// The streams of one thread.
pub(super) struct Part {
    features: Vec<Features>,
    states: Vec<Vec<f32>>,
    probabilities: Vec<Vec<f32>>,
    scratch: Scratch,
}

impl Part {
    pub(super) fn new(net: &Network, streams: usize, steps: usize, width: usize, rng: &mut ChaCha8Rng) -> Part {
        let mut features = || Features {
            steps,
            dense: (0..steps * width).map(|_| rng.random_range(-1.0..1.0)).collect(),
            ..Features::default()
        };
        Part {
            features: (0..streams).map(|_| features()).collect(),
            states: vec![vec![0.0; net.state_len()]; streams],
            probabilities: vec![Vec::new(); streams],
            scratch: Scratch::default(),
        }
    }

    pub(super) fn run(&mut self, net: &Network) {
        self.probabilities.iter_mut().for_each(Vec::clear);
        let mut lanes: Vec<Lane<'_>> = (self.features.iter().zip(&mut self.states).zip(&mut self.probabilities))
            .map(|((features, state), probabilities)| Lane { features, state, probabilities })
            .collect();
        net.forward(&mut lanes, &mut self.scratch);
    }
}
