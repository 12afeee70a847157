//! One recurrent layer over a ragged batch, for labelling: weights packed once, state in and out, no allocation per
//! step.
//!
//! A ragged batch is laid out as PyTorch's `PackedSequence`: streams sorted by length, longest first; row after row the
//! first step of all streams, then the second of those that have one, and so on. `sizes[t]` is the number of streams
//! with a step `t`; it never grows with `t`.

use super::kernel::{self, Start};
use super::matrix::{Matrix, Precision};
use super::{Cell, LayerSpec, Nonlinearity};

/// Weights of a layer up to which its products with x and h are made together, in f32. Larger ones come from the third-level
/// cache or from memory, and two matrices at a time are slower then (3 layers of 512 lost 1 to 5 %). In bf16 and int8 nothing is
/// gained: rows are rounded before, and sums become f32 behind each product anyway.
const SMALL_NUMBERS: usize = 1 << 20;

/// With fewer streams than this all steps' input is multiplied first: as many rows share one look at the weights.
const FEW_ROWS: usize = 32;

/// The weights of one layer as PyTorch keeps them: `w_ih` `[gates·hidden, input]`, `w_hh` `[gates·hidden, hidden]`,
/// biases `[gates·hidden]`, gates in the order i f g o (LSTMs), r z n (GRU) or u n (simplified GRU).
#[derive(Debug, Clone, Copy, Default)]
pub struct LayerWeights<'a, T> {
    pub w_ih: &'a [T],
    pub w_hh: &'a [T],
    pub b_ih: &'a [T],
    pub b_hh: &'a [T],
    /// Of the LSTM with peepholes, `[3·hidden]`, in the order i f o; else empty.
    pub peephole: &'a [T],
    /// Weight and bias `[hidden]` of the layer normalisation, if the layer has one.
    pub norm: Option<[&'a [T]; 2]>,
}

/// A layer ready to run.
#[derive(Debug, Clone)]
pub struct Layer {
    spec: LayerSpec,
    input: usize,
    /// `[input, gates·hidden]`, or empty ([`Layer::of_gates`]).
    w_ih: Matrix,
    /// `[hidden, gates·hidden]`; for the GRU only r and z, and n apart: its product is used on its own.
    w_hh: Matrix,
    w_hn: Matrix,
    bias: Vec<f32>,
    bias_hn: Vec<f32>,
    peephole: Vec<f32>,
    norm: Option<[Vec<f32>; 2]>,
    /// x and h are multiplied together: [`SMALL_NUMBERS`].
    is_joint: bool,
}

/// Space that [`Layer::forward`] works in; kept between calls.
#[derive(Debug, Default)]
pub struct LayerScratch {
    pub(crate) gates: Vec<f32>,
    hn: Vec<f32>,
}

/// h and c after every step, `[rows, hidden]` each (c only of the LSTMs).
#[derive(Debug, Default)]
pub struct Trace {
    pub h: Vec<f32>,
    pub c: Vec<f32>,
}

impl Layer {
    /// # Panics
    /// If the layer cannot be over such an input: see [`LayerSpec::check`].
    pub fn new(spec: &LayerSpec, input: usize, w: LayerWeights<'_, f32>) -> Layer {
        Layer::with_precision(spec, input, w, Precision::F32)
    }

    /// As [`Layer::new`], its matrices held in this precision.
    pub fn with_precision(spec: &LayerSpec, input: usize, w: LayerWeights<'_, f32>, precision: Precision) -> Layer {
        let gates = spec.cell.gates() * spec.hidden;
        let layer = Layer::of_gates(spec, input, w, precision);
        Layer { w_ih: Matrix::new(w.w_ih, [input, gates], precision), ..layer }
    }

