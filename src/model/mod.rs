//! A trained model: what is in its directory, loaded and checked, ready to label streams.
//!
//! [`Model`] is immutable and shared; [`Session`] is one stream's state; [`Stepper`] is one engine thread's scratch
//! space, which steps many sessions together.
//!
//! ```no_run
//! use std::{path::Path, sync::Arc};
//! use strand::model::{Model, Output, Session, Stepper};
//!
//! let model = Arc::new(Model::load(Path::new("models/ner-en"))?);
//! let mut stepper = Stepper::new(model.clone());
//! let mut session = Session::new(&model);
//! for piece in ["Ada Love", "lace was born in Lon", "don. "] {
//!     let mut output = Output::default();
//!     session.push(&model, model.encoder().format(), piece.as_bytes())?;
//!     stepper.step(&mut [&mut session], std::slice::from_mut(&mut output));
//!     for l in &output.labels {
//!         println!("{}..{} {} {}", l.start, l.end, l.text, model.spec().labels[l.label]);
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod adaptive;
pub mod classify;
pub mod decode;
pub mod generate;
pub mod genes;
pub mod language;
pub mod lookahead;
mod lookup;
pub mod network;
pub mod notes;
mod numbers;
pub mod params;
pub mod pool;
pub mod sample;
pub mod session;
pub mod spans;
pub mod spec;
mod state;
pub mod testing;
pub mod transcribe;
pub mod transduce;
mod waiting;
mod wavefront;
mod weights;

pub use decode::{DecodeKind, DecodeSpec};
pub use generate::GenerateSpec;
pub use genes::{Gene, GenesSpec};
pub use language::Likelihood;
pub use lookahead::LookAhead;
pub use numbers::StatePrecision;
pub use pool::Pooling;
pub use sample::{Sampler, SamplerSpec};
pub use session::{Output, Session, StepLabel, Stepper};
pub use spans::{Span, SpanDecoder};
pub use spec::{ClassifySpec, LanguageSpec, ModelError, ModelSpec, Scheme, Softmax, Task};
pub use state::StateError;
pub use transduce::{Attention, DecoderSpec, Translation};

use crate::encode::Encoder;
use crate::encode::units::Units;
use crate::rnn::matrix::Precision;
use decode::Decoder;
use genes::GeneFinder;
use network::Network;
use params::{NetShape, Params};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::path::Path;
use transcribe::Transcriber;
use transduce::Translator;
use weights::Stored;

/// Numbers that are handed to the hash of the fingerprint at once.
const HASHED_TOGETHER: usize = 1 << 12;

/// A model read from its directory. Immutable: share it with `Arc`.
#[derive(Debug)]
pub struct Model {
    spec: ModelSpec,
    encoder: Encoder,
    network: Network,
    /// The label that each class of the network counts for.
    class_label: Vec<usize>,
    /// For labels that depend on their neighbours'.
    decoder: Option<Decoder>,
    /// For the task `transcribe`.
    transcriber: Option<Transcriber>,
    /// For the task `transduce`; `network` is an empty one then.
    translator: Option<Translator>,
    /// For genes.
    genes: Option<GeneFinder>,
    fingerprint: [u8; 32],
    fingerprint_hex: String,
    parameters: usize,
}

impl Model {
    /// Reads `model.toml`, `weights.safetensors` and the vocabularies in `dir`, and checks that they fit together and are
    /// what was written.
    pub fn load(dir: &Path) -> Result<Model, ModelError> {
        Model::load_as(dir, None)
    }

    /// As [`Model::load`], with the weights in this precision, or else in that of `model.toml`. The fingerprint is that of
    /// the files, so states go from one precision to another.
    pub fn load_as(dir: &Path, precision: Option<Precision>) -> Result<Model, ModelError> {
        let mut parts = Parts::load(dir)?;
        parts.spec.precision = precision.unwrap_or(parts.spec.precision);
        Model::of_parts(parts, dir)
    }

    /// The model that was read from `dir`.
    fn of_parts(parts: Parts, dir: &Path) -> Result<Model, ModelError> {
        let invalid = |detail| ModelError::Invalid { path: dir.join("model.toml"), detail };
        let Parts { spec, encoder, target, params } = parts;
        let model = match target {
            Some(target) => Model::of_translator(spec, encoder, &target, &params),
            None => Model::with_params(spec, encoder, Cow::Owned(params)),
        };
        let model = model.map_err(invalid)?;
        match &model.spec.fingerprint {
            Some(expected) if *expected != model.fingerprint_hex => Err(invalid(format!(
                "the fingerprint should be {expected:.12}…, but that of the files is {:.12}…: one of them is damaged or \
                 was exchanged. Get the model anew; after a change on purpose, delete the line \"fingerprint\"",
                model.fingerprint_hex
            ))),
            _ => Ok(model),
        }
    }

