//! The elementwise part of an LSTM's and a GRU's step in vectors, for labelling: the compiler does not turn loops over that
//! many slices into vector code by itself. Each operation is that of [`portable`], so the bits are the same.

use super::portable;

/// A vector of f32.
///
/// # Safety
/// Of all functions: the processor must have the vector's instructions; `load` and `store` touch [`Lanes::N`] numbers.
pub trait Lanes: Copy {
    const N: usize;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn all(x: f32) -> Self;
    unsafe fn add(self, y: Self) -> Self;
    unsafe fn sub(self, y: Self) -> Self;
    unsafe fn mul(self, y: Self) -> Self;
    unsafe fn div(self, y: Self) -> Self;
    /// self · y + z, rounded once.
    unsafe fn fma(self, y: Self, z: Self) -> Self;
    /// Into low..=high; what is no number stays so.
    unsafe fn clamp(self, low: Self, high: Self) -> Self;
    unsafe fn abs(self) -> Self;
    unsafe fn neg(self) -> Self;
    unsafe fn copysign(self, sign: Self) -> Self;
    /// The bits shifted left by 23, and those of 1.0 added: 2^n where n stands in the low bits.
    unsafe fn power(self) -> Self;
}

/// [`portable::exp_f32`]
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn exp<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let x = x.clamp(L::all(portable::EXP_LEAST), L::all(portable::EXP_MOST));
        let shifted = x.fma(L::all(std::f32::consts::LOG2_E), L::all(portable::ROUND));
        let n = shifted.sub(L::all(portable::ROUND));
        let r = n.fma(L::all(-portable::LN2_LO), n.fma(L::all(-portable::LN2_HI), x));
        let mut p = L::all(portable::EXP_TERMS[0]);
        for c in &portable::EXP_TERMS[1..] {
            p = p.fma(r, L::all(*c));
        }
        p.mul(shifted.power())
    }
}

/// e^-2|x| with the sign of x
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn tanh_part<L: Lanes>(x: L) -> L {
    // SAFETY: the caller's promise.
    unsafe { exp(x.abs().add(x.abs()).neg()).copysign(x) }
}

/// [`portable::sigmoid_tanh`]
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn sigmoid_tanh<L: Lanes>(x: L, y: L) -> L {
    // SAFETY: the caller's promise.
    unsafe {
        let (one, e) = (L::all(1.0), y.abs());
        one.sub(e).div(one.add(x).mul(one.add(e))).copysign(y)
    }
}

/// [`portable::lstm_step`]
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
pub unsafe fn lstm_step<L: Lanes>(hidden: usize, gates: &mut [f32], c: &mut [f32], h: &mut [f32]) {
    let whole = hidden - hidden % L::N;
    for ((gates, c), h) in
        gates.chunks_exact_mut(4 * hidden).zip(c.chunks_exact_mut(hidden)).zip(h.chunks_exact_mut(hidden))
    {
        for k in (0..whole).step_by(L::N) {
            // SAFETY: k + N ≤ hidden: the numbers lie in the row's gates, c and h.
            unsafe {
                let gate = |g: usize| L::load(gates.as_ptr().add(g * hidden + k));
                let (i, f, g, o) = (exp(gate(0).neg()), exp(gate(1).neg()), tanh_part(gate(2)), exp(gate(3).neg()));
                let kept = L::load(c.as_ptr().add(k)).div(L::all(1.0).add(f));
                let new = kept.add(sigmoid_tanh(i, g));
                new.store(c.as_mut_ptr().add(k));
                sigmoid_tanh(o, tanh_part(new)).store(h.as_mut_ptr().add(k));
            }
        }
        for k in whole..hidden {
            let gate = |g: usize| gates[g * hidden + k];
            (c[k], h[k]) = portable::lstm_one([gate(0), gate(1), gate(2), gate(3)], c[k]);
        }
    }
}

/// [`portable::gru_step`]
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
pub unsafe fn gru_step<L: Lanes>(hidden: usize, gates: &mut [f32], hn: &[f32], h: &mut [f32]) {
    let whole = hidden - hidden % L::N;
    for ((gates, hn), h) in gates.chunks_exact(3 * hidden).zip(hn.chunks_exact(hidden)).zip(h.chunks_exact_mut(hidden))
    {
        for k in (0..whole).step_by(L::N) {
            // SAFETY: k + N ≤ hidden: the numbers lie in the row's gates, hn and h.
            unsafe {
                let one = L::all(1.0);
                let gate = |g: usize| L::load(gates.as_ptr().add(g * hidden + k));
                let (r, z) = (one.div(one.add(exp(gate(0).neg()))), one.div(one.add(exp(gate(1).neg()))));
                let part = tanh_part(r.fma(L::load(hn.as_ptr().add(k)), gate(2)));
                let e = part.abs();
                let n = one.sub(e).div(one.add(e)).copysign(part);
                let to = h.as_mut_ptr().add(k);
                z.fma(L::load(to).sub(n), n).store(to);
            }
        }
        for k in whole..hidden {
            let gate = |g: usize| gates[g * hidden + k];
            h[k] = portable::gru_one([gate(0), gate(1), gate(2)], hn[k], h[k]);
        }
    }
}

/// Fused multiply-adds on registers alone, `rounds` times, in so many accumulators that none waits for the one before; gives
/// back how many floating-point operations that were.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
pub unsafe fn peak<L: Lanes, const CHAINS: usize>(rounds: usize) -> f64 {
    // SAFETY: the caller's promise; `sum` holds N numbers.
    unsafe {
        let (x, y) = (L::all(std::hint::black_box(0.999)), L::all(std::hint::black_box(1e-3)));
        let mut chains = [L::all(0.5); CHAINS];
        for _ in 0..rounds {
            for chain in &mut chains {
                *chain = chain.fma(x, y);
            }
        }
        let sum = chains.into_iter().reduce(|a, b| a.add(b)).unwrap_or(x);
        let mut numbers = [0.0f32; 16];
        sum.store(numbers.as_mut_ptr());
        std::hint::black_box(numbers);
    }
    (rounds * CHAINS * L::N * 2) as f64
}

/// Reads every number once.
///
/// # Safety
/// The processor must have the instructions of `L`.
#[inline(always)]
pub unsafe fn read<L: Lanes, const CHAINS: usize>(numbers: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    // SAFETY: the caller's promise; each block has CHAINS vectors, `sums` holds N numbers.
    unsafe {
        let mut chains = [L::all(0.0); CHAINS];
        for block in numbers.chunks_exact(CHAINS * L::N) {
            for (k, chain) in chains.iter_mut().enumerate() {
                *chain = chain.add(L::load(block.as_ptr().add(k * L::N)));
            }
        }
        let sum = chains.into_iter().reduce(|a, b| a.add(b)).unwrap_or(L::all(0.0));
        sum.store(sums.as_mut_ptr());
    }
    sums.iter().sum()
}
