//! `strand sample`: novel sequences from a language model.

use super::{PrecisionArg, load_model, print, usage};
use std::path::PathBuf;
use strand::encode::EncoderSpec;
use strand::model::{Sampler, SamplerSpec, Session};

/// Let a language model write
#[derive(clap::Args)]
#[command(after_help = "Examples:
  strand sample --model models/charlm-shakespeare --prompt 'ROMEO:' --steps 300 --temperature 0.8
  strand sample --model models/service-log --steps 40 --seed 7

The same model, seed and prompt give the same text.")]
pub struct Args {
    /// Model directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    precision: PrecisionArg,
    /// What the stream begins with; events are parted by white space
    #[arg(long, default_value = "", value_name = "TEXT")]
    prompt: String,
    /// Units to draw: characters, words or events
    #[arg(long, default_value_t = 300, value_name = "N")]
    steps: usize,
    /// ln P is divided by this: below 1 tamer, above 1 wilder, 0 always the likeliest
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    temperature: f64,
    /// Draw only from the so many likeliest units; 0: from all
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: usize,
    /// Draw only from the likeliest units that together have this probability; 1: from all
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    top_p: f64,
    /// Of the draws
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let model = load_model(&args.model, args.precision)?;
    let Args { temperature, top_k, top_p, seed, .. } = args;
    let mut sampler = Sampler::new(model.clone(), SamplerSpec { temperature, top_k, top_p, seed }).map_err(usage)?;
    let mut session = Session::new(&model);
    let encoder = model.encoder();
    let events = matches!(encoder.spec(), EncoderSpec::Events(_));
    if events {
        session.push_tokens(&model, &args.prompt.split_whitespace().collect::<Vec<_>>());
    } else {
        session.push(&model, encoder.format(), args.prompt.as_bytes())?;
        session.finish_unit(&model)?;
    }
    sampler.read(&mut session);
    print(&args.prompt)?;
    let parted = match encoder.spec() {
        EncoderSpec::Words(_) => " ",
        EncoderSpec::Events(_) => "\n",
        _ => "",
    };
    let mut begun = !args.prompt.is_empty();
    for _ in 0..args.steps {
        let unit = sampler.unit(&mut session);
        print(&format!("{}{unit}", if begun { parted } else { "" }))?;
        begun = true;
    }
    print("\n")
}
