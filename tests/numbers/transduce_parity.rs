//! Encoder–decoders against PyTorch (golden values made by `tests/reference/torch_transduce.py`) and finite differences,
//! and the search against all translations there are.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use safetensors::SafeTensors;
use strand::encode::units::END;
use strand::model::Attention;
use strand::model::params::Params;
use strand::model::transduce::TransduceShape;
use strand::model::transduce::net::{Row, Transducer};
use strand::model::transduce::search::{Search, best};
use strand::rnn::real::Real;
use strand::rnn::{Cell, LayerSpec};
use strand::train::transduce::batch::{Pair, PairBatch};
use strand::train::transduce::net::TrainTransducer;
use strand::train::transduce::worker::{PairLoss, PairWorker};

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let tensor = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

fn layers(cell: Cell, count: usize, hidden: usize, bidirectional: bool) -> Vec<LayerSpec> {
    vec![LayerSpec { bidirectional, ..LayerSpec::new(cell, hidden) }; count]
}

fn shape(cell: Cell, count: usize, bidirectional: bool, attention: Attention) -> TransduceShape {
    TransduceShape {
        source: (9, 4),
        encoder: layers(cell, count, 7, bidirectional),
        target: (8, 3),
        decoder: layers(cell, count, 7, false),
        attention,
        inner: 6,
        readout: 5,
    }
}

fn pairs() -> Vec<Pair> {
    let of = |source: &[u32], target: &[u32]| Pair { source: source.to_vec(), target: target.to_vec() };
    vec![
        of(&[2, 5, 3, 8], &[4, 2, 6]),
        of(&[7, 0], &[3, 3, 5, 7, 2, 0]),
        of(&[6, 6, 4, 2, 3, 5, 8], &[7]),
        of(&[3], &[]),
    ]
}

fn batch(pairs: &[Pair]) -> PairBatch {
    let mut batch = PairBatch::default();
    batch.gather(&pairs.iter().collect::<Vec<_>>());
    batch
}

/// Loss and gradients.
fn run<T: Real>(shape: &TransduceShape, params: &Params<T>, pairs: &[Pair], label_smoothing: f64) -> (f64, Params<T>) {
    let mut net = TrainTransducer::new(shape);
    net.set(params, 1);
    let mut worker = PairWorker::new(&net, params);
    let total = pairs.iter().map(|pair| pair.target.len() + 1).sum::<usize>() as f64;
    let result = worker.run(&net, params, &batch(pairs), None, PairLoss { total, label_smoothing });
    assert_eq!(result.rows as f64, total);
    (result.loss, worker.grads)
}

fn against_pytorch<T: Real>(tolerance: f64) -> usize {
    let bytes = std::fs::read("tests/golden/transduce.safetensors").unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut compared = 0;
    for (name, shape) in [
        ("none", shape(Cell::Lstm, 1, false, Attention::None)),
        ("luong", shape(Cell::Gru, 2, true, Attention::Luong)),
        ("bahdanau", shape(Cell::Lstm, 2, true, Attention::Bahdanau)),
    ] {
        let mut params: Params<T> = shape.random(&mut ChaCha8Rng::seed_from_u64(0));
        let own = file.names().iter().filter(|key| key.starts_with(&format!("{name}/param/"))).count();
        assert_eq!(own, params.len(), "{name} has the tensors that PyTorch has");
        for at in 0..params.len() {
            let values = floats(&file, &format!("{name}/param/{}", params.name(at)));
            params.slice_mut(at).iter_mut().zip(&values).for_each(|(to, &x)| *to = T::of(x));
        }
        for smoothing in ["0.0", "0.1"] {
            let (loss, grads) = run(&shape, &params, &pairs(), smoothing.parse().unwrap());
            let wanted = floats(&file, &format!("{name}/loss/{smoothing}"))[0];
            assert!((loss - wanted).abs() < tolerance, "{name}: loss {loss}, PyTorch's {wanted}");
            for at in 0..grads.len() {
                let wanted = floats(&file, &format!("{name}/grad/{smoothing}/{}", grads.name(at)));
                assert_eq!(wanted.len(), grads.slice(at).len());
                for (k, (own, wanted)) in grads.slice(at).iter().zip(&wanted).enumerate() {
                    let off = (own.f64() - wanted).abs();
                    assert!(off < tolerance, "{name} {} [{k}]: {own}, PyTorch's {wanted}", grads.name(at));
                }
                compared += wanted.len();
            }
        }
    }
    compared
}

#[test]
fn loss_and_all_gradients_are_pytorchs() {
    assert!(against_pytorch::<f32>(1e-5) > 10_000);
    against_pytorch::<f64>(1e-10);
}

