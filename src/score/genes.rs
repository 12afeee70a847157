//! Coding regions of genomes: figures per base and per gene.

use super::{Counts, share};
use crate::data::{Interval, Strand};
use serde::Serialize;
use std::collections::HashMap;
use std::ops::Range;

/// Counts of bases. A base is right when its strand, or that it is not coding, is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct BaseScore {
    pub bases: u64,
    pub right: u64,
    /// Coding on the right strand, predicted so.
    pub coding_right: u64,
    pub coding_predicted: u64,
    pub coding_gold: u64,
}

impl BaseScore {
    pub fn add(&mut self, gold: Option<Strand>, predicted: Option<Strand>) {
        self.bases += 1;
        self.right += u64::from(gold == predicted);
        self.coding_right += u64::from(gold == predicted && gold.is_some());
        self.coding_predicted += u64::from(predicted.is_some());
        self.coding_gold += u64::from(gold.is_some());
    }

    pub fn accuracy(&self) -> f64 {
        share(self.right, self.bases)
    }

    /// Of the bases called coding, the share that codes on that strand.
    pub fn coding_precision(&self) -> f64 {
        share(self.coding_right, self.coding_predicted)
    }

    /// Of the bases that code, the share called coding on their strand.
    pub fn coding_recall(&self) -> f64 {
        share(self.coding_right, self.coding_gold)
    }
}

/// The maximal runs of one strand.
pub fn runs(strands: &[Option<Strand>]) -> Vec<(Range<usize>, Strand)> {
    let (mut found, mut start) = (Vec::new(), 0);
    for run in strands.chunk_by(|a, b| a == b) {
        let end = start + run.len();
        found.extend(run[0].map(|strand| (start..end, strand)));
        start = end;
    }
    found
}

/// The maximal runs of one strand, taken for genes.
pub fn run_genes(strands: &[Option<Strand>]) -> Vec<Interval> {
    let gene =
        |(run, strand): (Range<usize>, _)| Interval { start: run.start, end: run.end, strand, note: String::new() };
    runs(strands).into_iter().map(gene).collect()
}

/// Counts of genes. A gene is found when one that was called has the same 3' end and strand; exactly, when its start is the
/// same, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GeneScore {
    pub counts: Counts,
    pub exact: u64,
}

impl GeneScore {
    /// Adds the part `range` of one sequence, in which `called` were found, counted from the range's start.
    ///
    /// Counted are the genes whose 3' end lies in the range, and those called that show their 3' end there: a forward one
    /// cut off by the range's end does not, nor does a reverse one cut off by its start, unless that is also the
    /// sequence's (`length`) end.
    pub fn add(&mut self, genes: &[Interval], range: Range<usize>, length: usize, called: &[Interval]) {
        let inside = |gene: &&Interval| gene.end <= length && range.contains(&gene.three_prime());
        let mut gold: HashMap<(usize, Strand), Vec<(usize, usize)>> = HashMap::new();
        for gene in genes.iter().filter(inside) {
            gold.entry((gene.three_prime(), gene.strand)).or_default().push((gene.start, gene.end));
        }
        self.counts.gold += gold.len() as u64;
        for gene in called {
            let (start, end) = (range.start + gene.start, range.start + gene.end);
            let (three_prime, cut) = match gene.strand {
                Strand::Forward => (end - 1, end == range.end && end < length),
                Strand::Reverse => (start, start == range.start && start > 0),
            };
            let found = gold.get(&(three_prime, gene.strand));
            if !cut || found.is_some() {
                self.counts.predicted += 1;
                self.counts.right += u64::from(found.is_some());
                self.exact += u64::from(found.is_some_and(|places| places.contains(&(start, end))));
            }
        }
    }

    pub fn precision(&self) -> f64 {
        share(self.counts.right, self.counts.predicted)
    }

    pub fn recall(&self) -> f64 {
        share(self.counts.right, self.counts.gold)
    }

    pub fn exact_precision(&self) -> f64 {
        share(self.exact, self.counts.predicted)
    }

    pub fn exact_recall(&self) -> f64 {
        share(self.exact, self.counts.gold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strands(text: &str) -> Vec<Option<Strand>> {
        let strand = |c| match c {
            'F' => Some(Strand::Forward),
            'R' => Some(Strand::Reverse),
            _ => None,
        };
        text.chars().map(strand).collect()
    }

    fn gene(start: usize, end: usize, strand: Strand) -> Interval {
        Interval { start, end, strand, note: String::new() }
    }

    fn counts(genes: &[Interval], range: Range<usize>, length: usize, predicted: &str) -> (u64, u64, u64) {
        let mut score = GeneScore::default();
        score.add(genes, range, length, &run_genes(&strands(predicted)));
        (score.counts.right, score.counts.predicted, score.counts.gold)
    }

    #[test]
    fn runs_are_maximal_and_of_one_strand() {
        let found = runs(&strands(".FFR.R"));
        assert_eq!(found, [(1..3, Strand::Forward), (3..4, Strand::Reverse), (5..6, Strand::Reverse)]);
        assert!(runs(&[]).is_empty());
    }

    #[test]
    fn bases_are_right_with_their_strand() {
        let mut score = BaseScore::default();
        for (gold, predicted) in strands("FFFRR..").into_iter().zip(strands("FF.FR.R")) {
            score.add(gold, predicted);
        }
        assert_eq!(score.accuracy(), 4.0 / 7.0);
        assert_eq!(score.coding_precision(), 3.0 / 5.0);
        assert_eq!(score.coding_recall(), 3.0 / 5.0);
    }

    #[test]
    fn a_gene_is_found_by_its_three_prime_end_and_strand() {
        let genes = [gene(0, 4, Strand::Forward), gene(5, 9, Strand::Reverse)];
        assert_eq!(counts(&genes, 0..10, 10, "..FF.RR..."), (2, 2, 2));
        assert_eq!(counts(&genes, 0..10, 10, "FFF...RRR."), (0, 2, 2));
        assert_eq!(counts(&genes, 0..10, 10, "...R.F...."), (0, 2, 2));
    }

    #[test]
    fn a_gene_is_exact_when_both_ends_are() {
        let genes = [gene(2, 8, Strand::Forward), gene(10, 16, Strand::Reverse), gene(20, 26, Strand::Reverse)];
        let mut score = GeneScore::default();
        let called = [gene(2, 8, Strand::Forward), gene(10, 13, Strand::Reverse), gene(20, 26, Strand::Forward)];
        score.add(&genes, 0..30, 30, &called);
        assert_eq!((score.counts.right, score.exact, score.counts.predicted, score.counts.gold), (2, 1, 3, 3));
        assert_eq!((score.exact_precision(), score.exact_recall()), (1.0 / 3.0, 1.0 / 3.0));
    }

    #[test]
    fn genes_and_runs_cut_by_the_range_do_not_count() {
        let genes = [gene(0, 6, Strand::Reverse), gene(8, 14, Strand::Forward), gene(15, 20, Strand::Forward)];
        assert_eq!(counts(&genes, 2..12, 30, "RRRR..FFFF"), (0, 0, 0));
        assert_eq!(counts(&genes, 2..20, 20, "RRRR..FFFFFF.FFFFF"), (2, 2, 2));
    }
}
