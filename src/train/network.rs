//! The network for training: forwards with everything kept, cross-entropy (or the likelihood of a CRF,
//! [`super::crf`], or of transcripts, [`super::ctc`]), and the way back to every parameter.
//!
//! [`TrainNet`] holds the weights laid out for both ways (shared by all threads); a [`Worker`] is the working space of
//! one shard of the streams and holds the gradients that the shard contributes.

use super::ahead::{AheadLayer, AheadTape, Rows};
use super::crf::Chain;
use super::ctc::Ctc;
use super::dropout::{Dropout, Mask};
use super::language::{NextUnit, TrainTail};
use super::pool::Pool;
use crate::encode::{Chord, Features};
use crate::model::params::{NetShape, Params};
use crate::rnn::LayerSpec;
use crate::rnn::ahead::Windows;
use crate::rnn::bptt::{BackScratch, Tape, TrainLayer, add_columns, add_outer};
use crate::rnn::kernel::Packed;
use crate::rnn::real::Real;
use crate::train::words::UniqueWords;

/// A target that is not scored (padding).
pub const NO_TARGET: u32 = u32::MAX;

/// Streams side by side over one chunk of time; rows as in [`crate::rnn::layer`], and where the network looks ahead those of
/// the steps that it sees, behind them ([`Windows`]).
#[derive(Debug, Clone, Default)]
pub struct TrainBatch {
    pub features: Features,
    pub sizes: Vec<usize>,
    /// The stream's state is set to zero before this row.
    pub reset: Vec<bool>,
    /// Class of each row, or [`NO_TARGET`]; of each stream where outputs are pooled. Of a language model the next unit of
    /// each row, then the first units of the streams that begin in this chunk.
    pub targets: Vec<u32>,
    /// Weight of each target in the loss.
    pub weights: Vec<f32>,
    pub windows: Option<Windows>,
    /// For each target the notes that it is, where steps are notes.
    pub chords: Vec<Chord>,
    /// Of a transcriber the symbols of each stream.
    pub transcripts: Vec<Vec<u32>>,
}

/// h and c of every layer for the streams of one shard: `[layer][h or c]`, each `[streams, hidden]`.
#[derive(Debug, Clone)]
pub struct States<T>(pub Vec<[Vec<T>; 2]>);

impl<T: Real> States<T> {
    pub fn zero(shape: &NetShape, streams: usize) -> States<T> {
        let zero = |l: &LayerSpec| std::array::from_fn(|_| vec![T::zero(); streams * l.hidden]);
        States(shape.layers.iter().map(zero).collect())
    }

    /// All streams begin anew.
    pub fn clear(&mut self) {
        self.0.iter_mut().flatten().for_each(|numbers| numbers.fill(T::zero()));
    }
}

/// The weights, laid out for both ways.
#[derive(Debug)]
pub struct TrainNet<T> {
    pub shape: NetShape,
    chars: Vec<TrainLayer<T>>,
    /// The layers, or of those with two directions the one that reads forwards.
    layers: Vec<TrainLayer<T>>,
    reverse: Vec<Option<TrainLayer<T>>>,
    pub(super) head: Packed<T>,
    pub(super) head_back: Packed<T>,
    pub(super) tails: Vec<TrainTail<T>>,
}

impl<T: Real> TrainNet<T> {
    pub fn new(shape: &NetShape) -> TrainNet<T> {
        let layer = |(k, l): (usize, &LayerSpec)| TrainLayer::new(&l.direction(), shape.layer_input(k));
        let layers = shape.layers.iter().enumerate().map(layer).collect();
        let reverse = shape.layers.iter().enumerate().map(|(k, l)| l.bidirectional.then(|| layer((k, l)))).collect();
        let chars = shape
            .chars
            .as_ref()
            .map_or(Vec::new(), |c| (0..c.directions()).map(|_| TrainLayer::new(&c.layer(), c.dim)).collect());
        TrainNet {
            shape: shape.clone(),
            chars,
            layers,
            reverse,
            head: Packed::empty(),
            head_back: Packed::empty(),
            tails: TrainTail::all(shape),
        }
    }

