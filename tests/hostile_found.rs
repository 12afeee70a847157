//! What fuzzing and a look for hostile input found, each as a small test. What the seeds in `fuzz/seeds` show by
//! themselves is in `hostile_input` and `hostile_http`.

mod hostile;

use hostile::{formats, memory};
use std::path::Path;
use std::sync::Arc;
use strand::data::{FastaReader, Source};
use strand::encode::{DnaSpec, Encoder, EncoderSpec, InputFormat, VectorSpec, WordSpec};
use strand::model::params::{NetShape, Params};
use strand::model::testing::{layers, words_spec};
use strand::model::{Model, ModelSpec, Output, Scheme, Session, StateError};
use strand::rnn::Cell;

const MIB: usize = 1 << 20;

fn model(spec: ModelSpec, text: &str) -> Arc<Model> {
    let encoder = Encoder::learn(&spec.encoder, &mut text.split_whitespace(), Path::new(".")).unwrap();
    let shape = NetShape::of(&spec, encoder.layout()).unwrap();
    let params = Params::random(&shape, &mut <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(7));
    Arc::new(Model::new(spec, encoder, &params).unwrap())
}

fn labelled(model: &Arc<Model>, pieces: &[&str]) -> Output {
    let (mut session, mut output) = (Session::new(model), Output::default());
    for piece in pieces {
        session.push(model, formats::format_of(model), piece.as_bytes()).unwrap();
        output.labels.extend(formats::step(model, &mut session).labels);
    }
    output
}

#[test]
fn a_record_of_many_empty_vectors_takes_no_more_memory_than_others() {
    let encoder = EncoderSpec::Vector(VectorSpec { width: 60_000 });
    let model = model(ModelSpec { encoder, ..words_spec("wide", layers(&[Cell::Rnn], 1)) }, "");
    let mut session = Session::new(&model);
    for item in ["[],", "0,"] {
        let record = format!("[{}0]", item.repeat(MIB / item.len()));
        memory::within(100 * MIB, || session.push(&model, InputFormat::Vector, record.as_bytes()).unwrap_err());
    }
}

#[test]
fn a_long_record_for_a_model_of_many_labels_takes_no_memory_for_all_probabilities_at_once() {
    let labels: Vec<String> = (0..5000).map(|k| format!("label {k}")).collect();
    let encoder = EncoderSpec::Dna(DnaSpec { kmers: vec![], kmer_dims: vec![] });
    let spec = words_spec("labels", layers(&[Cell::Rnn], 1));
    let model = model(ModelSpec { encoder, labels, outside: None, scheme: Scheme::Plain, ..spec }, "");
    let mut session = Session::new(&model);
    session.push(&model, InputFormat::Dna, "acgtn".repeat(4000).as_bytes()).unwrap();
    // All at once they are 400 MB.
    let output = memory::within(140 * MIB, || formats::step(&model, &mut session));
    let one_by_one: Vec<String> = "acgtn".repeat(4000).chars().map(String::from).collect();
    let pieces: Vec<&str> = one_by_one.iter().take(300).map(String::as_str).collect();
    assert_eq!(labelled(&model, &pieces).labels, output.labels[..300]);
}

/// Character vectors of `dim`, of which one row is in the file, made a working space of characters × `dim`.
#[test]
fn words_are_encoded_in_several_goes_where_their_characters_are_wide() {
    let encoder = EncoderSpec::Words(WordSpec {
        word_dim: 1,
        min_count: 1,
        shape_dim: 0,
        char_dim: 30_000,
        char_hidden: 1,
        ..WordSpec::default()
    });
    let model = model(ModelSpec { encoder, ..words_spec("chars", layers(&[Cell::Rnn], 2)) }, "abc cab aaa bcb ccc");
    let words: Vec<String> = (0..600)
        .map(|k| (0..12).map(|bit| char::from(b'a' + ((k >> bit) & 1) as u8)).collect::<String>() + " ")
        .collect();
    let text = words.concat();
    let (mut session, pieces) = (Session::new(&model), words.iter().map(String::as_str).collect::<Vec<_>>());
    session.push(&model, InputFormat::Text, text.as_bytes()).unwrap();
    // All at once they are 860 MB.
    let together = memory::within(140 * MIB, || formats::step(&model, &mut session));
    assert_eq!(together.labels.len(), 600);
    assert_eq!(labelled(&model, &pieces).labels, together.labels);
}

#[test]
fn a_state_is_read_in_one_way_only() {
    let model = formats::with_models(|models| models[0].clone());
    let mut bytes = Vec::new();
    Session::new(&model).encode(&model, &mut bytes);
    // Version, fingerprint, steps; then whether a span is open.
    bytes.truncate(bytes.len() - 4);
    bytes[33 + 8] = 2;
    let sum = crc32fast::hash(&bytes).to_le_bytes();
    bytes.extend_from_slice(&sum);
    assert!(matches!(Session::decode(&model, &bytes), Err(StateError::Damaged(_))));
}

/// Counting on from there would overflow.
#[test]
fn a_state_with_an_impossible_number_of_steps_is_damaged() {
    let model = formats::with_models(|models| models[0].clone());
    let mut bytes = Vec::new();
    Session::new(&model).encode(&model, &mut bytes);
    bytes.truncate(bytes.len() - 4);
    bytes[33..41].fill(0xff);
    let sum = crc32fast::hash(&bytes).to_le_bytes();
    bytes.extend_from_slice(&sum);
    assert!(matches!(Session::decode(&model, &bytes), Err(StateError::Damaged(_))));
}

/// Its label would end before it starts.
#[test]
fn a_state_with_a_waiting_word_that_ends_before_it_starts_is_damaged() {
    let model = formats::with_models(|models| models.iter().find(|m| m.spec().look_ahead.is_some()).unwrap().clone());
    let mut session = Session::new(&model);
    session.push(&model, InputFormat::Text, b"Ada met Charles ").unwrap();
    let mut bytes = Vec::new();
    session.encode(&model, &mut bytes);
    bytes.truncate(bytes.len() - 4);
    let text = bytes.windows(7).position(|window| window == b"Charles").unwrap();
    bytes[text - 12..text - 4].fill(0);
    let sum = crc32fast::hash(&bytes).to_le_bytes();
    bytes.extend_from_slice(&sum);
    assert!(matches!(Session::decode(&model, &bytes), Err(StateError::Damaged(_))));
}

/// Whatever the cut, it is the first that a reader would come to.
#[test]
fn of_two_faults_in_a_record_of_vectors_the_first_is_told() {
    let spec =
        ModelSpec { encoder: EncoderSpec::Vector(VectorSpec { width: 2 }), ..words_spec("v", layers(&[Cell::Rnn], 2)) };
    let model = model(spec, "");
    let code = |record: &[u8]| Session::new(&model).push(&model, InputFormat::Vector, record).unwrap_err().code();
    assert_eq!(code(b"[[1, 1e40], [1, 2, 3]]"), "not_finite");
    assert_eq!(code(b"[[1, 2, 3], [1, 1e40]]"), "wrong_shape");
}

#[test]
fn a_model_without_classes_is_refused() {
    let spec = ModelSpec { classes: Some(Vec::new()), ..words_spec("none", layers(&[Cell::Rnn], 2)) };
    assert!(spec.class_labels().unwrap_err().contains("classes must not be empty"));
}

#[test]
fn a_fasta_file_without_a_header_is_told_the_same_way_however_fast_it_is_read() {
    let mut reader = FastaReader::new(Source::new("x", &b"AC1\n"[..]).unwrap());
    assert!(reader.next_sequence().unwrap_err().to_string().contains("expected a header line"));
}
