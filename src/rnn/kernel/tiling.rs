//! How a product is cut into tiles: some rows by one panel of columns, the same for all kinds of numbers.

use super::PANEL;
#[cfg(target_arch = "x86_64")]
use super::cpuid::second_level;
use std::sync::OnceLock;

/// Panels that a lone row goes through at once: one panel alone would leave it waiting on latency.
pub const WIDE: usize = 4;

/// The most rows that a tile has.
pub const MOST_ROWS: usize = 8;

/// Rows of the tiles of most tables, the tallest first.
pub const TILE_ROWS: [usize; 4] = [MOST_ROWS, 4, 2, 1];

/// Columns of a half panel: a matrix may end in one (the few classes of a tagger's head).
pub const HALF: usize = PANEL / 2;

/// Bytes of a matrix that the second-level cache holds.
pub const CACHED_BYTES: usize = 1 << 20;

/// Rows that share one sweep over the panels of a matrix of so many bytes: few, so that they stay in the second-level cache, but
/// twice as many where the panels come from beyond it, and four times where it has room for them.
pub fn rows_of_a_sweep(bytes: usize) -> usize {
    static BEYOND: OnceLock<usize> = OnceLock::new();
    match bytes {
        ..=CACHED_BYTES => 64,
        _ => *BEYOND.get_or_init(|| if second_level() < 2 * CACHED_BYTES { 128 } else { 256 }),
    }
}

/// Whether the panels of a matrix of so many bytes come from beyond the second-level cache. Where it is smaller than
/// [`CACHED_BYTES`], half of it is for what they are multiplied with.
pub fn is_beyond_cache(bytes: usize) -> bool {
    static HELD: OnceLock<usize> = OnceLock::new();
    let held = || match second_level() {
        small @ 1..CACHED_BYTES => small / 2,
        _ => CACHED_BYTES,
    };
    bytes > *HELD.get_or_init(held)
}

/// Bytes of the second-level cache, which nothing tells here.
#[cfg(not(target_arch = "x86_64"))]
fn second_level() -> usize {
    0
}

/// What a product is added to.
#[derive(Debug, Clone, Copy)]
pub enum Start<'a> {
    /// What C holds.
    Old,
    /// This row, the same for all rows of C.
    Row(&'a [f32]),
}

/// A tile's place: which kind, its first row and panel, and where its columns of the start and of C are.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Index into the table's tiles; `None`: one row by [`WIDE`] panels.
    pub tile: Option<usize>,
    pub row: usize,
    /// How many rows it has.
    pub rows: usize,
    pub panel: usize,
    /// Rows of the sweep that come before it, and all.
    pub sweep: (usize, usize),
    /// Of the last panel only the first [`HALF`] columns are asked for.
    pub half: bool,
    pub from: *const f32,
    /// From one row of the start to the next: 0 where there is only one.
    pub ld: usize,
    pub c: *mut f32,
    pub ldc: usize,
}

/// Calls `work` for the tiles that `c` `[m, n]` is made of. A tile may read a whole panel's columns at `from`, and write them
/// at `c`, in each of its rows; with `HALVES` those that are `half` only a half panel's. `sweep`: [`rows_of_a_sweep`];
/// `heights`: rows of the kinds of tile, the tallest, of at most [`MOST_ROWS`], first.
#[inline(always)]
pub fn over_tiles<const HALVES: bool>(
    m: usize,
    n: usize,
    start: Start<'_>,
    c: &mut [f32],
    ldc: usize,
    sweep: usize,
    heights: &[usize; 4],
    mut work: impl FnMut(Place),
) {
    assert!(heights[0] <= MOST_ROWS, "a tile would not fit the buffer of the last panel");
    if let Start::Row(row) = start {
        assert!(row.len() >= n, "the start is shorter than a row of C");
    }
    if m == 0 || n == 0 {
        return;
    }
    assert!(n <= ldc && c.len() >= (m - 1) * ldc + n, "C is too small");
    let (panels, whole_panels) = (n.div_ceil(PANEL), n / PANEL);
    for first in (0..m).step_by(sweep) {
        let end = m.min(first + sweep);
        let mut panel = 0;
        while panel < panels {
            let wide = end - first == 1 && panel + WIDE <= whole_panels;
            let (mut tile, mut row) = (0, first);
            while row < end {
                while !wide && heights[tile] > end - row {
                    tile += 1;
                }
                let (rows, column) = (if wide { 1 } else { heights[tile] }, panel * PANEL);
                let at = c[row * ldc + column..].as_mut_ptr();
                let (from, ld) = match start {
                    Start::Old => (at.cast_const(), ldc),
                    Start::Row(row) => (row[column..].as_ptr(), 0),
                };
                let width = PANEL.min(n - column);
                let half = HALVES && width <= HALF;
                let whole = if half { HALF } else { PANEL };
                let (kind, sweep) = ((!wide).then_some(tile), (row - first, end - first));
                let mut place = Place { tile: kind, row, rows, panel, sweep, half, from, ld, c: at, ldc };
                // The last panel may not be whole: then the tile works in a buffer of whole panels. There is one call of
                // `work`, so that the compiler puts it here.
                let mut buffer: [f32; MOST_ROWS * PANEL];
                if width < whole {
                    buffer = [0.0; MOST_ROWS * PANEL];
                    for r in 0..rows {
                        // SAFETY: `width` numbers are at each row of the start and of the buffer.
                        unsafe { buffer[r * PANEL..].as_mut_ptr().copy_from_nonoverlapping(from.add(r * ld), width) };
                    }
                    let inside = buffer.as_mut_ptr();
                    place = Place { from: inside, ld: PANEL, c: inside, ldc: PANEL, ..place };
                }
                let written = place.c;
                work(place);
                if width < whole {
                    for r in 0..rows {
                        // SAFETY: as above, for C.
                        unsafe { at.add(r * ldc).copy_from_nonoverlapping(written.add(r * PANEL), width) };
                    }
                }
                row += rows;
            }
            panel += if wide { WIDE } else { 1 };
        }
    }
}
