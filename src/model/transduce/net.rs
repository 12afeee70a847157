//! The encoder–decoder at work: sentences in, then the decoder one step at a time for any number of hypotheses. What comes
//! of a row does not depend on the others.

use super::{Attention, TransduceShape};
use crate::model::params::Params;
use crate::rnn::LayerSpec;
use crate::rnn::ahead::{gather, join};
use crate::rnn::attention;
use crate::rnn::kernel::{self, Start};
use crate::rnn::layer::{Layer, LayerScratch};
use crate::rnn::matrix::{Matrix, Precision};

/// y = W x + b
#[derive(Debug)]
struct Linear {
    output: usize,
    weight: Matrix,
    bias: Vec<f32>,
}

impl Linear {
    fn new(
        params: &Params<f32>,
        at: usize,
        [input, output]: [usize; 2],
        has_bias: bool,
        precision: Precision,
    ) -> Linear {
        let bias = if has_bias { params.slice(at + 1).to_vec() } else { vec![0.0; output] };
        Linear { output, weight: Matrix::new(params.slice(at), [input, output], precision), bias }
    }

    fn run(&self, rows: usize, x: &[f32], out: &mut Vec<f32>) {
        out.resize(rows * self.output, 0.0);
        self.weight.product(Start::Row(&self.bias), rows, x, out, self.output);
    }
}

/// A network ready to translate. Immutable.
#[derive(Debug)]
pub struct Transducer {
    shape: TransduceShape,
    source: Vec<f32>,
    encoder: Vec<(Layer, Option<Layer>)>,
    bridge: Vec<Linear>,
    target: Vec<f32>,
    decoder: Vec<Layer>,
    key: Option<Linear>,
    query: Option<Linear>,
    energy: Vec<f32>,
    readout: Linear,
    head: Linear,
}

/// What is known of a sentence.
#[derive(Debug, Default)]
pub struct Read {
    /// The encoder's outputs `[steps, E]`, and the keys made of them.
    memory: Vec<f32>,
    keys: Vec<f32>,
    /// The decoder's first state.
    pub state: Vec<f32>,
}

/// Where a hypothesis stands: its sentence, the last unit, and the states of the layers.
pub struct Row<'a> {
    pub read: &'a Read,
    pub unit: u32,
    /// `[state_len]`; goes from before the step to after it.
    pub state: &'a mut [f32],
    /// The step of the source that had most attention; 0 without attention.
    pub looked_at: usize,
}

impl Transducer {
    pub fn new(shape: &TransduceShape, params: &Params<f32>) -> Transducer {
        Transducer::with_precision(shape, params, Precision::F32)
    }

    /// As [`Transducer::new`], its matrices held in this precision.
    pub fn with_precision(shape: &TransduceShape, params: &Params<f32>, precision: Precision) -> Transducer {
        let new = |spec: &LayerSpec, input, at| Layer::with_precision(spec, input, params.layer(at), precision);
        let linear = |at, sizes, has_bias| Linear::new(params, at, sizes, has_bias, precision);
        let places = shape.places();
        let encoder = (shape.encoder.iter().zip(&places.encoder).enumerate())
            .map(|(k, (spec, (at, reverse_at)))| {
                let layer = |at| new(&spec.direction(), shape.encoder_input(k), at);
                (layer(*at), reverse_at.map(layer))
            })
            .collect();
        let decoder = (shape.decoder.iter().zip(&places.decoder).enumerate())
            .map(|(k, (spec, at))| new(spec, shape.decoder_input(k), *at))
            .collect();
        let additive = shape.attention == Attention::Bahdanau;
        let (memory, top, at) = (shape.memory(), shape.top(), places.attention);
        Transducer {
            source: params.slice(places.source_embed).to_vec(),
            encoder,
            bridge: (0..shape.decoder.len())
                .map(|k| linear(places.bridge + 2 * k, [memory, shape.bridge(k)], true))
                .collect(),
            target: params.slice(places.target_embed).to_vec(),
            decoder,
            key: (shape.attention != Attention::None).then(|| linear(at, [memory, shape.key()], additive)),
            query: additive.then(|| linear(at + 2, [top, shape.inner], false)),
            energy: if additive { params.slice(at + 3).to_vec() } else { Vec::new() },
            readout: linear(places.readout, [shape.readout_input(), shape.readout], true),
            head: linear(places.head, [shape.readout, shape.target.0], true),
            shape: shape.clone(),
        }
    }

