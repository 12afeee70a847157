//! Pooling for training: forwards with what the way back needs, and the way back to every output and the query.
//!
//! The way back ends where the batch begins: what was pooled of the steps before it is taken as it is.

use crate::model::Pooling;
use crate::model::pool::dot;
use crate::rnn::real::Real;

/// The pooled outputs of the streams of one shard.
#[derive(Debug, Default)]
pub struct Pool<T> {
    /// As [`Pooling::push`] carries them, `[streams, numbers]`.
    pub states: Vec<T>,
    /// `[streams, top]`
    pub vectors: Vec<T>,
    /// For max: the row that each number came from, `[streams, top]`.
    from: Vec<usize>,
}

/// Not of this batch.
const BEFORE: usize = usize::MAX;

/// The rows of a ragged batch with their streams, and whether it is the stream's last.
fn rows(sizes: &[usize]) -> impl Iterator<Item = (usize, usize, bool)> {
    let later = |step: usize| sizes.get(step + 1).copied().unwrap_or(0);
    let streams = sizes.iter().enumerate().flat_map(move |(step, &m)| (0..m).map(move |k| (k, k >= later(step))));
    streams.enumerate().map(|(row, (stream, is_last))| (row, stream, is_last))
}

impl<T: Real> Pool<T> {
    /// Streams without a step.
    pub fn begin(&mut self) {
        self.states.clear();
    }

    /// Takes the outputs `[rows, top]` of all steps.
    pub fn push(&mut self, pooling: Pooling, outputs: &[T], sizes: &[usize], top: usize, query: &[T]) {
        let streams = sizes.first().copied().unwrap_or(0);
        let numbers = pooling.numbers(top);
        if self.states.len() < streams * numbers {
            self.states.resize(streams * numbers, T::zero());
        }
        self.from.clear();
        self.from.resize(streams * top, BEFORE);
        for ((row, stream, _), h) in rows(sizes).zip(outputs.chunks_exact(top)) {
            let state = &mut self.states[stream * numbers..(stream + 1) * numbers];
            if pooling == Pooling::Max {
                let best = pooling.vector(state);
                for (k, from) in self.from[stream * top..(stream + 1) * top].iter_mut().enumerate() {
                    if best.is_none_or(|best| h[k] > best[k]) {
                        *from = row;
                    }
                }
            }
            pooling.push(state, h, query);
        }
        self.vectors.clear();
        for state in self.states.chunks_exact(numbers).take(streams) {
            match pooling.vector(state) {
                Some(vector) => self.vectors.extend_from_slice(vector),
                None => self.vectors.extend(std::iter::repeat_n(T::zero(), top)),
            }
        }
    }

    /// From the gradient at the vectors `[streams, top]` to that at the outputs `[rows, top]` of the last
    /// [`Pool::push`], and to the query's (added to). `vectors` are those that were pooled, without dropout.
    #[allow(clippy::too_many_arguments)]
    pub fn backward(
        &self,
        pooling: Pooling,
        dvectors: &[T],
        outputs: &[T],
        sizes: &[usize],
        top: usize,
        query: &[T],
        doutputs: &mut Vec<T>,
        dquery: &mut [T],
    ) {
        let numbers = pooling.numbers(top);
        doutputs.clear();
        doutputs.resize(outputs.len(), T::zero());
        for (row, stream, is_last) in rows(sizes) {
            let (state, at) =
                (&self.states[stream * numbers..(stream + 1) * numbers], stream * top..(stream + 1) * top);
            let (d, p) = (&dvectors[at.clone()], &self.vectors[at.clone()]);
            let h = &outputs[row * top..(row + 1) * top];
            let out = &mut doutputs[row * top..(row + 1) * top];
            match pooling {
                Pooling::Last if is_last => out.copy_from_slice(d),
                Pooling::Last => {}
                Pooling::Mean => out.iter_mut().zip(d).for_each(|(o, &d)| *o = d / state[0]),
                Pooling::Max => {
                    for ((o, &d), &from) in out.iter_mut().zip(d).zip(&self.from[at]) {
                        *o = if from == row { d } else { T::zero() };
                    }
                }
                Pooling::Attention => {
                    let (largest, z) = pooling.scale(state);
                    let weight = (dot(query, h) - largest).exp_() / z;
                    let score = weight * (dot(d, h) - dot(d, p));
                    for k in 0..top {
                        out[k] = weight * d[k] + score * query[k];
                        dquery[k] += score * h[k];
                    }
                }
            }
        }
    }
}
