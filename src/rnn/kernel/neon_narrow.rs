//! bf16 and int8 on aarch64: NEON, and its dot product where the processor has it.

use super::PANEL;
use super::narrow::{NarrowKernels, Precision, Rows, Scales};
use super::tiling::{Graded, WIDE};
use std::arch::aarch64::*;

/// The tables that this processor can run, the best last.
pub fn kernels(precision: Precision) -> Vec<&'static NarrowKernels> {
    if precision != Precision::Int8 {
        return vec![&BF16];
    }
    let dotprod = std::arch::is_aarch64_feature_detected!("dotprod");
    [(true, &INT8), (dotprod, &DOTPROD)].into_iter().filter(|(there, _)| *there).map(|(_, kernels)| kernels).collect()
}

macro_rules! table {
    ($name:ident, $text:literal, $rows:ident, $tile:ident, $peak:expr) => {
        static $name: NarrowKernels = NarrowKernels {
            name: $text,
            with: "neon",
            rows: Rows::$rows,
            tiles: [$tile::<8, 1>, $tile::<4, 1>, $tile::<2, 1>, $tile::<1, 1>],
            graded: Graded::NONE,
            wide: $tile::<1, WIDE>,
            tall: None,
            peak: $peak,
        };
    };
}

// SAFETY of the peak: the table is only handed out by `kernels`, after it has seen the instruction.
table!(DOTPROD, "neon-dotprod", Words, dotprod, Some(|rounds| unsafe { dotprod_peak(rounds) }));
table!(INT8, "neon", Words, int8, None);
table!(BF16, "neon", Widened, bf16, None);

/// Numbers in a vector of sums.
const LANES: usize = 4;

