//! The search against one that goes through all sequences.

use super::*;
use crate::encode::{Encoder, VectorSpec};
use crate::model::testing::{layers, words_spec};
use crate::rnn::Cell;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn spec(kind: DecodeKind, lag: usize, labels: &[&str]) -> ModelSpec {
    ModelSpec {
        labels: labels.iter().map(|label| label.to_string()).collect(),
        encoder: crate::encode::EncoderSpec::Vector(VectorSpec { width: 1 }),
        decode: Some(DecodeSpec { kind, lag, beam: None }),
        ..words_spec("x", layers(&[Cell::Rnn], 1))
    }
}

/// With scores of a CRF as wide as probabilities are.
fn decoder(spec: &ModelSpec, seed: u64) -> Result<Option<Decoder>, String> {
    let encoder = Encoder::learn(&spec.encoder, &mut std::iter::empty(), std::path::Path::new(".")).unwrap();
    let shape = NetShape::of(spec, encoder.layout())?;
    let mut params = Params::random(&shape, &mut ChaCha8Rng::seed_from_u64(seed));
    params.slices_mut().flatten().for_each(|x| *x *= 20.0);
    Decoder::new(spec, &shape, &params)
}

fn softmax(rng: &mut ChaCha8Rng, labels: usize) -> Vec<f32> {
    let x: Vec<f32> = (0..labels).map(|_| rng.random_range(-3.0f32..3.0).exp()).collect();
    let sum: f32 = x.iter().sum();
    x.iter().map(|x| x / sum).collect()
}

/// All sequences of `steps` labels.
fn sequences(steps: usize, labels: usize) -> impl Iterator<Item = Vec<usize>> {
    (0..labels.pow(steps as u32)).map(move |n| (0..steps).map(|k| n / labels.pow(k as u32) % labels).collect())
}