    /// Takes the weights as they are now.
    pub fn set(&mut self, params: &Params<T>, threads: usize) {
        let shape = &self.shape;
        let chars = self.chars.iter_mut().enumerate().map(|(d, l)| (l, shape.char_layer_at(d)));
        let layers = self.layers.iter_mut().enumerate().map(|(k, l)| (l, shape.layer_at(k)));
        let reverse =
            self.reverse.iter_mut().enumerate().filter_map(|(k, l)| Some((l.as_mut()?, shape.reverse_at(k)?)));
        super::parallel::for_each(threads, layers.chain(reverse).chain(chars).collect(), |(layer, at)| {
            layer.set(params.layer(at))
        });
        let (top, classes) = (shape.top(), shape.classes);
        let weight = params.slice(shape.head_at());
        self.head.pack(weight, (1, top), top, classes);
        self.head_back.pack(weight, (top, 1), classes, top);
        self.tails.iter_mut().for_each(|tail| tail.set(shape, params));
    }

    /// Layer `k` over windows.
    fn ahead(&self, k: usize) -> AheadLayer<'_, T> {
        AheadLayer {
            k,
            forwards: &self.layers[k],
            backwards: self.reverse[k].as_ref(),
            hands_up: self.shape.last_reverse().is_some_and(|last| k < last),
        }
    }
}

/// How the loss is formed.
#[derive(Debug, Clone, Copy)]
pub struct LossSpec {
    /// The weights of all rows of all shards: the loss is the weighted mean of the cross-entropy, as in
    /// `torch.nn.functional.cross_entropy(…, weight=…)`.
    pub total_weight: f64,
    pub label_smoothing: f64,
    /// Classes are in order: a class that is d away from the right one is a target too, e^(-slope · d) times as likely.
    pub ordinal: Option<f64>,
}

/// What a shard's pass gave.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ShardLoss {
    /// This shard's part of the loss; the parts of all shards add up.
    pub loss: f64,
    pub rows: usize,
    pub correct: usize,
}

impl std::iter::Sum for ShardLoss {
    /// In the order of the shards.
    fn sum<I: Iterator<Item = ShardLoss>>(shards: I) -> ShardLoss {
        shards.fold(ShardLoss::default(), |all, one| ShardLoss {
            loss: all.loss + one.loss,
            rows: all.rows + one.rows,
            correct: all.correct + one.correct,
        })
    }
}

/// Working space and gradients of one shard.
#[derive(Debug)]
pub struct Worker<T> {
    /// Gradients of all parameters but the input tables.
    pub grads: Params<T>,
    /// Gradient at the network's input, `[rows, input]`: the rows of the tables' gradients.
    pub dx: Vec<T>,
    /// Table ids of the rows of `dx` (after word dropout).
    pub ids: Vec<u32>,
    /// ‖gradient at h_t‖² of each layer at each step of the chunk.
    pub flow: Vec<Vec<f64>>,
    xs: Vec<Vec<T>>,
    masks: Vec<Mask<T>>,
    tapes: Vec<Tape<T>>,
    ahead: Vec<AheadTape<T>>,
    words: UniqueWords<T>,
    pub(super) pool: Pool<T>,
    pool_mask: Mask<T>,
    /// What the head reads where outputs are pooled: the vectors, after dropout.
    pooled: Vec<T>,
    logits: Vec<T>,
    next: NextUnit<T>,
    chain: Chain,
    ctc: Ctc,
    dy: Vec<T>,
    /// What a residual layer passes by: its input before dropout, or on the way back the gradient at its output.
    past: Vec<T>,
    scratch: BackScratch<T>,
    packed: Packed<T>,
}

impl<T: Real> Worker<T> {
    pub fn new(shape: &NetShape, params: &Params<T>) -> Worker<T> {
        let layers = shape.layers.len();
        Worker {
            grads: params.zeros_like(),
            dx: Vec::new(),
            ids: Vec::new(),
            flow: vec![Vec::new(); layers],
            xs: vec![Vec::new(); layers + 1],
            masks: (0..=layers).map(|_| Mask::default()).collect(),
            tapes: (0..layers).map(|_| Tape::default()).collect(),
            ahead: (0..layers).map(|_| AheadTape::default()).collect(),
            words: UniqueWords::default(),
            pool: Pool::default(),
            pool_mask: Mask::default(),
            pooled: Vec::new(),
            logits: Vec::new(),
            next: NextUnit::default(),
            chain: Chain::default(),
            ctc: Ctc::default(),
            dy: Vec::new(),
            past: Vec::new(),
            scratch: BackScratch::default(),
            packed: Packed::empty(),
        }
    }

