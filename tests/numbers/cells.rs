//! Every cell with every option against PyTorch, forwards and backwards: golden values made by
//! `tests/reference/torch_cells.py`. And what a model's layers may not be.

use safetensors::SafeTensors;
use std::path::Path;
use strand::model::testing::{TEXT, layers, random_model, words_spec};
use strand::model::{Model, ModelSpec};
use strand::rnn::bptt::{BackScratch, LayerGrads, Tape, TrainLayer};
use strand::rnn::layer::{Layer, LayerScratch, LayerWeights};
use strand::rnn::real::Real;
use strand::rnn::{Cell, LayerSpec, Nonlinearity};

const HIDDEN: usize = 4;
const CELLS: [(&str, Cell, Nonlinearity); 6] = [
    ("lstm", Cell::Lstm, Nonlinearity::Tanh),
    ("lstm_peephole", Cell::LstmPeephole, Nonlinearity::Tanh),
    ("gru", Cell::Gru, Nonlinearity::Tanh),
    ("gru_simplified", Cell::GruSimplified, Nonlinearity::Tanh),
    ("tanh", Cell::Rnn, Nonlinearity::Tanh),
    ("relu", Cell::Rnn, Nonlinearity::Relu),
];
const OPTIONS: [(&str, bool, bool); 4] =
    [("plain", false, false), ("residual", true, false), ("norm", false, true), ("both", true, true)];

/// Runs `test` with the name and the two equal layers of each case.
fn with_cases(test: impl Fn(&Case<'_>, &LayerSpec)) {
    let bytes = std::fs::read("tests/golden/cell_options.safetensors").unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let lengths = file.tensor("lengths").unwrap();
    let lengths: Vec<i32> = lengths.data().as_chunks().0.iter().map(|&b| i32::from_le_bytes(b)).collect();
    let sizes: Vec<usize> = (0..lengths[0]).map(|t| lengths.iter().filter(|&&l| l > t).count()).collect();
    for (cell_name, cell, nonlinearity) in CELLS {
        for (options, residual, layer_norm) in OPTIONS {
            let spec = LayerSpec { nonlinearity, residual, layer_norm, ..LayerSpec::new(cell, HIDDEN) };
            let name = format!("{cell_name}.{options}");
            test(&Case { file: &file, name, streams: lengths.len(), sizes: sizes.clone() }, &spec);
        }
    }
}

struct Case<'a> {
    file: &'a SafeTensors<'a>,
    name: String,
    streams: usize,
    sizes: Vec<usize>,
}

impl Case<'_> {
    fn get<T: Real>(&self, what: &str) -> Vec<T> {
        let tensor = self.file.tensor(&format!("{}/{what}", self.name)).unwrap_or_else(|e| panic!("{what}: {e}"));
        tensor.data().as_chunks().0.iter().map(|&b| T::of(f32::from_le_bytes(b).into())).collect()
    }

    /// The tensors of layer `k`, those that the cell has not being empty.
    fn weights<T: Real>(&self, spec: &LayerSpec, k: usize) -> [Vec<T>; 7] {
        let names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "peephole", "norm.weight", "norm.bias"];
        names.map(|name| match name {
            "peephole" if spec.cell != Cell::LstmPeephole => Vec::new(),
            "norm.weight" | "norm.bias" if !spec.layer_norm => Vec::new(),
            _ => self.get(&format!("{name}_l{k}")),
        })
    }

    /// h (`what` = h0, hn) or c of layer `k`; none for cells without c.
    fn state<T: Real>(&self, spec: &LayerSpec, what: &str, k: usize) -> Vec<T> {
        if what.starts_with('c') && !spec.cell.has_c() {
            return Vec::new();
        }
        self.get(what)[k * self.streams * HIDDEN..(k + 1) * self.streams * HIDDEN].to_vec()
    }

    fn assert_close<T: Real>(&self, got: &[T], what: &str, want: &[T]) {
        // The golden values were computed in f64 and rounded to f32.
        let tolerance = if size_of::<T>() == 8 { 1e-7 } else { 5e-5 };
        assert_eq!(got.len(), want.len(), "{} {what}", self.name);
        for (k, (g, w)) in got.iter().zip(want).enumerate() {
            let (g, w) = (g.f64(), w.f64());
            assert!((g - w).abs() <= tolerance * w.abs().max(1.0), "{} {what}, number {k}: {g}, not {w}", self.name);
        }
    }
}

