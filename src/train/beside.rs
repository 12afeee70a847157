//! Labels of two kinds learnt at once: a class of the network is a pair of them, of which the second is added up again.
//!
//! What tells names apart (which characters make a word, and of which part of speech) is then learnt from labels that are
//! there for every word, not only for the few that are names (multi-task learning: Caruana 1997).

use super::TrainError;
use crate::data::Sentence;
use std::path::Path;

/// Parts the label from the one beside it in the name of a class.
const BETWEEN: char = '|';

/// The label that a class counts for.
pub fn label_of(class: &str) -> &str {
    class.split_once(BETWEEN).map_or(class, |(label, _)| label)
}

/// Makes pairs of the labels of `sentences` and of those of `others`, which are of the same tokens.
///
/// # Errors
/// Says which sentence has other tokens, or which label cannot be one of a pair.
pub fn join(sentences: &mut [Sentence], others: &[Sentence], path: &Path, beside: &Path) -> Result<(), TrainError> {
    let apart = |number: usize| {
        let (path, beside) = (path.display(), beside.display());
        TrainError::recipe(format!("{path} and {beside}, which lies beside it, differ in sentence {number}"))
    };
    if sentences.len() != others.len() {
        return Err(apart(1 + sentences.len().min(others.len())));
    }
    for (number, (sentence, other)) in (1..).zip(sentences.iter_mut().zip(others)) {
        if sentence.tokens != other.tokens {
            return Err(apart(number));
        }
        if let Some(label) = sentence.labels.iter().chain(&other.labels).find(|label| label.contains(BETWEEN)) {
            return Err(TrainError::recipe(format!("labels of pairs must not hold `{BETWEEN}`, as {label:?} does")));
        }
        for (label, other) in sentence.labels.iter_mut().zip(&other.labels) {
            label.push(BETWEEN);
            label.push_str(other);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence(tokens: &[&str], labels: &[&str]) -> Sentence {
        let own = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
        Sentence { tokens: own(tokens), labels: own(labels) }
    }

    #[test]
    fn a_pair_counts_for_its_first_label() {
        let mut sentences = [sentence(&["東", "へ"], &["B-LOC", "O"])];
        let others = [sentence(&["東", "へ"], &["B-PROPN", "B-ADP"])];
        join(&mut sentences, &others, Path::new("a"), Path::new("b")).unwrap();
        let labels: Vec<&str> = sentences[0].labels.iter().map(|class| label_of(class)).collect();
        assert_eq!(labels, ["B-LOC", "O"]);
        assert_ne!(sentences[0].labels[1], "O");
        assert_eq!(label_of("O"), "O");
    }

    #[test]
    fn files_of_other_tokens_are_refused() {
        let others = [sentence(&["西"], &["B-PROPN"])];
        let error = join(&mut [sentence(&["東"], &["O"])], &others, Path::new("a"), Path::new("b")).unwrap_err();
        assert!(error.to_string().contains("a and b, which lies beside it, differ in sentence 1"), "{error}");
        assert!(join(&mut [], &others, Path::new("a"), Path::new("b")).is_err());
    }
}
