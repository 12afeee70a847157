//! The kernels, behind one table of functions: [`portable`] fills it, each instruction set overrides what it has, and
//! the best that the processor offers is chosen once, at the first use. Nothing outside this folder knows an
//! instruction set.
//!
//! Every kernel computes each output with one fixed sequence of IEEE operations (sums run over k in order, fused
//! multiply-add), whatever the number of rows and the instruction set. So results are bit for bit the same for any
//! batch, and on every processor.

// A kernel is told where each matrix begins and how its rows lie, number by number.
#![allow(clippy::too_many_arguments)]

/// The elementwise kernels with their signatures, for `$make!` to make something of each: the table, what an
/// instruction set puts into it, the methods of [`Real`]. All are functions of [`portable`]; what they do is said there.
macro_rules! elementwise {
    ($make:ident, $T:ty) => {
        $make! {
            lstm_rows(hidden: usize, gates: &mut [$T], c: &mut [$T], h: &mut [$T]);
            peephole_rows(hidden: usize, peephole: &[$T], gates: &mut [$T], c: &mut [$T], h: &mut [$T]);
            gru_rows(hidden: usize, gates: &mut [$T], hn: &[$T], h: &mut [$T]);
            simplified_rows(hidden: usize, gates: &mut [$T], h: &mut [$T]);
            lstm_back(
                hidden: usize, gates: &[$T], c: &[$T], c_prev: &[$T], dh: &[$T], dc: &mut [$T], dgates: &mut [$T]
            );
            peephole_back(
                hidden: usize, peephole: &[$T], gates: &[$T], c: &[$T], c_prev: &[$T], dh: &[$T], dc: &mut [$T],
                dgates: &mut [$T]
            );
            gru_back(
                hidden: usize, gates: &[$T], hn: &[$T], h_prev: &[$T], dh: &mut [$T], dx: &mut [$T], dg: &mut [$T]
            );
            simplified_back(hidden: usize, gates: &[$T], h_prev: &[$T], dh: &mut [$T], dgates: &mut [$T]);
            tanh_all(x: &mut [$T]);
            norm_rows(weight: &[$T], bias: &[$T], x: &mut [$T]);
            norm_back(x: &[$T], weight: &[$T], dy: &mut [$T], dweight: &mut [$T], dbias: &mut [$T]);
            softmax_rows(width: usize, x: &mut [$T]);
            adam(p: &mut [$T], g: &[$T], m: &mut [$T], v: &mut [$T], s: &$crate::rnn::kernel::AdamStep<$T>);
        }
    };
}
pub(super) use elementwise;

pub mod portable;

mod gemm;
mod lanes;
pub(crate) mod memory;
pub mod narrow;
mod packed;
mod tiling;

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_lanes;
#[cfg(target_arch = "aarch64")]
mod neon_narrow;

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod cpuid;
#[cfg(target_arch = "x86_64")]
mod x86_bytes;
#[cfg(target_arch = "x86_64")]
mod x86_lanes;
#[cfg(target_arch = "x86_64")]
mod x86_narrow;

pub use gemm::{Factors, check_gemm, gemm, gemm_sum};
pub use packed::Packed;
pub use tiling::{Start, rows_of_a_sweep};

use super::real::Real;
use std::sync::OnceLock;
use tiling::{HALF, WIDE};

/// Columns of one panel of a packed matrix.
pub const PANEL: usize = 32;

/// One step of Adam or AdamW, the same for all parameters: see [`portable::adam`].
#[derive(Debug, Clone, Copy)]
pub struct AdamStep<T> {
    /// Gradients are multiplied by this first (clipping by the global norm).
    pub scale: T,
    pub lr: T,
    pub beta1: T,
    pub beta2: T,
    pub eps: T,
    /// `1 - beta1^t` and `1 - beta2^t`.
    pub correction1: T,
    pub correction2: T,
    /// Decoupled (AdamW): the parameter shrinks by `lr * weight_decay`.
    pub weight_decay: T,
}

