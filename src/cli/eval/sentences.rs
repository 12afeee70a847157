//! Scores on labelled sentences: from their tokens or from text made of them, each a stream or all one stream.

use super::report::{Report, Rows};
use super::{Input, Keep, Step, Streams};
use crate::cli::guess::{self, FileFormat};
use crate::cli::lanes::label_all;
use crate::cli::pieces::{self, At, Payload, Piece, Place};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strand::data::conll::normalize_labels;
use strand::data::{JsonlReader, LabelMap, Sentence, characters, detokenize, read_sentences};
use strand::encode::{EncoderSpec, InputFormat};
use strand::model::{Model, Scheme, Span};
use strand::score::{Confusion, SpanScore, spans_of};

/// What stands in the confusion matrix for a token that the other side does not have.
const NO_TOKEN: &str = "(no such token)";

pub fn evaluate(
    model: &Arc<Model>,
    files: &[PathBuf],
    map: &LabelMap,
    streams: Streams,
    from: Input,
    threads: usize,
) -> anyhow::Result<Report> {
    let mut sentences = Vec::new();
    for file in files {
        sentences.append(&mut read(file, model, map)?);
    }
    let texts: Vec<(String, Vec<Range<u64>>)> = match from {
        Input::Text => sentences.iter().map(|sentence| detokenize(&sentence.tokens)).collect(),
        Input::Tokens => Vec::new(),
    };
    let payloads: Vec<Payload> = match from {
        Input::Tokens => sentences.iter().map(|s| Payload::Tokens(s.tokens.clone())).collect(),
        Input::Text => texts.iter().map(|(text, _)| text_payload(text, streams)).collect(),
    };
    let mut labelled = Vec::with_capacity(sentences.len());
    label_all(model, threads, stream_pieces(payloads, streams), Keep, |result, _| {
        labelled.push(result);
        Ok(())
    })?;
    let mut tally = Tally::new(model);
    match from {
        Input::Tokens => tally.tokens(&sentences, labelled)?,
        Input::Text => tally.texts(&sentences, &texts, labelled, streams),
    }
    Ok(tally.report(&sentences, streams, from))
}

fn read(file: &Path, model: &Model, map: &LabelMap) -> anyhow::Result<Vec<Sentence>> {
    let scheme = model.spec().scheme;
    if matches!(model.encoder().spec(), EncoderSpec::Chars(_)) {
        let json_lines = guess::by_name(file) == Some(FileFormat::Jsonl);
        return Ok(characters::read(file, json_lines, false, scheme, map)?);
    }
    if guess::by_name(file) != Some(FileFormat::Jsonl) {
        return Ok(read_sentences(file, scheme, map)?);
    }
    let (mut reader, mut sentences) = (JsonlReader::open(file)?, Vec::new());
    while let Some(mut sentence) = reader.sentence()? {
        normalize_labels(&mut sentence.labels, scheme, map);
        sentences.push(sentence);
    }
    Ok(sentences)
}

/// In an endless stream one space parts sentences: nothing tells the model where one ends.
fn text_payload(text: &str, streams: Streams) -> Payload {
    let mut bytes = text.as_bytes().to_vec();
    if streams == Streams::Endless {
        bytes.push(b' ');
    }
    Payload::Bytes(InputFormat::Text, bytes)
}

/// The sentences as pieces, a piece each.
fn stream_pieces(
    payloads: Vec<Payload>,
    streams: Streams,
) -> impl Iterator<Item = anyhow::Result<Piece>> + Send + 'static {
    let last = payloads.len().saturating_sub(1);
    let (file, mut numbers): (Arc<str>, _) = ("the gold data".into(), pieces::Streams::default());
    let mut stream = numbers.open("");
    payloads.into_iter().enumerate().map(move |(k, payload)| {
        if streams == Streams::Sentences && k > 0 {
            stream = numbers.open("");
        }
        let place = Place { file: file.clone(), at: At::Line(k as u64 + 1) };
        Ok(Piece { stream: stream.clone(), place, payload, ends: streams == Streams::Sentences || k == last })
    })
}

