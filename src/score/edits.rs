//! Error rates of transcripts: the fewest symbols to put in, take out or exchange that turn one into the other.

/// Edits counted over transcripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Edits {
    pub substitutions: u64,
    /// In what was given, but not in gold.
    pub insertions: u64,
    /// In gold, but not in what was given.
    pub deletions: u64,
    /// Symbols (or words) in gold.
    pub gold: u64,
}

impl Edits {
    /// The fewest edits that make `given` of `gold`; of equally few those with the most substitutions (Levenshtein 1966,
    /// Wagner and Fischer 1974).
    pub fn between<T: PartialEq>(gold: &[T], given: &[T]) -> Edits {
        // Of each prefix of `given` the edits that make it of the prefix of gold.
        let mut row: Vec<Edits> =
            (0..=given.len() as u64).map(|n| Edits { insertions: n, ..Edits::default() }).collect();
        for (k, of_gold) in gold.iter().enumerate() {
            let mut diagonal = std::mem::replace(&mut row[0], Edits { deletions: k as u64 + 1, ..Edits::default() });
            for (j, of_given) in given.iter().enumerate() {
                let above = row[j + 1];
                let exchanged = u64::from(of_gold != of_given);
                row[j + 1] = [
                    Edits { substitutions: diagonal.substitutions + exchanged, ..diagonal },
                    Edits { insertions: row[j].insertions + 1, ..row[j] },
                    Edits { deletions: above.deletions + 1, ..above },
                ]
                .into_iter()
                .min_by_key(Edits::all)
                .unwrap_or_default();
                diagonal = above;
            }
        }
        Edits { gold: gold.len() as u64, ..row.last().copied().unwrap_or_default() }
    }

    /// Edits of every kind.
    pub fn all(&self) -> u64 {
        self.substitutions + self.insertions + self.deletions
    }

    /// Edits for each symbol of gold; above 1 where more is wrong than there was to find.
    pub fn rate(&self) -> f64 {
        self.all() as f64 / self.gold.max(1) as f64
    }
}

impl std::ops::AddAssign for Edits {
    fn add_assign(&mut self, more: Edits) {
        self.substitutions += more.substitutions;
        self.insertions += more.insertions;
        self.deletions += more.deletions;
        self.gold += more.gold;
    }
}

/// The words of a transcript: what white space parts.
pub fn words(transcript: &str) -> Vec<&str> {
    transcript.split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edits(gold: &str, given: &str) -> [u64; 4] {
        let e = Edits::between(&words(gold), &words(given));
        [e.substitutions, e.insertions, e.deletions, e.gold]
    }

    #[test]
    fn words_are_exchanged_put_in_and_left_out() {
        assert_eq!(edits("one two three", "one two three"), [0, 0, 0, 3]);
        assert_eq!(edits("one two three", "one too three four"), [1, 1, 0, 3]);
        assert_eq!(edits("one two three", "two three"), [0, 0, 1, 3]);
        assert_eq!(edits("", "nine nine"), [0, 2, 0, 0]);
        assert_eq!(edits("six", ""), [0, 0, 1, 1]);
        assert_eq!(Edits::between(b"kitten", b"sitting").all(), 3);
        assert_eq!(Edits::between(b"", b"ab").rate(), 2.0, "more than there was to find");
    }

    proptest! {
        #[test]
        fn the_way_back_takes_as_many_edits(a in "[ab]{0,9}", b in "[ab]{0,9}") {
            let (there, back) = (Edits::between(a.as_bytes(), b.as_bytes()), Edits::between(b.as_bytes(), a.as_bytes()));
            prop_assert_eq!(there.all(), back.all());
            prop_assert_eq!(there.all() == 0, a == b);
            prop_assert_eq!(a.len() as u64 + there.insertions, b.len() as u64 + there.deletions);
        }
    }
}
