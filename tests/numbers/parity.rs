//! The engine and the trainer against PyTorch: golden values made by `tests/reference/torch_golden.py` and
//! `torch_lookahead.py` and `torch_crf.py`.

use safetensors::SafeTensors;
use strand::encode::{Features, TableShape};
use strand::model::decode::Decoder;
use strand::model::lookahead::AheadLane;
use strand::model::network::{Lane, Network, Scratch};
use strand::model::params::{NetShape, Params};
use strand::model::testing::{layers, words_spec};
use strand::model::{DecodeKind, DecodeSpec, ModelSpec, Scheme};
use strand::rnn::ahead::{Part, Window, Windows};
use strand::rnn::layer::{Layer, LayerScratch, LayerWeights};
use strand::rnn::{Cell, LayerSpec, Nonlinearity};
use strand::train::crf::{Borders, Chain};
use strand::train::network::{LossSpec, States, TrainBatch, TrainNet, Worker};
use strand::train::optimizer::{Optimizer, OptimizerSpec, Rule};

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn integers(file: &SafeTensors<'_>, name: &str) -> Vec<i32> {
    let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    tensor.data().chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn assert_close(got: &[f32], want: &[f32], tolerance: f32, what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (k, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance, "{what}, number {k}: {g}, PyTorch has {w}");
    }
}

#[test]
fn every_cell_gives_pytorchs_outputs_and_states() {
    let bytes = std::fs::read("tests/golden/cells.safetensors").unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let lengths = integers(&file, "lengths");
    let (input, hidden, streams) = (5, 6, lengths.len());
    let sizes: Vec<usize> = (0..lengths[0]).map(|t| lengths.iter().filter(|&&l| l > t).count()).collect();
    let cells = [
        ("lstm", Cell::Lstm, Nonlinearity::Tanh),
        ("gru", Cell::Gru, Nonlinearity::Tanh),
        ("tanh", Cell::Rnn, Nonlinearity::Tanh),
        ("relu", Cell::Rnn, Nonlinearity::Relu),
    ];
    for (name, cell, nonlinearity) in cells {
        for depth in 1..=3 {
            let case = format!("{name}{depth}");
            let get = |what: &str| floats(&file, &format!("{case}/{what}"));
            let (mut x, h0, hn) = (get("x"), get("h0"), get("hn"));
            let (c0, cn) = if cell == Cell::Lstm { (get("c0"), get("cn")) } else { (Vec::new(), Vec::new()) };
            for k in 0..depth {
                let four = ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].map(|n| get(&format!("{n}_l{k}")));
                let [w_ih, w_hh, b_ih, b_hh] = four.each_ref().map(|v| &v[..]);
                let weights = LayerWeights { w_ih, w_hh, b_ih, b_hh, ..LayerWeights::default() };
                let spec = LayerSpec { nonlinearity, ..LayerSpec::new(cell, hidden) };
                let layer = Layer::new(&spec, if k == 0 { input } else { hidden }, weights);
                let at = k * streams * hidden..(k + 1) * streams * hidden;
                let mut h = h0[at.clone()].to_vec();
                let mut c = c0.get(at.clone()).unwrap_or_default().to_vec();
                let mut y = Vec::new();
                layer.forward(&x, &sizes, &mut h, &mut c, &mut y, &mut LayerScratch::default());
                assert_close(&h, &hn[at.clone()], 1e-5, &format!("{case} h of layer {k}"));
                assert_close(&c, cn.get(at).unwrap_or_default(), 1e-5, &format!("{case} c of layer {k}"));
                x = y;
            }
            assert_close(&x, &get("y"), 1e-5, &format!("{case} output"));
        }
    }
}

