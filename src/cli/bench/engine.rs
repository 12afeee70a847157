//! `strand bench engine`

use crate::cli::{print, usage};
use std::time::Duration;
use strand::bench::engine::{MODELS, WORKLOADS, steps_per_second};
use strand::bench::roofline::{Limit, Roofline};
use strand::rnn::matrix::Precision;

/// Time steps labelled per second by stacked LSTM and GRU taggers of four sizes, and the share of what the processor could do
/// at best (`roofline`), which is bound by its operations or by reading the weights (`bound`)
#[derive(clap::Args)]
pub struct Args {
    /// Numbers of threads to measure with
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Only these models: S, M, L, Mgru
    #[arg(long, value_delimiter = ',')]
    models: Vec<String>,
    /// Only these workloads: B1T1, B8T1, B64T1, B256T1, B1024T1, B32T32, B1T1024
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Only these precisions
    #[arg(long, value_enum, value_delimiter = ',', default_value = "f32,bf16,int8")]
    precisions: Vec<Precision>,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Tab-separated lines without a header
    #[arg(long)]
    tsv: bool,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    if args.threads.contains(&0) {
        return Err(usage("--threads must be at least 1"));
    }
    let budget = Duration::try_from_secs_f64(args.seconds).map_err(|e| usage(format!("--seconds: {e}")))?;
    let wanted = |some: &[String], name: &str| some.is_empty() || some.iter().any(|s| s == name);
    let roofline = Roofline::measure();
    if !args.tsv {
        print(&format!("{}\n", roofline.describe()))?;
        print("model\tworkload\tpeer\tthreads\tsteps_per_s\tmin\tmax\troofline\tbound\n")?;
    }
    for model in MODELS.iter().filter(|m| wanted(&args.models, m.name)) {
        for &threads in &args.threads {
            for work in WORKLOADS.iter().filter(|w| wanted(&args.workloads, w.name)) {
                for &precision in &args.precisions {
                    let [median, least, most] = steps_per_second(model, work, threads, precision, budget);
                    let peer = match precision {
                        Precision::F32 => "strand".to_string(),
                        narrow => format!("strand-{}", narrow.name()),
                    };
                    let Limit { steps_per_second: limit, bound } = roofline.limit(model, work, precision);
                    let share = median / (limit * threads as f64);
                    let (model, work) = (model.name, work.name);
                    print(&format!(
                        "{model}\t{work}\t{peer}\t{threads}\t{median:.0}\t{least:.0}\t{most:.0}\t{share:.3}\t{bound}\n"
                    ))?;
                }
            }
        }
    }
    Ok(())
}
