//! The kernels, behind one table of functions: [`portable`] fills it, each instruction set overrides what it has, and
//! the best that the processor offers is chosen once, at the first use. Nothing outside this folder knows an
//! instruction set.
//!
//! Every kernel computes each output with one fixed sequence of IEEE operations (sums run over k in order, fused
//! multiply-add), whatever the number of rows and the instruction set. So results are bit for bit the same for any
//! batch, and on every processor.

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

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use super::real::Real;
use std::sync::OnceLock;

/// Columns of one panel of a packed matrix.
pub const PANEL: usize = 32;

/// Numbers in a cache line of 64 bytes of f32; panels start on one.
const ALIGN: usize = 64;

/// A matrix `[k, n]` laid out for [`gemm`]: panels of [`PANEL`] columns, each stored row after row, the last padded
/// with zeros. Made once when weights are loaded.
#[derive(Debug)]
pub struct Packed<T> {
    k: usize,
    n: usize,
    data: Vec<T>,
    start: usize,
}

impl<T: Real> Packed<T> {
    pub fn empty() -> Packed<T> {
        Packed { k: 0, n: 0, data: Vec::new(), start: 0 }
    }

    /// Packs element `(k, n)` from `src[k * stride.0 + n * stride.1]`.
    pub fn new(src: &[T], stride: (usize, usize), k: usize, n: usize) -> Packed<T> {
        let mut packed = Packed::empty();
        packed.pack(src, stride, k, n);
        packed
    }

    /// As [`Packed::new`], into the space this matrix holds already.
    pub fn pack(&mut self, src: &[T], stride: (usize, usize), k: usize, n: usize) {
        assert!(k == 0 || n == 0 || src.len() > (k - 1) * stride.0 + (n - 1) * stride.1, "matrix larger than its data");
        let panels = n.div_ceil(PANEL);
        let len = panels * k * PANEL;
        (self.k, self.n) = (k, n);
        let room = ALIGN / size_of::<T>();
        if self.data.len() < len + room {
            self.data = vec![T::zero(); len + room];
            self.start = self.data.as_ptr().align_offset(ALIGN).min(room);
        }
        let data = &mut self.data[self.start..self.start + len];
        for (p, panel) in data.chunks_exact_mut((k * PANEL).max(1)).enumerate() {
            let width = PANEL.min(n - p * PANEL);
            for (row, out) in panel.chunks_exact_mut(PANEL).enumerate() {
                let from = row * stride.0 + p * PANEL * stride.1;
                if stride.1 == 1 {
                    out[..width].copy_from_slice(&src[from..from + width]);
                } else {
                    for (j, o) in out[..width].iter_mut().enumerate() {
                        *o = src[from + j * stride.1];
                    }
                }
                out[width..].fill(T::zero());
            }
        }
    }

    pub fn rows(&self) -> usize {
        self.k
    }

    pub fn columns(&self) -> usize {
        self.n
    }

    /// The panel that holds columns `p * PANEL ..`, `[k, PANEL]`.
    fn panel(&self, p: usize) -> &[T] {
        let len = self.k * PANEL;
        &self.data[self.start + p * len..self.start + (p + 1) * len]
    }
}

impl<T: Real> Clone for Packed<T> {
    fn clone(&self) -> Packed<T> {
        let mut copy = Packed::empty();
        let len = self.n.div_ceil(PANEL) * self.k * PANEL;
        let room = ALIGN / size_of::<T>();
        copy.data = vec![T::zero(); len + room];
        copy.start = copy.data.as_ptr().align_offset(ALIGN).min(room);
        copy.data[copy.start..copy.start + len].copy_from_slice(&self.data[self.start..self.start + len]);
        (copy.k, copy.n) = (self.k, self.n);
        copy
    }
}

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

/// Rows × panels that one call of a tile handles; `a` and `c` are at the tile's first element.
type Tile = unsafe fn(k: usize, a: *const f32, stride: (usize, usize), b: *const f32, c: *mut f32, ldc: usize);

