//! The product in f32.

use super::tiling::{Start, over_tiles};
use super::{Kernels, Packed, Real};

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
    gemm_from(kernels, Start::Old, m, a, stride, b, c, ldc);
}

/// As [`gemm`], added to `start`.
pub fn gemm_from(
    kernels: &Kernels,
    start: Start<'_>,
    m: usize,
    a: &[f32],
    stride: (usize, usize),
    b: &Packed<f32>,
    c: &mut [f32],
    ldc: usize,
) {
    check_gemm(m, a, stride, b, c, ldc);
    let k = b.rows();
    over_tiles(m, b.columns(), start, c, ldc, |at| {
        let row = if k == 0 { a } else { &a[at.row * stride.0..] };
        let tile = at.tile.map_or(kernels.wide, |tile| kernels.tiles[tile]);
        // SAFETY: check_gemm: the tile's rows of A hold k elements; `over_tiles` gives room for whole panels at `from` and
        // `c`; the panels that the tile goes through follow one another. The table's entry runs on this processor.
        unsafe { tile(k, row.as_ptr(), stride, b.panel(at.panel).as_ptr(), at.from, at.ld, at.c, at.ldc) };
    });
}
