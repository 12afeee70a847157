//! Start and stop codons on both strands, and the ribosome binding site.

/// Start codons by their kind; the last stands for none: the gene goes over the sequence's edge.
pub const START_NAMES: [&str; 4] = ["ATG", "GTG", "TTG", "edge"];
/// The kind that is no codon.
pub const EDGE: u8 = 3;

/// What three bases are in the frame that they are read in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Codon {
    pub stop: bool,
    /// Kind of the start codon.
    pub start: Option<u8>,
    /// The same for the opposite strand.
    pub reverse_stop: bool,
    pub reverse_start: Option<u8>,
}

/// A table of all codons of sets of bases (IUPAC codes).
#[derive(Debug, Clone)]
pub struct Codons(Box<[Codon]>);

impl Codons {
    /// By NCBI's number of the genetic code, 11 or 4.
    pub fn new(genetic_code: u8) -> Codons {
        let stops: &[&str] = if genetic_code == 4 { &["TAA", "TAG"] } else { &["TAA", "TAG", "TGA"] };
        let set = |base: u8| b"ACGT".iter().position(|&b| b == base).map_or(0, |k| 1u8 << k);
        let sets = |codon: &str| -> [u8; 3] { std::array::from_fn(|k| set(codon.as_bytes()[k])) };
        // The opposite strand's codon: the bases that pair, from the right.
        let opposite = |codon: [u8; 3]| [2, 1, 0].map(|k: usize| codon[k].reverse_bits() >> 4);
        // A codon is a stop where all that it may be are stops.
        let is_stop = |codon: [u8; 3]| {
            let mut all = (0..64).map(|k| [1u8 << (k >> 4), 1 << (k >> 2 & 3), 1 << (k & 3)]);
            let may_be = |one: &[u8; 3]| one.iter().zip(codon).all(|(&one, set)| one & set != 0);
            codon.iter().all(|&set| set != 0)
                && all.all(|one| !may_be(&one) || stops.iter().any(|stop| sets(stop) == one))
        };
        let start = |codon: [u8; 3]| START_NAMES[..3].iter().position(|name| sets(name) == codon).map(|k| k as u8);
        let of = |k: usize| {
            let codon = [(k >> 8) as u8, (k >> 4 & 15) as u8, (k & 15) as u8];
            Codon {
                stop: is_stop(codon),
                start: start(codon),
                reverse_stop: is_stop(opposite(codon)),
                reverse_start: start(opposite(codon)),
            }
        };
        Codons((0..4096).map(of).collect())
    }

    pub fn of(&self, first: u8, second: u8, third: u8) -> Codon {
        let at = usize::from(first & 15) << 8 | usize::from(second & 15) << 4 | usize::from(third & 15);
        self.0[at]
    }
}

/// How much of AGGAGG (Shine and Dalgarno 1974) lies 4 to 13 bases before a start codon: 0 for less than three bases in a
/// row, 4 for all six; one less where it lies nearer than 5 or further than 10 bases. `upstream(k)`: the bases that the
/// k-th before the start may be.
pub fn binding_site(upstream: impl Fn(u64) -> Option<u8>) -> i64 {
    const A: u8 = 1;
    const G: u8 = 4;
    const MOTIF: [u8; 6] = [A, G, G, A, G, G];
    let mut best = 0;
    for distance in 4..=13u64 {
        let (mut run, mut longest) = (0, 0);
        for (k, base) in MOTIF.iter().enumerate() {
            run = if upstream(distance + 6 - k as u64) == Some(*base) { run + 1 } else { 0 };
            longest = longest.max(run);
        }
        let aside = i64::from(!(5..=10).contains(&distance));
        best = best.max(longest - 2 - aside);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::dna::base_set;

    fn codon(code: u8, text: &str) -> Codon {
        let [a, b, c] = std::array::from_fn(|k| base_set(text.as_bytes()[k]));
        Codons::new(code).of(a, b, c)
    }

    #[test]
    fn codons_are_read_on_both_strands() {
        assert_eq!(codon(11, "ATG"), Codon { start: Some(0), ..Codon::default() });
        assert_eq!(codon(11, "CAC"), Codon { reverse_start: Some(1), ..Codon::default() });
        assert_eq!(codon(11, "TTG"), Codon { start: Some(2), ..Codon::default() });
        assert_eq!(codon(11, "uga"), Codon { stop: true, ..Codon::default() });
        assert_eq!(codon(11, "TCA"), Codon { reverse_stop: true, ..Codon::default() });
        assert_eq!((codon(4, "TGA"), codon(4, "TCA")), (Codon::default(), Codon::default()));
    }

    #[test]
    fn an_ambiguous_codon_is_a_stop_where_all_that_it_may_be_are() {
        assert!(codon(11, "TAR").stop && codon(11, "TRA").stop);
        assert!(!codon(11, "TRR").stop && !codon(11, "NNN").stop);
        assert_eq!(codon(11, "RTG").start, None);
    }

    #[test]
    fn a_binding_site_counts_by_length_and_distance() {
        let worth = |text: &str| {
            let bases = text.as_bytes();
            binding_site(|k| bases.len().checked_sub(k as usize).map(|at| base_set(bases[at])))
        };
        assert_eq!(worth("AAAAGGAGGTTTTTT"), 4);
        assert_eq!(worth("TTTTTTTTGGATTTTTTT"), 1);
        assert_eq!(worth("AGGAGGTTTTTTTTTTTT"), 3);
        assert_eq!(worth("TTTTTTTTTTTTTTTTTTT"), 0);
        assert_eq!(worth("AGG"), 0);
    }
}
