//! `strand bench`: how fast this machine trains and labels, in the lines that the peers' benchmarks print.

use super::{print, usage};
use strand::model::bench::{self, Workload};
use strand::train;

/// Measure speed on this machine.
#[derive(clap::Args)]
pub struct Args {
    /// What to measure
    #[arg(value_enum)]
    what: What,
    /// Numbers of threads to measure with
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Steps of training to take the median of
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Tab-separated lines without a header
    #[arg(long)]
    tsv: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    /// Time steps labelled per second by stacked LSTM and GRU taggers of four sizes
    Engine,
    /// Words per second of training: embedding 10,000 x 100, 2 LSTM of 128, 18 classes, batch 32, chunks of 64
    Train,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    if args.threads.contains(&0) || args.rounds == 0 {
        return Err(usage("--threads and --rounds must be at least 1"));
    }
    match args.what {
        What::Train => {
            for &threads in &args.threads {
                let speed = train::bench::words_per_second(threads, args.rounds);
                print(&format!("train\tstrand\t{threads}\t{speed:.0} words/s\n"))?;
            }
        }
        What::Engine => {
            if !args.tsv {
                print("model\tworkload\tpeer\tthreads\tsteps_per_s\tmin\tmax\n")?;
            }
            for model in bench::MODELS {
                for &threads in &args.threads {
                    for work in bench::WORKLOADS {
                        let Workload { name, .. } = work;
                        let [median, least, most] = bench::steps_per_second(&model, &work, threads);
                        let model = model.name;
                        print(&format!("{model}\t{name}\tstrand\t{threads}\t{median:.0}\t{least:.0}\t{most:.0}\n"))?;
                    }
                }
            }
        }
    }
    Ok(())
}
