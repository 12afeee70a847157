//! The parameters of a network: names, shapes, first values.

use super::adaptive::UnitSoftmax;
use super::decode::DecodeKind;
use super::notes::WrittenShape;
use super::pool::Pooling;
use super::spec::{ModelSpec, Task};
use crate::encode::{EncoderSpec, Layout, TableShape};
use crate::rnn::ahead::Window;
use crate::rnn::bptt::LayerGrads;
use crate::rnn::layer::LayerWeights;
use crate::rnn::real::Real;
use crate::rnn::{Cell, LayerSpec};
use ndarray::ArrayD;
use rand::{Rng, RngExt};

/// The shape of a whole network: input tables, character encoder, recurrent layers, head.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NetShape {
    pub tables: Vec<TableShape>,
    pub chars: Option<CharNetShape>,
    pub dense: usize,
    pub layers: Vec<LayerSpec>,
    pub classes: usize,
    /// The head reads the pooled outputs of a stream, not the output of each step.
    pub pool: Option<Pooling>,
    /// What the directions that read backwards see; there is one if and only if a layer is bidirectional.
    pub window: Option<Window>,
    /// The head reads the output of each step and gives the probabilities of the next unit.
    pub language: Option<UnitSoftmax>,
    /// The classes of neighbouring steps are scored together ([`super::decode`]).
    pub crf: bool,
    /// Of the task `generate`; none of the rest.
    pub written: WrittenShape,
    /// The head reads the output of each step, and what all steps read as together is what counts ([`super::transcribe`]).
    pub ctc: bool,
}

/// The recurrent character encoder: the last h over a word's characters, forwards and (if asked) backwards.
#[derive(Debug, Clone, PartialEq)]
pub struct CharNetShape {
    pub rows: usize,
    pub dim: usize,
    pub hidden: usize,
    pub cell: Cell,
    pub bidirectional: bool,
}

impl CharNetShape {
    /// The layer of one direction.
    pub fn layer(&self) -> LayerSpec {
        LayerSpec::new(self.cell, self.hidden)
    }

    pub fn directions(&self) -> usize {
        1 + usize::from(self.bidirectional)
    }
}

/// How a tensor's first values are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Init {
    /// Normal, mean 0, this standard deviation.
    Normal(f64),
    /// Uniform in ±bound, as PyTorch's recurrent and linear layers.
    Uniform(f64),
    /// This number.
    All(f64),
}

/// The name of a tensor, its shape and its first values.
pub(crate) type Tensor = (String, Vec<usize>, Init);

/// The tensors that a network is made of, in order.
pub(crate) trait Tensors {
    fn tensors(&self) -> Vec<Tensor>;
}

/// Appends the tensors of one direction of a recurrent layer, named as PyTorch names them.
pub(crate) fn recurrent(all: &mut Vec<Tensor>, prefix: &str, at: &str, layer: &LayerSpec, input: usize) {
    let hidden = layer.hidden;
    let (gates, init) = (layer.cell.gates() * hidden, Init::Uniform(1.0 / (hidden as f64).sqrt()));
    all.push((format!("{prefix}.weight_ih_{at}"), vec![gates, input], init));
    all.push((format!("{prefix}.weight_hh_{at}"), vec![gates, hidden], init));
    all.push((format!("{prefix}.bias_ih_{at}"), vec![gates], init));
    all.push((format!("{prefix}.bias_hh_{at}"), vec![gates], init));
    if layer.cell == Cell::LstmPeephole {
        all.push((format!("{prefix}.peephole_{at}"), vec![3 * hidden], init));
    }
    if layer.layer_norm {
        all.push((format!("{prefix}.norm_{at}.weight"), vec![hidden], Init::All(1.0)));
        all.push((format!("{prefix}.norm_{at}.bias"), vec![hidden], Init::All(0.0)));
    }
}

