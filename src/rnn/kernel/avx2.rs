//! AVX2 with FMA: a panel is four vectors. Three rows by a panel, or six by half of one and then the other half, keep their sums in
//! registers.

use super::memory::LINE;
use super::tiling::{Graded, Split};
use super::{Kernels, PANEL, Terms, Tile, WIDE, lanes, narrow, portable};
use std::arch::x86_64::*;

/// Numbers of a vector.
const LANES: usize = 8;

/// Accumulators of the roofline's kernels: enough that none waits for the one before.
const CHAINS: usize = 12;

const UP_TO_SIX_ROWS: Graded<Tile> = Graded {
    panels: 1,
    tiles: &[whole::<1>, whole::<2>, whole::<3>, tile::<4, 4>, tile::<5, 4>, tile::<6, 4>],
    split: Split::Tallest { least: 3 },
};

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
            heights: [6, 4, 2, 1],
            // A pass over half a panel leaves out every other line, which the processor's own fetching is poor at.
            ahead_rows: 2,
            tiles: [tile::<6, 4>, tile::<4, 4>, whole::<2>, whole::<1>],
            halves: [tile::<6, 2>, tile::<4, 2>, tile::<2, 2>, tile::<1, 2>],
            graded: UP_TO_SIX_ROWS,
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

/// `ROWS` rows by `VECTORS` vectors of a panel, two of them at a time.
///
/// # Safety
/// As [`portable::tile`]; the processor must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const ROWS: usize, const VECTORS: usize>(
    terms: &[Terms<f32>],
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
) {
    const TWO: usize = 2;
    // SAFETY: all addresses lie in what the caller promises: ROWS rows of C and A, k rows of the panel. Fetching ahead may be of any.
    unsafe {
        for first in (0..VECTORS).step_by(TWO) {
            let (from, c) = (from.add(first * LANES), c.add(first * LANES));
            let mut sum = [[_mm256_setzero_ps(); TWO]; ROWS];
            for (r, sum) in sum.iter_mut().enumerate() {
                for (v, sum) in sum.iter_mut().enumerate() {
                    *sum = _mm256_loadu_ps(from.add(r * ld + v * LANES));
                }
            }
            for &Terms { k, a, stride, b, ahead, pace } in terms {
                let b = b.add(first * LANES);
                // Each pass fetches its part of what is ahead.
                let pace = pace.div_ceil(VECTORS / TWO);
                let ahead = ahead.wrapping_add(first / TWO * k * pace);
                for p in 0..k {
                    for line in 0..TWO * LANES * size_of::<f32>() / LINE {
                        _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(p * pace + line * LINE).cast());
                    }
                    let mut row = [_mm256_setzero_ps(); TWO];
                    for (v, row) in row.iter_mut().enumerate() {
                        *row = _mm256_loadu_ps(b.add(p * PANEL + v * LANES));
                    }
                    for (r, sum) in sum.iter_mut().enumerate() {
                        let x = _mm256_set1_ps(*a.add(r * stride.0 + p * stride.1));
                        for (sum, &b) in sum.iter_mut().zip(&row) {
                            *sum = _mm256_fmadd_ps(x, b, *sum);
                        }
                    }
                }
            }
            for (r, sum) in sum.iter().enumerate() {
                for (v, &sum) in sum.iter().enumerate() {
                    _mm256_storeu_ps(c.add(r * ldc + v * LANES), sum);
                }
            }
        }
    }
}

/// `ROWS` rows by a panel, one vector of it for all rows at a time: twelve sums of three rows, what their rows are multiplied by
/// and a vector are all registers there are.
///
/// # Safety
/// As [`portable::tile`]; the processor must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn whole<const ROWS: usize>(terms: &[Terms<f32>], from: *const f32, ld: usize, c: *mut f32, ldc: usize) {
    // SAFETY: all addresses lie in what the caller promises: ROWS rows of C and A, k rows of the panel. Fetching ahead may be of any.
    unsafe {
        let mut sum = [[_mm256_setzero_ps(); PANEL / LANES]; ROWS];
        for (r, sum) in sum.iter_mut().enumerate() {
            for (v, sum) in sum.iter_mut().enumerate() {
                *sum = _mm256_loadu_ps(from.add(r * ld + v * LANES));
            }
        }
        for &Terms { k, a, stride, b, ahead, pace } in terms {
            for p in 0..k {
                for line in 0..PANEL * size_of::<f32>() / LINE {
                    _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(p * pace + line * LINE).cast());
                }
                let mut x = [_mm256_setzero_ps(); ROWS];
                for (r, x) in x.iter_mut().enumerate() {
                    *x = _mm256_set1_ps(*a.add(r * stride.0 + p * stride.1));
                }
                for v in 0..PANEL / LANES {
                    let b = _mm256_loadu_ps(b.add(p * PANEL + v * LANES));
                    for (sum, &x) in sum.iter_mut().zip(&x) {
                        sum[v] = _mm256_fmadd_ps(x, b, sum[v]);
                    }
                }
            }
        }
        for (r, sum) in sum.iter().enumerate() {
            for (v, &sum) in sum.iter().enumerate() {
                _mm256_storeu_ps(c.add(r * ldc + v * LANES), sum);
            }
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
