//! AVX-512F: a panel is two vectors; eight rows by a panel fill sixteen accumulators.

use super::{Kernels, PANEL, Terms, WIDE, lanes, narrow, portable};
use std::arch::x86_64::*;

/// Accumulators of the roofline's kernels: enough that none waits for the one before.
const CHAINS: usize = 12;

/// The table, if this processor has the instructions.
pub fn kernels() -> Option<&'static Kernels> {
    let there = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma");
    there.then_some(&TABLE)
}

// The elementwise kernels are the portable ones, compiled for these instructions: the compiler turns them into vector
// code, and IEEE arithmetic gives the same bits.
macro_rules! compiled {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {
        $(
            #[target_feature(enable = "avx512f,avx2,fma")]
            fn $name($($arg: $ty),*) {
                portable::$name($($arg),*);
            }
        )*

        static TABLE: Kernels = Kernels {
            name: "avx512",
            heights: super::tiling::TILE_ROWS,
            // With fewer, a tile would have to fetch more than a line with each of the k.
            ahead_rows: 16,
            tiles: [tile::<8, 2>, tile::<4, 2>, tile::<2, 2>, tile::<1, 2>],
            halves: [tile::<8, 1>, tile::<4, 1>, tile::<2, 1>, tile::<1, 1>],
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

#[target_feature(enable = "avx512f,avx2,fma")]
fn lstm_step(hidden: usize, gates: &mut [f32], c: &mut [f32], h: &mut [f32]) {
    // SAFETY: this function has the instructions.
    unsafe { lanes::lstm_step::<__m512>(hidden, gates, c, h) }
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn gru_step(hidden: usize, gates: &mut [f32], hn: &[f32], h: &mut [f32]) {
    // SAFETY: this function has the instructions.
    unsafe { lanes::gru_step::<__m512>(hidden, gates, hn, h) }
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn peak(rounds: usize) -> f64 {
    // SAFETY: this function has the instructions.
    unsafe { lanes::peak::<__m512, CHAINS>(rounds) }
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn read(numbers: &[f32]) -> f32 {
    // SAFETY: this function has the instructions.
    unsafe { lanes::read::<__m512, CHAINS>(numbers) }
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn bf16_rows(k: usize, a: &[f32], words: &mut [u32]) {
    narrow::bf16_rows(k, a, words);
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn bf16_pairs(k: usize, a: &[f32], words: &mut [u32]) {
    narrow::bf16_pairs(k, a, words);
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn int8_rows(k: usize, offset: u8, a: &[f32], words: &mut [u32], scales: &mut [f32]) {
    narrow::int8_rows(k, offset, a, words, scales);
}

/// `ROWS` rows by `VECTORS` vectors of a panel.
///
/// # Safety
/// As [`portable::tile`]; the processor must have AVX-512F.
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn tile<const ROWS: usize, const VECTORS: usize>(
    terms: &[Terms<f32>],
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: all addresses lie in what the caller promises: ROWS rows of C and A, k rows of the panel.
    unsafe {
        let mut sum = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        for (r, sum) in sum.iter_mut().enumerate() {
            for (v, sum) in sum.iter_mut().enumerate() {
                *sum = _mm512_loadu_ps(from.add(r * ld + v * 16));
            }
        }
        for &Terms { k, a, stride, b, ahead, pace } in terms {
            for p in 0..k {
                _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(p * pace).cast());
                let mut row = [_mm512_setzero_ps(); VECTORS];
                for (v, row) in row.iter_mut().enumerate() {
                    *row = _mm512_loadu_ps(b.add(p * PANEL + v * 16));
                }
                for (r, sum) in sum.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*a.add(r * stride.0 + p * stride.1));
                    for (sum, &b) in sum.iter_mut().zip(&row) {
                        *sum = _mm512_fmadd_ps(x, b, *sum);
                    }
                }
            }
        }
        for (r, sum) in sum.iter().enumerate() {
            for (v, &sum) in sum.iter().enumerate() {
                _mm512_storeu_ps(c.add(r * ldc + v * 16), sum);
            }
        }
    }
}

/// # Safety
/// As [`portable::wide`]; the processor must have AVX-512F.
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn wide(terms: &[Terms<f32>], from: *const f32, _ld: usize, c: *mut f32, _ldc: usize) {
    // SAFETY: all addresses lie in what the caller promises: one row of A, WIDE panels of B and columns of C.
    unsafe {
        let mut sum = [[_mm512_setzero_ps(); 2]; WIDE];
        for (w, sum) in sum.iter_mut().enumerate() {
            sum[0] = _mm512_loadu_ps(from.add(w * PANEL));
            sum[1] = _mm512_loadu_ps(from.add(w * PANEL + 16));
        }
        for &Terms { k, a, stride, b, .. } in terms {
            for p in 0..k {
                let x = _mm512_set1_ps(*a.add(p * stride.1));
                for (w, sum) in sum.iter_mut().enumerate() {
                    let b = b.add((w * k + p) * PANEL);
                    sum[0] = _mm512_fmadd_ps(x, _mm512_loadu_ps(b), sum[0]);
                    sum[1] = _mm512_fmadd_ps(x, _mm512_loadu_ps(b.add(16)), sum[1]);
                }
            }
        }
        for (w, sum) in sum.iter().enumerate() {
            _mm512_storeu_ps(c.add(w * PANEL), sum[0]);
            _mm512_storeu_ps(c.add(w * PANEL + 16), sum[1]);
        }
    }
}