/// The tensors of one recurrent layer, as positions in [`Params`]: `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`; then
/// the peepholes, then weight and bias of the normalisation, where the layer has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerAt {
    pub first: usize,
    peephole: bool,
    norm: bool,
}

impl LayerAt {
    pub(crate) fn new(first: usize, layer: &LayerSpec) -> LayerAt {
        LayerAt { first, peephole: layer.cell == Cell::LstmPeephole, norm: layer.layer_norm }
    }

    /// The position after the last.
    pub(crate) fn end(self) -> usize {
        self.first + 4 + usize::from(self.peephole) + 2 * usize::from(self.norm)
    }
}

impl NetShape {
    /// The shape of the network that this specification asks for, over input laid out like this.
    ///
    /// # Errors
    /// Says which class counts for no label.
    pub fn of(spec: &ModelSpec, layout: &Layout) -> Result<NetShape, String> {
        let chars = match (&spec.encoder, layout.chars) {
            (EncoderSpec::Words(w), Some(rows)) => Some(CharNetShape {
                rows,
                dim: w.char_dim,
                hidden: w.char_hidden,
                cell: w.char_cell,
                bidirectional: w.char_bidirectional,
            }),
            _ => None,
        };
        let units = layout.tables.first().map_or(0, |table| table.rows);
        let language = spec.language.as_ref().map(|language| UnitSoftmax::of(language, units)).transpose()?;
        Ok(NetShape {
            tables: layout.tables.clone(),
            chars,
            dense: layout.dense,
            layers: spec.layers.clone(),
            classes: match (&spec.encoder, &language) {
                (EncoderSpec::Notes(notes), _) => notes.pitches(),
                (_, Some(language)) => language.head(),
                _ => spec.class_labels()?.len(),
            },
            pool: spec.pooling(),
            window: spec.window(),
            language,
            crf: spec.decode.as_ref().is_some_and(|decode| decode.kind == DecodeKind::Crf),
            written: WrittenShape::of(spec),
            ctc: spec.task == Task::Transcribe,
        })
    }

    /// Width of the first layer's input: tables ++ character encoder ++ dense columns.
    pub fn input(&self) -> usize {
        let chars = self.chars.as_ref().map_or(0, |c| c.directions() * c.hidden);
        self.tables.iter().map(|t| t.dim).sum::<usize>() + chars + self.dense
    }

    /// Says which layer cannot be what it is asked to be.
    pub fn check(&self) -> Result<(), String> {
        let mut layers = self.layers.iter().enumerate();
        layers.try_for_each(|(k, layer)| layer.check(self.layer_input(k)).map_err(|e| format!("layer {k}: {e}")))
    }

    /// Input width of layer `k`.
    pub fn layer_input(&self, k: usize) -> usize {
        if k == 0 { self.input() } else { self.layers[k - 1].output() }
    }

    /// Width of what the head reads.
    pub fn top(&self) -> usize {
        self.layers.last().map_or(self.input(), LayerSpec::output)
    }

    pub fn table_at(&self, table: usize) -> usize {
        table
    }

    pub fn char_embed_at(&self) -> usize {
        self.tables.len()
    }

    /// # Panics
    /// If the network has no character encoder.
    pub fn char_layer_at(&self, direction: usize) -> LayerAt {
        let layer = self.chars.as_ref().expect("the network has a character encoder").layer();
        let forwards = LayerAt::new(self.char_embed_at() + 1, &layer);
        if direction == 0 { forwards } else { LayerAt::new(forwards.end(), &layer) }
    }

    pub fn layer_at(&self, k: usize) -> LayerAt {
        LayerAt::new(self.layers_end(k), &self.layers[k])
    }

    /// The direction of layer `k` that reads backwards, if there is one.
    pub fn reverse_at(&self, k: usize) -> Option<LayerAt> {
        let layer = &self.layers[k];
        layer.bidirectional.then(|| LayerAt::new(self.layer_at(k).end(), layer))
    }

