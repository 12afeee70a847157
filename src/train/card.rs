//! The model card that a finished training leaves: what the model is, what it was trained on, how it scored.

use super::TrainError;
use super::checkpoint::Progress;
use super::recipe::{FileSpec, Recipe};
use crate::model::{Model, Task};
use std::fmt::Write;
use std::path::Path;

/// Writes `README.md` into a model directory that has none; a card written by hand is left alone.
pub fn write_if_absent(dir: &Path, recipe: &Recipe, model: &Model, progress: &Progress) -> Result<(), TrainError> {
    let path = dir.join("README.md");
    if path.exists() {
        return Ok(());
    }
    std::fs::write(&path, card(recipe, model, progress)).map_err(|source| TrainError::Log { path, source })
}

fn card(recipe: &Recipe, model: &Model, progress: &Progress) -> String {
    let spec = model.spec();
    let layers: Vec<String> =
        spec.layers.iter().map(|l| format!("{:?} {}", l.cell, l.output()).to_lowercase()).collect();
    let kind = match spec.task {
        Task::Tag => "tagger",
        Task::Classify => "classifier of streams",
        Task::LanguageModel => "language model",
        Task::Generate => "model that generates",
        Task::Transcribe => "transcriber",
        Task::Transduce => "translator",
    };
    let mut text = format!(
        "# {}\n\nA {} {}: {} encoder, layers {}, {} parameters, labels {}.\n\n## Data\n\n",
        spec.name,
        match spec.window() {
            None if spec.task == Task::Transduce => "sentence by sentence".to_string(),
            None => "strictly online".to_string(),
            Some(_) if spec.needs_the_end() => "bidirectional (not for endless streams)".to_string(),
            Some(window) => format!("bidirectional (a label is final at most {} steps later)", window.most_waiting()),
        },
        kind,
        spec.encoder.kind(),
        layers.join(", "),
        model.parameters(),
        spec.labels.join(" ")
    );
    for file in &recipe.data.train {
        let path = match file {
            FileSpec::Path(path) => path,
            FileSpec::File(table) => &table.path,
            FileSpec::Genome(table) => &table.genome,
            FileSpec::Pair(table) => &table.source,
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "- `{}`", path.display());
    }
    text.push_str("\nName the licence of your data here before you pass the model on.\n\n## Scores\n\n");
    let best = progress.best.as_ref().map_or("no dev set".to_string(), |b| b.to_string());
    let _ = writeln!(text, "Epoch {} of {}: {best}.", progress.best_epoch, progress.epoch);
    text
}
