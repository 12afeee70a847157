//! int8 on x86 with vectors of 256 bits: AVX2, and VNNI where it comes without AVX-512 (AVX-VNNI). The two differ in how
//! four products are added, and share the rest.

use super::PANEL;
use super::narrow::{NarrowKernels, Rows, Scales};
use super::tiling::{Graded, WIDE};
use std::arch::x86_64::*;

/// The tables that this processor can run, the best last.
pub fn kernels() -> Vec<&'static NarrowKernels> {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let there = [
        (avx2, &AVX2),
        #[cfg(test)]
        (avx2 && is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl"), &EVEX),
        (avx2 && is_x86_feature_detected!("avxvnni"), &AVX_VNNI),
    ];
    there.into_iter().filter(|(there, _)| *there).map(|(_, kernels)| kernels).collect()
}

/// A table, and the function with the instructions that it is made of.
macro_rules! table {
    ($name:ident, $text:literal, $features:literal, $dot:ident, $tile:ident, $peak:expr) => {
        static $name: NarrowKernels = NarrowKernels {
            name: $text,
            with: "avx2",
            rows: if $dot::OFFSET { Rows::Offset } else { Rows::Words },
            tiles: [$tile::<8, 1>, $tile::<4, 1>, $tile::<2, 1>, $tile::<1, 1>],
            graded: Graded::NONE,
            wide: $tile::<1, WIDE>,
            tall: None,
            peak: $peak,
        };

        /// # Safety
        /// As `portable_tile` of [`super::narrow`], with `sums` in `scales`; the processor must have the instructions.
        #[target_feature(enable = $features)]
        unsafe fn $tile<const ROWS: usize, const PANELS: usize>(
            groups: usize,
            a: *const u32,
            b: *const u32,
            scales: Scales,
            from: *const f32,
            ld: usize,
            c: *mut f32,
            ldc: usize,
        ) {
            // SAFETY: the caller's promise; this function has the instructions of the dot product.
            unsafe { tile::<$dot, ROWS, PANELS>(groups, a, b, scales, from, ld, c, ldc) }
        }
    };
}

// SAFETY of the peaks: the tables are only handed out by `kernels`, after it has seen the instructions.
table!(AVX2, "avx2", "avx2,fma", Pairs, avx2, Some(|rounds| unsafe { pairs_peak(rounds) }));
table!(AVX_VNNI, "avx-vnni", "avx2,fma,avxvnni", Vex, avx_vnni, Some(|rounds| unsafe { avx_vnni_peak(rounds) }));
// The same instruction as AVX-512 encodes it: on processors that have only that, the tests run the body with it.
#[cfg(test)]
table!(EVEX, "avx512-vnni-256", "avx2,fma,avx512vnni,avx512vl", Evex, evex, None);

/// Products of bytes, four to a sum.
trait Dot {
    /// Whether `a` is stored 128 higher than it is, as unsigned numbers.
    const OFFSET: bool;
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn dot(sum: __m256i, a: __m256i, b: __m256i) -> __m256i;
}

/// |a| · (b with a's sign), so that no pair of products is more than 2 · 127², which 16 bits hold.
struct Pairs;
/// VPDPBUSD, of AVX-VNNI.
struct Vex;
/// VPDPBUSD, of AVX-512 VNNI and VL.
#[cfg(test)]
struct Evex;

impl Dot for Pairs {
    const OFFSET: bool = false;
    #[inline(always)]
    unsafe fn dot(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), _mm256_sign_epi8(b, a));
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
}

impl Dot for Vex {
    const OFFSET: bool = true;
    #[inline(always)]
    unsafe fn dot(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_dpbusd_avx_epi32(sum, a, b) }
    }
}

#[cfg(test)]
impl Dot for Evex {
    const OFFSET: bool = true;
    #[inline(always)]
    unsafe fn dot(sum: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_dpbusd_epi32(sum, a, b) }
    }
}

/// Half a panel and four rows at a time, or a whole panel and two rows or one.
///
/// # Safety
/// As `portable_tile` of [`super::narrow`], with `sums` in `scales`; the processor must have AVX2, FMA and the instructions
/// of `D`.
#[inline(always)]
unsafe fn tile<D: Dot, const ROWS: usize, const PANELS: usize>(
    groups: usize,
    a: *const u32,
    b: *const u32,
    scales: Scales,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
) {
    const LANES: usize = 8;
    // SAFETY: all addresses lie in what the caller promises.
    unsafe {
        for first in (0..ROWS).step_by(4) {
            let rows = ROWS.min(4);
            // With few rows, what is done once for each of their words counts.
            let vectors = if ROWS <= 2 { 4 } else { 2 };
            for pass in 0..4 / vectors * PANELS {
                let start = pass * vectors * LANES;
                let b = b.add(start / PANEL * groups * PANEL + start % PANEL);
                let mut sum = [[_mm256_setzero_si256(); 4]; 4];
                for g in 0..groups {
                    let mut row = [_mm256_setzero_si256(); 4];
                    for (v, row) in row[..vectors].iter_mut().enumerate() {
                        *row = _mm256_load_si256(b.add(g * PANEL + v * LANES).cast());
                    }
                    for (r, sum) in sum[..rows].iter_mut().enumerate() {
                        let x = _mm256_set1_epi32(*a.add((first + r) * groups + g) as i32);
                        for (sum, &b) in sum[..vectors].iter_mut().zip(&row) {
                            *sum = D::dot(*sum, x, b);
                        }
                    }
                }
                for (r, sum) in sum[..rows].iter().enumerate() {
                    let row = _mm256_set1_ps(*scales.rows.add(first + r));
                    for (v, &sum) in sum[..vectors].iter().enumerate() {
                        let column = start + v * LANES;
                        let sum = if D::OFFSET {
                            _mm256_sub_epi32(sum, _mm256_loadu_si256(scales.sums.add(column).cast()))
                        } else {
                            sum
                        };
                        let scale = _mm256_mul_ps(row, _mm256_loadu_ps(scales.columns.add(column)));
                        let from = _mm256_loadu_ps(from.add((first + r) * ld + column));
                        let to = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, from);
                        _mm256_storeu_ps(c.add((first + r) * ldc + column), to);
                    }
                }
            }
        }
    }
}

/// Accumulators of the peaks: enough that none waits for the one before.
const CHAINS: usize = 12;

#[target_feature(enable = "avx2,fma")]
fn pairs_peak(rounds: usize) -> f64 {
    // SAFETY: this function has the instructions.
    unsafe { peak::<Pairs>(rounds) }
}

#[target_feature(enable = "avx2,avxvnni")]
fn avx_vnni_peak(rounds: usize) -> f64 {
    // SAFETY: this function has the instructions.
    unsafe { peak::<Vex>(rounds) }
}

/// # Safety
/// The processor must have AVX2 and the instructions of `D`.
#[inline(always)]
unsafe fn peak<D: Dot>(rounds: usize) -> f64 {
    // SAFETY: the caller's promise.
    unsafe {
        let x = _mm256_set1_epi32(std::hint::black_box(0x0102_0304));
        let mut chains = [_mm256_set1_epi32(1); CHAINS];
        for _ in 0..rounds {
            for chain in &mut chains {
                // With numbers that stay the same, of `Pairs` all but the addition would be done once.
                *chain = D::dot(*chain, x, *chain);
            }
        }
        let sum = chains.into_iter().reduce(|a, b| _mm256_add_epi32(a, b)).unwrap_or(x);
        std::hint::black_box(_mm256_extract_epi32::<0>(sum));
    }
    (rounds * CHAINS * 32 * 2) as f64
}
