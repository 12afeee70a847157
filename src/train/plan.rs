//! The order of an epoch: sentences shuffled in blocks, laid end to end, and cut into streams side by side.

use super::corpus::Corpus;
use super::network::{NO_TARGET, TrainBatch};
use super::recipe::TrainSpec;
use crate::encode::Features;
use crate::rnn::ahead::{Part, Window};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Streams that one worker steps together: eight rows fill the widest kernel, and shards of a fixed size make the
/// result independent of the number of threads.
pub const SHARD: usize = 8;

/// No row here: the epoch is over for this stream.
const NO_ROW: u32 = u32::MAX;

/// One epoch's way through the corpus.
pub struct Plan {
    /// Rows of all streams one after the other, `[batch, length]`.
    rows: Vec<u32>,
    reset: Vec<bool>,
    length: usize,
    batch: usize,
    chunk: usize,
    window: Option<Window>,
}

impl Plan {
    /// The plan of an epoch; the same for the same seed and epoch. `window` is what the network sees ahead.
    pub fn new(corpus: &Corpus, spec: &TrainSpec, window: Option<Window>, epoch: usize) -> Plan {
        let mut rng = ChaCha8Rng::seed_from_u64(spec.seed);
        rng.set_stream(1 + epoch as u64);
        let sentences = corpus.starts.len() - 1;
        let mut blocks: Vec<(usize, usize)> =
            (0..sentences).step_by(spec.block).map(|b| (b, (b + spec.block).min(sentences))).collect();
        blocks.shuffle(&mut rng);
        let mut rows = Vec::with_capacity(corpus.rows());
        let mut reset = Vec::with_capacity(corpus.rows());
        for sentence in blocks.into_iter().flat_map(|(from, to)| from..to) {
            for row in corpus.starts[sentence]..corpus.starts[sentence + 1] {
                let first = row == corpus.starts[sentence];
                // What comes after a stream's end is told by no language model.
                reset.push(first && (corpus.of_units || rng.random_bool(spec.reset_probability)));
                rows.push(row as u32);
            }
        }
        // Streams start at other places every epoch.
        let turn = rng.random_range(0..rows.len().max(1));
        rows.rotate_left(turn);
        reset.rotate_left(turn);
        let length = rows.len().div_ceil(spec.batch);
        rows.resize(length * spec.batch, NO_ROW);
        reset.resize(length * spec.batch, false);
        Plan { rows, reset, length, batch: spec.batch, chunk: spec.chunk, window }
    }

    /// Steps of optimisation in the epoch.
    pub fn chunks(&self) -> usize {
        self.length.div_ceil(self.chunk)
    }

    pub fn shards(batch: usize) -> usize {
        batch.div_ceil(SHARD)
    }

    /// Streams of shard `shard`.
    pub fn streams(batch: usize, shard: usize) -> usize {
        SHARD.min(batch - shard * SHARD)
    }

    fn steps(&self, chunk: usize) -> std::ops::Range<usize> {
        chunk * self.chunk..((chunk + 1) * self.chunk).min(self.length)
    }

    /// Sum of the weights of all rows of a chunk, and the number of rows that are scored.
    pub fn weight(&self, corpus: &Corpus, chunk: usize) -> (f64, usize) {
        let steps = self.steps(chunk);
        let (mut weight, mut scored) = (0.0, 0);
        for stream in 0..self.batch {
            for at in steps.clone().map(|step| stream * self.length + step) {
                let row = self.rows[at];
                if row == NO_ROW {
                    continue;
                }
                let targets =
                    usize::from(corpus.targets[row as usize] != NO_TARGET) + usize::from(self.begins(corpus, at));
                weight += targets as f64 * corpus.weights[row as usize] as f64;
                scored += targets;
            }
        }
        (weight.max(1e-12), scored)
    }

    /// Whether the row at this place is a stream's first unit, which is a target itself.
    fn begins(&self, corpus: &Corpus, at: usize) -> bool {
        corpus.of_units && self.reset[at]
    }