/// What is counted.
struct Tally<'m> {
    model: &'m Model,
    steps: Confusion,
    spans: SpanScore,
    predicted_tokens: u64,
    /// Of a model whose spans are of characters.
    characters: Option<Characters>,
}

/// Further counts where spans are of characters: words, perhaps, whose bounds are of interest by themselves.
#[derive(Default)]
struct Characters {
    /// Spans whose types do not count.
    bounds: SpanScore,
    /// Labels whose prefix does not count.
    types: Confusion,
}

impl Characters {
    fn spans(&mut self, gold: Vec<Span>, predicted: Vec<Span>) {
        let untyped = |spans: Vec<Span>| -> Vec<Span> {
            spans.into_iter().map(|span| Span { label: String::new(), ..span }).collect()
        };
        self.bounds.add(&untyped(gold), &untyped(predicted));
    }

    fn label(&mut self, gold: &str, given: &str) {
        let kind = |label: &str| label.split_once('-').map_or_else(|| label.to_string(), |(_, kind)| kind.to_string());
        self.types.add(&kind(gold), &kind(given));
    }

    fn figures(&self) -> Vec<(&'static str, f64)> {
        let bounds = self.bounds.overall().figures();
        vec![
            ("type_accuracy", self.types.accuracy()),
            ("bounds_precision", bounds.precision),
            ("bounds_recall", bounds.recall),
            ("bounds_f1", bounds.f1),
        ]
    }
}

impl<'m> Tally<'m> {
    fn new(model: &'m Model) -> Tally<'m> {
        let steps = Confusion::new(model.spec().labels.iter().map(String::as_str));
        let spec = model.spec();
        let of_characters = spec.scheme == Scheme::Bio && matches!(spec.encoder, EncoderSpec::Chars(_));
        let characters = of_characters.then(Characters::default);
        Tally { model, steps, spans: SpanScore::default(), predicted_tokens: 0, characters }
    }

    fn spans_of<'a>(&self, labels: impl IntoIterator<Item = &'a str>) -> Vec<Span> {
        let spec = self.model.spec();
        spans_of(spec.scheme, spec.outside.as_deref(), labels)
    }

    /// Token by token; spans end with their sentence, also in an endless stream, as in the gold data.
    /// A label may come with a later sentence's in an endless stream.
    fn tokens(&mut self, sentences: &[Sentence], labelled: Vec<(Vec<Step>, Vec<Span>)>) -> anyhow::Result<()> {
        let names = &self.model.spec().labels;
        let tokens: usize = sentences.iter().map(|sentence| sentence.tokens.len()).sum();
        let given: usize = labelled.iter().map(|(steps, _)| steps.len()).sum();
        anyhow::ensure!(tokens == given, "the model gave {given} labels for the {tokens} tokens");
        let mut labelled = labelled.into_iter().flat_map(|(steps, _)| steps);
        for sentence in sentences {
            let steps: Vec<Step> = labelled.by_ref().take(sentence.tokens.len()).collect();
            self.predicted_tokens += steps.len() as u64;
            let predicted = || steps.iter().map(|step| names[step.label].as_str());
            for (gold, predicted) in sentence.labels.iter().zip(predicted()) {
                self.steps.add(gold, predicted);
            }
            let gold = self.spans_of(sentence.labels.iter().map(String::as_str));
            let predicted_spans = self.spans_of(predicted());
            self.spans.add(&gold, &predicted_spans);
            if let Some(characters) = &mut self.characters {
                characters.spans(gold, predicted_spans);
                sentence.labels.iter().zip(predicted()).for_each(|(gold, given)| characters.label(gold, given));
            }
        }
        Ok(())
    }

