//! One long stream on two threads: while the lower layers are at one chunk of its steps, the upper ones are at the chunk
//! before (Appleyard, Kočiský and Blunsom 2016). Each thread keeps its own layers' weights in its core's cache. The bits are
//! those of one thread: a layer does the same operations, only elsewhere.

use super::network::{Lane, Network, Scratch};
use crate::rnn::kernel;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Steps of a chunk: many enough that their input product is one of matrices, few enough that nobody waits for long.
const CHUNK: usize = 64;

/// Fewer steps are not worth a thread's start.
const FEWEST: usize = 8 * CHUNK;

/// What the lower layers hand up.
struct Chunk {
    steps: usize,
    y: Vec<f32>,
}

impl Network {
    /// Whether [`Network::wave`] serves these steps of a lone stream.
    pub(super) fn makes_waves(&self, steps: usize) -> bool {
        steps >= FEWEST && self.shape().layers.len() >= 2 && self.shape().window.is_none()
    }

    /// These steps of one stream, as [`Network::forward_range`] (`with_head`) or [`Network::outputs_range`], on this thread
    /// and another.
    pub(super) fn wave(&self, lane: &mut Lane<'_>, steps: Range<usize>, with_head: bool, s: &mut Scratch) {
        let lower = self.lower_layers();
        let (below, above) = lane.state.split_at_mut(self.state_of(0..lower));
        let (probabilities, features) = (&mut *lane.probabilities, lane.features);
        let mut of_other = s.upper.take().unwrap_or_default();
        let upper = &mut of_other;
        let (up, chunks): (SyncSender<Chunk>, Receiver<Chunk>) = sync_channel(2);
        let (back, used): (SyncSender<Vec<f32>>, Receiver<Vec<f32>>) = sync_channel(4);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for Chunk { steps, mut y } in chunks {
                    std::mem::swap(&mut upper.x, &mut y);
                    upper.sizes.clear();
                    upper.sizes.resize(steps, 1);
                    self.layers_of_one(lower..self.layers().len(), above, upper);
                    if with_head {
                        self.logits(&upper.x, steps, &mut upper.logits);
                        (kernel::active().softmax_rows)(self.shape().classes, &mut upper.logits);
                    }
                    probabilities.extend_from_slice(if with_head { &upper.logits } else { &upper.x });
                    // Nobody may wait for it any more.
                    let _ = back.try_send(y);
                }
            });
            // The state is the threads': what is gathered and looked up needs the features alone.
            let lane = Lane { features, state: &mut [], probabilities: &mut Vec::new() };
            for from in steps.clone().step_by(CHUNK) {
                let of_chunk = CHUNK.min(steps.end - from);
                s.sizes.clear();
                s.sizes.resize(of_chunk, 1);
                self.gather(std::slice::from_ref(&lane), from, of_chunk, s);
                self.first_gates(std::slice::from_ref(&lane), from, of_chunk, s);
                self.layers_of_one(0..lower, below, s);
                let mut y = used.try_recv().unwrap_or_default();
                std::mem::swap(&mut s.x, &mut y);
                if up.send(Chunk { steps: of_chunk, y }).is_err() {
                    return;
                }
            }
            drop(up);
        });
        s.upper = Some(of_other);
    }

    /// How many layers the lower thread takes: so that both have about as many weights.
    fn lower_layers(&self) -> usize {
        let weights: Vec<usize> = self.layers().iter().map(|l| l.width() * (l.input() + l.hidden())).collect();
        let half = weights.iter().sum::<usize>() / 2;
        let fit =
            weights.iter().scan(0, |sum, w| Some(std::mem::replace(sum, *sum + w) + w / 2)).take_while(|w| *w <= half);
        fit.count().clamp(1, weights.len() - 1)
    }

    /// Numbers in the states of these layers.
    fn state_of(&self, layers: Range<usize>) -> usize {
        self.layers()[layers].iter().map(|l| l.cell().state() * l.hidden()).sum()
    }

    /// These layers over one stream's chunk: from `s.x` to `s.x`; `state` is theirs.
    fn layers_of_one(&self, layers: Range<usize>, state: &mut [f32], s: &mut Scratch) {
        let mut state = state;
        for k in layers {
            let layer = &self.layers()[k];
            let (own, rest) = state.split_at_mut(layer.cell().state() * layer.hidden());
            state = rest;
            let (h, c) = own.split_at_mut(layer.hidden());
            self.layer_of(k, h, c, s);
        }
    }
}