    pub fn shape(&self) -> &TransduceShape {
        &self.shape
    }

    /// Units of the target, the marks included.
    pub fn units(&self) -> usize {
        self.head.output
    }

    /// Reads sentences, each with its end, all together.
    pub fn read(&self, sentences: &[Vec<u32>]) -> Vec<Read> {
        let mut order: Vec<usize> = (0..sentences.len()).collect();
        order.sort_by_key(|&k| std::cmp::Reverse(sentences[k].len()));
        let lengths: Vec<usize> = order.iter().map(|&k| sentences[k].len()).collect();
        let sizes: Vec<usize> =
            (0..lengths.first().copied().unwrap_or(0)).map(|t| lengths.partition_point(|&l| l > t)).collect();
        let starts: Vec<usize> = sizes.iter().scan(0, |row, &m| Some(std::mem::replace(row, *row + m))).collect();
        let dim = self.shape.source.1;
        let (mut x, mut y, mut turn) = (Vec::new(), Vec::new(), Vec::new());
        for (step, &m) in sizes.iter().enumerate() {
            for k in 0..m {
                let id = sentences[order[k]][step] as usize;
                x.extend_from_slice(&self.source[id * dim..(id + 1) * dim]);
                turn.push(starts[lengths[k] - 1 - step] + k);
            }
        }
        let (mut turned, mut other, mut scratch) = (Vec::new(), Vec::new(), LayerScratch::default());
        for ((forwards, backwards), spec) in self.encoder.iter().zip(&self.shape.encoder) {
            let zeros = || vec![0.0; lengths.len() * forwards.hidden()];
            let (mut h, mut c) = (zeros(), zeros());
            forwards.forward(&x, &sizes, &mut h, &mut c, &mut y, &mut scratch);
            if let Some(backwards) = backwards {
                gather(&x, backwards.input(), &turn, &mut turned);
                let (mut h, mut c, one) = (zeros(), zeros(), std::mem::take(&mut y));
                backwards.forward(&turned, &sizes, &mut h, &mut c, &mut other, &mut scratch);
                join(&one, &other, forwards.hidden(), &turn, &mut y);
                if spec.residual {
                    y.iter_mut().zip(&x).for_each(|(y, &x)| *y += x);
                }
            }
            std::mem::swap(&mut x, &mut y);
        }
        let width = self.shape.memory();
        let forwards = self.shape.encoder.last().map_or(0, |layer| layer.hidden);
        let at = |row: usize| &x[row * width..(row + 1) * width];
        let mut reads: Vec<Read> = sentences.iter().map(|_| Read::default()).collect();
        for (k, &length) in lengths.iter().enumerate() {
            let mut read = Read::default();
            (0..length).for_each(|step| read.memory.extend_from_slice(at(starts[step] + k)));
            if let Some(key) = &self.key {
                key.run(length, &read.memory, &mut read.keys);
            }
            let last = [&at(starts[length - 1] + k)[..forwards], &at(k)[forwards..]].concat();
            let mut begun = Vec::new();
            for bridge in &self.bridge {
                bridge.run(1, &last, &mut begun);
                (kernel::active().tanh_all)(&mut begun);
                read.state.extend_from_slice(&begun);
            }
            reads[order[k]] = read;
        }
        reads
    }

