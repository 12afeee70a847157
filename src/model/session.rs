//! One stream's life: [`Session`] holds everything that is carried from record to record; [`Stepper`] runs the
//! network over the waiting steps of many sessions at once.

use super::{Model, Span};
use crate::encode::{InputError, InputFormat, ReaderState};
use std::sync::Arc;

/// Everything a stream carries: unfinished input, steps that wait for the network, h and c of every layer, the open
/// span, positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    reader: ReaderState,
}

/// The label of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepLabel {
    pub start: u64,
    pub end: u64,
    pub text: String,
    /// Index into [`super::ModelSpec::labels`].
    pub label: usize,
    /// Probability of the label, 0..=1.
    pub score: f32,
}

/// What became final: labels in order of the stream, and spans that closed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Output {
    pub labels: Vec<StepLabel>,
    pub spans: Vec<Span>,
    /// Steps whose word or event was not in the vocabulary.
    pub unknown: usize,
}

/// Why a saved state could not be taken up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("the state was made by another model (fingerprint {found}, this model has {expected})")]
    OtherModel { found: String, expected: String },
    #[error("the state is in format {found}; this build reads format {expected}")]
    OtherFormat { found: u8, expected: u8 },
    #[error("the state is damaged: {0}")]
    Damaged(String),
}

impl Session {
    /// A stream that has seen nothing.
    pub fn new(model: &Model) -> Session {
        let _ = model;
        unimplemented!()
    }

    /// Takes a piece of the stream; whole units wait for [`Stepper::step`]. On an error the session is unchanged.
    pub fn push(&mut self, model: &Model, format: InputFormat, bytes: &[u8]) -> Result<(), InputError> {
        let _ = (model, format, bytes);
        unimplemented!()
    }

    /// Takes given tokens (from CoNLL files).
    pub fn push_tokens(&mut self, model: &Model, tokens: &[String]) {
        let _ = (model, tokens);
        unimplemented!()
    }

    /// The unfinished unit (a word without its end) is complete as it stands; the stream goes on (`flush`) or ends.
    /// On an error (the pending bytes are no whole character, say) what was pending is dropped.
    pub fn finish_unit(&mut self, model: &Model) -> Result<(), InputError> {
        let _ = model;
        unimplemented!()
    }

    /// Steps that wait for the network.
    pub fn waiting(&self) -> usize {
        unimplemented!()
    }

    /// Sets h and c to zero and closes the open span (returned); positions go on. Call with nothing waiting.
    pub fn reset(&mut self) -> Option<Span> {
        unimplemented!()
    }

    /// Closes the open span: the stream is over. Call with nothing waiting.
    pub fn end(&mut self) -> Option<Span> {
        unimplemented!()
    }

    /// Bytes of memory this session holds, about.
    pub fn memory(&self) -> usize {
        unimplemented!()
    }

    /// The state as bytes: version, model fingerprint, everything carried (f32 exact), checksum. Call with nothing
    /// waiting.
    pub fn encode(&self, model: &Model, out: &mut Vec<u8>) {
        let _ = (model, out);
        unimplemented!()
    }

    /// The inverse of [`Session::encode`].
    pub fn decode(model: &Model, bytes: &[u8]) -> Result<Session, StateError> {
        let _ = (model, bytes);
        unimplemented!()
    }
}

/// One engine thread: the model and the scratch space of its steps.
pub struct Stepper {
    model: Arc<Model>,
}

impl Stepper {
    pub fn new(model: Arc<Model>) -> Stepper {
        Stepper { model }
    }

    /// Steps everything that waits in `sessions`, together; what became final is appended to `outputs[k]` for
    /// `sessions[k]`. Bit for bit the same however the sessions are batched and their input was cut.
    pub fn step(&mut self, sessions: &mut [&mut Session], outputs: &mut [Output]) {
        let _ = (&self.model, sessions, outputs);
        unimplemented!()
    }
}
