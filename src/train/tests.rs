//! Gradients against finite differences in f64; the same weights whatever the number of threads.

use super::dropout::Dropout;
use super::network::{LossSpec, NO_TARGET, ShardLoss, States, TrainBatch, TrainNet, Worker, add_table_grads};
use crate::encode::{Features, TableShape};
use crate::model::Pooling;
use crate::model::params::{CharNetShape, NetShape, Params};
use crate::rnn::ahead::{Part, Window, Windows};
use crate::rnn::{Cell, LayerSpec, Nonlinearity};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn shape(layers: Vec<LayerSpec>, char_cell: Option<Cell>) -> NetShape {
    let table = |name, rows, dim| TableShape { name, rows, dim };
    NetShape {
        tables: vec![table("word", 6, 3), table("shape", 3, 2)],
        chars: char_cell.map(|cell| CharNetShape { rows: 5, dim: 3, hidden: 4, cell, bidirectional: true }),
        dense: 2,
        layers,
        classes: 4,
        ..NetShape::default()
    }
}

fn layer(cell: Cell, hidden: usize, nonlinearity: Nonlinearity) -> LayerSpec {
    LayerSpec { nonlinearity, ..LayerSpec::new(cell, hidden) }
}

/// Ragged streams with resets in their middle, unscored rows and unequal weights.
fn batch(rng: &mut ChaCha8Rng, with_chars: bool) -> TrainBatch {
    let sizes = vec![3, 3, 2, 2, 1];
    let rows = sizes.iter().sum();
    let mut b = TrainBatch {
        features: Features { steps: rows, ..Features::default() },
        sizes,
        reset: (0..rows).map(|r| r % 4 == 3).collect(),
        targets: (0..rows).map(|r| if r == 2 { NO_TARGET } else { rng.random_range(0..4) }).collect(),
        weights: (0..rows).map(|r| 0.5 + r as f32 * 0.1).collect(),
        ..TrainBatch::default()
    };
    for _ in 0..rows {
        b.features.ids.extend([rng.random_range(0..6), rng.random_range(0..3)]);
        b.features.dense.extend([rng.random_range(-1.0..1.0), rng.random_range(-1.0..1.0f32)]);
        if with_chars {
            let length = rng.random_range(1..5);
            b.features.chars.extend((0..length).map(|_| rng.random_range(0..5u32)));
            b.features.char_ends.push(b.features.chars.len() as u32);
        }
    }
    b
}

const LOSS: LossSpec = LossSpec { total_weight: 7.0, label_smoothing: 0.1, ordinal: None };

/// What comes before the batch: h and c, what was pooled; and what is asked of it.
struct Given {
    states: States<f64>,
    pooled: Vec<f64>,
    loss: LossSpec,
    /// Of the input and between layers, each time the same.
    dropout: Option<(f64, f64)>,
}

/// Cuts the batch's streams into windows; the first stream goes on for three steps after its last.
fn look_ahead(window: Window, batch: &mut TrainBatch, rng: &mut ChaCha8Rng) {
    let first_row: Vec<usize> = (0..batch.sizes.len()).map(|t| batch.sizes[..t].iter().sum()).collect();
    let row_of = |stream: usize, step: usize| first_row[step] + stream;
    let mut parts = Vec::new();
    for stream in 0..batch.sizes[0] {
        let length = batch.sizes.iter().take_while(|&&m| m > stream).count();
        let known = if stream == 0 { length + 3 } else { length };
        let resets = |step: usize| step < length && batch.reset[row_of(stream, step)];
        let mut from = 0;
        while from < length {
            let end = (from + 1..known).find(|&step| resets(step)).unwrap_or(known);
            let block = window.block.min(length - from).min(end - from);
            parts.push(Part { stream, from, block, steps: (block + window.right).min(end - from) });
            from += block;
        }
    }
    let mut windows = Windows::default();
    windows.lay(&mut parts, batch.targets.len(), row_of);
    let f = &mut batch.features;
    for &(stream, step) in &windows.ahead_rows {
        // The same step is the same input wherever it is seen; the first stream's later steps are what comes.
        let row = batch.sizes.get(step).filter(|&&m| m > stream).map(|_| row_of(stream, step));
        match row {
            Some(row) => {
                f.ids.extend_from_within(2 * row..2 * row + 2);
                f.dense.extend_from_within(2 * row..2 * row + 2);
                let word = f.chars_of(row).to_vec();
                f.chars.extend(word);
            }
            None => {
                f.ids.extend([rng.random_range(0..6), rng.random_range(0..3)]);
                f.dense.extend([rng.random_range(-1.0..1.0), rng.random_range(-1.0..1.0f32)]);
                f.chars.extend([1, 2]);
            }
        }
        f.char_ends.push(f.chars.len() as u32);
        f.steps += 1;
    }
    batch.windows = Some(windows);
}

