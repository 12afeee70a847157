//! From probabilities to labels where a label depends on its neighbours': only legal IOB2 sequences, or a linear-chain
//! CRF, both by a Viterbi search with a fixed lag.
//!
//! Step t gets its label once step t + lag is there, or the stream is flushed, reset or over. It is the first label of
//! the best path through the steps that wait, t … t + lag, that goes on from the last label published:
//!
//! ```text
//! s(y_t … y_T) = a(y_{t-1}, y_t) + ln p_t(y_t) + Σ_{k=t+1}^{T} a(y_{k-1}, y_k) + ln p_k(y_k)    (+ b(y_T) at the end)
//! ```
//!
//! with a the transitions (at a stream's start a(·, j) are the start scores), b the end scores and p the network's
//! probabilities `[labels]`. What was published is never looked at again but through y_{t-1}, so a stream's labels as a
//! whole obey the transitions, and a session carries no more than `lag` steps (Lafferty, McCallum and Pereira 2001;
//! Viterbi 1967). How a CRF is trained is in [`crate::train::crf`].

use super::params::{NetShape, Params};
use super::state::{Fields, StateError, put_unit};
use super::{Model, ModelSpec, Output, Scheme, Session, StepLabel, Task, transcribe};
use crate::encode::Unit;
use crate::rnn::kernel::portable::exp_f32;
use serde::{Deserialize, Serialize};

/// The longest lag: what waits is part of a stream's state, and is gone through with every step.
pub const MAX_LAG: usize = 64;
/// The most labels that are decoded together.
pub const MAX_LABELS: usize = 256;
/// The largest score of a CRF, either way: sums of such keep their meaning in f32.
const MAX_SCORE: f32 = 1e6;
/// A probability counts as no less, so that its logarithm is finite.
const LEAST: f32 = f32::MIN_POSITIVE;

/// How labels are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecodeKind {
    /// The likeliest label of each step by itself.
    #[default]
    Argmax,
    /// The likeliest of the sequences in which `I-X` follows `B-X` or `I-X`; for scheme `bio`.
    Legal,
    /// The likeliest sequence by learnt transition, start and end scores; of the legal ones for scheme `bio`.
    Crf,
    /// For the task `transcribe`: the likeliest class of each step.
    Greedy,
    /// For the task `transcribe`: the likeliest transcripts by a prefix beam search.
    Beam,
    /// Labels as with argmax, and genes as spans; for scheme `runs` with codon positions. See [`super::genes`].
    Genes,
}

/// `[decode]`: how labels are chosen from the network's probabilities.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeSpec {
    pub kind: DecodeKind,
    /// Steps that a label waits for; with a beam, that a symbol may be disputed.
    #[serde(default)]
    pub lag: usize,
    /// With a beam: the transcripts that go on after each step; absent: 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beam: Option<usize>,
}

impl DecodeSpec {
    /// Says what does not go together.
    pub fn check(&self, task: Task, scheme: Scheme) -> Result<(), String> {
        let transcribes = matches!(self.kind, DecodeKind::Greedy | DecodeKind::Beam);
        match task {
            Task::Transcribe if transcribes => return self.check_transcript(),
            Task::Transcribe => return Err("decode.kind must be greedy or beam for task = \"transcribe\"".into()),
            Task::Tag if !transcribes && self.beam.is_none() => {}
            Task::Tag => return Err("decode.kind greedy and beam are for task = \"transcribe\"".into()),
            _ => return Err("[decode] is for task = \"tag\" and \"transcribe\"".into()),
        }
        match self.kind {
            DecodeKind::Argmax if self.lag > 0 => {
                Err(format!("decode.lag = {}: argmax looks at each step by itself, its lag is 0", self.lag))
            }
            DecodeKind::Genes if self.lag > 0 => {
                Err(format!("decode.lag = {}: genes wait as long as they have to, the lag is 0", self.lag))
            }
            DecodeKind::Genes if scheme != Scheme::Runs => {
                Err("decode.kind = \"genes\" is for scheme = \"runs\"".into())
            }
            DecodeKind::Legal if scheme != Scheme::Bio => Err("decode.kind = \"legal\" is for scheme = \"bio\"".into()),
            _ if self.lag > MAX_LAG => Err(format!("decode.lag = {}: must be at most {MAX_LAG} steps", self.lag)),
            _ => Ok(()),
        }
    }