    /// The last layer of which a direction reads backwards.
    pub fn last_reverse(&self) -> Option<usize> {
        self.layers.iter().rposition(|layer| layer.bidirectional)
    }

    /// The position after the tensors of the layers below `k`.
    fn layers_end(&self, k: usize) -> usize {
        let below = match &self.chars {
            Some(chars) => self.char_layer_at(chars.directions() - 1).end(),
            None => self.tables.len(),
        };
        let directions = self.layers[..k].iter().flat_map(|layer| std::iter::repeat_n(layer, layer.directions()));
        directions.fold(below, |first, layer| LayerAt::new(first, layer).end())
    }

    /// The head's weight; its bias follows.
    pub fn head_at(&self) -> usize {
        self.layers_end(self.layers.len())
    }

    /// What attention compares every output with.
    pub fn query_at(&self) -> Option<usize> {
        (self.pool == Some(Pooling::Attention)).then(|| self.head_at() + 2)
    }

    /// Whether the output of each step tells of the next one.
    pub fn tells_next(&self) -> bool {
        self.language.is_some() || self.written.notes.is_some()
    }

    /// What the head reads before a stream's first unit, of a language model; a row for each class of streams.
    pub fn start_at(&self) -> usize {
        self.head_at() + 2
    }

    /// The projection of cluster `i` of an adaptive softmax; its weights follow.
    pub fn tail_at(&self, i: usize) -> usize {
        self.start_at() + 1 + 2 * i
    }

    /// A CRF's transition scores; its start and end scores follow.
    pub fn crf_at(&self) -> Option<usize> {
        self.crf.then(|| self.head_at() + 2)
    }
}

impl Tensors for NetShape {
    /// Names, shapes and first values of all tensors, in the order of the `*_at` positions.
    fn tensors(&self) -> Vec<Tensor> {
        let mut all = Vec::new();
        for t in &self.tables {
            all.push((format!("tables.{}.weight", t.name), vec![t.rows, t.dim], Init::Normal(0.1)));
        }
        if let Some(c) = &self.chars {
            all.push(("chars.embed.weight".into(), vec![c.rows, c.dim], Init::Normal(0.1)));
            for direction in ["chars.fwd", "chars.bwd"].iter().take(c.directions()) {
                recurrent(&mut all, direction, "l0", &c.layer(), c.dim);
            }
        }
        for (k, layer) in self.layers.iter().enumerate() {
            for at in [format!("l{k}"), format!("l{k}_reverse")].iter().take(layer.directions()) {
                recurrent(&mut all, "rnn", at, layer, self.layer_input(k));
            }
        }
        let bound = Init::Uniform(1.0 / (self.top() as f64).sqrt());
        all.push(("head.weight".into(), vec![self.classes, self.top()], bound));
        all.push(("head.bias".into(), vec![self.classes], bound));
        if self.query_at().is_some() {
            all.push(("pool.query".into(), vec![self.top()], bound));
        }
        if self.tells_next() {
            let dims = match self.written.classes {
                0 => vec![self.top()],
                classes => vec![classes, self.top()],
            };
            all.push(("start".into(), dims, Init::All(0.0)));
        }
        if let Some(softmax) = &self.language {
            for i in 0..softmax.clusters() {
                let (narrow, bound) =
                    (softmax.narrow(i, self.top()), |n: usize| Init::Uniform(1.0 / (n as f64).sqrt()));
                all.push((format!("tail.{i}.0.weight"), vec![narrow, self.top()], bound(self.top())));
                all.push((format!("tail.{i}.1.weight"), vec![softmax.cluster(i).len(), narrow], bound(narrow)));
            }
        }
        if self.crf {
            let first = Init::Uniform(0.1);
            all.push(("crf.transitions".into(), vec![self.classes, self.classes], first));
            all.push(("crf.start".into(), vec![self.classes], first));
            all.push(("crf.end".into(), vec![self.classes], first));
        }
        all
    }
}

