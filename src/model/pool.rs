//! What a classifier makes of a stream's outputs so far: one vector, carried in the stream's state.
//!
//! The network's outputs h_1 … h_t `[top]` become p_t `[top]`, step by step, so that a stream can be cut anywhere and
//! go on for ever:
//!
//! - last: p_t = h_t
//! - mean: p_t = p_{t-1} + (h_t - p_{t-1}) / t
//! - max: p_t = max(p_{t-1}, h_t), number by number
//! - attention: p_t = Σ_s a_s h_s with a = softmax of the scores q · h_s; q `[top]` is learnt. Carried are the largest
//!   score m, z = Σ_s e^(score_s - m) and p, so that nothing overflows.
//!
//! In f32 a count stays at 2^24 (16.8 million steps): from there on a mean forgets slowly what lies further back.

use crate::rnn::real::Real;
use serde::{Deserialize, Serialize};

/// How the outputs of a stream's steps become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    Last,
    Mean,
    Max,
    Attention,
}

/// Numbers before the vector: the steps, and for attention m and z.
const COUNT: usize = 1;
const WITH_SCORES: usize = 3;

impl Pooling {
    fn head(self) -> usize {
        if self == Pooling::Attention { WITH_SCORES } else { COUNT }
    }

    /// Numbers carried; all zero is the state of a stream without a step.
    pub fn numbers(self, top: usize) -> usize {
        self.head() + top
    }

    /// The vector so far, if there was a step.
    pub fn vector<T: Real>(self, state: &[T]) -> Option<&[T]> {
        (state[0] > T::zero()).then(|| &state[self.head()..])
    }

    /// The largest score and the sum of the weights relative to it; for attention.
    pub fn scale<T: Real>(self, state: &[T]) -> (T, T) {
        if self == Pooling::Attention { (state[1], state[2]) } else { (T::zero(), T::one()) }
    }

    /// Takes the output of one more step; `query` is empty but for attention.
    pub fn push<T: Real>(self, state: &mut [T], h: &[T], query: &[T]) {
        let (head, vector) = state.split_at_mut(self.head());
        let first = head[0] == T::zero();
        head[0] += T::one();
        if self == Pooling::Attention {
            let score = dot(query, h);
            let top = if first { score } else { head[1].max(score) };
            let (old, new) = ((head[1] - top).exp_(), (score - top).exp_());
            head[2] = if first { new } else { head[2] * old + new };
            head[1] = top;
            let weight = new / head[2];
            blend(vector, h, first, |p, h| p + (h - p) * weight);
            return;
        }
        let n = head[0];
        match self {
            Pooling::Last => vector.copy_from_slice(h),
            Pooling::Max => blend(vector, h, first, |p, h| if h > p { h } else { p }),
            _ => blend(vector, h, first, |p, h| p + (h - p) / n),
        }
    }
}

fn blend<T: Real>(vector: &mut [T], h: &[T], first: bool, with: impl Fn(T, T) -> T) {
    if first {
        return vector.copy_from_slice(h);
    }
    for (p, &h) in vector.iter_mut().zip(h) {
        *p = with(*p, h);
    }
}

/// a · b in one fixed order: eight sums side by side, added up in turn.
pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut sums = [T::zero(); 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((sum, &a), &b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().fold(T::zero(), |all, &sum| all + sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [[f64; 2]; 4] = [[1.0, -3.0], [-2.0, 0.5], [0.25, -1.0], [4.0, -1.5]];

    fn pooled(pooling: Pooling, query: &[f64]) -> Vec<f64> {
        let mut state = vec![0.0; pooling.numbers(2)];
        assert_eq!(pooling.vector(&state), None);
        STEPS.iter().for_each(|h| pooling.push(&mut state, h, query));
        pooling.vector(&state).unwrap().to_vec()
    }

    #[test]
    fn each_pooling_is_what_its_formula_says() {
        assert_eq!(pooled(Pooling::Last, &[]), [4.0, -1.5]);
        assert_eq!(pooled(Pooling::Mean, &[]), [3.25 / 4.0, -5.0 / 4.0]);
        assert_eq!(pooled(Pooling::Max, &[]), [4.0, 0.5], "also where all were below zero before");
        for query in [[0.5, -1.0], [400.0, 900.0], [-800.0, 3.0]] {
            let scores = STEPS.map(|h| h[0] * query[0] + h[1] * query[1]);
            let top = scores.iter().fold(f64::MIN, |a, &b| a.max(b));
            let weights = scores.map(|s| (s - top).exp());
            let z: f64 = weights.iter().sum();
            let found = pooled(Pooling::Attention, &query);
            for k in 0..2 {
                let wanted: f64 = STEPS.iter().zip(weights).map(|(h, w)| h[k] * w / z).sum();
                assert!((found[k] - wanted).abs() < 1e-12, "{found:?}, {wanted}");
            }
        }
    }
}