    /// Forwards and back over one chunk; leaves the gradients in `self` and the states after the chunk in `states`.
    pub fn run(
        &mut self,
        net: &TrainNet<T>,
        params: &Params<T>,
        batch: &TrainBatch,
        states: &mut States<T>,
        dropout: Option<&mut Dropout>,
        loss: LossSpec,
    ) -> ShardLoss {
        self.forward(net, params, batch, states, dropout);
        if batch.sizes.is_empty() {
            self.rest(net);
            return ShardLoss::default();
        }
        self.grads.slices_mut().skip(net.shape.tables.len()).for_each(|g| g.fill(T::zero()));
        let result = if net.shape.tells_next() {
            let y = &self.xs[net.layers.len()];
            self.next.run(net, params, batch, y, loss.total_weight, &mut self.grads, &mut self.dx)
        } else {
            let result = match net.shape.crf_at() {
                Some(at) => self.chain.chunk(params, at, batch, &mut self.logits, loss),
                None if net.shape.ctc => self.ctc.chunk(net.shape.classes, batch, &mut self.logits, loss),
                None => self.cross_entropy(net.shape.classes, batch, loss),
            };
            self.backward_head(net, params, batch);
            result
        };
        self.backward(net, batch);
        result
    }

    /// There is nothing to learn from: gradients are zero.
    fn rest(&mut self, net: &TrainNet<T>) {
        self.grads.slices_mut().skip(net.shape.tables.len()).for_each(|g| g.fill(T::zero()));
        self.dx.clear();
        self.ids.clear();
    }

    /// Only forwards, where outputs are pooled: for the steps before those that are learnt from.
    pub fn warm(
        &mut self,
        net: &TrainNet<T>,
        params: &Params<T>,
        batch: &TrainBatch,
        states: &mut States<T>,
        dropout: Option<&mut Dropout>,
    ) {
        self.forward_layers(net, params, batch, states, dropout);
        self.push_outputs(net, params, batch);
    }

    fn push_outputs(&mut self, net: &TrainNet<T>, params: &Params<T>, batch: &TrainBatch) {
        if let Some(pooling) = net.shape.pool {
            let query = net.shape.query_at().map_or(&[][..], |at| params.slice(at));
            self.pool.push(pooling, &self.xs[net.layers.len()], &batch.sizes, net.shape.top(), query);
        }
    }

    /// The layers' outputs, then the logits: of each row, or of each stream's pooled outputs.
    fn forward(
        &mut self,
        net: &TrainNet<T>,
        params: &Params<T>,
        batch: &TrainBatch,
        states: &mut States<T>,
        mut dropout: Option<&mut Dropout>,
    ) {
        self.forward_layers(net, params, batch, states, dropout.as_deref_mut());
        let shape = &net.shape;
        if shape.tells_next() {
            return;
        }
        let (head, top) = (shape.head_at(), shape.top());
        let (rows, x) = match shape.pool {
            None => (batch.sizes.iter().sum(), &self.xs[net.layers.len()]),
            Some(_) => {
                self.push_outputs(net, params, batch);
                self.pooled.clone_from(&self.pool.vectors);
                let p = dropout.as_ref().map_or(0.0, |d| d.layers);
                self.pool_mask.draw(dropout, p, self.pooled.len());
                self.pool_mask.apply(&mut self.pooled);
                (self.pooled.len() / top, &self.pooled)
            }
        };
        self.logits.resize(rows * shape.classes, T::zero());
        T::product(params.slice(head + 1), rows, x, &net.head, &mut self.logits);
    }

