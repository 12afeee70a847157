//! Precision and recall of spans: exact bounds and type, as seqeval (its default mode) and conlleval count.

use super::Counts;
use crate::model::{Scheme, Span, SpanDecoder};
use std::collections::{BTreeMap, HashSet};

/// The spans of a label sequence, in steps: `start` and `end` are indices, the end excluded.
pub fn spans_of<'a>(scheme: Scheme, outside: Option<&str>, labels: impl IntoIterator<Item = &'a str>) -> Vec<Span> {
    let mut decoder = SpanDecoder::default();
    let mut spans = Vec::new();
    for (step, label) in (0..).zip(labels) {
        spans.extend(decoder.push(scheme, outside, label, step, step + 1));
    }
    spans.extend(decoder.finish());
    spans
}

/// Counts of right, predicted and gold spans by type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SpanScore {
    by_type: BTreeMap<String, Counts>,
}

impl SpanScore {
    /// Adds the spans of one sentence or stream. Positions may be in any unit, the same for both.
    pub fn add(&mut self, gold: &[Span], predicted: &[Span]) {
        let known: HashSet<(u64, u64, &str)> = gold.iter().map(|s| (s.start, s.end, s.label.as_str())).collect();
        for span in gold {
            self.counts(&span.label).gold += 1;
        }
        for span in predicted {
            let right = known.contains(&(span.start, span.end, span.label.as_str()));
            let counts = self.counts(&span.label);
            counts.predicted += 1;
            counts.right += u64::from(right);
        }
    }

    fn counts(&mut self, label: &str) -> &mut Counts {
        self.by_type.entry(label.to_string()).or_default()
    }

    /// All types together (micro average).
    pub fn overall(&self) -> Counts {
        let mut sum = Counts::default();
        self.by_type.values().for_each(|&counts| sum += counts);
        sum
    }

    /// Type by type, in the order of their names.
    pub fn by_type(&self) -> &BTreeMap<String, Counts> {
        &self.by_type
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(labels: &str) -> Vec<(u64, u64, String)> {
        let spans = spans_of(Scheme::Bio, Some("O"), labels.split(' '));
        spans.into_iter().map(|s| (s.start, s.end, s.label)).collect()
    }

    fn span(start: u64, end: u64, label: &str) -> Span {
        Span { start, end, label: label.to_string() }
    }

    #[test]
    fn odd_labels_make_the_spans_that_conlleval_sees() {
        assert_eq!(spans("O I-A I-A O"), [(1, 3, "A".to_string())]);
        assert_eq!(spans("B-A I-B I-B"), [(0, 1, "A".to_string()), (1, 3, "B".to_string())]);
        assert_eq!(spans("B-A B-A I-A"), [(0, 1, "A".to_string()), (1, 3, "A".to_string())]);
        assert_eq!(spans("B-creative-work I-creative-work"), [(0, 2, "creative-work".to_string())]);
    }

    #[test]
    fn a_span_counts_only_with_exact_bounds_and_type() {
        let mut score = SpanScore::default();
        score.add(&[span(0, 2, "A"), span(3, 4, "B"), span(5, 6, "A")], &[span(0, 2, "A"), span(3, 5, "B")]);
        score.add(&[], &[span(0, 2, "A")]);
        assert_eq!(score.overall(), Counts { right: 1, predicted: 3, gold: 3 });
        assert_eq!(score.by_type()["A"], Counts { right: 1, predicted: 2, gold: 2 });
        assert_eq!(score.by_type()["B"], Counts { right: 0, predicted: 1, gold: 1 });
    }

    #[test]
    fn nothing_found_and_nothing_to_find_is_zero_not_nan() {
        assert_eq!(SpanScore::default().overall().figures().f1, 0.0);
    }
}
