//! The encoder of one shard, forwards with everything kept and back: every sentence as a whole, both ways where a layer
//! is bidirectional.

use super::batch::PairBatch;
use super::net::TrainTransducer;
use crate::model::params::Params;
use crate::rnn::ahead::{gather, join};
use crate::rnn::bptt::{BackScratch, Tape};
use crate::rnn::real::Real;
use crate::train::dropout::{Dropout, Mask};

#[derive(Debug)]
pub struct EncoderPass<T> {
    /// The encoder's outputs, sentence after sentence, `[rows, E]`.
    pub memory: Vec<T>,
    /// What each sentence ended with, in the order of the target sentences, `[sentences, E]`.
    pub last: Vec<T>,
    /// The units that were read (after word dropout).
    ids: Vec<u32>,
    /// What each layer reads, after dropout; then the output.
    xs: Vec<Vec<T>>,
    masks: Vec<Mask<T>>,
    tapes: Vec<[Tape<T>; 2]>,
    /// What the direction that reads backwards reads.
    turned: Vec<Vec<T>>,
    /// Of each row, read backwards, the row that it is.
    turn: Vec<usize>,
    h: Vec<T>,
    c: Vec<T>,
    y: [Vec<T>; 2],
    past: Vec<T>,
    dx: [Vec<T>; 2],
}

impl<T: Real> EncoderPass<T> {
    pub fn new(layers: usize) -> EncoderPass<T> {
        EncoderPass {
            memory: Vec::new(),
            last: Vec::new(),
            ids: Vec::new(),
            xs: vec![Vec::new(); layers + 1],
            masks: (0..=layers).map(|_| Mask::default()).collect(),
            tapes: (0..layers).map(|_| Default::default()).collect(),
            turned: vec![Vec::new(); layers],
            turn: Vec::new(),
            h: Vec::new(),
            c: Vec::new(),
            y: Default::default(),
            past: Vec::new(),
            dx: Default::default(),
        }
    }

    pub fn forward(
        &mut self,
        net: &TrainTransducer<T>,
        params: &Params<T>,
        batch: &PairBatch,
        mut dropout: Option<&mut Dropout>,
    ) {
        let (side, layers) = (&batch.source, net.encoder.len());
        self.ids.clone_from(&side.ids);
        if let Some(dropout) = &mut dropout {
            dropout.words(&mut self.ids, 1);
        }
        self.turn.clear();
        for (step, &size) in side.sizes.iter().enumerate() {
            self.turn.extend((0..size).map(|k| side.row(k, side.lengths[k] - 1 - step)));
        }
        let (embed, dim) = (params.slice(net.places.source_embed), net.shape.source.1);
        self.xs[0].clear();
        for &id in &self.ids {
            self.xs[0].extend_from_slice(&embed[id as usize * dim..(id as usize + 1) * dim]);
        }
        for k in 0..=layers {
            self.past.clear();
            if net.shape.encoder.get(k).is_some_and(|layer| layer.residual) {
                self.past.extend_from_slice(&self.xs[k]);
            }
            let p = dropout.as_ref().map_or(0.0, |d| if k == 0 { d.input } else { d.layers });
            self.masks[k].draw(dropout.as_deref_mut(), p, self.xs[k].len());
            self.masks[k].apply(&mut self.xs[k]);
            let Some((forwards, backwards)) = net.encoder.get(k) else { break };
            let (below, above) = self.xs.split_at_mut(k + 1);
            let (x, y, [tape, back_tape]) = (&below[k], &mut above[0], &mut self.tapes[k]);
            let numbers = side.lengths.len() * forwards.spec.hidden;
            zero(&mut self.h, numbers);
            zero(&mut self.c, numbers);
            forwards.forward(x, &side.sizes, None, &mut self.h, &mut self.c, tape);
            let Some(backwards) = backwards else {
                forwards.output(tape, &self.past, y);
                continue;
            };
            gather(x, forwards.input, &self.turn, &mut self.turned[k]);
            zero(&mut self.h, numbers);
            zero(&mut self.c, numbers);
            backwards.forward(&self.turned[k], &side.sizes, None, &mut self.h, &mut self.c, back_tape);
            let [one, other] = &mut self.y;
            forwards.output(tape, &[], one);
            backwards.output(back_tape, &[], other);
            join(one, other, forwards.spec.hidden, &self.turn, y);
            y.iter_mut().zip(&self.past).for_each(|(y, &x)| *y += x);
        }
        self.remember(net, batch);
    }

