//! How fast training is: the task of the PyTorch counterpart, embedding 10,000 × 100, two LSTM of 128, 18 classes, batch
//! 32, chunks of 64 steps, clipping and Adam.

use crate::encode::{Features, TableShape};
use crate::model::params::{NetShape, Params};
use crate::rnn::{Cell, LayerSpec};
use crate::train::network::{LossSpec, ShardLoss, States, TrainBatch, TrainNet, Worker};
use crate::train::optimizer::{Optimizer, OptimizerSpec, Rule};
use crate::train::parallel::for_each;
use crate::train::plan::Plan;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Instant;

const BATCH: usize = 32;
const STEPS: usize = 64;
const CLASSES: usize = 18;
const VOCABULARY: usize = 10_000;

/// Words per second: the median of `rounds` steps after five to warm up.
pub fn words_per_second(threads: usize, rounds: usize) -> f64 {
    let lstm = LayerSpec::new(Cell::Lstm, 128);
    let shape = NetShape {
        tables: vec![TableShape { name: "word", rows: VOCABULARY, dim: 100 }],
        layers: vec![lstm.clone(), lstm],
        classes: CLASSES,
        ..NetShape::default()
    };
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut params: Params<f32> = Params::random(&shape, &mut rng);
    let spec = OptimizerSpec {
        rule: Rule::Adam,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.0,
        momentum: 0.0,
        clip_norm: Some(1.0),
        clip_value: None,
        ema: 0.0,
    };
    let mut optimizer = Optimizer::new(spec, &params);
    let mut net = TrainNet::new(&shape);
    let shards = Plan::shards(BATCH);
    let mut workers: Vec<Worker<f32>> = (0..shards).map(|_| Worker::new(&shape, &params)).collect();
    let loss = LossSpec { total_weight: (BATCH * STEPS) as f64, label_smoothing: 0.0, ordinal: None };
    let mut times = Vec::new();
    for _ in 0..rounds + 5 {
        let batches: Vec<TrainBatch> = (0..shards).map(|s| random_batch(Plan::streams(BATCH, s), &mut rng)).collect();
        let started = Instant::now();
        net.set(&params, threads);
        let mut losses = vec![ShardLoss::default(); shards];
        let items = workers.iter_mut().zip(&batches).zip(&mut losses).collect();
        for_each(threads, items, |((worker, batch), out): ((&mut Worker<f32>, _), &mut ShardLoss)| {
            let mut states = States::zero(&shape, SHARD_STREAMS);
            *out = worker.run(&net, &params, batch, &mut states, None, loss);
        });
        optimizer.step(&shape, &workers, &mut params, 1e-3, threads);
        times.push(started.elapsed().as_secs_f64());
    }
    let mut times = times.split_off(5);
    times.sort_by(f64::total_cmp);
    (BATCH * STEPS) as f64 / times[times.len() / 2]
}

const SHARD_STREAMS: usize = crate::train::plan::SHARD;

fn random_batch(streams: usize, rng: &mut ChaCha8Rng) -> TrainBatch {
    let rows = streams * STEPS;
    TrainBatch {
        features: Features {
            steps: rows,
            ids: (0..rows).map(|_| rng.random_range(0..VOCABULARY as u32)).collect(),
            ..Features::default()
        },
        sizes: vec![streams; STEPS],
        reset: vec![false; rows],
        targets: (0..rows).map(|_| rng.random_range(0..CLASSES as u32)).collect(),
        weights: vec![1.0; rows],
        ..TrainBatch::default()
    }
}
