//! Records of every input format, pushed into sessions of tiny models.
//!
//! Bytes: the model, how to cut, then the stream.

use super::{Choices, memory, pieces};
use std::path::Path;
use std::sync::Arc;
use strand::encode::{
    CharSpec, DnaSpec, Encoder, EncoderSpec, EventSpec, InputError, InputFormat, Tokenizer, VectorSpec, WordSpec,
};
use strand::model::params::{NetShape, Params};
use strand::model::testing::{
    TEXT, generate_spec, genes_spec, language_spec, layers, look_ahead_spec, notes_encoder, transcripts_spec,
    words_spec,
};
use strand::model::{DecodeKind, DecodeSpec, LookAhead, Model, ModelSpec, Output, Scheme, Session, Stepper, Task};
use strand::rnn::{Cell, LayerSpec, Nonlinearity};

/// Bytes of memory that a byte of input may take: a word, character or base has a unit with its text, and a row.
const FACTOR: usize = 400;
const FIXED: usize = 64 << 10;

const FORMATS: [InputFormat; 5] =
    [InputFormat::Text, InputFormat::Tokens, InputFormat::Dna, InputFormat::Vector, InputFormat::Notes];

thread_local! {
    static MODELS: Vec<Arc<Model>> = specs().map(|spec| Arc::new(model(spec))).collect();
}

/// A tiny model of each kind: three of words (one for each tokenizer), characters, two of DNA, events, two of vectors;
/// then words and vectors through the other cells, with layer normalisation and residual layers; language models of
/// characters and, with an adaptive softmax, of events; words and characters whose labels wait for their neighbours; words,
/// vectors and bases through bidirectional layers that look ahead; notes, without and with classes, and words that are written.
pub fn with_models<T>(run: impl FnOnce(&[Arc<Model>]) -> T) -> T {
    MODELS.with(|models| run(models))
}

/// The specifications of [`with_models`].
pub fn specs() -> impl Iterator<Item = ModelSpec> {
    let words = |tokenizer| {
        EncoderSpec::Words(WordSpec {
            tokenizer,
            word_dim: 3,
            min_count: 1,
            shape_dim: 2,
            char_dim: 2,
            char_hidden: 2,
            ..WordSpec::default()
        })
    };
    let dna = |kmers: &[usize]| EncoderSpec::Dna(DnaSpec { kmers: kmers.into(), kmer_dims: vec![2; kmers.len()] });
    let encoders = [
        words(Tokenizer::UdEnglish),
        words(Tokenizer::Uax29),
        words(Tokenizer::Whitespace),
        EncoderSpec::Chars(CharSpec { dim: 3, min_count: 1, ..CharSpec::default() }),
        dna(&[3, 1]),
        dna(&[]),
        EncoderSpec::Events(EventSpec { dim: 3, ..EventSpec::default() }),
        EncoderSpec::Vector(VectorSpec { width: 2 }),
        EncoderSpec::Vector(VectorSpec { width: 300 }),
    ];
    let plain = encoders.into_iter().enumerate().map(|(k, encoder)| ModelSpec {
        encoder,
        scheme: [Scheme::Bio, Scheme::Runs, Scheme::Plain][k % 3],
        ..words_spec("tiny", layers(&[Cell::Lstm, Cell::Gru, Cell::Rnn][k % 3..=k % 3], 3))
    });
    plain.chain([
        ModelSpec {
            encoder: words(Tokenizer::Uax29),
            ..words_spec("tiny", options(0, &[Cell::GruSimplified, Cell::LstmPeephole]))
        },
        ModelSpec {
            encoder: EncoderSpec::Vector(VectorSpec { width: 3 }),
            ..words_spec("tiny", options(3, &[Cell::Rnn, Cell::LstmPeephole, Cell::GruSimplified, Cell::Gru]))
        },
        language_spec(
            "tiny",
            layers(&[Cell::Lstm], 3),
            EncoderSpec::Chars(CharSpec { dim: 3, min_count: 1, ..CharSpec::default() }),
            &[],
        ),
        language_spec("tiny", layers(&[Cell::Gru], 3), EncoderSpec::Events(EventSpec::default()), &[3, 9]),
        ModelSpec {
            encoder: words(Tokenizer::Whitespace),
            decode: Some(DecodeSpec { kind: DecodeKind::Legal, lag: 2, beam: None }),
            ..words_spec("tiny", layers(&[Cell::Gru], 3))
        },
        ModelSpec {
            encoder: EncoderSpec::Chars(CharSpec { dim: 3, min_count: 1, ..CharSpec::default() }),
            scheme: Scheme::Plain,
            decode: Some(DecodeSpec { kind: DecodeKind::Crf, lag: 3, beam: None }),
            ..words_spec("tiny", layers(&[Cell::Rnn], 3))
        },
        ModelSpec { encoder: words(Tokenizer::UdEnglish), ..ahead(3, 2) },
        ModelSpec { encoder: EncoderSpec::Vector(VectorSpec { width: 2 }), ..ahead(5, 1) },
        ModelSpec { encoder: dna(&[3]), scheme: Scheme::Runs, ..ahead(0, 1) },
        generate_spec("tiny", layers(&[Cell::Gru], 3), notes_encoder(), &[]),
        generate_spec("tiny", layers(&[Cell::Lstm], 3), notes_encoder(), &["jig", "reel"]),
        generate_spec("tiny", layers(&[Cell::Gru], 3), words(Tokenizer::Whitespace), &["letter", "list", "poem"]),
        transcribing(EncoderSpec::Vector(VectorSpec { width: 2 }), None),
        transcribing(EncoderSpec::Chars(CharSpec { dim: 3, min_count: 1, ..CharSpec::default() }), Some(4)),
        genes_spec("tiny", layers(&[Cell::Gru], 3), None),
    ])
}

