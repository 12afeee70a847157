//! Weights in bf16 and int8: what is rounded at load labels as what was rounded on disk, whatever the company, on one thread
//! or two; states go from one precision to another.

use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use strand::model::testing::{
    TEXT, chars_encoder, dna_spec, language_spec, layers, random_model, random_translator, translator_spec, words_spec,
};
use strand::model::{Attention, Model, ModelSpec, Output, Session, Stepper};
use strand::rnn::matrix::Precision;
use strand::rnn::{Cell, LayerSpec};

const NARROW: [Precision; 2] = [Precision::Bf16, Precision::Int8];

fn model(dir: &Path, precision: Option<Precision>) -> Arc<Model> {
    Arc::new(Model::load_as(dir, precision).unwrap())
}

/// Labels with their scores' bits, and the state after them.
type Labelled = (Vec<(usize, u32)>, Vec<u8>);

fn labelled(model: &Model, session: &Session, output: &Output) -> Labelled {
    let mut state = Vec::new();
    session.encode(model, &mut state);
    (output.labels.iter().map(|l| (l.label, l.score.to_bits())).collect(), state)
}

/// A stream alone, on so many threads.
fn alone(model: &Arc<Model>, input: &[u8], threads: usize) -> Labelled {
    let (mut session, mut output) = (Session::new(model), Output::default());
    session.push(model, model.encoder().format(), input).unwrap();
    session.finish_unit(model).unwrap();
    let mut stepper = Stepper::new(model.clone());
    stepper.spread(threads);
    stepper.step(&mut [&mut session], std::slice::from_mut(&mut output));
    labelled(model, &session, &output)
}

fn specs() -> Vec<ModelSpec> {
    let stack = |cells: &[Cell]| layers(cells, 24);
    vec![
        words_spec("words", stack(&[Cell::Lstm, Cell::Gru])),
        words_spec("others", stack(&[Cell::GruSimplified, Cell::LstmPeephole, Cell::Rnn])),
        dna_spec("dna", stack(&[Cell::Gru, Cell::Lstm])),
        ModelSpec {
            layers: vec![
                LayerSpec { bidirectional: true, ..LayerSpec::new(Cell::Lstm, 10) },
                LayerSpec::new(Cell::Gru, 20),
            ],
            ..words_spec("both", Vec::new())
        },
        language_spec("language", stack(&[Cell::Lstm, Cell::Lstm]), chars_encoder(), &[8, 12]),
    ]
}

fn input_of(spec: &ModelSpec) -> Vec<u8> {
    if spec.name == "dna" { b"ACGTTGCANACGGT".repeat(20) } else { TEXT.repeat(2).into_bytes() }
}

#[test]
fn a_quantized_directory_labels_as_the_precision_asked_for_at_load() {
    for spec in specs() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("exact");
        random_model(&dir, &spec, TEXT, 5).unwrap();
        let exact = alone(&model(&dir, None), &input_of(&spec), 1);
        for precision in NARROW {
            let to = place.path().join(precision.name());
            Model::quantize(&dir, &to, precision).unwrap();
            let size = |dir: &Path| std::fs::metadata(dir.join("weights.safetensors")).unwrap().len();
            assert!(size(&to) < size(&dir));
            let rounded = model(&to, None);
            assert_eq!(rounded.spec().precision, precision);
            let labels = |model: &Arc<Model>| alone(model, &input_of(&spec), 1).0;
            let asked = labels(&model(&dir, Some(precision)));
            assert_eq!(labels(&rounded), asked, "{} {}", spec.name, precision.name());
            // Rounding does something.
            assert_ne!(asked, exact.0, "{} {}", spec.name, precision.name());
            // Once rounded, always the same.
            let again = place.path().join(format!("{}-again", precision.name()));
            Model::quantize(&to, &again, precision).unwrap();
            let bytes = |dir: &Path| std::fs::read(dir.join("weights.safetensors")).unwrap();
            assert_eq!(bytes(&to), bytes(&again), "{} {}", spec.name, precision.name());
        }
    }
}

