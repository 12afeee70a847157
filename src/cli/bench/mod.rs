//! `strand bench`: how fast this machine labels and trains, in the lines that the peers' benchmarks print.

mod engine;
mod pipeline;
mod scaling;
mod tag;
mod train;

/// Measure speed on this machine.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Engine(engine::Args),
    Pipeline(pipeline::Args),
    Scaling(scaling::Args),
    Tag(tag::Args),
    Train(train::Args),
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.what {
        What::Engine(args) => engine::run(args),
        What::Pipeline(args) => pipeline::run(args),
        What::Scaling(args) => scaling::run(args),
        What::Tag(args) => tag::run(args),
        What::Train(args) => train::run(args),
    }
}