/// Products of signed bytes, four to a sum.
trait Dot {
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn dot(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t;
}

/// SDOT (Armv8.2), which stable Rust has no function for.
struct Sdot;
/// Products in 16 bits, of which two together are at most 2 · 127².
struct Pairs;

impl Dot for Sdot {
    #[inline(always)]
    unsafe fn dot(mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: the instruction, which the caller promises, reads and writes these registers alone.
        unsafe {
            std::arch::asm!(
                "sdot {sum:v}.4s, {a:v}.16b, {b:v}.16b",
                sum = inout(vreg) sum, a = in(vreg) a, b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sum
    }
}

impl Dot for Pairs {
    #[inline(always)]
    unsafe fn dot(sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: NEON, which every aarch64 processor has.
        unsafe {
            let (low, high) = (vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b));
            vpadalq_s16(sum, vpaddq_s16(low, high))
        }
    }
}

/// int8 with SDOT.
///
/// # Safety
/// As `portable_tile` of [`super::narrow`]; the processor must have the dot product.
#[target_feature(enable = "neon,dotprod")]
unsafe fn dotprod<const ROWS: usize, const PANELS: usize>(
    groups: usize,
    a: *const u32,
    b: *const u32,
    scales: Scales,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: the caller's promise.
    unsafe { int8_tile::<Sdot, ROWS, PANELS>(groups, a, b, scales, from, ld, c, ldc) }
}

/// int8 on any processor.
///
/// # Safety
/// As `portable_tile` of [`super::narrow`].
unsafe fn int8<const ROWS: usize, const PANELS: usize>(
    groups: usize,
    a: *const u32,
    b: *const u32,
    scales: Scales,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: the caller's promise.
    unsafe { int8_tile::<Pairs, ROWS, PANELS>(groups, a, b, scales, from, ld, c, ldc) }
}

/// Four rows by half a panel at a time, fewer by a whole one: sixteen sums at most.
///
/// # Safety
/// As `portable_tile` of [`super::narrow`]; the processor must have the instructions of `D`.
#[inline(always)]
unsafe fn int8_tile<D: Dot, const ROWS: usize, const PANELS: usize>(
    groups: usize,
    a: *const u32,
    b: *const u32,
    scales: Scales,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: the caller's promise covers every part.
    unsafe {
        for panel in 0..PANELS {
            let (b, column) = (b.add(panel * groups * PANEL), panel * PANEL);
            if ROWS < 4 {
                int8_part::<D, ROWS, 8>(groups, a, b, scales.at(0, column), from.add(column), ld, c.add(column), ldc);
                continue;
            }
            for row in (0..ROWS).step_by(4) {
                for half in [0, 16] {
                    let (column, a) = (column + half, a.add(row * groups));
                    let (from, c) = (from.add(row * ld + column), c.add(row * ldc + column));
                    int8_part::<D, 4, 4>(groups, a, b.add(half), scales.at(row, column), from, ld, c, ldc);
                }
            }
        }
    }
}

/// `ROWS` rows by `VECTORS` vectors of a panel.
///
/// # Safety
/// As [`int8_tile`], all addresses being those of the part's first row and column.
#[inline(always)]
unsafe fn int8_part<D: Dot, const ROWS: usize, const VECTORS: usize>(
    groups: usize,
    a: *const u32,
    b: *const u32,
    scales: Scales,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: all addresses lie in what the caller promises.
    unsafe {
        let mut sum = [[vdupq_n_s32(0); VECTORS]; ROWS];
        for g in 0..groups {
            let mut row = [vdupq_n_s8(0); VECTORS];
            for (v, row) in row.iter_mut().enumerate() {
                *row = vreinterpretq_s8_u32(vld1q_u32(b.add(g * PANEL + v * LANES)));
            }
            for (r, sum) in sum.iter_mut().enumerate() {
                let x = vreinterpretq_s8_u32(vld1q_dup_u32(a.add(r * groups + g)));
                for (sum, &b) in sum.iter_mut().zip(&row) {
                    *sum = D::dot(*sum, x, b);
                }
            }
        }
        for (r, sum) in sum.iter().enumerate() {
            let row = *scales.rows.add(r);
            for (v, &sum) in sum.iter().enumerate() {
                let scale = vmulq_n_f32(vld1q_f32(scales.columns.add(v * LANES)), row);
                let from = vld1q_f32(from.add(r * ld + v * LANES));
                vst1q_f32(c.add(r * ldc + v * LANES), vfmaq_f32(from, vcvtq_f32_s32(sum), scale));
            }
        }
    }
}

/// bf16: weights are widened to f32, as the rows have been; their size is all that is gained. BFDOT rounds sums otherwise.
///
/// # Safety
/// As `portable_tile` of [`super::narrow`].
unsafe fn bf16<const ROWS: usize, const PANELS: usize>(
    groups: usize,
    a: *const u32,
    b: *const u32,
    _: Scales,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: the caller's promise covers every part.
    unsafe {
        for panel in 0..PANELS {
            let (b, column) = (b.add(panel * groups * PANEL), panel * PANEL);
            for row in (0..ROWS).step_by(4) {
                for half in [0, 16] {
                    let (from, c) = (from.add(row * ld + column + half), c.add(row * ldc + column + half));
                    let (a, b) = (a.add(row * groups * 2), b.add(half));
                    match ROWS {
                        1 => bf16_part::<1>(groups, a, b, from, ld, c, ldc),
                        2 => bf16_part::<2>(groups, a, b, from, ld, c, ldc),
                        _ => bf16_part::<4>(groups, a, b, from, ld, c, ldc),
                    }
                }
            }
        }
    }
}

/// `ROWS` rows by half a panel.
///
/// # Safety
/// As [`bf16`], all addresses being those of the part's first row and column.
#[inline(always)]
unsafe fn bf16_part<const ROWS: usize>(
    groups: usize,
    a: *const u32,
    b: *const u32,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
) {
    const VECTORS: usize = 4;
    // SAFETY: all addresses lie in what the caller promises.
    unsafe {
        let high = vdupq_n_u32(0xffff_0000);
        let mut sum = [[vdupq_n_f32(0.0); VECTORS]; ROWS];
        for (r, sum) in sum.iter_mut().enumerate() {
            for (v, sum) in sum.iter_mut().enumerate() {
                *sum = vld1q_f32(from.add(r * ld + v * LANES));
            }
        }
        for g in 0..groups {
            let (mut odd, mut even) = ([vdupq_n_f32(0.0); VECTORS], [vdupq_n_f32(0.0); VECTORS]);
            for v in 0..VECTORS {
                let b = vld1q_u32(b.add(g * PANEL + v * LANES));
                odd[v] = vreinterpretq_f32_u32(vandq_u32(b, high));
                even[v] = vreinterpretq_f32_u32(vshlq_n_u32::<16>(b));
            }
            for (r, sum) in sum.iter_mut().enumerate() {
                let x = a.add((r * groups + g) * 2).cast::<f32>();
                let (x_odd, x_even) = (*x, *x.add(1));
                for (v, sum) in sum.iter_mut().enumerate() {
                    *sum = vfmaq_n_f32(vfmaq_n_f32(*sum, odd[v], x_odd), even[v], x_even);
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

/// Accumulators of the peak: enough that none waits for the one before.
const CHAINS: usize = 24;

#[target_feature(enable = "neon,dotprod")]
fn dotprod_peak(rounds: usize) -> f64 {
    let x = vdupq_n_s8(std::hint::black_box(1));
    let mut chains = [vdupq_n_s32(1); CHAINS];
    for _ in 0..rounds {
        for chain in &mut chains {
            // SAFETY: this function has the instruction.
            *chain = unsafe { Sdot::dot(*chain, x, x) };
        }
    }
    let sum = chains.into_iter().reduce(|a, b| vaddq_s32(a, b)).unwrap_or(vdupq_n_s32(0));
    std::hint::black_box(vaddvq_s32(sum));
    (rounds * CHAINS * 16 * 2) as f64
}
