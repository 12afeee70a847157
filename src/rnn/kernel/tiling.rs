//! How a product is cut into tiles: some rows by one panel of columns, the same for all kinds of numbers.

use super::PANEL;

/// Panels that a lone row goes through at once: one panel alone would leave it waiting on latency.
pub const WIDE: usize = 4;

/// Rows of the tiles, the tallest first.
pub const TILE_ROWS: [usize; 4] = [8, 4, 2, 1];

/// Rows handled per sweep over the panels, so that they stay in the second-level cache.
const ROW_BLOCK: usize = 64;

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
    /// Index into [`TILE_ROWS`]; `None`: one row by [`WIDE`] panels.
    pub tile: Option<usize>,
    pub row: usize,
    pub panel: usize,
    pub from: *const f32,
    /// From one row of the start to the next: 0 where there is only one.
    pub ld: usize,
    pub c: *mut f32,
    pub ldc: usize,
}

/// Calls `work` for the tiles that `c` `[m, n]` is made of. A tile may read a whole panel's columns at `from`, and write them
/// at `c`, in each of its rows.
#[inline(always)]
pub fn over_tiles<W: FnMut(Place)>(m: usize, n: usize, start: Start<'_>, c: &mut [f32], ldc: usize, mut work: W) {
    if let Start::Row(row) = start {
        assert!(row.len() >= n, "the start is shorter than a row of C");
    }
    if m == 0 || n == 0 {
        return;
    }
    assert!(n <= ldc && c.len() >= (m - 1) * ldc + n, "C is too small");
    let whole = n / PANEL;
    let place = |work: &mut W, tile: Option<usize>, row: usize, panel: usize, c: &mut [f32]| {
        let c = c.as_mut_ptr();
        let (from, ld) = match start {
            Start::Old => (c.cast_const(), ldc),
            Start::Row(row) => (row[panel * PANEL..].as_ptr(), 0),
        };
        work(Place { tile, row, panel, from, ld, c, ldc });
    };
    for first in (0..m).step_by(ROW_BLOCK) {
        let rows = ROW_BLOCK.min(m - first);
        let mut panel = 0;
        if rows == 1 {
            while panel + WIDE <= whole {
                place(&mut work, None, first, panel, &mut c[first * ldc + panel * PANEL..]);
                panel += WIDE;
            }
        }
        for panel in panel..n.div_ceil(PANEL) {
            let width = PANEL.min(n - panel * PANEL);
            let mut row = first;
            for (tile, tile_rows) in TILE_ROWS.into_iter().enumerate() {
                while row + tile_rows <= first + rows {
                    let c = &mut c[row * ldc + panel * PANEL..];
                    if width == PANEL {
                        place(&mut work, Some(tile), row, panel, c);
                    } else {
                        edge(tile, row, panel, width, start, c, ldc, &mut work);
                    }
                    row += tile_rows;
                }
            }
        }
    }
}

/// A tile of the last panel, which is not whole: it works in a buffer of whole panels.
#[inline(always)]
fn edge(
    tile: usize,
    row: usize,
    panel: usize,
    width: usize,
    start: Start<'_>,
    c: &mut [f32],
    ldc: usize,
    work: &mut impl FnMut(Place),
) {
    let mut buffer = [0.0f32; TILE_ROWS[0] * PANEL];
    for r in 0..TILE_ROWS[tile] {
        let old = match start {
            Start::Old => &c[r * ldc..r * ldc + width],
            Start::Row(row) => &row[panel * PANEL..panel * PANEL + width],
        };
        buffer[r * PANEL..r * PANEL + width].copy_from_slice(old);
    }
    let at = buffer.as_mut_ptr();
    work(Place { tile: Some(tile), row, panel, from: at, ld: PANEL, c: at, ldc: PANEL });
    for r in 0..TILE_ROWS[tile] {
        c[r * ldc..r * ldc + width].copy_from_slice(&buffer[r * PANEL..r * PANEL + width]);
    }
}