    fn forward_layers(
        &mut self,
        net: &TrainNet<T>,
        params: &Params<T>,
        batch: &TrainBatch,
        states: &mut States<T>,
        mut dropout: Option<&mut Dropout>,
    ) {
        let shape = &net.shape;
        let rows = batch.features.steps;
        self.ids.clear();
        self.ids.extend_from_slice(&batch.features.ids);
        if let Some(dropout) = &mut dropout {
            dropout.words(&mut self.ids, shape.tables.len());
        }
        if let Some(chars) = &shape.chars {
            self.words.forward(&net.chars, chars, params.slice(shape.char_embed_at()), &batch.features);
        }
        self.gather(shape, params, &batch.features, rows);
        let reset = batch.reset.iter().any(|&r| r).then_some(&batch.reset[..]);
        for k in 0..=net.layers.len() {
            self.past.clear();
            if shape.layers.get(k).is_some_and(|layer| layer.residual) {
                self.past.extend_from_slice(&self.xs[k]);
            }
            let p = match (&dropout, k) {
                (None, _) => 0.0,
                (Some(d), 0) => d.input,
                // Pooled outputs are dropped as a whole.
                (Some(_), k) if k == net.layers.len() && shape.pool.is_some() => 0.0,
                (Some(d), _) => d.layers,
            };
            self.masks[k].draw(dropout.as_deref_mut(), p, self.xs[k].len());
            self.masks[k].apply(&mut self.xs[k]);
            if let Some(layer) = net.layers.get(k) {
                let (below, above) = self.xs.split_at_mut(k + 1);
                let (x, y, tape) = (&below[k], &mut above[0], &mut self.tapes[k]);
                if let Some(windows) = &batch.windows {
                    let rows = Rows { windows, sizes: &batch.sizes, reset };
                    self.ahead[k].forward(&net.ahead(k), rows, x, &self.past, &mut states.0[k], tape, y);
                } else {
                    let [h, c] = &mut states.0[k];
                    layer.forward(x, &batch.sizes, reset, h, c, tape);
                    layer.output(tape, &self.past, y);
                }
            }
        }
    }

    /// The network's input: tables ++ character encoder ++ dense columns.
    fn gather(&mut self, shape: &NetShape, params: &Params<T>, f: &Features, rows: usize) {
        let (tables, dense) = (shape.tables.len(), shape.dense);
        let x = &mut self.xs[0];
        x.clear();
        x.reserve(rows * shape.input());
        for row in 0..rows {
            for (k, table) in shape.tables.iter().enumerate() {
                let id = self.ids[row * tables + k] as usize;
                x.extend_from_slice(&params.slice(shape.table_at(k))[id * table.dim..(id + 1) * table.dim]);
            }
            if shape.chars.is_some() {
                x.extend_from_slice(self.words.vector(row));
            }
            x.extend(f.dense[row * dense..(row + 1) * dense].iter().map(|&v| T::of(v as f64)));
        }
    }

    /// Cross-entropy of the softmax; turns the logits into their gradient.
    fn cross_entropy(&mut self, classes: usize, batch: &TrainBatch, spec: LossSpec) -> ShardLoss {
        let mut result = ShardLoss::default();
        T::softmax_rows(classes, &mut self.logits);
        let smooth = spec.label_smoothing / classes as f64;
        for ((p, &target), &weight) in self.logits.chunks_exact_mut(classes).zip(&batch.targets).zip(&batch.weights) {
            if target == NO_TARGET {
                p.fill(T::zero());
                continue;
            }
            let target = target as usize;
            let log = |p: T| p.f64().max(1e-30).ln();
            if let Some(slope) = spec.ordinal {
                let near = |k: usize| (-slope * k.abs_diff(target) as f64).exp();
                let all: f64 = (0..classes).map(near).sum();
                let weight = weight as f64 / spec.total_weight;
                result.loss -= weight * (0..classes).map(|k| near(k) / all * log(p[k])).sum::<f64>();
                result.rows += 1;
                result.correct += usize::from(p.iter().all(|&q| q <= p[target]));
                for (k, p) in p.iter_mut().enumerate() {
                    *p = (*p - T::of(near(k) / all)) * T::of(weight);
                }
                continue;
            }
            let mut entropy = -(1.0 - spec.label_smoothing) * log(p[target]);
            if smooth > 0.0 {
                entropy -= smooth * p.iter().map(|&p| log(p)).sum::<f64>();
            }
            let weight = weight as f64 / spec.total_weight;
            result.loss += weight * entropy;
            result.rows += 1;
            result.correct += usize::from(p.iter().all(|&q| q <= p[target]));
            p[target] -= T::of(1.0 - spec.label_smoothing);
            for p in p.iter_mut() {
                *p = (*p - T::of(smooth)) * T::of(weight);
            }
        }
        result
    }

