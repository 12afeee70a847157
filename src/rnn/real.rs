//! The number type of engine and trainer: `f32` in earnest, `f64` to check gradients.

use super::kernel::{self, Packed};
use ndarray::NdFloat;

/// A floating-point type with the kernels the networks are made of.
///
/// For `f32` they go through the table of [`kernel::active`]; for `f64` through the portable code.
pub trait Real: NdFloat + Default + 'static {
    fn of(x: f64) -> Self;
    fn f64(self) -> f64;
    /// e^x, the same bits in vector and scalar code, to about 1e-7 relative (f32).
    fn exp_(self) -> Self;
    /// `c[m, n] += a[m, k] · b[k, n]`; see [`kernel::gemm`].
    fn gemm(m: usize, a: &[Self], stride: (usize, usize), b: &Packed<Self>, c: &mut [Self], ldc: usize);
    /// See [`kernel::portable::lstm_rows`].
    fn lstm_rows(hidden: usize, gates: &mut [Self], c: &mut [Self], h: &mut [Self]);
    /// See [`kernel::portable::gru_rows`].
    fn gru_rows(hidden: usize, gates: &mut [Self], hn: &[Self], h: &mut [Self]);
    /// See [`kernel::portable::lstm_back`].
    fn lstm_back(
        hidden: usize,
        gates: &[Self],
        c: &[Self],
        c_prev: &[Self],
        dh: &[Self],
        dc: &mut [Self],
        dg: &mut [Self],
    );
    /// See [`kernel::portable::gru_back`].
    fn gru_back(
        hidden: usize,
        gates: &[Self],
        hn: &[Self],
        h_prev: &[Self],
        dh: &mut [Self],
        dx: &mut [Self],
        dg: &mut [Self],
    );
    /// tanh of every element.
    fn tanh_all(x: &mut [Self]);
    /// See [`kernel::portable::softmax_rows`].
    fn softmax_rows(width: usize, x: &mut [Self]);
    /// See [`kernel::portable::adam`].
    fn adam(p: &mut [Self], g: &[Self], m: &mut [Self], v: &mut [Self], s: &kernel::AdamStep<Self>);
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
    fn lstm_rows(hidden: usize, gates: &mut [f32], c: &mut [f32], h: &mut [f32]) {
        (kernel::active().lstm_rows)(hidden, gates, c, h);
    }
    fn gru_rows(hidden: usize, gates: &mut [f32], hn: &[f32], h: &mut [f32]) {
        (kernel::active().gru_rows)(hidden, gates, hn, h);
    }
    fn lstm_back(hidden: usize, gates: &[f32], c: &[f32], c_prev: &[f32], dh: &[f32], dc: &mut [f32], dg: &mut [f32]) {
        (kernel::active().lstm_back)(hidden, gates, c, c_prev, dh, dc, dg);
    }
    fn gru_back(
        hidden: usize,
        gates: &[f32],
        hn: &[f32],
        h_prev: &[f32],
        dh: &mut [f32],
        dx: &mut [f32],
        dg: &mut [f32],
    ) {
        (kernel::active().gru_back)(hidden, gates, hn, h_prev, dh, dx, dg);
    }
    fn tanh_all(x: &mut [f32]) {
        (kernel::active().tanh_all)(x);
    }
    fn softmax_rows(width: usize, x: &mut [f32]) {
        (kernel::active().softmax_rows)(width, x);
    }
    fn adam(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], s: &kernel::AdamStep<f32>) {
        (kernel::active().adam)(p, g, m, v, s);
    }
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
    fn lstm_rows(hidden: usize, gates: &mut [f64], c: &mut [f64], h: &mut [f64]) {
        kernel::portable::lstm_rows(hidden, gates, c, h);
    }
    fn gru_rows(hidden: usize, gates: &mut [f64], hn: &[f64], h: &mut [f64]) {
        kernel::portable::gru_rows(hidden, gates, hn, h);
    }
    fn lstm_back(hidden: usize, gates: &[f64], c: &[f64], c_prev: &[f64], dh: &[f64], dc: &mut [f64], dg: &mut [f64]) {
        kernel::portable::lstm_back(hidden, gates, c, c_prev, dh, dc, dg);
    }
    fn gru_back(
        hidden: usize,
        gates: &[f64],
        hn: &[f64],
        h_prev: &[f64],
        dh: &mut [f64],
        dx: &mut [f64],
        dg: &mut [f64],
    ) {
        kernel::portable::gru_back(hidden, gates, hn, h_prev, dh, dx, dg);
    }
    fn tanh_all(x: &mut [f64]) {
        kernel::portable::tanh_all(x);
    }
    fn softmax_rows(width: usize, x: &mut [f64]) {
        kernel::portable::softmax_rows(width, x);
    }
    fn adam(p: &mut [f64], g: &[f64], m: &mut [f64], v: &mut [f64], s: &kernel::AdamStep<f64>) {
        kernel::portable::adam(p, g, m, v, s);
    }
}