macro_rules! table {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {
        /// The table of kernels of one instruction set.
        pub struct Kernels {
            pub name: &'static str,
            /// Tiles of 8, 4, 2 and 1 rows by one panel.
            tiles: [(usize, Tile); 4],
            /// One row by [`WIDE`] panels: a lone stream's product, which one panel alone would leave waiting on latency.
            wide: Tile,
            $(pub $name: fn($($ty),*),)*
        }

        static PORTABLE: Kernels = Kernels {
            name: "portable",
            tiles: [
                (8, portable::tile::<f32, 8>),
                (4, portable::tile::<f32, 4>),
                (2, portable::tile::<f32, 2>),
                (1, portable::tile::<f32, 1>),
            ],
            wide: portable::wide::<f32>,
            $($name: portable::$name::<f32>,)*
        };
    };
}
elementwise!(table, f32);

/// Panels of [`Kernels::wide`].
const WIDE: usize = 4;

/// Rows handled per sweep over the panels, so that they stay in the second-level cache.
const ROW_BLOCK: usize = 256;

/// All tables that this processor can run, the best last.
pub fn available() -> Vec<&'static Kernels> {
    #[allow(unused_mut)]
    let mut all = vec![&PORTABLE];
    #[cfg(target_arch = "x86_64")]
    {
        all.extend(avx2::kernels());
        all.extend(avx512::kernels());
    }
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

/// Panics unless `a`, `b` and `c` hold what [`gemm`] will touch.
pub fn check_gemm<T: Real>(m: usize, a: &[T], stride: (usize, usize), b: &Packed<T>, c: &[T], ldc: usize) {
    if m > 0 && b.k > 0 {
        assert!(a.len() > (m - 1) * stride.0 + (b.k - 1) * stride.1, "gemm: A is too small");
    }
    if m > 0 {
        assert!(b.n <= ldc && c.len() >= (m - 1) * ldc + b.n, "gemm: C is too small");
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
    check_gemm(m, a, stride, b, c, ldc);
    let (k, n) = (b.k, b.n);
    if k == 0 || n == 0 {
        return;
    }
    let whole = n / PANEL;
    let mut first = 0;
    while first < m {
        let rows = ROW_BLOCK.min(m - first);
        let mut panel = 0;
        if rows == 1 {
            while panel + WIDE <= whole {
                let (row, at) = (&a[first * stride.0..], first * ldc + panel * PANEL);
                // SAFETY: check_gemm: row `first` of A holds k elements, C holds n columns of that row, and WIDE whole
                // panels follow one another from `panel` on. The table's entry runs on this processor.
                unsafe { (kernels.wide)(k, row.as_ptr(), stride, b.panel(panel).as_ptr(), c[at..].as_mut_ptr(), ldc) };
                panel += WIDE;
            }
        }
        for p in panel..n.div_ceil(PANEL) {
            let width = PANEL.min(n - p * PANEL);
            let mut i = first;
            for (tile_rows, tile) in kernels.tiles {
                while i + tile_rows <= first + rows {
                    let (rows_a, at) = (&a[i * stride.0..], i * ldc + p * PANEL);
                    if width == PANEL {
                        // SAFETY: check_gemm: rows i..i+tile_rows of A hold k elements, and C holds this panel's
                        // columns in those rows. The table's entry runs on this processor.
                        unsafe { tile(k, rows_a.as_ptr(), stride, b.panel(p).as_ptr(), c[at..].as_mut_ptr(), ldc) };
                    } else {
                        let mut edge = [0.0f32; 8 * PANEL];
                        for r in 0..tile_rows {
                            edge[r * PANEL..r * PANEL + width].copy_from_slice(&c[at + r * ldc..at + r * ldc + width]);
                        }
                        // SAFETY: as above, with C's part in `edge`, which holds 8 rows of a whole panel.
                        unsafe { tile(k, rows_a.as_ptr(), stride, b.panel(p).as_ptr(), edge.as_mut_ptr(), PANEL) };
                        for r in 0..tile_rows {
                            c[at + r * ldc..at + r * ldc + width].copy_from_slice(&edge[r * PANEL..r * PANEL + width]);
                        }
                    }
                    i += tile_rows;
                }
            }
        }
        first += rows;
    }
}

#[cfg(test)]
mod tests;
