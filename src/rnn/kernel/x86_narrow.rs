//! bf16 on x86, and int8 with AVX-512; int8 with less is in [`super::x86_bytes`].

use super::PANEL;
use super::cpuid;
use super::narrow::{NarrowKernels, NarrowTile, Precision, Rows, Scales};
use super::tiling::{Graded, Split, WIDE};
use std::arch::x86_64::*;

/// The tables that this processor can run, the best last.
pub fn kernels(precision: Precision) -> Vec<&'static NarrowKernels> {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = avx2 && is_x86_feature_detected!("avx512f");
    if precision == Precision::Int8 {
        let mut all = super::x86_bytes::kernels();
        if avx512 && is_x86_feature_detected!("avx512vnni") {
            let mut there = [&VNNI, &VNNI_PAIRS];
            if !cpuid::is_intel() {
                there.reverse();
            }
            all.extend(there);
            all.extend(super::amx::kernels(there[1]));
        }
        return all;
    }
    let dot = avx512 && is_x86_feature_detected!("avx512bf16");
    let mut there: [(bool, &NarrowKernels); 3] =
        [(avx2, &AVX2_BF16), (avx512, &AVX512_BF16_BY_F32), (dot, &AVX512_BF16)];
    // There VDPBF16PS multiplies half as many numbers a second as fused multiply-adds do, on AMD's processors twice as many.
    if dot && cpuid::is_intel() {
        there.swap(1, 2);
    }
    there.into_iter().filter(|(there, _)| *there).map(|(_, kernels)| kernels).collect()
}

macro_rules! table {
    ($name:ident, $text:literal, $with:literal, $rows:ident, $tile:ident, $wide:expr, $graded:expr, $peak:expr) => {
        static $name: NarrowKernels = NarrowKernels {
            name: $text,
            with: $with,
            rows: Rows::$rows,
            tiles: [$tile::<8, 1>, $tile::<4, 1>, $tile::<2, 1>, $tile::<1, 1>],
            graded: $graded,
            wide: $wide,
            tall: None,
            peak: $peak,
        };
    };
}

// SAFETY of the peaks: the tables are only handed out by `kernels`, after it has seen the instructions.
table!(VNNI, "avx512-vnni", "avx512", Offset, vnni, vnni::<1, WIDE>, Graded::NONE, VNNI_PEAK);
table!(VNNI_PAIRS, "avx512-vnni-pairs", "avx512-pairs", Offset, vnni, vnni::<1, WIDE>, OF_TWO_PANELS, VNNI_PEAK);
table!(
    AVX512_BF16,
    "avx512-bf16",
    "avx512",
    Words,
    bf16,
    bf16::<1, WIDE>,
    Graded::NONE,
    Some(|rounds| unsafe { bf16_peak(rounds) })
);
table!(AVX512_BF16_BY_F32, "avx512", "avx512", Widened, bf16_by_f32, bf16_by_f32::<1, WIDE>, Graded::NONE, None);
table!(AVX2_BF16, "avx2", "avx2", Widened, avx2_bf16, avx2_bf16_few::<1, WIDE, 2>, UP_TO_FIVE_ROWS, None);

const OF_TWO_PANELS: Graded<NarrowTile> = Graded {
    panels: 2,
    tiles: &[vnni::<1, 2>, vnni::<2, 2>, vnni::<3, 2>, vnni::<4, 2>, vnni::<5, 2>, vnni::<6, 2>],
    split: Split::Evenly,
};

/// Of two rows a half panel has too few sums, of six more than there are registers for.
const UP_TO_FIVE_ROWS: Graded<NarrowTile> = Graded {
    panels: 1,
    tiles: &[
        avx2_bf16_few::<1, 1, 1>,
        avx2_bf16_few::<2, 1, 1>,
        avx2_bf16::<3, 1>,
        avx2_bf16::<4, 1>,
        avx2_bf16::<5, 1>,
    ],
    split: Split::Evenly,
};

