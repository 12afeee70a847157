//! Error rates of transcripts.

use crate::cli::guess::{self, FileFormat};
use crate::cli::lanes::{Handler, label_all};
use crate::cli::pieces::{At, Payload, Piece, Place, Streams};
use crate::cli::usage;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use strand::data::{Content, read_transcripts};
use strand::model::transcribe::{SPACE, joined};
use strand::model::{Model, Output};
use strand::score::{Edits, share, words};

/// What a stream reads as, and its steps.
struct Keep(Arc<Model>);

impl Handler for Keep {
    type Carried = ();
    type Result = (String, u64);

    fn labelled(&self, (): &mut (), _: Piece, output: Output) -> Self::Result {
        let symbols = output.labels.iter().map(|step| step.text.as_str());
        (joined(&self.0.spec().labels, symbols), output.steps as u64)
    }
}

/// Figures over all streams.
#[derive(Default)]
pub struct TranscriptReport {
    model: String,
    records: u64,
    steps: u64,
    /// Streams without an error.
    right: u64,
    words: Edits,
    characters: Edits,
}

/// Scores the streams of all files, each from its start; white space counts as one space.
pub fn evaluate(model: &Arc<Model>, files: &[PathBuf], threads: usize) -> anyhow::Result<TranscriptReport> {
    let (mut pieces, mut gold, mut streams) = (Vec::new(), Vec::new(), Streams::default());
    for file in files {
        if guess::by_name(file) != Some(FileFormat::Jsonl) {
            let name = &model.spec().name;
            return Err(usage(format!(
                "transcripts of `{name}` are scored on .jsonl files, with the key `transcript`"
            )));
        }
        let name: Arc<str> = file.display().to_string().into();
        for stream in read_transcripts(file)? {
            gold.push(words(&stream.label).join(SPACE));
            let payload = match stream.content {
                Content::Tokens(tokens) => Payload::Tokens(tokens),
                Content::Bytes(format, bytes) => Payload::Bytes(format, bytes),
            };
            let place = Place { file: name.clone(), at: At::Line(stream.line) };
            pieces.push(Ok(Piece { stream: streams.open(""), place, payload, ends: true }));
        }
    }
    let mut report = TranscriptReport { model: model.spec().name.clone(), ..TranscriptReport::default() };
    let mut gold = gold.into_iter();
    label_all(model, threads, pieces.into_iter(), Keep(model.clone()), |(given, steps), _| {
        let Some(gold) = gold.next() else { return Ok(()) };
        let given = words(&given).join(SPACE);
        let characters = |text: &str| text.chars().collect::<Vec<char>>();
        report.records += 1;
        report.steps += steps;
        report.right += u64::from(gold == given);
        report.words += Edits::between(&words(&gold), &words(&given));
        report.characters += Edits::between(&characters(&gold), &characters(&given));
        Ok(())
    })?;
    Ok(report)
}

impl TranscriptReport {
    /// One JSON object, on one line.
    pub fn json(&self) -> anyhow::Result<String> {
        let object = json!({
            "task": "transcribe",
            "model": self.model,
            "records": self.records,
            "tokens": self.steps,
            "accuracy": share(self.right, self.records),
            "word_error_rate": self.words.rate(),
            "character_error_rate": self.characters.rate(),
            "words": self.words.gold,
            "substitutions": self.words.substitutions,
            "insertions": self.words.insertions,
            "deletions": self.words.deletions,
        });
        Ok(serde_json::to_string(&object)? + "\n")
    }

    /// A table.
    pub fn table(&self) -> String {
        let row = |name: &str, e: &Edits| {
            let (rate, all) = (100.0 * e.rate(), e.gold);
            format!(
                "{name:<10} {rate:>10.2} {:>13} {:>10} {:>9} {all:>8}\n",
                e.substitutions, e.insertions, e.deletions
            )
        };
        format!(
            "{}: {} streams, {} steps\n\naccuracy {:.2}% of streams without an error\n\n           error rate  \
             substituted   inserted   deleted      all\n{}{}",
            self.model,
            self.records,
            self.steps,
            100.0 * share(self.right, self.records),
            row("words", &self.words),
            row("characters", &self.characters)
        )
    }
}
