//! How well a score parts two kinds, whatever the threshold.

/// The area under the receiver operating characteristic, 0…1: the chance that of a positive and a negative, drawn at
/// random, the positive has the higher score (equal ones count half). 0.5 where there are none of a kind.
pub fn roc_auc(judged: &[(f64, bool)]) -> f64 {
    let mut sorted: Vec<&(f64, bool)> = judged.iter().collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut pairs) = (0.0, 0.0);
    for equals in sorted.chunk_by(|a, b| a.0 == b.0) {
        let positives = equals.iter().filter(|(_, positive)| *positive).count() as f64;
        let negatives = equals.len() as f64 - positives;
        pairs += positives * (below + negatives / 2.0);
        below += negatives;
    }
    let positives = sorted.len() as f64 - below;
    if positives == 0.0 || below == 0.0 { 0.5 } else { pairs / (positives * below) }
}

#[cfg(test)]
mod tests {
    use super::roc_auc;

    #[test]
    fn the_area_is_the_share_of_pairs_in_the_right_order() {
        assert_eq!(roc_auc(&[(1.0, false), (2.0, true), (3.0, true)]), 1.0);
        assert_eq!(roc_auc(&[(1.0, true), (2.0, false)]), 0.0);
        assert_eq!(roc_auc(&[(1.0, true), (1.0, false)]), 0.5);
        assert_eq!(roc_auc(&[(4.0, true), (1.0, true), (2.0, false), (3.0, false)]), 0.5);
        assert_eq!((roc_auc(&[]), roc_auc(&[(1.0, true)])), (0.5, 0.5));
    }
}