    /// As [`Layer::with_precision`], for a layer that only ever takes [`Layer::steps`]: its input's product is made elsewhere.
    pub(crate) fn of_gates(spec: &LayerSpec, input: usize, w: LayerWeights<'_, f32>, precision: Precision) -> Layer {
        assert_eq!(spec.check(input), Ok(()));
        let (hidden, cell) = (spec.hidden, spec.cell);
        let (gates, shared) = (cell.gates() * hidden, cell.shared_gates() * hidden);
        let (bias, bias_hn) = fold_bias(cell, hidden, w.b_ih, w.b_hh);
        Layer {
            spec: spec.clone(),
            input,
            w_ih: Matrix::empty(),
            w_hh: Matrix::new(w.w_hh, [hidden, shared], precision),
            w_hn: if shared < gates {
                Matrix::new(&w.w_hh[shared * hidden..], [hidden, hidden], precision)
            } else {
                Matrix::empty()
            },
            bias,
            bias_hn,
            peephole: w.peephole.to_vec(),
            norm: w.norm.map(|norm| norm.map(<[f32]>::to_vec)),
            is_joint: precision == Precision::F32 && shared == gates && (input + hidden) * gates <= SMALL_NUMBERS,
        }
    }

    pub fn hidden(&self) -> usize {
        self.spec.hidden
    }

    /// Whether the gates of a step are made where they are used, and not those of a window's steps beforehand.
    pub fn is_joint(&self) -> bool {
        self.is_joint
    }

    /// Width of its input.
    pub fn input(&self) -> usize {
        self.input
    }

    pub fn cell(&self) -> Cell {
        self.spec.cell
    }

    /// Runs the layer over `x` `[rows, input]`. `h` and `c` `[streams, hidden]` (`c` only for the LSTMs) go from the
    /// state before the first step to the state after each stream's last; `y` becomes `[rows, hidden]`: each step's h,
    /// normalised and with `x` added where the layer is so.
    pub fn forward(
        &self,
        x: &[f32],
        sizes: &[usize],
        h: &mut [f32],
        c: &mut [f32],
        y: &mut Vec<f32>,
        scratch: &mut LayerScratch,
    ) {
        self.forward_traced(x, sizes, h, c, y, None, scratch);
    }

    /// As [`Layer::forward`]; `trace` becomes what the state was after every step.
    #[allow(clippy::too_many_arguments)]
    pub fn forward_traced(
        &self,
        x: &[f32],
        sizes: &[usize],
        h: &mut [f32],
        c: &mut [f32],
        y: &mut Vec<f32>,
        trace: Option<&mut Trace>,
        scratch: &mut LayerScratch,
    ) {
        if self.is_joint && (sizes.len() == 1 || sizes.last().is_some_and(|&last| last >= FEW_ROWS)) {
            self.run(Some(x), sizes, h, c, y, trace, scratch);
        } else {
            let rows: usize = sizes.iter().sum();
            let width = self.width();
            scratch.gates.resize(rows * width, 0.0);
            self.w_ih.product(Start::Row(&self.bias), rows, x, &mut scratch.gates, width);
            self.steps(sizes, h, c, y, trace, scratch);
        }
        if self.spec.residual {
            y.iter_mut().zip(x).for_each(|(y, &x)| *y += x);
        }
    }

    /// Streams that take a step together: one sweep over the weights of h, from the product to the activation.
    pub fn rows_together(&self) -> usize {
        self.w_hh.rows_of_a_sweep()
    }

    /// Numbers that the gates of a step are.
    pub fn width(&self) -> usize {
        self.spec.cell.gates() * self.spec.hidden
    }

    /// What the sums of the gates start with, `[width]`.
    pub fn bias(&self) -> &[f32] {
        &self.bias
    }

    /// As [`Layer::forward_traced`], where `scratch.gates` `[rows, width]` holds bias + W_ih x of every step already, and
    /// without the residual.
    pub(crate) fn steps(
        &self,
        sizes: &[usize],
        h: &mut [f32],
        c: &mut [f32],
        y: &mut Vec<f32>,
        trace: Option<&mut Trace>,
        scratch: &mut LayerScratch,
    ) {
        self.run(None, sizes, h, c, y, trace, scratch);
    }