const VNNI_PEAK: Option<fn(usize) -> f64> = Some(|rounds| unsafe { vnni_peak(rounds) });

/// int8: VPDPBUSD adds four products of an unsigned and a signed byte. The rows are 128 higher than they are, which Σ q of
/// the column takes back.
///
/// # Safety
/// As `portable_tile` of [`super::narrow`], with `sums` in `scales`; the processor must have AVX-512F and VNNI.
#[target_feature(enable = "avx512f,avx512vnni,avx2,fma")]
unsafe fn vnni<const ROWS: usize, const PANELS: usize>(
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
        let mut sum = [[[_mm512_setzero_si512(); 2]; PANELS]; ROWS];
        for g in 0..groups {
            let mut row = [[_mm512_setzero_si512(); 2]; PANELS];
            for (panel, row) in row.iter_mut().enumerate() {
                let b = b.add((panel * groups + g) * PANEL);
                *row = [_mm512_load_si512(b.cast()), _mm512_load_si512(b.add(16).cast())];
            }
            for (r, sum) in sum.iter_mut().enumerate() {
                let x = _mm512_set1_epi32(*a.add(r * groups + g) as i32);
                for (sum, &b) in sum.as_flattened_mut().iter_mut().zip(row.as_flattened()) {
                    *sum = _mm512_dpbusd_epi32(*sum, x, b);
                }
            }
        }
        // Column by column, so that what is a column's own is loaded once.
        let rows: [__m512; ROWS] = std::array::from_fn(|r| _mm512_set1_ps(*scales.rows.add(r)));
        for v in 0..2 * PANELS {
            let more = _mm512_loadu_si512(scales.sums.add(v * 16).cast());
            let columns = _mm512_loadu_ps(scales.columns.add(v * 16));
            for (r, sum) in sum.iter().enumerate() {
                let exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum.as_flattened()[v], more));
                let from = _mm512_loadu_ps(from.add(r * ld + v * 16));
                let scale = _mm512_mul_ps(rows[r], columns);
                _mm512_storeu_ps(c.add(r * ldc + v * 16), _mm512_fmadd_ps(exact, scale, from));
            }
        }
    }
}

/// bf16: VDPBF16PS.
///
/// # Safety
/// As `portable_tile` of [`super::narrow`]; the processor must have AVX-512F and AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bf16,avx2,fma")]
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
    // SAFETY: all addresses lie in what the caller promises; __m512bh is any 512 bits.
    unsafe {
        let mut sum = [[[_mm512_setzero_ps(); 2]; PANELS]; ROWS];
        for (r, sum) in sum.iter_mut().enumerate() {
            for (v, sum) in sum.as_flattened_mut().iter_mut().enumerate() {
                *sum = _mm512_loadu_ps(from.add(r * ld + v * 16));
            }
        }
        for g in 0..groups {
            for panel in 0..PANELS {
                let b = b.add((panel * groups + g) * PANEL);
                let b0: __m512bh = std::mem::transmute(_mm512_load_si512(b.cast()));
                let b1: __m512bh = std::mem::transmute(_mm512_load_si512(b.add(16).cast()));
                for (r, sum) in sum.iter_mut().enumerate() {
                    let x: __m512bh = std::mem::transmute(_mm512_set1_epi32(*a.add(r * groups + g) as i32));
                    sum[panel][0] = _mm512_dpbf16_ps(sum[panel][0], x, b0);
                    sum[panel][1] = _mm512_dpbf16_ps(sum[panel][1], x, b1);
                }
            }
        }
        for (r, sum) in sum.iter().enumerate() {
            for (v, &sum) in sum.as_flattened().iter().enumerate() {
                _mm512_storeu_ps(c.add(r * ldc + v * 16), sum);
            }
        }
    }
}

