//! From coding intervals to a label for every base.

use super::{Interval, Strand};
use serde::{Deserialize, Serialize};

/// What is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DnaScheme {
    /// `none`, `forward`, `reverse`.
    #[serde(rename = "strand")]
    Strand,
    /// `none`, and the strand with the position in the codon counted from the gene's 5' end: `forward0` … `reverse2`.
    #[serde(rename = "strand+frame")]
    StrandFrame,
}

impl DnaScheme {
    /// The names of the classes; [`dna_labels`] gives indices into them.
    pub fn classes(self) -> &'static [&'static str] {
        match self {
            DnaScheme::Strand => &["none", "forward", "reverse"],
            DnaScheme::StrandFrame => &["none", "forward0", "forward1", "forward2", "reverse0", "reverse1", "reverse2"],
        }
    }
}

/// The class of each of the first `length` bases.
///
/// Where genes overlap, the one that started first (at the lower coordinate; the longer one if both start together)
/// keeps the base. `intervals` must be sorted as [`super::read_intervals`] sorts them; what lies beyond `length` is
/// left out.
pub fn dna_labels(intervals: &[Interval], length: usize, scheme: DnaScheme) -> Vec<u8> {
    let mut labels = vec![0; length];
    // Bases before this are taken by genes that started earlier, or lie before all genes to come.
    let mut free_from = 0;
    for interval in intervals {
        let end = interval.end.min(length);
        for (at, label) in labels.iter_mut().enumerate().take(end).skip(free_from.max(interval.start)) {
            let strand = interval.strand as u8;
            let codon_position = match interval.strand {
                Strand::Forward => at - interval.start,
                Strand::Reverse => interval.end - 1 - at,
            } % 3;
            *label = match scheme {
                DnaScheme::Strand => 1 + strand,
                DnaScheme::StrandFrame => 1 + 3 * strand + codon_position as u8,
            };
        }
        free_from = free_from.max(end);
    }
    labels
}

/// The opposite strand: bases complemented and in reverse order, with the classes that they have there.
///
/// A codon position counts from the gene's 5' end and stays; forward and reverse change places.
pub fn reverse_complement(bases: &[u8], classes: &[u8], scheme: DnaScheme) -> (Vec<u8>, Vec<u8>) {
    // Classes 1..=n are forward, n+1..=2n reverse.
    let n = scheme.classes().len() as u8 / 2;
    let opposite = |&class: &u8| match class {
        0 => 0,
        forward if forward <= n => forward + n,
        reverse => reverse - n,
    };
    (bases.iter().rev().map(|&base| complement(base)).collect(), classes.iter().rev().map(opposite).collect())
}

/// The base that pairs with an IUPAC code, in the same case; other bytes stay.
fn complement(base: u8) -> u8 {
    const CODES: &[u8; 16] = b"ACGTURYSWKMBDHVN";
    const PAIRED: &[u8; 16] = b"TGCAAYRSWMKVHDBN";
    match CODES.iter().position(|code| code.eq_ignore_ascii_case(&base)) {
        Some(k) if base.is_ascii_lowercase() => PAIRED[k].to_ascii_lowercase(),
        Some(k) => PAIRED[k],
        None => base,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reverse_complement_has_its_genes_on_the_other_strand() {
        let genes = [gene(1, 7, Strand::Forward), gene(8, 11, Strand::Reverse)];
        let turned = [gene(1, 4, Strand::Forward), gene(5, 11, Strand::Reverse)];
        for scheme in [DnaScheme::Strand, DnaScheme::StrandFrame] {
            let classes = dna_labels(&genes, 12, scheme);
            let (bases, classes) = reverse_complement(b"acgtRYKMBDHV", &classes, scheme);
            assert_eq!(bases, b"BDHVKMRYacgt");
            assert_eq!(classes, dna_labels(&turned, 12, scheme));
        }
    }

    fn gene(start: usize, end: usize, strand: Strand) -> Interval {
        Interval { start, end, strand, note: String::new() }
    }

    #[test]
    fn codon_positions_count_from_the_five_prime_end() {
        let genes = [gene(1, 7, Strand::Forward), gene(8, 11, Strand::Reverse)];
        assert_eq!(dna_labels(&genes, 12, DnaScheme::StrandFrame), [0, 1, 2, 3, 1, 2, 3, 0, 6, 5, 4, 0]);
        assert_eq!(dna_labels(&genes, 12, DnaScheme::Strand), [0, 1, 1, 1, 1, 1, 1, 0, 2, 2, 2, 0]);
    }

    #[test]
    fn an_overlap_belongs_to_the_gene_that_started_first() {
        let genes = [gene(0, 6, Strand::Forward), gene(1, 3, Strand::Reverse), gene(4, 9, Strand::Reverse)];
        assert_eq!(dna_labels(&genes, 8, DnaScheme::Strand), [1, 1, 1, 1, 1, 1, 2, 2]);
    }
}