    /// By positions in the text.
    fn texts(
        &mut self,
        sentences: &[Sentence],
        texts: &[(String, Vec<Range<u64>>)],
        labelled: Vec<(Vec<Step>, Vec<Span>)>,
        streams: Streams,
    ) {
        let (mut gold_steps, mut gold_spans): (Vec<(Range<u64>, &str)>, Vec<Span>) = Default::default();
        let (mut steps, mut spans, mut offset) = (Vec::new(), Vec::new(), 0);
        let last = sentences.len().saturating_sub(1);
        for (k, ((sentence, (text, places)), result)) in sentences.iter().zip(texts).zip(labelled).enumerate() {
            let at = |place: &Range<u64>| place.start + offset..place.end + offset;
            gold_steps.extend(places.iter().map(at).zip(sentence.labels.iter().map(String::as_str)));
            gold_spans.extend(self.spans_of(sentence.labels.iter().map(String::as_str)).into_iter().map(|span| Span {
                start: at(&places[span.start as usize]).start,
                end: at(&places[span.end as usize - 1]).end,
                label: span.label,
            }));
            steps.extend(result.0);
            spans.extend(result.1);
            if streams == Streams::Endless {
                offset += text.chars().count() as u64 + 1;
            }
            if streams == Streams::Sentences || k == last {
                self.text_steps(&gold_steps, &steps);
                self.spans.add(&gold_spans, &spans);
                gold_steps.clear();
                gold_spans.clear();
                steps.clear();
                spans.clear();
            }
        }
    }

    /// A token is right with the same bounds and the same label.
    fn text_steps(&mut self, gold: &[(Range<u64>, &str)], predicted: &[Step]) {
        let names = &self.model.spec().labels;
        let mut unmatched: HashMap<Range<u64>, &str> = gold.iter().cloned().collect();
        self.predicted_tokens += predicted.len() as u64;
        for step in predicted {
            let gold = unmatched.remove(&(step.start..step.end)).unwrap_or(NO_TOKEN);
            self.steps.add(gold, &names[step.label]);
        }
        for gold in unmatched.into_values() {
            self.steps.add(gold, NO_TOKEN);
        }
    }

    fn report(self, sentences: &[Sentence], streams: Streams, from: Input) -> Report {
        let tokens = sentences.iter().map(|sentence| sentence.tokens.len() as u64).sum();
        let spec = self.model.spec();
        let is_plain = spec.scheme == Scheme::Plain;
        let rows: Rows = if is_plain {
            let counts = self.steps.labels().iter().zip(self.steps.by_label());
            let used = counts.filter(|(label, c)| *label != NO_TOKEN && c.gold + c.predicted > 0);
            used.map(|(label, counts)| (label.clone(), counts.figures())).collect()
        } else {
            self.spans.by_type().iter().map(|(label, counts)| (label.clone(), counts.figures())).collect()
        };
        let right = self.steps.right();
        let overall = match (is_plain, from) {
            (true, Input::Tokens) => None,
            (true, Input::Text) => {
                let counts = strand::score::Counts { right, predicted: self.predicted_tokens, gold: tokens };
                Some(counts.figures())
            }
            (false, _) => Some(self.spans.overall().figures()),
        };
        let conditions = BTreeMap::from([
            ("as", if streams == Streams::Endless { "endless" } else { "sentences" }),
            ("from", if from == Input::Text { "text" } else { "tokens" }),
        ]);
        Report {
            task: "tag",
            model: spec.name.clone(),
            records: sentences.len() as u64,
            record_word: "sentences",
            tokens,
            token_word: if self.characters.is_some() { "characters" } else { "tokens" },
            accuracy: strand::score::share(right, tokens),
            overall,
            more: self.characters.as_ref().map_or_else(Vec::new, Characters::figures),
            rows,
            row_word: if is_plain { "label" } else { "span type" },
            confusion: self.steps,
            conditions,
        }
    }
}
