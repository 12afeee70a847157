//! AVX-512F: a panel is two vectors; eight rows by a panel fill sixteen accumulators, six by two panels twenty-four.

use super::cpuid::is_intel;
use super::memory::LINE;
use super::tiling::{Graded, Split};
use super::{Kernels, PANEL, Terms, WIDE, lanes, narrow, portable};
use std::arch::x86_64::*;

/// Accumulators of the roofline's kernels: enough that none waits for the one before.
const CHAINS: usize = 12;

/// The tables, if this processor has the instructions, the faster last.
///
/// Two panels at a time take ten loads for twenty-four multiplications, one takes ten for sixteen. Intel's processors, on which it
/// was measured, load little more than one vector a cycle while they multiply two.
pub fn kernels() -> Vec<&'static Kernels> {
    let there = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("fma");
    match there {
        true if is_intel() => vec![&ONE, &PAIRS],
        true => vec![&PAIRS, &ONE],
        false => Vec::new(),
    }
}

static ONE: Kernels = TABLE;
static PAIRS: Kernels = Kernels {
    name: "avx512-pairs",
    // With fewer, a tile would have to fetch more than two lines with each of the k. (Nine rows and eleven leave a tenth.)
    ahead_rows: 8,
    graded: Graded {
        split: Split::Evenly,
        panels: 2,
        tiles: &[tile::<1, 4>, tile::<2, 4>, tile::<3, 4>, tile::<4, 4>, tile::<5, 4>, tile::<6, 4>],
    },
    ..TABLE
};

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

        const TABLE: Kernels = Kernels {
            name: "avx512",
            heights: super::tiling::TILE_ROWS,
            // With fewer, a tile would have to fetch more than a line with each of the k.
            ahead_rows: 16,
            tiles: [tile::<8, 2>, tile::<4, 2>, tile::<2, 2>, tile::<1, 2>],
            halves: [tile::<8, 1>, tile::<4, 1>, tile::<2, 1>, tile::<1, 1>],
            graded: Graded::NONE,
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

/// `ROWS` rows by `VECTORS` vectors of a panel, or of two.
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
    // SAFETY: all addresses lie in what the caller promises: ROWS rows of C and A, k rows of the panel, or of two that follow one another.
    unsafe {
        let mut sum = [[_mm512_setzero_ps(); VECTORS]; ROWS];
        for (r, sum) in sum.iter_mut().enumerate() {
            for (v, sum) in sum.iter_mut().enumerate() {
                *sum = _mm512_loadu_ps(from.add(r * ld + v * 16));
            }
        }
        for terms in terms {
            match terms.pace {
                ..=LINE => add::<ROWS, VECTORS, 1>(&mut sum, terms),
                _ => add::<ROWS, VECTORS, 2>(&mut sum, terms),
            }
        }
        for (r, sum) in sum.iter().enumerate() {
            for (v, &sum) in sum.iter().enumerate() {
                _mm512_storeu_ps(c.add(r * ldc + v * 16), sum);
            }
        }
    }
}

/// Adds the products to a tile's sums, and fetches so many cache lines ahead with each of the k.
///
/// # Safety
/// As [`tile`].
#[inline]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn add<const ROWS: usize, const VECTORS: usize, const LINES: usize>(
    sum: &mut [[__m512; VECTORS]; ROWS],
    &Terms { k, a, stride, b, ahead, pace }: &Terms<f32>,
) {
    // SAFETY: all addresses lie in what the caller promises: ROWS rows of A, k rows of the panel, or of two that follow one
    // another. Fetching ahead may be of any.
    unsafe {
        for p in 0..k {
            for line in 0..LINES {
                _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(p * pace + line * LINE).cast());
            }
            let mut row = [_mm512_setzero_ps(); VECTORS];
            for (v, row) in row.iter_mut().enumerate() {
                *row = _mm512_loadu_ps(b.add((v / 2 * k + p) * PANEL + v % 2 * 16));
            }
            for (r, sum) in sum.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(r * stride.0 + p * stride.1));
                for (sum, &b) in sum.iter_mut().zip(&row) {
                    *sum = _mm512_fmadd_ps(x, b, *sum);
                }
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
