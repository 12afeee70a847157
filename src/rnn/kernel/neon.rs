//! NEON, which every aarch64 processor has: a panel is eight vectors; a tile takes half a panel at a time, four rows at
//! most.

use super::tiling::Graded;
use super::{Kernels, PANEL, Terms, WIDE, lanes, narrow, portable};
use std::arch::aarch64::*;

/// Numbers in a vector.
const LANES: usize = 4;

/// Accumulators of the roofline's kernels: a core that begins four vectors' operations a cycle waits four for each.
const CHAINS: usize = 24;

// The elementwise kernels are the portable ones: the compiler has NEON for them anyway.
macro_rules! table {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {
        pub static TABLE: Kernels = Kernels {
            name: "neon",
            heights: super::tiling::TILE_ROWS,
            ahead_rows: usize::MAX,
            tiles: [tile::<8>, tile::<4>, tile::<2>, tile::<1>],
            halves: [half::<8>, half::<4>, half::<2>, half::<1>],
            graded: Graded::NONE,
            wide,
            // SAFETY (all): every aarch64 processor has NEON.
            lstm_step: |hidden, gates, c, h| unsafe { lanes::lstm_step::<float32x4_t>(hidden, gates, c, h) },
            gru_step: |hidden, gates, hn, h| unsafe { lanes::gru_step::<float32x4_t>(hidden, gates, hn, h) },
            peak: |rounds| unsafe { lanes::peak::<float32x4_t, CHAINS>(rounds) },
            read: |numbers| unsafe { lanes::read::<float32x4_t, CHAINS>(numbers) },
            bf16_rows: narrow::bf16_rows,
            bf16_pairs: narrow::bf16_pairs,
            int8_rows: narrow::int8_rows,
            $($name: portable::$name::<f32>,)*
        };
    };
}
elementwise!(table, f32);

/// # Safety
/// As [`portable::tile`].
unsafe fn tile<const ROWS: usize>(terms: &[Terms<f32>], from: *const f32, ld: usize, c: *mut f32, ldc: usize) {
    // SAFETY: the caller's promise covers every part.
    unsafe {
        if ROWS == 8 {
            for (row, column) in [(0, 0), (0, 16), (4, 0), (4, 16)] {
                part::<4, 4>(terms, row, column, from, ld, c, ldc);
            }
            return;
        }
        if ROWS == 4 {
            for column in [0, 16] {
                part::<ROWS, 4>(terms, 0, column, from, ld, c, ldc);
            }
            return;
        }
        part::<ROWS, 8>(terms, 0, 0, from, ld, c, ldc);
    }
}

/// # Safety
/// As [`tile`], for half a panel.
unsafe fn half<const ROWS: usize>(terms: &[Terms<f32>], from: *const f32, ld: usize, c: *mut f32, ldc: usize) {
    // SAFETY: the caller's promise covers every part.
    unsafe {
        if ROWS == 8 {
            part::<4, 4>(terms, 0, 0, from, ld, c, ldc);
            part::<4, 4>(terms, 4, 0, from, ld, c, ldc);
            return;
        }
        part::<ROWS, 4>(terms, 0, 0, from, ld, c, ldc);
    }
}

/// `ROWS` rows by `VECTORS` vectors of a panel, from `row` and `column` on.
///
/// # Safety
/// As [`tile`], for so many columns.
#[inline(always)]
unsafe fn part<const ROWS: usize, const VECTORS: usize>(
    terms: &[Terms<f32>],
    row: usize,
    column: usize,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: all addresses lie in what the caller promises: ROWS rows of C and A, k rows of VECTORS vectors.
    unsafe {
        let (from, c) = (from.add(row * ld + column), c.add(row * ldc + column));
        let mut sum = [[vdupq_n_f32(0.0); VECTORS]; ROWS];
        for (r, sum) in sum.iter_mut().enumerate() {
            for (v, sum) in sum.iter_mut().enumerate() {
                *sum = vld1q_f32(from.add(r * ld + v * LANES));
            }
        }
        for &Terms { k, a, stride, b, .. } in terms {
            let (a, b) = (a.add(row * stride.0), b.add(column));
            for p in 0..k {
                let mut row = [vdupq_n_f32(0.0); VECTORS];
                for (v, row) in row.iter_mut().enumerate() {
                    *row = vld1q_f32(b.add(p * PANEL + v * LANES));
                }
                for (r, sum) in sum.iter_mut().enumerate() {
                    let x = *a.add(r * stride.0 + p * stride.1);
                    for (sum, &b) in sum.iter_mut().zip(&row) {
                        *sum = vfmaq_n_f32(*sum, b, x);
                    }
                }
            }
        }
        for (r, sum) in sum.iter().enumerate() {
            for (v, &sum) in sum.iter().enumerate() {
                vst1q_f32(c.add(r * ldc + v * LANES), sum);
            }
        }
    }
}

/// # Safety
/// As [`portable::wide`].
unsafe fn wide(terms: &[Terms<f32>], from: *const f32, _ld: usize, c: *mut f32, _ldc: usize) {
    const VECTORS: usize = PANEL / LANES;
    // SAFETY: all addresses lie in what the caller promises: one row of A, WIDE panels of B and columns of C, taken two
    // panels (sixteen vectors) at a time.
    unsafe {
        for pair in (0..WIDE).step_by(2) {
            let (from, c) = (from.add(pair * PANEL), c.add(pair * PANEL));
            let mut sum = [vdupq_n_f32(0.0); 2 * VECTORS];
            for (v, sum) in sum.iter_mut().enumerate() {
                *sum = vld1q_f32(from.add(v * LANES));
            }
            for &Terms { k, a, stride, b, .. } in terms {
                for p in 0..k {
                    let x = *a.add(p * stride.1);
                    for (v, sum) in sum.iter_mut().enumerate() {
                        let at = ((pair + v / VECTORS) * k + p) * PANEL + v % VECTORS * LANES;
                        *sum = vfmaq_n_f32(*sum, vld1q_f32(b.add(at)), x);
                    }
                }
            }
            for (v, &sum) in sum.iter().enumerate() {
                vst1q_f32(c.add(v * LANES), sum);
            }
        }
    }
}