    fn check_transcript(&self) -> Result<(), String> {
        match (self.kind, self.beam.unwrap_or(transcribe::BEAM), self.lag) {
            (DecodeKind::Greedy, _, 0) if self.beam.is_none() => Ok(()),
            (DecodeKind::Greedy, ..) => Err("decode.beam and lag are for decode.kind = \"beam\"".into()),
            (_, beam, _) if !(1..=transcribe::MAX_BEAM).contains(&beam) => {
                Err(format!("decode.beam = {beam}: must be 1 to {}", transcribe::MAX_BEAM))
            }
            (_, _, lag) if !(1..=MAX_LAG).contains(&lag) => {
                Err(format!("decode.lag = {lag}: a symbol may be disputed for 1 to {MAX_LAG} steps, such as 32"))
            }
            _ => Ok(()),
        }
    }
}

/// Whether label `next` may follow `before` (at a stream's start: nothing) in IOB2.
fn is_legal(before: Option<&str>, next: &str) -> bool {
    let Some(kind) = next.strip_prefix("I-") else { return true };
    before.and_then(|before| before.strip_prefix("B-").or(before.strip_prefix("I-"))) == Some(kind)
}

/// The rules by which paths are scored. Immutable, shared by all streams of a model.
#[derive(Debug, Clone)]
pub struct Decoder {
    lag: usize,
    labels: usize,
    /// The label that each class of the network counts for.
    class_label: Vec<usize>,
    /// `[labels, labels]`: the score of the second after the first.
    transitions: Vec<f32>,
    start: Vec<f32>,
    end: Vec<f32>,
    /// A label's probability is its marginal under the CRF.
    is_crf: bool,
}

/// What a stream carries of its labels: the last one published, and the steps that wait for theirs.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Decoding {
    last: Option<usize>,
    units: Vec<Unit>,
    /// The labels' probabilities of each step that waits, `[steps, labels]`.
    probabilities: Vec<f32>,
}

/// A thread's working space.
#[derive(Debug, Default)]
pub struct DecodeScratch {
    /// Logarithms of what waits, `[steps, labels]`.
    logs: Vec<f32>,
    best: Vec<f32>,
    next: Vec<f32>,
    /// For each step but the first, the best label before each label.
    back: Vec<u8>,
}

impl Decoder {
    /// What the specification asks for; nothing where each step's label is chosen by itself.
    ///
    /// # Errors
    /// Says what labels or weights do not fit.
    pub fn new(spec: &ModelSpec, shape: &NetShape, params: &Params<f32>) -> Result<Option<Decoder>, String> {
        let together = |decode: &&DecodeSpec| matches!(decode.kind, DecodeKind::Legal | DecodeKind::Crf);
        let Some(decode) = spec.decode.as_ref().filter(together) else {
            return Ok(None);
        };
        decode.check(spec.task, spec.scheme)?;
        let (labels, is_crf) = (spec.labels.len(), decode.kind == DecodeKind::Crf);
        if labels > MAX_LABELS {
            return Err(format!("{labels} labels: [decode] is for up to {MAX_LABELS}"));
        }
        let masked = spec.scheme == Scheme::Bio;
        if masked && !spec.labels.iter().any(|label| is_legal(None, label)) {
            return Err("no label can come first: all begin with \"I-\"".into());
        }
        if is_crf && spec.classes.is_some() {
            return Err("decode.kind = \"crf\" needs a class for each label; leave classes out".into());
        }
        let [mut transitions, mut start, end] = match shape.crf_at() {
            Some(at) => [0, 1, 2].map(|k| params.slice(at + k).to_vec()),
            None => [vec![0.0; labels * labels], vec![0.0; labels], vec![0.0; labels]],
        };
        let mut scores = transitions.iter().chain(&start).chain(&end);
        if let Some(score) = scores.find(|score| !(-MAX_SCORE..=MAX_SCORE).contains(*score)) {
            return Err(format!("a score of the CRF is {score}: must be within ±{MAX_SCORE}"));
        }
        if masked {
            for (next, label) in spec.labels.iter().enumerate() {
                if !is_legal(None, label) {
                    start[next] = f32::NEG_INFINITY;
                }
                for (before, label_before) in spec.labels.iter().enumerate() {
                    if !is_legal(Some(label_before), label) {
                        transitions[before * labels + next] = f32::NEG_INFINITY;
                    }
                }
            }
        }
        let class_label = spec.class_labels()?;
        Ok(Some(Decoder { lag: decode.lag, labels, class_label, transitions, start, end, is_crf }))
    }

