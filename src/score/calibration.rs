//! Whether probabilities mean what they say.

/// Bins that probabilities are sorted into, as in Guo et al. 2017.
const BINS: usize = 15;

/// The expected calibration error, 0…1: predictions are sorted into bins of equal width by their probability; the
/// difference between a bin's mean probability and its share of right ones, weighted by its size.
pub fn calibration_error(predictions: impl IntoIterator<Item = (f64, bool)>) -> f64 {
    let (mut bins, mut all) = ([(0.0, 0.0); BINS], 0.0f64);
    for (probability, right) in predictions {
        // Bins are open below and closed above.
        let bin = ((probability * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        bins[bin].0 += probability;
        bins[bin].1 += f64::from(u8::from(right));
        all += 1.0;
    }
    bins.iter().map(|(probability, right): &(f64, f64)| (probability - right).abs()).sum::<f64>() / all.max(1.0)
}

#[cfg(test)]
mod tests {
    use super::calibration_error;

    #[test]
    fn the_error_is_the_distance_of_probability_and_share() {
        assert_eq!(calibration_error([]), 0.0);
        assert_eq!(calibration_error([(1.0, true), (1.0, true)]), 0.0);
        assert_eq!(calibration_error([(1.0, true), (1.0, false)]), 0.5);
        // Two bins: 0.6 said and 0.5 right, 0.9 said and 1 right.
        let error = calibration_error([(0.6, true), (0.6, false), (0.9, true), (0.9, true)]);
        assert!((error - 0.1).abs() < 1e-12, "{error}");
        // Over- and underconfidence in one bin make up for each other.
        assert!(calibration_error([(0.95, true), (0.97, true), (0.96, true)]) > 0.03);
    }
}
