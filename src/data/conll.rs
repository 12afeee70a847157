//! CoNLL files: `token<TAB>label` a line, a blank line between sentences. A line whose token is empty (corpora of
//! tweets have a few) is passed over.

use super::{DataError, Lines, Source};
use crate::model::Scheme;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

/// A sentence with a label for each token.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sentence {
    pub tokens: Vec<String>,
    pub labels: Vec<String>,
}

/// Renames the types of labels: `person=PER,*=O`.
///
/// The type is what stands after `B-` or `I-`, or else the whole label; `*` takes every type that is not named. A
/// type that becomes `O` loses its prefix. The label `O` itself always stays.
///
/// ```
/// let map: strand::data::LabelMap = "person=PER,*=O".parse().unwrap();
/// assert_eq!(map.apply("I-person"), "I-PER");
/// assert_eq!(map.apply("B-product"), "O");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LabelMap(BTreeMap<String, String>);

impl LabelMap {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The label under its new name.
    pub fn apply(&self, label: &str) -> String {
        let (prefix, kind) = match label.split_at_checked(2) {
            Some((prefix @ ("B-" | "I-"), kind)) => (prefix, kind),
            _ => ("", label),
        };
        match self.0.get(kind).or_else(|| self.0.get("*")) {
            Some(_) if label == "O" => label.to_string(),
            Some(new) if new == "O" => new.clone(),
            Some(new) => format!("{prefix}{new}"),
            None => label.to_string(),
        }
    }
}

impl From<BTreeMap<String, String>> for LabelMap {
    fn from(renames: BTreeMap<String, String>) -> LabelMap {
        LabelMap(renames)
    }
}

impl FromStr for LabelMap {
    type Err = String;

    fn from_str(text: &str) -> Result<LabelMap, String> {
        let mut map = BTreeMap::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let (from, to) = pair.split_once('=').ok_or_else(|| {
                format!("`{pair}` is not of the form OLD=NEW; write for example person=PER,location=LOC,*=O")
            })?;
            let (from, to) = (from.trim(), to.trim());
            if from.is_empty() || to.is_empty() {
                return Err(format!("`{pair}` lacks a name on one side of `=`"));
            }
            if map.insert(from.to_string(), to.to_string()).is_some() {
                return Err(format!("`{from}` is renamed twice"));
            }
        }
        Ok(LabelMap(map))
    }
}

/// Makes IOB2 of IO or IOB1 labels as the CoNLL evaluation reads them: a span begins where `I-X` does not continue
/// a span of type X.
pub fn to_iob2(labels: &mut [String]) {
    let mut open: Option<String> = None;
    for label in labels {
        let kind = label.split_once('-').map(|(prefix, kind)| (prefix == "I", kind.to_string()));
        if let Some((true, kind)) = &kind
            && open.as_ref() != Some(kind)
        {
            *label = format!("B-{kind}");
        }
        open = kind.map(|(_, kind)| kind);
    }
}

/// Reads sentences one after the other.
pub struct ConllReader {
    lines: Lines,
    line: String,
}

impl ConllReader {
    pub fn new(source: Source) -> ConllReader {
        ConllReader { lines: Lines::new(source), line: String::new() }
    }

    pub fn open(path: &Path) -> Result<ConllReader, DataError> {
        Ok(ConllReader::new(Source::open(path)?))
    }

    /// The next sentence with the labels as they stand, or nothing at the end. Never empty.
    pub fn sentence(&mut self) -> Result<Option<Sentence>, DataError> {
        self.next(None, true)
    }

    /// The next sentence's tokens; further columns are passed over.
    pub fn tokens(&mut self) -> Result<Option<Vec<String>>, DataError> {
        Ok(self.next(None, false)?.map(|sentence| sentence.tokens))
    }

    /// Number of the line read last.
    pub fn line(&self) -> u64 {
        self.lines.line()
    }

    fn next(&mut self, scheme: Option<Scheme>, labelled: bool) -> Result<Option<Sentence>, DataError> {
        let mut sentence = Sentence::default();
        while self.lines.next_into(&mut self.line)? {
            if self.line.trim().is_empty() {
                if sentence.tokens.is_empty() {
                    continue;
                }
                return Ok(Some(sentence));
            }
            let mut columns = self.line.split('\t');
            let token = columns.next().unwrap_or_default();
            if token.is_empty() {
                continue;
            }
            sentence.tokens.push(token.to_string());
            if labelled {
                let (Some(label), None) = (columns.next(), columns.next()) else {
                    let found = self.line.split('\t').count();
                    return Err(self.lines.error(format!(
                        "expected token<TAB>label, found {found} column{}{}",
                        if found == 1 { "" } else { "s" },
                        if found == 1 { " (is the separator a space?)" } else { " (keep two with `cut -f1,…`)" },
                    )));
                };
                if scheme == Some(Scheme::Bio) {
                    check_bio(label).map_err(|detail| self.lines.error(detail))?;
                } else if label.is_empty() {
                    return Err(self.lines.error("the label after the tab is empty"));
                }
                sentence.labels.push(label.to_string());
            }
        }
        Ok((!sentence.tokens.is_empty()).then_some(sentence))
    }
}

