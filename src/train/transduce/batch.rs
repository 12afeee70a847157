//! Pairs of sentences side by side: rows of the source and of the target, each laid out as in [`crate::rnn::layer`], the
//! longest first. So a pair stands at one place among the sources and at another among the targets.

use crate::encode::units::END;

/// A pair of sentences as rows of the two vocabularies, without their ends.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pair {
    pub source: Vec<u32>,
    pub target: Vec<u32>,
}

/// Sequences side by side.
#[derive(Debug, Clone, Default)]
pub struct Side {
    pub ids: Vec<u32>,
    /// How many sequences have a first, second … step.
    pub sizes: Vec<usize>,
    /// Row of the first sequence's first, second … step.
    pub starts: Vec<usize>,
    pub lengths: Vec<usize>,
}

impl Side {
    /// Lays out sequences, the longest first: `id(sequence, step)` is the unit of a row.
    pub fn lay(&mut self, lengths: impl Iterator<Item = usize>, id: impl Fn(usize, usize) -> u32) {
        for part in [&mut self.sizes, &mut self.starts, &mut self.lengths] {
            part.clear();
        }
        self.ids.clear();
        self.lengths.extend(lengths);
        for step in 0..self.lengths.first().copied().unwrap_or(0) {
            let size = self.lengths.partition_point(|&length| length > step);
            self.starts.push(self.ids.len());
            self.sizes.push(size);
            self.ids.extend((0..size).map(|sequence| id(sequence, step)));
        }
    }

    pub fn rows(&self) -> usize {
        self.ids.len()
    }

    pub fn row(&self, sequence: usize, step: usize) -> usize {
        self.starts[step] + sequence
    }
}

/// The pairs of one shard.
#[derive(Debug, Clone, Default)]
pub struct PairBatch {
    /// Source units and the end.
    pub source: Side,
    /// The end mark, then the target units: what the decoder reads.
    pub target: Side,
    /// Of each target row the unit that follows: the target units, then the end.
    pub targets: Vec<u32>,
    /// Of each target sentence the place of its source.
    pub place: Vec<usize>,
    /// Of each source sentence the first of its rows where they stand sentence after sentence, and their number in all.
    pub offsets: Vec<usize>,
}

impl PairBatch {
    /// Lays out these pairs.
    pub fn gather(&mut self, pairs: &[&Pair]) {
        let mut by_source: Vec<usize> = (0..pairs.len()).collect();
        by_source.sort_by_key(|&k| (std::cmp::Reverse(pairs[k].source.len()), k));
        let mut by_target: Vec<usize> = (0..pairs.len()).collect();
        by_target.sort_by_key(|&k| (std::cmp::Reverse(pairs[k].target.len()), k));
        let mut place = vec![0; pairs.len()];
        by_source.iter().enumerate().for_each(|(at, &k)| place[k] = at);
        self.place = by_target.iter().map(|&k| place[k]).collect();
        let source = |at: usize, step: usize| pairs[by_source[at]].source.get(step).copied().unwrap_or(END);
        self.source.lay(by_source.iter().map(|&k| pairs[k].source.len() + 1), source);
        let read =
            |at: usize, step: usize| step.checked_sub(1).map_or(END, |before| pairs[by_target[at]].target[before]);
        self.target.lay(by_target.iter().map(|&k| pairs[k].target.len() + 1), read);
        self.targets.clear();
        for (step, &size) in self.target.sizes.iter().enumerate() {
            let next = |at: usize| pairs[by_target[at]].target.get(step).copied().unwrap_or(END);
            self.targets.extend((0..size).map(next));
        }
        self.offsets.clear();
        self.offsets.push(0);
        for &length in &self.source.lengths {
            self.offsets.push(self.offsets[self.offsets.len() - 1] + length);
        }
    }

    /// Places of the rows of the source of target sentence `sentence`, sentence after sentence.
    pub fn memory(&self, sentence: usize) -> std::ops::Range<usize> {
        let at = self.place[sentence];
        self.offsets[at]..self.offsets[at + 1]
    }
}
