//! A session's state as bytes.
//!
//! ```text
//! version u8 | model fingerprint 32 | steps u64 | open span: 0, or 1 start u64 end u64 length u32 label
//! | reader state (encode::ReaderState) | steps that wait for their label (decode::Decoding, of a model with [decode])
//! | symbols that are not final (transcribe::Transcript, of a transcriber)
//! | genes that wait (genes::Genes, of a model that finds genes)
//! | numbers u32, each as the version says
//! | what is pooled, f32 each, as many as the model says (none but for classifiers and language models)
//! | of a language model, and of one that generates: ln P of the stream f64, its units u64
//! | of one that generates: how the stream is written (`generate::Generation`)
//! | the steps that wait, if the model looks ahead (`waiting`) | crc32 u32 of all before
//! ```
//! Little-endian. Version 1: f32, bit for bit; version 2: bf16, for a session that keeps them so.

use super::decode::Decoding;
use super::generate::Generation;
use super::genes::Genes;
use super::language::{LIKELIHOOD_BYTES, Likelihood};
use super::numbers::{Numbers, StatePrecision};
use super::transcribe::Transcript;
use super::{Model, Session, Span, SpanDecoder, waiting};
use crate::encode::{ReaderState, Unit};

/// The latest version.
const VERSION: u8 = 2;

fn version_of(precision: StatePrecision) -> u8 {
    match precision {
        StatePrecision::F32 => 1,
        StatePrecision::Bf16 => 2,
    }
}

/// How the numbers of a state of this version are kept.
fn precision_of(version: u8) -> Result<StatePrecision, StateError> {
    match version {
        1 => Ok(StatePrecision::F32),
        2 => Ok(StatePrecision::Bf16),
        found => Err(StateError::OtherFormat { found, expected: VERSION }),
    }
}

/// Why a saved state could not be taken up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    #[error("the state was made by another model (fingerprint {found}, this model has {expected})")]
    OtherModel { found: String, expected: String },
    #[error("the state is in format {found}; this build reads formats up to {expected}")]
    OtherFormat { found: u8, expected: u8 },
    #[error("the state is damaged: {0}")]
    Damaged(String),
}

