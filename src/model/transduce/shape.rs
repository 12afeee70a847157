//! The parts of an encoder–decoder and the names of their weights.

use super::{Attention, DecoderSpec};
use crate::model::params::{Init, LayerAt, Params, Tensor, Tensors, recurrent};
use crate::rnn::LayerSpec;
use crate::rnn::real::Real;
use rand::Rng;

/// The shape of an encoder–decoder: with V_s and V_t units on either side,
///
/// - the encoder's layers over the source units' vectors put out m_1 … m_S, E wide each;
/// - the *bridge* makes the decoder's first h (and c) of each layer of what the encoder ended with, the last forward and
///   the first backward output, e: tanh(B e + b);
/// - the decoder's layers read the target unit before (with additive attention also the context c_t) and put out s_t, H wide;
/// - the *readout* is r_t = tanh(R x + b) of x = s_t, or `[s_t; c_t]` (general), or `[s_t; c_t; y_{t-1}]` (additive);
/// - the *head* gives the scores of the units before the softmax.
#[derive(Debug, Clone, PartialEq)]
pub struct TransduceShape {
    /// Rows and width of the source units' vectors.
    pub source: (usize, usize),
    pub encoder: Vec<LayerSpec>,
    pub target: (usize, usize),
    pub decoder: Vec<LayerSpec>,
    pub attention: Attention,
    /// Width of queries and keys of additive attention.
    pub inner: usize,
    pub readout: usize,
}

impl TransduceShape {
    pub fn new(source: (usize, usize), encoder: &[LayerSpec], target: usize, spec: &DecoderSpec) -> TransduceShape {
        let top = spec.layers.last().map_or(0, |layer| layer.hidden);
        TransduceShape {
            source,
            encoder: encoder.to_vec(),
            target: (target, spec.dim),
            decoder: spec.layers.clone(),
            attention: spec.attention,
            inner: spec.inner.unwrap_or(top),
            readout: spec.readout.unwrap_or(top),
        }
    }

    /// First values of all weights.
    pub fn random<T: Real>(&self, rng: &mut impl Rng) -> Params<T> {
        Params::drawn(self, rng)
    }

    /// Says which layer cannot be what it is asked to be.
    pub fn check(&self) -> Result<(), String> {
        for (side, layers, input) in
            [("encoder", &self.encoder, self.source.1), ("decoder", &self.decoder, self.decoder_input(0))]
        {
            let mut input = input;
            for (k, layer) in layers.iter().enumerate() {
                layer.check(input).map_err(|e| format!("{side}, layer {k}: {e}"))?;
                input = layer.output();
            }
        }
        Ok(())
    }

    /// E: width of the encoder's outputs.
    pub fn memory(&self) -> usize {
        self.encoder.last().map_or(0, LayerSpec::output)
    }

    /// H: width of the decoder's outputs.
    pub fn top(&self) -> usize {
        self.decoder.last().map_or(0, LayerSpec::output)
    }

    /// Width of the keys that a decoder's step is compared with.
    pub fn key(&self) -> usize {
        match self.attention {
            Attention::None => 0,
            Attention::Luong => self.top(),
            Attention::Bahdanau => self.inner,
        }
    }

    pub fn encoder_input(&self, k: usize) -> usize {
        if k == 0 { self.source.1 } else { self.encoder[k - 1].output() }
    }

    pub fn decoder_input(&self, k: usize) -> usize {
        match k {
            0 if self.attention == Attention::Bahdanau => self.target.1 + self.memory(),
            0 => self.target.1,
            _ => self.decoder[k - 1].output(),
        }
    }

    /// Width of what the readout reads.
    pub fn readout_input(&self) -> usize {
        self.top()
            + match self.attention {
                Attention::None => 0,
                Attention::Luong => self.memory(),
                Attention::Bahdanau => self.memory() + self.target.1,
            }
    }

    /// Numbers of the bridge's output for layer `k`: h, and c where the cell has one.
    pub fn bridge(&self, k: usize) -> usize {
        self.decoder[k].cell.state() * self.decoder[k].hidden
    }

    /// Where the tensors are.
    pub fn places(&self) -> Places {
        let mut next = 1;
        let layer = |next: &mut usize, layer: &LayerSpec| {
            let at = LayerAt::new(*next, layer);
            *next = at.end();
            at
        };
        let mut encoder = Vec::new();
        for spec in &self.encoder {
            let forwards = layer(&mut next, spec);
            encoder.push((forwards, spec.bidirectional.then(|| layer(&mut next, spec))));
        }
        let bridge = next;
        next += 2 * self.decoder.len();
        let target_embed = next;
        next += 1;
        let decoder = self.decoder.iter().map(|spec| layer(&mut next, spec)).collect();
        let attention = next;
        next += match self.attention {
            Attention::None => 0,
            Attention::Luong => 1,
            Attention::Bahdanau => 4,
        };
        Places { source_embed: 0, encoder, bridge, target_embed, decoder, attention, readout: next, head: next + 2 }
    }
}

/// Positions of the tensors in [`crate::model::params::Params`]; where there is a bias, it follows its weight.
#[derive(Debug, Clone)]
pub struct Places {
    pub source_embed: usize,
    /// Of each layer the direction that reads forwards, and the other.
    pub encoder: Vec<(LayerAt, Option<LayerAt>)>,
    /// Weight and bias for each layer of the decoder.
    pub bridge: usize,
    pub target_embed: usize,
    pub decoder: Vec<LayerAt>,
    /// The keys' weight; of additive attention then their bias, the query's weight and the energy.
    pub attention: usize,
    pub readout: usize,
    pub head: usize,
}

impl Tensors for TransduceShape {
    fn tensors(&self) -> Vec<Tensor> {
        let mut all = Vec::new();
        let uniform = |width: usize| Init::Uniform(1.0 / (width as f64).sqrt());
        all.push(("encoder.embed.weight".into(), vec![self.source.0, self.source.1], Init::Normal(0.1)));
        for (k, layer) in self.encoder.iter().enumerate() {
            for at in [format!("l{k}"), format!("l{k}_reverse")].iter().take(layer.directions()) {
                recurrent(&mut all, "encoder.rnn", at, layer, self.encoder_input(k));
            }
        }
        let memory = self.memory();
        for k in 0..self.decoder.len() {
            all.push((format!("bridge.{k}.weight"), vec![self.bridge(k), memory], uniform(memory)));
            all.push((format!("bridge.{k}.bias"), vec![self.bridge(k)], uniform(memory)));
        }
        all.push(("decoder.embed.weight".into(), vec![self.target.0, self.target.1], Init::Normal(0.1)));
        for (k, layer) in self.decoder.iter().enumerate() {
            recurrent(&mut all, "decoder.rnn", &format!("l{k}"), layer, self.decoder_input(k));
        }
        if self.attention != Attention::None {
            all.push(("attention.key.weight".into(), vec![self.key(), memory], uniform(memory)));
        }
        if self.attention == Attention::Bahdanau {
            all.push(("attention.key.bias".into(), vec![self.inner], uniform(memory)));
            all.push(("attention.query.weight".into(), vec![self.inner, self.top()], uniform(self.top())));
            all.push(("attention.energy.weight".into(), vec![1, self.inner], uniform(self.inner)));
        }
        let reads = self.readout_input();
        all.push(("readout.weight".into(), vec![self.readout, reads], uniform(reads)));
        all.push(("readout.bias".into(), vec![self.readout], uniform(reads)));
        all.push(("head.weight".into(), vec![self.target.0, self.readout], uniform(self.readout)));
        all.push(("head.bias".into(), vec![self.target.0], uniform(self.readout)));
        all
    }
}
