//! The network at work: features of many streams in, class probabilities out.

use super::adaptive::UnitHead;
use super::lookahead::{AheadLane, AheadScratch};
use super::lookup::Lookup;
use super::params::{CharNetShape, NetShape, Params};
use crate::encode::Features;
use crate::rnn::LayerSpec;
use crate::rnn::ahead::Windows;
use crate::rnn::kernel::{self, Start};
use crate::rnn::layer::{Layer, LayerScratch};
use crate::rnn::matrix::{Matrix, Precision};
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

/// Rows that go through the layers at once; longer input is cut in time, which changes no bit of the results.
const MAX_ROWS: usize = 4096;

/// Numbers of gates that one layer has at a time, where a step of a stream does not need more: they stay in the second-level
/// cache between the product with the input, that with h and the activation.
const CACHED_NUMBERS: usize = 128 << 10;

/// The same where no layer holds them so long ([`Layer::is_joint`]): what stays in the cache then is the streams' states,
/// from where they are gathered to where they are put back.
const CACHED_IF_JOINT: usize = 32 << 10;

/// Numbers that any one buffer of the working space holds at most, where a single step does not need more: through a
/// wide layer go fewer rows at once, so that memory follows from the weights and not from what `model.toml` promises.
pub(super) const MAX_NUMBERS: usize = 8 << 20;

/// Words whose character encoding is remembered, a thread.
const MAX_CACHED_WORDS: usize = 16_384;

/// A network ready to run. Immutable.
#[derive(Debug)]
pub struct Network {
    shape: NetShape,
    tables: Vec<Vec<f32>>,
    char_embed: Vec<f32>,
    char_layers: Vec<Layer>,
    layers: Vec<Layer>,
    /// Of each layer the direction that reads backwards, if it has one.
    reverse: Vec<Option<Layer>>,
    /// The first layer's product with the first table, if there is one.
    lookup: Option<Lookup>,
    head: Matrix,
    head_bias: Vec<f32>,
    /// For attention.
    query: Vec<f32>,
    /// For language models.
    pub(super) units: Option<UnitHead>,
    /// What the head reads before a stream's first step, `[classes of streams, top]`, where outputs tell of what is next.
    start: Vec<f32>,
}

/// One stream's part of a call of [`Network::forward`].
pub struct Lane<'a> {
    pub features: &'a Features,
    /// h (and c) of every layer, `[Network::state_len]`; goes from before the first step to after the last.
    pub state: &'a mut [f32],
    /// Class probabilities, `[steps, classes]`, appended; from [`Network::outputs_range`] outputs, `[steps, top]`.
    pub probabilities: &'a mut Vec<f32>,
}

/// One thread's working space.
#[derive(Default)]
pub struct Scratch {
    pub(super) x: Vec<f32>,
    pub(super) y: Vec<f32>,
    pub(super) logits: Vec<f32>,
    pub(super) sizes: Vec<usize>,
    pub(super) states: Vec<f32>,
    layer: LayerScratch,
    words: WordCache,
    pub(super) ahead: AheadScratch,
    /// Threads that a lone long stream may take: this one, and another if more than 1.
    pub threads: usize,
    /// The other thread's.
    pub(super) upper: Option<Box<Scratch>>,
}

impl Network {
    pub fn new(shape: &NetShape, params: &Params<f32>) -> Network {
        Network::with_precision(shape, params, Precision::F32)
    }

    /// As [`Network::new`], its matrices held in this precision.
    pub fn with_precision(shape: &NetShape, params: &Params<f32>, precision: Precision) -> Network {
        Network::without_tables(shape, params, precision).with_tables(Cow::Borrowed(params))
    }

