//! Loss and gradients of one shard of pairs: encoder, decoder, readout and the softmax over the target's units.

use super::batch::PairBatch;
use super::decoder::DecoderPass;
use super::encoder::{EncoderPass, zero};
use super::net::TrainTransducer;
use crate::model::params::Params;
use crate::rnn::attention;
use crate::rnn::bptt::BackScratch;
use crate::rnn::kernel::Packed;
use crate::rnn::real::Real;
use crate::train::dropout::{Dropout, Mask};
use crate::train::network::ShardLoss;

/// Rows whose scores over all units are computed at once.
const CHUNK: usize = 256;

/// How the loss is formed: the mean of the cross-entropy of all target units, ends included.
#[derive(Debug, Clone, Copy)]
pub struct PairLoss {
    /// Target units of all shards.
    pub total: f64,
    pub label_smoothing: f64,
}

/// Working space and gradients of one shard.
#[derive(Debug)]
pub struct PairWorker<T> {
    pub grads: Params<T>,
    encoder: EncoderPass<T>,
    decoder: DecoderPass<T>,
    /// tanh of the readout, `[rows, readout]`; after dropout what the head reads.
    bent: Vec<T>,
    dropped: Vec<T>,
    mask: Mask<T>,
    scores: Vec<T>,
    /// Of each row of a chunk the sum of its scores, and the target's.
    sums: Vec<(f64, f64)>,
    ones: Vec<T>,
    dbent: Vec<T>,
    dreads: Vec<T>,
    scratch: BackScratch<T>,
    packed: Packed<T>,
}

impl<T: Real> PairWorker<T> {
    pub fn new(net: &TrainTransducer<T>, params: &Params<T>) -> PairWorker<T> {
        let none = Vec::new;
        PairWorker {
            grads: params.zeros_like(),
            encoder: EncoderPass::new(net.encoder.len()),
            decoder: DecoderPass::new(net.decoder.len()),
            bent: none(),
            dropped: none(),
            mask: Mask::default(),
            scores: none(),
            sums: Vec::new(),
            ones: vec![T::one(); net.head.output],
            dbent: none(),
            dreads: none(),
            scratch: BackScratch::default(),
            packed: Packed::empty(),
        }
    }

    /// Forwards and back; leaves the gradients in `self`.
    pub fn run(
        &mut self,
        net: &TrainTransducer<T>,
        params: &Params<T>,
        batch: &PairBatch,
        mut dropout: Option<&mut Dropout>,
        loss: PairLoss,
    ) -> ShardLoss {
        self.grads.slices_mut().for_each(|g| g.fill(T::zero()));
        if batch.place.is_empty() {
            return ShardLoss::default();
        }
        let rows = batch.target.rows();
        self.encoder.forward(net, params, batch, dropout.as_deref_mut());
        let from = [&self.encoder.memory[..], &self.encoder.last[..]];
        self.decoder.forward(net, params, batch, from, dropout.as_deref_mut());
        net.readout.run(rows, &self.decoder.reads, &mut self.bent);
        T::tanh_all(&mut self.bent);
        let p = dropout.as_ref().map_or(0.0, |d| d.layers);
        self.mask.draw(dropout, p, self.bent.len());
        self.dropped.clone_from(&self.bent);
        self.mask.apply(&mut self.dropped);
        let result = self.head(net, batch, loss);

        self.mask.apply(&mut self.dbent);
        for (d, &y) in self.dbent.iter_mut().zip(&self.bent) {
            *d *= T::one() - y * y;
        }
        zero(&mut self.dreads, self.decoder.reads.len());
        net.readout.back(rows, &self.dbent, &mut self.dreads);
        let (reads, at) = (&self.decoder.reads, net.places.readout);
        net.readout.grads(rows, &self.dbent, reads, &mut self.grads, at, true, &mut self.packed);
        let from = [&self.encoder.memory[..], &self.encoder.last[..]];
        self.decoder.backward(net, params, batch, from, &self.dreads, &mut self.grads, &mut self.scratch);
        let back = [&self.decoder.dmemory[..], &self.decoder.dlast[..]];
        self.encoder.backward(net, batch, back, &mut self.grads, &mut self.scratch);
        result
    }

    /// The softmax over the units and its cross-entropy, chunk by chunk; sets the gradient at what the head reads.
    fn head(&mut self, net: &TrainTransducer<T>, batch: &PairBatch, loss: PairLoss) -> ShardLoss {
        let (units, readout, mut result) = (net.head.output, net.head.input, ShardLoss::default());
        let smooth = loss.label_smoothing / units as f64;
        let weight = 1.0 / loss.total;
        zero(&mut self.dbent, self.dropped.len());
        for (chunk, targets) in batch.targets.chunks(CHUNK).enumerate() {
            let rows = targets.len();
            let at = chunk * CHUNK * readout..(chunk * CHUNK + rows) * readout;
            let x = &self.dropped[at.clone()];
            net.head.run(rows, x, &mut self.scores);
            self.sums.clear();
            for (x, &target) in self.scores.chunks_exact(units).zip(targets) {
                // What ln P of all units is to be added up from.
                let sum = if smooth > 0.0 { attention::dot(x, &self.ones[..units]).f64() } else { 0.0 };
                self.sums.push((sum, x[target as usize].f64()));
            }
            T::softmax_rows(units, &mut self.scores);
            for ((p, &target), (sum, x)) in self.scores.chunks_exact_mut(units).zip(targets).zip(&self.sums) {
                let target = target as usize;
                let log = p[target].f64().max(1e-30).ln();
                let all = sum - units as f64 * (x - log);
                let entropy = -(1.0 - loss.label_smoothing) * log - if smooth > 0.0 { smooth * all } else { 0.0 };
                result.loss += weight * entropy;
                result.rows += 1;
                let own = p[target];
                result.correct += usize::from(p.iter().all(|&q| q <= own));
                p[target] -= T::of(1.0 - loss.label_smoothing);
                let (smooth, weight) = (T::of(smooth), T::of(weight));
                p.iter_mut().for_each(|p| *p = (*p - smooth) * weight);
            }
            net.head.back(rows, &self.scores, &mut self.dbent[at]);
            net.head.grads(rows, &self.scores, x, &mut self.grads, net.places.head, true, &mut self.packed);
        }
        result
    }
}
