//! The decoder of one shard under teacher forcing: it reads the target's own units. Without attention or with the
//! general kind the layers run over all steps at once; with the additive kind, where a step reads what its predecessor
//! looked for, step by step. A *block* is what runs at once.

use super::batch::PairBatch;
use super::encoder::{add_rows, zero};
use super::net::TrainTransducer;
use crate::model::Attention;
use crate::model::params::Params;
use crate::rnn::attention;
use crate::rnn::bptt::{BackScratch, Tape};
use crate::rnn::kernel::Packed;
use crate::rnn::real::Real;
use crate::train::dropout::{Dropout, Mask};
use std::ops::Range;

#[derive(Debug)]
pub struct DecoderPass<T> {
    /// What the readout reads, `[rows, readout's input]`.
    pub reads: Vec<T>,
    /// Gradient at the encoder's outputs, sentence after sentence; and at what each sentence ended with.
    pub dmemory: Vec<T>,
    pub dlast: Vec<T>,
    ids: Vec<u32>,
    /// First states of each layer: tanh of the bridge, `[sentences, state]`.
    begun: Vec<Vec<T>>,
    embedded: Vec<T>,
    embed_mask: Mask<T>,
    /// What each layer reads, after dropout; then the output.
    xs: Vec<Vec<T>>,
    /// Of the layers but the first.
    masks: Vec<Mask<T>>,
    /// `[block][layer]`
    tapes: Vec<Vec<Tape<T>>>,
    keys: Vec<T>,
    /// The top layer's h that queries were made of, `[rows, H]`.
    before: Vec<T>,
    /// Weights of every row's source steps, one row after the other, from `weight_at[row]` on.
    weights: Vec<T>,
    weight_at: Vec<usize>,
    bent: Vec<T>,
    contexts: Vec<T>,
    h: Vec<Vec<T>>,
    c: Vec<Vec<T>>,
    part: [Vec<T>; 3],
    dkeys: Vec<T>,
    dqueries: Vec<T>,
    dscores: Vec<T>,
    packed: Packed<T>,
}

impl<T: Real> DecoderPass<T> {
    pub fn new(layers: usize) -> DecoderPass<T> {
        let none = Vec::new;
        DecoderPass {
            reads: none(),
            dmemory: none(),
            dlast: none(),
            ids: Vec::new(),
            begun: vec![none(); layers],
            embedded: none(),
            embed_mask: Mask::default(),
            xs: vec![none(); layers + 1],
            masks: (0..layers).map(|_| Mask::default()).collect(),
            tapes: Vec::new(),
            keys: none(),
            before: none(),
            weights: none(),
            weight_at: Vec::new(),
            bent: none(),
            contexts: none(),
            h: vec![none(); layers],
            c: vec![none(); layers],
            part: Default::default(),
            dkeys: none(),
            dqueries: none(),
            dscores: none(),
            packed: Packed::empty(),
        }
    }

    /// Steps of each block.
    fn blocks(net: &TrainTransducer<T>, batch: &PairBatch) -> Vec<Range<usize>> {
        let steps = batch.target.sizes.len();
        match net.shape.attention {
            Attention::Bahdanau => (0..steps).map(|step| step..step + 1).collect(),
            _ => std::iter::once(0..steps).collect(),
        }
    }

    /// Rows of a block.
    fn rows(batch: &PairBatch, steps: &Range<usize>) -> Range<usize> {
        let end = batch.target.starts.get(steps.end).copied().unwrap_or(batch.target.rows());
        batch.target.starts[steps.start]..end
    }

