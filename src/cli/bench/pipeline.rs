//! `strand bench pipeline`

use crate::cli::{print, usage};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;
use strand::bench::engine::{MODELS, Workload, steps_per_second};
use strand::bench::pipeline::{BenchModel, Case, Latency, Peak, Way};
use strand::config::Delivery;
use strand::rnn::matrix::Precision;

/// Streams that one batch holds at most: `pipeline.batch_records`.
const BATCH: usize = 1024;

/// Records a second from a client to committed labels, and how long that takes, on each transport
///
/// Without --model: words of 10,000, embedding 100, two LSTM of 256, 32 labels, random weights.
#[derive(clap::Args)]
pub struct Args {
    /// Only these transports [default: embedded, stdio, and kafka with --brokers]
    #[arg(long, value_enum, value_delimiter = ',')]
    transports: Vec<Way>,
    /// Brokers for kafka, such as 127.0.0.1:9092; topics are created and left there
    #[arg(long)]
    brokers: Option<String>,
    /// Numbers of streams that send by turns
    #[arg(long, value_delimiter = ',', default_value = "256,10000")]
    streams: Vec<usize>,
    /// Words of a record
    #[arg(long, value_delimiter = ',', default_value = "20,1")]
    words: Vec<usize>,
    /// Numbers of engine threads
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Words to label for each peak
    #[arg(long, default_value_t = 400_000)]
    budget: usize,
    /// Records to label for each peak, in the place of --budget
    #[arg(long)]
    records: Option<usize>,
    /// On kafka
    #[arg(long, value_delimiter = ',', default_value = "exactly-once", value_parser = delivery)]
    delivery: Vec<Delivery>,
    /// Directory of another model of words
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// How weights are held and multiplied
    #[arg(long, value_enum, value_delimiter = ',', default_value = "f32")]
    precision: Vec<Precision>,
    /// pipeline.commit_interval in milliseconds
    #[arg(long, default_value_t = 0)]
    commit_ms: u64,
    /// Seconds at each rate of arrival; 0: no latency is measured
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Set one more key of the daemon's configuration; may be given several times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Tab-separated lines without a header
    #[arg(long)]
    tsv: bool,
}

fn delivery(name: &str) -> Result<Delivery, String> {
    match name {
        "exactly-once" => Ok(Delivery::ExactlyOnce),
        "at-least-once" => Ok(Delivery::AtLeastOnce),
        _ => Err("exactly-once or at-least-once".to_string()),
    }
}

const HEADER: &str = "transport\tdelivery\tprecision\tthreads\tstreams\twords\tcommit_ms\trecords_per_s\twords_per_s\tmb_per_s\t\
    cores\tpeak_mib\tengine_steps_per_s\tof_engine\tin_engine\tin_encoding\tin_state\tin_poll\tin_commit\t\
    p50_ms_20\tp99_ms_20\tp999_ms_20\tp50_ms_50\tp99_ms_50\tp999_ms_50\tp50_ms_80\tp99_ms_80\tp999_ms_80\n";

pub fn run(args: Args) -> anyhow::Result<()> {
    if [&args.streams, &args.words, &args.threads].iter().any(|all| all.contains(&0)) || args.records == Some(0) {
        return Err(usage("--streams, --words, --threads and --records must be at least 1"));
    }
    let latency_for = Duration::try_from_secs_f64(args.seconds).map_err(|_| usage("--seconds must be at least 0"))?;
    let ways = match (&args.transports[..], &args.brokers) {
        ([], None) => vec![Way::Embedded, Way::Stdio],
        ([], Some(_)) => vec![Way::Embedded, Way::Stdio, Way::Kafka],
        (some, None) if some.contains(&Way::Kafka) => return Err(usage("for kafka, --brokers says where they are")),
        (some, _) => some.to_vec(),
    };
    let own = if args.model.is_none() { Some(BenchModel::write()?) } else { None };
    let dir = args.model.clone().or(own.as_ref().map(BenchModel::dir)).unwrap_or_default();
    if !args.tsv {
        print(HEADER)?;
    }
    for &precision in &args.precision {
        for &words in &args.words {
            for &streams in &args.streams {
                for &threads in &args.threads {
                    let engine = own.as_ref().map(|_| engine(streams, words, threads, precision));
                    for &way in &ways {
                        for &delivery in if way == Way::Kafka { &args.delivery[..] } else { &args.delivery[..1] } {
                            let case = Case {
                                way,
                                brokers: args.brokers.clone().unwrap_or_default(),
                                delivery,
                                model: dir.clone(),
                                precision: Some(precision),
                                threads,
                                streams,
                                words,
                                records: args.records.unwrap_or((args.budget / words).max(1)),
                                latency_for,
                                commit_interval: Duration::from_millis(args.commit_ms),
                                sets: args.sets.clone(),
                            };
                            let peak = case.peak()?;
                            let latencies = if latency_for.is_zero() { Vec::new() } else { case.latencies(&peak)? };
                            print(&line(&case, &peak, engine, &latencies)?)?;
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// Steps a second of the engine alone, with a batch as the daemon makes it.
fn engine(streams: usize, words: usize, threads: usize, precision: Precision) -> f64 {
    let work = Workload { name: "", streams: streams.min(BATCH), steps: words };
    MODELS
        .iter()
        .find(|m| m.name == "M")
        .map_or(0.0, |m| steps_per_second(m, &work, threads, precision, Duration::from_secs(1))[0])
}

fn line(case: &Case, peak: &Peak, engine: Option<f64>, latencies: &[Latency]) -> Result<String, std::fmt::Error> {
    let delivery = match (case.way, case.delivery) {
        (Way::Kafka, Delivery::ExactlyOnce) => "exactly-once",
        (Way::Kafka, Delivery::AtLeastOnce) => "at-least-once",
        _ => "-",
    };
    let mut line = format!(
        "{}\t{delivery}\t{}\t{}\t{}\t{}\t{}\t{:.0}\t{:.0}\t{:.2}\t{:.2}\t{:.0}",
        case.way.name(),
        case.precision.unwrap_or_default().name(),
        case.threads,
        case.streams,
        case.words,
        case.commit_interval.as_millis(),
        peak.records_per_s,
        peak.words_per_s,
        peak.mb_per_s,
        peak.cores,
        peak.peak_mib
    );
    match engine {
        Some(engine) => write!(line, "\t{engine:.0}\t{:.2}", peak.words_per_s / engine)?,
        None => line += "\t-\t-",
    }
    let shares = &peak.shares;
    for share in [shares.engine, shares.encoding, shares.state, shares.poll, shares.commit] {
        write!(line, "\t{share:.2}")?;
    }
    for latency in latencies {
        write!(line, "\t{:.1}\t{:.1}\t{:.1}", latency.p50_ms, latency.p99_ms, latency.p999_ms)?;
    }
    (latencies.len()..3).for_each(|_| line += "\t-\t-\t-");
    Ok(line + "\n")
}