pub(super) fn check_bio(label: &str) -> Result<(), String> {
    match label.split_once('-') {
        Some(("B" | "I", kind)) if !kind.is_empty() => Ok(()),
        None if label == "O" => Ok(()),
        _ => Err(format!("expected a label O, B-type or I-type, found `{label}`")),
    }
}

/// All sentences of a file. Labels of [`Scheme::Bio`] are checked and made IOB2, then `map` renames them.
pub fn read_sentences(path: &Path, scheme: Scheme, map: &LabelMap) -> Result<Vec<Sentence>, DataError> {
    let mut reader = ConllReader::open(path)?;
    let mut sentences = Vec::new();
    while let Some(mut sentence) = reader.next(Some(scheme), true)? {
        normalize_labels(&mut sentence.labels, scheme, map);
        sentences.push(sentence);
    }
    if sentences.is_empty() {
        let name = path.display().to_string();
        return Err(DataError::File { name, detail: "the file holds no sentence".to_string() });
    }
    Ok(sentences)
}

/// Gold labels in the form they are learnt and scored in.
pub fn normalize_labels(labels: &mut [String], scheme: Scheme, map: &LabelMap) {
    if scheme == Scheme::Bio {
        to_iob2(labels);
    }
    if !map.is_empty() {
        labels.iter_mut().for_each(|label| *label = map.apply(label));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn reader(text: &'static str) -> ConllReader {
        ConllReader::new(Source::new("x.tsv", Cursor::new(text)).unwrap())
    }

    fn iob2(labels: &str) -> String {
        let mut labels: Vec<String> = labels.split(' ').map(str::to_string).collect();
        to_iob2(&mut labels);
        labels.join(" ")
    }

    #[test]
    fn sentences_are_parted_by_any_number_of_blank_lines() {
        let mut reader = reader("\na\tO\n\n \nb\tB-X\nc\tI-X");
        assert_eq!(reader.sentence().unwrap().unwrap().tokens, ["a"]);
        assert_eq!(reader.sentence().unwrap().unwrap().labels, ["B-X", "I-X"]);
        assert_eq!(reader.sentence().unwrap(), None);
    }

    #[test]
    fn a_line_without_a_label_is_told_with_file_and_line() {
        let error = reader("a\tO\nb O\n").sentence().unwrap_err().to_string();
        assert_eq!(error, "x.tsv, line 2: expected token<TAB>label, found 1 column (is the separator a space?)");
    }

    #[test]
    fn a_line_without_a_token_is_passed_over() {
        assert_eq!(reader("a\tO\n\tO\nb\tO\n").sentence().unwrap().unwrap().tokens, ["a", "b"]);
    }

    #[test]
    fn tokens_need_no_label() {
        assert_eq!(reader("a\nb\tX\tY\n").tokens().unwrap().unwrap(), ["a", "b"]);
    }

    #[test]
    fn entity_labels_of_another_scheme_are_refused() {
        let error = reader("a\tS-PER\n").next(Some(Scheme::Bio), true).unwrap_err().to_string();
        assert_eq!(error, "x.tsv, line 1: expected a label O, B-type or I-type, found `S-PER`");
    }

    #[test]
    fn io_labels_become_iob2() {
        assert_eq!(iob2("I-A I-A I-B O I-B"), "B-A I-A B-B O B-B");
        assert_eq!(iob2("B-A I-A B-A I-B I-B"), "B-A I-A B-A B-B I-B");
    }

    #[test]
    fn a_map_renames_types_behind_the_prefix() {
        let map: LabelMap = "person=PER, creative-work=ART,*=O".parse().unwrap();
        let renamed = ["B-person", "I-creative-work", "I-group", "O"].map(|label| map.apply(label));
        assert_eq!(renamed, ["B-PER", "I-ART", "O", "O"]);
        let plain: LabelMap = "NOUN=N".parse().unwrap();
        assert_eq!(["NOUN", "VERB"].map(|label| plain.apply(label)), ["N", "VERB"]);
    }

    #[test]
    fn a_map_that_is_none_is_refused() {
        assert!("person".parse::<LabelMap>().is_err());
        assert!("a=".parse::<LabelMap>().is_err());
        assert!("a=b,a=c".parse::<LabelMap>().is_err());
    }
}