/// bf16 where only the weights' size is to be gained: they are widened to f32, as the rows have been.
///
/// # Safety
/// As `portable_tile` of [`super::narrow`]; the processor must have AVX-512F.
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn bf16_by_f32<const ROWS: usize, const PANELS: usize>(
    groups: usize,
    a: *const u32,
    b: *const u32,
    _: Scales,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
) {
    // SAFETY: all addresses lie in what the caller promises.
    unsafe {
        let high = _mm512_set1_epi32(0xffff_0000u32 as i32);
        let mut sum = [[[_mm512_setzero_ps(); 2]; PANELS]; ROWS];
        for (r, sum) in sum.iter_mut().enumerate() {
            for (v, sum) in sum.as_flattened_mut().iter_mut().enumerate() {
                *sum = _mm512_loadu_ps(from.add(r * ld + v * 16));
            }
        }
        for g in 0..groups {
            for panel in 0..PANELS {
                let b = b.add((panel * groups + g) * PANEL);
                let b = [_mm512_load_si512(b.cast()), _mm512_load_si512(b.add(16).cast())];
                let odd = b.map(|b| _mm512_castsi512_ps(_mm512_and_si512(b, high)));
                let even = b.map(|b| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(b)));
                for (r, sum) in sum.iter_mut().enumerate() {
                    let x = a.add((r * groups + g) * 2).cast::<f32>();
                    let (x_odd, x_even) = (_mm512_set1_ps(*x), _mm512_set1_ps(*x.add(1)));
                    for half in 0..2 {
                        let sum = &mut sum[panel][half];
                        *sum = _mm512_fmadd_ps(x_even, even[half], _mm512_fmadd_ps(x_odd, odd[half], *sum));
                    }
                }
            }
        }
        for (r, sum) in sum.iter().enumerate() {
            for (v, &sum) in sum.as_flattened().iter().enumerate() {
                _mm512_storeu_ps(c.add(r * ldc + v * 16), sum);
            }
        }
    }
}

/// bf16 with AVX2: as [`bf16_by_f32`], half a panel at a time.
///
/// # Safety
/// As `portable_tile` of [`super::narrow`]; the processor must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_bf16<const ROWS: usize, const PANELS: usize>(
    groups: usize,
    a: *const u32,
    b: *const u32,
    _: Scales,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
) {
    const LANES: usize = 8;
    // SAFETY: all addresses lie in what the caller promises.
    unsafe {
        let high = _mm256_set1_epi32(0xffff_0000u32 as i32);
        for half in 0..2 * PANELS {
            let b = b.add(half / 2 * groups * PANEL + half % 2 * 16);
            let (from, c) = (from.add(half * 16), c.add(half * 16));
            let mut sum = [[_mm256_setzero_ps(); 2]; ROWS];
            for (r, sum) in sum.iter_mut().enumerate() {
                *sum = [_mm256_loadu_ps(from.add(r * ld)), _mm256_loadu_ps(from.add(r * ld + LANES))];
            }
            for g in 0..groups {
                let b = [0, LANES].map(|at| _mm256_load_si256(b.add(g * PANEL + at).cast()));
                let odd = b.map(|b| _mm256_castsi256_ps(_mm256_and_si256(b, high)));
                let x = a.add(g * 2).cast::<f32>();
                for (r, sum) in sum.iter_mut().enumerate() {
                    let x = _mm256_set1_ps(*x.add(r * groups * 2));
                    *sum = [_mm256_fmadd_ps(x, odd[0], sum[0]), _mm256_fmadd_ps(x, odd[1], sum[1])];
                }
                let even = b.map(|b| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(b)));
                for (r, sum) in sum.iter_mut().enumerate() {
                    let x = _mm256_set1_ps(*x.add(r * groups * 2 + 1));
                    *sum = [_mm256_fmadd_ps(x, even[0], sum[0]), _mm256_fmadd_ps(x, even[1], sum[1])];
                }
            }
            for (r, sum) in sum.iter().enumerate() {
                _mm256_storeu_ps(c.add(r * ldc), sum[0]);
                _mm256_storeu_ps(c.add(r * ldc + LANES), sum[1]);
            }
        }
    }
}