    /// From the gradient at the logits to those of the head and, in `dx`, of what the layers put out.
    fn backward_head(&mut self, net: &TrainNet<T>, params: &Params<T>, batch: &TrainBatch) {
        let shape = &net.shape;
        let (top, classes, head) = (shape.top(), shape.classes, shape.head_at());
        let rows = self.logits.len() / classes;
        if let Some(at) = shape.crf_at() {
            for (k, grads) in self.chain.grads().into_iter().enumerate() {
                self.grads.slice_mut(at + k).iter_mut().zip(grads).for_each(|(to, x)| *to = T::of(*x));
            }
        }
        let x = if shape.pool.is_some() { &self.pooled } else { &self.xs[net.layers.len()] };
        add_outer(rows, &self.logits, classes, x, top, self.grads.slice_mut(head), &mut self.packed);
        add_columns(&self.logits, self.grads.slice_mut(head + 1));
        self.dx.clear();
        self.dx.resize(rows * top, T::zero());
        T::gemm(rows, &self.logits, (classes, 1), &net.head_back, &mut self.dx, top);
        if let Some(pooling) = shape.pool {
            std::mem::swap(&mut self.dy, &mut self.dx);
            self.pool_mask.apply(&mut self.dy);
            let (query, dquery) = match shape.query_at() {
                Some(at) => (params.slice(at), self.grads.slice_mut(at)),
                None => (&[][..], &mut [][..]),
            };
            let outputs = &self.xs[net.layers.len()];
            self.pool.backward(pooling, &self.dy, outputs, &batch.sizes, top, query, &mut self.dx, dquery);
        }
    }

    /// From the gradient at the layers' output, in `dx`, to the network's input.
    fn backward(&mut self, net: &TrainNet<T>, batch: &TrainBatch) {
        let shape = &net.shape;
        self.masks[net.layers.len()].apply(&mut self.dx);
        let reset = batch.reset.iter().any(|&r| r).then_some(&batch.reset[..]);
        for (k, layer) in net.layers.iter().enumerate().rev() {
            std::mem::swap(&mut self.dy, &mut self.dx);
            self.past.clear();
            if shape.layers[k].residual {
                self.past.extend_from_slice(&self.dy);
            }
            let (x, tape, s) = (&self.xs[k], &self.tapes[k], &mut self.scratch);
            if let Some(windows) = &batch.windows {
                let rows = Rows { windows, sizes: &batch.sizes, reset };
                let (into, dy, dx) = ((shape, &mut self.grads), &mut self.dy, &mut self.dx);
                self.ahead[k].backward(&net.ahead(k), rows, x, tape, dy, dx, into, s);
            } else {
                let grads = self.grads.layer_mut(shape.layer_at(k));
                layer.backward(x, &batch.sizes, reset, tape, &mut self.dy, Some(&mut self.dx), grads, s);
            }
            self.masks[k].apply(&mut self.dx);
            self.dx.iter_mut().zip(&self.past).for_each(|(dx, &dy)| *dx += dy);
            let mut row = 0;
            self.flow[k].clear();
            for &m in &batch.sizes {
                let at = &self.dy[row * layer.spec.hidden..(row + m) * layer.spec.hidden];
                self.flow[k].push(at.iter().map(|d| d.f64() * d.f64()).sum());
                row += m;
            }
        }
        if let Some(chars) = &shape.chars {
            let before: usize = shape.tables.iter().map(|t| t.dim).sum();
            let width = chars.directions() * chars.hidden;
            let dx = self.dx.chunks_exact(shape.input()).map(|row| &row[before..before + width]);
            self.words.backward(&net.chars, shape, dx, &mut self.grads, &mut self.scratch);
        }
    }
}

/// Adds the rows that shards contribute to the gradients of the input tables, shard after shard, row after row.
pub fn add_table_grads<T: Real>(shape: &NetShape, workers: &[Worker<T>], grads: &mut Params<T>) {
    let (tables, input) = (shape.tables.len(), shape.input());
    let mut column = 0;
    for (k, table) in shape.tables.iter().enumerate() {
        let grad = grads.slice_mut(shape.table_at(k));
        grad.fill(T::zero());
        for worker in workers {
            for (ids, dx) in worker.ids.chunks_exact(tables).zip(worker.dx.chunks_exact(input)) {
                let at = ids[k] as usize * table.dim;
                for (g, &d) in grad[at..at + table.dim].iter_mut().zip(&dx[column..column + table.dim]) {
                    *g += d;
                }
            }
        }
        column += table.dim;
    }
}