fn loss(shape: &NetShape, params: &Params<f64>, batch: &TrainBatch, given: &Given) -> (f64, Worker<f64>) {
    let mut dropout = given.dropout.map(|(input, layers)| Dropout::new(input, layers, 0.0));
    dropout.iter_mut().for_each(|dropout| dropout.seed(1, 1, 1));
    let mut net = TrainNet::new(shape);
    net.set(params, 1);
    let mut worker = Worker::new(shape, params);
    worker.pool.states = given.pooled.clone();
    let result = worker.run(&net, params, batch, &mut given.states.clone(), dropout.as_mut(), given.loss);
    (result.loss, worker)
}

fn check(shape: NetShape, seed: u64) {
    check_given(shape, seed, Vec::new(), LOSS, None);
}

/// Compares every parameter's gradient (for big tensors a sample) with (L(p + ε) - L(p - ε)) / 2ε.
fn check_given(shape: NetShape, seed: u64, pooled: Vec<f64>, asked: LossSpec, dropout: Option<(f64, f64)>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut batch = batch(&mut rng, shape.chars.is_some());
    if let Some(window) = shape.window {
        look_ahead(window, &mut batch, &mut rng);
    }
    check_batch(shape, rng, batch, pooled, asked, dropout);
}

/// The same on this batch.
fn check_batch(
    shape: NetShape,
    mut rng: ChaCha8Rng,
    batch: TrainBatch,
    pooled: Vec<f64>,
    asked: LossSpec,
    dropout: Option<(f64, f64)>,
) {
    let mut params: Params<f64> = Params::random(&shape, &mut rng);
    let mut states = States::zero(&shape, 3);
    states.0.iter_mut().flatten().flatten().for_each(|x| *x = rng.random_range(-0.5..0.5));
    let states = Given { states, pooled, loss: asked, dropout };
    let (_, worker) = loss(&shape, &params, &batch, &states);
    let mut grads = params.zeros_like();
    let workers = [worker];
    add_table_grads(&shape, &workers, &mut grads);
    let epsilon = 1e-5;
    for at in 0..params.len() {
        let from = if at < shape.tables.len() { &grads } else { &workers[0].grads };
        let analytic = from.slice(at).to_vec();
        let mut largest = 0.0f64;
        for k in (0..analytic.len()).step_by(analytic.len() / 40 + 1) {
            let old = params.slice(at)[k];
            params.slice_mut(at)[k] = old + epsilon;
            let up = loss(&shape, &params, &batch, &states).0;
            params.slice_mut(at)[k] = old - epsilon;
            let down = loss(&shape, &params, &batch, &states).0;
            params.slice_mut(at)[k] = old;
            let numeric = (up - down) / (2.0 * epsilon);
            let scale = numeric.abs().max(analytic[k].abs()).max(1e-4);
            let (name, got) = (params.name(at), analytic[k]);
            assert!((numeric - got).abs() / scale < 1e-5, "{name}[{k}]: {got}, finite difference {numeric}");
            largest = largest.max(got.abs());
        }
        assert!(largest > 0.0, "{} gets no gradient at all", params.name(at));
    }
}

#[test]
fn gradients_of_the_lstm_are_the_finite_differences() {
    check(shape(vec![layer(Cell::Lstm, 5, Nonlinearity::Tanh)], Some(Cell::Lstm)), 1);
}

#[test]
fn gradients_of_the_gru_are_the_finite_differences() {
    check(shape(vec![layer(Cell::Gru, 5, Nonlinearity::Tanh)], Some(Cell::Gru)), 2);
}

