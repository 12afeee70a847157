//! How likely a stream's units are, one after the other: P(y₁ … y_m) = Π P(y_t | y_1 … y_(t-1)).
//!
//! The output of the network after y_(t-1) tells of y_t; before the first unit a vector tells of it that was learnt. The
//! end of a stream is no unit: nothing is said of how likely it is that a stream ends. A unit's *surprise* is -ln P of
//! it, in nats, as f32; the stream's ln P is the sum of these numbers, in f64, in their order.

use super::adaptive::UnitScratch;
use super::network::Network;
use super::{Model, Output, Session, StepLabel, Stepper};
use crate::encode::Chord;
use std::ops::Range;

/// Bytes of a [`Likelihood`] in a saved state.
pub(super) const LIKELIHOOD_BYTES: usize = 16;

/// How likely a stream was since its start, or its last reset.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Likelihood {
    /// ln P of all units together, in nats; not above 0.
    pub log_probability: f64,
    pub units: u64,
}

impl Likelihood {
    fn add(&mut self, surprise: f32) {
        self.log_probability -= f64::from(surprise);
        self.units += 1;
    }

    /// -ln P of a unit, on average; none before the first.
    pub fn nats_per_unit(&self) -> Option<f64> {
        (self.units > 0).then(|| -self.log_probability / self.units as f64)
    }

    pub fn bits_per_unit(&self) -> Option<f64> {
        self.nats_per_unit().map(|nats| nats / std::f64::consts::LN_2)
    }

    /// e^nats: of so many equally likely units each one would be as surprising.
    pub fn perplexity(&self) -> Option<f64> {
        self.nats_per_unit().map(f64::exp)
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.log_probability.to_bits().to_le_bytes());
        out.extend_from_slice(&self.units.to_le_bytes());
    }

    /// Whether a stream of so many steps can be as likely.
    pub(super) fn is_possible(&self, steps: u64) -> bool {
        self.log_probability <= 0.0 && self.log_probability.is_finite() && self.units <= steps
    }
}

/// Working space of [`Stepper::weigh`].
#[derive(Debug, Default)]
pub(super) struct Weighing {
    x: Vec<f32>,
    units: Vec<u32>,
    chords: Vec<Chord>,
    surprises: Vec<f32>,
    scratch: UnitScratch,
}

impl Session {
    /// What tells of the next unit, `[top]`.
    pub(super) fn context<'a>(&'a self, network: &'a Network) -> &'a [f32] {
        match self.pool.split_first() {
            Some((begun, output)) if *begun > 0.0 => output,
            _ => network.start(self.reader.class().unwrap_or(0)),
        }
    }

    /// A language model's ln P of each unit of its vocabulary, should it come next; unit 0 stands for all unknown ones.
    /// Call with nothing waiting.
    pub fn next_unit(&self, model: &Model) -> Vec<f64> {
        model.network.log_probabilities(self.context(&model.network))
    }

    /// How likely the stream was so far, of a language model.
    pub fn likelihood(&self, model: &Model) -> Option<Likelihood> {
        model.network.shape().tells_next().then_some(self.likelihood)
    }

    /// Puts into `output` how likely the stream was so far, unless it is there.
    pub fn tell(&self, model: &Model, output: &mut Output) {
        output.likelihood = output.likelihood.or(self.likelihood(model));
    }
}

impl Stepper {
    /// Takes the network's outputs of those of the waiting steps: what the units before them said of these units.
    pub(super) fn weigh(
        &mut self,
        model: &Model,
        steps: Range<usize>,
        sessions: &mut [&mut Session],
        outputs: &mut [Output],
    ) {
        let (network, tables) = (&model.network, model.encoder.layout().tables.len());
        let (top, notes) = (network.shape().top(), network.shape().written.notes);
        let threshold = model.spec.language.as_ref().and_then(|language| language.threshold);
        let Weighing { x, units, chords, surprises, scratch } = &mut self.weighing;
        x.clear();
        units.clear();
        chords.clear();
        surprises.clear();
        for (session, h) in sessions.iter_mut().zip(&self.probabilities) {
            let count = h.len() / top;
            let Some(last) = count.checked_sub(1) else { continue };
            x.extend_from_slice(session.context(network));
            x.extend_from_slice(&h[..last * top]);
            match notes {
                Some(lowest) => chords.extend((steps.start..steps.start + count).map(|k| {
                    let columns = session.features.dense_of(k, model.encoder.layout());
                    Chord::of_columns(&columns[..network.shape().classes], lowest)
                })),
                None => {
                    units.extend(session.features.ids.iter().skip(steps.start * tables).step_by(tables).take(count))
                }
            }
            session.pool[0] = 1.0;
            session.pool[1..].copy_from_slice(&h[last * top..]);
        }
        match notes {
            Some(lowest) => network.surprises_of_chords(x, chords, lowest, surprises),
            None => network.surprises(x, units, scratch, surprises),
        }
        let mut told = surprises.iter();
        for ((session, output), h) in sessions.iter_mut().zip(outputs).zip(&self.probabilities) {
            for (k, &surprise) in (0..h.len() / top).map(|k| steps.start + k).zip(told.by_ref()) {
                let unit = &mut session.units[k];
                let text = std::mem::take(&mut unit.text);
                let label = match model.spec.generate {
                    Some(_) => usize::from(session.generation.drawing),
                    None => usize::from(threshold.is_some_and(|threshold| f64::from(surprise) > threshold)),
                };
                let (start, end, score) = (unit.start, unit.end, (-surprise).exp());
                output.labels.push(StepLabel { start, end, text, label, score });
                output.surprises.push(surprise);
                let ids = &session.features.ids[k * tables..(k + 1) * tables];
                output.unknown += usize::from(model.encoder.is_unknown(ids));
                session.likelihood.add(surprise);
            }
            if !h.is_empty() {
                output.likelihood = Some(session.likelihood);
            }
        }
    }
}
