//! What a language model makes of text or events: nats and bits a unit; and where the files say which units are
//! anomalies, how well surprise finds them.

use crate::cli::guess::{self, FileFormat};
use crate::cli::lanes::{Handler, label_all};
use crate::cli::pieces::{At, Payload, Piece, Place, Reading, Streams, pieces};
use crate::cli::usage;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strand::data::{JsonlReader, LabelMap, characters, read_text};
use strand::encode::{EncoderSpec, InputFormat};
use strand::model::spec::SURPRISE_LABELS;
use strand::model::{Likelihood, Model, Output, Task};
use strand::score::{Counts, roc_auc};

/// The surprises of a piece's units, and of a stream that ends how likely it was.
struct Keep;

impl Handler for Keep {
    type Carried = ();
    type Result = (Vec<f32>, Option<Likelihood>);

    fn labelled(&self, (): &mut (), piece: Piece, output: Output) -> Self::Result {
        (output.surprises, output.likelihood.filter(|_| piece.ends))
    }
}

/// Figures over all streams.
pub struct LanguageReport {
    model: String,
    threshold: Option<f64>,
    records: u64,
    all: Likelihood,
    surprising: u64,
    /// Of a model of notes: the sum over streams of their nats a step.
    notes: Option<f64>,
    task: Task,
    /// Surprise of each unit that has a label, and whether it is an anomaly.
    judged: Vec<(f64, bool)>,
}

/// Scores the streams of all files.
pub fn evaluate(
    model: &Arc<Model>,
    files: Vec<PathBuf>,
    lines: bool,
    range: Option<Range<usize>>,
    map: &LabelMap,
    threads: usize,
) -> anyhow::Result<LanguageReport> {
    let spec = model.spec();
    let threshold = spec.language.as_ref().and_then(|language| language.threshold);
    let notes = matches!(spec.encoder, EncoderSpec::Notes(_)).then_some(0.0);
    let (all, judged) = (Likelihood::default(), Vec::new());
    let mut report = LanguageReport {
        model: spec.name.clone(),
        threshold,
        records: 0,
        all,
        surprising: 0,
        notes,
        task: spec.task,
        judged,
    };
    for file in files {
        match &range {
            Some(range) => {
                let piece = part(model, &file, range)?;
                report.take(model, threads, std::iter::once(Ok(piece)), &file, None)?;
            }
            None => {
                let gold = gold(&file, map)?;
                let events = matches!(model.encoder().spec(), EncoderSpec::Events(_));
                let is_json = guess::by_name(&file) == Some(FileFormat::Jsonl);
                let reading = Reading { format: (events && !is_json).then_some(FileFormat::Tokens), lines };
                report.take(model, threads, pieces(vec![file.clone()], reading, model.clone()), &file, gold)?;
            }
        }
    }
    Ok(report)
}

/// Characters `range` of a text, as a stream of its own.
fn part(model: &Model, file: &Path, range: &Range<usize>) -> anyhow::Result<Piece> {
    if model.encoder().format() != InputFormat::Text {
        return Err(usage(format!("--range counts characters of a text, which `{}` does not read", model.spec().name)));
    }
    let text = read_text(file)?;
    let Some(part) = characters(&text, range.clone()) else {
        let (name, count) = (file.display(), text.chars().count());
        return Err(usage(format!("{name} has {count} characters, {}..{} are no part of it", range.start, range.end)));
    };
    let place = Place { file: file.display().to_string().into(), at: At::Byte(0) };
    let payload = Payload::Bytes(InputFormat::Text, part.as_bytes().to_vec());
    Ok(Piece { stream: Streams::default().open(""), place, payload, ends: true })
}

/// The labels of each record of a file of JSON lines, where it has any.
fn gold(file: &Path, map: &LabelMap) -> anyhow::Result<Option<Vec<Option<Vec<String>>>>> {
    if guess::by_name(file) != Some(FileFormat::Jsonl) {
        return Ok(None);
    }
    let (mut reader, mut all) = (JsonlReader::open(file)?, Vec::new());
    while let Some(record) = reader.record()? {
        all.push(record.labels.map(|labels| labels.iter().map(|label| map.apply(label)).collect()));
    }
    Ok(all.iter().any(Option::is_some).then_some(all))
}

