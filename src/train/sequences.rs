//! The order of an epoch for classifiers: whole streams, shuffled, in batches of about equal length, each from a zero
//! state.
//!
//! A stream of up to `chunk` steps is learnt from as a whole. Of a longer one the last `chunk` steps are; what comes
//! before them only runs forwards, chunk by chunk, so that state and pool are what they will be in operation.

use super::corpus::Corpus;
use super::network::TrainBatch;
use super::plan::{Plan, SHARD, push_row};
use super::recipe::TrainSpec;
use crate::rnn::ahead::{Part, Window};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

/// Batches whose streams are sorted by length together.
const SORTED: usize = 16;

/// One epoch's way through the streams.
pub struct Sequences {
    /// Streams of each batch, the longest first.
    batches: Vec<Vec<u32>>,
    chunk: usize,
    /// What a transcriber's network sees ahead.
    window: Option<Window>,
}

/// What an epoch goes along: the carried streams of a tagger, or the whole streams of a classifier.
pub enum Course {
    Carried(Plan),
    Whole(Sequences),
}

impl Course {
    /// Steps of optimisation in the epoch.
    pub fn chunks(&self) -> usize {
        match self {
            Course::Carried(plan) => plan.chunks(),
            Course::Whole(sequences) => sequences.batches.len(),
        }
    }

    /// Sum of the weights of all targets of a step, and their number.
    pub fn weight(&self, corpus: &Corpus, chunk: usize) -> (f64, usize) {
        match self {
            Course::Carried(plan) => plan.weight(corpus, chunk),
            Course::Whole(sequences) => {
                let weight = |&s: &u32| f64::from(corpus.weights[corpus.starts[s as usize + 1] - 1]);
                let batch = &sequences.batches[chunk];
                (batch.iter().map(weight).sum::<f64>().max(1e-12), batch.len())
            }
        }
    }

    /// Fills `out` with what is learnt from in one step by one shard.
    pub fn gather(&self, corpus: &Corpus, chunk: usize, shard: usize, out: &mut TrainBatch) {
        match self {
            Course::Carried(plan) => plan.gather(corpus, chunk, shard, out),
            Course::Whole(sequences) => sequences.gather(corpus, sequences.shard(chunk, shard), None, out),
        }
    }
}

impl Sequences {
    /// The order of an epoch; the same for the same seed and epoch.
    pub fn new(corpus: &Corpus, spec: &TrainSpec, window: Option<Window>, epoch: usize) -> Sequences {
        let mut rng = ChaCha8Rng::seed_from_u64(spec.seed);
        rng.set_stream(1 + epoch as u64);
        let mut all: Vec<u32> = (0..corpus.starts.len() as u32 - 1).collect();
        all.shuffle(&mut rng);
        let length = |&s: &u32| corpus.starts[s as usize + 1] - corpus.starts[s as usize];
        let mut batches = Vec::new();
        for group in all.chunks_mut(spec.batch * SORTED) {
            group.sort_by_key(|s| std::cmp::Reverse(length(s)));
            batches.extend(group.chunks(spec.batch).map(<[u32]>::to_vec));
        }
        batches.shuffle(&mut rng);
        Sequences { batches, chunk: spec.chunk, window }
    }

    /// The streams of a shard; none in the last batch, perhaps.
    pub fn shard(&self, batch: usize, shard: usize) -> &[u32] {
        self.batches[batch].chunks(SHARD).nth(shard).unwrap_or_default()
    }

    /// Chunks that only run forwards before these streams are learnt from.
    pub fn windows(&self, corpus: &Corpus, streams: &[u32]) -> usize {
        let longest = streams.first().map_or(0, |&s| corpus.starts[s as usize + 1] - corpus.starts[s as usize]);
        longest.saturating_sub(self.chunk).div_ceil(self.chunk)
    }

