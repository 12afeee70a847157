//! `strand train`: a model from a recipe.

use super::usage;
use std::path::PathBuf;
use strand::train::{Recipe, TrainError, train};

/// Train a model as a recipe says, and write its directory.
///
/// Checkpoint, logs (CSV) and pictures (SVG) go to runs/NAME.
#[derive(clap::Args)]
pub struct Args {
    /// The recipe (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Go on from the last checkpoint
    #[arg(long)]
    resume: bool,
    /// Set one key of the recipe, such as train.epochs=5 or data.root=../data; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let name = args.config.display();
    let text = std::fs::read_to_string(&args.config).map_err(|e| usage(format!("cannot read {name}: {e}")))?;
    let explained = |e: TrainError| match e {
        TrainError::Recipe(detail) => usage(format!("{name}: {detail}")),
        other => other.into(),
    };
    let sets: Vec<&str> = args.sets.iter().map(String::as_str).collect();
    let recipe = Recipe::parse(&text, &sets).map_err(explained)?;
    let report = train(&recipe, args.resume).map_err(explained)?;
    let score = report.best.map_or("without a dev score".to_string(), |score| score.to_string());
    eprintln!(
        "{} written after {} epochs, the best was epoch {}: {score}",
        recipe.output.dir.display(),
        report.epochs,
        report.best_epoch
    );
    Ok(())
}
