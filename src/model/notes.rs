//! Notes as what comes next: one sigmoid for each pitch, and how likely a set of notes is by them.
//!
//! With the output o `[top]` of the last layer and x = W o + b `[pitches]`, pitch k sounds in the next step with
//! P = σ(x_k), whatever the others do. A step's surprise is the sum over all pitches of the binary cross-entropy, in nats:
//! -ln P = Σ_k ln(1 + e^(x_k)) - y_k x_k, with y_k = 1 where the pitch sounds (Boulanger-Lewandowski et al. 2012).

use super::adaptive::told;
use super::network::{MAX_NUMBERS, Network};
use super::spec::ModelSpec;
use crate::encode::{Chord, EncoderSpec};

/// What a network that generates has beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WrittenShape {
    /// Where its steps are notes, the lowest pitch: class k of the head is pitch `lowest + k`.
    pub notes: Option<u8>,
    /// Classes of streams: the last so many dense columns of each step.
    pub classes: usize,
}

impl WrittenShape {
    pub fn of(spec: &ModelSpec) -> WrittenShape {
        let notes = match &spec.encoder {
            EncoderSpec::Notes(notes) => Some(notes.lowest),
            _ => None,
        };
        WrittenShape { notes, classes: spec.stream_classes().len() }
    }

    /// The class of the stream that a step with these dense columns is of; 0 where there are no classes.
    pub fn class_of(&self, columns: &[f32]) -> usize {
        let classes = &columns[columns.len() - self.classes..];
        classes.iter().position(|&x| x > 0.5).unwrap_or(0)
    }
}

/// ln(1 + e^x)
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// -ln P of a chord, and what the logits become: their gradient σ(x) - y.
pub fn surprise(x: impl Iterator<Item = f64>, chord: Chord, lowest: u8, mut gradient: impl FnMut(usize, f64)) -> f64 {
    let mut nats = 0.0;
    for ((k, x), pitch) in x.enumerate().zip(lowest..=127) {
        let sounds = chord.has(pitch);
        nats += softplus(x) - if sounds { x } else { 0.0 };
        gradient(k, 1.0 / (1.0 + (-x).exp()) - f64::from(u8::from(sounds)));
    }
    nats
}

impl Network {
    /// -ln P, in nats, of `chords`, each after the output at its row of `x` `[chords, top]`; appended to `out`. Bit for bit
    /// the same whatever the other rows are.
    pub fn surprises_of_chords(&self, x: &[f32], chords: &[Chord], lowest: u8, out: &mut Vec<f32>) {
        let (top, width, mut logits) = (self.shape().top(), self.shape().classes, Vec::new());
        let at_once = MAX_NUMBERS / width;
        for (x, chords) in x.chunks(at_once * top).zip(chords.chunks(at_once)) {
            self.logits(x, chords.len(), &mut logits);
            for (row, &chord) in logits.chunks_exact(width).zip(chords) {
                out.push(told(surprise(row.iter().map(|&x| f64::from(x)), chord, lowest, |_, _| {})));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probabilities_of_all_chords_add_up_to_one() {
        let x = [1.5, -0.25, 40.0, -3.0];
        let all = (0..16u128).map(|bits| (-surprise(x.into_iter(), Chord(bits << 60), 60, |_, _| {})).exp());
        assert!((all.sum::<f64>() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn nothing_overflows() {
        for x in [1e30, -1e30, 800.0, -800.0] {
            let nats = surprise([x].into_iter(), Chord::default(), 60, |_, gradient| assert!(gradient.is_finite()));
            assert_eq!(nats, x.max(0.0));
        }
    }
}
