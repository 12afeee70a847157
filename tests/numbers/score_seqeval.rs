//! Our span figures against seqeval's (`tests/reference/seqeval_golden.py` made the golden values).

use serde::Deserialize;
use std::collections::BTreeMap;
use strand::model::Scheme;
use strand::score::{Confusion, Counts, SpanScore, spans_of};

#[derive(Deserialize)]
struct Case {
    gold: Vec<Vec<String>>,
    predicted: Vec<Vec<String>>,
    accuracy: f64,
    overall: Row,
    by_type: BTreeMap<String, Row>,
}

#[derive(Deserialize)]
struct Row {
    precision: f64,
    recall: f64,
    f1: f64,
    support: u64,
}

fn assert_same(ours: Counts, seqeval: &Row) {
    let ours = ours.figures();
    assert!((ours.precision - seqeval.precision).abs() < 1e-12);
    assert!((ours.recall - seqeval.recall).abs() < 1e-12);
    assert!((ours.f1 - seqeval.f1).abs() < 1e-12);
    assert_eq!(ours.support, seqeval.support);
}

#[test]
fn figures_are_those_of_seqeval() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../golden/seqeval.json")).unwrap();
    assert!(cases.len() >= 5);
    for case in cases {
        let mut spans = SpanScore::default();
        let mut steps = Confusion::default();
        for (gold, predicted) in case.gold.iter().zip(&case.predicted) {
            let of = |labels: &[String]| spans_of(Scheme::Bio, Some("O"), labels.iter().map(String::as_str));
            spans.add(&of(gold), &of(predicted));
            gold.iter().zip(predicted).for_each(|(gold, predicted)| steps.add(gold, predicted));
        }
        assert_same(spans.overall(), &case.overall);
        assert!((steps.accuracy() - case.accuracy).abs() < 1e-12);
        assert_eq!(spans.by_type().len(), case.by_type.len());
        for (label, row) in &case.by_type {
            assert_same(spans.by_type()[label], row);
        }
    }
}
