//! `strand bench train`

use crate::cli::{print, usage};
use strand::bench::train::words_per_second;

/// Words per second of training: embedding 10,000 x 100, 2 LSTM of 128, 18 classes, batch 32, chunks of 64
#[derive(clap::Args)]
pub struct Args {
    /// Numbers of threads to measure with
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Steps of training to take the median of
    #[arg(long, default_value_t = 20)]
    rounds: usize,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    if args.threads.contains(&0) || args.rounds == 0 {
        return Err(usage("--threads and --rounds must be at least 1"));
    }
    for &threads in &args.threads {
        let speed = words_per_second(threads, args.rounds);
        print(&format!("train\tstrand\t{threads}\t{speed:.0} words/s\n"))?;
    }
    Ok(())
}