/// The first label of the best sequence, by what margin, and that label's marginal.
fn exhaustive(d: &Decoder, last: Option<usize>, window: &[Vec<f32>], ends: bool) -> (usize, f64, f64) {
    let mut of_first = vec![(f64::NEG_INFINITY, 0.0); d.labels];
    for y in sequences(window.len(), d.labels) {
        let mut score = f64::from(d.after(last)[y[0]]);
        score += y.windows(2).map(|pair| f64::from(d.transitions[pair[0] * d.labels + pair[1]])).sum::<f64>();
        score += y.iter().zip(window).map(|(&label, p)| f64::from(p[label]).ln()).sum::<f64>();
        score += if ends { f64::from(d.end[y[y.len() - 1]]) } else { 0.0 };
        let (top, sum) = &mut of_first[y[0]];
        (*top, *sum) = (top.max(score), *sum + score.exp());
    }
    let best = (1..d.labels).fold(0, |best, label| if of_first[label].0 > of_first[best].0 { label } else { best });
    let others = (0..d.labels).filter(|&label| label != best).map(|label| of_first[label].0);
    let margin = of_first[best].0 - others.fold(f64::NEG_INFINITY, f64::max);
    let all: f64 = of_first.iter().map(|(_, sum)| sum).sum();
    (best, margin, of_first[best].1 / all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn each_label_is_the_first_of_the_best_path_through_what_is_seen(
        crf: bool, bio: bool, lag in 0usize..4, steps in 0usize..12, seed: u64,
    ) {
        let labels: &[&str] = if bio || !crf { &["O", "B-X", "I-X", "B-Y"] } else { &["a", "b", "c"] };
        let spec = ModelSpec {
            scheme: if bio || !crf { Scheme::Bio } else { Scheme::Plain },
            outside: None,
            ..spec(if crf { DecodeKind::Crf } else { DecodeKind::Legal }, lag, labels)
        };
        let d = decoder(&spec, seed).unwrap().unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let rows: Vec<Vec<f32>> = (0..steps).map(|_| softmax(&mut rng, labels.len())).collect();
        let (mut state, mut scratch, mut given) = (Decoding::default(), DecodeScratch::default(), Vec::new());
        for (k, row) in rows.iter().enumerate() {
            let unit = Unit { start: k as u64, end: k as u64 + 1, text: k.to_string() };
            let decided = d.push(&mut state, row, unit, &mut scratch);
            prop_assert_eq!(decided.is_some(), k >= lag);
            given.extend(decided);
        }
        while let Some(step) = d.decide(&mut state, true, &mut scratch) {
            given.push(step);
        }
        prop_assert_eq!(given.len(), steps);
        let mut last = None;
        for (k, step) in given.iter().enumerate() {
            let (seen, ends) = ((k + lag + 1).min(steps), k + lag >= steps);
            let (best, margin, marginal) = exhaustive(&d, last, &rows[k..seen], ends);
            prop_assert_eq!((step.start, &step.text), (k as u64, &k.to_string()));
            prop_assert!(step.label == best || margin < 1e-4, "step {}: {} instead of {}", k, step.label, best);
            let score = if crf { marginal } else { f64::from(rows[k][best]) };
            prop_assert!(step.label != best || (f64::from(step.score) - score).abs() < 1e-4, "{:?}, {}", step, score);
            prop_assert!(!d.labels.eq(&4) || is_legal(last.map(|last: usize| labels[last]), labels[step.label]));
            last = Some(step.label);
        }
        let whole: Vec<u32> = given.iter().map(|step| step.label as u32).collect();
        prop_assert_eq!(d.labels(&rows.concat()), whole);
    }

    #[test]
    fn logarithms_are_those_of_the_library(x in prop_oneof![1e-37f32..1e30, 0.5f32..2.0]) {
        let expected = f64::from(x).ln();
        prop_assert!((f64::from(ln(x)) - expected).abs() <= 1e-7 * expected.abs().max(1e-7), "{} {}", ln(x), expected);
    }
}

#[test]
fn logarithms_at_the_borders() {
    assert_eq!(ln(1.0), 0.0);
    assert!((ln(LEAST) + 87.336_54).abs() < 1e-4);
    assert_eq!(log_sum(&[f32::NEG_INFINITY, 1.0], &[0.0, -1.0]), 0.0);
    assert_eq!(log_sum(&[f32::NEG_INFINITY], &[0.0]), f32::NEG_INFINITY);
}

#[test]
fn what_is_no_probability_is_no_trouble() {
    let d = decoder(&spec(DecodeKind::Crf, 1, &["O", "B-X", "I-X"]), 1).unwrap().unwrap();
    let (mut state, mut scratch) = (Decoding::default(), DecodeScratch::default());
    for p in [[f32::NAN, 0.0, 0.0], [0.0; 3], [f32::INFINITY, 0.0, f32::NAN]] {
        let step = d.push(&mut state, &p, Unit { start: 0, end: 1, text: String::new() }, &mut scratch);
        assert!(step.is_none_or(|step| step.label < 3 && (0.0..=1.0).contains(&step.score)));
    }
}

#[test]
fn what_does_not_go_together_is_told() {
    let said = |spec: ModelSpec| decoder(&spec, 1).map(|_| ()).unwrap_err();
    assert!(said(spec(DecodeKind::Legal, 65, &["O"])).contains("at most 64"));
    assert!(said(spec(DecodeKind::Legal, 0, &["I-X"])).contains("no label can come first"));
    let plain = ModelSpec { scheme: Scheme::Plain, ..spec(DecodeKind::Legal, 0, &["O"]) };
    assert!(said(plain).contains("scheme = \"bio\""));
    let many: Vec<String> = (0..257).map(|k| format!("B-{k}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(said(spec(DecodeKind::Crf, 0, &many)).contains("up to 256"));
    let lag = DecodeSpec { kind: DecodeKind::Argmax, lag: 1, beam: None };
    assert!(lag.check(Task::Tag, Scheme::Bio).unwrap_err().contains("its lag is 0"));
    assert!(lag.check(Task::Classify, Scheme::Plain).unwrap_err().contains("task = \"tag\""));
}