    /// Reads the target after a source whose outputs are `memory` and which ended with `last`.
    pub fn forward(
        &mut self,
        net: &TrainTransducer<T>,
        params: &Params<T>,
        batch: &PairBatch,
        [memory, last]: [&[T]; 2],
        mut dropout: Option<&mut Dropout>,
    ) {
        let (side, shape) = (&batch.target, &net.shape);
        let (sentences, rows, dim) = (side.lengths.len(), side.rows(), shape.target.1);
        self.begin(net, last, sentences);
        self.ids.clone_from(&side.ids);
        if let Some(dropout) = &mut dropout {
            // What is before the first unit is never unknown.
            dropout.words(&mut self.ids[sentences..], 1);
        }
        let embed = params.slice(net.places.target_embed);
        self.embedded.clear();
        for &id in &self.ids {
            self.embedded.extend_from_slice(&embed[id as usize * dim..(id as usize + 1) * dim]);
        }
        let p = dropout.as_ref().map_or(0.0, |d| d.input);
        self.embed_mask.draw(dropout.as_deref_mut(), p, self.embedded.len());
        self.embed_mask.apply(&mut self.embedded);
        for (k, mask) in self.masks.iter_mut().enumerate().skip(1) {
            let p = dropout.as_ref().map_or(0.0, |d| d.layers);
            mask.draw(dropout.as_deref_mut(), p, rows * shape.decoder_input(k));
        }
        net.key.run(if shape.attention == Attention::None { 0 } else { batch.source.rows() }, memory, &mut self.keys);
        self.attend_nowhere(net, batch, rows);
        self.xs.iter_mut().for_each(Vec::clear);
        self.before.clear();
        let blocks = Self::blocks(net, batch);
        self.tapes.resize_with(self.tapes.len().max(blocks.len()), || {
            shape.decoder.iter().map(|_| Tape::default()).collect()
        });
        for (block, steps) in blocks.iter().enumerate() {
            let rows = Self::rows(batch, steps);
            if shape.attention == Attention::Bahdanau {
                self.look(net, params, batch, memory, rows.clone());
                for row in rows.clone() {
                    self.xs[0].extend_from_slice(&self.embedded[row * dim..(row + 1) * dim]);
                    let width = shape.memory();
                    self.xs[0].extend_from_slice(&self.contexts[row * width..(row + 1) * width]);
                }
            } else {
                self.xs[0].extend_from_slice(&self.embedded);
            }
            self.block(net, batch, block, steps, rows);
        }
        let top = shape.top();
        if shape.attention == Attention::Luong {
            for (step, &size) in side.sizes.iter().enumerate() {
                for (sentence, row) in (0..size).map(|k| (k, side.row(k, step))) {
                    let (at, source) = (self.weight_at[row], batch.memory(sentence));
                    let weights = &mut self.weights[at..at + source.len()];
                    let state = &self.xs[net.decoder.len()][row * top..(row + 1) * top];
                    attention::general(state, of(&self.keys, &source, top), weights);
                    let width = shape.memory();
                    let out = &mut self.contexts[row * width..(row + 1) * width];
                    attention::context(weights, of(memory, &source, width), out);
                }
            }
        }
        self.reads.clear();
        for row in 0..rows {
            self.reads.extend_from_slice(&self.xs[net.decoder.len()][row * top..(row + 1) * top]);
            if shape.attention != Attention::None {
                let width = shape.memory();
                self.reads.extend_from_slice(&self.contexts[row * width..(row + 1) * width]);
            }
            if shape.attention == Attention::Bahdanau {
                self.reads.extend_from_slice(&self.embedded[row * dim..(row + 1) * dim]);
            }
        }
    }

    /// The first states.
    fn begin(&mut self, net: &TrainTransducer<T>, last: &[T], sentences: usize) {
        for (k, bridge) in net.bridge.iter().enumerate() {
            bridge.run(sentences, last, &mut self.begun[k]);
            T::tanh_all(&mut self.begun[k]);
            let hidden = net.shape.decoder[k].hidden;
            self.h[k].clear();
            zero(&mut self.c[k], sentences * hidden);
            for (sentence, state) in self.begun[k].chunks_exact(bridge.output).enumerate() {
                self.h[k].extend_from_slice(&state[..hidden]);
                let c = &mut self.c[k][sentence * hidden..(sentence + 1) * hidden];
                c.iter_mut().zip(&state[hidden..]).for_each(|(c, &x)| *c = x);
            }
        }
    }

    /// Makes room for weights and contexts.
    fn attend_nowhere(&mut self, net: &TrainTransducer<T>, batch: &PairBatch, rows: usize) {
        self.weight_at.clear();
        self.weights.clear();
        self.contexts.clear();
        if net.shape.attention == Attention::None {
            return;
        }
        let mut all = 0;
        for &size in &batch.target.sizes {
            for sentence in 0..size {
                self.weight_at.push(all);
                all += batch.memory(sentence).len();
            }
        }
        self.weights.resize(all, T::zero());
        self.contexts.resize(rows * net.shape.memory(), T::zero());
        if net.shape.attention == Attention::Bahdanau {
            self.bent.resize(all * net.shape.inner, T::zero());
        }
    }

    /// Additive attention of one step: contexts of the rows, from the top layer's h before it.
    fn look(
        &mut self,
        net: &TrainTransducer<T>,
        params: &Params<T>,
        batch: &PairBatch,
        memory: &[T],
        rows: Range<usize>,
    ) {
        let (top, inner, width) = (net.shape.top(), net.shape.inner, net.shape.memory());
        let energy = params.slice(net.places.attention + 3);
        let (from, last) = (self.before.len(), net.decoder.len() - 1);
        self.before.extend_from_slice(&self.h[last][..rows.len() * top]);
        net.query.run(rows.len(), &self.before[from..], &mut self.part[0]);
        for (sentence, row) in rows.enumerate() {
            let (at, source) = (self.weight_at[row], batch.memory(sentence));
            let weights = &mut self.weights[at..at + source.len()];
            let bent = &mut self.bent[at * inner..(at + source.len()) * inner];
            let query = &self.part[0][sentence * inner..(sentence + 1) * inner];
            attention::additive(query, of(&self.keys, &source, inner), energy, weights, bent);
            let out = &mut self.contexts[row * width..(row + 1) * width];
            attention::context(weights, of(memory, &source, width), out);
        }
    }