#[test]
fn gradients_of_the_tanh_rnn_are_the_finite_differences() {
    check(shape(vec![layer(Cell::Rnn, 5, Nonlinearity::Tanh)], Some(Cell::Rnn)), 3);
}

#[test]
fn gradients_of_the_relu_rnn_are_the_finite_differences() {
    check(shape(vec![layer(Cell::Rnn, 6, Nonlinearity::Relu)], None), 4);
}

#[test]
fn gradients_of_the_simplified_gru_are_the_finite_differences() {
    check(shape(vec![layer(Cell::GruSimplified, 5, Nonlinearity::Tanh)], Some(Cell::GruSimplified)), 6);
}

#[test]
fn gradients_of_the_lstm_with_peepholes_are_the_finite_differences() {
    check(shape(vec![layer(Cell::LstmPeephole, 5, Nonlinearity::Tanh)], Some(Cell::LstmPeephole)), 7);
}

/// Every cell (ReLU apart) with these options, two on top of each other; the network's input is seven wide.
fn check_options(residual: bool, layer_norm: bool) {
    let cells = [Cell::Lstm, Cell::LstmPeephole, Cell::Gru, Cell::GruSimplified, Cell::Rnn];
    for (seed, cell) in cells.into_iter().enumerate() {
        let layer = LayerSpec { residual, layer_norm, ..LayerSpec::new(cell, 7) };
        check(shape(vec![layer.clone(), layer], None), 10 + seed as u64);
    }
    let relu = LayerSpec { residual, layer_norm, ..layer(Cell::Rnn, 7, Nonlinearity::Relu) };
    check(shape(vec![relu], None), 15);
}

#[test]
fn gradients_of_residual_layers_are_the_finite_differences() {
    check_options(true, false);
}

#[test]
fn gradients_of_normalised_layers_are_the_finite_differences() {
    check_options(false, true);
}

#[test]
fn gradients_of_normalised_residual_layers_are_the_finite_differences() {
    check_options(true, true);
}

#[test]
fn gradients_of_residual_layers_are_the_finite_differences_under_dropout() {
    let layer = LayerSpec { residual: true, layer_norm: true, ..LayerSpec::new(Cell::Gru, 7) };
    check_given(shape(vec![layer.clone(), layer], None), 16, Vec::new(), LOSS, Some((0.3, 0.4)));
}

#[test]
fn gradients_of_a_mixed_stack_are_the_finite_differences() {
    let stack = vec![
        layer(Cell::Lstm, 4, Nonlinearity::Tanh),
        layer(Cell::Gru, 5, Nonlinearity::Tanh),
        layer(Cell::Rnn, 3, Nonlinearity::Tanh),
    ];
    check(shape(stack, Some(Cell::Gru)), 5);
}

/// Every cell both ways, alone and under another such layer, with and without a layer between that reads forwards only.
fn check_look_ahead(window: Window, residual: bool, layer_norm: bool) {
    let cells = [Cell::Lstm, Cell::LstmPeephole, Cell::Gru, Cell::GruSimplified, Cell::Rnn];
    for (seed, cell) in cells.into_iter().enumerate() {
        let plain = LayerSpec { layer_norm, ..LayerSpec::new(cell, 3) };
        let both = LayerSpec { bidirectional: true, ..plain.clone() };
        let second = LayerSpec { residual, ..both.clone() };
        let between = LayerSpec { residual, hidden: 6, ..plain.clone() };
        for stack in [vec![both.clone()], vec![both.clone(), between, second.clone()], vec![both, second, plain]] {
            check(NetShape { window: Some(window), ..shape(stack, Some(Cell::Gru)) }, 20 + seed as u64);
        }
    }
}

#[test]
fn gradients_through_what_is_seen_ahead_are_the_finite_differences() {
    check_look_ahead(Window { block: 1, right: 2 }, false, false);
    check_look_ahead(Window { block: 2, right: 1 }, false, false);
    check_look_ahead(Window { block: 2, right: 0 }, false, false);
    check_look_ahead(Window { block: 100, right: 3 }, false, false);
}