    /// Fills `out` with a chunk of the streams of one shard.
    pub fn gather(&self, corpus: &Corpus, chunk: usize, shard: usize, out: &mut TrainBatch) {
        let (steps, streams) = (self.steps(chunk), Plan::streams(self.batch, shard));
        out.features.clear();
        out.reset.clear();
        out.targets.clear();
        out.weights.clear();
        out.sizes.clear();
        out.chords.clear();
        out.sizes.resize(steps.len(), streams);
        let mut beginnings = Vec::new();
        for step in steps {
            for stream in shard * SHARD..shard * SHARD + streams {
                let at = stream * self.length + step;
                let (row, live) = if self.rows[at] == NO_ROW { (0, false) } else { (self.rows[at] as usize, true) };
                push_row(&mut out.features, corpus, row);
                out.reset.push(self.reset[at]);
                out.targets.push(if live { corpus.targets[row] } else { NO_TARGET });
                out.weights.push(if live { corpus.weights[row] } else { 0.0 });
                if !corpus.chords.is_empty() {
                    // Where nothing comes next, this is no target.
                    out.chords.push(corpus.chords.get(row + 1).copied().unwrap_or_default());
                }
                if self.begins(corpus, at) {
                    beginnings.push(row);
                }
            }
        }
        out.targets.extend(beginnings.iter().map(|&row| corpus.unit(row)));
        out.weights.extend(beginnings.iter().map(|&row| corpus.weights[row]));
        out.chords.extend(beginnings.iter().filter_map(|&row| corpus.chords.get(row)));
        if let Some(window) = self.window {
            self.look_ahead(corpus, chunk, shard, window, out);
        }
    }

    /// Adds what the network sees ahead: of a chunk's last steps that are the next chunk's. Blocks are counted from where a
    /// stream or the chunk begins.
    fn look_ahead(&self, corpus: &Corpus, chunk: usize, shard: usize, window: Window, out: &mut TrainBatch) {
        let (steps, streams) = (self.steps(chunk), Plan::streams(self.batch, shard));
        // What sees a whole stream is trained with one chunk more than the chunk.
        let right = if window.block > self.chunk { self.chunk } else { window.right };
        let mut parts = Vec::new();
        for stream in 0..streams {
            let first = (shard * SHARD + stream) * self.length;
            let goes_on =
                |step: usize| step < self.length && self.rows[first + step] != NO_ROW && !self.reset[first + step];
            let mut from = steps.start;
            while from < steps.end {
                let block_end = steps.end.min(from.saturating_add(window.block));
                let end = (from + 1..block_end + right).find(|&step| !goes_on(step)).unwrap_or(block_end + right);
                let block = block_end.min(end) - from;
                parts.push(Part { stream, from: from - steps.start, block, steps: end - from });
                from += block;
            }
        }
        let windows = out.windows.get_or_insert_default();
        windows.lay(&mut parts, steps.len() * streams, |stream, step| step * streams + stream);
        for &(stream, step) in &windows.ahead_rows {
            let at = (shard * SHARD + stream) * self.length + steps.start + step;
            push_row(&mut out.features, corpus, self.rows[at] as usize);
        }
    }
}

/// Adds a row of the corpus.
pub fn push_row(f: &mut Features, corpus: &Corpus, row: usize) {
    let (from, rows) = (&corpus.features, corpus.rows().max(1));
    let (tables, dense) = (from.ids.len() / rows, from.dense.len() / rows);
    f.ids.extend_from_slice(&from.ids[row * tables..(row + 1) * tables]);
    f.dense.extend_from_slice(&from.dense[row * dense..(row + 1) * dense]);
    if !from.char_ends.is_empty() {
        f.chars.extend_from_slice(from.chars_of(row));
        f.char_ends.push(f.chars.len() as u32);
    }
    f.steps += 1;
}
