//! Small models with random weights, for tests and examples: they label nonsense, but exactly as a trained one would.

use super::generate::LABELS;
use super::params::{NetShape, Params};
use super::spec::{ClassSpec, SURPRISE_LABELS};
use super::transcribe::BLANK_LABEL;
use super::transduce::{self, Attention, DecoderSpec};
use super::{
    ClassifySpec, DecodeKind, DecodeSpec, GenerateSpec, GenesSpec, LanguageSpec, LookAhead, Model, ModelError,
    ModelSpec, Pooling, Scheme, Softmax, Task,
};
use crate::encode::units::{UnitKind, Units};
use crate::encode::{CharSpec, DnaSpec, Encoder, EncoderSpec, EventSpec, NoteSpec, SentenceSpec, WordSpec};
use crate::rnn::matrix::Precision;
use crate::rnn::{Cell, LayerSpec};
use rand::SeedableRng;
use std::path::Path;

/// Layers of these cells, `hidden` wide.
pub fn layers(cells: &[Cell], hidden: usize) -> Vec<LayerSpec> {
    cells.iter().map(|&cell| LayerSpec::new(cell, hidden)).collect()
}

/// A model specification that tags words with PER, ORG, LOC.
pub fn words_spec(name: &str, layers: Vec<LayerSpec>) -> ModelSpec {
    let encoder = EncoderSpec::Words(WordSpec {
        word_dim: 8,
        min_count: 1,
        shape_dim: 4,
        char_dim: 6,
        char_hidden: 8,
        ..WordSpec::default()
    });
    let labels = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"].map(String::from).to_vec();
    ModelSpec {
        format: 1,
        name: name.into(),
        task: Task::Tag,
        scheme: Scheme::Bio,
        labels,
        outside: Some("O".into()),
        classes: None,
        classify: None,
        look_ahead: None,
        language: None,
        generate: None,
        decode: None,
        encoder,
        layers,
        decoder: None,
        genes: None,
        precision: Precision::F32,
        fingerprint: None,
        training: None,
    }
}

/// [`words_spec`] with layers that read both ways and see so far ahead.
pub fn look_ahead_spec(name: &str, layers: Vec<LayerSpec>, look_ahead: Option<LookAhead>) -> ModelSpec {
    let layers = layers.into_iter().map(|layer| LayerSpec { bidirectional: true, ..layer }).collect();
    ModelSpec { look_ahead, ..words_spec(name, layers) }
}

/// A model specification that labels bases.
pub fn dna_spec(name: &str, layers: Vec<LayerSpec>) -> ModelSpec {
    ModelSpec {
        scheme: Scheme::Runs,
        labels: ["none", "forward", "reverse"].map(String::from).to_vec(),
        outside: Some("none".into()),
        encoder: EncoderSpec::Dna(DnaSpec { kmers: vec![3], kmer_dims: vec![5] }),
        ..words_spec(name, layers)
    }
}

/// A model specification that finds genes, also where the network hardly sees any.
pub fn genes_spec(name: &str, layers: Vec<LayerSpec>, look_ahead: Option<LookAhead>) -> ModelSpec {
    let spec = ModelSpec { look_ahead, ..dna_spec(name, layers) };
    let strands = ["forward", "reverse"].into_iter();
    let class = |class: &str, label: &str| ClassSpec { class: class.into(), label: label.into() };
    let frames = strands.flat_map(|strand| (0..3).map(move |k| (format!("{strand}{k}"), strand)));
    let classes = [class("none", "none")].into_iter().chain(frames.map(|(name, strand)| class(&name, strand)));
    ModelSpec {
        classes: Some(classes.collect()),
        decode: Some(DecodeSpec { kind: DecodeKind::Genes, lag: 0, beam: None }),
        genes: Some(GenesSpec { prior: -900.0, longest: 900, ..GenesSpec::default() }),
        ..spec
    }
}

/// A model specification that labels characters, with labels that no word tagger here has (but for `B-PER`).
pub fn chars_spec(name: &str, layers: Vec<LayerSpec>) -> ModelSpec {
    ModelSpec {
        scheme: Scheme::Runs,
        labels: ["none", "name", "B-PER", "number"].map(String::from).to_vec(),
        outside: Some("none".into()),
        encoder: EncoderSpec::Chars(CharSpec { dim: 6, min_count: 1, ..CharSpec::default() }),
        ..words_spec(name, layers)
    }
}

/// A model specification that gives streams of words one of three classes, with an estimate after every `every` words.
pub fn classes_spec(name: &str, layers: Vec<LayerSpec>, pooling: Pooling, every: Option<u64>) -> ModelSpec {
    ModelSpec {
        task: Task::Classify,
        scheme: Scheme::Plain,
        labels: ["bad", "fair", "good"].map(String::from).to_vec(),
        outside: None,
        classify: Some(ClassifySpec { pooling, every, temperature: 2.0, ordinal: false }),
        ..words_spec(name, layers)
    }
}

/// A model specification that transcribes what this encoder reads, with these symbols.
pub fn transcripts_spec(name: &str, layers: Vec<LayerSpec>, encoder: EncoderSpec, symbols: &str) -> ModelSpec {
    let symbols = symbols.chars().map(String::from);
    ModelSpec {
        task: Task::Transcribe,
        scheme: Scheme::Plain,
        labels: std::iter::once(BLANK_LABEL.to_string()).chain(symbols).collect(),
        outside: Some(BLANK_LABEL.into()),
        encoder,
        ..words_spec(name, layers)
    }
}

