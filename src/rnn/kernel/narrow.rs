//! Products with weights of 16 or 8 bits, that the processor multiplies two or four at a time.
//!
//! Along k, numbers stand in *groups* of one 32-bit word: two of bf16, or four of int8. A panel is group after group of
//! [`PANEL`] words, so both kinds, and all instruction sets, share one layout.
//!
//! - **bf16** is the upper half of an f32. Weights and the rows they are multiplied with are rounded to nearest, ties to
//!   even; sums are f32: of each group first the odd, then the even number, one fused multiply-add each, which is what the
//!   instruction VDPBF16PS does (but for numbers below 2^-126, which it takes for 0).
//! - **int8**: each column n of the weights has a scale s_n = max|w| / 127, each row of A, at every product anew, one of its
//!   own, s_i = max|a| / 127; c_in = start + s_i s_n Σ_k q_ik q_kn. Integer sums are exact, so every instruction set gives
//!   the same bits.

use super::PANEL;
use super::memory::Memory;
use super::tiling::{Graded, Start, TILE_ROWS, Width, over_tiles, rows_of_a_sweep};
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

/// How weights are held and multiplied; h and c are f32 with all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    F32,
    Bf16,
    Int8,
}

impl Precision {
    pub const ALL: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::Int8 => "int8",
        }
    }

    /// Numbers in a group.
    fn group(self) -> usize {
        match self {
            Precision::F32 => 1,
            Precision::Bf16 => 2,
            Precision::Int8 => 4,
        }
    }
}

/// A matrix `[k, n]` in bf16 or int8, laid out for [`product`].
#[derive(Debug, Clone)]
pub struct Narrow {
    precision: Precision,
    k: usize,
    n: usize,
    groups: usize,
    words: Memory<u32>,
    /// Of int8, `[panels * PANEL]`: the columns' scales, and 128 Σ_k q_kn.
    scales: Vec<f32>,
    sums: Vec<i32>,
}

/// Working space of [`product`].
#[derive(Debug, Default)]
pub struct NarrowScratch {
    words: Vec<u32>,
    scales: Vec<f32>,
    sums: Vec<i32>,
}

/// What a tile of int8 multiplies its sums by: scales of its rows and columns; and of the columns 128 Σ q.
#[derive(Debug, Clone, Copy)]
pub struct Scales {
    pub rows: *const f32,
    pub columns: *const f32,
    pub sums: *const i32,
}

/// As [`super::Tile`]: rows of A, one after the other, are `groups` words each, or twice as many with
/// [`Rows::Widened`].
pub type NarrowTile = unsafe fn(
    groups: usize,
    a: *const u32,
    b: *const u32,
    scales: Scales,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
);

/// Rows that a matrix unit takes at once, and panels: as many as keep its sums in the first-level cache.
pub const TALL_ROWS: usize = 16;
pub const TALL_PANELS: usize = 8;

/// [`TALL_ROWS`] rows by the panels of `columns` columns, of which the last may not be whole: as [`NarrowTile`],
/// with space for the sums of whole panels, of which there are at most [`TALL_PANELS`].
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

#[cfg(target_arch = "aarch64")]
impl Scales {
    /// Those from another row and column on.
    ///
    /// # Safety
    /// There must be so many.
    pub unsafe fn at(self, row: usize, column: usize) -> Scales {
        // SAFETY: the caller's promise.
        unsafe {
            let (rows, columns) = (self.rows.add(row), self.columns.add(column));
            Scales { rows, columns, sums: self.sums.add(column) }
        }
    }
}

/// How the rows that are multiplied stand before a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// In words, as the weights do.
    Words,
    /// The same, each number of int8 128 higher, unsigned.
    Offset,
    /// Numbers of bf16 as f32, so that no tile has to take words apart.
    Widened,
}

