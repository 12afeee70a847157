//! Translation: an encoder reads a whole sentence, a decoder writes another one, unit by unit, and may look back at the
//! first with attention.
//!
//! Here is what a model directory says of the decoder, and [`Translator`]: sentences in, [`Translation`]s out. The weights
//! are in [`shape`], the network at work in [`net`], the search for the best translation in [`search`].

pub mod net;
pub mod search;
mod shape;

pub use shape::{Places, TransduceShape};

use super::params::Params;
use super::spec::{ModelError, ModelSpec};
use super::weights::Stored;
use super::{Model, Output, Session};
use crate::encode::units::{END, UNKNOWN, UnitChoice, UnitKind, Units};
use crate::encode::{Encoder, EncoderError, EncoderSpec};
use crate::rnn::LayerSpec;
use net::Transducer;
use search::{Found, Search};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How a decoder's step looks at the sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attention {
    /// It knows what the encoder ended with, and no more.
    None,
    /// Additive, before the step (Bahdanau, Cho and Bengio 2015).
    Bahdanau,
    /// By products, after the step ("general" in Luong, Pham and Manning 2015).
    #[default]
    Luong,
}

/// `[decoder]`: the target side of a translator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderSpec {
    #[serde(default)]
    pub units: UnitKind,
    /// Width of the units' vectors.
    pub dim: usize,
    #[serde(default = "two")]
    pub min_count: u32,
    #[serde(default = "many")]
    pub max_units: usize,
    #[serde(default)]
    pub attention: Attention,
    /// Width of queries and keys of additive attention; absent: as wide as the top layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inner: Option<usize>,
    /// Width of what the softmax reads; absent: as wide as the top layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readout: Option<usize>,
    /// Hypotheses that are followed; 1: always the likeliest unit.
    #[serde(default = "one")]
    pub beam: usize,
    /// Translations are ranked by ln P / ((5 + length) / 6)^length_penalty (Wu et al. 2016).
    #[serde(default)]
    pub length_penalty: f64,
    /// The most units of a translation.
    pub max_length: usize,
    pub layers: Vec<LayerSpec>,
}

fn one() -> usize {
    1
}

fn two() -> u32 {
    2
}

fn many() -> usize {
    8000
}

/// The widest beam, and the longest translation.
pub const MAX_BEAM: usize = 256;
const MAX_LENGTH: usize = 4096;
const MAX_WIDTH: usize = 1 << 16;

impl DecoderSpec {
    /// Says what is out of range.
    pub fn check(&self) -> Result<(), String> {
        let within = |key: &str, value: usize, least: usize, most: usize| match (least..=most).contains(&value) {
            true => Ok(()),
            false => Err(format!("decoder.{key} = {value}: must be {least} to {most}")),
        };
        within("dim", self.dim, 1, MAX_WIDTH)?;
        within("max_units", self.max_units, 3, 1 << 20)?;
        within("inner", self.inner.unwrap_or(1), 1, MAX_WIDTH)?;
        within("readout", self.readout.unwrap_or(1), 1, MAX_WIDTH)?;
        within("max_length", self.max_length, 1, MAX_LENGTH)?;
        within("layers", self.layers.len(), 1, 64)?;
        self.search().check().map_err(|e| format!("decoder.{e}"))?;
        for (k, layer) in self.layers.iter().enumerate() {
            within(&format!("layers[{k}].hidden"), layer.hidden, 1, MAX_WIDTH)?;
            if layer.bidirectional {
                return Err(format!("decoder.layers[{k}] is bidirectional: what it would read is not written yet"));
            }
        }
        if self.inner.is_some() && self.attention != Attention::Bahdanau {
            return Err("decoder.inner is for attention = \"bahdanau\"".into());
        }
        Ok(())
    }

    /// How translations are looked for, unless something else is asked for.
    pub fn search(&self) -> Search {
        Search { beam: self.beam, length_penalty: self.length_penalty, max_length: self.max_length }
    }

    pub fn choice(&self) -> UnitChoice {
        UnitChoice { kind: self.units, min_count: self.min_count, max_units: self.max_units }
    }
}

/// The translation of one sentence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Translation {
    /// Where the sentence stands in its stream, in characters.
    pub start: u64,
    pub end: u64,
    pub source: String,
    pub text: String,
    /// The geometric mean of the probabilities of its units, the end included.
    pub score: f32,
    /// The sentence was longer than `max_source` and was cut here.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// A translation's text, and the mean probability of its units.
pub type Written = (String, f32);

/// The file of the target's vocabulary.
pub const TARGET_FILE: &str = "target.txt";

/// Sentences whose steps run together at most.
const TOGETHER: usize = 32;