    /// Fills `out` with a chunk of what comes before, or with what is learnt from.
    pub fn gather(&self, corpus: &Corpus, streams: &[u32], window: Option<usize>, out: &mut TrainBatch) {
        out.features.clear();
        out.reset.clear();
        out.targets.clear();
        out.weights.clear();
        out.sizes.clear();
        let part = |&s: &u32| {
            let (start, end) = (corpus.starts[s as usize], corpus.starts[s as usize + 1]);
            let learnt = start.max(end.saturating_sub(self.chunk));
            match window {
                None => learnt..end,
                Some(k) => (start + k * self.chunk).min(learnt)..(start + (k + 1) * self.chunk).min(learnt),
            }
        };
        let parts: Vec<_> = streams.iter().map(part).collect();
        for step in 0..parts.first().map_or(0, |part| part.len()) {
            let active = parts.partition_point(|part| part.len() > step);
            out.sizes.push(active);
            for part in &parts[..active] {
                push_row(&mut out.features, corpus, part.start + step);
                out.reset.push(false);
            }
        }
        for part in &parts {
            out.targets.push(corpus.targets[part.end.max(1) - 1]);
            out.weights.push(corpus.weights[part.end.max(1) - 1]);
        }
        out.transcripts.clear();
        out.transcripts.extend(streams.iter().filter_map(|&s| corpus.transcripts.get(s as usize).cloned()));
        if let Some(window) = self.window {
            look_ahead(corpus, &parts, window, out);
        }
    }
}

/// Adds what the network sees ahead within these streams, which are whole.
fn look_ahead(corpus: &Corpus, streams: &[Range<usize>], window: Window, out: &mut TrainBatch) {
    let first_row: Vec<usize> = out.sizes.iter().scan(0, |row, m| Some(std::mem::replace(row, *row + m))).collect();
    let mut parts = Vec::new();
    for (stream, rows) in streams.iter().enumerate() {
        for from in (0..rows.len()).step_by(window.block) {
            let block = window.block.min(rows.len() - from);
            parts.push(Part { stream, from, block, steps: (block + window.right).min(rows.len() - from) });
        }
    }
    let windows = out.windows.get_or_insert_default();
    windows.lay(&mut parts, out.features.steps, |stream, step| first_row[step] + stream);
    for &(stream, step) in &windows.ahead_rows {
        push_row(&mut out.features, corpus, streams[stream].start + step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::Features;

    /// Streams of these lengths; the word of each step is its row.
    fn corpus(lengths: &[usize]) -> Corpus {
        let mut corpus = Corpus { starts: vec![0], ..Corpus::default() };
        for &length in lengths {
            corpus.starts.push(corpus.starts.last().unwrap() + length);
        }
        let rows = *corpus.starts.last().unwrap();
        corpus.features = Features { steps: rows, ids: (0..rows as u32).collect(), ..Features::default() };
        corpus.targets = (0..rows as u32).collect();
        corpus.weights = vec![1.0; rows];
        corpus
    }

    #[test]
    fn every_stream_is_in_one_batch_of_an_epoch() {
        let lengths: Vec<usize> = (0..100).map(|k| 1 + k * 7 % 23).collect();
        let corpus = corpus(&lengths);
        let spec = TrainSpec { batch: 12, ..TrainSpec::default() };
        let order = |epoch| Sequences::new(&corpus, &spec, None, epoch).batches;
        assert_eq!(order(0), order(0));
        assert_ne!(order(0), order(1));
        let mut all: Vec<u32> = order(1).concat();
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<u32>>());
        let length = |s: &u32| lengths[*s as usize];
        assert!(order(1).iter().all(|batch| batch.is_sorted_by_key(|s| std::cmp::Reverse(length(s)))));
        let course = Course::Whole(Sequences::new(&corpus, &spec, None, 0));
        let weights: f64 = (0..course.chunks()).map(|k| course.weight(&corpus, k).0).sum();
        assert_eq!(weights, 100.0);
    }

    #[test]
    fn long_streams_are_learnt_from_at_their_end() {
        let corpus = corpus(&[11, 6, 3]);
        let sequences = Sequences { batches: vec![vec![0, 1, 2]], chunk: 4, window: None };
        let streams = sequences.shard(0, 0);
        assert_eq!((streams, sequences.shard(0, 1)), (&[0, 1, 2][..], &[][..]));
        assert_eq!(sequences.windows(&corpus, streams), 2);
        let gathered = |window| {
            let mut out = TrainBatch::default();
            sequences.gather(&corpus, streams, window, &mut out);
            (out.sizes, out.features.ids, out.targets)
        };
        let (sizes, rows, _) = gathered(Some(0));
        assert_eq!((sizes, rows), (vec![2, 2, 1, 1], vec![0, 11, 1, 12, 2, 3]));
        let (sizes, rows, _) = gathered(Some(1));
        assert_eq!((sizes, rows), (vec![1, 1, 1], vec![4, 5, 6]));
        let (sizes, rows, targets) = gathered(None);
        assert_eq!(sizes, [3, 3, 3, 2]);
        assert_eq!(rows, [7, 13, 17, 8, 14, 18, 9, 15, 19, 10, 16]);
        assert_eq!(targets, [10, 16, 19], "the last row of each stream has its class");
    }
}