#[test]
fn a_training_follows_pytorchs_loss_for_100_steps() {
    let bytes = std::fs::read("tests/golden/training.safetensors").unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let shape = NetShape {
        tables: vec![TableShape { name: "word", rows: 12, dim: 6 }],
        layers: vec![LayerSpec::new(Cell::Lstm, 10), LayerSpec::new(Cell::Gru, 8)],
        classes: 4,
        ..NetShape::default()
    };
    let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(0);
    let mut params: Params<f32> = Params::random(&shape, &mut rng);
    for at in 0..params.len() {
        let name = params.name(at).to_string();
        params.slice_mut(at).copy_from_slice(&floats(&file, &name));
    }
    let (x, y, weights) = (integers(&file, "x"), integers(&file, "y"), floats(&file, "class_weights"));
    let (losses, norms) = (floats(&file, "losses"), floats(&file, "norms"));
    let (streams, steps) = (8, 12);
    let spec = OptimizerSpec {
        rule: Rule::Adam,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.0,
        momentum: 0.0,
        clip_norm: Some(0.25),
        clip_value: None,
        ema: 0.0,
    };
    let mut optimizer = Optimizer::new(spec, &params);
    let mut net = TrainNet::new(&shape);
    let mut workers = [Worker::new(&shape, &params)];
    let mut states = States::zero(&shape, streams);
    let mut clipped = 0;
    for (step, (x, y)) in x.chunks_exact(streams * steps).zip(y.chunks_exact(streams * steps)).enumerate() {
        let targets: Vec<u32> = y.iter().map(|&y| y as u32).collect();
        let batch = TrainBatch {
            features: Features { steps: x.len(), ids: x.iter().map(|&x| x as u32).collect(), ..Features::default() },
            sizes: vec![streams; steps],
            reset: vec![false; x.len()],
            weights: targets.iter().map(|&t| weights[t as usize]).collect(),
            targets,
            ..TrainBatch::default()
        };
        let total_weight = batch.weights.iter().map(|&w| w as f64).sum();
        net.set(&params, 1);
        let loss = LossSpec { total_weight, label_smoothing: 0.0, ordinal: None };
        let result = workers[0].run(&net, &params, &batch, &mut states, None, loss);
        let report = optimizer.step(&shape, &workers, &mut params, 0.02, 1);
        let (want, norm) = (losses[step] as f64, norms[step] as f64);
        assert!((result.loss - want).abs() < 1e-4, "step {step}: loss {}, PyTorch has {want}", result.loss);
        assert!((report.norm - norm).abs() < 1e-3 * norm.max(0.1), "step {step}: {} and {norm}", report.norm);
        clipped += usize::from(report.clipped);
    }
    assert!(losses[99] < losses[0] * 0.9, "the problem is learnt at all");
    assert!((1..100).contains(&clipped), "clipping has a part in it: {clipped} of 100 steps");
}

/// Bidirectional layers, seen whole and in windows: probabilities, loss and gradients.
#[test]
fn what_is_seen_ahead_is_what_pytorch_makes_of_the_same_windows() {
    let bytes = std::fs::read("tests/golden/lookahead.safetensors").unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (x, targets) = (floats(&file, "x"), integers(&file, "targets"));
    let steps = targets.len();
    for (name, cell) in [("lstm", Cell::Lstm), ("gru", Cell::Gru), ("tanh", Cell::Rnn)] {
        for (block, right) in [(steps, 0), (1, 0), (1, 2), (2, 1), (3, 2), (4, 0)] {
            let case = format!("{name}.{block}.{right}");
            let layer = LayerSpec { bidirectional: true, ..LayerSpec::new(cell, 4) };
            let shape = NetShape {
                dense: 5,
                layers: vec![layer.clone(), layer],
                classes: 3,
                window: Some(Window { block, right }),
                ..NetShape::default()
            };
            let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(0);
            let mut params: Params<f32> = Params::random(&shape, &mut rng);
            for at in 0..params.len() {
                let tensor = format!("{name}/{}", params.name(at));
                params.slice_mut(at).copy_from_slice(&floats(&file, &tensor));
            }
            let features = Features { steps, dense: x.clone(), ..Features::default() };

            let net = Network::new(&shape, &params);
            let (mut state, mut probabilities) = (vec![0.0; net.state_len()], Vec::new());
            let lane = Lane { features: &features, state: &mut state, probabilities: &mut probabilities };
            net.forward_ahead(&mut [AheadLane { lane, ready: steps }], 0..usize::MAX, &mut Scratch::default());
            assert_close(&probabilities, &floats(&file, &format!("{case}/p")), 1e-5, &case);

            let mut parts: Vec<Part> = (0..steps)
                .step_by(block)
                .map(|from| {
                    let block = block.min(steps - from);
                    Part { stream: 0, from, block, steps: (block + right).min(steps - from) }
                })
                .collect();
            let mut windows = Windows::default();
            windows.lay(&mut parts, steps, |_, step| step);
            let mut all = features.clone();
            for &(_, step) in &windows.ahead_rows {
                all.dense.extend_from_slice(&x[5 * step..5 * step + 5]);
                all.steps += 1;
            }
            let batch = TrainBatch {
                transcripts: Vec::new(),
                features: all,
                sizes: vec![1; steps],
                reset: vec![false; steps],
                targets: targets.iter().map(|&t| t as u32).collect(),
                weights: vec![1.0; steps],
                windows: Some(windows),
                ..TrainBatch::default()
            };
            let (mut net, mut worker) = (TrainNet::new(&shape), Worker::new(&shape, &params));
            net.set(&params, 1);
            let loss = LossSpec { total_weight: steps as f64, label_smoothing: 0.0, ordinal: None };
            let result = worker.run(&net, &params, &batch, &mut States::zero(&shape, 1), None, loss);
            assert_close(&[result.loss as f32], &floats(&file, &format!("{case}/loss")), 1e-5, &case);
            for at in 0..params.len() {
                let tensor = format!("{case}/d/{}", params.name(at));
                assert_close(worker.grads.slice(at), &floats(&file, &tensor), 1e-5, &tensor);
            }
        }
    }
}

