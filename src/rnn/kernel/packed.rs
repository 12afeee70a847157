//! Weight matrices laid out for the products.

use super::memory::Memory;
use super::{PANEL, Real};

/// A matrix `[k, n]` laid out for [`gemm`](super::gemm): panels of [`PANEL`] columns, each stored row after row, the last padded
/// with zeros. Made once when weights are loaded.
#[derive(Debug)]
pub struct Packed<T> {
    k: usize,
    n: usize,
    data: Memory<T>,
}

impl<T: Real> Packed<T> {
    pub fn empty() -> Packed<T> {
        Packed { k: 0, n: 0, data: Memory::zeroed(0) }
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
        if self.data.len() < len {
            self.data = Memory::zeroed(len);
        }
        let data = &mut self.data[..len];
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

    /// Bytes of its numbers.
    pub fn bytes(&self) -> usize {
        self.k * self.n * size_of::<T>()
    }

    /// The panel that holds columns `p * PANEL ..`, `[k, PANEL]`.
    pub(super) fn panel(&self, p: usize) -> &[T] {
        let len = self.k * PANEL;
        &self.data[p * len..(p + 1) * len]
    }
}

impl<T: Real> Clone for Packed<T> {
    fn clone(&self) -> Packed<T> {
        Packed { data: self.data.clone(), ..*self }
    }
}