/// A translator at work. Immutable.
#[derive(Debug)]
pub struct Translator {
    pub source: Units,
    pub target: Units,
    pub net: Transducer,
    pub search: Search,
}

impl Translator {
    pub fn new(
        spec: &ModelSpec,
        encoder: &Encoder,
        target: &Units,
        params: &Params<f32>,
    ) -> Result<Translator, String> {
        let (shape, decoder) = (shape_of(spec, encoder, target)?, decoder_of(spec)?);
        let source = encoder.source_units().ok_or("a translator reads sentences")?.clone();
        let net = Transducer::with_precision(&shape, &super::in_use(spec, params), spec.precision);
        Ok(Translator { source, target: target.clone(), net, search: decoder.search() })
    }

    /// The best translation of each sentence, and the mean probability of its units. The same for a sentence whatever the
    /// others are.
    pub fn translate(&self, sentences: &[&str], search: Search) -> Vec<Written> {
        let mut all = Vec::with_capacity(sentences.len());
        for group in sentences.chunks(TOGETHER) {
            let encoded: Vec<(Vec<u32>, Vec<String>)> = group.iter().map(|text| self.source.encode(text)).collect();
            let units: Vec<Vec<u32>> =
                encoded.iter().map(|(units, _)| units.iter().copied().chain([END]).collect()).collect();
            // An unknown word may be written where it is known which of the source's words is meant.
            let unknown = self.target.kind() == UnitKind::Words
                && self.source.kind() == UnitKind::Words
                && self.net.shape().attention != Attention::None;
            let found = search::best(&self.net, &units, search, unknown);
            all.extend(found.into_iter().zip(&encoded).map(|(found, (_, words))| self.written(found, words)));
        }
        all
    }

    fn written(&self, found: Found, words: &[String]) -> Written {
        let texts = found.units.iter().map(|&(unit, looked_at)| match unit {
            UNKNOWN => words.get(looked_at).map_or("", String::as_str),
            unit => self.target.text(unit),
        });
        let mean = found.log_probability / (found.units.len() + 1) as f64;
        (self.target.join(texts), mean.exp() as f32)
    }
}

/// The `[decoder]` of a translator.
pub fn decoder_of(spec: &ModelSpec) -> Result<&DecoderSpec, String> {
    spec.decoder.as_ref().ok_or_else(|| "task = \"transduce\" needs [decoder]".to_string())
}

/// The shape of a translator between these vocabularies.
pub fn shape_of(spec: &ModelSpec, encoder: &Encoder, target: &Units) -> Result<TransduceShape, String> {
    let (EncoderSpec::Sentences(sentences), Some(source)) = (&spec.encoder, encoder.source_units()) else {
        return Err("task = \"transduce\" needs encoder.kind = \"sentences\"".into());
    };
    let shape = TransduceShape::new((source.rows(), sentences.dim), &spec.layers, target.rows(), decoder_of(spec)?);
    shape.check()?;
    Ok(shape)
}

/// Reads the translator in `dir`; the rest of the model was read, and `weights` is what came of reading theirs.
pub(super) fn load(
    spec: &ModelSpec,
    encoder: &Encoder,
    dir: &Path,
    weights: Result<Stored, ModelError>,
) -> Result<(Units, Params<f32>), ModelError> {
    let path = dir.join("model.toml");
    let invalid = |detail: String| ModelError::Invalid { path: path.clone(), detail };
    let kind = decoder_of(spec).map_err(invalid)?.units;
    let target = Units::load(kind, &dir.join(TARGET_FILE)).map_err(|e: EncoderError| invalid(e.to_string()))?;
    let shape = shape_of(spec, encoder, &target).map_err(invalid)?;
    let params = Params::of_stored(&shape, weights?)?;
    Ok((target, params))
}

impl Model {
    /// What translates, if the model is of that task.
    pub fn translator(&self) -> Option<&Translator> {
        self.translator.as_ref()
    }
}

/// Translates the sentences that wait in `sessions`, together.
pub(super) fn step(model: &Model, sessions: &mut [&mut Session], outputs: &mut [Output]) {
    let Some(translator) = &model.translator else { return };
    let waiting: Vec<&str> =
        sessions.iter().flat_map(|session| session.units.iter().map(|unit| unit.text.as_str())).collect();
    let mut translated = translator.translate(&waiting, translator.search).into_iter();
    for (session, output) in sessions.iter_mut().zip(outputs) {
        let units = std::mem::take(&mut session.units);
        for (k, (unit, (text, score))) in units.into_iter().zip(&mut translated).enumerate() {
            let cut = session.features.dense.get(k).is_some_and(|&cut| cut > 0.0);
            let (start, end, source) = (unit.start, unit.end, unit.text);
            output.translations.push(Translation { start, end, source, text, score, cut });
        }
    }
}
