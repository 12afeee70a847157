//! The command line: one file a subcommand, each with its arguments and a `run`.
//!
//! Here is only what they share: the list of commands, errors with a meaning for the exit code, standard output. What
//! commands do is in the library as far as it is of use without a command line.

mod bench;
mod check;
mod eval;
mod feed;
mod generate;
mod guess;
mod lanes;
mod model;
mod pieces;
mod readers;
mod render;
mod run;
mod sample;
mod score;
mod send;
mod tag;
mod train;
mod translate;

use anyhow::Context;
use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use strand::model::Model;
use strand::rnn::matrix::Precision;

/// Labels endless streams with recurrent networks whose state is carried from record to record.
#[derive(Parser)]
#[command(name = "strand", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::RunArgs),
    Send(send::Args),
    Tag(tag::Args),
    Eval(eval::Args),
    Score(score::Args),
    Sample(sample::Args),
    Generate(generate::Args),
    Translate(translate::Args),
    Train(train::Args),
    Model(model::Args),
    Check(check::CheckArgs),
    Bench(bench::Args),
}

/// Runs the command that the command line names.
pub fn run() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Send(args) => send::run(args),
        Command::Tag(args) => tag::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Score(args) => score::run(args),
        Command::Sample(args) => sample::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Translate(args) => translate::run(args),
        Command::Train(args) => train::run(args),
        Command::Model(args) => model::run(args),
        Command::Check(args) => check::run(&args),
        Command::Bench(args) => bench::run(args),
    }
}

/// The command line or the configuration asks for what cannot be: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Shorthand for an error of wrong usage.
fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

/// Nobody reads our output any more: a quiet end, not a failure.
#[derive(Debug, thiserror::Error)]
#[error("the output was closed")]
pub struct OutputClosed;

/// Says what became of writing to standard output.
fn written(result: std::io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        other => other.context("cannot write to standard output"),
    }
}

/// Writes text to standard output.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// In what precision the model works.
#[derive(Debug, Clone, Copy, clap::Args)]
struct PrecisionArg {
    /// How weights are held and multiplied [default: as model.toml says, else f32]
    #[arg(long, value_enum, value_name = "PRECISION")]
    precision: Option<Precision>,
}

fn load_model(dir: &Path, PrecisionArg { precision }: PrecisionArg) -> anyhow::Result<Arc<Model>> {
    if !dir.is_dir() {
        return Err(usage(format!("{} is no model directory (it would hold a model.toml)", dir.display())));
    }
    let model =
        Model::load_as(dir, precision).with_context(|| format!("cannot load the model in {}", dir.display()))?;
    Ok(Arc::new(model))
}

/// How many threads to use where the command line doesn't say.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