fn weights<'a, T>(spec: &LayerSpec, all: &'a [Vec<T>; 7]) -> LayerWeights<'a, T> {
    let [w_ih, w_hh, b_ih, b_hh, peephole, weight, bias] = all.each_ref().map(|v| &v[..]);
    LayerWeights { w_ih, w_hh, b_ih, b_hh, peephole, norm: spec.layer_norm.then_some([weight, bias]) }
}

#[test]
fn layers_give_pytorchs_outputs_and_states() {
    with_cases(|case, spec| {
        let mut x: Vec<f32> = case.get("x");
        for k in 0..2 {
            let all = case.weights(spec, k);
            let layer = Layer::new(spec, HIDDEN, weights(spec, &all));
            let (mut h, mut c, mut y) = (case.state(spec, "h0", k), case.state(spec, "c0", k), Vec::new());
            layer.forward(&x, &case.sizes, &mut h, &mut c, &mut y, &mut LayerScratch::default());
            case.assert_close(&h, "hn", &case.state(spec, "hn", k));
            case.assert_close(&c, "cn", &case.state(spec, "cn", k));
            x = y;
        }
        case.assert_close(&x, "y", &case.get("y"));
    });
}

fn gradients_are_pytorchs<T: Real>() {
    with_cases(|case, spec| {
        let mut xs: Vec<Vec<T>> = vec![case.get("x")];
        let mut layers = Vec::new();
        for k in 0..2 {
            let all = case.weights(spec, k);
            let (mut layer, mut tape, mut y) = (TrainLayer::new(spec, HIDDEN), Tape::default(), Vec::new());
            layer.set(weights(spec, &all));
            let (mut h, mut c) = (case.state(spec, "h0", k), case.state(spec, "c0", k));
            layer.forward(&xs[k], &case.sizes, None, &mut h, &mut c, &mut tape);
            layer.output(&tape, &xs[k], &mut y);
            xs.push(y);
            layers.push((layer, tape, all.map(|w| vec![T::zero(); w.len()])));
        }
        case.assert_close(&xs[2], "y", &case.get("y"));
        let (mut dy, mut scratch) = (case.get::<T>("dy"), BackScratch::default());
        for (k, (layer, tape, grads)) in layers.iter_mut().enumerate().rev() {
            let (past, mut dx) = (dy.clone(), Vec::new());
            let [w_ih, w_hh, b_ih, b_hh, peephole, weight, bias] = grads.each_mut().map(|v| &mut v[..]);
            let norm = spec.layer_norm.then_some([weight, bias]);
            let into = LayerGrads { w_ih, w_hh, b_ih, b_hh, peephole, norm };
            layer.backward(&xs[k], &case.sizes, None, tape, &mut dy, Some(&mut dx), into, &mut scratch);
            if spec.residual {
                dx.iter_mut().zip(&past).for_each(|(d, &p)| *d += p);
            }
            dy = dx;
        }
        case.assert_close(&dy, "gradient of x", &case.get("d/x"));
        let names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "peephole", "norm.weight", "norm.bias"];
        for (k, (_, _, grads)) in layers.iter().enumerate() {
            for (name, grad) in names.iter().zip(grads).filter(|(_, grad)| !grad.is_empty()) {
                case.assert_close(grad, name, &case.get(&format!("d/{name}_l{k}")));
            }
        }
    });
}

#[test]
fn gradients_are_pytorchs_in_f32() {
    gradients_are_pytorchs::<f32>();
}

#[test]
fn gradients_are_pytorchs_in_f64() {
    gradients_are_pytorchs::<f64>();
}

