//! A trained model: what is in its directory, loaded and checked, ready to label streams.
//!
//! [`Model`] is immutable and shared; [`session::Session`] is one stream's state; [`session::Stepper`] is one engine
//! thread's scratch space, which steps many sessions together.

pub mod session;
pub mod spans;
pub mod spec;

pub use session::{Output, Session, StateError, StepLabel, Stepper};
pub use spans::{Span, SpanDecoder};
pub use spec::{ModelError, ModelSpec, Scheme, Task};

use crate::encode::Encoder;
use std::path::Path;

/// A model read from its directory. Immutable: share it with `Arc`.
#[derive(Debug)]
pub struct Model {
    spec: ModelSpec,
    encoder: Encoder,
    fingerprint: String,
}

impl Model {
    /// Reads `model.toml`, `weights.safetensors` and the vocabularies in `dir`, and checks that they fit together.
    pub fn load(dir: &Path) -> Result<Model, ModelError> {
        let _ = dir;
        unimplemented!("the engine's author writes this")
    }

    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// SHA-256 (hex) over everything that decides what labels come out; a saved state carries it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}
