//! Model M of the engine's bench as a model directory: 10,000 words, embedding 100, two LSTM of 256, 32 labels, random
//! weights.

use crate::encode::{Encoder, EncoderSpec, Tokenizer, WordSpec};
use crate::model::params::{NetShape, Params};
use crate::model::{Model, ModelError, ModelSpec, Scheme, Task};
use crate::rnn::matrix::Precision;
use crate::rnn::{Cell, LayerSpec};
use rand::SeedableRng;
use std::path::Path;

pub const VOCABULARY: usize = 10_000;
const LABELS: usize = 32;

/// Word number `k`: the peer's `w<k>` with letters for digits, because the encoder takes all digits for one.
pub fn word(k: usize) -> String {
    let digits = k.to_string();
    std::iter::once('w').chain(digits.bytes().map(|digit| char::from(b'a' + digit - b'0'))).collect()
}

/// Writes the model to `dir`.
///
/// # Errors
/// If the files cannot be written.
pub fn write(dir: &Path) -> Result<(), ModelError> {
    let invalid = |detail: String| ModelError::Invalid { path: dir.to_path_buf(), detail };
    let encoder = EncoderSpec::Words(WordSpec {
        tokenizer: Tokenizer::Whitespace,
        word_dim: 100,
        min_count: 1,
        max_words: VOCABULARY,
        shape_dim: 0,
        char_hidden: 0,
        ..WordSpec::default()
    });
    let words: Vec<String> = (0..VOCABULARY).map(word).collect();
    let spec = ModelSpec {
        format: 1,
        name: "bench-m".into(),
        task: Task::Tag,
        scheme: Scheme::Plain,
        labels: (0..LABELS).map(|k| format!("L{k}")).collect(),
        outside: None,
        classes: None,
        classify: None,
        look_ahead: None,
        language: None,
        generate: None,
        decode: None,
        encoder,
        layers: vec![LayerSpec::new(Cell::Lstm, 256); 2],
        decoder: None,
        genes: None,
        precision: Precision::F32,
        fingerprint: None,
        training: None,
    };
    let encoder = Encoder::learn(&spec.encoder, &mut words.iter().map(String::as_str), Path::new("."))
        .map_err(|error| invalid(error.to_string()))?;
    let shape = NetShape::of(&spec, encoder.layout()).map_err(invalid)?;
    let params = Params::random(&shape, &mut rand_chacha::ChaCha8Rng::seed_from_u64(0));
    Model::save(dir, &spec, &encoder, &params)
}
