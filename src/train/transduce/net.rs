//! The weights of an encoder–decoder laid out for both ways; made once per step of optimisation, shared by all threads.

use crate::model::Attention;
use crate::model::params::Params;
use crate::model::transduce::{Places, TransduceShape};
use crate::rnn::bptt::{TrainLayer, add_columns, add_outer};
use crate::rnn::kernel::Packed;
use crate::rnn::real::Real;
use crate::train::parallel::for_each;

/// y = W x + b, W `[output, input]`; b is 0 where there is none.
#[derive(Debug)]
pub struct Linear<T> {
    pub input: usize,
    pub output: usize,
    forwards: Packed<T>,
    backwards: Packed<T>,
    bias: Vec<T>,
}

impl<T: Real> Linear<T> {
    pub fn new(input: usize, output: usize) -> Linear<T> {
        let (forwards, backwards) = (Packed::empty(), Packed::empty());
        Linear { input, output, forwards, backwards, bias: vec![T::zero(); output] }
    }

    pub fn set(&mut self, weight: &[T], bias: Option<&[T]>) {
        self.forwards.pack(weight, (1, self.input), self.input, self.output);
        self.backwards.pack(weight, (self.input, 1), self.output, self.input);
        self.bias.iter_mut().zip(bias.unwrap_or_default()).for_each(|(to, &b)| *to = b);
    }

    /// `out` becomes y `[rows, output]` of `x` `[rows, input]`.
    pub fn run(&self, rows: usize, x: &[T], out: &mut Vec<T>) {
        out.resize(rows * self.output, T::zero());
        T::product(&self.bias, rows, x, &self.forwards, out);
    }

    /// Adds to `dx` `[rows, input]` what comes of `dy` `[rows, output]`.
    pub fn back(&self, rows: usize, dy: &[T], dx: &mut [T]) {
        T::gemm(rows, dy, (self.output, 1), &self.backwards, dx, self.input);
    }

    /// Adds to the gradients of W at `at`, and if it has one of b behind it.
    #[allow(clippy::too_many_arguments)]
    pub fn grads(
        &self,
        rows: usize,
        dy: &[T],
        x: &[T],
        grads: &mut Params<T>,
        at: usize,
        has_bias: bool,
        packed: &mut Packed<T>,
    ) {
        add_outer(rows, dy, self.output, x, self.input, grads.slice_mut(at), packed);
        if has_bias {
            add_columns(&dy[..rows * self.output], grads.slice_mut(at + 1));
        }
    }
}

/// The weights, laid out for both ways.
#[derive(Debug)]
pub struct TrainTransducer<T> {
    pub shape: TransduceShape,
    pub places: Places,
    /// Of each layer the direction that reads forwards, and the other.
    pub encoder: Vec<(TrainLayer<T>, Option<TrainLayer<T>>)>,
    pub bridge: Vec<Linear<T>>,
    pub decoder: Vec<TrainLayer<T>>,
    pub key: Linear<T>,
    pub query: Linear<T>,
    pub readout: Linear<T>,
    pub head: Linear<T>,
}

impl<T: Real> TrainTransducer<T> {
    pub fn new(shape: &TransduceShape) -> TrainTransducer<T> {
        let encoder = (shape.encoder.iter().enumerate())
            .map(|(k, layer)| {
                let direction = || TrainLayer::new(&layer.direction(), shape.encoder_input(k));
                (direction(), layer.bidirectional.then(direction))
            })
            .collect();
        let layers = shape.decoder.iter().enumerate();
        let query = if shape.attention == Attention::Bahdanau { shape.inner } else { 0 };
        TrainTransducer {
            places: shape.places(),
            encoder,
            bridge: (0..shape.decoder.len()).map(|k| Linear::new(shape.memory(), shape.bridge(k))).collect(),
            decoder: layers.map(|(k, layer)| TrainLayer::new(layer, shape.decoder_input(k))).collect(),
            key: Linear::new(shape.memory(), shape.key()),
            query: Linear::new(shape.top(), query),
            readout: Linear::new(shape.readout_input(), shape.readout),
            head: Linear::new(shape.readout, shape.target.0),
            shape: shape.clone(),
        }
    }

    /// Takes the weights as they are now.
    pub fn set(&mut self, params: &Params<T>, threads: usize) {
        let places = &self.places;
        let mut layers = Vec::new();
        for ((forwards, backwards), (at, reverse_at)) in self.encoder.iter_mut().zip(&places.encoder) {
            layers.push((forwards, *at));
            layers.extend(backwards.as_mut().zip(*reverse_at));
        }
        layers.extend(self.decoder.iter_mut().zip(places.decoder.iter().copied()));
        for_each(threads, layers, |(layer, at)| layer.set(params.layer(at)));
        let mut linears: Vec<(&mut Linear<T>, usize, bool)> = Vec::new();
        for (k, bridge) in self.bridge.iter_mut().enumerate() {
            linears.push((bridge, places.bridge + 2 * k, true));
        }
        let additive = self.shape.attention == Attention::Bahdanau;
        if self.shape.attention != Attention::None {
            linears.push((&mut self.key, places.attention, additive));
        }
        if additive {
            linears.push((&mut self.query, places.attention + 2, false));
        }
        linears.push((&mut self.readout, places.readout, true));
        linears.push((&mut self.head, places.head, true));
        for_each(threads, linears, |(linear, at, has_bias)| {
            linear.set(params.slice(at), has_bias.then(|| params.slice(at + 1)));
        });
    }
}