#[test]
fn gradients_through_normalised_residual_layers_that_look_ahead_are_the_finite_differences() {
    check_look_ahead(Window { block: 2, right: 2 }, true, true);
    check_look_ahead(Window { block: 2, right: 2 }, false, true);
    check_look_ahead(Window { block: 2, right: 2 }, true, false);
}

#[test]
fn the_training_network_that_looks_ahead_labels_as_the_running_one() {
    use crate::model::lookahead::AheadLane;
    use crate::model::network::{Lane, Network, Scratch};
    for (block, right) in [(1, 0), (1, 3), (2, 3), (4, 1), (100, 0)] {
        let layer = |cell, hidden| LayerSpec { bidirectional: true, ..LayerSpec::new(cell, hidden) };
        let stack = vec![
            layer(Cell::Lstm, 20),
            LayerSpec { layer_norm: true, ..layer(Cell::Gru, 17) },
            LayerSpec { residual: true, ..LayerSpec::new(Cell::GruSimplified, 34) },
            LayerSpec { residual: true, layer_norm: true, ..layer(Cell::LstmPeephole, 17) },
            LayerSpec::new(Cell::Rnn, 9),
        ];
        let shape = NetShape { window: Some(Window { block, right }), ..shape(stack, Some(Cell::Lstm)) };
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let params: Params<f32> = Params::random(&shape, &mut rng);
        let mut batch = batch(&mut rng, true);
        batch.sizes = vec![1; batch.features.steps];
        batch.reset.fill(false);
        batch.targets.fill(1);
        batch.weights.fill(1.0);
        let features = batch.features.clone();
        let mut parts: Vec<Part> = (0..features.steps)
            .step_by(block)
            .map(|from| {
                let block = block.min(features.steps - from);
                Part { stream: 0, from, block, steps: (block + right).min(features.steps - from) }
            })
            .collect();
        let mut windows = Windows::default();
        windows.lay(&mut parts, features.steps, |_, step| step);
        let layout = crate::encode::Layout { tables: shape.tables.clone(), chars: Some(5), dense: 2 };
        for &(_, step) in &windows.ahead_rows {
            batch.features.append_range(&features, step, step + 1, &layout);
        }
        batch.windows = Some(windows);
        let mut net = TrainNet::new(&shape);
        net.set(&params, 1);
        let mut worker = Worker::new(&shape, &params);
        let spec = LossSpec { total_weight: features.steps as f64, label_smoothing: 0.0, ordinal: None };
        let ShardLoss { loss, .. } = worker.run(&net, &params, &batch, &mut States::zero(&shape, 1), None, spec);
        let net = Network::new(&shape, &params);
        let (mut state, mut p) = (vec![0.0; net.state_len()], Vec::new());
        let lane = Lane { features: &features, state: &mut state, probabilities: &mut p };
        let mut lanes = [AheadLane { lane, ready: features.steps }];
        net.forward_ahead(&mut lanes, 0..usize::MAX, &mut Scratch::default());
        let mean = -p.chunks_exact(4).map(|p| (p[1] as f64).ln()).sum::<f64>() / features.steps as f64;
        assert!((mean - loss).abs() < 1e-6, "blocks of {block}, {right} ahead: {mean} running, {loss} training");
    }
}

#[test]
fn the_training_network_labels_as_the_running_one() {
    use crate::model::network::{Lane, Network, Scratch};
    let stack = vec![
        layer(Cell::Lstm, 40, Nonlinearity::Tanh),
        LayerSpec { layer_norm: true, ..layer(Cell::Gru, 33, Nonlinearity::Tanh) },
        LayerSpec { residual: true, ..layer(Cell::GruSimplified, 33, Nonlinearity::Tanh) },
        LayerSpec { residual: true, layer_norm: true, ..layer(Cell::LstmPeephole, 33, Nonlinearity::Tanh) },
    ];
    let shape = shape(stack, Some(Cell::LstmPeephole));
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let params: Params<f32> = Params::random(&shape, &mut rng);
    let mut batch = batch(&mut rng, true);
    batch.sizes = vec![1; batch.features.steps];
    batch.reset.fill(false);
    batch.targets.fill(1);
    batch.weights.fill(1.0);
    let mut net = TrainNet::new(&shape);
    net.set(&params, 1);
    let mut worker = Worker::new(&shape, &params);
    let spec = LossSpec { total_weight: batch.features.steps as f64, label_smoothing: 0.0, ordinal: None };
    let ShardLoss { loss, .. } = worker.run(&net, &params, &batch, &mut States::zero(&shape, 1), None, spec);
    let net = Network::new(&shape, &params);
    let (mut state, mut p) = (vec![0.0; net.state_len()], Vec::new());
    let lane = Lane { features: &batch.features, state: &mut state, probabilities: &mut p };
    net.forward(&mut [lane], &mut Scratch::default());
    let mean = -p.chunks_exact(4).map(|p| (p[1] as f64).ln()).sum::<f64>() / batch.features.steps as f64;
    assert!((mean - loss).abs() < 1e-6, "{mean} while running, {loss} while training");
}

