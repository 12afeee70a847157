//! `strand bench tag`

use crate::cli::{PrecisionArg, load_model, print, usage};
use anyhow::Context;
use std::path::PathBuf;
use strand::bench::tag::words_per_second;

/// Words per second of the network alone, on the batches that `strand tag` makes of a text
#[derive(clap::Args)]
pub struct Args {
    /// Model directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    precision: PrecisionArg,
    /// A text
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Each line is a stream of its own
    #[arg(long)]
    lines: bool,
    /// Times to go through the text
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let model = load_model(&args.model, args.precision)?;
    let text = std::fs::read_to_string(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let rates = words_per_second(&model, &text, args.lines, args.rounds);
    let ([median, least, most], words) =
        rates.ok_or_else(|| usage("a model of text that does not look ahead is needed"))?;
    print(&format!("tag\tnetwork\t1\t{median:.0}\t{least:.0}\t{most:.0}\t{words}\n"))
}
