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

/// Tiles of each number of rows, from one on, by so many panels, for tables on whose processors they are faster than the few
/// kinds of [`TILE_ROWS`].
#[derive(Debug, Clone, Copy)]
pub struct Graded<T: 'static> {
    pub panels: usize,
    pub tiles: &'static [T],
    pub split: Split,
}

/// How the rows of a sweep are shared out among tiles.
#[derive(Debug, Clone, Copy)]
pub enum Split {
    /// All tiles are about as tall.
    Evenly,
    /// As tall as can be. Where the last would have fewer than so many rows, the one before has so many and the last the rest.
    Tallest { least: usize },
}

/// What [`over_tiles`] has to know of [`Graded`] tiles: the most rows of one, 0 where there shall be none.
#[derive(Debug, Clone, Copy)]
pub struct Grades {
    pub most: usize,
    pub panels: usize,
    pub split: Split,
}

impl<T> Graded<T> {
    pub const NONE: Graded<T> = Graded { panels: 1, tiles: &[], split: Split::Evenly };

    /// For a product of `m` rows with a matrix of so many bytes. Eight rows make one tile of one panel, which reads a matrix once;
    /// two of two panels read it twice, each time from where it is.
    pub fn grades(&self, m: usize, bytes: usize) -> Grades {
        let twice = self.panels > 1 && m == MOST_ROWS && bytes > CACHED_BYTES / 2;
        Grades { most: if twice { 0 } else { self.tiles.len() }, panels: self.panels, split: self.split }
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

/// How many columns a tile has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// Of the last panel only the first [`HALF`] columns are asked for.
    Half,
    Panel,
    /// As many panels as the tiles of [`Graded`].
    Graded,
    /// [`WIDE`] panels, one row.
    Wide,
}

/// A tile's place: which kind, its first row and panel, and where its columns of the start and of C are.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub width: Width,
    /// Panels that it is wide: one for half a panel too.
    pub panels: usize,
    /// Index into the table's tiles of this width: of [`Graded`] there is one for each number of rows.
    pub tile: usize,
    pub row: usize,
    /// How many rows it has.
    pub rows: usize,
    pub panel: usize,
    /// Rows of the sweep that come before it, and all.
    pub sweep: (usize, usize),
    pub from: *const f32,
    /// From one row of the start to the next: 0 where there is only one.
    pub ld: usize,
    pub c: *mut f32,
    pub ldc: usize,
}

