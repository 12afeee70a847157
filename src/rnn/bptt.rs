//! One recurrent layer for training: forwards with everything kept that the way back needs, then backpropagation
//! through time over the chunk. Layout of the rows as in [`super::layer`].
//!
//! Generic over the number type: training runs in f32, gradients are checked in f64.

use super::kernel::Packed;
use super::layer::{LayerWeights, fold_bias, repeat};
use super::real::Real;
use super::{Cell, Nonlinearity};

/// A layer's weights laid out for both ways; made once per optimiser step, shared by all threads.
#[derive(Debug)]
pub struct TrainLayer<T> {
    pub cell: Cell,
    pub nonlinearity: Nonlinearity,
    pub input: usize,
    pub hidden: usize,
    w_ih: Packed<T>,
    w_hh: Packed<T>,
    w_hn: Packed<T>,
    back_ih: Packed<T>,
    back_hh: Packed<T>,
    bias: Vec<T>,
    bias_hn: Vec<T>,
}

/// What a forward pass leaves for the way back.
#[derive(Debug, Default)]
pub struct Tape<T> {
    /// Outputs h, `[rows, hidden]`.
    pub h: Vec<T>,
    gates: Vec<T>,
    c: Vec<T>,
    h_prev: Vec<T>,
    c_prev: Vec<T>,
    hn: Vec<T>,
}

/// Gradients of one layer's weights, in the shapes of [`LayerWeights`]; added to.
#[derive(Debug)]
pub struct LayerGrads<'a, T> {
    pub w_ih: &'a mut [T],
    pub w_hh: &'a mut [T],
    pub b_ih: &'a mut [T],
    pub b_hh: &'a mut [T],
}

/// Space that [`TrainLayer::backward`] works in; kept between calls.
#[derive(Debug)]
pub struct BackScratch<T> {
    dgates: Vec<T>,
    dgates_h: Vec<T>,
    dh: Vec<T>,
    dc: Vec<T>,
    packed: Packed<T>,
}

impl<T: Real> Default for BackScratch<T> {
    fn default() -> Self {
        let none = Vec::new;
        BackScratch { dgates: none(), dgates_h: none(), dh: none(), dc: none(), packed: Packed::empty() }
    }
}

impl<T: Real> TrainLayer<T> {
    pub fn new(cell: Cell, nonlinearity: Nonlinearity, input: usize, hidden: usize) -> TrainLayer<T> {
        let empty = Packed::empty;
        TrainLayer {
            cell,
            nonlinearity,
            input,
            hidden,
            w_ih: empty(),
            w_hh: empty(),
            w_hn: empty(),
            back_ih: empty(),
            back_hh: empty(),
            bias: Vec::new(),
            bias_hn: Vec::new(),
        }
    }

    /// Takes the weights as they are now.
    pub fn set(&mut self, w: LayerWeights<'_, T>) {
        let (input, hidden, gates) = (self.input, self.hidden, self.cell.gates() * self.hidden);
        let shared = if self.cell == Cell::Gru { 2 * hidden } else { gates };
        self.w_ih.pack(w.w_ih, (1, input), input, gates);
        self.w_hh.pack(w.w_hh, (1, hidden), hidden, shared);
        if shared < gates {
            self.w_hn.pack(&w.w_hh[shared * hidden..], (1, hidden), hidden, hidden);
        }
        self.back_ih.pack(w.w_ih, (input, 1), gates, input);
        self.back_hh.pack(w.w_hh, (hidden, 1), gates, hidden);
        (self.bias, self.bias_hn) = fold_bias(self.cell, hidden, w.b_ih, w.b_hh);
    }

    /// As [`super::layer::Layer::forward`], filling `tape`. `reset[row]`: the stream's state is zero before that row.
    pub fn forward(
        &self,
        x: &[T],
        sizes: &[usize],
        reset: Option<&[bool]>,
        h: &mut [T],
        c: &mut [T],
        tape: &mut Tape<T>,
    ) {
        let rows: usize = sizes.iter().sum();
        let (hidden, width) = (self.hidden, self.cell.gates() * self.hidden);
        repeat(&mut tape.gates, &self.bias, rows);
        T::gemm(rows, x, (self.input, 1), &self.w_ih, &mut tape.gates, width);
        for kept in [&mut tape.h, &mut tape.c, &mut tape.h_prev, &mut tape.c_prev, &mut tape.hn] {
            kept.clear();
        }
        let mut row = 0;
        for &m in sizes {
            let gates = &mut tape.gates[row * width..(row + m) * width];
            let h = &mut h[..m * hidden];
            for r in (0..m).filter(|r| reset.is_some_and(|reset| reset[row + r])) {
                h[r * hidden..(r + 1) * hidden].fill(T::zero());
                if self.cell == Cell::Lstm {
                    c[r * hidden..(r + 1) * hidden].fill(T::zero());
                }
            }
            tape.h_prev.extend_from_slice(h);
            T::gemm(m, h, (hidden, 1), &self.w_hh, gates, width);
            match self.cell {
                Cell::Lstm => {
                    let c = &mut c[..m * hidden];
                    tape.c_prev.extend_from_slice(c);
                    T::lstm_rows(hidden, gates, c, h);
                    tape.c.extend_from_slice(c);
                }
                Cell::Gru => {
                    let from = tape.hn.len();
                    for _ in 0..m {
                        tape.hn.extend_from_slice(&self.bias_hn);
                    }
                    T::gemm(m, h, (hidden, 1), &self.w_hn, &mut tape.hn[from..], hidden);
                    T::gru_rows(hidden, gates, &tape.hn[from..], h);
                }
                Cell::Rnn => {
                    match self.nonlinearity {
                        Nonlinearity::Tanh => T::tanh_all(gates),
                        Nonlinearity::Relu => gates.iter_mut().for_each(|x| *x = x.max(T::zero())),
                    }
                    h.copy_from_slice(gates);
                }
            }
            tape.h.extend_from_slice(h);
            row += m;
        }
    }