/// Reads little-endian fields one after the other.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    #[cfg(test)]
    pub fn of(bytes: &'a [u8]) -> Fields<'a> {
        Fields(bytes)
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take(&mut self, n: usize) -> Result<&'a [u8], StateError> {
        let (head, rest) = self
            .0
            .split_at_checked(n)
            .ok_or_else(|| StateError::Damaged(format!("it ends where {n} more bytes are expected")))?;
        self.0 = rest;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    pub fn u32(&mut self) -> Result<u32, StateError> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, StateError> {
        self.array().map(u64::from_le_bytes)
    }

    /// The inverse of [`put_unit`].
    pub fn unit(&mut self) -> Result<Unit, StateError> {
        let damaged = |what: &str| StateError::Damaged(format!("a step that waits {what}"));
        let (start, end, length) = (self.u64()?, self.u64()?, self.u32()?);
        let text = std::str::from_utf8(self.take(length as usize)?).map_err(|_| damaged("is not UTF-8"))?;
        if start >= end {
            return Err(damaged("ends before it starts"));
        }
        Ok(Unit { start, end, text: text.to_string() })
    }
}

/// Appends a unit that waits: `start u64 end u64 length u32 text`.
pub(super) fn put_unit(out: &mut Vec<u8>, unit: &Unit) {
    out.extend_from_slice(&unit.start.to_le_bytes());
    out.extend_from_slice(&unit.end.to_le_bytes());
    out.extend_from_slice(&(unit.text.len() as u32).to_le_bytes());
    out.extend_from_slice(unit.text.as_bytes());
}

impl Session {
    /// The state as bytes: version, model fingerprint, everything carried, checksum. Call with nothing
    /// [ready](Session::ready).
    pub fn encode(&self, model: &Model, out: &mut Vec<u8>) {
        assert_eq!(self.ready(), 0, "a session is saved between steps");
        let from = out.len();
        out.push(version_of(self.state.precision()));
        out.extend_from_slice(&model.fingerprint);
        out.extend_from_slice(&self.steps.to_le_bytes());
        match &self.spans.open {
            None => out.push(0),
            Some(span) => {
                out.push(1);
                out.extend_from_slice(&span.start.to_le_bytes());
                out.extend_from_slice(&span.end.to_le_bytes());
                out.extend_from_slice(&(span.label.len() as u32).to_le_bytes());
                out.extend_from_slice(span.label.as_bytes());
            }
        }
        self.reader.encode(out);
        if model.decoder.is_some() {
            self.decoding.encode(out);
        }
        if model.transcriber.is_some() {
            self.transcript.encode(out);
        }
        if model.genes.is_some() {
            self.genes.encode(out);
        }
        out.extend_from_slice(&(self.state.len() as u32).to_le_bytes());
        self.state.encode(out);
        self.pool.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
        if model.network.shape().tells_next() {
            self.likelihood.encode(out);
        }
        if model.spec.generate.is_some() {
            self.generation.encode(out);
        }
        if self.window.is_some() {
            waiting::encode(self, model, out);
        }
        let sum = crc32fast::hash(&out[from..]);
        out.extend_from_slice(&sum.to_le_bytes());
    }

    /// The fingerprint of the model that made this state; what else is in it is not looked at.
    pub fn fingerprint(bytes: &[u8]) -> Result<String, StateError> {
        let mut fields = Fields(bytes);
        let [version] = fields.array()?;
        precision_of(version)?;
        Ok(fields.take(32)?.iter().map(|b| format!("{b:02x}")).collect())
    }

    /// Whether the model with this fingerprint made this state; what else is in it is not looked at.
    pub fn is_made_by(bytes: &[u8], fingerprint: &str) -> bool {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let Some((1..=VERSION, rest)) = bytes.split_first() else { return false };
        let Some(found) = rest.first_chunk::<32>() else { return false };
        let digits = found.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| DIGITS[usize::from(digit)]);
        digits.eq(fingerprint.bytes())
    }

    /// The inverse of [`Session::encode`].
    pub fn decode(model: &Model, bytes: &[u8]) -> Result<Session, StateError> {
        let damaged = |what: &str| StateError::Damaged(what.to_string());
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or_else(|| damaged("it is empty"))?;
        let mut fields = Fields(body);
        let [version] = fields.array()?;
        let precision = precision_of(version)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*sum) {
            return Err(damaged("its checksum does not fit"));
        }
        let fingerprint = fields.take(32)?;
        if fingerprint != model.fingerprint {
            let found = fingerprint.iter().map(|b| format!("{b:02x}")).collect();
            return Err(StateError::OtherModel { found, expected: model.fingerprint().to_string() });
        }
        let steps = fields.u64()?;
        if steps > u64::MAX / 2 {
            return Err(damaged("its number of steps is impossible"));
        }
        let open = match fields.array()? {
            [0u8] => None,
            [1u8] => {
                let (start, end, len) = (fields.u64()?, fields.u64()?, fields.u32()?);
                let label = std::str::from_utf8(fields.take(len as usize)?).map_err(|_| damaged("its open span"))?;
                Some(Span { start, end, label: label.to_string() })
            }
            _ => return Err(damaged("its open span is neither there nor absent")),
        };
        let (reader, used) = ReaderState::decode(fields.0).map_err(StateError::Damaged)?;
        fields.take(used)?;
        let decoding = match &model.decoder {
            Some(decoder) => Decoding::decode(&mut fields, decoder)?,
            None => Decoding::default(),
        };
        let transcript = match &model.transcriber {
            Some(transcriber) => Transcript::decode(&mut fields, transcriber)?,
            None => Transcript::default(),
        };
        let genes = match &model.genes {
            Some(finder) => Genes::decode(&mut fields, finder)?,
            None => Genes::default(),
        };
        let count = fields.u32()? as usize;
        let mut session = Session::new(model);
        let (numbers, pooled) = (precision.bytes() * session.state.len(), 4 * session.pool.len());
        let tells_next = model.network.shape().tells_next();
        let likelihood = if tells_next { LIKELIHOOD_BYTES } else { 0 };
        if count != session.state.len() || fields.0.len() < numbers + pooled + likelihood {
            return Err(damaged("its length does not fit the model"));
        }
        session.state = Numbers::decode(fields.take(numbers)?, precision);
        for (x, bytes) in session.pool.iter_mut().zip(fields.take(pooled)?.as_chunks().0) {
            *x = f32::from_le_bytes(*bytes);
        }
        if tells_next {
            let (log_probability, units) = (f64::from_bits(fields.u64()?), fields.u64()?);
            session.likelihood = Likelihood { log_probability, units };
            if !session.likelihood.is_possible(steps) || ![0.0, 1.0].contains(&session.pool[0]) {
                return Err(damaged("its probability is impossible"));
            }
        }
        if let Some(generate) = &model.spec.generate {
            if reader.class().is_some_and(|class| class >= generate.classes.len().max(1)) {
                return Err(damaged("its class is none of the model's"));
            }
            session.generation = Generation::decode(&mut fields, generate)?;
        }
        if session.window.is_some() {
            (session.units, session.features) = waiting::decode(&mut fields, model)?;
        }
        if !fields.0.is_empty() {
            return Err(damaged("its length does not fit the model"));
        }
        session.reader = reader;
        session.decoding = decoding;
        session.transcript = transcript;
        session.genes = genes;
        session.spans = SpanDecoder { open };
        session.steps = steps;
        Ok(session)
    }
}