impl LanguageReport {
    fn take(
        &mut self,
        model: &Arc<Model>,
        threads: usize,
        pieces: impl Iterator<Item = anyhow::Result<Piece>> + Send + 'static,
        file: &Path,
        gold: Option<Vec<Option<Vec<String>>>>,
    ) -> anyhow::Result<()> {
        let mut gold = gold.map(Vec::into_iter);
        label_all(model, threads, pieces, Keep, |(surprises, ended), _| {
            if let Some(of) = ended {
                self.records += 1;
                self.all.log_probability += of.log_probability;
                self.all.units += of.units;
                self.notes.iter_mut().for_each(|sum| *sum += of.nats_per_unit().unwrap_or_default());
            }
            let above = |nats: f32| self.threshold.is_some_and(|threshold| f64::from(nats) > threshold);
            self.surprising += surprises.iter().filter(|nats| above(**nats)).count() as u64;
            if let Some(labels) = gold.as_mut().and_then(Iterator::next).flatten() {
                anyhow::ensure!(
                    labels.len() == surprises.len(),
                    "{}: a record has {} labels for {} units",
                    file.display(),
                    labels.len(),
                    surprises.len()
                );
                // Other labels say that nothing is known of a unit.
                let known = labels.iter().zip(&surprises).filter_map(|(label, &nats)| {
                    let is = SURPRISE_LABELS.iter().position(|known| known == label)?;
                    Some((f64::from(nats), is == 1))
                });
                self.judged.extend(known);
            }
            Ok(())
        })
    }

    /// How well units above the threshold are the anomalies.
    fn counts(&self) -> Option<Counts> {
        let threshold = self.threshold.filter(|_| !self.judged.is_empty())?;
        let count = |which: fn(bool, bool) -> bool| {
            self.judged.iter().filter(|(nats, gold)| which(*nats > threshold, *gold)).count() as u64
        };
        Some(Counts {
            right: count(|given, gold| given && gold),
            predicted: count(|given, _| given),
            gold: count(|_, gold| gold),
        })
    }

    /// One JSON object, on one line.
    pub fn json(&self) -> anyhow::Result<String> {
        let mut object = Map::new();
        let mut put = |key: &str, value: Value| object.insert(key.to_string(), value);
        put("task", json!(self.task));
        put("model", json!(self.model));
        put("records", json!(self.records));
        if let Some(sum) = self.notes {
            put("steps", json!(self.all.units));
            put("log_probability", json!(self.all.log_probability));
            put("nats_per_step", json!(self.all.nats_per_unit()));
            put("nats_per_step_by_stream", json!((self.records > 0).then(|| sum / self.records as f64)));
            return Ok(serde_json::to_string(&object)? + "\n");
        }
        put("tokens", json!(self.all.units));
        put("log_probability", json!(self.all.log_probability));
        put("nats_per_token", json!(self.all.nats_per_unit()));
        put("bits_per_token", json!(self.all.bits_per_unit()));
        put("perplexity", json!(self.all.perplexity()));
        if let Some(threshold) = self.threshold {
            put("threshold", json!(threshold));
            put("surprising", json!(self.surprising));
        }
        if let Some(counts) = self.counts() {
            let figures = counts.figures();
            put("anomalies", json!(counts.gold));
            put("judged", json!(self.judged.len()));
            put("precision", json!(figures.precision));
            put("recall", json!(figures.recall));
            put("f1", json!(figures.f1));
        }
        if !self.judged.is_empty() {
            put("auc", json!(roc_auc(&self.judged)));
        }
        Ok(serde_json::to_string(&object)? + "\n")
    }

    /// A few lines.
    pub fn table(&self) -> String {
        let number = |x: Option<f64>| x.map_or("-".to_string(), |x| format!("{x:.4}"));
        let of = &self.all;
        if let Some(sum) = self.notes {
            let by_stream = (self.records > 0).then(|| sum / self.records as f64);
            return format!(
                "{}: {} streams, {} steps of notes\n\nnats per step {}\n  averaged within each stream, then over streams {}\n",
                self.model,
                self.records,
                of.units,
                number(of.nats_per_unit()),
                number(by_stream)
            );
        }
        let mut out = format!(
            "{}: {} streams, {} units\n\nnats per unit {}\nbits per unit {}\nperplexity    {}\n",
            self.model,
            self.records,
            of.units,
            number(of.nats_per_unit()),
            number(of.bits_per_unit()),
            number(of.perplexity())
        );
        // Writing to a string cannot fail.
        if let Some(threshold) = self.threshold {
            let _ = writeln!(out, "surprising    {} (above {threshold} nats)", self.surprising);
        }
        if let Some(counts) = self.counts() {
            let f = counts.figures();
            let _ = writeln!(
                out,
                "anomalies     {} of {} labelled units: precision {:.2}%, recall {:.2}%, F1 {:.2}%",
                counts.gold,
                self.judged.len(),
                100.0 * f.precision,
                100.0 * f.recall,
                100.0 * f.f1
            );
        }
        if !self.judged.is_empty() {
            let _ = writeln!(out, "area under ROC {:.4}", roc_auc(&self.judged));
        }
        out
    }
}
