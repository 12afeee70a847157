//! Language models against PyTorch: golden values made by `tests/reference/torch_language.py`.

use rand::SeedableRng;
use safetensors::SafeTensors;
use strand::encode::{Features, TableShape};
use strand::model::adaptive::{UnitScratch, UnitSoftmax};
use strand::model::network::Network;
use strand::model::params::{NetShape, Params};
use strand::rnn::{Cell, LayerSpec};
use strand::train::network::{LossSpec, States, TrainBatch, TrainNet, Worker};
use strand::train::optimizer::{Optimizer, OptimizerSpec, Rule};

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn units(file: &SafeTensors<'_>, name: &str) -> Vec<u32> {
    let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    tensor.data().chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn shape(units: usize, cutoffs: &[usize], layers: Vec<LayerSpec>, dim: usize) -> NetShape {
    let softmax = UnitSoftmax { units, cutoffs: cutoffs.to_vec(), div_value: 2.0 };
    NetShape {
        tables: vec![TableShape { name: "event", rows: units, dim }],
        layers,
        classes: softmax.head(),
        language: Some(softmax),
        ..NetShape::default()
    }
}

fn params(shape: &NetShape) -> Params<f32> {
    Params::random(shape, &mut rand_chacha::ChaCha8Rng::seed_from_u64(0))
}

#[test]
fn the_adaptive_softmax_gives_pytorchs_probabilities() {
    let bytes = std::fs::read("tests/golden/language.safetensors").unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let shape = shape(30, &[5, 12, 20], vec![LayerSpec::new(Cell::Gru, 12)], 3);
    let mut params = params(&shape);
    for at in shape.head_at()..params.len() {
        let name = format!("adaptive/{}", params.name(at));
        if at != shape.start_at() {
            params.slice_mut(at).copy_from_slice(&floats(&file, &name));
        }
    }
    let network = Network::new(&shape, &params);
    let (x, wanted, all) = (floats(&file, "adaptive/x"), floats(&file, "adaptive/told"), floats(&file, "adaptive/all"));
    for (x, wanted) in x.chunks_exact(12).zip(all.chunks_exact(30)) {
        for (got, want) in network.log_probabilities(x).iter().zip(wanted) {
            assert!((got - f64::from(*want)).abs() < 1e-5, "{got}, PyTorch has {want}");
        }
    }
    let mut surprises = Vec::new();
    network.surprises(&x, &units(&file, "adaptive/units"), &mut UnitScratch::default(), &mut surprises);
    assert_eq!(surprises.len(), wanted.len());
    for (got, want) in surprises.iter().zip(&wanted) {
        assert!((got + want).abs() < 1e-5, "{got}, PyTorch has {want}");
    }
}

#[test]
fn a_language_model_follows_pytorchs_loss_for_60_steps() {
    let bytes = std::fs::read("tests/golden/language.safetensors").unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, cutoffs) in [("full", &[][..]), ("tails", &[4, 9])] {
        let shape = shape(20, cutoffs, vec![LayerSpec::new(Cell::Lstm, 10), LayerSpec::new(Cell::Gru, 8)], 6);
        let mut params = params(&shape);
        for at in 0..params.len() {
            let tensor = format!("{name}/{}", params.name(at));
            params.slice_mut(at).copy_from_slice(&floats(&file, &tensor));
        }
        let stream = units(&file, &format!("{name}/units"));
        let [losses, norms] = ["losses", "norms"].map(|what| floats(&file, &format!("{name}/{what}")));
        let (streams, steps) = (8, 10);
        let spec = OptimizerSpec {
            rule: Rule::Adam,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            momentum: 0.0,
            clip_norm: Some(0.5),
            clip_value: None,
            ema: 0.0,
        };
        let (mut optimizer, mut net) = (Optimizer::new(spec, &params), TrainNet::new(&shape));
        let mut workers = [Worker::new(&shape, &params)];
        let mut states = States::zero(&shape, streams);
        for step in 0..60 {
            let (x, y) = (&stream[step * 80..][..80], &stream[step * 80 + 8..][..80]);
            let begins = if step % 5 == 0 { 2 } else { 0 };
            let batch = TrainBatch {
                features: Features { steps: 80, ids: x.to_vec(), ..Features::default() },
                sizes: vec![streams; steps],
                reset: (0..80).map(|row| row < begins).collect(),
                targets: [y, &x[..begins]].concat(),
                weights: vec![1.0; 80 + begins],
                ..TrainBatch::default()
            };
            net.set(&params, 1);
            let loss = LossSpec { total_weight: (80 + begins) as f64, label_smoothing: 0.0, ordinal: None };
            let result = workers[0].run(&net, &params, &batch, &mut states, None, loss);
            let report = optimizer.step(&shape, &workers, &mut params, 0.02, 1);
            let (want, norm) = (f64::from(losses[step]), f64::from(norms[step]));
            assert!((result.loss - want).abs() < 2e-4, "{name} {step}: loss {}, PyTorch has {want}", result.loss);
            assert!((report.norm - norm).abs() < 2e-3 * norm.max(0.1), "{name} {step}: {} and {norm}", report.norm);
        }
        assert!(losses[59] < losses[0] * 0.85, "the problem is learnt at all");
    }
}
