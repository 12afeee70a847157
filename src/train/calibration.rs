//! Temperature scaling: one number, fitted on the dev part, that makes probabilities mean what they say (Guo, Pleiss, Sun
//! and Weinberger 2017). Which class is the likeliest does not change.

use crate::score::calibration_error;

/// A fitted temperature, and the expected calibration error without and with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    pub temperature: f64,
    pub before: f64,
    pub after: f64,
}

/// Temperatures that are looked at.
const LOWEST: f64 = 0.05;
const HIGHEST: f64 = 20.0;

/// Probabilities of these logits.
fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let top = logits.iter().fold(f64::NEG_INFINITY, |top, &x| top.max(f64::from(x)));
    let weights: Vec<f64> = logits.iter().map(|&x| ((f64::from(x) - top) / temperature).exp()).collect();
    let all: f64 = weights.iter().sum();
    weights.iter().map(|w| w / all).collect()
}

/// Mean negative log-likelihood of the right classes.
fn loss(rows: &[(&[f32], usize)], temperature: f64) -> f64 {
    let nats = |(logits, gold): &(&[f32], usize)| -softmax(logits, temperature)[*gold].max(1e-300).ln();
    rows.iter().map(nats).sum::<f64>() / rows.len().max(1) as f64
}

fn error(rows: &[(&[f32], usize)], temperature: f64) -> f64 {
    calibration_error(rows.iter().map(|(logits, gold)| {
        let p = softmax(logits, temperature);
        let best = (0..p.len()).fold(0, |best, k| if p[k] > p[best] { k } else { best });
        (p[best], best == *gold)
    }))
}

/// The temperature at which the right classes of `rows` (logits and class) are the likeliest: by golden section over its
/// logarithm, of which the loss has one minimum.
pub fn fit(rows: &[(&[f32], usize)]) -> Fit {
    let ratio = (5.0f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (LOWEST.ln(), HIGHEST.ln());
    for _ in 0..60 {
        let (a, b) = (high - ratio * (high - low), low + ratio * (high - low));
        if loss(rows, a.exp()) < loss(rows, b.exp()) { high = b } else { low = a }
    }
    // Four digits are more than a dev part can tell.
    let temperature = (((low + high) / 2.0).exp() * 1e4).round() / 1e4;
    Fit { temperature, before: error(rows, 1.0), after: error(rows, temperature) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_temperature_that_made_the_classes_is_found() {
        // Of each hundred rows with the same logits, as many have a class as it is likely at temperature 2.5.
        let logits: [[f32; 3]; 3] = [[4.0, 0.0, 1.0], [-3.0, 2.0, 2.5], [0.0, 6.0, -1.0]];
        let mut rows: Vec<(&[f32], usize)> = Vec::new();
        for logits in &logits {
            for (class, p) in softmax(logits, 2.5).iter().enumerate() {
                rows.extend(std::iter::repeat_n((&logits[..], class), (p * 1e4).round() as usize));
            }
        }
        let fit = fit(&rows);
        assert!((fit.temperature - 2.5).abs() < 0.01, "{fit:?}");
        assert!(fit.before > 0.1 && fit.after < 0.01, "{fit:?}");
    }
}