    /// `x`: the input, where `scratch.gates` is not to hold its product: gates are made of x and h together then, and are in
    /// the cache when they become h.
    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        mut x: Option<&[f32]>,
        sizes: &[usize],
        h: &mut [f32],
        c: &mut [f32],
        y: &mut Vec<f32>,
        mut trace: Option<&mut Trace>,
        scratch: &mut LayerScratch,
    ) {
        if let Some(trace) = &mut trace {
            trace.h.clear();
            trace.c.clear();
        }
        let (cell, hidden, width) = (self.spec.cell, self.spec.hidden, self.width());
        let together = self.rows_together();
        y.clear();
        y.reserve(sizes.iter().sum::<usize>() * hidden);
        if x.is_some() && scratch.gates.len() < together * width {
            scratch.gates.resize(together * width, 0.0);
        }
        let mut gates = &mut scratch.gates[..];
        for &m in sizes {
            let h = &mut h[..m * hidden];
            let c = if cell.has_c() { &mut c[..m * hidden] } else { &mut [] };
            for first in (0..m).step_by(together) {
                let rows = together.min(m - first);
                let at = first * hidden..(first + rows) * hidden;
                let (h, c) = (&mut h[at.clone()], c.get_mut(at).unwrap_or_default());
                match &mut x {
                    Some(x) => {
                        let of_rows = x.split_off(..rows * self.input).unwrap_or_default();
                        self.step(Some(of_rows), rows, &mut gates[..rows * width], h, c, &mut scratch.hn);
                    }
                    None => {
                        let (of_rows, rest) = gates.split_at_mut(rows * width);
                        gates = rest;
                        self.step(None, rows, of_rows, h, c, &mut scratch.hn);
                    }
                }
            }
            y.extend_from_slice(h);
            if let Some(trace) = &mut trace {
                trace.h.extend_from_slice(h);
                trace.c.extend_from_slice(c);
            }
        }
        if let Some([weight, bias]) = &self.norm {
            (kernel::active().norm_rows)(weight, bias, y);
        }
    }

    /// One step of some streams: product with h, and that with x where the gates do not hold it, then the cell's elementwise part.
    fn step(&self, x: Option<&[f32]>, rows: usize, gates: &mut [f32], h: &mut [f32], c: &mut [f32], hn: &mut Vec<f32>) {
        let (hidden, width, kernels) = (self.spec.hidden, self.width(), kernel::active());
        match x {
            Some(x) => self.w_ih.product_and(Start::Row(&self.bias), rows, x, (&self.w_hh, h), gates, width),
            None => self.w_hh.product(Start::Old, rows, h, gates, width),
        }
        match self.spec.cell {
            Cell::Lstm => (kernels.lstm_step)(hidden, gates, c, h),
            Cell::LstmPeephole => (kernels.peephole_rows)(hidden, &self.peephole, gates, c, h),
            Cell::GruSimplified => (kernels.simplified_rows)(hidden, gates, h),
            Cell::Gru => {
                hn.resize(self.rows_together() * hidden, 0.0);
                let hn = &mut hn[..rows * hidden];
                self.w_hn.product(Start::Row(&self.bias_hn), rows, h, hn, hidden);
                (kernels.gru_step)(hidden, gates, hn, h);
            }
            Cell::Rnn => {
                match self.spec.nonlinearity {
                    Nonlinearity::Tanh => (kernels.tanh_all)(gates),
                    Nonlinearity::Relu => gates.iter_mut().for_each(|x| *x = x.max(0.0)),
                }
                h.copy_from_slice(gates);
            }
        }
    }
}

/// The biases as the sums start with them: all that can be added up beforehand, and the GRU's b_hn apart.
pub(super) fn fold_bias<T: super::real::Real>(cell: Cell, hidden: usize, b_ih: &[T], b_hh: &[T]) -> (Vec<T>, Vec<T>) {
    let mut bias: Vec<T> = b_ih.iter().zip(b_hh).map(|(&a, &b)| a + b).collect();
    let mut bias_hn = Vec::new();
    if cell == Cell::Gru {
        bias[2 * hidden..].copy_from_slice(&b_ih[2 * hidden..]);
        bias_hn.extend_from_slice(&b_hh[2 * hidden..]);
    }
    (bias, bias_hn)
}
