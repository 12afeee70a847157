//! AVX2 with FMA: a panel is four vectors; a tile takes half a panel at a time, four rows at most.

use super::{Kernels, PANEL, Terms, WIDE, lanes, narrow, portable};
use std::arch::x86_64::*;

/// Accumulators of the roofline's kernels: enough that none waits for the one before.
const CHAINS: usize = 12;

/// The table, if this processor has the instructions.
pub fn kernels() -> Option<&'static Kernels> {
    let there = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    there.then_some(&TABLE)
}

// The elementwise kernels are the portable ones, compiled for these instructions: the compiler turns them into vector
// code, and IEEE arithmetic gives the same bits.
macro_rules! compiled {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {
        $(
            #[target_feature(enable = "avx2,fma")]
            fn $name($($arg: $ty),*) {
                portable::$name($($arg),*);
            }
        )*

        static TABLE: Kernels = Kernels {
            name: "avx2",
            tiles: [tile::<8>, tile::<4>, tile::<2>, tile::<1>],
            halves: [half::<8>, half::<4>, half::<2>, half::<1>],
            wide,
            // SAFETY (all): the table is only handed out by `kernels`, after it has seen the instructions.
            lstm_step: |hidden, gates, c, h| unsafe { lstm_step(hidden, gates, c, h) },
            gru_step: |hidden, gates, hn, h| unsafe { gru_step(hidden, gates, hn, h) },
            peak: |rounds| unsafe { peak(rounds) },
            read: |numbers| unsafe { read(numbers) },
            bf16_rows: |k, a, words| unsafe { bf16_rows(k, a, words) },
            bf16_pairs: |k, a, words| unsafe { bf16_pairs(k, a, words) },
            int8_rows: |k, offset, a, words, scales| unsafe { int8_rows(k, offset, a, words, scales) },
            $($name: |$($arg),*| {
                // SAFETY: the table is only handed out by `kernels`, after it has seen the instructions.
                unsafe { $name($($arg),*) }
            },)*
        };
    };
}
elementwise!(compiled, f32);

#[target_feature(enable = "avx2,fma")]
fn lstm_step(hidden: usize, gates: &mut [f32], c: &mut [f32], h: &mut [f32]) {
    // SAFETY: this function has the instructions.
    unsafe { lanes::lstm_step::<__m256>(hidden, gates, c, h) }
}

#[target_feature(enable = "avx2,fma")]
fn gru_step(hidden: usize, gates: &mut [f32], hn: &[f32], h: &mut [f32]) {
    // SAFETY: this function has the instructions.
    unsafe { lanes::gru_step::<__m256>(hidden, gates, hn, h) }
}

#[target_feature(enable = "avx2,fma")]
fn peak(rounds: usize) -> f64 {
    // SAFETY: this function has the instructions.
    unsafe { lanes::peak::<__m256, CHAINS>(rounds) }
}

#[target_feature(enable = "avx2,fma")]
fn read(numbers: &[f32]) -> f32 {
    // SAFETY: this function has the instructions.
    unsafe { lanes::read::<__m256, CHAINS>(numbers) }
}

#[target_feature(enable = "avx2,fma")]
fn bf16_rows(k: usize, a: &[f32], words: &mut [u32]) {
    narrow::bf16_rows(k, a, words);
}

#[target_feature(enable = "avx2,fma")]
fn bf16_pairs(k: usize, a: &[f32], words: &mut [u32]) {
    narrow::bf16_pairs(k, a, words);
}

#[target_feature(enable = "avx2,fma")]
fn int8_rows(k: usize, offset: u8, a: &[f32], words: &mut [u32], scales: &mut [f32]) {
    narrow::int8_rows(k, offset, a, words, scales);
}

