//! What a large vocabulary costs: a full softmax against an adaptive one over 10,000, 100,000 and 1,000,000 units.
//!
//! `cargo bench --bench softmax`. One LSTM of 128 on one thread; 8 streams, 32 steps (256 units) a step of training; units
//! by Zipf's law. The input table is small in all cases: only the softmax differs. Each case is a process of its own, so that
//! its peak memory is its own.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::process::Command;
use std::time::Instant;
use strand::encode::{Features, TableShape};
use strand::model::adaptive::{UnitScratch, UnitSoftmax};
use strand::model::network::Network;
use strand::model::params::{NetShape, Params};
use strand::rnn::{Cell, LayerSpec};
use strand::train::network::{LossSpec, States, TrainBatch, TrainNet, Worker};
use strand::train::optimizer::{Optimizer, OptimizerSpec, Rule};

const CASE: &str = "STRAND_SOFTMAX_CASE";
const CASES: [(usize, &[usize]); 3] =
    [(10_000, &[1_000, 4_000]), (100_000, &[2_000, 20_000]), (1_000_000, &[2_000, 20_000, 200_000])];
const STREAMS: usize = 8;
const STEPS: usize = 32;
const TOP: usize = 128;
const INPUTS: usize = 1_000;

fn main() {
    if let Ok(case) = std::env::var(CASE) {
        return run(&case);
    }
    let this = std::env::current_exe().expect("the bench knows its own path");
    println!(
        "| units | softmax | weights | training: s a step | MiB | scoring: µs a unit, 256 at once | one alone | MiB |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (n, (units, cutoffs)) in CASES.iter().enumerate() {
        for kind in ["full", "adaptive"] {
            let cell = |what: &str| {
                let output = Command::new(&this).env(CASE, format!("{n} {kind} {what}")).output();
                String::from_utf8_lossy(&output.expect("the bench runs itself").stdout).trim().to_string()
            };
            let shown = if kind == "full" { "full".into() } else { format!("adaptive, {cutoffs:?}") };
            println!("| {units} | {shown} | {} | {} | {} |", cell("weights"), cell("train"), cell("score"));
        }
    }
}

fn run(case: &str) {
    let words: Vec<&str> = case.split(' ').collect();
    let (units, cutoffs) = CASES[words[0].parse::<usize>().expect("the number of a case")];
    let cutoffs = if words[1] == "full" { Vec::new() } else { cutoffs.to_vec() };
    let softmax = UnitSoftmax { units, cutoffs, div_value: 4.0 };
    let shape = NetShape {
        crf: false,
        ctc: false,
        window: None,
        tables: vec![TableShape { name: "word", rows: INPUTS, dim: 64 }],
        chars: None,
        dense: 0,
        layers: vec![LayerSpec::new(Cell::Lstm, TOP)],
        classes: softmax.head(),
        pool: None,
        language: Some(softmax),
    };
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let params: Params<f32> = Params::random(&shape, &mut rng);
    // The unit of rank r is drawn in proportion to 1 / r.
    let draw = |rng: &mut ChaCha8Rng| ((units as f64).powf(rng.random::<f64>()) as u32).min(units as u32 - 1);
    match words[2] {
        "weights" => println!("{:.1} M", params.count() as f64 / 1e6),
        "train" => train(&shape, params, &mut rng, draw),
        _ => score(&shape, params, &mut rng, draw),
    }
}

fn train(shape: &NetShape, mut params: Params<f32>, rng: &mut ChaCha8Rng, draw: impl Fn(&mut ChaCha8Rng) -> u32) {
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
    let (mut optimizer, mut net) = (Optimizer::new(spec, &params), TrainNet::new(shape));
    let mut workers = [Worker::new(shape, &params)];
    let rows = STREAMS * STEPS;
    let mut times = Vec::new();
    for _ in 0..4 {
        let batch = TrainBatch {
            transcripts: Vec::new(),
            windows: None,
            features: Features {
                steps: rows,
                ids: (0..rows).map(|_| rng.random_range(0..INPUTS as u32)).collect(),
                ..Features::default()
            },
            sizes: vec![STREAMS; STEPS],
            reset: vec![false; rows],
            targets: (0..rows).map(|_| draw(rng)).collect(),
            weights: vec![1.0; rows],
        };
        let began = Instant::now();
        net.set(&params, 1);
        let loss = LossSpec { total_weight: rows as f64, label_smoothing: 0.0, ordinal: None };
        workers[0].run(&net, &params, &batch, &mut States::zero(shape, STREAMS), None, loss);
        optimizer.step(shape, &workers, &mut params, 1e-3, 1);
        times.push(began.elapsed().as_secs_f64());
    }
    // The first one also makes the memory ready.
    println!("{:.3} | {}", median(times.split_off(1)), peak_mib());
}

fn score(shape: &NetShape, params: Params<f32>, rng: &mut ChaCha8Rng, draw: impl Fn(&mut ChaCha8Rng) -> u32) {
    let network = Network::new(shape, &params);
    drop(params);
    let rows = 256;
    let x: Vec<f32> = (0..rows * TOP).map(|_| rng.random_range(-1.0..1.0)).collect();
    let units: Vec<u32> = (0..rows).map(|_| draw(rng)).collect();
    let (mut scratch, mut out) = (UnitScratch::default(), Vec::new());
    let mut time = |x: &[f32], units: &[u32]| {
        out.clear();
        let began = Instant::now();
        network.surprises(x, units, &mut scratch, &mut out);
        began.elapsed().as_secs_f64() * 1e6 / units.len() as f64
    };
    time(&x, &units);
    let together = median((0..5).map(|_| time(&x, &units)).collect());
    let alone: f64 =
        x.chunks_exact(TOP).zip(units.chunks(1)).take(64).map(|(x, unit)| time(x, unit)).sum::<f64>() / 64.0;
    println!("{together:.1} | {alone:.1} | {}", peak_mib());
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// The most memory that this process has had, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix("kB")?.trim().parse().ok());
    peak.map_or(0, |kib: u64| kib / 1024)
}
