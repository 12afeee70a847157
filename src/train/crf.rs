//! A linear-chain conditional random field: the likelihood of a sequence of labels, and its gradient.
//!
//! Of a sequence of n steps with the network's scores x `[n, classes]`, transitions A, start scores a and end scores b,
//!
//! ```text
//! s(y) = a(y_1) + Σ_t x_t(y_t) + Σ_{t>1} A(y_{t-1}, y_t) + b(y_n)        p(y) = exp s(y) / Σ_{y'} exp s(y')
//! ```
//!
//! (Lafferty, McCallum and Pereira 2001). The loss is -ln p of the right labels. The sum over all sequences is formed by
//! the forward algorithm, its gradient by forward-backward (Rabiner 1989, equations 19, 24 and 27), both in logarithms
//! and in f64: the gradient of -ln p at x_t(j) is p(y_t = j) - [j is right], that at A(i, j) is
//! Σ_t p(y_{t-1} = i, y_t = j) less how often j follows i in the right labels.
//!
//! In training a *sequence* is a stream's steps within one chunk, from reset to reset: start scores count where a stream
//! begins, end scores where it is over, and neither where the chunk's border cuts it. How labels are found is in
//! [`crate::model::decode`].

use super::network::{LossSpec, NO_TARGET, ShardLoss, TrainBatch};
use crate::model::params::Params;
use crate::rnn::real::Real;

/// The scores of a CRF, and the gradients that sequences contribute to them.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    classes: usize,
    /// `[classes, classes]`, from one class to the next; then start and end scores.
    scores: [Vec<f64>; 3],
    grads: [Vec<f64>; 3],
    // Working space.
    alpha: Vec<f64>,
    beta: Vec<f64>,
    rows: Vec<usize>,
    x: Vec<f64>,
    right: Vec<usize>,
}

/// A part of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Borders {
    /// Its first step is the stream's first.
    pub starts: bool,
    /// Its last step is the stream's last.
    pub ends: bool,
}

impl Chain {
    /// Transition, start and end scores; gradients are zero.
    pub fn new(scores: [&[f64]; 3]) -> Chain {
        let mut chain = Chain::default();
        chain.set(scores.map(|scores| scores.iter().copied()));
        chain
    }

    fn set(&mut self, scores: [impl Iterator<Item = f64>; 3]) {
        for ((own, grads), scores) in self.scores.iter_mut().zip(&mut self.grads).zip(scores) {
            own.clear();
            own.extend(scores);
            grads.clear();
            grads.resize(own.len(), 0.0);
        }
        self.classes = self.scores[1].len();
    }

    /// Gradients at the transition, start and end scores.
    pub fn grads(&self) -> [&[f64]; 3] {
        self.grads.each_ref().map(Vec::as_slice)
    }

    /// -ln p of the classes `right` at the steps of `x` `[steps, classes]`; `x` becomes the gradient of `weight` times
    /// that, and the scores' gradients are added up.
    pub fn loss(&mut self, x: &mut [f64], right: &[usize], borders: Borders, weight: f64) -> f64 {
        let (classes, steps) = (self.classes, right.len());
        if steps == 0 {
            return 0.0;
        }
        let [transitions, start, end] = &self.scores;
        let at = |t: usize, class: usize| t * classes + class;
        let starts = |class: usize| if borders.starts { start[class] } else { 0.0 };
        let ends = |class: usize| if borders.ends { end[class] } else { 0.0 };
        // α_t(j) = x_t(j) + ln Σ_i exp(α_{t-1}(i) + A(i, j)), β_t(i) = ln Σ_j exp(A(i, j) + x_{t+1}(j) + β_{t+1}(j)).
        self.alpha.clear();
        self.alpha.extend((0..classes).map(|class| starts(class) + x[class]));
        for t in 1..steps {
            for to in 0..classes {
                let before = &self.alpha[at(t - 1, 0)..at(t, 0)];
                let all = log_sum(before.iter().enumerate().map(|(from, alpha)| alpha + transitions[at(from, to)]));
                self.alpha.push(x[at(t, to)] + all);
            }
        }
        self.beta.clear();
        self.beta.resize(steps * classes, 0.0);
        (0..classes).for_each(|class| self.beta[at(steps - 1, class)] = ends(class));
        for t in (1..steps).rev() {
            for from in 0..classes {
                let through = |to| transitions[at(from, to)] + x[at(t, to)] + self.beta[at(t, to)];
                self.beta[at(t - 1, from)] = log_sum((0..classes).map(through));
            }
        }
        let last = at(steps - 1, 0);
        let all = log_sum((0..classes).map(|class| self.alpha[last + class] + ends(class)));
        let mut score = starts(right[0]) + ends(right[steps - 1]);
        score += right.iter().enumerate().map(|(t, &class)| x[at(t, class)]).sum::<f64>();
        score += right.windows(2).map(|pair| transitions[at(pair[0], pair[1])]).sum::<f64>();

        let [to_transitions, to_start, to_end] = &mut self.grads;
        for t in 1..steps {
            for from in 0..classes {
                for to in 0..classes {
                    let both = self.alpha[at(t - 1, from)] + transitions[at(from, to)] + x[at(t, to)];
                    to_transitions[at(from, to)] += weight * (both + self.beta[at(t, to)] - all).exp();
                }
            }
            to_transitions[at(right[t - 1], right[t])] -= weight;
        }
        for (t, &right) in right.iter().enumerate() {
            for class in 0..classes {
                let k = at(t, class);
                x[k] = weight * (self.alpha[k] + self.beta[k] - all).exp();
            }
            x[at(t, right)] -= weight;
        }
        if borders.starts {
            to_start.iter_mut().zip(&x[..classes]).for_each(|(grad, x)| *grad += x);
        }
        if borders.ends {
            to_end.iter_mut().zip(&x[last..]).for_each(|(grad, x)| *grad += x);
        }
        all - score
    }

