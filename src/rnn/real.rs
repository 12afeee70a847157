//! The number type of engine and trainer: `f32` in earnest, `f64` to check gradients.

use super::kernel::{self, Factors, Packed, Start, elementwise};
use ndarray::NdFloat;

macro_rules! declared {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {
        $(
            #[doc = concat!("See [`kernel::portable::", stringify!($name), "`].")]
            #[allow(clippy::too_many_arguments)]
            fn $name($($arg: $ty),*);
        )*
    };
}

macro_rules! of_the_table {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {
        $(fn $name($($arg: $ty),*) {
            (kernel::active().$name)($($arg),*);
        })*
    };
}

macro_rules! portable {
    ($($name:ident($($arg:ident: $ty:ty),*);)*) => {
        $(fn $name($($arg: $ty),*) {
            kernel::portable::$name($($arg),*);
        })*
    };
}

/// A floating-point type with the kernels the networks are made of.
///
/// For `f32` they go through the table of [`kernel::active`]; for `f64` through the portable code.
pub trait Real: NdFloat + Default + bytemuck::Pod {
    fn of(x: f64) -> Self;
    fn f64(self) -> f64;
    /// e^x, the same bits in vector and scalar code, to 1e-7 relative (f32).
    fn exp_(self) -> Self;
    /// `c[m, n] += a[m, k] · b[k, n]`; see [`kernel::gemm`].
    fn gemm(m: usize, a: &[Self], stride: (usize, usize), b: &Packed<Self>, c: &mut [Self], ldc: usize);
    /// As [`Real::gemm`] over rows of A one after the other, into `c` `[m, n]` that holds this row in all of its rows: the same
    /// bits, but what `c` holds is not read.
    fn product(row: &[Self], m: usize, a: &[Self], b: &Packed<Self>, c: &mut [Self]);
    elementwise!(declared, Self);
}

impl Real for f32 {
    fn of(x: f64) -> f32 {
        x as f32
    }
    fn f64(self) -> f64 {
        self as f64
    }
    #[inline(always)]
    fn exp_(self) -> f32 {
        kernel::portable::exp_f32(self)
    }
    fn gemm(m: usize, a: &[f32], stride: (usize, usize), b: &Packed<f32>, c: &mut [f32], ldc: usize) {
        kernel::gemm(kernel::active(), m, a, stride, b, c, ldc);
    }
    fn product(row: &[f32], m: usize, a: &[f32], b: &Packed<f32>, c: &mut [f32]) {
        let factors = Factors { a, stride: (b.rows(), 1), b };
        kernel::gemm_sum(kernel::active(), Start::Row(row), m, [factors], c, b.columns());
    }
    elementwise!(of_the_table, f32);
}

impl Real for f64 {
    fn of(x: f64) -> f64 {
        x
    }
    fn f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn exp_(self) -> f64 {
        self.exp()
    }
    fn gemm(m: usize, a: &[f64], stride: (usize, usize), b: &Packed<f64>, c: &mut [f64], ldc: usize) {
        kernel::check_gemm(m, a, stride, b, c, ldc);
        kernel::portable::gemm(m, a, stride, b, c, ldc);
    }
    fn product(row: &[f64], m: usize, a: &[f64], b: &Packed<f64>, c: &mut [f64]) {
        // A matrix may have no columns.
        c.chunks_exact_mut(b.columns().max(1)).for_each(|c| c.copy_from_slice(row));
        Self::gemm(m, a, (b.rows(), 1), b, c, b.columns());
    }
    elementwise!(portable, f64);
}
