//! Sentences of labelled words as sentences of labelled characters, for models that read characters: where a word ends is
//! then part of the labels.

use super::conll::{check_bio, normalize_labels};
use super::{ConllReader, DataError, JsonlReader, LabelMap, Sentence};
use crate::model::Scheme;
use std::path::Path;

/// A sentence with a label for each character of its tokens.
///
/// With [`Scheme::Bio`] a token of label `NOUN` is a span: its first character is `B-NOUN`, the others `I-NOUN`. A token that
/// begins a span already, `B-PER`, goes on with `I-PER`; `I-PER` and `O` are those of each character. With the other
/// schemes each character has its token's label.
///
/// ```
/// use strand::data::{Sentence, characters};
/// use strand::model::Scheme;
///
/// let words = Sentence { tokens: vec!["東京".into(), "へ".into()], labels: vec!["PROPN".into(), "ADP".into()] };
/// let spread = characters::spread(&words, Scheme::Bio).unwrap();
/// assert_eq!(spread.tokens, ["東", "京", "へ"]);
/// assert_eq!(spread.labels, ["B-PROPN", "I-PROPN", "B-ADP"]);
/// ```
///
/// # Errors
/// Says which label is of another scheme (`S-PER`).
pub fn spread(sentence: &Sentence, scheme: Scheme) -> Result<Sentence, String> {
    let mut spread = Sentence::default();
    for (token, label) in sentence.tokens.iter().zip(&sentence.labels) {
        let (first, others) = match scheme {
            Scheme::Plain | Scheme::Runs => (label.clone(), label.clone()),
            Scheme::Bio => match label.split_once('-') {
                Some((prefix, kind)) if prefix.len() == 1 => {
                    check_bio(label)?;
                    (label.clone(), format!("I-{kind}"))
                }
                None if label == "O" => (label.clone(), label.clone()),
                _ => (format!("B-{label}"), format!("I-{label}")),
            },
        };
        for (k, c) in token.chars().enumerate() {
            spread.tokens.push(c.into());
            spread.labels.push(if k == 0 { first.clone() } else { others.clone() });
        }
    }
    Ok(spread)
}

/// The sentences of a CoNLL file, or of JSON lines, character by character; labels as [`super::read_sentences`] gives them.
/// With `white_space` there is some ([`add_white_space`]).
///
/// # Errors
/// Says file and line.
pub fn read(
    path: &Path,
    json_lines: bool,
    white_space: bool,
    scheme: Scheme,
    map: &LabelMap,
) -> Result<Vec<Sentence>, DataError> {
    let mut sentences = Vec::new();
    let mut add = |mut sentence: Sentence| {
        if white_space {
            add_white_space(&mut sentence, sentences.len());
        }
        let mut spread = spread(&sentence, scheme)?;
        normalize_labels(&mut spread.labels, scheme, map);
        sentences.push(spread);
        Ok(())
    };
    if json_lines {
        let mut reader = JsonlReader::open(path)?;
        while let Some(sentence) = reader.sentence()? {
            add(sentence).map_err(|detail: String| reader.error(detail))?;
        }
    } else {
        let mut reader = ConllReader::open(path)?;
        while let Some(sentence) = reader.sentence()? {
            let line = reader.line();
            let name = || path.display().to_string();
            add(sentence).map_err(|detail| DataError::Line { name: name(), line, detail })?;
        }
    }
    if sentences.is_empty() {
        let name = path.display().to_string();
        return Err(DataError::File { name, detail: "the file holds no sentence".to_string() });
    }
    Ok(sentences)
}

/// White space as running text has it, of which files of words tell nothing: in the sentences of even `number` a space between
/// two words that end and begin with a Latin letter; in the first two of every four a line feed behind the sentence. It is
/// labelled `O`, inside a span as the span.
pub fn add_white_space(sentence: &mut Sentence, number: usize) {
    if number.is_multiple_of(2) {
        let words = std::mem::take(sentence);
        for (token, label) in words.tokens.into_iter().zip(words.labels) {
            let ends_latin = |word: &String| word.ends_with(|c: char| c.is_ascii_alphabetic());
            let parted =
                sentence.tokens.last().is_some_and(ends_latin) && token.starts_with(|c: char| c.is_ascii_alphabetic());
            if parted {
                sentence.tokens.push(" ".into());
                sentence.labels.push(if label.starts_with("I-") { label.clone() } else { "O".into() });
            }
            sentence.tokens.push(token);
            sentence.labels.push(label);
        }
    }
    if number % 4 < 2 {
        sentence.tokens.push("\n".into());
        sentence.labels.push("O".into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &str) -> Sentence {
        let pairs = words.split(' ').map(|word| word.split_once('/').unwrap());
        let (tokens, labels) = pairs.map(|(token, label)| (token.to_string(), label.to_string())).unzip();
        Sentence { tokens, labels }
    }

    fn shown(sentence: &Sentence) -> String {
        let pairs = sentence.tokens.iter().zip(&sentence.labels);
        pairs.map(|(token, label)| format!("{token}/{label}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn words_become_spans_of_characters() {
        let spread = |text, scheme| shown(&spread(&words(text), scheme).unwrap());
        assert_eq!(spread("東京/PROPN へ/ADP", Scheme::Bio), "東/B-PROPN 京/I-PROPN へ/B-ADP");
        assert_eq!(spread("東京/B-LOC 都/I-LOC へ/O", Scheme::Bio), "東/B-LOC 京/I-LOC 都/I-LOC へ/O");
        assert_eq!(spread("東京/PROPN", Scheme::Plain), "東/PROPN 京/PROPN");
        let error = super::spread(&words("東京/S-LOC"), Scheme::Bio).unwrap_err();
        assert_eq!(error, "expected a label O, B-type or I-type, found `S-LOC`");
    }

    #[test]
    fn white_space_is_outside_of_spans_unless_they_go_on() {
        let spaced = |text, number| {
            let mut sentence = words(text);
            add_white_space(&mut sentence, number);
            shown(&sentence).replace('\n', "LF")
        };
        assert_eq!(spaced("GT/B-X Speed/I-X で/O", 2), "GT/B-X  /I-X Speed/I-X で/O");
        assert_eq!(spaced("STUDIO/PROPN LACHIC/PROPN", 0), "STUDIO/PROPN  /O LACHIC/PROPN LF/O");
        assert_eq!(spaced("GT/B-X Speed/I-X", 3), "GT/B-X Speed/I-X");
        assert_eq!(spaced("50/NUM 年/NOUN", 1), "50/NUM 年/NOUN LF/O");
    }

    #[test]
    fn a_label_of_another_scheme_is_told_with_file_and_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "東\tO\n\n京\tE-LOC\n").unwrap();
        let error = read(file.path(), false, false, Scheme::Bio, &LabelMap::default()).unwrap_err().to_string();
        assert!(error.ends_with("line 3: expected a label O, B-type or I-type, found `E-LOC`"), "{error}");
        assert_eq!(read(file.path(), false, true, Scheme::Plain, &LabelMap::default()).unwrap().len(), 2);
    }
}