/// What units a language model tells of, with the smallest tables.
pub fn language_spec(name: &str, layers: Vec<LayerSpec>, encoder: EncoderSpec, cutoffs: &[usize]) -> ModelSpec {
    ModelSpec {
        task: Task::LanguageModel,
        scheme: Scheme::Plain,
        labels: SURPRISE_LABELS.map(String::from).to_vec(),
        outside: None,
        language: Some(LanguageSpec {
            softmax: if cutoffs.is_empty() { Softmax::Full } else { Softmax::Adaptive },
            cutoffs: cutoffs.to_vec(),
            div_value: 2.0,
            threshold: Some(3.0),
        }),
        encoder,
        ..words_spec(name, layers)
    }
}

/// A model specification that writes units, or with an encoder of notes these, by class if there are classes.
pub fn generate_spec(name: &str, layers: Vec<LayerSpec>, encoder: EncoderSpec, classes: &[&str]) -> ModelSpec {
    let of_notes = matches!(encoder, EncoderSpec::Notes(_));
    let of_units = language_spec(name, layers, encoder, &[]);
    let classes = classes.iter().map(|class| class.to_string()).collect();
    let language = of_units.language.clone().filter(|_| !of_notes).map(|of| LanguageSpec { threshold: None, ..of });
    ModelSpec {
        task: Task::Generate,
        labels: LABELS.map(String::from).to_vec(),
        generate: Some(GenerateSpec { max_steps: 200, classes }),
        language,
        ..of_units
    }
}

/// Notes of an octave.
pub fn notes_encoder() -> EncoderSpec {
    EncoderSpec::Notes(NoteSpec { lowest: 60, highest: 71 })
}

/// Characters as the units of a language model.
pub fn chars_encoder() -> EncoderSpec {
    EncoderSpec::Chars(CharSpec { dim: 6, min_count: 1, ..CharSpec::default() })
}

/// Events as the units of a language model.
pub fn events_encoder() -> EncoderSpec {
    EncoderSpec::Events(EventSpec { dim: 6, ..EventSpec::default() })
}

/// Writes a model of this specification into `dir`, its vocabulary from `text`, its weights random by `seed` (drawn
/// wide, so that labels vary).
pub fn random_model(dir: &Path, spec: &ModelSpec, text: &str, seed: u64) -> Result<(), ModelError> {
    let encoder = Encoder::learn(&spec.encoder, &mut text.split_whitespace(), Path::new("."))
        .map_err(|e| ModelError::Invalid { path: dir.to_path_buf(), detail: e.to_string() })?
        .with_classes(spec.stream_classes().len());
    let invalid = |detail| ModelError::Invalid { path: dir.to_path_buf(), detail };
    let shape = NetShape::of(spec, encoder.layout()).map_err(invalid)?;
    let mut params = Params::random(&shape, &mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
    params.slices_mut().flatten().for_each(|x| *x *= 4.0);
    Model::save(dir, spec, &encoder, &params)
}

/// A model specification that translates sentences of characters to words.
pub fn translator_spec(name: &str, attention: Attention, max_source: usize) -> ModelSpec {
    let decoder = DecoderSpec {
        units: UnitKind::Words,
        dim: 5,
        min_count: 1,
        max_units: 100,
        attention,
        inner: None,
        readout: Some(6),
        beam: 3,
        length_penalty: 0.6,
        max_length: 12,
        layers: layers(&[Cell::Gru, Cell::Lstm], 7),
    };
    let sentences = SentenceSpec {
        units: UnitKind::Chars,
        dim: 6,
        min_count: 1,
        max_source,
        ends: vec!['.'],
        ..SentenceSpec::default()
    };
    ModelSpec {
        task: Task::Transduce,
        scheme: Scheme::Plain,
        labels: Vec::new(),
        outside: None,
        decoder: Some(decoder),
        encoder: EncoderSpec::Sentences(sentences),
        ..words_spec(name, vec![LayerSpec { bidirectional: true, ..LayerSpec::new(Cell::Lstm, 6) }])
    }
}

/// Writes a translator of this specification into `dir`, both its vocabularies from `text`, its weights random by `seed`.
pub fn random_translator(dir: &Path, spec: &ModelSpec, text: &str, seed: u64) -> Result<(), ModelError> {
    let invalid = |detail: String| ModelError::Invalid { path: dir.to_path_buf(), detail };
    let encoder = Encoder::learn(&spec.encoder, &mut std::iter::once(text), Path::new("."))
        .map_err(|e| invalid(e.to_string()))?;
    let target = Units::learn(transduce::decoder_of(spec).map_err(invalid)?.choice(), std::iter::once(text));
    let shape = transduce::shape_of(spec, &encoder, &target).map_err(invalid)?;
    let mut params = shape.random(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
    params.slices_mut().flatten().for_each(|x: &mut f32| *x *= 4.0);
    Model::save_translator(dir, spec, &encoder, &target, &params)
}

/// Some text with names in it, for [`random_model`] and as input.
pub const TEXT: &str = "Ada Lovelace met Charles Babbage in London in June 1833 . The Analytical Engine was never \
    built , but her notes on it, printed by Taylor's Scientific Memoirs, outlived both . In Turin , Menabrea wrote \
    the first account ; Wheatstone asked her to translate it . She lived at St James's Square and Ockham Park . ";

/// The smallest useful word tagger: one LSTM of 8.
pub fn tiny_model(dir: &Path) -> Result<(), ModelError> {
    random_model(dir, &words_spec("tiny", layers(&[Cell::Lstm], 8)), TEXT, 7)
}