    /// Hands out what the decoder reads.
    fn remember(&mut self, net: &TrainTransducer<T>, batch: &PairBatch) {
        let (side, width, outputs) = (&batch.source, net.shape.memory(), &self.xs[net.encoder.len()]);
        let at = |row: usize| &outputs[row * width..(row + 1) * width];
        self.memory.clear();
        for (k, &length) in side.lengths.iter().enumerate() {
            (0..length).for_each(|step| self.memory.extend_from_slice(at(side.row(k, step))));
        }
        let forwards = ended_forwards(net);
        self.last.clear();
        for &k in &batch.place {
            self.last.extend_from_slice(&at(side.row(k, side.lengths[k] - 1))[..forwards]);
            self.last.extend_from_slice(&at(side.row(k, 0))[forwards..]);
        }
    }

    /// From the gradients at `memory` and `last` to those of all weights.
    pub fn backward(
        &mut self,
        net: &TrainTransducer<T>,
        batch: &PairBatch,
        [dmemory, dlast]: [&[T]; 2],
        grads: &mut Params<T>,
        scratch: &mut BackScratch<T>,
    ) {
        let (side, width) = (&batch.source, net.shape.memory());
        let [dx, dx_turned] = &mut self.dx;
        let [dy, other] = &mut self.y;
        zero(dx, side.rows() * width);
        let mut rows = dmemory.chunks_exact(width);
        for (k, &length) in side.lengths.iter().enumerate() {
            for step in 0..length {
                let row = side.row(k, step);
                dx[row * width..(row + 1) * width].copy_from_slice(rows.next().unwrap_or_default());
            }
        }
        let forwards = ended_forwards(net);
        for (&k, dlast) in batch.place.iter().zip(dlast.chunks_exact(width)) {
            let (last, first) = (side.row(k, side.lengths[k] - 1) * width, side.row(k, 0) * width);
            let add = |to: &mut [T], from: &[T]| to.iter_mut().zip(from).for_each(|(to, &d)| *to += d);
            add(&mut dx[last..last + forwards], &dlast[..forwards]);
            add(&mut dx[first + forwards..first + width], &dlast[forwards..]);
        }
        self.masks[net.encoder.len()].apply(dx);
        for (k, (forwards, backwards)) in net.encoder.iter().enumerate().rev() {
            let ((at, back_at), hidden) = (net.places.encoder[k], forwards.spec.hidden);
            self.past.clear();
            if net.shape.encoder[k].residual {
                self.past.extend_from_slice(dx);
            }
            let (x, [tape, back_tape]) = (&self.xs[k], &self.tapes[k]);
            if let (Some(backwards), Some(back_at)) = (backwards, back_at) {
                dy.clear();
                dx.chunks_exact(2 * hidden).for_each(|both| dy.extend_from_slice(&both[..hidden]));
                other.clear();
                for &row in &self.turn {
                    other.extend_from_slice(&dx[(2 * row + 1) * hidden..(2 * row + 2) * hidden]);
                }
                let (turned, into) = (&self.turned[k], grads.layer_mut(back_at));
                backwards.backward(turned, &side.sizes, None, back_tape, other, Some(dx_turned), into, scratch);
                forwards.backward(x, &side.sizes, None, tape, dy, Some(dx), grads.layer_mut(at), scratch);
                for (&row, more) in self.turn.iter().zip(dx_turned.chunks_exact(forwards.input)) {
                    let to = &mut dx[row * forwards.input..(row + 1) * forwards.input];
                    to.iter_mut().zip(more).for_each(|(to, &d)| *to += d);
                }
            } else {
                std::mem::swap(dy, dx);
                forwards.backward(x, &side.sizes, None, tape, dy, Some(dx), grads.layer_mut(at), scratch);
            }
            self.masks[k].apply(dx);
            dx.iter_mut().zip(&self.past).for_each(|(dx, &dy)| *dx += dy);
        }
        add_rows(grads.slice_mut(net.places.source_embed), &self.ids, dx, net.shape.source.1);
    }
}

/// Of what the top layer puts out, the numbers that come of reading forwards.
fn ended_forwards<T>(net: &TrainTransducer<T>) -> usize {
    net.shape.encoder.last().map_or(0, |layer| layer.hidden)
}

pub fn zero<T: Real>(numbers: &mut Vec<T>, len: usize) {
    numbers.clear();
    numbers.resize(len, T::zero());
}

/// Adds each row of `dx` to the row of a table that it was read from.
pub fn add_rows<T: Real>(table: &mut [T], ids: &[u32], dx: &[T], dim: usize) {
    for (&id, dx) in ids.iter().zip(dx.chunks_exact(dim)) {
        let to = &mut table[id as usize * dim..(id as usize + 1) * dim];
        to.iter_mut().zip(dx).for_each(|(to, &d)| *to += d);
    }
}