    /// The way back. `dy` `[rows, hidden]` is the gradient at the outputs; what flows back in time is added to it, so
    /// that it ends as the whole gradient at each h_t. Adds to `grads`; sets `dx` `[rows, input]` if asked for.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        x: &[T],
        sizes: &[usize],
        reset: Option<&[bool]>,
        tape: &Tape<T>,
        dy: &mut [T],
        dx: Option<&mut Vec<T>>,
        grads: LayerGrads<'_, T>,
        s: &mut BackScratch<T>,
    ) {
        let rows: usize = sizes.iter().sum();
        let streams = sizes.first().copied().unwrap_or(0);
        let (hidden, width, input) = (self.hidden, self.cell.gates() * self.hidden, self.input);
        s.dgates.resize(rows * width, T::zero());
        if self.cell == Cell::Gru {
            s.dgates_h.resize(rows * width, T::zero());
        }
        for d in [&mut s.dh, &mut s.dc] {
            d.clear();
            d.resize(streams * hidden, T::zero());
        }
        let mut row = rows;
        for &m in sizes.iter().rev() {
            row -= m;
            let (at, at_gates) = (row * hidden..(row + m) * hidden, row * width..(row + m) * width);
            let (dh, dc) = (&mut s.dh[..m * hidden], &mut s.dc[..m * hidden]);
            let dy = &mut dy[at.clone()];
            for (d, dh) in dy.iter_mut().zip(dh.iter_mut()) {
                *d += *dh;
                *dh = *d;
            }
            let gates = &tape.gates[at_gates.clone()];
            let dgates = &mut s.dgates[at_gates.clone()];
            let back = match self.cell {
                Cell::Lstm => {
                    T::lstm_back(hidden, gates, &tape.c[at.clone()], &tape.c_prev[at], dh, dc, dgates);
                    dh.fill(T::zero());
                    dgates
                }
                Cell::Gru => {
                    let dgates_h = &mut s.dgates_h[at_gates];
                    T::gru_back(hidden, gates, &tape.hn[at.clone()], &tape.h_prev[at], dh, dgates, dgates_h);
                    dgates_h
                }
                Cell::Rnn => {
                    for ((dg, &d), &h) in dgates.iter_mut().zip(dh.iter()).zip(gates) {
                        *dg = match self.nonlinearity {
                            Nonlinearity::Tanh => d * (T::one() - h * h),
                            Nonlinearity::Relu if h > T::zero() => d,
                            Nonlinearity::Relu => T::zero(),
                        };
                    }
                    dh.fill(T::zero());
                    dgates
                }
            };
            T::gemm(m, back, (width, 1), &self.back_hh, dh, hidden);
            for r in (0..m).filter(|r| reset.is_some_and(|reset| reset[row + r])) {
                dh[r * hidden..(r + 1) * hidden].fill(T::zero());
                dc[r * hidden..(r + 1) * hidden].fill(T::zero());
            }
        }
        let dgates_h = if self.cell == Cell::Gru { &s.dgates_h } else { &s.dgates };
        add_outer(rows, &s.dgates, width, x, input, grads.w_ih, &mut s.packed);
        add_outer(rows, dgates_h, width, &tape.h_prev, hidden, grads.w_hh, &mut s.packed);
        add_columns(&s.dgates[..rows * width], grads.b_ih);
        add_columns(&dgates_h[..rows * width], grads.b_hh);
        if let Some(dx) = dx {
            dx.clear();
            dx.resize(rows * input, T::zero());
            T::gemm(rows, &s.dgates, (width, 1), &self.back_ih, dx, input);
        }
    }
}

/// `out[p, q] += Σ_row a[row, p] b[row, q]`: the gradient of a weight matrix.
pub fn add_outer<T: Real>(rows: usize, a: &[T], p: usize, b: &[T], q: usize, out: &mut [T], packed: &mut Packed<T>) {
    packed.pack(b, (q, 1), rows, q);
    T::gemm(p, a, (1, p), packed, out, q);
}

/// `out[q] += Σ_row a[row, q]`: the gradient of a bias.
pub fn add_columns<T: Real>(a: &[T], out: &mut [T]) {
    for row in a.chunks_exact(out.len()) {
        for (o, &x) in out.iter_mut().zip(row) {
            *o += x;
        }
    }
}
