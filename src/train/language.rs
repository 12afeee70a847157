//! The loss of a language model: the cross-entropy of the next unit, with a full or an adaptive softmax
//! ([`crate::model::adaptive`]), and the way back to the layers' output; or where steps are notes the binary cross-entropy
//! of all pitches of the next step ([`crate::model::notes`]).
//!
//! A tail is computed for the rows whose next unit is in its cluster, and for no others.

use super::network::{NO_TARGET, ShardLoss, TrainBatch, TrainNet};
use crate::encode::Chord;
use crate::model::adaptive::UnitAt;
use crate::model::notes::surprise;
use crate::model::params::{NetShape, Params};
use crate::rnn::bptt::{add_columns, add_outer};
use crate::rnn::kernel::Packed;
use crate::rnn::real::Real;

/// The two matrices of a cluster, laid out for both ways.
#[derive(Debug)]
pub struct TrainTail<T> {
    cluster: usize,
    narrow: usize,
    units: usize,
    down: Packed<T>,
    down_back: Packed<T>,
    up: Packed<T>,
    up_back: Packed<T>,
}

impl<T: Real> TrainTail<T> {
    /// The tails of a network, still without weights.
    pub fn all(shape: &NetShape) -> Vec<TrainTail<T>> {
        let Some(softmax) = &shape.language else { return Vec::new() };
        let tail = |cluster| TrainTail {
            cluster,
            narrow: softmax.narrow(cluster, shape.top()),
            units: softmax.cluster(cluster).len(),
            down: Packed::empty(),
            down_back: Packed::empty(),
            up: Packed::empty(),
            up_back: Packed::empty(),
        };
        (0..softmax.clusters()).map(tail).collect()
    }

    /// Takes the weights as they are now.
    pub fn set(&mut self, shape: &NetShape, params: &Params<T>) {
        let (top, narrow, units, at) = (shape.top(), self.narrow, self.units, shape.tail_at(self.cluster));
        self.down.pack(params.slice(at), (1, top), top, narrow);
        self.down_back.pack(params.slice(at), (top, 1), narrow, top);
        self.up.pack(params.slice(at + 1), (1, narrow), narrow, units);
        self.up_back.pack(params.slice(at + 1), (narrow, 1), units, narrow);
    }
}

/// Working space of one shard.
#[derive(Debug)]
pub struct NextUnit<T> {
    /// Rows that have a next unit; those from the batch's rows on are beginnings of streams.
    rows: Vec<usize>,
    /// Units and weights of these rows.
    units: Vec<u32>,
    chords: Vec<Chord>,
    weights: Vec<f64>,
    /// Classes of the streams that begin.
    classes: Vec<usize>,
    /// What the head reads at these rows, `[rows, top]`, and the gradient at it.
    x: Vec<T>,
    dx: Vec<T>,
    logits: Vec<T>,
    tail_x: Vec<T>,
    tail_dx: Vec<T>,
    narrow: Vec<T>,
    dnarrow: Vec<T>,
    packed: Packed<T>,
}

impl<T: Real> Default for NextUnit<T> {
    fn default() -> Self {
        let none = Vec::new;
        NextUnit {
            rows: Vec::new(),
            units: Vec::new(),
            chords: Vec::new(),
            weights: Vec::new(),
            classes: Vec::new(),
            x: none(),
            dx: none(),
            logits: none(),
            tail_x: none(),
            tail_dx: none(),
            narrow: none(),
            dnarrow: none(),
            packed: Packed::empty(),
        }
    }
}

impl<T: Real> NextUnit<T> {
    /// The loss of a chunk whose layers put out `y` `[rows, top]`. Adds to the gradients of head, tails and start; `dy`
    /// becomes the gradient at `y`. What is right is not counted.
    #[allow(clippy::too_many_arguments)]
    pub fn run(
        &mut self,
        net: &TrainNet<T>,
        params: &Params<T>,
        batch: &TrainBatch,
        y: &[T],
        total_weight: f64,
        grads: &mut Params<T>,
        dy: &mut Vec<T>,
    ) -> ShardLoss {
        let shape = &net.shape;
        let (top, classes, head) = (shape.top(), shape.classes, shape.head_at());
        dy.clear();
        dy.resize(y.len(), T::zero());
        self.gather(batch, y, params.slice(shape.start_at()), shape, total_weight);
        let count = self.rows.len();
        let mut result = ShardLoss { loss: 0.0, rows: count, correct: 0 };
        if count == 0 {
            return result;
        }
        self.logits.resize(count * classes, T::zero());
        T::product(params.slice(head + 1), count, &self.x, &net.head, &mut self.logits);
        if let Some(softmax) = &shape.language {
            let wanted = self.units.iter().zip(&self.weights).map(|(&unit, &weight)| (softmax.head_row(unit), weight));
            result.loss += entropy_rows(classes, &mut self.logits, wanted);
        } else if let Some(lowest) = shape.written.notes {
            let wanted = self.chords.iter().zip(&self.weights).map(|(&chord, &weight)| (chord, weight));
            result.loss += note_rows(classes, &mut self.logits, lowest, wanted);
        }
        add_outer(count, &self.logits, classes, &self.x, top, grads.slice_mut(head), &mut self.packed);
        add_columns(&self.logits, grads.slice_mut(head + 1));
        self.dx.clear();
        self.dx.resize(count * top, T::zero());
        T::gemm(count, &self.logits, (classes, 1), &net.head_back, &mut self.dx, top);
        for tail in &net.tails {
            result.loss += self.tail(tail, shape, grads);
        }
        let rows = y.len() / top;
        for (&row, dx) in self.rows.iter().zip(self.dx.chunks_exact(top)) {
            if row < rows {
                dy[row * top..(row + 1) * top].copy_from_slice(dx);
            } else {
                let first = self.classes[row - rows] * top;
                grads.slice_mut(shape.start_at())[first..first + top].iter_mut().zip(dx).for_each(|(g, &d)| *g += d);
            }
        }
        result
    }