/// The products of one precision on one instruction set.
#[derive(Debug)]
pub struct NarrowKernels {
    pub name: &'static str,
    /// The table of [`super::available`] that it goes with: what the processor needs at least.
    pub with: &'static str,
    pub rows: Rows,
    pub tiles: [NarrowTile; 4],
    pub graded: Graded<NarrowTile>,
    pub wide: NarrowTile,
    /// Where there is a matrix unit: it takes as many rows as are whole blocks of [`TALL_ROWS`].
    pub tall: Option<Tall>,
    /// As that of [`super::Kernels`], of the instructions that multiply; none where the peak of f32 is taken for it.
    pub peak: Option<fn(usize) -> f64>,
}

static PORTABLE_BF16: NarrowKernels = NarrowKernels {
    name: "portable",
    with: "portable",
    rows: Rows::Words,
    tiles: [
        portable_tile::<Bf16, 8, 1>,
        portable_tile::<Bf16, 4, 1>,
        portable_tile::<Bf16, 2, 1>,
        portable_tile::<Bf16, 1, 1>,
    ],
    graded: Graded::NONE,
    wide: portable_tile::<Bf16, 1, { super::WIDE }>,
    tall: None,
    peak: None,
};

static PORTABLE_INT8: NarrowKernels = NarrowKernels {
    name: "portable",
    with: "portable",
    rows: Rows::Words,
    tiles: [
        portable_tile::<Int8, 8, 1>,
        portable_tile::<Int8, 4, 1>,
        portable_tile::<Int8, 2, 1>,
        portable_tile::<Int8, 1, 1>,
    ],
    graded: Graded::NONE,
    wide: portable_tile::<Int8, 1, { super::WIDE }>,
    tall: None,
    peak: None,
};

/// All tables for this precision that this processor can run, the best last.
pub fn available(precision: Precision) -> Vec<&'static NarrowKernels> {
    #[allow(unused_mut)]
    let mut all = vec![if precision == Precision::Int8 { &PORTABLE_INT8 } else { &PORTABLE_BF16 }];
    #[cfg(target_arch = "x86_64")]
    all.extend(super::x86_narrow::kernels(precision));
    #[cfg(target_arch = "aarch64")]
    all.extend(super::neon_narrow::kernels(precision));
    all
}

/// The table in use: the best that goes with [`super::active`], or one below it.
pub fn active(precision: Precision) -> &'static NarrowKernels {
    static ACTIVE: [OnceLock<&'static NarrowKernels>; 2] = [OnceLock::new(), OnceLock::new()];
    ACTIVE[usize::from(precision == Precision::Int8)].get_or_init(|| {
        let below: Vec<&str> = super::available().iter().map(|k| k.name).collect();
        let most = below.iter().position(|name| *name == super::active().name).unwrap_or(0);
        let fits = |k: &&NarrowKernels| below[..=most].contains(&k.with);
        let all = available(precision);
        all.iter().copied().rfind(fits).unwrap_or(all[0])
    })
}

/// The upper half of x, rounded to nearest, ties to even.
#[inline(always)]
pub fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// A row of weights in int8, and its scale: max|w| / 127, rounded up to 16 bits, so that 127 times it is exact and what was
/// rounded once stays as it is.
pub fn int8_weights(weights: impl Iterator<Item = f32> + Clone) -> (Vec<i8>, f32) {
    let most = weights.clone().fold(0.0f32, |most, w| most.max(w.abs()));
    let scale = f32::from_bits((most / 127.0).to_bits().saturating_add(0xff) & !0xff);
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    (weights.map(|w| rounded(w * inverse) as u8 as i8).collect(), scale)
}

/// 127 / max|x|, or 0 of zeros, and its inverse.
#[inline(always)]
fn scale_of(most: f32) -> (f32, f32) {
    if most > 0.0 { (127.0 / most, most / 127.0) } else { (0.0, 0.0) }
}

/// x rounded to nearest, ties to even, for |x| ≤ 127.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    // 1.5 * 2^23: adding it rounds to an integer that then stands in the low bits of the mantissa.
    (x + 12_582_912.0).to_bits()
}

