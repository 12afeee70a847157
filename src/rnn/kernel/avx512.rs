//! AVX-512F: a panel is two vectors; eight rows by a panel fill sixteen accumulators.

use super::{AdamStep, Kernels, PANEL, WIDE, portable};
use std::arch::x86_64::*;

/// The table, if this processor has the instructions.
pub fn kernels() -> Option<&'static Kernels> {
    let there = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma");
    there.then_some(&TABLE)
}

static TABLE: Kernels = Kernels {
    name: "avx512",
    tiles: [(8, tile::<8>), (4, tile::<4>), (2, tile::<2>), (1, tile::<1>)],
    wide,
    lstm_rows: |hidden, gates, c, h| {
        // SAFETY: the table is only handed out by `kernels`, after it has seen the instructions.
        unsafe { lstm_rows(hidden, gates, c, h) }
    },
    gru_rows: |hidden, gates, hn, h| {
        // SAFETY: as above.
        unsafe { gru_rows(hidden, gates, hn, h) }
    },
    lstm_back: |hidden, gates, c, c_prev, dh, dc, dgates| {
        // SAFETY: as above.
        unsafe { lstm_back(hidden, gates, c, c_prev, dh, dc, dgates) }
    },
    gru_back: |hidden, gates, hn, h_prev, dh, dx, dg| {
        // SAFETY: as above.
        unsafe { gru_back(hidden, gates, hn, h_prev, dh, dx, dg) }
    },
    tanh_all: |x| {
        // SAFETY: as above.
        unsafe { tanh_all(x) }
    },
    softmax_rows: |width, x| {
        // SAFETY: as above.
        unsafe { softmax_rows(width, x) }
    },
    adam: |p, g, m, v, s| {
        // SAFETY: as above.
        unsafe { adam(p, g, m, v, s) }
    },
};

// The elementwise kernels are the portable ones, compiled for these instructions: the compiler turns them into vector
// code, and IEEE arithmetic gives the same bits.

#[target_feature(enable = "avx512f,avx2,fma")]
fn lstm_rows(hidden: usize, gates: &mut [f32], c: &mut [f32], h: &mut [f32]) {
    portable::lstm_rows(hidden, gates, c, h);
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn gru_rows(hidden: usize, gates: &mut [f32], hn: &[f32], h: &mut [f32]) {
    portable::gru_rows(hidden, gates, hn, h);
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn lstm_back(hidden: usize, gates: &[f32], c: &[f32], c_prev: &[f32], dh: &[f32], dc: &mut [f32], dgates: &mut [f32]) {
    portable::lstm_back(hidden, gates, c, c_prev, dh, dc, dgates);
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn gru_back(hidden: usize, gates: &[f32], hn: &[f32], h_prev: &[f32], dh: &mut [f32], dx: &mut [f32], dg: &mut [f32]) {
    portable::gru_back(hidden, gates, hn, h_prev, dh, dx, dg);
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn tanh_all(x: &mut [f32]) {
    portable::tanh_all(x);
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn softmax_rows(width: usize, x: &mut [f32]) {
    portable::softmax_rows(width, x);
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn adam(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], s: &AdamStep<f32>) {
    portable::adam(p, g, m, v, s);
}

/// # Safety
/// As [`portable::tile`]; the processor must have AVX-512F.
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn tile<const ROWS: usize>(
    k: usize,
    a: *const f32,
    stride: (usize, usize),
    b: *const f32,
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: all addresses lie in what the caller promises: ROWS rows of C and A, k rows of the panel.
    unsafe {
        let mut sum = [[_mm512_setzero_ps(); 2]; ROWS];
        for (r, sum) in sum.iter_mut().enumerate() {
            sum[0] = _mm512_loadu_ps(c.add(r * ldc));
            sum[1] = _mm512_loadu_ps(c.add(r * ldc + 16));
        }
        for p in 0..k {
            let (b0, b1) = (_mm512_loadu_ps(b.add(p * PANEL)), _mm512_loadu_ps(b.add(p * PANEL + 16)));
            for (r, sum) in sum.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(r * stride.0 + p * stride.1));
                sum[0] = _mm512_fmadd_ps(x, b0, sum[0]);
                sum[1] = _mm512_fmadd_ps(x, b1, sum[1]);
            }
        }
        for (r, sum) in sum.iter().enumerate() {
            _mm512_storeu_ps(c.add(r * ldc), sum[0]);
            _mm512_storeu_ps(c.add(r * ldc + 16), sum[1]);
        }
    }
}

/// # Safety
/// As [`portable::wide`]; the processor must have AVX-512F.
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn wide(k: usize, a: *const f32, stride: (usize, usize), b: *const f32, c: *mut f32, _ldc: usize) {
    // SAFETY: all addresses lie in what the caller promises: one row of A, WIDE panels of B and columns of C.
    unsafe {
        let mut sum = [[_mm512_setzero_ps(); 2]; WIDE];
        for (w, sum) in sum.iter_mut().enumerate() {
            sum[0] = _mm512_loadu_ps(c.add(w * PANEL));
            sum[1] = _mm512_loadu_ps(c.add(w * PANEL + 16));
        }
        for p in 0..k {
            let x = _mm512_set1_ps(*a.add(p * stride.1));
            for (w, sum) in sum.iter_mut().enumerate() {
                let b = b.add((w * k + p) * PANEL);
                sum[0] = _mm512_fmadd_ps(x, _mm512_loadu_ps(b), sum[0]);
                sum[1] = _mm512_fmadd_ps(x, _mm512_loadu_ps(b.add(16)), sum[1]);
            }
        }
        for (w, sum) in sum.iter().enumerate() {
            _mm512_storeu_ps(c.add(w * PANEL), sum[0]);
            _mm512_storeu_ps(c.add(w * PANEL + 16), sum[1]);
        }
    }
}