    /// Reads the model in `dir`, rounds its weights to this precision and writes it to `to`, with its model card.
    pub fn quantize(dir: &Path, to: &Path, precision: Precision) -> Result<(), ModelError> {
        let parts = Parts::load(dir)?;
        let (target, params) = (parts.target.clone(), parts.params.rounded(precision));
        // Whatever is wrong with it is told before anything is written.
        let Model { spec, encoder, .. } = Model::of_parts(parts, dir)?;
        let spec = ModelSpec { precision, ..spec };
        match target {
            Some(target) => Model::save_translator(to, &spec, &encoder, &target, &params)?,
            None => Model::save(to, &spec, &encoder, &params)?,
        }
        let card = dir.join("README.md");
        if card.is_file() {
            let to = to.join("README.md");
            std::fs::copy(&card, &to).map_err(|source| ModelError::Write { path: to, source })?;
        }
        Ok(())
    }

    /// A model from its parts.
    pub fn new(spec: ModelSpec, encoder: Encoder, params: &Params<f32>) -> Result<Model, String> {
        Model::with_params(spec, encoder, Cow::Borrowed(params))
    }

    /// As [`Model::new`]; of parameters that are handed over, what the network keeps as it is need not be copied.
    fn with_params(spec: ModelSpec, encoder: Encoder, params: Cow<'_, Params<f32>>) -> Result<Model, String> {
        let class_label = spec.class_labels()?;
        let shape = NetShape::of(&spec, encoder.layout())?;
        shape.check()?;
        // The hash takes about as long as packing the weights: one processor for each.
        let (fingerprint, packed) = std::thread::scope(|scope| {
            let hashed = scope.spawn(|| fingerprint(&spec, &encoder, None, &params));
            let packed = Network::without_tables(&shape, &in_use(&spec, &params), spec.precision);
            (hashed.join(), packed)
        });
        let fingerprint = fingerprint.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Model {
            class_label,
            decoder: Decoder::new(&spec, &shape, &params)?,
            transcriber: Transcriber::new(&spec),
            translator: None,
            genes: GeneFinder::new(&spec)?,
            fingerprint_hex: hex(&fingerprint),
            fingerprint,
            parameters: params.count(),
            network: packed.with_tables(params),
            spec,
            encoder,
        })
    }

    /// A translator from its parts.
    pub fn of_translator(
        spec: ModelSpec,
        encoder: Encoder,
        target: &Units,
        params: &Params<f32>,
    ) -> Result<Model, String> {
        let translator = Translator::new(&spec, &encoder, target, params)?;
        let fingerprint = fingerprint(&spec, &encoder, Some(&translator.target), params)?;
        Ok(Model {
            network: Network::empty(),
            class_label: Vec::new(),
            decoder: None,
            transcriber: None,
            genes: None,
            translator: Some(translator),
            fingerprint_hex: hex(&fingerprint),
            fingerprint,
            parameters: params.count(),
            spec,
            encoder,
        })
    }

    /// Writes the directory of a translator that [`Model::load`] reads (without the model card).
    pub fn save_translator(
        dir: &Path,
        spec: &ModelSpec,
        encoder: &Encoder,
        target: &Units,
        params: &Params<f32>,
    ) -> Result<(), ModelError> {
        let invalid = |detail| ModelError::Invalid { path: dir.to_path_buf(), detail };
        let fingerprint = hex(&fingerprint(spec, encoder, Some(target), params).map_err(invalid)?);
        Model::write(dir, spec, encoder, params, fingerprint)?;
        target.save(&dir.join(transduce::TARGET_FILE)).map_err(|e| invalid(e.to_string()))
    }

    /// Writes a model directory that [`Model::load`] reads (without the model card).
    pub fn save(dir: &Path, spec: &ModelSpec, encoder: &Encoder, params: &Params<f32>) -> Result<(), ModelError> {
        let invalid = |detail| ModelError::Invalid { path: dir.to_path_buf(), detail };
        let fingerprint = hex(&fingerprint(spec, encoder, None, params).map_err(invalid)?);
        Model::write(dir, spec, encoder, params, fingerprint)
    }

    fn write(
        dir: &Path,
        spec: &ModelSpec,
        encoder: &Encoder,
        params: &Params<f32>,
        fingerprint: String,
    ) -> Result<(), ModelError> {
        std::fs::create_dir_all(dir).map_err(|source| ModelError::Write { path: dir.to_path_buf(), source })?;
        ModelSpec { fingerprint: Some(fingerprint), ..spec.clone() }.save(dir)?;
        encoder.save(dir).map_err(|e| ModelError::Invalid { path: dir.to_path_buf(), detail: e.to_string() })?;
        params.save(&dir.join("weights.safetensors"), spec.precision)
    }

    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// SHA-256 (hex) over everything that decides what labels come out; a saved state carries it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint_hex
    }
}

