//! Attention of a decoder's step to the steps of one sentence, forwards and back.
//!
//! With the encoder's outputs m_1 … m_S (`memory` `[S, width]`), a step's weights are a = softmax(e_1 … e_S), and what it
//! reads is the context c = Σ a_s m_s. The scores e_s are
//!
//! - *general* (Luong, Pham and Manning 2015): e_s = h · k_s with the keys k_s = W m_s and the decoder's h_t;
//! - *additive* (Bahdanau, Cho and Bengio 2015): e_s = v · tanh(q + k_s) with q = W' h_{t-1} and k_s = W m_s + b.
//!
//! Sums run in one fixed order, whatever else is computed, so that the results do not depend on company.

use super::kernel::portable;
use super::real::Real;

/// Σ a_k b_k, in the order of [`portable::sum`].
pub fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    portable::sum(a, b, |a, b| a * b)
}

/// `out += x · row`
fn add_scaled<T: Real>(out: &mut [T], x: T, row: &[T]) {
    for (o, &r) in out.iter_mut().zip(row) {
        *o += x * r;
    }
}

/// The weights of a step that is compared with `keys` `[S, state]` by products, in `weights` `[S]`.
pub fn general<T: Real>(state: &[T], keys: &[T], weights: &mut [T]) {
    for (weight, key) in weights.iter_mut().zip(keys.chunks_exact(state.len())) {
        *weight = dot(state, key);
    }
    T::softmax_rows(weights.len(), weights);
}

/// The way back of [`general`], from `dscores` `[S]`; adds to `dstate` and `dkeys`.
pub fn general_back<T: Real>(state: &[T], keys: &[T], dscores: &[T], dstate: &mut [T], dkeys: &mut [T]) {
    let width = state.len();
    for ((key, dkey), &d) in keys.chunks_exact(width).zip(dkeys.chunks_exact_mut(width)).zip(dscores) {
        add_scaled(dstate, d, key);
        add_scaled(dkey, d, state);
    }
}

/// The weights of a step with query `query` `[inner]` over `keys` `[S, inner]`, in `weights` `[S]`; `bent` `[S, inner]`
/// becomes tanh(q + k_s).
pub fn additive<T: Real>(query: &[T], keys: &[T], energy: &[T], weights: &mut [T], bent: &mut [T]) {
    let inner = query.len();
    for (bent, key) in bent.chunks_exact_mut(inner).zip(keys.chunks_exact(inner)) {
        for (b, (&q, &k)) in bent.iter_mut().zip(query.iter().zip(key)) {
            *b = q + k;
        }
    }
    T::tanh_all(bent);
    for (weight, bent) in weights.iter_mut().zip(bent.chunks_exact(inner)) {
        *weight = dot(energy, bent);
    }
    T::softmax_rows(weights.len(), weights);
}

/// The way back of [`additive`], from `dscores` `[S]`; adds to `dquery`, `dkeys` and `denergy`.
pub fn additive_back<T: Real>(
    bent: &[T],
    energy: &[T],
    dscores: &[T],
    dquery: &mut [T],
    dkeys: &mut [T],
    denergy: &mut [T],
) {
    let inner = energy.len();
    for ((bent, dkey), &d) in bent.chunks_exact(inner).zip(dkeys.chunks_exact_mut(inner)).zip(dscores) {
        add_scaled(denergy, d, bent);
        for ((dq, dk), (&b, &v)) in dquery.iter_mut().zip(dkey).zip(bent.iter().zip(energy)) {
            let x = d * v * (T::one() - b * b);
            *dq += x;
            *dk += x;
        }
    }
}

/// What a step reads: Σ a_s m_s, in `out` `[width]`.
pub fn context<T: Real>(weights: &[T], memory: &[T], out: &mut [T]) {
    out.fill(T::zero());
    for (&weight, row) in weights.iter().zip(memory.chunks_exact(out.len())) {
        add_scaled(out, weight, row);
    }
}

/// The way back of [`context`] and of the softmax before it: adds to `dmemory`, and sets `dscores` `[S]`.
pub fn context_back<T: Real>(weights: &[T], memory: &[T], dout: &[T], dmemory: &mut [T], dscores: &mut [T]) {
    let width = dout.len();
    let rows = memory.chunks_exact(width).zip(dmemory.chunks_exact_mut(width));
    for ((&weight, d), (row, drow)) in weights.iter().zip(dscores.iter_mut()).zip(rows) {
        *d = dot(dout, row);
        add_scaled(drow, weight, dout);
    }
    let mean = weights.iter().zip(&*dscores).fold(T::zero(), |sum, (&a, &d)| sum + a * d);
    for (d, &a) in dscores.iter_mut().zip(weights) {
        *d = a * (*d - mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_reads_what_it_looks_at() {
        let (keys, memory) = ([9.0f64, 0.0, 0.0, 9.0], [1.0, 2.0, 3.0, 5.0, 6.0, 7.0]);
        let (mut weights, mut context_) = ([0.0; 2], [0.0; 3]);
        general(&[0.0, 9.0], &keys, &mut weights);
        context(&weights, &memory, &mut context_);
        assert!((context_[0] - 5.0).abs() < 1e-9 && (weights[0] + weights[1] - 1.0).abs() < 1e-12);
        let mut bent = [0.0; 4];
        additive(&[0.0, 0.0], &keys, &[1.0, 1.0], &mut weights, &mut bent);
        assert_eq!(weights, [0.5, 0.5]);
    }
}