/// bf16 with AVX2, few rows: whole panels, `AT_ONCE` of them, one vector for all rows at a time. Each sum waits for the one before it
/// twice with each pair of k, so there must be many.
///
/// # Safety
/// As `portable_tile` of [`super::narrow`]; the processor must have AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_bf16_few<const ROWS: usize, const PANELS: usize, const AT_ONCE: usize>(
    groups: usize,
    a: *const u32,
    b: *const u32,
    _: Scales,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
) {
    const LANES: usize = 8;
    const VECTORS: usize = PANEL / LANES;
    // SAFETY: all addresses lie in what the caller promises.
    unsafe {
        let high = _mm256_set1_epi32(0xffff_0000u32 as i32);
        for first in (0..PANELS).step_by(AT_ONCE) {
            let (b, from, c) = (b.add(first * groups * PANEL), from.add(first * PANEL), c.add(first * PANEL));
            let mut sum = [[[_mm256_setzero_ps(); ROWS]; VECTORS]; AT_ONCE];
            for (v, sum) in sum.as_flattened_mut().iter_mut().enumerate() {
                *sum = std::array::from_fn(|r| _mm256_loadu_ps(from.add(r * ld + v * LANES)));
            }
            for g in 0..groups {
                let x: [_; ROWS] = std::array::from_fn(|r| {
                    let x = a.add((r * groups + g) * 2).cast::<f32>();
                    (_mm256_set1_ps(*x), _mm256_set1_ps(*x.add(1)))
                });
                for (panel, sum) in sum.iter_mut().enumerate() {
                    for (v, sum) in sum.iter_mut().enumerate() {
                        let b = _mm256_load_si256(b.add((panel * groups + g) * PANEL + v * LANES).cast());
                        let odd = _mm256_castsi256_ps(_mm256_and_si256(b, high));
                        let even = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(b));
                        for (sum, &(x_odd, x_even)) in sum.iter_mut().zip(&x) {
                            *sum = _mm256_fmadd_ps(x_even, even, _mm256_fmadd_ps(x_odd, odd, *sum));
                        }
                    }
                }
            }
            for (v, sum) in sum.as_flattened().iter().enumerate() {
                for (r, &sum) in sum.iter().enumerate() {
                    _mm256_storeu_ps(c.add(r * ldc + v * LANES), sum);
                }
            }
        }
    }
}

/// Accumulators of the peaks: enough that none waits for the one before.
const CHAINS: usize = 12;

#[target_feature(enable = "avx512f,avx512vnni")]
fn vnni_peak(rounds: usize) -> f64 {
    let x = _mm512_set1_epi32(std::hint::black_box(0x0102_0304));
    let mut chains = [_mm512_set1_epi32(1); CHAINS];
    for _ in 0..rounds {
        for chain in &mut chains {
            *chain = _mm512_dpbusd_epi32(*chain, x, x);
        }
    }
    let sum = chains.into_iter().reduce(|a, b| _mm512_add_epi32(a, b)).unwrap_or(x);
    std::hint::black_box(_mm512_reduce_add_epi32(sum));
    (rounds * CHAINS * 64 * 2) as f64
}

#[target_feature(enable = "avx512f,avx512bf16")]
fn bf16_peak(rounds: usize) -> f64 {
    // SAFETY: __m512bh is any 512 bits.
    let x: __m512bh = unsafe { std::mem::transmute(_mm512_set1_epi32(std::hint::black_box(0x3f00_3f00))) };
    let mut chains = [_mm512_set1_ps(0.5); CHAINS];
    for _ in 0..rounds {
        for chain in &mut chains {
            *chain = _mm512_dpbf16_ps(*chain, x, x);
        }
    }
    let sum = chains.into_iter().reduce(|a, b| _mm512_add_ps(a, b)).unwrap_or(_mm512_setzero_ps());
    std::hint::black_box(_mm512_reduce_add_ps(sum));
    (rounds * CHAINS * 32 * 2) as f64
}
