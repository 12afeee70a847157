//! New sequences from a language model: each unit is drawn from what the model says of it, and is read as the next.

use super::{Model, Output, Session, Stepper};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

/// How units are drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplerSpec {
    /// ln P is divided by this: below 1 likely units become likelier; 0: always the likeliest.
    pub temperature: f64,
    /// Only the so many likeliest units; 0: all.
    pub top_k: usize,
    /// Of these only the likeliest ones that together have this probability (Holtzman et al. 2020); 1: all.
    pub top_p: f64,
    pub seed: u64,
}

impl Default for SamplerSpec {
    fn default() -> Self {
        SamplerSpec { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 1 }
    }
}

/// Draws units of one stream. The same model, seed and beginning give the same units.
pub struct Sampler {
    spec: SamplerSpec,
    rng: ChaCha8Rng,
    stepper: Stepper,
    model: Arc<Model>,
}

impl Sampler {
    /// # Errors
    /// When the model is none of language, or a number is out of range.
    pub fn new(model: Arc<Model>, spec: SamplerSpec) -> Result<Sampler, String> {
        if model.spec().language.is_none() {
            return Err(format!("`{}` is no language model: there is nothing to sample", model.spec().name));
        }
        if !(spec.temperature >= 0.0 && spec.temperature.is_finite()) {
            return Err(format!("temperature = {}: must be 0 or above", spec.temperature));
        }
        if !(spec.top_p > 0.0 && spec.top_p <= 1.0) {
            return Err(format!("top-p = {}: must be above 0 and at most 1", spec.top_p));
        }
        Ok(Sampler { spec, rng: ChaCha8Rng::seed_from_u64(spec.seed), stepper: Stepper::new(model.clone()), model })
    }

    /// Steps what waits in the session (a prompt).
    pub fn read(&mut self, session: &mut Session) {
        self.stepper.step(&mut [session], &mut [Output::default()]);
    }

    /// Draws the next unit and reads it; its text. Unknown units are never drawn.
    pub fn unit(&mut self, session: &mut Session) -> String {
        let row = pick(&session.next_unit(&self.model), self.spec, &mut self.rng);
        // Every row but 0 has a text, and 0 is drawn only where there is no other.
        let text = self.model.encoder().unit_text(row).unwrap_or_default();
        session.push_tokens(&self.model, &[&text]);
        self.read(session);
        text
    }
}

/// A unit, drawn by its ln P among all but 0.
pub(super) fn pick(all: &[f64], spec: SamplerSpec, rng: &mut ChaCha8Rng) -> u32 {
    let mut units: Vec<(u32, f64)> = all.iter().enumerate().skip(1).map(|(unit, &ln)| (unit as u32, ln)).collect();
    // The likeliest first, equals by their number, so that what is drawn is settled.
    units.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let Some(&(likeliest, top)) = units.first() else { return 0 };
    if spec.temperature == 0.0 {
        return likeliest;
    }
    if spec.top_k > 0 {
        units.truncate(spec.top_k);
    }
    let mut weights: Vec<f64> = units.iter().map(|(_, ln)| ((ln - top) / spec.temperature).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mut reached = 0.0;
    let kept = weights.iter().position(|weight| {
        reached += weight / sum;
        reached >= spec.top_p
    });
    if spec.top_p < 1.0 {
        weights.truncate(kept.map_or(weights.len(), |last| last + 1));
    }
    let mut left = rng.random::<f64>() * weights.iter().sum::<f64>();
    for (weight, (unit, _)) in weights.iter().zip(&units) {
        left -= weight;
        if left < 0.0 {
            return *unit;
        }
    }
    units[weights.len() - 1].0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(spec: SamplerSpec) -> [usize; 5] {
        let all = [0.5, 0.1, 0.2, 0.15, 0.05].map(f64::ln);
        let (mut counts, mut rng) = ([0; 5], ChaCha8Rng::seed_from_u64(3));
        (0..10_000).for_each(|_| counts[pick(&all, spec, &mut rng) as usize] += 1);
        counts
    }

    #[test]
    fn units_are_drawn_as_often_as_they_are_likely() {
        let [unknown, a, b, c, d] = drawn(SamplerSpec::default());
        assert_eq!(unknown, 0);
        for (count, share) in [(a, 0.2), (b, 0.4), (c, 0.3), (d, 0.1)] {
            assert!((count as f64 / 1e4 - share).abs() < 0.02, "{count} for {share}");
        }
        let [.., cold, _] = drawn(SamplerSpec { temperature: 0.5, ..SamplerSpec::default() });
        assert!((cold as f64 / 1e4 - 0.0225 / 0.075).abs() < 0.02, "0.15² of 0.1² + 0.2² + 0.15² + 0.05²: {cold}");
    }

    #[test]
    fn only_the_likeliest_are_drawn_where_that_is_asked() {
        assert_eq!(drawn(SamplerSpec { temperature: 0.0, ..SamplerSpec::default() })[2], 10_000);
        let [_, a, b, c, d] = drawn(SamplerSpec { top_k: 2, ..SamplerSpec::default() });
        assert!(a + d == 0 && b + c == 10_000 && b > c);
        let [_, a, b, c, d] = drawn(SamplerSpec { top_p: 0.6, ..SamplerSpec::default() });
        assert!(a + d == 0 && b > c && c > 0, "0.4 is not enough, 0.4 + 0.3 is");
        assert_eq!(drawn(SamplerSpec { top_p: 0.3, ..SamplerSpec::default() })[2], 10_000, "never none");
    }
}
