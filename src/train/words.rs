//! The recurrent character encoder for training: each different word of a chunk is read once, forwards and (if the
//! model does) backwards; the gradients of all its places are added up before the way back.

use crate::encode::Features;
use crate::model::params::{CharNetShape, NetShape, Params};
use crate::rnn::bptt::{BackScratch, Tape, TrainLayer};
use crate::rnn::real::Real;
use std::collections::HashMap;

/// The different words of a chunk, longest first, and their encodings.
#[derive(Debug)]
pub struct UniqueWords<T> {
    /// For each row the place of its word.
    at: Vec<u32>,
    words: Vec<Vec<u32>>,
    sizes: Vec<usize>,
    /// `[words, directions · hidden]`
    vectors: Vec<T>,
    width: usize,
    directions: Vec<Direction<T>>,
    dvectors: Vec<T>,
    dy: Vec<T>,
    dx: Vec<T>,
}

#[derive(Debug, Default)]
struct Direction<T> {
    ids: Vec<u32>,
    x: Vec<T>,
    tape: Tape<T>,
}

impl<T> Default for UniqueWords<T> {
    fn default() -> Self {
        UniqueWords {
            at: Vec::new(),
            words: Vec::new(),
            sizes: Vec::new(),
            vectors: Vec::new(),
            width: 0,
            directions: Vec::new(),
            dvectors: Vec::new(),
            dy: Vec::new(),
            dx: Vec::new(),
        }
    }
}

impl<T: Real> UniqueWords<T> {
    /// Encodes the words of `f`.
    pub fn forward(&mut self, layers: &[TrainLayer<T>], shape: &CharNetShape, embed: &[T], f: &Features) {
        self.collect(f);
        self.width = layers.len() * shape.hidden;
        self.vectors.clear();
        self.vectors.resize(self.words.len() * self.width, T::zero());
        self.directions.resize_with(layers.len(), Direction::default);
        for (d, (layer, direction)) in layers.iter().zip(&mut self.directions).enumerate() {
            let Direction { ids, x, tape } = direction;
            ids.clear();
            x.clear();
            for (t, &m) in self.sizes.iter().enumerate() {
                for word in &self.words[..m] {
                    let id = word[if d == 0 { t } else { word.len() - 1 - t }];
                    ids.push(id);
                    x.extend_from_slice(&embed[id as usize * shape.dim..(id as usize + 1) * shape.dim]);
                }
            }
            let mut h = vec![T::zero(); self.words.len() * shape.hidden];
            let mut c = h.clone();
            layer.forward(x, &self.sizes, None, &mut h, &mut c, tape);
            for (k, h) in h.chunks_exact(shape.hidden).enumerate() {
                self.vectors[k * self.width + d * shape.hidden..][..shape.hidden].copy_from_slice(h);
            }
        }
    }

    fn collect(&mut self, f: &Features) {
        let mut known: HashMap<&[u32], u32> = HashMap::new();
        let mut different: Vec<&[u32]> = Vec::new();
        let mut start = 0;
        self.at.clear();
        for &end in &f.char_ends {
            let word = &f.chars[start..end as usize];
            start = end as usize;
            self.at.push(*known.entry(word).or_insert_with(|| {
                different.push(word);
                different.len() as u32 - 1
            }));
        }
        let mut order: Vec<u32> = (0..different.len() as u32).collect();
        order.sort_by_key(|&k| std::cmp::Reverse(different[k as usize].len()));
        let mut place = vec![0; different.len()];
        order.iter().enumerate().for_each(|(to, &from)| place[from as usize] = to as u32);
        self.at.iter_mut().for_each(|at| *at = place[*at as usize]);
        self.words = order.iter().map(|&k| different[k as usize].to_vec()).collect();
        let longest = self.words.first().map_or(0, Vec::len);
        self.sizes = (0..longest).map(|t| self.words.partition_point(|w| w.len() > t)).collect();
    }

    /// The encoding of a row's word.
    pub fn vector(&self, row: usize) -> &[T] {
        let at = self.at[row] as usize;
        &self.vectors[at * self.width..(at + 1) * self.width]
    }

    /// From the gradients at the rows' encodings to those of the character encoder's parameters.
    pub fn backward<'a>(
        &mut self,
        layers: &[TrainLayer<T>],
        shape: &NetShape,
        dx: impl Iterator<Item = &'a [T]>,
        grads: &mut Params<T>,
        scratch: &mut BackScratch<T>,
    ) {
        self.dvectors.clear();
        self.dvectors.resize(self.words.len() * self.width, T::zero());
        for (&at, dx) in self.at.iter().zip(dx) {
            for (d, &x) in self.dvectors[at as usize * self.width..].iter_mut().zip(dx) {
                *d += x;
            }
        }
        let rows: usize = self.sizes.iter().sum();
        for (d, (layer, direction)) in layers.iter().zip(&self.directions).enumerate() {
            let hidden = layer.spec.hidden;
            self.dy.clear();
            self.dy.resize(rows * hidden, T::zero());
            let mut first_row = 0;
            for (t, &m) in self.sizes.iter().enumerate() {
                let ending = self.sizes.get(t + 1).copied().unwrap_or(0)..m;
                for word in ending {
                    let from = &self.dvectors[word * self.width + d * hidden..][..hidden];
                    self.dy[(first_row + word) * hidden..][..hidden].copy_from_slice(from);
                }
                first_row += m;
            }
            let at = grads.layer_mut(shape.char_layer_at(d));
            let (x, tape, dx) = (&direction.x, &direction.tape, Some(&mut self.dx));
            layer.backward(x, &self.sizes, None, tape, &mut self.dy, dx, at, scratch);
            let embed = grads.slice_mut(shape.char_embed_at());
            for (&id, dx) in direction.ids.iter().zip(self.dx.chunks_exact(layer.input)) {
                for (g, &d) in embed[id as usize * layer.input..].iter_mut().zip(dx) {
                    *g += d;
                }
            }
        }
    }
}