/// What a model directory holds.
struct Parts {
    spec: ModelSpec,
    encoder: Encoder,
    /// What a translator writes.
    target: Option<Units>,
    params: Params<f32>,
}

impl Parts {
    fn load(dir: &Path) -> Result<Parts, ModelError> {
        let spec = ModelSpec::load(dir)?;
        let invalid = |detail| ModelError::Invalid { path: dir.join("model.toml"), detail };
        // The weights are read while the vocabularies are.
        let path = dir.join("weights.safetensors");
        let (encoder, stored) = std::thread::scope(|scope| {
            let stored = scope.spawn(|| Stored::read(&path));
            (Encoder::load(&spec.encoder, dir), stored.join())
        });
        let encoder = encoder.map_err(|e| invalid(e.to_string()))?;
        let encoder = encoder.with_classes(spec.stream_classes().len());
        let stored = stored.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // Whether they could be read is told once it is known that the rest is in order.
        let (target, params) = if spec.task == Task::Transduce {
            let (target, params) = transduce::load(&spec, &encoder, dir, stored)?;
            (Some(target), params)
        } else {
            let shape = NetShape::of(&spec, encoder.layout()).map_err(invalid)?;
            shape.check().map_err(invalid)?;
            (None, Params::of_stored(&shape, stored?)?)
        };
        Ok(Parts { spec, encoder, target, params })
    }
}

/// The weights as the model's precision leaves them.
fn in_use<'a>(spec: &ModelSpec, params: &'a Params<f32>) -> Cow<'a, Params<f32>> {
    match spec.precision {
        Precision::F32 => Cow::Borrowed(params),
        narrow => Cow::Owned(params.rounded(narrow)),
    }
}

/// SHA-256 over everything that decides what labels come out.
fn fingerprint(
    spec: &ModelSpec,
    encoder: &Encoder,
    target: Option<&Units>,
    params: &Params<f32>,
) -> Result<[u8; 32], String> {
    let mut hash = Sha256::new();
    let decides = (&spec.scheme, &spec.labels, &spec.outside, &spec.classes, &spec.encoder, &spec.layers);
    hash.update(serde_json::to_vec(&decides).map_err(|e| e.to_string())?);
    if let Some(classify) = &spec.classify {
        hash.update(serde_json::to_vec(classify).map_err(|e| e.to_string())?);
    }
    if let Some(look_ahead) = &spec.look_ahead {
        hash.update(serde_json::to_vec(look_ahead).map_err(|e| e.to_string())?);
    }
    if let Some(language) = &spec.language {
        hash.update(serde_json::to_vec(language).map_err(|e| e.to_string())?);
    }
    if let Some(generate) = &spec.generate {
        hash.update(serde_json::to_vec(generate).map_err(|e| e.to_string())?);
    }
    if let Some(decode) = &spec.decode {
        hash.update(serde_json::to_vec(decode).map_err(|e| e.to_string())?);
    }
    if let Some(decoder) = &spec.decoder {
        hash.update(serde_json::to_vec(decoder).map_err(|e| e.to_string())?);
    }
    if let Some(genes) = &spec.genes {
        hash.update(serde_json::to_vec(genes).map_err(|e| e.to_string())?);
    }
    encoder.fingerprint_into(&mut hash);
    if let Some(target) = target {
        target.fingerprint_into(&mut hash);
    }
    let mut bytes = vec![0; 4 * HASHED_TOGETHER];
    for at in 0..params.len() {
        hash.update(params.name(at));
        for numbers in params.slice(at).chunks(HASHED_TOGETHER) {
            let bytes = &mut bytes[..4 * numbers.len()];
            bytes.chunks_exact_mut(4).zip(numbers).for_each(|(bytes, x)| bytes.copy_from_slice(&x.to_le_bytes()));
            hash.update(bytes);
        }
    }
    Ok(hash.finalize().into())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
