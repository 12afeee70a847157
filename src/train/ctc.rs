//! Connectionist temporal classification: the likelihood of a transcript that is shorter than its input and not aligned with
//! it, and its gradient (Graves, Fernández, Gomez and Schmidhuber 2006).
//!
//! Of T steps with probabilities y_t(k) over the symbols and the *blank* (class 0), a path says one class a step; it reads as
//! what is left when classes that repeat are taken once and blanks are dropped. With l the transcript, of U symbols, and l'
//! the same with a blank before, between and after them (S = 2U + 1),
//!
//! ```text
//! α_t(s) = y_t(l'_s) (α_{t-1}(s) + α_{t-1}(s-1) + [l'_s ≠ blank, l'_s ≠ l'_{s-2}] α_{t-1}(s-2))
//! β_t(s) = y_{t+1}(l'_s) β_{t+1}(s) + y_{t+1}(l'_{s+1}) β_{t+1}(s+1) + [l'_{s+2} ≠ blank, l'_{s+2} ≠ l'_s] y_{t+1}(l'_{s+2}) β_{t+1}(s+2)
//! p(l) = α_T(S) + α_T(S-1)
//! ```
//!
//! both in logarithms and in f64. The loss is -ln p(l); with x the scores before the softmax its gradient at x_t(k) is
//! y_t(k) - Σ_{s: l'_s = k} α_t(s) β_t(s) / p(l) (equation 16 there). How transcripts are found is in
//! [`crate::model::transcribe`].

use super::network::{LossSpec, ShardLoss, TrainBatch};
use crate::model::transcribe::BLANK;
use crate::rnn::real::Real;

/// Working space.
#[derive(Debug, Clone, Default)]
pub struct Ctc {
    /// ln y, `[steps, classes]`.
    logs: Vec<f64>,
    /// l', the transcript with blanks, `[2 · symbols + 1]`.
    path: Vec<usize>,
    /// ln α and ln β, `[steps, path]`.
    alpha: Vec<f64>,
    beta: Vec<f64>,
    x: Vec<f64>,
    rows: Vec<usize>,
}

/// Whether so many steps can read as this transcript: each symbol takes one, and a blank parts two that are equal.
pub fn fits(steps: usize, transcript: &[u32]) -> bool {
    transcript.len() + transcript.windows(2).filter(|pair| pair[0] == pair[1]).count() <= steps
}

impl Ctc {
    /// -ln p of the `transcript` (classes, none of them the blank) under the scores `x` `[steps, classes]`; `x` becomes the
    /// gradient of `weight` times that. Nothing, and a gradient of zero, where there are too few steps.
    pub fn loss(&mut self, x: &mut [f64], classes: usize, transcript: &[u32], weight: f64) -> Option<f64> {
        let steps = x.len() / classes;
        if steps == 0 || !fits(steps, transcript) {
            x.fill(0.0);
            return None;
        }
        self.logs.clear();
        for row in x.chunks_exact(classes) {
            let all = log_sum(row.iter().copied());
            self.logs.extend(row.iter().map(|x| x - all));
        }
        self.path.clear();
        self.path.push(BLANK);
        transcript.iter().for_each(|&symbol| self.path.extend([symbol as usize, BLANK]));
        self.forwards(steps, classes);
        self.backwards(steps, classes);
        let width = self.path.len();
        let ends = &self.alpha[(steps - 1) * width..];
        let all = log_sum(ends.iter().copied().skip(width.saturating_sub(2)));
        for (t, row) in x.chunks_exact_mut(classes).enumerate() {
            row.iter_mut().zip(&self.logs[t * classes..]).for_each(|(x, log)| *x = weight * log.exp());
            for (s, &class) in self.path.iter().enumerate() {
                let at = t * width + s;
                row[class] -= weight * (self.alpha[at] + self.beta[at] - all).exp();
            }
        }
        Some(-all)
    }

    fn forwards(&mut self, steps: usize, classes: usize) {
        let width = self.path.len();
        self.alpha.clear();
        self.alpha.resize(steps * width, f64::NEG_INFINITY);
        for s in 0..width.min(2) {
            self.alpha[s] = self.logs[self.path[s]];
        }
        for t in 1..steps {
            // What cannot be reached yet, or cannot reach the end any more, is passed over.
            for s in width.saturating_sub(2 * (steps - t))..width.min(2 * (t + 1)) {
                let before = &self.alpha[(t - 1) * width..t * width];
                let one = if s >= 1 { before[s - 1] } else { f64::NEG_INFINITY };
                let two = if skips(&self.path, s) { before[s - 2] } else { f64::NEG_INFINITY };
                self.alpha[t * width + s] = log_sum3(before[s], one, two) + self.logs[t * classes + self.path[s]];
            }
        }
    }

    fn backwards(&mut self, steps: usize, classes: usize) {
        let width = self.path.len();
        self.beta.clear();
        self.beta.resize(steps * width, f64::NEG_INFINITY);
        for s in width.saturating_sub(2)..width {
            self.beta[(steps - 1) * width + s] = 0.0;
        }
        for t in (0..steps - 1).rev() {
            let (here, next) = self.beta.split_at_mut((t + 1) * width);
            let (path, logs) = (&self.path, &self.logs[(t + 1) * classes..]);
            let after = |s: usize| next[s] + logs[path[s]];
            for s in width.saturating_sub(2 * (steps - t))..width.min(2 * (t + 1)) {
                let one = if s + 1 < width { after(s + 1) } else { f64::NEG_INFINITY };
                let two = if s + 2 < width && skips(path, s + 2) { after(s + 2) } else { f64::NEG_INFINITY };
                here[t * width + s] = log_sum3(after(s), one, two);
            }
        }
    }

    /// The loss of whole streams, one after the other; turns `logits` into their gradient.
    pub(super) fn chunk<T: Real>(
        &mut self,
        classes: usize,
        batch: &TrainBatch,
        logits: &mut [T],
        spec: LossSpec,
    ) -> ShardLoss {
        let mut result = ShardLoss::default();
        for (stream, transcript) in batch.transcripts.iter().enumerate() {
            let mut first = 0;
            self.rows.clear();
            for &streams in batch.sizes.iter().take_while(|&&streams| streams > stream) {
                self.rows.push(first + stream);
                first += streams;
            }
            let (rows, mut x) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.x));
            x.clear();
            for &row in &rows {
                x.extend(logits[row * classes..(row + 1) * classes].iter().map(|x| x.f64()));
            }
            let weight = f64::from(batch.weights[stream]) / spec.total_weight;
            if let Some(loss) = self.loss(&mut x, classes, transcript, weight) {
                result.loss += weight * loss;
                result.rows += 1;
            }
            for (&row, x) in rows.iter().zip(x.chunks_exact(classes)) {
                let grads = &mut logits[row * classes..(row + 1) * classes];
                grads.iter_mut().zip(x).for_each(|(grad, x)| *grad = T::of(*x));
            }
            (self.rows, self.x) = (rows, x);
        }
        result
    }
}

/// Whether a path may go from place `s - 2` to `s`, past the blank between them.
fn skips(path: &[usize], s: usize) -> bool {
    path[s] != BLANK && s >= 2 && path[s] != path[s - 2]
}

/// ln Σ exp x, without overflow.
fn log_sum(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let top = x.clone().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY { top } else { top + x.map(|x| (x - top).exp()).sum::<f64>().ln() }
}

fn log_sum3(a: f64, b: f64, c: f64) -> f64 {
    let top = a.max(b).max(c);
    if top == f64::NEG_INFINITY { top } else { top + ((a - top).exp() + (b - top).exp() + (c - top).exp()).ln() }
}
