//! Steps of notes against PyTorch: golden values made by `tests/reference/torch_notes.py`.

use rand::SeedableRng;
use safetensors::SafeTensors;
use strand::encode::{Chord, Features};
use strand::model::network::{Lane, Network, Scratch};
use strand::model::notes::WrittenShape;
use strand::model::params::{NetShape, Params};
use strand::rnn::{Cell, LayerSpec};
use strand::train::network::{LossSpec, NO_TARGET, States, TrainBatch, TrainNet, Worker};

const PITCHES: usize = 12;
const CLASSES: usize = 3;
const STREAMS: usize = 5;
const STEPS: usize = 9;
const LOWEST: u8 = 60;

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn loss_and_gradients_of_notes_are_pytorchs() {
    let bytes = std::fs::read("tests/golden/notes.safetensors").unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let shape = NetShape {
        dense: PITCHES + CLASSES,
        layers: vec![LayerSpec::new(Cell::Gru, 10), LayerSpec::new(Cell::Lstm, 8)],
        classes: PITCHES,
        written: WrittenShape { notes: Some(LOWEST), classes: CLASSES },
        ..NetShape::default()
    };
    let mut params = Params::<f32>::random(&shape, &mut rand_chacha::ChaCha8Rng::seed_from_u64(0));
    for at in 0..params.len() {
        let numbers = floats(&file, params.name(at));
        params.slice_mut(at).copy_from_slice(&numbers);
    }
    let x = floats(&file, "x");
    let rows = STEPS * STREAMS;
    let chord = |row: usize| Chord::of_columns(&x[row * (PITCHES + CLASSES)..][..PITCHES], LOWEST);
    let next = |row: usize| if row + STREAMS < rows { chord(row + STREAMS) } else { Chord::default() };
    let batch = TrainBatch {
        features: Features { steps: rows, dense: x.clone(), ..Features::default() },
        sizes: vec![STREAMS; STEPS],
        reset: (0..rows).map(|row| row < STREAMS).collect(),
        targets: (0..rows + STREAMS).map(|k| if (rows - STREAMS..rows).contains(&k) { NO_TARGET } else { 0 }).collect(),
        weights: vec![1.0; rows + STREAMS],
        chords: (0..rows).map(next).chain((0..STREAMS).map(chord)).collect(),
        ..TrainBatch::default()
    };
    let mut net = TrainNet::new(&shape);
    net.set(&params, 1);
    let loss = LossSpec { total_weight: rows as f64, label_smoothing: 0.0, ordinal: None };
    let mut worker = Worker::new(&shape, &params);
    let result = worker.run(&net, &params, &batch, &mut States::zero(&shape, STREAMS), None, loss);
    let wanted = f64::from(floats(&file, "loss")[0]);
    assert!((result.loss - wanted).abs() < 1e-5, "loss {}, PyTorch has {wanted}", result.loss);
    for at in 0..params.len() {
        let name = params.name(at);
        for (got, want) in worker.grads.slice(at).iter().zip(floats(&file, &format!("grad/{name}"))) {
            assert!((got - want).abs() < 1e-5, "{name}: gradient {got}, PyTorch has {want}");
        }
    }

    // The network at work is as surprised.
    let net = Network::new(&shape, &params);
    let mut nats = 0.0;
    for stream in 0..STREAMS {
        let of = |step: usize| step * STREAMS + stream;
        let columns = (0..STEPS).flat_map(|step| &x[of(step) * (PITCHES + CLASSES)..][..PITCHES + CLASSES]);
        let features = Features { steps: STEPS, dense: columns.copied().collect(), ..Features::default() };
        let (mut state, mut h) = (vec![0.0; net.state_len()], Vec::new());
        let lane = Lane { features: &features, state: &mut state, probabilities: &mut h };
        net.outputs_range(&mut [lane], 0..STEPS, &mut Scratch::default());
        let told = [net.start(stream % CLASSES), &h[..h.len() - 8]].concat();
        let (chords, mut surprises) = ((0..STEPS).map(|step| chord(of(step))).collect::<Vec<_>>(), Vec::new());
        net.surprises_of_chords(&told, &chords, LOWEST, &mut surprises);
        nats += surprises.iter().map(|&nats| f64::from(nats)).sum::<f64>();
    }
    assert!((nats / rows as f64 - wanted).abs() < 1e-5, "{nats} in all");
}