/// Greedily, or with a beam.
fn transcribing(encoder: EncoderSpec, beam: Option<usize>) -> ModelSpec {
    let decode = beam.map(|_| DecodeSpec { kind: DecodeKind::Beam, lag: 5, beam });
    ModelSpec { decode, ..transcripts_spec("tiny", layers(&[Cell::Lstm], 3), encoder, "ab c") }
}

fn ahead(steps: usize, block: usize) -> ModelSpec {
    look_ahead_spec("tiny", layers(&[Cell::Lstm, Cell::Gru], 3), Some(LookAhead { steps, block: Some(block) }))
}

/// Layers of these cells with all options that they can have: where the input is as wide as they are, they are residual.
fn options(input: usize, cells: &[Cell]) -> Vec<LayerSpec> {
    let mut layers = layers(cells, 3);
    for (k, layer) in layers.iter_mut().enumerate() {
        (layer.layer_norm, layer.residual) = (true, k > 0 || input == layer.hidden);
    }
    layers[0].nonlinearity = Nonlinearity::Relu;
    layers
}

fn model(spec: ModelSpec) -> Model {
    let encoder = Encoder::learn(&spec.encoder, &mut TEXT.split_whitespace(), Path::new(".")).unwrap();
    let encoder = encoder.with_classes(spec.stream_classes().len());
    let shape = NetShape::of(&spec, encoder.layout()).unwrap();
    let mut params = Params::random(&shape, &mut <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(7));
    // Weights as wide as those of trained models.
    params.slices_mut().flatten().for_each(|x| *x *= 4.0);
    Model::new(spec, encoder, &params).unwrap()
}

pub fn format_of(model: &Model) -> InputFormat {
    model.encoder().format()
}

/// Labels what waits.
pub fn step(model: &Arc<Model>, session: &mut Session) -> Output {
    let mut output = Output::default();
    let all = session.ready() + session.undecided();
    Stepper::new(model.clone()).step(&mut [session], std::slice::from_mut(&mut output));
    // Of a transcriber's steps most say nothing.
    if model.spec().task != Task::Transcribe {
        assert_eq!(output.labels.len() + session.undecided(), all);
    }
    check_labels(model, &output);
    output
}

/// The labels of the steps that wait for them at a stream's end.
pub fn conclude(model: &Arc<Model>, session: &mut Session) -> Output {
    let (mut output, undecided) = (Output::default(), session.undecided());
    session.conclude(model, &mut output);
    assert_eq!(session.undecided(), 0);
    assert!(output.labels.len() == undecided || model.spec().task == Task::Transcribe);
    check_labels(model, &output);
    output
}

fn check_labels(model: &Model, output: &Output) {
    for label in &output.labels {
        assert!(label.label < model.spec().labels.len());
        assert!((0.0..=1.0).contains(&label.score), "a score of {}", label.score);
        assert!(label.start < label.end, "{}..{}", label.start, label.end);
    }
}

/// What a stream led to: labels, spans and the state after them.
type Outcome = (Output, Vec<u8>);

