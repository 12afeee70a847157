//! One recurrent layer for training: forwards with everything kept that the way back needs, then backpropagation
//! through time over the chunk. Layout of the rows as in [`super::layer`].
//!
//! Generic over the number type: training runs in f32, gradients are checked in f64.

use super::kernel::Packed;
use super::layer::{LayerWeights, fold_bias};
use super::real::Real;
use super::{Cell, LayerSpec, Nonlinearity};

/// A layer's weights laid out for both ways; made once per optimiser step, shared by all threads.
#[derive(Debug)]
pub struct TrainLayer<T> {
    pub spec: LayerSpec,
    pub input: usize,
    w_ih: Packed<T>,
    w_hh: Packed<T>,
    w_hn: Packed<T>,
    back_ih: Packed<T>,
    back_hh: Packed<T>,
    bias: Vec<T>,
    bias_hn: Vec<T>,
    peephole: Vec<T>,
    norm: Option<[Vec<T>; 2]>,
}

/// What a forward pass leaves for the way back.
#[derive(Debug, Default)]
pub struct Tape<T> {
    /// h of every step, `[rows, hidden]`; what the layer hands up is [`TrainLayer::output`].
    pub h: Vec<T>,
    gates: Vec<T>,
    pub(crate) c: Vec<T>,
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
    pub peephole: &'a mut [T],
    pub norm: Option<[&'a mut [T]; 2]>,
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

impl<T: Real> BackScratch<T> {
    /// After [`TrainLayer::backward`]: the gradients at h and c before the first step, `[streams, hidden]` each (at c only
    /// of the LSTMs).
    pub fn start(&self) -> [&[T]; 2] {
        [&self.dh, &self.dc]
    }
}

impl<T: Real> TrainLayer<T> {
    /// # Panics
    /// If the layer cannot be over such an input: see [`LayerSpec::check`].
    pub fn new(spec: &LayerSpec, input: usize) -> TrainLayer<T> {
        assert_eq!(spec.check(input), Ok(()));
        let empty = Packed::empty;
        TrainLayer {
            spec: spec.clone(),
            input,
            w_ih: empty(),
            w_hh: empty(),
            w_hn: empty(),
            back_ih: empty(),
            back_hh: empty(),
            bias: Vec::new(),
            bias_hn: Vec::new(),
            peephole: Vec::new(),
            norm: None,
        }
    }

    /// Takes the weights as they are now.
    pub fn set(&mut self, w: LayerWeights<'_, T>) {
        let (input, hidden, cell) = (self.input, self.spec.hidden, self.spec.cell);
        let (gates, shared) = (cell.gates() * hidden, cell.shared_gates() * hidden);
        self.w_ih.pack(w.w_ih, (1, input), input, gates);
        self.w_hh.pack(w.w_hh, (1, hidden), hidden, shared);
        if shared < gates {
            self.w_hn.pack(&w.w_hh[shared * hidden..], (1, hidden), hidden, hidden);
        }
        self.back_ih.pack(w.w_ih, (input, 1), gates, input);
        self.back_hh.pack(w.w_hh, (hidden, 1), gates, hidden);
        (self.bias, self.bias_hn) = fold_bias(cell, hidden, w.b_ih, w.b_hh);
        self.peephole = w.peephole.to_vec();
        self.norm = w.norm.map(|norm| norm.map(<[T]>::to_vec));
    }

    /// As [`super::layer::Layer::forward`] up to h, filling `tape`. `reset[row]`: the stream's state is zero before that row.
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
        let (cell, hidden) = (self.spec.cell, self.spec.hidden);
        let width = cell.gates() * hidden;
        tape.gates.resize(rows * width, T::zero());
        T::product(&self.bias, rows, x, &self.w_ih, &mut tape.gates);
        for kept in [&mut tape.h, &mut tape.c, &mut tape.h_prev, &mut tape.c_prev, &mut tape.hn] {
            kept.clear();
        }
        let mut row = 0;
        for &m in sizes {
            let gates = &mut tape.gates[row * width..(row + m) * width];
            let h = &mut h[..m * hidden];
            for r in (0..m).filter(|r| reset.is_some_and(|reset| reset[row + r])) {
                h[r * hidden..(r + 1) * hidden].fill(T::zero());
                if cell.has_c() {
                    c[r * hidden..(r + 1) * hidden].fill(T::zero());
                }
            }
            tape.h_prev.extend_from_slice(h);
            T::gemm(m, h, (hidden, 1), &self.w_hh, gates, width);
            match cell {
                Cell::Lstm | Cell::LstmPeephole => {
                    let c = &mut c[..m * hidden];
                    tape.c_prev.extend_from_slice(c);
                    if cell == Cell::Lstm {
                        T::lstm_rows(hidden, gates, c, h);
                    } else {
                        T::peephole_rows(hidden, &self.peephole, gates, c, h);
                    }
                    tape.c.extend_from_slice(c);
                }
                Cell::GruSimplified => T::simplified_rows(hidden, gates, h),
                Cell::Gru => {
                    let from = tape.hn.len();
                    tape.hn.resize(from + m * hidden, T::zero());
                    T::product(&self.bias_hn, m, h, &self.w_hn, &mut tape.hn[from..]);
                    T::gru_rows(hidden, gates, &tape.hn[from..], h);
                }
                Cell::Rnn => {
                    match self.spec.nonlinearity {
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

    /// What the layer hands up: h, normalised and with the input added where the layer is so. `input` is what came from
    /// below before dropout: what is added is not dropped.
    pub fn output(&self, tape: &Tape<T>, input: &[T], y: &mut Vec<T>) {
        y.clear();
        y.extend_from_slice(&tape.h);
        if let Some([weight, bias]) = &self.norm {
            T::norm_rows(weight, bias, y);
        }
        if self.spec.residual {
            y.iter_mut().zip(input).for_each(|(y, &x)| *y += x);
        }
    }

    /// The way back. `dy` `[rows, hidden]` is the gradient at the outputs; it ends as the whole gradient at each h_t, with
    /// what flows back in time. Adds to `grads`; sets `dx` `[rows, input]` if asked for: the gradient at the input by way
    /// of h. What a residual layer passes by h is the gradient at its outputs as it was, and left to the caller to add.
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
        self.backward_from(x, sizes, reset, tape, dy, None, dx, grads, s);
    }

    /// As [`TrainLayer::backward`], where others went on from the state after a step: `after` has the gradients at h and c
    /// that come from them, `[rows, hidden]` each.
    #[allow(clippy::too_many_arguments)]
    pub fn backward_from(
        &self,
        x: &[T],
        sizes: &[usize],
        reset: Option<&[bool]>,
        tape: &Tape<T>,
        dy: &mut [T],
        after: Option<[&[T]; 2]>,
        dx: Option<&mut Vec<T>>,
        grads: LayerGrads<'_, T>,
        s: &mut BackScratch<T>,
    ) {
        let rows: usize = sizes.iter().sum();
        let streams = sizes.first().copied().unwrap_or(0);
        let (cell, hidden, input) = (self.spec.cell, self.spec.hidden, self.input);
        let width = cell.gates() * hidden;
        if let (Some([weight, _]), Some([dweight, dbias])) = (&self.norm, grads.norm) {
            T::norm_back(&tape.h, weight, dy, dweight, dbias);
        }
        s.dgates.resize(rows * width, T::zero());
        if cell == Cell::Gru {
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
            if let Some([after_h, after_c]) = after {
                dy.iter_mut().zip(&after_h[at.clone()]).for_each(|(d, &more)| *d += more);
                dc.iter_mut().zip(&after_c[at.clone()]).for_each(|(d, &more)| *d += more);
            }
            for (d, dh) in dy.iter_mut().zip(dh.iter_mut()) {
                *d += *dh;
                *dh = *d;
            }
            let gates = &tape.gates[at_gates.clone()];
            let dgates = &mut s.dgates[at_gates.clone()];
            let back = match cell {
                Cell::Lstm => {
                    T::lstm_back(hidden, gates, &tape.c[at.clone()], &tape.c_prev[at], dh, dc, dgates);
                    dh.fill(T::zero());
                    dgates
                }
                Cell::LstmPeephole => {
                    let (c, c_prev) = (&tape.c[at.clone()], &tape.c_prev[at]);
                    T::peephole_back(hidden, &self.peephole, gates, c, c_prev, dh, dc, dgates);
                    dh.fill(T::zero());
                    dgates
                }
                Cell::GruSimplified => {
                    T::simplified_back(hidden, gates, &tape.h_prev[at], dh, dgates);
                    dgates
                }
                Cell::Gru => {
                    let dgates_h = &mut s.dgates_h[at_gates];
                    T::gru_back(hidden, gates, &tape.hn[at.clone()], &tape.h_prev[at], dh, dgates, dgates_h);
                    dgates_h
                }
                Cell::Rnn => {
                    for ((dg, &d), &h) in dgates.iter_mut().zip(dh.iter()).zip(gates) {
                        *dg = match self.spec.nonlinearity {
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
        let dgates_h = if cell == Cell::Gru { &s.dgates_h } else { &s.dgates };
        add_outer(rows, &s.dgates, width, x, input, grads.w_ih, &mut s.packed);
        add_outer(rows, dgates_h, width, &tape.h_prev, hidden, grads.w_hh, &mut s.packed);
        add_columns(&s.dgates[..rows * width], grads.b_ih);
        add_columns(&dgates_h[..rows * width], grads.b_hh);
        if cell == Cell::LstmPeephole {
            add_peephole(hidden, &s.dgates[..rows * width], tape, grads.peephole);
        }
        if let Some(dx) = dx {
            dx.clear();
            dx.resize(rows * input, T::zero());
            T::gemm(rows, &s.dgates, (width, 1), &self.back_ih, dx, input);
        }
    }
}

/// The gradient of the peepholes: what came to the sums of i, f and o, times the c that each saw.
fn add_peephole<T: Real>(hidden: usize, dgates: &[T], tape: &Tape<T>, out: &mut [T]) {
    for (row, dgates) in dgates.chunks_exact(4 * hidden).enumerate() {
        let at = row * hidden..(row + 1) * hidden;
        let (c, c_prev) = (&tape.c[at.clone()], &tape.c_prev[at]);
        let seen = [(0, c_prev), (1, c_prev), (3, c)];
        for ((gate, c), out) in seen.into_iter().zip(out.chunks_exact_mut(hidden)) {
            for ((o, &d), &c) in out.iter_mut().zip(&dgates[gate * hidden..]).zip(c) {
                *o += d * c;
            }
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