#[test]
fn a_crf_has_pytorchs_likelihood_gradients_and_best_paths() {
    let bytes = std::fs::read("tests/golden/crf.safetensors").unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let wide = |name: &str| -> Vec<f64> { floats(&file, name).into_iter().map(f64::from).collect() };
    let scores = ["transitions", "start", "end"];
    let [transitions, start, end] = scores.map(wide);
    let mut chain = Chain::new([&transitions, &start, &end]);
    for k in 0..5 {
        let get = |what: &str| integers(&file, &format!("{k}/{what}")).into_iter().map(|y| y as usize).collect();
        let (y, borders, best): (Vec<usize>, Vec<usize>, Vec<usize>) = (get("y"), get("borders"), get("best"));
        let borders = Borders { starts: borders[0] == 1, ends: borders[1] == 1 };
        let (mut x, weight) = (wide(&format!("{k}/x")), wide(&format!("{k}/weight"))[0]);
        let probabilities = softmax(&x, 4);
        let loss = chain.loss(&mut x, &y, borders, weight);
        let want = wide(&format!("{k}/loss"))[0];
        assert!((loss - want).abs() < 1e-5, "sequence {k}: {loss}, PyTorch has {want}");
        let dx: Vec<f32> = x.iter().map(|x| *x as f32).collect();
        assert_close(&dx, &floats(&file, &format!("{k}/dx")), 1e-6, &format!("gradient at the scores of {k}"));
        if borders.starts && borders.ends {
            let found: Vec<usize> = decoder(&file).labels(&probabilities).into_iter().map(|y| y as usize).collect();
            assert_eq!(found, best, "sequence {k}");
        }
    }
    for (grads, name) in chain.grads().into_iter().zip(scores) {
        let grads: Vec<f32> = grads.iter().map(|x| *x as f32).collect();
        assert_close(&grads, &floats(&file, &format!("d/{name}")), 1e-6, &format!("gradient of {name}"));
    }
}

fn softmax(x: &[f64], classes: usize) -> Vec<f32> {
    let row = |x: &[f64]| {
        let sum: f64 = x.iter().map(|x| x.exp()).sum();
        x.iter().map(|x| (x.exp() / sum) as f32).collect::<Vec<f32>>()
    };
    x.chunks_exact(classes).flat_map(row).collect()
}

/// Waits for more steps than a sequence of the golden file has.
fn decoder(file: &SafeTensors<'_>) -> Decoder {
    let spec = ModelSpec {
        scheme: Scheme::Plain,
        labels: ["a", "b", "c", "d"].map(String::from).to_vec(),
        outside: None,
        decode: Some(DecodeSpec { kind: DecodeKind::Crf, lag: 8, beam: None }),
        ..words_spec("crf", layers(&[Cell::Rnn], 2))
    };
    let shape = NetShape { dense: 2, layers: spec.layers.clone(), classes: 4, crf: true, ..NetShape::default() };
    let mut params = Params::random(&shape, &mut <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(0));
    for (k, name) in ["transitions", "start", "end"].into_iter().enumerate() {
        params.slice_mut(shape.crf_at().unwrap() + k).copy_from_slice(&floats(file, name));
    }
    Decoder::new(&spec, &shape, &params).unwrap().unwrap()
}