/// All parameters of a network, in the order of [`NetShape`]'s positions.
#[derive(Debug, Clone, PartialEq)]
pub struct Params<T> {
    pub(super) names: Vec<String>,
    pub(super) values: Vec<ArrayD<T>>,
}

impl<T: Real> Params<T> {
    /// As [`Params::drawn`] says.
    pub fn random(shape: &NetShape, rng: &mut impl Rng) -> Params<T> {
        Params::drawn(shape, rng)
    }

    /// First values: tables from N(0, 0.1²), weights of normalisations 1 and their biases 0, all else uniform in
    /// ±1/√hidden as PyTorch's layers.
    pub(crate) fn drawn(shape: &impl Tensors, rng: &mut impl Rng) -> Params<T> {
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for (name, dims, init) in shape.tensors() {
            let mut draw = || match init {
                Init::All(x) => x,
                Init::Uniform(bound) => rng.random_range(-bound..bound),
                Init::Normal(deviation) => {
                    // Box and Muller 1958.
                    let (u, v): (f64, f64) = (rng.random_range(f64::MIN_POSITIVE..1.0), rng.random());
                    deviation * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
                }
            };
            names.push(name);
            values.push(ArrayD::from_shape_simple_fn(dims, || T::of(draw())));
        }
        Params { names, values }
    }

    /// The same names and shapes, all zero.
    pub fn zeros_like(&self) -> Params<T> {
        let values = self.values.iter().map(|v| ArrayD::zeros(v.raw_dim())).collect();
        Params { names: self.names.clone(), values }
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub fn name(&self, at: usize) -> &str {
        &self.names[at]
    }

    pub fn dims(&self, at: usize) -> &[usize] {
        self.values[at].shape()
    }

    /// Numbers in all tensors.
    pub fn count(&self) -> usize {
        self.values.iter().map(|v| v.len()).sum()
    }

    pub fn slice(&self, at: usize) -> &[T] {
        self.values[at].as_slice().expect("parameters are made in standard layout")
    }

    pub fn slice_mut(&mut self, at: usize) -> &mut [T] {
        self.values[at].as_slice_mut().expect("parameters are made in standard layout")
    }

    /// A tensor's numbers, of which none are left here.
    pub(crate) fn take(&mut self, at: usize) -> Vec<T> {
        let (numbers, offset) = std::mem::take(&mut self.values[at]).into_raw_vec_and_offset();
        debug_assert_eq!(offset.unwrap_or(0), 0, "parameters are made in standard layout");
        numbers
    }

    /// All tensors' numbers, in order.
    pub fn slices_mut(&mut self) -> impl Iterator<Item = &mut [T]> {
        self.values.iter_mut().map(|v| v.as_slice_mut().expect("parameters are made in standard layout"))
    }

    /// The tensors of a recurrent layer.
    pub fn layer(&self, at: LayerAt) -> LayerWeights<'_, T> {
        let mut all = (at.first..at.end()).map(|k| self.slice(k));
        let mut next = || all.next().expect("a layer's tensors are those of its positions");
        LayerWeights {
            w_ih: next(),
            w_hh: next(),
            b_ih: next(),
            b_hh: next(),
            peephole: if at.peephole { next() } else { Default::default() },
            norm: at.norm.then(|| [next(), next()]),
        }
    }

    /// The tensors of a recurrent layer, to be added to.
    pub fn layer_mut(&mut self, at: LayerAt) -> LayerGrads<'_, T> {
        let mut all = self.values[at.first..at.end()]
            .iter_mut()
            .map(|v| v.as_slice_mut().expect("parameters are made in standard layout"));
        let mut next = || all.next().expect("a layer's tensors are those of its positions");
        LayerGrads {
            w_ih: next(),
            w_hh: next(),
            b_ih: next(),
            b_hh: next(),
            peephole: if at.peephole { next() } else { Default::default() },
            norm: at.norm.then(|| [next(), next()]),
        }
    }
}