    /// As [`Network::with_precision`], to be completed by [`Network::with_tables`].
    pub(super) fn without_tables(shape: &NetShape, params: &Params<f32>, precision: Precision) -> Network {
        let new = |spec: &LayerSpec, input, at| Layer::with_precision(spec, input, params.layer(at), precision);
        let chars = shape.chars.as_ref();
        let char_layers = chars.map_or(Vec::new(), |c| {
            (0..c.directions()).map(|d| new(&c.layer(), c.dim, shape.char_layer_at(d))).collect()
        });
        let is_looked_up = Lookup::serves(shape);
        let layers: Vec<Layer> = (shape.layers.iter().enumerate())
            .map(|(k, l)| match k == 0 && is_looked_up {
                true => Layer::of_gates(&l.direction(), shape.input(), params.layer(shape.layer_at(0)), precision),
                false => new(&l.direction(), shape.layer_input(k), shape.layer_at(k)),
            })
            .collect();
        let reverse = (shape.layers.iter().enumerate())
            .map(|(k, l)| {
                let at = shape.reverse_at(k)?;
                Some(new(&l.direction(), shape.layer_input(k), at))
            })
            .collect();
        let head = shape.head_at();
        Network {
            tables: Vec::new(),
            char_embed: Vec::new(),
            char_layers,
            lookup: layers.first().and_then(|first| Lookup::new(shape, params, first.bias(), precision)),
            layers,
            reverse,
            head: Matrix::new(params.slice(head), [shape.top(), shape.classes], precision),
            head_bias: params.slice(head + 1).to_vec(),
            query: shape.query_at().map_or(Vec::new(), |at| params.slice(at).to_vec()),
            units: shape.language.as_ref().map(|softmax| UnitHead::new(softmax, shape, params, precision)),
            start: if shape.tells_next() { params.slice(shape.start_at()).to_vec() } else { Vec::new() },
            shape: shape.clone(),
        }
    }

    /// With the tables of `params`, which are in no other precision.
    pub(super) fn with_tables(mut self, mut params: Cow<'_, Params<f32>>) -> Network {
        let mut table = |at| match &mut params {
            Cow::Owned(params) => params.take(at),
            Cow::Borrowed(params) => params.slice(at).to_vec(),
        };
        self.tables = (0..self.shape.tables.len()).map(|t| table(self.shape.table_at(t))).collect();
        if self.shape.chars.is_some() {
            self.char_embed = table(self.shape.char_embed_at());
        }
        self
    }

    /// What the head reads before the first step of a stream of this class (0: of any), `[top]`; empty where outputs do not
    /// tell of what is next.
    pub fn start(&self, class: usize) -> &[f32] {
        let top = self.shape.top();
        self.start.get(class * top..(class + 1) * top).unwrap_or_default()
    }

    /// A network of nothing: a translator's steps are sentences, and go through another.
    pub(super) fn empty() -> Network {
        let shape = NetShape { layers: Vec::new(), classes: 0, ..NetShape::default() };
        Network {
            shape,
            tables: Vec::new(),
            char_embed: Vec::new(),
            char_layers: Vec::new(),
            layers: Vec::new(),
            reverse: Vec::new(),
            lookup: None,
            head: Matrix::empty(),
            head_bias: Vec::new(),
            query: Vec::new(),
            units: None,
            start: Vec::new(),
        }
    }

    pub fn shape(&self) -> &NetShape {
        &self.shape
    }

    /// The layers, or of those with two directions the one that reads forwards.
    pub(super) fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The direction of layer `k` that reads backwards.
    pub(super) fn reverse(&self, k: usize) -> Option<&Layer> {
        self.reverse[k].as_ref()
    }

    /// Numbers that a classifier carries of what it has pooled of a stream, or a language model of its last output.
    pub fn pool_len(&self) -> usize {
        match (self.shape.tells_next(), self.shape.pool) {
            (true, _) => 1 + self.shape.top(),
            (false, pool) => pool.map_or(0, |pool| pool.numbers(self.shape.top())),
        }
    }

    /// Numbers in one stream's state.
    pub fn state_len(&self) -> usize {
        self.layers.iter().map(|l| l.cell().state() * l.hidden()).sum()
    }

    /// Rows of a window: [`MAX_ROWS`], or fewer through wide layers.
    pub(super) fn most_rows(&self) -> usize {
        let wide = |layer: &Layer| layer.cell().gates() * layer.hidden();
        let layers = self.layers.iter().map(wide).max().unwrap_or(0);
        // A language model's head has windows of its own.
        let classes = if self.units.is_some() { 0 } else { self.shape.classes };
        MAX_ROWS.min(MAX_NUMBERS / layers.max(self.shape.input()).max(classes).max(1))
    }

