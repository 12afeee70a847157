//! Step-by-step figures: accuracy, precision and recall of each label, confusion matrix.

use super::{Counts, share};
use std::collections::HashMap;

/// How often each gold label was given each label.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Confusion {
    labels: Vec<String>,
    index: HashMap<String, usize>,
    /// Count by (gold, predicted).
    cells: HashMap<(usize, usize), u64>,
}

impl Confusion {
    /// Starts with these labels, in this order; others are added behind them as they turn up.
    pub fn new<'a>(labels: impl IntoIterator<Item = &'a str>) -> Confusion {
        let mut confusion = Confusion::default();
        for label in labels {
            confusion.index_of(label);
        }
        confusion
    }

    fn index_of(&mut self, label: &str) -> usize {
        if let Some(&index) = self.index.get(label) {
            return index;
        }
        self.labels.push(label.to_string());
        self.index.insert(label.to_string(), self.labels.len() - 1);
        self.labels.len() - 1
    }

    /// Counts one step.
    pub fn add(&mut self, gold: &str, predicted: &str) {
        let cell = (self.index_of(gold), self.index_of(predicted));
        *self.cells.entry(cell).or_default() += 1;
    }

    /// The labels in the order of [`Confusion::matrix`]'s rows and columns.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// A row for each gold label, a column for each predicted one.
    pub fn matrix(&self) -> Vec<Vec<u64>> {
        let mut rows = vec![vec![0; self.labels.len()]; self.labels.len()];
        for (&(gold, predicted), &count) in &self.cells {
            rows[gold][predicted] = count;
        }
        rows
    }

    /// Steps counted.
    pub fn total(&self) -> u64 {
        self.cells.values().sum()
    }

    /// Steps whose label was right.
    pub fn right(&self) -> u64 {
        self.cells.iter().filter(|((gold, predicted), _)| gold == predicted).map(|(_, count)| count).sum()
    }

    /// Share of the steps whose label was right.
    pub fn accuracy(&self) -> f64 {
        share(self.right(), self.total())
    }

    /// The counts of each label, in the order of [`Confusion::labels`].
    pub fn by_label(&self) -> Vec<Counts> {
        let mut counts = vec![Counts::default(); self.labels.len()];
        for (&(gold, predicted), &count) in &self.cells {
            counts[gold].gold += count;
            counts[predicted].predicted += count;
            if gold == predicted {
                counts[gold].right += count;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_label_follow_from_the_matrix() {
        let mut confusion = Confusion::new(["A", "B"]);
        for (gold, predicted) in [("A", "A"), ("A", "A"), ("A", "B"), ("B", "B"), ("C", "A")] {
            confusion.add(gold, predicted);
        }
        assert_eq!(confusion.labels(), ["A", "B", "C"]);
        assert_eq!(confusion.matrix(), [[2, 1, 0], [0, 1, 0], [1, 0, 0]]);
        assert_eq!(confusion.accuracy(), 0.6);
        assert_eq!(confusion.by_label()[0], Counts { right: 2, predicted: 3, gold: 3 });
        assert_eq!(confusion.by_label()[2], Counts { right: 0, predicted: 0, gold: 1 });
    }
}
