//! `strand score`: how likely streams are to a language model, and which of their units surprise it.

use super::guess::FileFormat;
use super::lanes::{Handler, label_all};
use super::pieces::{Piece, Reading, pieces};
use super::render::harmless;
use super::{PrecisionArg, default_threads, load_model, usage, written};
use serde::Serialize;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use strand::model::{Likelihood, Model, Output, Task};

/// How likely streams are to a language model: log-probability, perplexity, and which units surprise it
#[derive(clap::Args)]
#[command(after_help = "Examples:
  strand score --model models/charlm-shakespeare play.txt
  strand score --model models/charlm-shakespeare lines.txt --lines
  strand score --model models/service-log log.jsonl --surprising
  strand score --model models/service-log log.jsonl --steps --json

A line a stream: its name, units, ln P, bits a unit, perplexity, and how many units are surprising, parted by tabs.")]
pub struct Args {
    /// Model directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    precision: PrecisionArg,
    /// Files, plain or gzip; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    files: Vec<PathBuf>,
    /// What the files hold [default: by name and content, else text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<FileFormat>,
    /// Each line of a text (or tokens) file is a stream of its own, not the whole file one stream
    #[arg(long)]
    lines: bool,
    /// Also every unit with its surprise (-ln P of it, in nats)
    #[arg(long)]
    steps: bool,
    /// Also the units above the model's threshold
    #[arg(long, conflicts_with = "steps")]
    surprising: bool,
    /// Print a JSON object for each stream
    #[arg(long)]
    json: bool,
    /// Threads [default: one for each processor]; the figures do not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

/// Which units are shown.
#[derive(Clone, Copy, PartialEq)]
enum Shown {
    None,
    Surprising,
    All,
}

struct Score {
    model: Arc<Model>,
    shown: Shown,
    json: bool,
}

/// What is kept of a stream until it ends.
#[derive(Default)]
struct Sofar {
    surprising: u64,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    start: u64,
    end: u64,
    text: String,
    label: &'static str,
    surprise: f32,
}

#[derive(Serialize)]
struct Record<'a> {
    stream: &'a str,
    model: &'a str,
    units: u64,
    log_probability: f64,
    nats_per_unit: Option<f64>,
    bits_per_unit: Option<f64>,
    perplexity: Option<f64>,
    surprising: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<&'a [Step]>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let model = load_model(&args.model, args.precision)?;
    let threshold = model.spec().language.as_ref().and_then(|language| language.threshold);
    if !matches!(model.spec().task, Task::LanguageModel | Task::Generate) {
        return Err(usage(format!("`{}` is no language model: see strand tag and strand eval", model.spec().name)));
    }
    if args.surprising && threshold.is_none() {
        let name = &model.spec().name;
        return Err(usage(format!("`{name}` has no threshold of surprise (task.threshold_quantile); use --steps")));
    }
    let shown = match (args.steps, args.surprising) {
        (true, _) => Shown::All,
        (_, true) => Shown::Surprising,
        _ => Shown::None,
    };
    let reading = Reading { format: args.format, lines: args.lines };
    let pieces = pieces(args.files, reading, model.clone());
    let threads = args.threads.map_or_else(default_threads, usize::from);
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let score = Score { model: model.clone(), shown, json: args.json };
    let result = label_all(&model, threads, pieces, score, |text, is_last| {
        written(out.write_all(text.as_bytes()))?;
        if is_last { written(out.flush()) } else { Ok(()) }
    });
    // What was scored before an error is shown all the same.
    result.and(written(out.flush()))
}

impl Handler for Score {
    type Carried = Sofar;
    type Result = String;

    fn labelled(&self, sofar: &mut Sofar, piece: Piece, output: Output) -> String {
        sofar.surprising += output.labels.iter().filter(|unit| unit.label > 0).count() as u64;
        for (unit, &surprise) in output.labels.into_iter().zip(&output.surprises) {
            if self.shown == Shown::All || (self.shown == Shown::Surprising && unit.label > 0) {
                let label = strand::model::spec::SURPRISE_LABELS[unit.label.min(1)];
                sofar.steps.push(Step { start: unit.start, end: unit.end, text: unit.text, label, surprise });
            }
        }
        match (piece.ends, output.likelihood) {
            (true, Some(likelihood)) => self.stream(&piece.stream.name, sofar, likelihood),
            _ => String::new(),
        }
    }
}

impl Score {
    /// A stream that is over.
    fn stream(&self, name: &str, sofar: &Sofar, of: Likelihood) -> String {
        let steps = (self.shown != Shown::None).then_some(&sofar.steps[..]);
        if self.json {
            let record = Record {
                stream: name,
                model: &self.model.spec().name,
                units: of.units,
                log_probability: of.log_probability,
                nats_per_unit: of.nats_per_unit(),
                bits_per_unit: of.bits_per_unit(),
                perplexity: of.perplexity(),
                surprising: sofar.surprising,
                steps,
            };
            // Fails for maps with keys that are no strings; there is none.
            return serde_json::to_string(&record).unwrap_or_default() + "\n";
        }
        let column = |text: &str| harmless(&text.replace(['\t', '\n', '\r'], " "));
        let number = |x: Option<f64>| x.map_or("-".to_string(), |x| format!("{x:.3}"));
        let (bits, perplexity) = (number(of.bits_per_unit()), number(of.perplexity()));
        let (units, ln_p, surprising) = (of.units, of.log_probability, sofar.surprising);
        let mut text = format!("{}\t{units}\t{ln_p:.3}\t{bits}\t{perplexity}\t{surprising}\n", column(name));
        for step in steps.unwrap_or_default() {
            // Writing to a string cannot fail.
            let mark = if step.label == strand::model::spec::SURPRISE_LABELS[1] { " !" } else { "" };
            let shown = step.text.escape_debug();
            let _ = writeln!(text, "  {}..{}\t{shown}\t{:.3}{mark}", step.start, step.end, step.surprise);
        }
        text
    }
}
