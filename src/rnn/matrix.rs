//! A weight matrix as labelling uses it: packed once, in one of three precisions.

use super::kernel::narrow::{self, Narrow, NarrowScratch};
use super::kernel::{self, Factors, Packed, Start};
use std::cell::RefCell;

pub use super::kernel::narrow::Precision;

/// A matrix `[k, n]`, ready to be multiplied with.
#[derive(Debug, Clone)]
pub struct Matrix(Numbers);

#[derive(Debug, Clone)]
enum Numbers {
    F32(Packed<f32>),
    Narrow(Narrow),
}

thread_local! {
    /// Where rows are rounded before they are multiplied.
    static ROUNDED: RefCell<NarrowScratch> = RefCell::default();
}

impl Matrix {
    pub fn empty() -> Matrix {
        Matrix(Numbers::F32(Packed::empty()))
    }

    /// The transposed of `weight` `[n, columns]` (PyTorch's layout), of which `k` columns from `first` on are taken.
    pub fn of_columns(
        weight: &[f32],
        columns: usize,
        first: usize,
        [k, n]: [usize; 2],
        precision: Precision,
    ) -> Matrix {
        let (src, stride) = (weight.get(first..).unwrap_or_default(), (1, columns));
        Matrix(match precision {
            Precision::F32 => Numbers::F32(Packed::new(src, stride, k, n)),
            narrow => Numbers::Narrow(Narrow::new(src, stride, k, n, narrow)),
        })
    }

    /// The transposed of `weight` `[n, k]`.
    pub fn new(weight: &[f32], [k, n]: [usize; 2], precision: Precision) -> Matrix {
        Matrix::of_columns(weight, k, 0, [k, n], precision)
    }

    pub fn rows(&self) -> usize {
        match &self.0 {
            Numbers::F32(packed) => packed.rows(),
            Numbers::Narrow(narrow) => narrow.rows(),
        }
    }

    /// See [`kernel::rows_of_a_sweep`].
    pub fn rows_of_a_sweep(&self) -> usize {
        kernel::rows_of_a_sweep(match &self.0 {
            Numbers::F32(packed) => packed.bytes(),
            Numbers::Narrow(narrow) => narrow.bytes(),
        })
    }

    /// `c[m, n] = start + a[m, k] · self`; rows of A follow one another, row `i` of C starts at `c[i * ldc]`. What comes of a
    /// row does not depend on the others.
    pub fn product(&self, start: Start<'_>, m: usize, a: &[f32], c: &mut [f32], ldc: usize) {
        match &self.0 {
            Numbers::F32(b) => kernel::gemm_sum(kernel::active(), start, m, [factors(a, b)], c, ldc),
            Numbers::Narrow(b) => ROUNDED.with_borrow_mut(|rounded| {
                narrow::product(narrow::active(b.precision()), start, m, a, b, c, ldc, rounded);
            }),
        }
    }

    /// As [`Matrix::product`] of `a` with `self`, and then of `more` added to that: the same bits, and in f32 C is written once.
    pub fn product_and(
        &self,
        start: Start<'_>,
        m: usize,
        a: &[f32],
        more: (&Matrix, &[f32]),
        c: &mut [f32],
        ldc: usize,
    ) {
        if let (Numbers::F32(b), Numbers::F32(more_b)) = (&self.0, &more.0.0)
            && b.columns() == more_b.columns()
        {
            let all = [factors(a, b), factors(more.1, more_b)];
            return kernel::gemm_sum(kernel::active(), start, m, all, c, ldc);
        }
        self.product(start, m, a, c, ldc);
        more.0.product(Start::Old, m, more.1, c, ldc);
    }
}

fn factors<'a>(a: &'a [f32], b: &'a Packed<f32>) -> Factors<'a> {
    Factors { a, stride: (b.rows(), 1), b }
}