    /// Rows of a window whose gates stay in the cache.
    fn cached_rows(&self) -> usize {
        let widest = self.layers.iter().map(Layer::width).max().unwrap_or(0).max(1);
        // Each sweep reads all weights.
        let fewest = self.layers.iter().map(Layer::rows_together).max().unwrap_or(1);
        let numbers = if self.layers.iter().all(Layer::is_joint) { CACHED_IF_JOINT } else { CACHED_NUMBERS };
        (numbers / widest).max(fewest).min(self.most_rows())
    }

    /// Runs all steps of all lanes. What a lane gets is bit for bit the same whatever the other lanes are and however
    /// its steps were cut into calls.
    pub fn forward(&self, lanes: &mut [Lane<'_>], s: &mut Scratch) {
        self.forward_range(lanes, 0..usize::MAX, s);
    }

    /// As [`Network::forward`], for those steps of every lane.
    pub fn forward_range(&self, lanes: &mut [Lane<'_>], steps: Range<usize>, s: &mut Scratch) {
        self.windows(lanes, steps, true, s);
    }

    /// As [`Network::forward_range`], but hands out what the head would read.
    pub fn outputs_range(&self, lanes: &mut [Lane<'_>], steps: Range<usize>, s: &mut Scratch) {
        self.windows(lanes, steps, false, s);
    }

    fn windows(&self, lanes: &mut [Lane<'_>], steps: Range<usize>, with_head: bool, s: &mut Scratch) {
        if let [lane] = lanes
            && s.threads > 1
        {
            let steps = steps.start..steps.end.min(lane.features.steps);
            if self.makes_waves(steps.len()) {
                return self.wave(lane, steps, with_head, s);
            }
        }
        lanes.sort_unstable_by_key(|lane| std::cmp::Reverse(lane.features.steps));
        let most_rows = self.cached_rows();
        for lanes in lanes.chunks_mut(most_rows) {
            self.windows_of(lanes, steps.clone(), most_rows, with_head, s);
        }
    }

    /// As [`Network::forward_range`], of lanes that all fit in a window of so many rows.
    fn windows_of(
        &self,
        lanes: &mut [Lane<'_>],
        steps: Range<usize>,
        most_rows: usize,
        with_head: bool,
        s: &mut Scratch,
    ) {
        let longest = lanes.first().map_or(0, |lane| lane.features.steps).min(steps.end);
        let mut from = steps.start;
        while from < longest {
            s.sizes.clear();
            let (mut rows, mut step) = (0, from);
            let mut active = lanes.len();
            while step < longest {
                while active > 0 && lanes[active - 1].features.steps <= step {
                    active -= 1;
                }
                if rows > 0 && rows + active > most_rows {
                    break;
                }
                s.sizes.push(active);
                rows += active;
                step += 1;
            }
            self.window(lanes, from, rows, with_head, s);
            from = step;
        }
    }

    /// Steps `from ..` of all lanes, as many as `s.sizes` says.
    fn window(&self, lanes: &mut [Lane<'_>], from: usize, rows: usize, with_head: bool, s: &mut Scratch) {
        self.gather(lanes, from, rows, s);
        self.first_gates(lanes, from, rows, s);
        let streams = s.sizes[0];
        let mut at = 0;
        for (k, layer) in self.layers.iter().enumerate() {
            let (hidden, parts) = (layer.hidden(), layer.cell().state());
            s.states.clear();
            for part in 0..parts {
                for lane in &lanes[..streams] {
                    s.states.extend_from_slice(&lane.state[at + part * hidden..at + (part + 1) * hidden]);
                }
            }
            let mut states = std::mem::take(&mut s.states);
            let (h, c) = states.split_at_mut(streams * hidden);
            self.layer_of(k, h, c, s);
            s.states = states;
            for part in 0..parts {
                for (k, lane) in lanes[..streams].iter_mut().enumerate() {
                    let row = (part * streams + k) * hidden;
                    lane.state[at + part * hidden..at + (part + 1) * hidden]
                        .copy_from_slice(&s.states[row..row + hidden]);
                }
            }
            at += parts * hidden;
        }
        let (values, width) = match with_head {
            true => {
                self.logits(&s.x, rows, &mut s.logits);
                (kernel::active().softmax_rows)(self.shape.classes, &mut s.logits);
                (&s.logits, self.shape.classes)
            }
            false => (&s.x, self.shape.top()),
        };
        let mut row = values.chunks_exact(width);
        for &m in &s.sizes {
            for lane in &mut lanes[..m] {
                lane.probabilities.extend_from_slice(row.next().unwrap_or_default());
            }
        }
    }

    /// Where the first layer's product is looked up: its gates of the window's steps, into `s.layer`.
    pub(super) fn first_gates(&self, lanes: &[Lane<'_>], from: usize, rows: usize, s: &mut Scratch) {
        if let Some(lookup) = &self.lookup {
            s.layer.gates.resize(rows * self.layers[0].width(), 0.0);
            let tables = self.tables.len();
            let ids = steps_of(lanes, from, &s.sizes).map(|(features, step)| features.ids[step * tables] as usize);
            lookup.gates(ids, &self.tables[0], &s.x, &mut s.layer.gates);
        }
    }

    /// One layer over the rows of a window: from `s.x` to `s.x`. The first finds its gates in `s.layer`, if they are looked up.
    pub(super) fn layer_of(&self, k: usize, h: &mut [f32], c: &mut [f32], s: &mut Scratch) {
        if k == 0 && self.lookup.is_some() {
            self.layers[0].steps(&s.sizes, h, c, &mut s.y, None, &mut s.layer);
        } else {
            self.layers[k].forward(&s.x, &s.sizes, h, c, &mut s.y, &mut s.layer);
        }
        std::mem::swap(&mut s.x, &mut s.y);
    }

    /// What the head makes of `x` `[rows, top]`, before the softmax, `[rows, classes]`.
    pub fn logits(&self, x: &[f32], rows: usize, out: &mut Vec<f32>) {
        out.resize(rows * self.shape.classes, 0.0);
        self.head.product(Start::Row(&self.head_bias), rows, x, out, self.shape.classes);
    }

    /// What attention compares every output with; empty for other poolings.
    pub fn query(&self) -> &[f32] {
        &self.query
    }

    /// Fills `s.x` `[rows, input]` with the input of the window's steps, less the first table if that is looked up.
    pub(super) fn gather(&self, lanes: &[Lane<'_>], from: usize, rows: usize, s: &mut Scratch) {
        let steps = steps_of(lanes, from, &s.sizes);
        let skip = usize::from(self.lookup.is_some());
        s.words.encode_new(self, steps.clone(), &mut s.layer);
        s.x.clear();
        s.x.reserve(rows * self.shape.input());
        steps.for_each(|(features, step)| self.input_of(features, step, skip, &s.words, &mut s.x));
    }

    /// The same for windows that see ahead: first the main rows, from step `from` on, then those ahead.
    pub(super) fn gather_ahead(&self, lanes: &[AheadLane<'_>], from: usize, windows: &Windows, s: &mut Scratch) {
        let main = (s.sizes.iter().enumerate())
            .flat_map(|(t, &m)| lanes[..m].iter().map(move |lane| (lane.lane.features, from + t)));
        let ahead = windows.ahead_rows.iter().map(|&(stream, step)| (lanes[stream].lane.features, step));
        let steps = main.chain(ahead);
        s.words.encode_new(self, steps.clone(), &mut s.layer);
        s.x.clear();
        s.x.reserve(windows.rows() * self.shape.input());
        steps.for_each(|(features, step)| self.input_of(features, step, 0, &s.words, &mut s.x));
    }

    /// Adds the input of one step to `x`, without the first `skip` tables; its word is in `words`.
    fn input_of(&self, f: &Features, step: usize, skip: usize, words: &WordCache, x: &mut Vec<f32>) {
        let (tables, dense) = (self.tables.len(), self.shape.dense);
        for (k, table) in self.tables.iter().enumerate().skip(skip) {
            let (id, dim) = (f.ids[step * tables + k] as usize, self.shape.tables[k].dim);
            x.extend_from_slice(&table[id * dim..(id + 1) * dim]);
        }
        if self.shape.chars.is_some() {
            words.append(word(f, step), x);
        }
        x.extend_from_slice(&f.dense[step * dense..(step + 1) * dense]);
    }
}

/// The steps of a window, in the order of its rows: each stream's features and the step there.
fn steps_of<'a>(
    lanes: &'a [Lane<'_>],
    from: usize,
    sizes: &'a [usize],
) -> impl Iterator<Item = (&'a Features, usize)> + Clone {
    (sizes.iter().enumerate()).flat_map(move |(t, &m)| lanes[..m].iter().map(move |lane| (lane.features, from + t)))
}

/// The characters of one step's word.
fn word(f: &Features, step: usize) -> &[u32] {
    let start = if step == 0 { 0 } else { f.char_ends[step - 1] as usize };
    &f.chars[start..f.char_ends[step] as usize]
}

/// Character encodings of words seen lately. A word's encoding does not depend on where it stands, so remembering it
/// changes nothing but the time.
#[derive(Default)]
struct WordCache {
    known: HashMap<Box<[u32]>, u32>,
    vectors: Vec<f32>,
    width: usize,
    // Working space.
    x: Vec<f32>,
    y: Vec<f32>,
    h: Vec<f32>,
    c: Vec<f32>,
    sizes: Vec<usize>,
}

impl WordCache {
    /// Encodes the words of these steps that are not known yet, all together.
    fn encode_new<'a>(
        &mut self,
        net: &Network,
        steps: impl Iterator<Item = (&'a Features, usize)>,
        layer_scratch: &mut LayerScratch,
    ) {
        let Some(shape) = &net.shape.chars else { return };
        self.width = shape.directions() * shape.hidden;
        if self.known.len() > MAX_CACHED_WORDS.min(MAX_NUMBERS / self.width) {
            self.known.clear();
            self.vectors.clear();
        }
        let mut new: Vec<&[u32]> = Vec::new();
        for (features, step) in steps {
            let word = word(features, step);
            if !self.known.contains_key(word) {
                new.push(word);
            }
        }
        new.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        new.dedup();
        if new.is_empty() {
            return;
        }
        let wide = shape.dim.max(shape.cell.gates() * shape.hidden);
        let mut rest = &new[..];
        while let Some(longest) = rest.first() {
            // The longest come first: none of the others needs more.
            let fit = MAX_NUMBERS / (wide * longest.len().max(1));
            let (words, later) = rest.split_at(fit.clamp(1, rest.len()));
            self.encode(net, shape, words, layer_scratch);
            rest = later;
        }
    }

    /// Encodes these words, the longest first.
    fn encode(&mut self, net: &Network, shape: &CharNetShape, new: &[&[u32]], layer_scratch: &mut LayerScratch) {
        let (first, hidden) = (self.known.len(), shape.hidden);
        self.vectors.resize((first + new.len()) * self.width, 0.0);
        self.sizes.clear();
        self.sizes.extend((0..new[0].len()).map(|t| new.partition_point(|w| w.len() > t)));
        for (direction, layer) in net.char_layers.iter().enumerate() {
            self.x.clear();
            for (t, &m) in self.sizes.iter().enumerate() {
                for word in &new[..m] {
                    let id = word[if direction == 0 { t } else { word.len() - 1 - t }] as usize;
                    self.x.extend_from_slice(&net.char_embed[id * shape.dim..(id + 1) * shape.dim]);
                }
            }
            for state in [&mut self.h, &mut self.c] {
                state.clear();
                state.resize(new.len() * hidden, 0.0);
            }
            layer.forward(&self.x, &self.sizes, &mut self.h, &mut self.c, &mut self.y, layer_scratch);
            for (k, h) in self.h.chunks_exact(hidden).enumerate() {
                let at = (first + k) * self.width + direction * hidden;
                self.vectors[at..at + hidden].copy_from_slice(h);
            }
        }
        for (k, word) in new.iter().enumerate() {
            self.known.insert((*word).into(), (first + k) as u32);
        }
    }

    fn append(&self, word: &[u32], x: &mut Vec<f32>) {
        let k = self.known[word] as usize;
        x.extend_from_slice(&self.vectors[k * self.width..(k + 1) * self.width]);
    }
}