    /// The rows that have a next unit.
    fn gather(&mut self, batch: &TrainBatch, y: &[T], start: &[T], shape: &NetShape, total_weight: f64) {
        let (top, dense) = (shape.top(), shape.dense);
        self.rows.clear();
        self.units.clear();
        self.chords.clear();
        self.classes.clear();
        // Where a stream begins its state is zero: streams that begin are in the order of these rows.
        let begins = batch.reset.iter().enumerate().filter(|(_, begins)| **begins).map(|(row, _)| row);
        let class = |row: usize| shape.written.class_of(&batch.features.dense[row * dense..(row + 1) * dense]);
        self.classes.extend(begins.map(|row| if shape.written.classes == 0 { 0 } else { class(row) }));
        self.weights.clear();
        self.x.clear();
        let rows = y.len() / top;
        for (row, (&unit, &weight)) in batch.targets.iter().zip(&batch.weights).enumerate() {
            if unit != NO_TARGET {
                self.rows.push(row);
                self.units.push(unit);
                self.weights.push(f64::from(weight) / total_weight);
                self.chords.extend(batch.chords.get(row));
                let (from, first) = match row.checked_sub(rows) {
                    None => (y, row * top),
                    Some(k) => (start, self.classes[k] * top),
                };
                self.x.extend_from_slice(&from[first..first + top]);
            }
        }
    }

    /// The part of the loss that is within a cluster.
    fn tail(&mut self, tail: &TrainTail<T>, shape: &NetShape, grads: &mut Params<T>) -> f64 {
        let Some(softmax) = &shape.language else { return 0.0 };
        let (top, narrow, units, at) = (shape.top(), tail.narrow, tail.units, shape.tail_at(tail.cluster));
        let within = |unit: u32| match softmax.place(unit) {
            UnitAt::Tail { cluster, row } if cluster == tail.cluster => Some(row),
            _ => None,
        };
        self.tail_x.clear();
        let (mut own, mut wanted) = (Vec::new(), Vec::new());
        for (k, (&unit, &weight)) in self.units.iter().zip(&self.weights).enumerate() {
            if let Some(row) = within(unit) {
                own.push(k);
                wanted.push((row, weight));
                self.tail_x.extend_from_slice(&self.x[k * top..(k + 1) * top]);
            }
        }
        if own.is_empty() {
            return 0.0;
        }
        zero(&mut self.narrow, own.len() * narrow);
        T::gemm(own.len(), &self.tail_x, (top, 1), &tail.down, &mut self.narrow, narrow);
        zero(&mut self.logits, own.len() * units);
        T::gemm(own.len(), &self.narrow, (narrow, 1), &tail.up, &mut self.logits, units);
        let loss = entropy_rows(units, &mut self.logits, wanted.into_iter());
        add_outer(own.len(), &self.logits, units, &self.narrow, narrow, grads.slice_mut(at + 1), &mut self.packed);
        zero(&mut self.dnarrow, own.len() * narrow);
        T::gemm(own.len(), &self.logits, (units, 1), &tail.up_back, &mut self.dnarrow, narrow);
        add_outer(own.len(), &self.dnarrow, narrow, &self.tail_x, top, grads.slice_mut(at), &mut self.packed);
        zero(&mut self.tail_dx, own.len() * top);
        T::gemm(own.len(), &self.dnarrow, (narrow, 1), &tail.down_back, &mut self.tail_dx, top);
        for (&k, dx) in own.iter().zip(self.tail_dx.chunks_exact(top)) {
            self.dx[k * top..(k + 1) * top].iter_mut().zip(dx).for_each(|(all, &d)| *all += d);
        }
        loss
    }
}

fn zero<T: Real>(numbers: &mut Vec<T>, count: usize) {
    numbers.clear();
    numbers.resize(count, T::zero());
}

/// Cross-entropy of the softmax of each row, weighted; turns the logits into their gradient.
fn entropy_rows<T: Real>(width: usize, logits: &mut [T], wanted: impl Iterator<Item = (usize, f64)>) -> f64 {
    T::softmax_rows(width, logits);
    let mut loss = 0.0;
    for (p, (wanted, weight)) in logits.chunks_exact_mut(width).zip(wanted) {
        loss -= weight * p[wanted].f64().max(1e-30).ln();
        p[wanted] -= T::one();
        p.iter_mut().for_each(|p| *p *= T::of(weight));
    }
    loss
}

/// Binary cross-entropy of all pitches of each row, weighted; turns the logits into their gradient.
fn note_rows<T: Real>(width: usize, logits: &mut [T], lowest: u8, wanted: impl Iterator<Item = (Chord, f64)>) -> f64 {
    let (mut loss, mut gradients) = (0.0, vec![0.0; width]);
    for (row, (chord, weight)) in logits.chunks_exact_mut(width).zip(wanted) {
        loss += weight * surprise(row.iter().map(|x| x.f64()), chord, lowest, |k, gradient| gradients[k] = gradient);
        row.iter_mut().zip(&gradients).for_each(|(x, gradient)| *x = T::of(gradient * weight));
    }
    loss
}