/// A model of these layers, loaded from its directory after `change` of its `model.toml`.
fn load(layers: Vec<LayerSpec>, change: impl Fn(String) -> String) -> Result<Model, String> {
    let dir = tempfile::tempdir().unwrap();
    random_model(dir.path(), &words_spec("w", layers), TEXT, 5).unwrap();
    let path = dir.path().join("model.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let text: String = text.split_inclusive('\n').filter(|line| !line.starts_with("fingerprint")).collect();
    std::fs::write(&path, change(text)).unwrap();
    Model::load(dir.path()).map_err(|e| e.to_string().replace(&dir.path().display().to_string(), ""))
}

#[test]
fn options_are_kept_with_the_model_and_part_of_its_fingerprint() {
    let plain = || layers(&[Cell::LstmPeephole, Cell::GruSimplified], 6);
    let mut stack = plain();
    (stack[0].layer_norm, stack[1].residual) = (true, true);
    let model = load(stack.clone(), |text| text).unwrap();
    assert_eq!(model.spec().layers, stack);
    let fingerprint = |layers: Vec<LayerSpec>| load(layers, |text| text).unwrap().fingerprint().to_string();
    stack[0].layer_norm = false;
    assert_ne!(
        fingerprint(stack),
        fingerprint(plain()),
        "a residual layer has no weights of its own, but other labels"
    );
}

#[test]
fn layers_without_options_are_written_as_before_there_were_any() {
    let toml = toml::to_string(&words_spec("w", layers(&[Cell::Lstm], 6)).layers[0]).unwrap();
    assert_eq!(toml, "cell = \"lstm\"\nhidden = 6\n");
    let read: LayerSpec = toml::from_str("cell = \"rnn\"\nhidden = 3\nnonlinearity = \"relu\"\n").unwrap();
    assert_eq!(read, LayerSpec { nonlinearity: Nonlinearity::Relu, ..LayerSpec::new(Cell::Rnn, 3) });
}

#[test]
fn what_a_layer_cannot_be_is_said() {
    let stack = || layers(&[Cell::Lstm, Cell::Gru], 6);
    let error = |from: &str, to: &str| {
        let (from, to) = (format!("[[layers]]\n{from}"), format!("[[layers]]\n{to}"));
        load(stack(), |text| text.replacen(&from, &to, 1)).unwrap_err()
    };
    assert_eq!(
        error("cell = \"lstm\"\n", "cell = \"lstm\"\nresidual = true\n"),
        "/model.toml: layer 0: residual = true adds the layer's input to its output, so both must be as wide: its input \
         has 28 numbers, hidden = 6"
    );
    let lone = load(layers(&[Cell::Lstm], 1), |text| text.replace("hidden = 1\n", "hidden = 1\nlayer_norm = true\n"));
    assert_eq!(
        lone.unwrap_err(),
        "/model.toml: layer 0: layer_norm = true with hidden = 1: a lone number is always its own mean"
    );
    let missing = error("cell = \"lstm\"\n", "cell = \"lstm\"\nlayer_norm = true\n");
    assert!(missing.contains("tensor rnn.norm_l0.weight is missing"), "{missing}");
    let missing = error("cell = \"lstm\"", "cell = \"lstm_peephole\"");
    assert!(missing.contains("tensor rnn.peephole_l0 is missing"), "{missing}");
    let unknown = error("cell = \"lstm\"\n", "cell = \"lstm\"\nresidua = true\n");
    assert!(unknown.contains("unknown field `residua`") && unknown.contains("`residual`, `layer_norm`"), "{unknown}");
    let unknown = error("cell = \"lstm\"", "cell = \"lstm_peephol\"");
    assert!(unknown.contains("`lstm_peephole`") && unknown.contains("`gru_simplified`"), "{unknown}");
    let extra = load(layers(&[Cell::LstmPeephole], 6), |text| text.replace("lstm_peephole", "lstm")).unwrap_err();
    assert!(extra.contains("tensor rnn.peephole_l0 belongs to no part of the network"), "{extra}");
}

#[test]
fn the_character_encoder_may_be_of_any_cell() {
    for (name, cell, _) in CELLS.into_iter().take(4) {
        let mut spec: ModelSpec = words_spec("w", layers(&[Cell::Rnn], 5));
        let strand::encode::EncoderSpec::Words(words) = &mut spec.encoder else { panic!("words_spec is of words") };
        words.char_cell = cell;
        let dir = tempfile::tempdir().unwrap();
        random_model(dir.path(), &spec, TEXT, 5).unwrap();
        let model = Model::load(dir.path()).unwrap();
        assert_eq!(model.spec().encoder, spec.encoder, "{name}");
        let weights = std::fs::read(Path::new(dir.path()).join("weights.safetensors")).unwrap();
        let weights = SafeTensors::deserialize(&weights).unwrap();
        assert_eq!(weights.tensor("chars.bwd.peephole_l0").is_ok(), cell == Cell::LstmPeephole);
    }
}
