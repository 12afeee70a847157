//! The task: as in "the cat, which already ate …, was full" and "the cats, which …, were full", what comes at the end
//! hangs on the word at the start. A sentence begins with one of some names; then come so many words of no consequence,
//! and at the last of them the name is asked for.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use strand::encode::{Features, TableShape};
use strand::model::params::{NetShape, Params};
use strand::rnn::{Cell, LayerSpec};
use strand::train::network::{LossSpec, NO_TARGET, ShardLoss, States, TrainBatch, TrainNet, Worker};
use strand::train::optimizer::{Optimizer, OptimizerSpec, Rule, StepReport};

/// Names. With two alone, a plain network now and then hits upon weights that hold one bit for good.
pub const NAMES: usize = 6;
/// Names, and the words between.
const WORDS: usize = NAMES + 8;
const HIDDEN: usize = 32;
/// Sentences side by side.
const SENTENCES: usize = 32;

/// A network of one layer, on its way to tell the name `distance` words back.
pub struct Learner {
    shape: NetShape,
    distance: usize,
    params: Params<f32>,
    net: TrainNet<f32>,
    worker: Worker<f32>,
    optimizer: Optimizer<f32>,
    rng: ChaCha8Rng,
}

impl Learner {
    pub fn new(layer: LayerSpec, distance: usize, rule: Rule, clip_norm: Option<f64>, seed: u64) -> Learner {
        let shape = NetShape {
            tables: vec![TableShape { name: "word", rows: WORDS, dim: 8 }],
            chars: None,
            dense: 0,
            layers: vec![layer],
            classes: NAMES,
            window: None,
            pool: None,
            language: None,
            crf: false,
            ctc: false,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut params: Params<f32> = Params::random(&shape, &mut rng);
        // Words from N(0, 1), as PyTorch's: they are easily told apart.
        params.slice_mut(shape.table_at(0)).iter_mut().for_each(|x| *x *= 10.0);
        let spec = OptimizerSpec {
            rule,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            momentum: 0.0,
            clip_norm,
            clip_value: None,
            ema: 0.0,
        };
        Learner {
            net: TrainNet::new(&shape),
            worker: Worker::new(&shape, &params),
            optimizer: Optimizer::new(spec, &params),
            shape,
            distance,
            params,
            rng,
        }
    }

    /// Begins with gates that remember for between one step and `distance`, each unit for another time (Tallec and
    /// Ollivier 2018, "chrono initialization"): a unit that keeps the share 1 - 1/t of its memory at each step forgets
    /// in about t steps.
    pub fn remember(&mut self) {
        let LayerSpec { cell, hidden, .. } = self.shape.layers[0];
        let bias = self.params.slice_mut(self.shape.layer_at(0).first + 2);
        for unit in 0..hidden {
            let keep = self.rng.random_range(1.0..(self.distance as f32).max(2.0)).ln();
            match cell {
                Cell::Lstm | Cell::LstmPeephole => (bias[unit], bias[hidden + unit]) = (-keep, keep),
                Cell::Gru => bias[hidden + unit] = keep,
                Cell::GruSimplified => bias[unit] = -keep,
                Cell::Rnn => {}
            }
        }
    }

    /// Makes the recurrent weights this many times as large.
    pub fn widen(&mut self, times: f32) {
        let at = self.shape.layer_at(0).first + 1;
        self.params.slice_mut(at).iter_mut().for_each(|w| *w *= times);
    }

    /// New sentences, forwards and back.
    fn run(&mut self) -> ShardLoss {
        self.net.set(&self.params, 1);
        let batch = sentences(self.distance, &mut self.rng);
        let mut states = States::zero(&self.shape, SENTENCES);
        let spec = LossSpec { total_weight: SENTENCES as f64, label_smoothing: 0.0, ordinal: None };
        self.worker.run(&self.net, &self.params, &batch, &mut states, None, spec)
    }

    /// One step of the optimiser.
    pub fn step(&mut self, lr: f64) -> (ShardLoss, StepReport) {
        let loss = self.run();
        let workers = std::slice::from_ref(&self.worker);
        (loss, self.optimizer.step(&self.shape, workers, &mut self.params, lr, 1))
    }

    /// Of some hundred new sentences, the share whose name is told.
    pub fn accuracy(&mut self) -> f64 {
        let runs = 8;
        let correct: usize = (0..runs).map(|_| self.run().correct).sum();
        correct as f64 / (runs * SENTENCES) as f64
    }

    /// How far gradients reach: for each k, the norm of the loss's gradient at the word k steps before the last.
    pub fn reach(&mut self) -> Vec<f64> {
        self.run();
        let rows = self.worker.dx.chunks_exact(SENTENCES * self.shape.input()).rev();
        rows.map(|dx| dx.iter().map(|&d| f64::from(d) * f64::from(d)).sum::<f64>().sqrt()).collect()
    }
}

fn sentences(distance: usize, rng: &mut impl Rng) -> TrainBatch {
    let (steps, rows) = (distance + 1, (distance + 1) * SENTENCES);
    let names: Vec<u32> = (0..SENTENCES).map(|_| rng.random_range(0..NAMES as u32)).collect();
    let mut ids = names.clone();
    ids.extend((SENTENCES..rows).map(|_| rng.random_range(NAMES as u32..WORDS as u32)));
    let mut targets = vec![NO_TARGET; rows - SENTENCES];
    targets.extend(names);
    TrainBatch {
        transcripts: Vec::new(),
        windows: None,
        features: Features { steps: rows, ids, ..Features::default() },
        sizes: vec![SENTENCES; steps],
        reset: vec![false; rows],
        targets,
        weights: vec![1.0; rows],
    }
}

/// A layer of this cell.
pub fn layer(cell: Cell) -> LayerSpec {
    LayerSpec::new(cell, HIDDEN)
}