    /// The loss of a chunk's sequences, stream after stream; turns `logits` into their gradient. A sequence has the mean
    /// weight of its steps, so that all steps together weigh what they do without a CRF. A step without a target parts
    /// two sequences.
    pub(super) fn chunk<T: Real>(
        &mut self,
        params: &Params<T>,
        at: usize,
        batch: &TrainBatch,
        logits: &mut [T],
        spec: LossSpec,
    ) -> ShardLoss {
        self.set([at, at + 1, at + 2].map(|at| params.slice(at).iter().map(|x| x.f64())));
        let mut result = ShardLoss::default();
        for stream in 0..batch.sizes.first().copied().unwrap_or(0) {
            let (mut row, mut starts) = (0, false);
            self.rows.clear();
            for &streams in batch.sizes.iter().take_while(|&&streams| streams > stream) {
                let here = row + stream;
                row += streams;
                let target = batch.targets[here];
                if batch.reset[here] {
                    self.sequence(batch, logits, spec, Borders { starts, ends: true }, &mut result);
                    starts = true;
                }
                if target == NO_TARGET {
                    self.sequence(batch, logits, spec, Borders { starts, ends: false }, &mut result);
                    starts = false;
                    logits[here * self.classes..(here + 1) * self.classes].fill(T::zero());
                } else {
                    self.rows.push(here);
                }
            }
            self.sequence(batch, logits, spec, Borders { starts, ends: false }, &mut result);
        }
        result
    }

    /// The steps gathered in `rows`, and an end of them.
    fn sequence<T: Real>(
        &mut self,
        batch: &TrainBatch,
        logits: &mut [T],
        spec: LossSpec,
        borders: Borders,
        result: &mut ShardLoss,
    ) {
        let (classes, mut rows) = (self.classes, std::mem::take(&mut self.rows));
        let (mut x, mut right) = (std::mem::take(&mut self.x), std::mem::take(&mut self.right));
        x.clear();
        right.clear();
        let mut weight = 0.0;
        for &row in &rows {
            let logits = &logits[row * classes..(row + 1) * classes];
            let target = batch.targets[row] as usize;
            result.correct += usize::from(logits.iter().all(|x| *x <= logits[target]));
            x.extend(logits.iter().map(|x| x.f64()));
            right.push(target);
            weight += f64::from(batch.weights[row]);
        }
        let weight = weight / rows.len().max(1) as f64 / spec.total_weight;
        result.loss += weight * self.loss(&mut x, &right, borders, weight);
        result.rows += rows.len();
        for (&row, x) in rows.iter().zip(x.chunks_exact(classes)) {
            let grads = &mut logits[row * classes..(row + 1) * classes];
            grads.iter_mut().zip(x).for_each(|(grad, x)| *grad = T::of(*x));
        }
        rows.clear();
        (self.rows, self.x, self.right) = (rows, x, right);
    }
}

/// ln Σ exp x, without overflow.
fn log_sum(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let top = x.clone().fold(f64::NEG_INFINITY, f64::max);
    top + x.map(|x| (x - top).exp()).sum::<f64>().ln()
}
