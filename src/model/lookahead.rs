//! Bidirectional layers at work, with bounded look-ahead: a label is final a few steps after its own. How windows are cut
//! and laid out is in [`crate::rnn::ahead`]; this is the network over them, and `[look_ahead]` of a `model.toml`.

use super::network::{Lane, Network, Scratch};
use super::spec::Task;
use crate::rnn::LayerSpec;
use crate::rnn::ahead::{Part, Window, Windows, gather, join};
use crate::rnn::kernel;
use crate::rnn::layer::{Layer, LayerScratch, Trace};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// A stream's end is looked for this far: what bidirectional layers without `[look_ahead]` see.
pub(crate) const WHOLE: Window = Window { block: 1 << 14, right: 0 };

/// The largest look-ahead: as much waits in every stream's state.
const MOST_STEPS: usize = 1024;

/// `[look_ahead]`: how far bidirectional layers see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LookAhead {
    /// A label is final so many steps after its own, or sooner.
    pub steps: usize,
    /// Steps whose labels become final together; they share what is read ahead. At most `steps + 1`; absent: a quarter of
    /// `steps`, and one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
}

impl LookAhead {
    /// How windows are cut.
    pub fn window(self) -> Window {
        let block = self.block.unwrap_or(1 + self.steps / 4);
        Window { block, right: (self.steps + 1).saturating_sub(block) }
    }
}

/// Says what does not go together.
pub fn check(task: Task, layers: &[LayerSpec], look_ahead: Option<&LookAhead>) -> Result<(), String> {
    let bidirectional = layers.iter().any(|layer| layer.bidirectional);
    if task == Task::Transduce {
        return match look_ahead {
            None => Ok(()),
            Some(_) => Err("[look_ahead] is not for task \"transduce\": it reads whole sentences".into()),
        };
    }
    if bidirectional && !matches!(task, Task::Tag | Task::Transcribe) {
        let tasks = "\"tag\" and \"transcribe\"";
        return Err(format!("bidirectional layers are for task {tasks}: other tasks have no label that could wait"));
    }
    let Some(look_ahead) = look_ahead else { return Ok(()) };
    if !bidirectional {
        return Err("[look_ahead] is for bidirectional layers: set bidirectional = true in one of the layers".into());
    }
    if look_ahead.steps > MOST_STEPS {
        return Err(format!("look_ahead.steps = {}: must be at most {MOST_STEPS}", look_ahead.steps));
    }
    match look_ahead.block {
        Some(block) if block == 0 || block > look_ahead.steps + 1 => {
            Err(format!("look_ahead.block = {block}: must be 1 to look_ahead.steps + 1 = {}", look_ahead.steps + 1))
        }
        _ => Ok(()),
    }
}

/// One stream's part of a call of [`Network::forward_ahead`].
pub struct AheadLane<'a> {
    pub lane: Lane<'a>,
    /// Its first steps, that are to be labelled: what [`Window::ready`] says. The others are only seen.
    pub ready: usize,
}

/// Working space.
#[derive(Default)]
pub(super) struct AheadScratch {
    windows: Windows,
    parts: Vec<Part>,
    /// Row of each step's first stream.
    first_row: Vec<usize>,
    trace: Trace,
    x: Vec<f32>,
    forwards: Vec<f32>,
    ahead: Vec<f32>,
    backwards: Vec<f32>,
    h: Vec<f32>,
    c: Vec<f32>,
    layer: LayerScratch,
}

impl AheadScratch {
    /// h and c of so many windows, zero.
    fn begin(&mut self, numbers: usize) {
        for state in [&mut self.h, &mut self.c] {
            state.clear();
            state.resize(numbers, 0.0);
        }
    }
}

