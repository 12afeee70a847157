//! The product in f32.

use super::tiling::{Start, over_tiles, rows_of_a_sweep};
use super::{Kernels, Packed, Real, Terms};

/// Panics unless `a`, `b` and `c` hold what [`gemm`] will touch.
pub fn check_gemm<T: Real>(m: usize, a: &[T], stride: (usize, usize), b: &Packed<T>, c: &[T], ldc: usize) {
    let (k, n) = (b.rows(), b.columns());
    if m > 0 && k > 0 {
        assert!(a.len() > (m - 1) * stride.0 + (k - 1) * stride.1, "gemm: A is too small");
    }
    if m > 0 {
        assert!(n <= ldc && c.len() >= (m - 1) * ldc + n, "gemm: C is too small");
    }
}

/// `c[m, n] += a[m, k] · b[k, n]`.
///
/// Element `(i, p)` of A is `a[i * stride.0 + p * stride.1]`, row `i` of C starts at `c[i * ldc]`. Each element of C
/// is the old value, then one fused multiply-add a k, in order of k.
pub fn gemm(
    kernels: &Kernels,
    m: usize,
    a: &[f32],
    stride: (usize, usize),
    b: &Packed<f32>,
    c: &mut [f32],
    ldc: usize,
) {
    gemm_sum(kernels, Start::Old, m, [Factors { a, stride, b }], c, ldc);
}

/// What is multiplied: element `(i, p)` of A is `a[i * stride.0 + p * stride.1]`.
#[derive(Debug, Clone, Copy)]
pub struct Factors<'a> {
    pub a: &'a [f32],
    pub stride: (usize, usize),
    pub b: &'a Packed<f32>,
}

/// `c[m, n] = start + a · b` of all factors, whose B have as many columns: the same bits as one product after the other, but C
/// is written once.
pub fn gemm_sum<const N: usize>(
    kernels: &Kernels,
    start: Start<'_>,
    m: usize,
    factors: [Factors<'_>; N],
    c: &mut [f32],
    ldc: usize,
) {
    let n = factors.first().map_or(0, |first| first.b.columns());
    for Factors { a, stride, b } in factors {
        assert_eq!(b.columns(), n, "gemm: the sums are of different widths");
        check_gemm(m, a, stride, b, c, ldc);
    }
    let bytes = factors.iter().map(|factors| factors.b.bytes()).sum();
    over_tiles::<true>(m, n, start, c, ldc, rows_of_a_sweep(bytes), |at| {
        let terms = factors.map(|Factors { a, stride, b }| {
            let (k, panel) = (b.rows(), b.panel(at.panel).as_ptr());
            let row = if k == 0 { a } else { &a[at.row * stride.0..] };
            Terms { k, a: row.as_ptr(), stride, b: panel }
        });
        let tiles = if at.half { kernels.halves } else { kernels.tiles };
        let tile = at.tile.map_or(kernels.wide, |tile| tiles[tile]);
        // SAFETY: check_gemm: the tile's rows of A hold k elements; `over_tiles` gives room for whole panels, or half ones, at
        // `from` and `c`; the panels that the tile goes through follow one another. The table's entry runs on this processor.
        unsafe { tile(&terms, at.from, at.ld, at.c, at.ldc) };
    });
}