    /// Takes one more step and the network's probabilities of it, `[classes]`; the step whose label that decides, if
    /// there is one.
    pub(super) fn push(
        &self,
        state: &mut Decoding,
        p: &[f32],
        unit: Unit,
        scratch: &mut DecodeScratch,
    ) -> Option<StepLabel> {
        let from = state.probabilities.len();
        state.probabilities.resize(from + self.labels, 0.0);
        let row = &mut state.probabilities[from..];
        for (&p, &label) in p.iter().zip(&self.class_label) {
            row[label] += p;
        }
        row.iter_mut().for_each(|p| *p = probability(*p, LEAST));
        state.units.push(unit);
        if state.units.len() > self.lag { self.decide(state, false, scratch) } else { None }
    }

    /// The first step that waits gets its label, whatever may come; `ends`: nothing comes.
    fn decide(&self, state: &mut Decoding, ends: bool, s: &mut DecodeScratch) -> Option<StepLabel> {
        if state.units.is_empty() {
            return None;
        }
        let labels = self.labels;
        s.logs.clear();
        s.logs.extend(state.probabilities.iter().map(|&p| ln(p)));
        let first = self.after(state.last);
        s.best.clear();
        s.best.extend(first.iter().zip(&s.logs).map(|(a, log)| a + log));
        s.back.clear();
        for logs in s.logs.chunks_exact(labels).skip(1) {
            s.next.clear();
            for (label, log) in logs.iter().enumerate() {
                let (mut top, mut score) = (0, f32::NEG_INFINITY);
                for (before, best) in s.best.iter().enumerate() {
                    let through = best + self.transitions[before * labels + label];
                    if through > score {
                        (top, score) = (before, through);
                    }
                }
                s.back.push(top as u8);
                s.next.push(score + log);
            }
            std::mem::swap(&mut s.best, &mut s.next);
        }
        if ends {
            s.best.iter_mut().zip(&self.end).for_each(|(best, end)| *best += end);
        }
        let last = (1..labels).fold(0, |top, label| if s.best[label] > s.best[top] { label } else { top });
        let label = s.back.chunks_exact(labels).rev().fold(last, |label, back| usize::from(back[label]));
        let score = if self.is_crf { self.marginal(label, first, ends, s) } else { state.probabilities[label] };
        state.probabilities.drain(..labels);
        let Unit { start, end, text } = state.units.remove(0);
        state.last = Some(label);
        Some(StepLabel { start, end, text, label, score })
    }

    /// Scores of the labels that may follow the last one published.
    fn after(&self, last: Option<usize>) -> &[f32] {
        last.map_or(&self.start, |last| &self.transitions[last * self.labels..(last + 1) * self.labels])
    }

    /// The probability of this label at the first step that waits, by all paths through what waits: backwards
    /// β_T = b or 0, β_k(i) = ln Σ_j exp(a(i, j) + ln p_{k+1}(j) + β_{k+1}(j)).
    fn marginal(&self, label: usize, first: &[f32], ends: bool, s: &mut DecodeScratch) -> f32 {
        let labels = self.labels;
        s.best.clear();
        s.best.extend(self.end.iter().map(|end| if ends { *end } else { 0.0 }));
        for logs in s.logs.chunks_exact(labels).skip(1).rev() {
            s.best.iter_mut().zip(logs).for_each(|(beta, log)| *beta += log);
            let through = self.transitions.chunks_exact(labels).map(|row| log_sum(row, &s.best));
            s.next.clear();
            s.next.extend(through);
            std::mem::swap(&mut s.best, &mut s.next);
        }
        s.best.iter_mut().zip(&s.logs).for_each(|(beta, log)| *beta += log);
        let all = log_sum(first, &s.best);
        probability(exp_f32(first[label] + s.best[label] - all), 0.0)
    }

    /// The labels of a whole stream by the network's probabilities, `[steps, classes]`.
    pub fn labels(&self, probabilities: &[f32]) -> Vec<u32> {
        let (mut state, mut scratch, mut labels) = (Decoding::default(), DecodeScratch::default(), Vec::new());
        for p in probabilities.chunks_exact(self.class_label.len()) {
            let unit = Unit { start: 0, end: 0, text: String::new() };
            labels.extend(self.push(&mut state, p, unit, &mut scratch));
        }
        while let Some(step) = self.decide(&mut state, true, &mut scratch) {
            labels.push(step);
        }
        labels.into_iter().map(|step| step.label as u32).collect()
    }
}

impl Session {
    /// Steps that wait for their label get it now (`flush`); from a classifier an estimate. Call with nothing waiting for
    /// the network.
    pub fn settle(&mut self, model: &Model, output: &mut Output) {
        self.estimate(model, output);
        self.settle_transcript(model, output);
        self.decide_waiting(model, false, output);
    }