    /// Runs a block through the layers.
    fn block(
        &mut self,
        net: &TrainTransducer<T>,
        batch: &PairBatch,
        block: usize,
        steps: &Range<usize>,
        rows: Range<usize>,
    ) {
        let sizes = &batch.target.sizes[steps.clone()];
        let [past, y, _] = &mut self.part;
        for (k, layer) in net.decoder.iter().enumerate() {
            let (below, above) = self.xs.split_at_mut(k + 1);
            let x = &mut below[k][rows.start * layer.input..rows.end * layer.input];
            past.clear();
            if layer.spec.residual {
                past.extend_from_slice(x);
            }
            self.masks[k].apply_from(rows.start * layer.input, x);
            let tape = &mut self.tapes[block][k];
            layer.forward(x, sizes, None, &mut self.h[k], &mut self.c[k], tape);
            layer.output(tape, past, y);
            above[0].extend_from_slice(y);
        }
    }

    /// From the gradient at `reads` to those of the decoder's weights; leaves those at the encoder's outputs.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &mut self,
        net: &TrainTransducer<T>,
        params: &Params<T>,
        batch: &PairBatch,
        [memory, last]: [&[T]; 2],
        dreads: &[T],
        grads: &mut Params<T>,
        scratch: &mut BackScratch<T>,
    ) {
        let (side, shape, layers) = (&batch.target, &net.shape, net.decoder.len());
        let (sentences, rows, dim) = (side.lengths.len(), side.rows(), shape.target.1);
        let (top, width, key) = (shape.top(), shape.memory(), shape.key());
        zero(&mut self.dmemory, memory.len());
        zero(&mut self.dkeys, batch.source.rows() * key);
        zero(&mut self.dqueries, if shape.attention == Attention::Bahdanau { rows * key } else { 0 });
        let (mut dtop, mut dcontexts, mut dembedded) = (Vec::new(), Vec::new(), Vec::new());
        for dread in dreads.chunks_exact(shape.readout_input()) {
            dtop.extend_from_slice(&dread[..top]);
            if shape.attention != Attention::None {
                dcontexts.extend_from_slice(&dread[top..top + width]);
            }
            if shape.attention == Attention::Bahdanau {
                dembedded.extend_from_slice(&dread[top + width..]);
            }
        }
        dembedded.resize(rows * dim, T::zero());
        if shape.attention == Attention::Luong {
            for (step, &size) in side.sizes.iter().enumerate() {
                for (sentence, row) in (0..size).map(|k| (k, side.row(k, step))) {
                    let (at, source) = (self.weight_at[row], batch.memory(sentence));
                    zero(&mut self.dscores, source.len());
                    let (weights, dcontext) =
                        (&self.weights[at..at + source.len()], &dcontexts[row * width..][..width]);
                    let into = of_mut(&mut self.dmemory, &source, width);
                    attention::context_back(weights, of(memory, &source, width), dcontext, into, &mut self.dscores);
                    let (state, keys) = (&self.xs[layers][row * top..][..top], of(&self.keys, &source, top));
                    let (dstate, dkeys) = (&mut dtop[row * top..][..top], of_mut(&mut self.dkeys, &source, top));
                    attention::general_back(state, keys, &self.dscores, dstate, dkeys);
                }
            }
        }
        // Gradients at the states before what was gone through, of all sentences.
        let mut dstates: Vec<[Vec<T>; 2]> = Vec::new();
        for layer in &shape.decoder {
            dstates.push(std::array::from_fn(|_| vec![T::zero(); sentences * layer.hidden]));
        }
        let stepwise = shape.attention == Attention::Bahdanau;
        for (block, steps) in Self::blocks(net, batch).iter().enumerate().rev() {
            let at = Self::rows(batch, steps);
            let sizes = &side.sizes[steps.clone()];
            let [past, dy, dx] = &mut self.part;
            dx.clear();
            dx.extend_from_slice(&dtop[at.start * top..at.end * top]);
            for (k, layer) in net.decoder.iter().enumerate().rev() {
                std::mem::swap(dy, dx);
                past.clear();
                if layer.spec.residual {
                    past.extend_from_slice(dy);
                }
                let x = &self.xs[k][at.start * layer.input..at.end * layer.input];
                let [dh, dc] = &mut dstates[k];
                let after = stepwise.then_some([&dh[..], &dc[..]]);
                let (tape, into) = (&self.tapes[block][k], grads.layer_mut(net.places.decoder[k]));
                layer.backward_from(x, sizes, None, tape, dy, after, Some(dx), into, scratch);
                let [start_h, start_c] = scratch.start();
                dh[..start_h.len()].copy_from_slice(start_h);
                dc[..start_c.len()].copy_from_slice(start_c);
                self.masks[k].apply_from(at.start * layer.input, dx);
                dx.iter_mut().zip(&*past).for_each(|(dx, &dy)| *dx += dy);
            }
            let input = shape.decoder_input(0);
            for (row, dx) in at.clone().zip(dx.chunks_exact(input)) {
                let add = |to: &mut [T], from: &[T]| to.iter_mut().zip(from).for_each(|(to, &d)| *to += d);
                add(&mut dembedded[row * dim..(row + 1) * dim], &dx[..dim]);
                if stepwise {
                    add(&mut dcontexts[row * width..(row + 1) * width], &dx[dim..]);
                }
            }
            if stepwise {
                self.look_back(net, params, batch, memory, &dcontexts, at.clone(), grads);
                // The query was made of the top layer's h before this step.
                let [dh, _] = &mut dstates[layers - 1];
                net.query.back(at.len(), &self.dqueries[at.start * key..at.end * key], dh);
            }
        }
        if stepwise {
            let into = net.places.attention + 2;
            net.query.grads(rows, &self.dqueries, &self.before, grads, into, false, &mut self.packed);
        }
        if shape.attention != Attention::None {
            net.key.back(batch.source.rows(), &self.dkeys, &mut self.dmemory);
            let (into, n) = (net.places.attention, batch.source.rows());
            net.key.grads(n, &self.dkeys, memory, grads, into, stepwise, &mut self.packed);
        }
        self.embed_mask.apply(&mut dembedded);
        add_rows(grads.slice_mut(net.places.target_embed), &self.ids, &dembedded, dim);
        self.bridge_back(net, last, &dstates, sentences, grads);
    }

    /// Of one step: from the gradient at its contexts to that at queries, keys and the encoder's outputs.
    #[allow(clippy::too_many_arguments)]
    fn look_back(
        &mut self,
        net: &TrainTransducer<T>,
        params: &Params<T>,
        batch: &PairBatch,
        memory: &[T],
        dcontexts: &[T],
        rows: Range<usize>,
        grads: &mut Params<T>,
    ) {
        let (inner, width, at_energy) = (net.shape.inner, net.shape.memory(), net.places.attention + 3);
        for (sentence, row) in rows.enumerate() {
            let (at, source) = (self.weight_at[row], batch.memory(sentence));
            zero(&mut self.dscores, source.len());
            let (weights, dcontext) = (&self.weights[at..at + source.len()], &dcontexts[row * width..][..width]);
            let into = of_mut(&mut self.dmemory, &source, width);
            attention::context_back(weights, of(memory, &source, width), dcontext, into, &mut self.dscores);
            let bent = &self.bent[at * inner..(at + source.len()) * inner];
            let dquery = &mut self.dqueries[row * inner..(row + 1) * inner];
            let dkeys = of_mut(&mut self.dkeys, &source, inner);
            let (energy, denergy) = (params.slice(at_energy), grads.slice_mut(at_energy));
            attention::additive_back(bent, energy, &self.dscores, dquery, dkeys, denergy);
        }
    }

    /// From the gradients at the first states to the bridge's, and to `dlast`.
    fn bridge_back(
        &mut self,
        net: &TrainTransducer<T>,
        last: &[T],
        dstates: &[[Vec<T>; 2]],
        sentences: usize,
        grads: &mut Params<T>,
    ) {
        zero(&mut self.dlast, last.len());
        for (k, (bridge, [dh, dc])) in net.bridge.iter().zip(dstates).enumerate() {
            let (hidden, state) = (net.shape.decoder[k].hidden, bridge.output);
            let mut d = Vec::with_capacity(sentences * state);
            for (dh, dc) in dh.chunks_exact(hidden).zip(dc.chunks_exact(hidden)) {
                d.extend_from_slice(dh);
                d.extend_from_slice(&dc[..state - hidden]);
            }
            for (d, &y) in d.iter_mut().zip(&self.begun[k]) {
                *d *= T::one() - y * y;
            }
            bridge.back(sentences, &d, &mut self.dlast);
            bridge.grads(sentences, &d, last, grads, net.places.bridge + 2 * k, true, &mut self.packed);
        }
    }
}

/// Rows of a matrix that is `width` wide.
fn of<'a, T>(all: &'a [T], rows: &Range<usize>, width: usize) -> &'a [T] {
    &all[rows.start * width..rows.end * width]
}

fn of_mut<'a, T>(all: &'a mut [T], rows: &Range<usize>, width: usize) -> &'a mut [T] {
    &mut all[rows.start * width..rows.end * width]
}