/// Pushes record after record, each with its own bound on memory, saves and reads back the state now and then, and
/// labels all. The first record that is refused ends it.
fn outcome(model: &Arc<Model>, format: InputFormat, records: &[&[u8]], saves: bool) -> Result<Outcome, InputError> {
    let (mut session, mut output) = (Session::new(model), Output::default());
    for (k, record) in records.iter().enumerate() {
        let before = session.clone();
        let limit = FACTOR * (record.len() + session.pending().len()) + 2 * session.memory() + FIXED;
        let pushed = memory::within(limit, || session.push(model, format, record));
        if pushed.is_err() {
            assert_eq!(session, before, "a record was refused and left something behind");
            pushed?;
        }
        if saves && k % 3 == 0 {
            append(&mut output, step(model, &mut session));
            let mut bytes = Vec::new();
            session.encode(model, &mut bytes);
            let restored = Session::decode(model, &bytes).unwrap();
            assert_eq!(restored, session);
            session = restored;
        }
    }
    let finished = session.finish_unit(model);
    append(&mut output, step(model, &mut session));
    assert!(session.pending().is_empty());
    append(&mut output, conclude(model, &mut session));
    output.spans.extend(session.end());
    let mut bytes = Vec::new();
    session.encode(model, &mut bytes);
    assert!(numbers(model, &bytes).all(f32::is_finite), "h or c is not finite, and will never be again");
    finished.map(|()| (output, bytes))
}

/// h and c of the saved state of an ended stream: they are at its end, before the checksum and what language models carry
/// (whether there was a unit, the last output, ln P and the number of units; then how a stream is written), or the count of the steps that wait.
fn numbers(model: &Model, state: &[u8]) -> impl Iterator<Item = f32> {
    let count: usize = model.spec().layers.iter().map(|layer| layer.cell.state() * layer.hidden).sum();
    let top = model.spec().layers.last().map_or(0, |layer| layer.hidden);
    let carried = match (&model.spec().language, &model.spec().generate) {
        (None, None) => 0,
        (_, None) => 4 * (1 + top) + 16,
        (_, Some(_)) => 4 * (1 + top) + 16 + 28,
    };
    let end = state.len() - 4 - carried - if model.spec().window().is_some() { 4 } else { 0 };
    state[end - 4 * count..end].as_chunks::<4>().0.iter().map(|&number| f32::from_le_bytes(number))
}

fn append(output: &mut Output, more: Output) {
    output.labels.extend(more.labels);
    output.spans.extend(more.spans);
    output.surprises.extend(more.surprises);
    output.likelihood = more.likelihood.or(output.likelihood);
    output.unknown += more.unknown;
}

/// Any cut of the same bytes gives the same labels; a record in a wrong form is refused and leaves nothing behind.
pub fn check(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let which = choices.byte();
    let seed = choices.byte();
    let body = choices.rest();
    with_models(|models| {
        let model = &models[usize::from(which) % models.len()];
        let format = format_of(model);
        let whole = outcome(model, format, &[body], false);
        let cut: Option<Vec<Vec<u8>>> = match format {
            InputFormat::Text | InputFormat::Dna => {
                Some(pieces(body, seed).iter().map(|piece| piece.to_vec()).collect())
            }
            InputFormat::Tokens => parts::<String>(body, seed),
            InputFormat::Vector => parts::<Vec<serde_json::Number>>(body, seed),
            InputFormat::Notes => parts::<Vec<u8>>(body, seed),
        };
        if let Some(cut) = cut {
            let cut: Vec<&[u8]> = cut.iter().map(Vec::as_slice).collect();
            let cut = outcome(model, format, &cut, seed.is_multiple_of(2));
            match (whole, cut) {
                (Ok(whole), Ok(cut)) => assert_eq!(cut, whole, "the labels depend on the cut"),
                (Err(whole), Err(cut)) => assert_eq!(cut.code(), whole.code()),
                (whole, cut) => panic!("whole: {:?}, cut: {:?}", whole.map(|_| ()), cut.map(|_| ())),
            }
        }
        for format in FORMATS.into_iter().filter(|format| !model.encoder().accepts(*format)) {
            assert!(outcome(model, format, &[body], false).is_err());
        }
        if format == InputFormat::Text && model.encoder().accepts(InputFormat::Tokens) {
            let _ = outcome(model, InputFormat::Tokens, &[body], false);
        }
    });
}

/// A JSON array as records that have its elements between them, if it is one.
fn parts<T: serde::Serialize + serde::de::DeserializeOwned>(body: &[u8], seed: u8) -> Option<Vec<Vec<u8>>> {
    let all: Vec<T> = serde_json::from_slice(body).ok()?;
    let size = usize::from(seed % 5) + 1;
    let records = all.chunks(size).map(|part| serde_json::to_vec(part).unwrap());
    Some(records.collect())
}