#[test]
fn gradients_are_those_of_finite_differences_for_any_cells_and_options() {
    let options = |layers: Vec<LayerSpec>| -> Vec<LayerSpec> {
        let last = layers.len() - 1;
        let option = |(k, l): (usize, LayerSpec)| LayerSpec { layer_norm: k == last, residual: k > 0, ..l };
        layers.into_iter().enumerate().map(option).collect()
    };
    let cells = [(Cell::GruSimplified, Cell::LstmPeephole), (Cell::Rnn, Cell::Gru), (Cell::Lstm, Cell::GruSimplified)];
    for attention in [Attention::None, Attention::Luong, Attention::Bahdanau] {
        for (encoder, decoder) in cells {
            let shape = TransduceShape {
                encoder: options(layers(encoder, 2, 4, true)),
                decoder: options(layers(decoder, 2, 5, false)),
                ..shape(Cell::Gru, 1, true, attention)
            };
            shape.check().unwrap();
            let mut params: Params<f64> = shape.random(&mut ChaCha8Rng::seed_from_u64(3));
            params.slices_mut().flatten().for_each(|x| *x *= 1.5);
            let (_, grads) = run(&shape, &params, &pairs(), 0.1);
            for at in 0..params.len() {
                let numbers = params.slice(at).len();
                for k in (0..numbers).step_by(1 + numbers / 7) {
                    let old = params.slice(at)[k];
                    let mut loss_at = |x: f64| {
                        params.slice_mut(at)[k] = x;
                        run(&shape, &params, &pairs(), 0.1).0
                    };
                    let wanted = (loss_at(old + 1e-5) - loss_at(old - 1e-5)) / 2e-5;
                    loss_at(old);
                    let own = grads.slice(at)[k];
                    let name = params.name(at);
                    assert!((own - wanted).abs() < 1e-7, "{attention:?} {encoder:?} {name} [{k}]: {own}, {wanted}");
                }
            }
        }
    }
}

fn random_net(attention: Attention, seed: u64) -> Transducer {
    let shape = TransduceShape {
        target: (5, 3),
        encoder: layers(Cell::Gru, 1, 6, true),
        decoder: layers(Cell::Lstm, 2, 6, false),
        ..shape(Cell::Gru, 1, true, attention)
    };
    let mut params: Params<f32> = shape.random(&mut ChaCha8Rng::seed_from_u64(seed));
    params.slices_mut().flatten().for_each(|x| *x *= 3.0);
    Transducer::new(&shape, &params)
}

/// ln P of a translation, its end included.
fn log_probability(net: &Transducer, source: &[u32], target: &[u32]) -> f64 {
    let read = &net.read(&[source.to_vec()])[0];
    let (mut state, mut p, mut sum) = (read.state.clone(), Vec::new(), 0.0);
    let mut unit = END;
    for &next in target.iter().chain([&END]) {
        net.step(&mut [Row { read, unit, state: &mut state, looked_at: 0 }], &mut p);
        sum += f64::from(p[next as usize]).ln();
        unit = next;
    }
    sum
}

#[test]
fn a_wide_beam_finds_the_best_of_all_translations() {
    for attention in [Attention::None, Attention::Luong, Attention::Bahdanau] {
        for seed in 0..6 {
            let net = random_net(attention, seed);
            let source = vec![2, 7, 3, END];
            for length_penalty in [0.0, 0.7, 2.0] {
                let search = Search { beam: 200, length_penalty, max_length: 4 };
                // Every translation of up to four units of three kinds (2, 3 and 4; the unknown one is not written).
                let mut all: Vec<Vec<u32>> = vec![vec![]];
                let mut longest = all.clone();
                for _ in 0..4 {
                    longest = longest.iter().flat_map(|t| (2..5).map(move |u| [&t[..], &[u]].concat())).collect();
                    all.extend(longest.iter().cloned());
                }
                let worth = |t: &Vec<u32>| {
                    log_probability(&net, &source, t) / ((6.0 + t.len() as f64) / 6.0).powf(length_penalty)
                };
                let wanted = all.iter().max_by(|a, b| worth(a).total_cmp(&worth(b))).unwrap();
                let found = &best(&net, std::slice::from_ref(&source), search, false)[0];
                let units: Vec<u32> = found.units.iter().map(|(unit, _)| *unit).collect();
                assert_eq!(&units, wanted, "{attention:?}, seed {seed}, penalty {length_penalty}");
                assert!((found.log_probability - log_probability(&net, &source, wanted)).abs() < 1e-6);
                // A narrow one finds nothing better, and a beam of one is the greedy way.
                for beam in [1, 2, 5] {
                    let found = &best(&net, std::slice::from_ref(&source), Search { beam, ..search }, false)[0];
                    let own: Vec<u32> = found.units.iter().map(|(unit, _)| *unit).collect();
                    assert!(worth(&own) <= worth(wanted) + 1e-9);
                }
            }
        }
    }
}

#[test]
fn translations_do_not_depend_on_company() {
    for attention in [Attention::None, Attention::Luong, Attention::Bahdanau] {
        let net = random_net(attention, 7);
        let sources: Vec<Vec<u32>> =
            (0..9).map(|k| (0..k * 3 % 8).map(|j| 2 + (j * k) as u32 % 6).chain([END]).collect()).collect();
        for beam in [1, 3] {
            let search = Search { beam, length_penalty: 0.6, max_length: 9 };
            let together = best(&net, &sources, search, true);
            let alone: Vec<_> =
                sources.iter().map(|s| best(&net, std::slice::from_ref(s), search, true).remove(0)).collect();
            assert_eq!(together, alone, "{attention:?}, to the bit");
            let back: Vec<Vec<u32>> = sources.iter().rev().cloned().collect();
            let mut turned = best(&net, &back, search, true);
            turned.reverse();
            assert_eq!(turned, alone);
        }
    }
}
