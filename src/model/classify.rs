//! One class for a stream: outputs pooled step by step ([`super::pool`]), estimates on the way and at the end.
//!
//! What an estimate covers, from the first step since the stream's start (or its last reset) to the last, is carried as
//! the session's open span, with no label.

use super::network::{Lane, Network, Scratch};
use super::{ClassifySpec, Model, Output, Session, Span, StepLabel};
use crate::encode::Features;
use crate::rnn::kernel;
use std::ops::Range;

impl Session {
    /// Takes the network's `outputs` of those of the waiting steps; estimates that are due are appended to `output`.
    pub(super) fn pool(
        &mut self,
        model: &Model,
        classify: &ClassifySpec,
        steps: Range<usize>,
        outputs: &[f32],
        output: &mut Output,
    ) {
        let network = &model.network;
        let (top, tables) = (network.shape().top(), model.encoder.layout().tables.len());
        for (k, h) in steps.zip(outputs.chunks_exact(top)) {
            classify.pooling.push(&mut self.pool, h, network.query());
            let unit = &self.units[k];
            match &mut self.spans.open {
                Some(covered) => covered.end = unit.end,
                none => *none = Some(Span { start: unit.start, end: unit.end, label: String::new() }),
            }
            output.unknown += usize::from(model.encoder.is_unknown(&self.features.ids[k * tables..(k + 1) * tables]));
            if classify.every.is_some_and(|every| (self.steps + k as u64 + 1).is_multiple_of(every)) {
                self.estimate(model, output);
            }
        }
    }

    /// A classifier's class for what the stream was so far is appended to `output`; nothing where it has had no step, or
    /// from a model of another task. Call with nothing waiting.
    pub fn estimate(&self, model: &Model, output: &mut Output) {
        let (Some(classify), Some(covered)) = (&model.spec.classify, &self.spans.open) else { return };
        let Some(vector) = classify.pooling.vector(&self.pool) else { return };
        let mut p = Vec::new();
        model.network.logits(vector, 1, &mut p);
        probabilities(&mut p, classify.temperature);
        let (label, score) = super::session::best(&p, &model.class_label, p.len(), &mut Vec::new());
        output.labels.push(StepLabel { start: covered.start, end: covered.end, text: String::new(), label, score });
        output.probabilities.extend(p);
    }

    /// As [`Session::estimate`], for the last time.
    pub(super) fn conclude_class(&mut self, model: &Model, output: &mut Output) {
        if model.spec.classify.is_some() {
            self.estimate(model, output);
            self.spans.open = None;
        }
        self.tell(model, output);
    }
}

/// Turns one row of logits into probabilities.
pub fn probabilities(logits: &mut [f32], temperature: f64) {
    let temperature = temperature as f32;
    logits.iter_mut().for_each(|x| *x /= temperature);
    (kernel::active().softmax_rows)(logits.len(), logits);
}

/// The logits of whole streams, each from its start; those of a stream without a step are empty.
pub fn logits(network: &Network, streams: &[&Features], scratch: &mut Scratch) -> Vec<Vec<f32>> {
    let Some(pooling) = network.shape().pool else { return vec![Vec::new(); streams.len()] };
    let top = network.shape().top();
    let mut states = vec![vec![0.0; network.state_len()]; streams.len()];
    let mut pools = vec![vec![0.0; network.pool_len()]; streams.len()];
    let longest = streams.iter().map(|stream| stream.steps).max().unwrap_or(0);
    let at_once = (super::network::MAX_NUMBERS / (top * streams.len().max(1))).max(1);
    let mut outputs = vec![Vec::new(); streams.len()];
    for from in (0..longest).step_by(at_once) {
        outputs.iter_mut().for_each(Vec::clear);
        let mut lanes: Vec<Lane<'_>> = (streams.iter().zip(&mut states).zip(&mut outputs))
            .filter(|((features, _), _)| features.steps > from)
            .map(|((features, state), probabilities)| Lane { features, state, probabilities })
            .collect();
        network.outputs_range(&mut lanes, from..from + at_once, scratch);
        for (pool, outputs) in pools.iter_mut().zip(&outputs) {
            for h in outputs.chunks_exact(top) {
                pooling.push(pool, h, network.query());
            }
        }
    }
    let of = |pool: &Vec<f32>| {
        let mut logits = Vec::new();
        if let Some(vector) = pooling.vector(pool) {
            network.logits(vector, 1, &mut logits);
        }
        logits
    };
    pools.iter().map(of).collect()
}
