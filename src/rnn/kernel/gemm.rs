//! The product in f32.

use super::tiling::{Place, Start, Width, is_beyond_cache, over_tiles, rows_of_a_sweep};
use super::{Kernels, PANEL, Packed, Real, Terms};

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
    let beyond = is_beyond_cache(bytes);
    let (sweep, graded) = (rows_of_a_sweep(bytes), kernels.graded.grades(m, bytes));
    over_tiles::<true>(m, n, start, c, ldc, sweep, &kernels.heights, graded, |at| {
        let terms = factors.map(|Factors { a, stride, b }| {
            let (k, panel) = (b.rows(), b.panel(at.panel).as_ptr());
            let row = if k == 0 { a } else { &a[at.row * stride.0..] };
            let (ahead, pace) = if beyond { ahead(b, &at, kernels.ahead_rows) } else { (panel.cast(), 0) };
            Terms { k, a: row.as_ptr(), stride, b: panel, ahead, pace }
        });
        let tile = match at.width {
            Width::Half => kernels.halves[at.tile],
            Width::Panel => kernels.tiles[at.tile],
            Width::Graded => kernels.graded.tiles[at.tile],
            Width::Wide => kernels.wide,
        };
        // SAFETY: check_gemm: the tile's rows of A hold k elements; `over_tiles` gives room for whole panels, or half ones, at
        // `from` and `c`; the panels that the tile goes through follow one another. The table's entry runs on this processor.
        unsafe { tile(&terms, at.from, at.ld, at.c, at.ldc) };
    });
}

/// The part of the next panel, or panels, that this tile fetches, and how many bytes of it with each of the k: the sweep's tiles
/// together fetch all of it, if it has `least` rows.
fn ahead(b: &Packed<f32>, at: &Place, least: usize) -> (*const u8, usize) {
    let (before, all) = at.sweep;
    let panels = at.panels;
    if all < least || (at.panel + panels) * PANEL >= b.columns() {
        return (b.panel(at.panel).as_ptr().cast(), 0);
    }
    let next = b.panel(at.panel + panels).as_ptr().wrapping_add(before * b.rows() * panels * PANEL / all);
    (next.cast(), (size_of::<f32>() * panels * PANEL * at.rows).div_ceil(all))
}

#[cfg(test)]
mod tests {
    use super::super::memory::LINE;
    use super::super::tiling::{Graded, Grades, Split, TILE_ROWS};
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};
    use std::ops::Range;

    #[test]
    fn the_tiles_of_a_sweep_fetch_every_line_of_the_next_panel() {
        let avx2 = [6, 4, 2, 1];
        let none = Graded::<()>::NONE.grades(0, 0);
        let of_two = Grades { most: 6, panels: 2, ..none };
        let whole = Grades { most: 6, panels: 1, split: Split::Tallest { least: 3 } };
        for (m, heights, graded) in [
            (64, TILE_ROWS, none),
            (64, avx2, none),
            (100, avx2, none),
            (256, avx2, none),
            (8, avx2, whole),
            (100, avx2, whole),
            (256, avx2, whole),
            (8, TILE_ROWS, none),
            (8, TILE_ROWS, of_two),
            (12, TILE_ROWS, of_two),
            (64, TILE_ROWS, of_two),
            (256, TILE_ROWS, of_two),
        ] {
            const PANELS: usize = 5;
            let (k, n) = (50, PANELS * PANEL);
            let b = Packed::new(&vec![1.0f32; k * n], (n, 1), k, n);
            let mut c = vec![0.0; m * n];
            // For the tiles of a panel, or two: those that come next, and what was fetched.
            let mut fetched = BTreeMap::<usize, (Range<usize>, BTreeSet<usize>)>::new();
            over_tiles::<true>(m, n, Start::Old, &mut c, n, m, &heights, graded, |at| {
                let (from, pace) = ahead(&b, &at, 8);
                let next = at.panel + at.panels;
                assert_eq!(pace > 0, next < PANELS, "{m} rows, panel {}", at.panel);
                // What AVX-512's tiles fetch with each of the k.
                assert!(pace <= 2 * LINE, "{m} rows: {pace} bytes");
                let lines = (0..k)
                    .flat_map(|p| (0..pace.div_ceil(LINE)).map(move |line| (from.addr() + p * pace) / LINE + line));
                let panels = next..PANELS.min(next + at.panels);
                fetched.entry(at.panel).or_insert((panels, BTreeSet::new())).1.extend(lines);
            });
            for (panel, (next, fetched)) in fetched.into_iter().filter(|(_, (next, _))| !next.is_empty()) {
                let first = b.panel(next.start).as_ptr().addr() / LINE;
                let missed: Vec<usize> =
                    (first..first + next.len() * k * PANEL * 4 / LINE).filter(|line| !fetched.contains(line)).collect();
                assert!(missed.is_empty(), "{m} rows, panel {panel}: {missed:?}");
            }
        }
    }

    #[test]
    fn few_rows_fetch_nothing() {
        let b = Packed::new(&[1.0f32; 2 * PANEL], (2 * PANEL, 1), 1, 2 * PANEL);
        let mut c = [0.0; 8 * 2 * PANEL];
        over_tiles::<true>(
            8,
            2 * PANEL,
            Start::Old,
            &mut c,
            2 * PANEL,
            64,
            &TILE_ROWS,
            Graded::<()>::NONE.grades(0, 0),
            |at| assert_eq!(ahead(&b, &at, 16).1, 0),
        );
    }
}
