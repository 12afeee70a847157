//! Training through windows that look ahead ([`crate::rnn::ahead`]): a layer's pass over them, and the way back.
//!
//! The main rows carry the state on. The rows ahead of a window go on from the state after its block, without being
//! carried; backwards each window begins from zero. So the network learns under what it will see when it serves.

use crate::model::params::{NetShape, Params};
use crate::rnn::ahead::{Windows, gather, join};
use crate::rnn::bptt::{BackScratch, Tape, TrainLayer};
use crate::rnn::real::Real;

/// A layer over windows.
#[derive(Debug)]
pub struct AheadLayer<'a, T> {
    /// Its place in the stack.
    pub k: usize,
    pub forwards: &'a TrainLayer<T>,
    /// The direction that reads backwards.
    pub backwards: Option<&'a TrainLayer<T>>,
    /// A layer above reads backwards: rows ahead are handed up, too.
    pub hands_up: bool,
}

/// Rows as the layers' passes see them.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    pub windows: &'a Windows,
    pub sizes: &'a [usize],
    pub reset: Option<&'a [bool]>,
}

/// What a pass leaves for the way back, beside the main rows' [`Tape`].
#[derive(Debug, Default)]
pub struct AheadTape<T> {
    ahead: Tape<T>,
    back: Tape<T>,
    /// The input in the order in which it is read backwards.
    x: Vec<T>,
    y: Vec<T>,
    forwards: Vec<T>,
    dback: Vec<T>,
    dx: Vec<T>,
    after_h: Vec<T>,
    after_c: Vec<T>,
}

impl<T: Real + Default> AheadTape<T> {
    /// From `x` `[all rows, input]` to `y`: `[all rows, output]` if the layer hands up rows ahead, else `[main, output]`.
    /// `past` is what a residual layer adds, in the shape of `x`; h and c go from before the main rows to after them.
    #[allow(clippy::too_many_arguments)]
    pub fn forward(
        &mut self,
        layer: &AheadLayer<'_, T>,
        rows: Rows<'_>,
        x: &[T],
        past: &[T],
        [h, c]: &mut [Vec<T>; 2],
        tape: &mut Tape<T>,
        y: &mut Vec<T>,
    ) {
        let (windows, split) = (rows.windows, rows.windows.main * layer.forwards.input);
        let hidden = layer.forwards.spec.hidden;
        layer.forwards.forward(&x[..split], rows.sizes, rows.reset, h, c, tape);
        layer.forwards.output(tape, past, &mut self.forwards);
        if layer.hands_up && !windows.ahead_rows.is_empty() {
            gather(&tape.h, hidden, &windows.ahead_after, &mut self.after_h);
            self.after_c.clear();
            if layer.forwards.spec.cell.has_c() {
                gather(&tape.c, hidden, &windows.ahead_after, &mut self.after_c);
            }
            let (h, c) = (&mut self.after_h, &mut self.after_c);
            layer.forwards.forward(&x[split..], &windows.ahead_sizes, None, h, c, &mut self.ahead);
            layer.forwards.output(&self.ahead, past.get(split..).unwrap_or_default(), &mut self.y);
            self.forwards.extend_from_slice(&self.y);
        }
        let Some(backwards) = layer.backwards else {
            std::mem::swap(y, &mut self.forwards);
            return;
        };
        gather(x, backwards.input, &windows.back_rows, &mut self.x);
        let count = windows.back_sizes.first().copied().unwrap_or(0);
        let (mut h, mut c) = (vec![T::zero(); count * hidden], vec![T::zero(); count * hidden]);
        backwards.forward(&self.x, &windows.back_sizes, None, &mut h, &mut c, &mut self.back);
        backwards.output(&self.back, &[], &mut self.y);
        join(&self.forwards, &self.y, hidden, &windows.back_rows, y);
        y.iter_mut().zip(past).for_each(|(y, &x)| *y += x);
    }

    /// The way back. `dy`, in the shape of `y`, becomes the whole gradient at every main row's h. Sets `dx`
    /// `[all rows, input]`, as [`TrainLayer::backward`] does, and adds to the gradients of the layer's tensors.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &mut self,
        layer: &AheadLayer<'_, T>,
        rows: Rows<'_>,
        x: &[T],
        tape: &Tape<T>,
        dy: &mut Vec<T>,
        dx: &mut Vec<T>,
        (shape, grads): (&NetShape, &mut Params<T>),
        s: &mut BackScratch<T>,
    ) {
        let (windows, input) = (rows.windows, layer.forwards.input);
        let (hidden, split, main) = (layer.forwards.spec.hidden, windows.main * input, windows.main);
        if layer.backwards.is_some() {
            self.part(dy, hidden, &windows.back_rows);
        }
        let goes_on = layer.hands_up && !windows.ahead_rows.is_empty();
        if goes_on {
            let (dahead, into) = (&mut dy[main * hidden..], grads.layer_mut(shape.layer_at(layer.k)));
            layer.forwards.backward(
                &x[split..],
                &windows.ahead_sizes,
                None,
                &self.ahead,
                dahead,
                Some(&mut self.dx),
                into,
                s,
            );
            for (after, start) in [&mut self.after_h, &mut self.after_c].into_iter().zip(s.start()) {
                after.clear();
                after.resize(main * hidden, T::zero());
                for (d, &row) in start.chunks_exact(hidden).zip(&windows.ahead_after) {
                    after[row * hidden..(row + 1) * hidden].copy_from_slice(d);
                }
            }
        }
        dy.truncate(main * hidden);
        let after = goes_on.then_some([&self.after_h[..], &self.after_c[..]]);
        let into = grads.layer_mut(shape.layer_at(layer.k));
        let (sizes, reset) = (rows.sizes, rows.reset);
        layer.forwards.backward_from(&x[..split], sizes, reset, tape, dy, after, Some(dx), into, s);
        if goes_on {
            dx.extend_from_slice(&self.dx);
        }
        dx.resize(windows.rows() * input, T::zero());
        if let (Some(backwards), Some(at)) = (layer.backwards, shape.reverse_at(layer.k)) {
            let (dback, into) = (&mut self.dback, grads.layer_mut(at));
            backwards.backward(&self.x, &windows.back_sizes, None, &self.back, dback, Some(&mut self.dx), into, s);
            for (d, &row) in self.dx.chunks_exact(input).zip(&windows.back_rows) {
                dx[row * input..(row + 1) * input].iter_mut().zip(d).for_each(|(dx, &d)| *dx += d);
            }
        }
    }

    /// The gradient at both directions' output, parted: `dy` keeps that of the one that reads forwards.
    fn part(&mut self, dy: &mut Vec<T>, hidden: usize, back_rows: &[usize]) {
        self.dback.clear();
        for &row in back_rows {
            match dy.get((2 * row + 1) * hidden..2 * (row + 1) * hidden) {
                Some(d) => self.dback.extend_from_slice(d),
                // Its output is not looked at.
                None => self.dback.resize(self.dback.len() + hidden, T::zero()),
            }
        }
        for row in 0..dy.len() / (2 * hidden) {
            dy.copy_within(2 * row * hidden..(2 * row + 1) * hidden, row * hidden);
        }
        dy.truncate(dy.len() / 2);
    }
}