/// Calls `work` for the tiles that `c` `[m, n]` is made of. A tile may read a whole panel's columns at `from`, and write them
/// at `c`, in each of its rows; with `HALVES` those that are [`Width::Half`] only a half panel's. `sweep`: [`rows_of_a_sweep`];
/// `heights`: rows of the kinds of tile, the tallest, of at most [`MOST_ROWS`], first; `graded`: [`Graded::grades`].
#[inline(always)]
pub fn over_tiles<const HALVES: bool>(
    m: usize,
    n: usize,
    start: Start<'_>,
    c: &mut [f32],
    ldc: usize,
    sweep: usize,
    heights: &[usize; 4],
    graded: Grades,
    mut work: impl FnMut(Place),
) {
    assert!(heights[0].max(graded.most) <= MOST_ROWS, "a tile would not fit the buffer of the last panel");
    if let Start::Row(row) = start {
        assert!(row.len() >= n, "the start is shorter than a row of C");
    }
    if m == 0 || n == 0 {
        return;
    }
    assert!(n <= ldc && c.len() >= (m - 1) * ldc + n, "C is too small");
    let (panels, whole_panels) = (n.div_ceil(PANEL), n / PANEL);
    // The buffer of the last panel holds one.
    let graded_panels = if graded.panels == 1 { panels } else { whole_panels };
    for first in (0..m).step_by(sweep) {
        let end = m.min(first + sweep);
        // Shared out evenly: so many rows, or one more in the first ones.
        let tiles = (end - first).div_ceil(graded.most.max(1));
        let (even, taller) = ((end - first) / tiles, (end - first) % tiles);
        let mut panel = 0;
        while panel < panels {
            let column = panel * PANEL;
            let left = PANEL.min(n - column);
            let width = match end - first {
                1 if panel + WIDE <= whole_panels => Width::Wide,
                _ if HALVES && left <= HALF => Width::Half,
                2.. if graded.most > 0 && panel + graded.panels <= graded_panels => Width::Graded,
                _ => Width::Panel,
            };
            let whole = if width == Width::Half { HALF } else { PANEL };
            let wide = match width {
                Width::Half | Width::Panel => 1,
                Width::Graded => graded.panels,
                Width::Wide => WIDE,
            };
            let (mut tile, mut row, mut taller) = (0, first, taller);
            while row < end {
                let rows = match width {
                    Width::Wide => 1,
                    Width::Graded => {
                        let rows = match graded.split {
                            Split::Evenly => even + usize::from(taller > 0),
                            Split::Tallest { least } => match end - row {
                                left if left <= graded.most => left,
                                left if left < graded.most + least => least,
                                _ => graded.most,
                            },
                        };
                        taller = taller.saturating_sub(1);
                        tile = rows - 1;
                        rows
                    }
                    Width::Half | Width::Panel => {
                        while heights[tile] > end - row {
                            tile += 1;
                        }
                        heights[tile]
                    }
                };
                let at = c[row * ldc + column..].as_mut_ptr();
                let (from, ld) = match start {
                    Start::Old => (at.cast_const(), ldc),
                    Start::Row(row) => (row[column..].as_ptr(), 0),
                };
                let sweep = (row - first, end - first);
                let mut place = Place { width, panels: wide, tile, row, rows, panel, sweep, from, ld, c: at, ldc };
                // The last panel may not be whole: then the tile works in a buffer of whole panels. There is one call of
                // `work`, so that the compiler puts it here.
                let mut buffer: [f32; MOST_ROWS * PANEL];
                if left < whole {
                    buffer = [0.0; MOST_ROWS * PANEL];
                    for r in 0..rows {
                        // SAFETY: `left` numbers are at each row of the start and of the buffer.
                        unsafe { buffer[r * PANEL..].as_mut_ptr().copy_from_nonoverlapping(from.add(r * ld), left) };
                    }
                    let inside = buffer.as_mut_ptr();
                    place = Place { from: inside, ld: PANEL, c: inside, ldc: PANEL, ..place };
                }
                let written = place.c;
                work(place);
                if left < whole {
                    for r in 0..rows {
                        // SAFETY: as above, for C.
                        unsafe { at.add(r * ldc).copy_from_nonoverlapping(written.add(r * PANEL), left) };
                    }
                }
                row += rows;
            }
            panel += wide;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_is_in_one_tile(
            m in 1usize..70, n in 1usize..200, sweep in 1usize..70, heights in prop::sample::select(vec![TILE_ROWS, [6, 4, 2, 1]]),
            most in 0usize..7, panels in 1usize..3, least in 0usize..4
        ) {
            let mut c = vec![0.0f32; m * n];
            let split = if least == 0 { Split::Evenly } else { Split::Tallest { least: least.min(most) } };
            over_tiles::<true>(m, n, Start::Old, &mut c, n, sweep, &heights, Grades { most, panels, split }, |at| {
                let columns = if at.width == Width::Half { HALF } else { at.panels * PANEL };
                let known = match at.width {
                    Width::Wide => at.rows == 1,
                    Width::Graded => at.rows == at.tile + 1 && at.rows <= most && at.panels == panels,
                    Width::Half | Width::Panel => at.rows == heights[at.tile],
                };
                assert!(known, "no such tile: {at:?}");
                for r in 0..at.rows {
                    for column in 0..columns {
                        // SAFETY: a tile may write so many columns of its rows.
                        unsafe { *at.c.add(r * at.ldc + column) += 1.0 };
                    }
                }
            });
            prop_assert!(c.iter().all(|&times| times == 1.0), "{c:?}");
        }
    }
}