/// Products that a tile's sums are made of: element `(r, p)` of its rows of A is `a[r * stride.0 + p * stride.1]`; `b` is the
/// panel that they are multiplied with, of `k` rows. `ahead` is what is multiplied soon, of which a tile may fetch `pace` bytes
/// into the second-level cache with each of the k, as those of x86 do: anywhere, it is not read.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub struct Terms<T> {
    k: usize,
    a: *const T,
    stride: (usize, usize),
    b: *const T,
    ahead: *const u8,
    pace: usize,
}

/// Some rows by a panel: `from` and `c` are at the tile's first element, `from` `ld` apart from row to row (0: one row for
/// all). `c = from + a · b`, of all terms.
type Tile = unsafe fn(terms: &[Terms<f32>], from: *const f32, ld: usize, c: *mut f32, ldc: usize);

macro_rules! table {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {
        /// The table of kernels of one instruction set.
        pub struct Kernels {
            pub name: &'static str,
            /// Rows of the tiles, the tallest first, of at most [`tiling::MOST_ROWS`].
            heights: [usize; 4],
            /// Rows of a sweep from which on the tiles fetch the next panel of a matrix that the cache does not hold.
            ahead_rows: usize,
            /// Tiles of so many rows by one panel, where no graded one serves.
            tiles: [Tile; 4],
            /// As these, of the panel's first [`tiling::HALF`] columns.
            halves: [Tile; 4],
            graded: tiling::Graded<Tile>,
            /// One row by [`WIDE`] panels.
            wide: Tile,
            pub lstm_step: fn(usize, &mut [f32], &mut [f32], &mut [f32]),
            pub gru_step: fn(usize, &mut [f32], &[f32], &mut [f32]),
            /// For rooflines: [`lanes::peak`] and [`lanes::read`].
            pub peak: fn(usize) -> f64,
            pub read: fn(&[f32]) -> f32,
            /// [`narrow::bf16_rows`], [`narrow::bf16_pairs`] and [`narrow::int8_rows`].
            bf16_rows: fn(usize, &[f32], &mut [u32]),
            bf16_pairs: fn(usize, &[f32], &mut [u32]),
            int8_rows: fn(usize, u8, &[f32], &mut [u32], &mut [f32]),
            $(pub $name: fn($($ty),*),)*
        }

        static PORTABLE: Kernels = Kernels {
            name: "portable",
            heights: tiling::TILE_ROWS,
            ahead_rows: usize::MAX,
            tiles: [
                portable::tile::<f32, 8, PANEL>,
                portable::tile::<f32, 4, PANEL>,
                portable::tile::<f32, 2, PANEL>,
                portable::tile::<f32, 1, PANEL>,
            ],
            halves: [
                portable::tile::<f32, 8, HALF>,
                portable::tile::<f32, 4, HALF>,
                portable::tile::<f32, 2, HALF>,
                portable::tile::<f32, 1, HALF>,
            ],
            graded: tiling::Graded::NONE,
            wide: portable::wide::<f32>,
            lstm_step: portable::lstm_step::<f32>,
            gru_step: portable::gru_step::<f32>,
            peak: portable::peak,
            read: portable::read,
            bf16_rows: narrow::bf16_rows,
            bf16_pairs: narrow::bf16_pairs,
            int8_rows: narrow::int8_rows,
            $($name: portable::$name::<f32>,)*
        };
    };
}
elementwise!(table, f32);

/// All tables that this processor can run, the best last.
pub fn available() -> Vec<&'static Kernels> {
    #[allow(unused_mut)]
    let mut all = vec![&PORTABLE];
    #[cfg(target_arch = "x86_64")]
    {
        all.extend(avx2::kernels());
        all.extend(avx512::kernels());
    }
    #[cfg(target_arch = "aarch64")]
    all.push(&neon::TABLE);
    all
}

/// The table in use: the best available, or the one named by the environment variable `STRAND_KERNELS`.
pub fn active() -> &'static Kernels {
    static ACTIVE: OnceLock<&'static Kernels> = OnceLock::new();
    ACTIVE.get_or_init(|| {
        let all = available();
        let wanted = std::env::var("STRAND_KERNELS").ok();
        let named = wanted.and_then(|name| all.iter().copied().find(|k| k.name == name));
        named.or(all.last().copied()).unwrap_or(&PORTABLE)
    })
}

#[cfg(test)]
mod every_number;
#[cfg(test)]
mod tests;