    /// As [`Session::settle`], for the last time: the stream ends or is reset.
    pub fn conclude(&mut self, model: &Model, output: &mut Output) {
        self.conclude_class(model, output);
        self.conclude_transcript(model, output);
        self.decide_waiting(model, true, output);
        self.conclude_genes(model, output);
        self.decoding.last = None;
    }

    fn decide_waiting(&mut self, model: &Model, ends: bool, output: &mut Output) {
        let Some(decoder) = &model.decoder else { return };
        let mut scratch = DecodeScratch::default();
        while let Some(step) = decoder.decide(&mut self.decoding, ends, &mut scratch) {
            self.publish(model, step, output);
        }
    }

    /// A label is final: it goes to `output`, with the span that it closes.
    pub(super) fn publish(&mut self, model: &Model, step: StepLabel, output: &mut Output) {
        let (scheme, outside) = (model.spec.scheme, model.spec.outside.as_deref());
        let name = &model.spec.labels[step.label];
        if model.genes.is_none() {
            output.spans.extend(self.spans.push(scheme, outside, name, step.start, step.end));
        }
        output.labels.push(step);
    }

    /// Steps that went through the network and wait for their label.
    pub fn undecided(&self) -> usize {
        self.decoding.units.len()
    }
}

impl Decoding {
    /// Bytes of memory on the heap, about.
    pub fn memory(&self) -> usize {
        let texts: usize = self.units.iter().map(|unit| unit.text.capacity()).sum();
        self.units.capacity() * size_of::<Unit>() + texts + 4 * self.probabilities.capacity()
    }

    /// `last label u16, all ones: none | steps that wait u8 | the unit of each ([`put_unit`]) |
    /// probabilities f32 [steps, labels]`, little-endian.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.last.map_or(u16::MAX, |last| last as u16).to_le_bytes());
        out.push(self.units.len() as u8);
        self.units.iter().for_each(|unit| put_unit(out, unit));
        self.probabilities.iter().for_each(|p| out.extend_from_slice(&p.to_le_bytes()));
    }

    /// The inverse of [`Decoding::encode`].
    pub fn decode(fields: &mut Fields<'_>, decoder: &Decoder) -> Result<Decoding, StateError> {
        let damaged = |what: &str| StateError::Damaged(what.to_string());
        let last = match u16::from_le_bytes(fields.array()?) {
            u16::MAX => None,
            last if usize::from(last) < decoder.labels => Some(usize::from(last)),
            _ => return Err(damaged("its last label is none of the model's")),
        };
        let [steps] = fields.array()?;
        if usize::from(steps) > decoder.lag {
            return Err(damaged("more steps wait for their label than the model lets wait"));
        }
        let mut decoding = Decoding { last, ..Decoding::default() };
        for _ in 0..steps {
            decoding.units.push(fields.unit()?);
        }
        for bytes in fields.take(4 * usize::from(steps) * decoder.labels)?.as_chunks().0 {
            let p = f32::from_le_bytes(*bytes);
            if !(LEAST..=1.0).contains(&p) {
                return Err(damaged("a probability of a step that waits"));
            }
            decoding.probabilities.push(p);
        }
        Ok(decoding)
    }
}

/// At least that and at most 1, also where `p` is no number.
fn probability(p: f32, least: f32) -> f32 {
    if p.is_nan() { least } else { p.clamp(least, 1.0) }
}

/// ln Σ_k exp(a_k + b_k).
fn log_sum(a: &[f32], b: &[f32]) -> f32 {
    let sums = || a.iter().zip(b).map(|(a, b)| a + b);
    let top = sums().fold(f32::NEG_INFINITY, f32::max);
    if top == f32::NEG_INFINITY {
        return top;
    }
    let sum: f32 = sums().map(|x| if x == f32::NEG_INFINITY { 0.0 } else { exp_f32(x - top) }).sum();
    top + ln(sum)
}

/// ln x of a positive, normal x, the same bits on every machine: x = m · 2^k with m in [√½, √2), and
/// ln m = 2 Σ s^(2n+1) / (2n+1) with s = (m - 1) / (m + 1).
pub(super) fn ln(x: f32) -> f32 {
    let x = f64::from(x);
    let half = 0x3ff0_0000_0000_0000 - 0x3fe6_a09e_667f_3bcd; // The bits of 1 less those of √½.
    let bits = x.to_bits() + half;
    let k = (bits >> 52) as i64 - 1023;
    let m = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) + 0x3fe6_a09e_667f_3bcd);
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut series = 1.0 / 15.0;
    for n in [13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
        series = series * square + 1.0 / n;
    }
    (k as f64 * std::f64::consts::LN_2 + 2.0 * s * series) as f32
}

#[cfg(test)]
mod tests;
