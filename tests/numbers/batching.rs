//! Whatever a stream is batched with, however its input is cut and on however many threads: the labels, scores and
//! states are the same, bit for bit.

use proptest::prelude::*;
use std::sync::Arc;
use strand::encode::InputFormat;
use strand::model::testing::{TEXT, dna_spec, layers, random_model, words_spec};
use strand::model::{LookAhead, Model, ModelSpec, Output, Session, Stepper};
use strand::rnn::{Cell, LayerSpec, Nonlinearity};

fn cell() -> impl Strategy<Value = LayerSpec> {
    let kinds = [
        (Cell::Lstm, Nonlinearity::Tanh),
        (Cell::Gru, Nonlinearity::Tanh),
        (Cell::Rnn, Nonlinearity::Tanh),
        (Cell::Rnn, Nonlinearity::Relu),
        (Cell::GruSimplified, Nonlinearity::Tanh),
        (Cell::LstmPeephole, Nonlinearity::Tanh),
    ];
    (0..kinds.len(), 2usize..70, prop::bool::ANY).prop_map(move |(kind, hidden, layer_norm)| LayerSpec {
        nonlinearity: kinds[kind].1,
        layer_norm,
        ..LayerSpec::new(kinds[kind].0, hidden)
    })
}

/// The same layers, some of which read both ways, with their look-ahead: up to six steps, or to the end.
fn ahead(spec: ModelSpec, steps: usize, block: usize, both: u8) -> ModelSpec {
    let mut below: Option<usize> = None;
    let mut layers = spec.layers.clone();
    for (k, layer) in layers.iter_mut().enumerate() {
        layer.bidirectional = k == 0 || both >> k & 1 == 1;
        layer.residual &= below == Some(layer.output());
        below = Some(layer.output());
    }
    let look_ahead = (steps < 7).then_some(LookAhead { steps, block: Some(block.min(steps + 1)) });
    ModelSpec { layers, look_ahead, ..spec }
}

/// Layers upon each other; of those that are as wide as the one below, by `residual`, some are residual.
fn stack(most: usize) -> impl Strategy<Value = Vec<LayerSpec>> {
    let layers = prop::collection::vec((cell(), prop::bool::ANY, prop::bool::ANY), 1..most);
    layers.prop_map(|layers| {
        let mut stack: Vec<LayerSpec> = Vec::new();
        for (mut layer, as_wide, residual) in layers {
            if let Some(below) = stack.last().filter(|_| as_wide) {
                layer.hidden = below.hidden;
                layer.residual = residual;
            }
            stack.push(layer);
        }
        stack
    })
}

/// Labels with the scores' bits, and the state after the last.
type Result_ = (Vec<(u64, u64, String, usize, u32)>, Vec<u8>);

fn result(model: &Model, session: &Session, output: &Output) -> Result_ {
    let mut state = Vec::new();
    session.encode(model, &mut state);
    let labels = output.labels.iter();
    (labels.map(|l| (l.start, l.end, l.text.clone(), l.label, l.score.to_bits())).collect(), state)
}

/// One stream alone, all at once.
fn alone(model: &Arc<Model>, format: InputFormat, input: &[u8]) -> Result_ {
    let (mut session, mut output) = (Session::new(model), Output::default());
    session.push(model, format, input).unwrap();
    session.finish_unit(model).unwrap();
    Stepper::new(model.clone()).step(&mut [&mut session], std::slice::from_mut(&mut output));
    result(model, &session, &output)
}