/// Three streams, of which the last is the shortest; what is before them is nothing, or four steps.
fn check_pooling(pooling: Pooling, seed: u64) {
    let stack = vec![layer(Cell::Lstm, 4, Nonlinearity::Tanh), layer(Cell::Gru, 5, Nonlinearity::Tanh)];
    let shape = NetShape { pool: Some(pooling), ..shape(stack, Some(Cell::Gru)) };
    check(shape.clone(), seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut before = Vec::new();
    for _ in 0..3 {
        let mut state = vec![0.0; pooling.numbers(5)];
        let mut draw = || -> Vec<f64> { (0..5).map(|_| rng.random_range(-0.2..0.2)).collect() };
        let query = draw();
        (0..4).for_each(|_| pooling.push(&mut state, &draw(), &query));
        before.extend(state);
    }
    check_given(shape, seed + 1, before, LossSpec { label_smoothing: 0.0, ordinal: Some(0.7), ..LOSS }, None);
}

#[test]
fn gradients_through_the_last_output_are_the_finite_differences() {
    check_pooling(Pooling::Last, 6);
}

#[test]
fn gradients_through_the_mean_are_the_finite_differences() {
    check_pooling(Pooling::Mean, 7);
}

#[test]
fn gradients_through_the_maximum_are_the_finite_differences() {
    check_pooling(Pooling::Max, 8);
}

#[test]
fn gradients_through_attention_are_the_finite_differences() {
    check_pooling(Pooling::Attention, 9);
}

/// A network over six units, of which these begin clusters; each cluster has a target, and two streams begin.
fn check_language(cutoffs: &[usize], dropout: Option<(f64, f64)>, seed: u64) {
    use crate::model::adaptive::UnitSoftmax;
    let softmax = UnitSoftmax { units: 6, cutoffs: cutoffs.to_vec(), div_value: 2.0 };
    let stack = vec![layer(Cell::Lstm, 4, Nonlinearity::Tanh), layer(Cell::Gru, 5, Nonlinearity::Tanh)];
    let of = shape(stack, None);
    let shape = NetShape { classes: softmax.head(), language: Some(softmax), ..of };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut given = batch(&mut rng, false);
    given.targets = vec![0, 1, NO_TARGET, 2, 3, 4, 5, 1, NO_TARGET, 3, 5, 2, 4];
    given.weights = (0..13).map(|k| 0.5 + k as f32 * 0.1).collect();
    assert_eq!(given.targets.len(), given.features.steps + 2);
    check_batch(shape, rng, given, Vec::new(), LossSpec { label_smoothing: 0.0, ..LOSS }, dropout);
}

#[test]
fn gradients_of_a_language_model_are_the_finite_differences() {
    check_language(&[], None, 20);
    check_language(&[], Some((0.2, 0.3)), 21);
}

#[test]
fn gradients_of_an_adaptive_softmax_are_the_finite_differences() {
    check_language(&[3], None, 22);
    check_language(&[2, 4], None, 23);
    check_language(&[1, 3], Some((0.2, 0.3)), 24);
}

/// Notes of streams that are each of one of `classes` classes; two streams begin.
fn check_notes(classes: usize, dropout: Option<(f64, f64)>, seed: u64) {
    use crate::encode::Chord;
    use crate::model::notes::WrittenShape;
    let stack = vec![layer(Cell::Gru, 4, Nonlinearity::Tanh), layer(Cell::Lstm, 5, Nonlinearity::Tanh)];
    let of = shape(stack, None);
    let shape = NetShape { classes: 7, written: WrittenShape { notes: Some(60), classes }, ..of };
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut given = batch(&mut rng, false);
    if classes > 0 {
        // The last columns of a row say of which class its stream is.
        given.features.dense =
            (0..given.features.steps).flat_map(|row| [(row % 2) as f32, (1 - row % 2) as f32]).collect();
    }
    given.targets = (0..13).map(|k| if k == 1 || k == 8 { NO_TARGET } else { 0 }).collect();
    given.chords = (0..13).map(|_| Chord(u128::from(rng.random_range(0..128u8)) << 60)).collect();
    given.weights = (0..13).map(|k| 0.5 + k as f32 * 0.1).collect();
    check_batch(shape, rng, given, Vec::new(), LossSpec { label_smoothing: 0.0, ..LOSS }, dropout);
}

#[test]
fn gradients_of_notes_are_the_finite_differences() {
    check_notes(0, None, 30);
    check_notes(2, None, 31);
    check_notes(2, Some((0.2, 0.3)), 32);
}

#[test]
fn the_training_language_model_tells_units_as_the_running_one() {
    use crate::model::adaptive::{UnitScratch, UnitSoftmax};
    use crate::model::network::{Lane, Network, Scratch};
    for cutoffs in [&[][..], &[2, 4]] {
        let softmax = UnitSoftmax { units: 6, cutoffs: cutoffs.to_vec(), div_value: 2.0 };
        let of = shape(vec![layer(Cell::Lstm, 40, Nonlinearity::Tanh)], None);
        let shape = NetShape { classes: softmax.head(), language: Some(softmax), ..of };
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let params: Params<f32> = Params::random(&shape, &mut rng);
        let mut batch = batch(&mut rng, false);
        let steps = batch.features.steps;
        batch.sizes = vec![1; steps];
        batch.reset = (0..steps).map(|row| row == 0).collect();
        let units: Vec<u32> = batch.features.ids.iter().step_by(2).copied().collect();
        batch.targets = units[1..].iter().copied().chain([NO_TARGET, units[0]]).collect();
        batch.weights = vec![1.0; steps + 1];
        let mut net = TrainNet::new(&shape);
        net.set(&params, 1);
        let spec = LossSpec { total_weight: 1.0, label_smoothing: 0.0, ordinal: None };
        let mut states = States::zero(&shape, 1);
        let trained = Worker::new(&shape, &params).run(&net, &params, &batch, &mut states, None, spec);
        assert_eq!(trained.rows, steps);
        let net = Network::new(&shape, &params);
        let (mut state, mut h) = (vec![0.0; net.state_len()], Vec::new());
        let lane = Lane { features: &batch.features, state: &mut state, probabilities: &mut h };
        net.outputs_range(&mut [lane], 0..steps, &mut Scratch::default());
        let x = [net.start(0), &h[..h.len() - 40]].concat();
        let mut surprises = Vec::new();
        net.surprises(&x, &units, &mut UnitScratch::default(), &mut surprises);
        let nats: f64 = surprises.iter().map(|&nats| f64::from(nats)).sum();
        assert!((nats - trained.loss).abs() < 1e-5, "{nats} while running, {} while training", trained.loss);
    }
}

#[test]
fn gradients_of_a_crf_are_the_finite_differences() {
    let stack = vec![layer(Cell::Lstm, 4, Nonlinearity::Tanh), layer(Cell::Gru, 5, Nonlinearity::Tanh)];
    let loss = LossSpec { label_smoothing: 0.0, ..LOSS };
    let shape = NetShape { crf: true, ..shape(stack, Some(Cell::Gru)) };
    check_given(shape, 17, Vec::new(), loss, None);
}

#[test]
fn gradients_of_transcripts_are_the_finite_differences() {
    let stack = vec![layer(Cell::Lstm, 4, Nonlinearity::Tanh), layer(Cell::Gru, 5, Nonlinearity::Tanh)];
    let of = shape(stack, Some(Cell::Gru));
    for (seed, dropout) in [(30, None), (31, Some((0.2, 0.3)))] {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut batch = batch(&mut rng, true);
        batch.reset.fill(false);
        // Streams of five, four and two steps; the last cannot read as its transcript.
        batch.sizes = vec![3, 3, 2, 2, 1];
        batch.transcripts = vec![vec![1, 1, 3], vec![2], vec![3, 3]];
        batch.weights = vec![0.5, 2.0, 1.0];
        let loss = LossSpec { label_smoothing: 0.0, ..LOSS };
        check_batch(NetShape { ctc: true, ..of.clone() }, rng, batch, Vec::new(), loss, dropout);
    }
}

#[test]
fn gradients_of_transcripts_through_what_is_seen_ahead_are_the_finite_differences() {
    let both = LayerSpec { bidirectional: true, ..LayerSpec::new(Cell::Lstm, 3) };
    let shape = NetShape {
        ctc: true,
        window: Some(Window { block: 2, right: 2 }),
        ..shape(vec![both.clone(), both], Some(Cell::Gru))
    };
    let mut rng = ChaCha8Rng::seed_from_u64(32);
    let mut batch = batch(&mut rng, true);
    batch.reset.fill(false);
    batch.transcripts = vec![vec![1, 1, 3], vec![2], Vec::new()];
    look_ahead(Window { block: 2, right: 2 }, &mut batch, &mut rng);
    batch.weights = vec![0.5, 2.0, 1.0];
    check_batch(shape, rng, batch, Vec::new(), LossSpec { label_smoothing: 0.0, ..LOSS }, None);
}

/// One step alone: it reads as its symbol, or as nothing.
#[test]
fn a_transcript_of_lone_steps_is_cross_entropy() {
    let plain = shape(vec![layer(Cell::Lstm, 5, Nonlinearity::Tanh)], None);
    let ctc = NetShape { ctc: true, ..plain.clone() };
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let params: Params<f64> = Params::random(&ctc, &mut rng);
    let mut batch = batch(&mut rng, false);
    batch.sizes = vec![batch.features.steps];
    batch.reset.fill(false);
    batch.targets[2] = 0;
    batch.transcripts = batch.targets.iter().map(|&class| Vec::from_iter((class > 0).then_some(class))).collect();
    let states = States::zero(&plain, batch.features.steps);
    let asked = LossSpec { label_smoothing: 0.0, ..LOSS };
    let given = Given { states, pooled: Vec::new(), loss: asked, dropout: None };
    let [(a, of_plain), (b, of_ctc)] = [&plain, &ctc].map(|shape| loss(shape, &params, &batch, &given));
    assert!((a - b).abs() < 1e-12, "{a} {b}");
    for at in plain.tables.len()..plain.head_at() + 2 {
        let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
        assert!(of_plain.grads.slice(at).iter().zip(of_ctc.grads.slice(at)).all(near), "{}", params.name(at));
    }
}

/// One step alone, with neither start nor end: the CRF is a softmax.
#[test]
fn a_crf_over_lone_steps_is_cross_entropy() {
    let plain = shape(vec![layer(Cell::Lstm, 5, Nonlinearity::Tanh)], None);
    let crf = NetShape { crf: true, ..plain.clone() };
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let params: Params<f64> = Params::random(&crf, &mut rng);
    let mut batch = batch(&mut rng, false);
    batch.sizes = vec![batch.features.steps];
    batch.reset.fill(false);
    let states = States::zero(&plain, batch.features.steps);
    let asked = LossSpec { label_smoothing: 0.0, ..LOSS };
    let given = Given { states, pooled: Vec::new(), loss: asked, dropout: None };
    let [(a, of_plain), (b, of_crf)] = [&plain, &crf].map(|shape| loss(shape, &params, &batch, &given));
    assert!((a - b).abs() < 1e-12, "{a} {b}");
    for at in plain.tables.len()..plain.head_at() + 2 {
        let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12;
        assert!(of_plain.grads.slice(at).iter().zip(of_crf.grads.slice(at)).all(near), "{}", params.name(at));
    }
}
