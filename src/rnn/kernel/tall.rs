//! Sixteen rows of int8 by many panels at once, for a matrix unit: it makes integer sums, and what they come to is made here.

use super::PANEL;
use super::narrow::Scales;

pub const ROWS: usize = 16;

/// Panels at a time, so that the sums stay in the first-level cache.
pub const PANELS: usize = 8;

/// Writes Σ_k q q of [`ROWS`] rows by some panels, `[panels, ROWS, PANEL]`: `(groups, a, b, panels, sums)`.
///
/// # Safety
/// `groups` and `panels` are not 0; `a` must hold [`ROWS`] rows of `groups` words, `b` the words of the panels, `sums` the sums.
pub type Sums = unsafe fn(usize, *const u32, *const u32, usize, *mut i32);

/// [`ROWS`] rows by the panels of `columns` columns, of which the last may not be whole: as [`super::narrow::NarrowTile`],
/// with space for the sums of whole panels, of which there are at most [`PANELS`].
pub type Tall = unsafe fn(
    groups: usize,
    a: *const u32,
    b: *const u32,
    columns: usize,
    scales: Scales,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
    space: *mut i32,
);

/// A [`Tall`] by sums whose rows are 128 higher than they are.
///
/// # Safety
/// As [`Tall`] and `sums`.
#[inline(always)]
pub unsafe fn rows(
    sums: Sums,
    groups: usize,
    a: *const u32,
    b: *const u32,
    columns: usize,
    scales: Scales,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
    space: *mut i32,
) {
    // SAFETY: the caller's promise: column + width ≤ columns, and scales and sums are there for whole panels.
    unsafe {
        sums(groups, a, b, columns.div_ceil(PANEL), space);
        for column in (0..columns).step_by(PANEL) {
            let width = PANEL.min(columns - column);
            for r in 0..ROWS {
                let sums = space.add((column / PANEL * ROWS + r) * PANEL);
                let row = *scales.rows.add(r);
                let mut line = [0.0f32; PANEL];
                std::ptr::copy_nonoverlapping(from.add(r * ld + column), line.as_mut_ptr(), width);
                for (j, x) in line.iter_mut().enumerate() {
                    let sum = (*sums.add(j)).wrapping_sub(*scales.sums.add(column + j));
                    *x = (sum as f32).mul_add(row * *scales.columns.add(column + j), *x);
                }
                std::ptr::copy_nonoverlapping(line.as_ptr(), c.add(r * ldc + column), width);
            }
        }
    }
}

/// As [`Sums`], of unsigned by signed bytes, in plain Rust.
pub fn plain_sums(groups: usize, a: &[u32], b: &[u32], panels: usize) -> Vec<i32> {
    let dot = |a: u32, b: u32| -> i32 {
        a.to_le_bytes().into_iter().zip(b.to_le_bytes()).map(|(a, b)| i32::from(a) * i32::from(b as i8)).sum()
    };
    let mut sums = Vec::with_capacity(panels * ROWS * PANEL);
    for panel in b.chunks_exact(groups * PANEL).take(panels) {
        for row in a.chunks_exact(groups).take(ROWS) {
            sums.extend((0..PANEL).map(|j| -> i32 { (0..groups).map(|g| dot(row[g], panel[g * PANEL + j])).sum() }));
        }
    }
    sums
}