/// All streams, fed piece by piece in rounds: in each round every stream that has input left gets a piece; the streams
/// are spread over two threads.
fn together(model: &Arc<Model>, format: InputFormat, inputs: &[Vec<u8>], cuts: &[usize]) -> Vec<Result_> {
    let half = inputs.len().div_ceil(2);
    std::thread::scope(|scope| {
        let threads: Vec<_> = inputs
            .chunks(half)
            .map(|inputs| {
                scope.spawn(move || {
                    let mut stepper = Stepper::new(model.clone());
                    let mut sessions: Vec<Session> = inputs.iter().map(|_| Session::new(model)).collect();
                    let mut outputs = vec![Output::default(); inputs.len()];
                    let (mut at, mut round) = (vec![0; inputs.len()], 0);
                    while at.iter().zip(inputs).any(|(&at, input)| at < input.len()) {
                        for (k, (session, input)) in sessions.iter_mut().zip(inputs).enumerate() {
                            let piece = cuts[(round + 7 * k) % cuts.len()].min(input.len() - at[k]);
                            session.push(model, format, &input[at[k]..at[k] + piece]).unwrap();
                            at[k] += piece;
                            if at[k] == input.len() {
                                session.finish_unit(model).unwrap();
                            }
                        }
                        let mut all: Vec<&mut Session> = sessions.iter_mut().collect();
                        stepper.step(&mut all, &mut outputs);
                        round += 1;
                    }
                    sessions.iter().zip(&outputs).map(|(s, o)| result(model, s, o)).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn words_are_labelled_the_same_alone_and_in_any_company(
        stack in stack(4),
        starts in prop::collection::vec((0usize..200, 1usize..300), 1..12),
        cuts in prop::collection::vec(1usize..40, 1..6),
        seed: u64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        random_model(dir.path(), &words_spec("w", stack), TEXT, seed).unwrap();
        let model = Arc::new(Model::load(dir.path()).unwrap());
        let text = TEXT.replace("London", "Łódź").repeat(3);
        let inputs: Vec<Vec<u8>> =
            starts.iter().map(|&(from, n)| text.chars().skip(from).take(n).collect::<String>().into_bytes()).collect();
        let got = together(&model, InputFormat::Text, &inputs, &cuts);
        for (input, got) in inputs.iter().zip(&got) {
            prop_assert_eq!(got, &alone(&model, InputFormat::Text, input));
        }
    }

    #[test]
    fn words_are_labelled_the_same_with_what_comes_after_them(
        stack in stack(4),
        (steps, block, both) in (0usize..8, 1usize..5, 0u8..16),
        starts in prop::collection::vec((0usize..200, 1usize..300), 1..12),
        cuts in prop::collection::vec(1usize..40, 1..6),
        seed: u64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        random_model(dir.path(), &ahead(words_spec("w", stack), steps, block, both), TEXT, seed).unwrap();
        let model = Arc::new(Model::load(dir.path()).unwrap());
        let text = TEXT.replace("London", "Łódź").repeat(3);
        let inputs: Vec<Vec<u8>> =
            starts.iter().map(|&(from, n)| text.chars().skip(from).take(n).collect::<String>().into_bytes()).collect();
        let got = together(&model, InputFormat::Text, &inputs, &cuts);
        for (input, got) in inputs.iter().zip(&got) {
            prop_assert_eq!(got, &alone(&model, InputFormat::Text, input));
        }
    }

    #[test]
    fn bases_are_labelled_the_same_alone_and_in_any_company(
        stack in stack(3),
        lengths in prop::collection::vec(1usize..400, 1..10),
        cuts in prop::collection::vec(1usize..90, 1..6),
        seed: u64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        random_model(dir.path(), &dna_spec("d", stack), "", seed).unwrap();
        let model = Arc::new(Model::load(dir.path()).unwrap());
        let mut random = seed | 1;
        let mut base = || { random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); b"ACGTNacgtr"[(random >> 33) as usize % 10] };
        let inputs: Vec<Vec<u8>> = lengths.iter().map(|&n| (0..n).map(|_| base()).collect()).collect();
        let got = together(&model, InputFormat::Dna, &inputs, &cuts);
        for (input, got) in inputs.iter().zip(&got) {
            prop_assert_eq!(got, &alone(&model, InputFormat::Dna, input));
        }
    }
}

#[test]
fn a_saved_state_goes_on_as_if_never_saved() {
    let mut stack = layers(&[Cell::Lstm, Cell::Gru, Cell::LstmPeephole, Cell::GruSimplified], 20);
    (stack[2].residual, stack[3].layer_norm) = (true, true);
    let spec = words_spec("w", stack);
    for spec in [spec.clone(), ahead(spec.clone(), 4, 2, 6), ahead(spec.clone(), 3, 4, 8), ahead(spec, 9, 1, 0)] {
        goes_on_after_being_saved(&spec);
    }
}

fn goes_on_after_being_saved(spec: &ModelSpec) {
    let dir = tempfile::tempdir().unwrap();
    random_model(dir.path(), spec, TEXT, 3).unwrap();
    let model = Arc::new(Model::load(dir.path()).unwrap());
    let whole = alone(&model, InputFormat::Text, TEXT.as_bytes());
    let mut stepper = Stepper::new(model.clone());
    for cut in 0..TEXT.len() {
        let mut output = Output::default();
        let mut session = Session::new(&model);
        session.push(&model, InputFormat::Text, &TEXT.as_bytes()[..cut]).unwrap();
        stepper.step(&mut [&mut session], std::slice::from_mut(&mut output));
        let mut bytes = Vec::new();
        session.encode(&model, &mut bytes);
        let mut session = Session::decode(&model, &bytes).unwrap();
        session.push(&model, InputFormat::Text, &TEXT.as_bytes()[cut..]).unwrap();
        session.finish_unit(&model).unwrap();
        stepper.step(&mut [&mut session], std::slice::from_mut(&mut output));
        assert_eq!(result(&model, &session, &output), whole);
    }
}

#[test]
fn a_state_that_is_damaged_or_of_another_model_is_refused() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let spec = words_spec("w", layers(&[Cell::Lstm], 5));
    random_model(a.path(), &spec, TEXT, 1).unwrap();
    random_model(b.path(), &spec, TEXT, 2).unwrap();
    let (a, b) = (Model::load(a.path()).unwrap(), Model::load(b.path()).unwrap());
    let mut bytes = Vec::new();
    Session::new(&a).encode(&a, &mut bytes);
    assert_eq!(Session::decode(&a, &bytes), Ok(Session::new(&a)));
    let other = Session::decode(&b, &bytes).unwrap_err().to_string();
    assert!(other.contains(a.fingerprint()) && other.contains(b.fingerprint()), "{other}");
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(Session::decode(&a, &damaged).is_err(), "byte {at}");
        assert!(Session::decode(&a, &bytes[..at]).is_err(), "cut at {at}");
    }
}