    /// One step of the decoder for all `rows`: the probabilities of the next unit, `[rows, units]`.
    pub fn step(&self, rows: &mut [Row<'_>], probabilities: &mut Vec<f32>) {
        let (count, shape, dim) = (rows.len(), &self.shape, self.shape.target.1);
        let (width, top) = (shape.memory(), shape.top());
        let mut x = Vec::with_capacity(count * shape.decoder_input(0));
        let mut contexts = vec![0.0; count * width];
        let (mut weights, mut bent, mut queries) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(query) = &self.query {
            // The top layer's h.
            let from = |row: &Row<'_>| row.state.len() - shape.bridge(shape.decoder.len() - 1);
            let before: Vec<f32> =
                rows.iter().flat_map(|row| &row.state[from(row)..from(row) + top]).copied().collect();
            query.run(count, &before, &mut queries);
        }
        for (k, row) in rows.iter_mut().enumerate() {
            let embedded = &self.target[row.unit as usize * dim..(row.unit as usize + 1) * dim];
            x.extend_from_slice(embedded);
            if self.query.is_some() {
                let inner = shape.inner;
                weights.resize(row.read.keys.len() / inner, 0.0);
                bent.resize(row.read.keys.len(), 0.0);
                let query = &queries[k * inner..(k + 1) * inner];
                attention::additive(query, &row.read.keys, &self.energy, &mut weights, &mut bent);
                let context = &mut contexts[k * width..(k + 1) * width];
                attention::context(&weights, &row.read.memory, context);
                x.extend_from_slice(context);
                row.looked_at = most(&weights);
            }
        }
        let (mut y, mut scratch, mut at) = (Vec::new(), LayerScratch::default(), 0);
        for layer in &self.decoder {
            let hidden = layer.hidden();
            let part = |rows: &[Row<'_>], from: usize| -> Vec<f32> {
                rows.iter().flat_map(|row| &row.state[from..from + hidden]).copied().collect()
            };
            let mut h = part(rows, at);
            let mut c = if layer.cell().has_c() { part(rows, at + hidden) } else { Vec::new() };
            layer.forward(&x, &[count], &mut h, &mut c, &mut y, &mut scratch);
            for (k, row) in rows.iter_mut().enumerate() {
                row.state[at..at + hidden].copy_from_slice(&h[k * hidden..(k + 1) * hidden]);
                if layer.cell().has_c() {
                    row.state[at + hidden..at + 2 * hidden].copy_from_slice(&c[k * hidden..(k + 1) * hidden]);
                }
            }
            at += layer.cell().state() * hidden;
            std::mem::swap(&mut x, &mut y);
        }
        let mut reads = Vec::with_capacity(count * shape.readout_input());
        for (k, row) in rows.iter_mut().enumerate() {
            let state = &x[k * top..(k + 1) * top];
            reads.extend_from_slice(state);
            let context = &mut contexts[k * width..(k + 1) * width];
            if shape.attention == Attention::Luong {
                weights.resize(row.read.keys.len() / top, 0.0);
                attention::general(state, &row.read.keys, &mut weights);
                attention::context(&weights, &row.read.memory, context);
                row.looked_at = most(&weights);
            }
            if shape.attention != Attention::None {
                reads.extend_from_slice(context);
            }
            if shape.attention == Attention::Bahdanau {
                reads.extend_from_slice(&self.target[row.unit as usize * dim..(row.unit as usize + 1) * dim]);
            }
        }
        let mut bent = Vec::new();
        self.readout.run(count, &reads, &mut bent);
        (kernel::active().tanh_all)(&mut bent);
        self.head.run(count, &bent, probabilities);
        (kernel::active().softmax_rows)(self.units(), probabilities);
    }
}

/// The place of the largest weight, of equals the first.
fn most(weights: &[f32]) -> usize {
    (0..weights.len()).fold(0, |best, k| if weights[k] > weights[best] { k } else { best })
}