/// # Safety
/// As [`portable::tile`]; the processor must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const ROWS: usize>(terms: &[Terms<f32>], from: *const f32, ld: usize, c: *mut f32, ldc: usize) {
    // SAFETY: the caller's promise covers every part.
    unsafe {
        if ROWS == 8 {
            half_tile::<4>(terms, 0, 0, from, ld, c, ldc);
            half_tile::<4>(terms, 0, 16, from, ld, c, ldc);
            half_tile::<4>(terms, 4, 0, from, ld, c, ldc);
            half_tile::<4>(terms, 4, 16, from, ld, c, ldc);
            return;
        }
        half_tile::<ROWS>(terms, 0, 0, from, ld, c, ldc);
        half_tile::<ROWS>(terms, 0, 16, from, ld, c, ldc);
    }
}

/// # Safety
/// As [`tile`], for half a panel.
#[target_feature(enable = "avx2,fma")]
unsafe fn half<const ROWS: usize>(terms: &[Terms<f32>], from: *const f32, ld: usize, c: *mut f32, ldc: usize) {
    // SAFETY: the caller's promise covers every part.
    unsafe {
        if ROWS == 8 {
            half_tile::<4>(terms, 0, 0, from, ld, c, ldc);
            half_tile::<4>(terms, 4, 0, from, ld, c, ldc);
            return;
        }
        half_tile::<ROWS>(terms, 0, 0, from, ld, c, ldc);
    }
}

/// # Safety
/// As [`tile`], for the rows from `row` and sixteen columns from `column` on.
#[target_feature(enable = "avx2,fma")]
unsafe fn half_tile<const ROWS: usize>(
    terms: &[Terms<f32>],
    row: usize,
    column: usize,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: all addresses lie in what the caller promises: ROWS rows of C and A, k rows of half a panel.
    unsafe {
        let (from, c) = (from.add(row * ld + column), c.add(row * ldc + column));
        let mut sum = [[_mm256_setzero_ps(); 2]; ROWS];
        for (r, sum) in sum.iter_mut().enumerate() {
            sum[0] = _mm256_loadu_ps(from.add(r * ld));
            sum[1] = _mm256_loadu_ps(from.add(r * ld + 8));
        }
        for &Terms { k, a, stride, b, .. } in terms {
            let (a, b) = (a.add(row * stride.0), b.add(column));
            for p in 0..k {
                let (b0, b1) = (_mm256_loadu_ps(b.add(p * PANEL)), _mm256_loadu_ps(b.add(p * PANEL + 8)));
                for (r, sum) in sum.iter_mut().enumerate() {
                    let x = _mm256_set1_ps(*a.add(r * stride.0 + p * stride.1));
                    sum[0] = _mm256_fmadd_ps(x, b0, sum[0]);
                    sum[1] = _mm256_fmadd_ps(x, b1, sum[1]);
                }
            }
        }
        for (r, sum) in sum.iter().enumerate() {
            _mm256_storeu_ps(c.add(r * ldc), sum[0]);
            _mm256_storeu_ps(c.add(r * ldc + 8), sum[1]);
        }
    }
}

/// # Safety
/// As [`portable::wide`]; the processor must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn wide(terms: &[Terms<f32>], from: *const f32, _ld: usize, c: *mut f32, _ldc: usize) {
    // SAFETY: all addresses lie in what the caller promises: one row of A, WIDE panels of B and columns of C, taken
    // two panels (eight vectors) at a time.
    unsafe {
        for pair in (0..WIDE).step_by(2) {
            let (from, c) = (from.add(pair * PANEL), c.add(pair * PANEL));
            let mut sum = [_mm256_setzero_ps(); 8];
            for (v, sum) in sum.iter_mut().enumerate() {
                *sum = _mm256_loadu_ps(from.add(v * 8));
            }
            for &Terms { k, a, stride, b, .. } in terms {
                for p in 0..k {
                    let x = _mm256_set1_ps(*a.add(p * stride.1));
                    for (v, sum) in sum.iter_mut().enumerate() {
                        let at = ((pair + v / 4) * k + p) * PANEL + v % 4 * 8;
                        *sum = _mm256_fmadd_ps(x, _mm256_loadu_ps(b.add(at)), *sum);
                    }
                }
            }
            for (v, sum) in sum.iter().enumerate() {
                _mm256_storeu_ps(c.add(v * 8), *sum);
            }
        }
    }
}