#[test]
fn a_quantized_translator_translates() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("exact");
    random_translator(&dir, &translator_spec("t", Attention::Bahdanau, 20), TEXT, 5).unwrap();
    for precision in NARROW {
        let to = place.path().join(precision.name());
        Model::quantize(&dir, &to, precision).unwrap();
        let translations = |model: &Model| {
            let translator = model.translator().unwrap();
            translator.translate(&["Ada met Charles", "in London"], translator.search)
        };
        assert_eq!(translations(&model(&to, None)), translations(&model(&dir, Some(precision))));
    }
}

#[test]
fn a_state_goes_from_one_precision_to_another() {
    let place = tempfile::tempdir().unwrap();
    random_model(place.path(), &words_spec("w", layers(&[Cell::Lstm], 16)), TEXT, 3).unwrap();
    let exact = model(place.path(), None);
    let (_, state) = alone(&exact, b"Ada Lovelace met ", 1);
    for precision in NARROW {
        let narrow = model(place.path(), Some(precision));
        assert_eq!(narrow.fingerprint(), exact.fingerprint());
        let session = Session::decode(&narrow, &state).unwrap();
        assert_eq!(session.steps(), 3);
    }
}

#[test]
fn weights_without_their_scales_are_refused() {
    let place = tempfile::tempdir().unwrap();
    let (dir, to) = (place.path().join("exact"), place.path().join("int8"));
    random_model(&dir, &words_spec("w", layers(&[Cell::Lstm], 16)), TEXT, 3).unwrap();
    Model::quantize(&dir, &to, Precision::Int8).unwrap();
    let weights = to.join("weights.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    // The same length, so that the header stays whole.
    let (name, other) = (b"head.weight.scale", b"head.weight.scald");
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap();
    let mut bytes = bytes;
    bytes[at..at + other.len()].copy_from_slice(other);
    std::fs::write(&weights, bytes).unwrap();
    let error = Model::load(&to).unwrap_err().to_string();
    assert!(error.contains("head.weight is I8: head.weight.scale F32 [7] must be there too"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn labels_do_not_depend_on_company_in_any_precision(
        which in 0usize..3,
        starts in prop::collection::vec((0usize..200, 1usize..300), 1..12),
        seed: u64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let spec = &specs()[which];
        random_model(dir.path(), spec, TEXT, seed).unwrap();
        let all = String::from_utf8(input_of(spec)).unwrap();
        let inputs: Vec<String> = starts.iter().map(|&(from, n)| all.chars().skip(from).take(n).collect()).collect();
        for precision in NARROW {
            let model = model(dir.path(), Some(precision));
            let mut sessions: Vec<Session> = inputs.iter().map(|_| Session::new(&model)).collect();
            let mut outputs = vec![Output::default(); inputs.len()];
            let mut stepper = Stepper::new(model.clone());
            for part in 0..2 {
                for (session, input) in sessions.iter_mut().zip(&inputs) {
                    let half = input.char_indices().nth(input.chars().count() / 2).map_or(0, |(at, _)| at);
                    let piece = if part == 0 { &input[..half] } else { &input[half..] };
                    session.push(&model, model.encoder().format(), piece.as_bytes()).unwrap();
                    if part == 1 {
                        session.finish_unit(&model).unwrap();
                    }
                }
                stepper.step(&mut sessions.iter_mut().collect::<Vec<_>>(), &mut outputs);
            }
            for ((session, output), input) in sessions.iter().zip(&outputs).zip(&inputs) {
                prop_assert_eq!(labelled(&model, session, output), alone(&model, input.as_bytes(), 1));
            }
        }
    }

    #[test]
    fn a_lone_long_stream_gets_the_same_on_two_threads(
        cells in prop::collection::vec(prop::sample::select(vec![Cell::Lstm, Cell::Gru, Cell::Rnn]), 2..5),
        bases in 500usize..1500,
        seed: u64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        random_model(dir.path(), &dna_spec("d", layers(&cells, 20)), TEXT, seed).unwrap();
        let input: Vec<u8> = (0..bases).map(|k| b"ACGT"[(k * k + k / 7) % 4]).collect();
        for precision in Precision::ALL {
            let model = model(dir.path(), Some(precision));
            prop_assert_eq!(alone(&model, &input, 2), alone(&model, &input, 1));
        }
    }
}