impl Narrow {
    /// Packs element `(k, n)` from `src[k * stride.0 + n * stride.1]`.
    ///
    /// # Panics
    /// If `precision` is f32, or `src` too short.
    pub fn new(src: &[f32], stride: (usize, usize), k: usize, n: usize, precision: Precision) -> Narrow {
        assert!(precision != Precision::F32, "f32 has a layout of its own");
        let (group, panels) = (precision.group(), n.div_ceil(PANEL));
        let groups = k.div_ceil(group);
        let mut narrow = Narrow {
            precision,
            k,
            n,
            groups,
            words: Memory::zeroed(panels * groups * PANEL),
            scales: vec![0.0; panels * PANEL],
            sums: vec![0; panels * PANEL],
        };
        for column in 0..n {
            let weights = (0..k).map(|row| src[row * stride.0 + column * stride.1]);
            let mut put = |row: usize, bits: u32| {
                let at = (column / PANEL * groups + row / group) * PANEL + column % PANEL;
                narrow.words[at] |= bits << (row % group * 32 / group);
            };
            if precision == Precision::Bf16 {
                weights.enumerate().for_each(|(row, w)| put(row, u32::from(bf16(w))));
                continue;
            }
            let (rounded, scale) = int8_weights(weights);
            rounded.iter().enumerate().for_each(|(row, &q)| put(row, u32::from(q as u8)));
            let sum: i32 = rounded.iter().map(|&q| i32::from(q)).sum();
            (narrow.scales[column], narrow.sums[column]) = (scale, 128 * sum);
        }
        narrow
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Bytes of its numbers.
    pub fn bytes(&self) -> usize {
        self.words.len() * size_of::<u32>()
    }

    pub fn rows(&self) -> usize {
        self.k
    }

    fn panel(&self, p: usize) -> *const u32 {
        self.words[p * self.groups * PANEL..].as_ptr()
    }
}

/// `c[m, n] = start + a[m, k] · b[k, n]`; row `i` of A starts at `a[i * k]`, of C at `c[i * ldc]`. What comes of a row does
/// not depend on the others.
pub fn product(
    kernels: &NarrowKernels,
    start: Start<'_>,
    m: usize,
    a: &[f32],
    b: &Narrow,
    c: &mut [f32],
    ldc: usize,
    scratch: &mut NarrowScratch,
) {
    assert!(a.len() >= m * b.k, "product: A is too small");
    let rows = super::active();
    // A row's words are read in tiles of at most eight, which may reach past the last.
    let groups = b.groups;
    let row_words = if kernels.rows == Rows::Widened { 2 * groups } else { groups };
    scratch.words.resize(m * row_words, 0);
    scratch.scales.resize(m, 0.0);
    match b.precision {
        Precision::Bf16 if kernels.rows == Rows::Widened => (rows.bf16_pairs)(b.k, a, &mut scratch.words),
        Precision::Bf16 => (rows.bf16_rows)(b.k, a, &mut scratch.words),
        _ => {
            let offset = if kernels.rows == Rows::Offset { 128 } else { 0 };
            (rows.int8_rows)(b.k, offset, a, &mut scratch.words, &mut scratch.scales);
        }
    }
    let done = kernels.tall.map_or(0, |tall| tall_rows(tall, start, m, b, c, ldc, scratch));
    if done == m {
        return;
    }
    let (words, row_scales) = (scratch.words[done * row_words..].as_ptr(), scratch.scales[done..].as_ptr());
    let sweep = rows_of_a_sweep(b.bytes());
    let graded = kernels.graded.grades(m - done, b.bytes());
    over_tiles::<false>(m - done, b.n, start, &mut c[done * ldc..], ldc, sweep, &TILE_ROWS, graded, |at| {
        let tile = match at.width {
            Width::Half | Width::Panel => kernels.tiles[at.tile],
            Width::Graded => kernels.graded.tiles[at.tile],
            Width::Wide => kernels.wide,
        };
        let column = at.panel * PANEL;
        let rows = row_scales.wrapping_add(at.row);
        let scales = Scales { rows, columns: b.scales[column..].as_ptr(), sums: b.sums[column..].as_ptr() };
        let a = words.wrapping_add(at.row * row_words);
        // SAFETY: the words hold `row_words` for each row and `groups` for each column of each panel, the scales all rows and whole panels;
        // `over_tiles` gives room for whole panels at `from` and `c`. The table's entry runs on this processor.
        unsafe { tile(groups, a, b.panel(at.panel), scales, at.from, at.ld, at.c, at.ldc) };
    });
}

/// The part of [`product`] that a matrix unit does: says how many rows that is. `scratch` has the rows, rounded.
fn tall_rows(
    tall: Tall,
    start: Start<'_>,
    m: usize,
    b: &Narrow,
    c: &mut [f32],
    ldc: usize,
    scratch: &mut NarrowScratch,
) -> usize {
    let rows = m - m % TALL_ROWS;
    if rows == 0 || b.n == 0 || b.k == 0 {
        return 0;
    }
    assert!(b.n <= ldc && c.len() >= (rows - 1) * ldc + b.n, "C is too small");
    scratch.sums.resize(TALL_PANELS * TALL_ROWS * PANEL, 0);
    let groups = b.groups;
    for row in (0..rows).step_by(TALL_ROWS) {
        for column in (0..b.n).step_by(TALL_PANELS * PANEL) {
            let columns = (TALL_PANELS * PANEL).min(b.n - column);
            let scales = Scales {
                rows: scratch.scales[row..].as_ptr(),
                columns: b.scales[column..].as_ptr(),
                sums: b.sums[column..].as_ptr(),
            };
            let a = scratch.words[row * groups..].as_ptr();
            let c = c[row * ldc + column..].as_mut_ptr();
            let (from, ld) = match start {
                Start::Old => (c.cast_const(), ldc),
                Start::Row(row) => (row[column..column + columns].as_ptr(), 0),
            };
            let (b, space) = (b.panel(column / PANEL), scratch.sums.as_mut_ptr());
            // SAFETY: TALL_ROWS rows of A and C are there from `row` on, their scales, `columns` columns and the panels they are
            // in; `space` is for TALL_PANELS panels. The table's entry runs on this processor.
            unsafe { tall(groups, a, b, columns, scales, from, ld, c, ldc, space) };
        }
    }
    rows
}

/// Rounds rows of `k` numbers to bf16: two a word, rows filled up with 0.
#[inline(always)]
pub fn bf16_rows(k: usize, a: &[f32], words: &mut [u32]) {
    for (a, words) in a.chunks_exact(k.max(1)).zip(words.chunks_exact_mut(k.div_ceil(2).max(1))) {
        let (pairs, rest) = a.as_chunks::<2>();
        for (word, &[even, odd]) in words.iter_mut().zip(pairs) {
            *word = u32::from(bf16(even)) | u32::from(bf16(odd)) << 16;
        }
        if let (Some(word), &[last]) = (words.last_mut(), rest) {
            *word = u32::from(bf16(last));
        }
    }
}

/// As [`bf16_rows`], each number as an f32, and of each two the second first, as they are added.
#[inline(always)]
pub fn bf16_pairs(k: usize, a: &[f32], words: &mut [u32]) {
    let wide = |x: f32| u32::from(bf16(x)) << 16;
    for (a, words) in a.chunks_exact(k.max(1)).zip(words.chunks_exact_mut(2 * k.div_ceil(2).max(1))) {
        let (pairs, rest) = a.as_chunks::<2>();
        let (to, _) = words.as_chunks_mut::<2>();
        for (to, &[even, odd]) in to.iter_mut().zip(pairs) {
            *to = [wide(odd), wide(even)];
        }
        if let (Some(to), &[last]) = (to.last_mut(), rest) {
            *to = [0, wide(last)];
        }
    }
}

/// Rounds rows of `k` numbers to int8, each with its scale: four a word, `offset` added to each; rows filled up with 0.
#[inline(always)]
pub fn int8_rows(k: usize, offset: u8, a: &[f32], words: &mut [u32], scales: &mut [f32]) {
    let groups = k.div_ceil(4).max(1);
    for ((a, words), out) in a.chunks_exact(k.max(1)).zip(words.chunks_exact_mut(groups)).zip(scales) {
        let mut most = [0.0f32; 16];
        let (lines, rest) = a.as_chunks::<16>();
        for line in lines {
            for (m, &x) in most.iter_mut().zip(line) {
                *m = if x.abs() > *m { x.abs() } else { *m };
            }
        }
        let most = most.iter().copied().chain(rest.iter().map(|x| x.abs())).fold(0.0f32, f32::max);
        let (inverse, scale) = scale_of(most);
        *out = scale;
        let add = u32::from(offset);
        let word = |x: &[f32; 4]| {
            let byte = |x: f32| rounded(x * inverse).wrapping_add(add) & 0xff;
            byte(x[0]) | byte(x[1]) << 8 | byte(x[2]) << 16 | byte(x[3]) << 24
        };
        let (fours, rest) = a.as_chunks::<4>();
        for (to, four) in words.iter_mut().zip(fours) {
            *to = word(four);
        }
        if let (Some(last), false) = (words.last_mut(), rest.is_empty()) {
            let mut four = [0.0; 4];
            four[..rest.len()].copy_from_slice(rest);
            *last = word(&four);
        }
    }
}

/// What a group of one precision adds to a sum.
trait Group {
    type Sum: Copy + Default;
    fn begin(from: f32) -> Self::Sum;
    fn add(sum: Self::Sum, a: u32, b: u32) -> Self::Sum;
    fn end(sum: Self::Sum, from: f32, row: f32, column: f32) -> f32;
}

struct Bf16;
struct Int8;

impl Group for Bf16 {
    type Sum = f32;
    fn begin(from: f32) -> f32 {
        from
    }
    fn add(sum: f32, a: u32, b: u32) -> f32 {
        let high = |x: u32| f32::from_bits(x & 0xffff_0000);
        let low = |x: u32| f32::from_bits(x << 16);
        low(a).mul_add(low(b), high(a).mul_add(high(b), sum))
    }
    fn end(sum: f32, _: f32, _: f32, _: f32) -> f32 {
        sum
    }
}

impl Group for Int8 {
    type Sum = i32;
    fn begin(_: f32) -> i32 {
        0
    }
    fn add(sum: i32, a: u32, b: u32) -> i32 {
        (a.to_le_bytes().into_iter().zip(b.to_le_bytes()))
            .fold(sum, |sum, (a, b)| sum + i32::from(a as i8) * i32::from(b as i8))
    }
    fn end(sum: i32, from: f32, row: f32, column: f32) -> f32 {
        (sum as f32).mul_add(row * column, from)
    }
}

/// `ROWS` rows by `PANELS` panels, in plain Rust.
///
/// # Safety
/// `a` must hold `ROWS` rows of `groups` words, `b` the words of `PANELS` panels, `scales` the rows and columns; `from` and
/// `c` the columns of the panels in each row, `ld` and `ldc` apart.
unsafe fn portable_tile<G: Group, const ROWS: usize, const PANELS: usize>(
    groups: usize,
    a: *const u32,
    b: *const u32,
    scales: Scales,
    from: *const f32,
    ld: usize,
    c: *mut f32,
    ldc: usize,
) {
    for row in 0..ROWS {
        for panel in 0..PANELS {
            // SAFETY: the caller's promise.
            unsafe {
                let mut sums = [G::Sum::default(); PANEL];
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = G::begin(*from.add(row * ld + panel * PANEL + j));
                }
                for g in 0..groups {
                    let (a, b) = (*a.add(row * groups + g), b.add((panel * groups + g) * PANEL));
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = G::add(*sum, a, *b.add(j));
                    }
                }
                for (j, sum) in sums.iter().enumerate() {
                    let column = panel * PANEL + j;
                    let from = *from.add(row * ld + column);
                    *c.add(row * ldc + column) = G::end(*sum, from, *scales.rows.add(row), *scales.columns.add(column));
                }
            }
        }
    }
}