impl Network {
    /// Labels the steps of those blocks of all lanes (counted from the first step that waits) that are ready; probabilities
    /// are appended, `[steps, classes]`. What a lane gets is bit for bit the same whatever the other lanes are and however
    /// its steps were cut into calls.
    ///
    /// # Panics
    /// If no layer is bidirectional.
    pub fn forward_ahead(&self, lanes: &mut [AheadLane<'_>], blocks: Range<usize>, s: &mut Scratch) {
        let window = self.shape().window.expect("a network that looks ahead has bidirectional layers");
        lanes.sort_unstable_by_key(|lane| std::cmp::Reverse(lane.ready));
        let longest = lanes.first().map_or(0, |lane| lane.ready.div_ceil(window.block));
        let most_rows = self.most_rows();
        let mut block = blocks.start;
        while block < blocks.end.min(longest) {
            let first = block * window.block;
            let active = lanes.partition_point(|lane| lane.ready > first);
            let a_window = |lane: &AheadLane<'_>| (lane.lane.features.steps - first).min(window.block + window.right);
            // So many streams, or of them all so many blocks, as fit.
            let (mut rows, mut streams) = (0, 0);
            while streams < active && (streams == 0 || rows + a_window(&lanes[streams]) <= most_rows) {
                rows += a_window(&lanes[streams]);
                streams += 1;
            }
            if streams < active {
                for from in (0..active).step_by(streams) {
                    self.blocks(&mut lanes[from..active.min(from + streams)], window, block..block + 1, s);
                }
                block += 1;
                continue;
            }
            let end = (block + (most_rows / rows).max(1)).min(blocks.end).min(longest);
            self.blocks(&mut lanes[..active], window, block..end, s);
            block = end;
        }
    }

    /// Those blocks of all lanes, at once. Each lane has the first of them.
    fn blocks(&self, lanes: &mut [AheadLane<'_>], window: Window, blocks: Range<usize>, s: &mut Scratch) {
        let (from, to) = (blocks.start * window.block, blocks.end.saturating_mul(window.block));
        let mut ahead = std::mem::take(&mut s.ahead);
        s.sizes.clear();
        ahead.first_row.clear();
        let mut rows = 0;
        for step in from..to {
            let active = lanes.partition_point(|lane| lane.ready > step);
            if active == 0 {
                break;
            }
            s.sizes.push(active);
            ahead.first_row.push(rows);
            rows += active;
        }
        ahead.parts.clear();
        for (stream, lane) in lanes.iter().enumerate() {
            let (ready, steps) = (lane.ready.min(to), lane.lane.features.steps);
            for first in (from..ready).step_by(window.block) {
                let block = window.block.min(ready - first);
                let steps = (block + window.right).min(steps - first);
                ahead.parts.push(Part { stream, from: first, block, steps });
            }
        }
        let AheadScratch { windows, parts, first_row, .. } = &mut ahead;
        windows.lay(parts, rows, |stream, step| first_row[step - from] + stream);
        self.gather_ahead(lanes, from, &ahead.windows, s);
        self.layers_ahead(lanes, &mut ahead, s);
        self.logits(&s.x, rows, &mut s.logits);
        (kernel::active().softmax_rows)(self.shape().classes, &mut s.logits);
        let mut row = s.logits.chunks_exact(self.shape().classes);
        for &m in &s.sizes {
            for lane in &mut lanes[..m] {
                lane.lane.probabilities.extend_from_slice(row.next().unwrap_or_default());
            }
        }
        s.ahead = ahead;
    }

    /// From the input of all rows in `s.x` to the output of the main rows there.
    fn layers_ahead(&self, lanes: &mut [AheadLane<'_>], a: &mut AheadScratch, s: &mut Scratch) {
        let streams = s.sizes[0];
        let last = self.shape().last_reverse();
        let mut at = 0;
        for (k, layer) in self.layers().iter().enumerate() {
            let (hidden, parts, input) = (layer.hidden(), layer.cell().state(), layer.input());
            let main = a.windows.main;
            s.states.clear();
            for part in 0..parts {
                for lane in &lanes[..streams] {
                    let from = at + part * hidden;
                    s.states.extend_from_slice(&lane.lane.state[from..from + hidden]);
                }
            }
            let (h, c) = s.states.split_at_mut(streams * hidden);
            // Above the last layer that reads backwards nobody looks at the rows ahead.
            let sees_ahead = last.is_some_and(|last| k < last);
            let trace = sees_ahead.then_some(&mut a.trace);
            layer.forward_traced(&s.x[..main * input], &s.sizes, h, c, &mut a.forwards, trace, &mut a.layer);
            if sees_ahead && !a.windows.ahead_rows.is_empty() {
                gather(&a.trace.h, hidden, &a.windows.ahead_after, &mut a.h);
                a.c.clear();
                if layer.cell().has_c() {
                    gather(&a.trace.c, hidden, &a.windows.ahead_after, &mut a.c);
                }
                let (x, sizes) = (&s.x[main * input..], &a.windows.ahead_sizes);
                layer.forward(x, sizes, &mut a.h, &mut a.c, &mut a.ahead, &mut a.layer);
                a.forwards.extend_from_slice(&a.ahead);
            }
            match self.reverse(k) {
                None => std::mem::swap(&mut s.x, &mut a.forwards),
                Some(reverse) => {
                    self.backwards(reverse, &s.x, a);
                    let rows = a.forwards.len() / hidden;
                    join(&a.forwards, &a.backwards, hidden, &a.windows.back_rows, &mut s.y);
                    if self.shape().layers[k].residual {
                        s.y.iter_mut().zip(&s.x[..rows * input]).for_each(|(y, &x)| *y += x);
                    }
                    std::mem::swap(&mut s.x, &mut s.y);
                }
            }
            for part in 0..parts {
                for (k, lane) in lanes[..streams].iter_mut().enumerate() {
                    let (from, row) = (at + part * hidden, (part * streams + k) * hidden);
                    lane.lane.state[from..from + hidden].copy_from_slice(&s.states[row..row + hidden]);
                }
            }
            at += parts * hidden;
        }
    }

    /// Reads every window backwards: `a.backwards` in the order in which they are read.
    fn backwards(&self, layer: &Layer, x: &[f32], a: &mut AheadScratch) {
        let windows = a.windows.back_sizes.first().copied().unwrap_or(0);
        a.begin(windows * layer.hidden());
        gather(x, layer.input(), &a.windows.back_rows, &mut a.x);
        let AheadScratch { windows, x, h, c, backwards, layer: scratch, .. } = a;
        layer.forward(x, &windows.back_sizes, h, c, backwards, scratch);
    }
}
