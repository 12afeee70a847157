//! Scores of the classes of streams, and whether their probabilities mean what they say.

use super::Input;
use super::report::Report;
use crate::cli::guess::{self, FileFormat};
use crate::cli::lanes::{Handler, label_all};
use crate::cli::pieces::{At, Payload, Piece, Place, Streams};
use crate::cli::usage;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strand::data::{Content, LabelMap, Labelled, find_labels, read_json_lines, read_lines};
use strand::encode::EncoderSpec;
use strand::model::{Model, Output};
use strand::score::{Confusion, calibration_error, share};

/// What a stream without a step is given.
const NO_CLASS: &str = "(no class)";

/// A stream's class and its probability, and its steps.
struct Keep;

impl Handler for Keep {
    type Carried = ();
    type Result = (Option<(usize, f32)>, u64);

    fn labelled(&self, (): &mut (), _: Piece, output: Output) -> Self::Result {
        // The last is the class at the end; those before it are estimates on the way.
        (output.labels.last().map(|step| (step.label, step.score)), output.steps as u64)
    }
}

pub fn evaluate(
    model: &Arc<Model>,
    files: &[PathBuf],
    map: &LabelMap,
    from: Input,
    threads: usize,
) -> anyhow::Result<Report> {
    let spec = model.spec();
    let (mut pieces, mut gold, mut streams) = (Vec::new(), Vec::new(), Streams::default());
    for file in files {
        let name: Arc<str> = file.display().to_string().into();
        for stream in read(model, file, map, from)? {
            let Some(label) = label_of(&spec.labels, map, &stream.label) else {
                let (line, label, known) = (stream.line, &stream.label, spec.labels.join(", "));
                anyhow::bail!("{name}, line {line}: `{label}` is none of the labels {known} (see --map)");
            };
            gold.push(label);
            let payload = match stream.content {
                Content::Tokens(tokens) => Payload::Tokens(tokens),
                Content::Bytes(format, bytes) => Payload::Bytes(format, bytes),
            };
            let place = Place { file: name.clone(), at: At::Line(stream.line) };
            pieces.push(Ok(Piece { stream: streams.open(""), place, payload, ends: true }));
        }
    }
    let (mut confusion, mut predictions) = (Confusion::new(spec.labels.iter().map(String::as_str)), Vec::new());
    let (mut gold_left, mut steps, mut off) = (gold.iter().copied(), 0, 0);
    label_all(model, threads, pieces.into_iter(), Keep, |(given, tokens), _| {
        let Some(gold) = gold_left.next() else { return Ok(()) };
        steps += tokens;
        confusion.add(&spec.labels[gold], given.map_or(NO_CLASS, |(label, _)| &spec.labels[label]));
        if let Some((label, score)) = given {
            predictions.push((f64::from(score), label == gold));
            off += label.abs_diff(gold) as u64;
        }
        Ok(())
    })?;
    let mut more = vec![("calibration_error", calibration_error(predictions.iter().copied()))];
    if spec.classify.as_ref().is_some_and(|classify| classify.ordinal) {
        more.push(("mean_absolute_error", share(off, predictions.len() as u64)));
    }
    let counts = confusion.labels().iter().zip(confusion.by_label());
    let rows = counts.filter(|(label, counts)| *label != NO_CLASS && counts.gold + counts.predicted > 0);
    Ok(Report {
        task: "classify",
        model: spec.name.clone(),
        records: gold.len() as u64,
        record_word: "streams",
        tokens: steps,
        token_word: "steps",
        accuracy: confusion.accuracy(),
        overall: None,
        more,
        rows: rows.map(|(label, counts)| (label.clone(), counts.figures())).collect(),
        row_word: "class",
        confusion,
        conditions: BTreeMap::from([("from", if from == Input::Text { "text" } else { "tokens" })]),
    })
}

/// The model's label for a gold one: the same after renaming, or that with its number, from 0.
fn label_of(labels: &[String], map: &LabelMap, gold: &str) -> Option<usize> {
    let renamed = map.apply(gold);
    let named = labels.iter().position(|label| *label == renamed);
    named.or_else(|| renamed.parse().ok().filter(|&number| number < labels.len()))
}

fn read(model: &Model, file: &Path, map: &LabelMap, from: Input) -> anyhow::Result<Vec<Labelled>> {
    let spec = model.spec();
    if guess::by_name(file) == Some(FileFormat::Jsonl) {
        return Ok(read_json_lines(file)?);
    }
    if matches!(model.encoder().spec(), EncoderSpec::Vector(_) | EncoderSpec::Dna(_) | EncoderSpec::Notes(_)) {
        return Err(usage(format!("`{}` reads {}: give it .jsonl files", spec.name, model.encoder().spec().kind())));
    }
    let known = |label: &str| label_of(&spec.labels, map, label).is_some();
    let at = find_labels(file, known).map_err(|error| {
        anyhow::anyhow!("{error} {} of `{}`; rename them with --map OLD=NEW,…", spec.labels.join(", "), spec.name)
    })?;
    let tokens = from == Input::Tokens || matches!(model.encoder().spec(), EncoderSpec::Events(_));
    Ok(read_lines(file, at, tokens)?)
}
