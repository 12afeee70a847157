//! `strand eval`: what a model's labels are worth on labelled data.

mod classes;
mod genome;
mod language;
mod pairs;
mod report;
mod sentences;
mod transcripts;

use super::lanes::Handler;
use super::pieces::Piece;
use super::translate::SearchArgs;
use super::{PrecisionArg, default_threads, load_model, print, usage};
use clap::ValueEnum;
use std::ops::Range;
use std::path::PathBuf;
use strand::data::LabelMap;
use strand::encode::EncoderSpec;
use strand::model::{Output, Span, Task};

/// Score a model on labelled files
#[derive(clap::Args)]
#[command(after_help = "Examples:
  strand eval --model models/ner-en test.tsv.gz --json
  strand eval --model models/ner-en wnut.tsv.gz --map person=PER,location=LOC,corporation=ORG,group=ORG,*=O
  strand eval --model models/sentiment-en test.tsv.gz --json
  strand eval --model models/charlm-shakespeare input.txt.gz --range 1003854..1115394 --json
  strand eval --model models/digits-en test.jsonl --json
  strand eval --model models/dates-iso test.tsv
  strand eval --model runs/multi30k/model test.en.gz test.de.gz --json
  strand eval --model models/dna-coding ecoli.fna.gz --intervals ecoli.cds.tsv.gz --range 3900000..4641652

Spans are counted as conlleval and seqeval count them: right with exact bounds and type.")]
pub struct Args {
    /// Model directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    precision: PrecisionArg,
    /// Labelled files (token<TAB>label lines, or .jsonl with tokens and labels), or a genome (FASTA); for a classifier
    /// lines of a label and a text (or text<TAB>label), or .jsonl with text and label; for a language model text, tokens
    /// or .jsonl, of which `labels` may say which units are `surprising`; for a transcriber .jsonl with vector and
    /// transcript; for a translator source<TAB>target lines, or .jsonl with source and target, or two files whose lines
    /// belong together; plain or gzip
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Rename the types of gold labels first: OLD=NEW,…; `*` is every type not named
    #[arg(long, value_name = "OLD=NEW,…")]
    map: Option<LabelMap>,
    /// Each sentence a stream of its own, or all of them one endless stream
    #[arg(long = "as", value_enum, default_value = "sentences")]
    streams: Streams,
    /// Give the model the tokens of the files, or text made of them that it cuts into tokens itself [default: tokens;
    /// for a classifier of words text, of which tokens are what white space parts]
    #[arg(long, value_enum)]
    from: Option<Input>,
    /// Coding intervals of the genome: accession, start, end (1-based, included), strand (+ or -) parted by tabs
    #[arg(long, value_name = "FILE")]
    intervals: Option<PathBuf>,
    /// Part of the genome's only sequence, or for a language model characters of the text; 0-based, END excluded; read as
    /// a stream of its own
    #[arg(long, value_name = "START..END", value_parser = parse_range)]
    range: Option<Range<usize>>,
    /// For a language model: each line of a text (or tokens) file is a stream of its own, not the whole file one stream
    #[arg(long)]
    lines: bool,
    #[command(flatten)]
    search: SearchArgs,
    /// Threads that label [default: one for each processor]; the figures do not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Streams {
    Sentences,
    Endless,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Input {
    Tokens,
    Text,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let model = load_model(&args.model, args.precision)?;
    let threads = args.threads.map_or_else(default_threads, usize::from);
    let from = args.from.unwrap_or(Input::Tokens);
    if model.spec().task == Task::Transduce {
        let others =
            [args.intervals.is_some(), args.from.is_some(), args.range.is_some(), args.map.is_some(), args.lines];
        if others.contains(&true) || args.streams == Streams::Endless {
            let name = &model.spec().name;
            return Err(usage(format!(
                "`{name}` translates: --intervals, --from, --range, --map, --lines and --as are not for it"
            )));
        }
        let report = pairs::evaluate(&model, &args.files, &args.search, threads)?;
        return print(&if args.json { report.json()? } else { report.table() });
    }
    if args.search.is_given() {
        return Err(usage("--beam, --length-penalty and --max-length are for translators"));
    }
    if matches!(model.spec().task, Task::LanguageModel | Task::Generate) {
        if args.intervals.is_some() || args.streams == Streams::Endless || args.from.is_some() {
            let name = &model.spec().name;
            return Err(usage(format!("`{name}` tells what comes next: --intervals, --as and --from are for taggers")));
        }
        let map = args.map.unwrap_or_default();
        let report = language::evaluate(&model, args.files, args.lines, args.range, &map, threads)?;
        return print(&if args.json { report.json()? } else { report.table() });
    }
    if args.lines || (args.range.is_some() && args.intervals.is_none()) {
        return Err(usage("--lines is for language models; --range also, or for genomes with --intervals"));
    }
    if model.spec().task == Task::Transcribe {
        if args.intervals.is_some() || args.streams == Streams::Endless || args.from.is_some() || args.map.is_some() {
            let name = &model.spec().name;
            return Err(usage(format!("`{name}` transcribes: --intervals, --as, --from and --map are not for it")));
        }
        let report = transcripts::evaluate(&model, &args.files, threads)?;
        return print(&if args.json { report.json()? } else { report.table() });
    }
    if model.spec().task == Task::Classify {
        if args.intervals.is_some() || args.streams == Streams::Endless {
            let name = &model.spec().name;
            return Err(usage(format!(
                "`{name}` gives each stream a class: --intervals, --range and --as are for taggers"
            )));
        }
        let map = args.map.unwrap_or_default();
        let report = classes::evaluate(&model, &args.files, &map, args.from.unwrap_or(Input::Text), threads)?;
        return print(&if args.json { report.json()? } else { report.table() });
    }
    let report = match (model.encoder().spec(), &args.intervals) {
        (EncoderSpec::Dna(_), Some(intervals)) => {
            if args.map.is_some() || from == Input::Text || args.streams == Streams::Endless {
                return Err(usage("--map, --as and --from are for labelled tokens, not for genomes"));
            }
            let [genome] = &args.files[..] else {
                return Err(usage("with --intervals, give one FASTA file"));
            };
            genome::evaluate(&model, genome, intervals, args.range, threads)?
        }
        (EncoderSpec::Dna(_), None) if args.files.iter().any(|file| is_fasta(file)) => {
            return Err(usage("a genome is scored against --intervals FILE"));
        }
        (_, Some(_)) => {
            return Err(usage(format!("--intervals is for models of DNA; `{}` is none", model.spec().name)));
        }
        (EncoderSpec::Vector(_) | EncoderSpec::Notes(_), _) => {
            return Err(usage(format!("`{}` reads vectors; eval scores tokens and genomes", model.spec().name)));
        }
        (spec, None) => {
            if from == Input::Text && !matches!(spec, EncoderSpec::Words(_)) {
                return Err(usage(format!("--from text is for models of words; `{}` is none", model.spec().name)));
            }
            let map = args.map.unwrap_or_default();
            sentences::evaluate(&model, &args.files, &map, args.streams, from, threads)?
        }
    };
    print(&if args.json { report.json()? } else { report.table() })
}

fn is_fasta(file: &std::path::Path) -> bool {
    super::guess::by_name(file) == Some(super::guess::FileFormat::Fasta)
}

fn parse_range(text: &str) -> Result<Range<usize>, String> {
    let parsed = text.split_once("..").and_then(|(start, end)| Some(start.parse().ok()?..end.parse().ok()?));
    match parsed {
        Some(range) if range.start < range.end => Ok(range),
        _ => Err("expected START..END with START below END, such as 3900000..4641652".to_string()),
    }
}

/// A label without its text.
struct Step {
    start: u64,
    end: u64,
    label: usize,
}

/// Keeps what scoring needs of each piece's labels.
struct Keep;

impl Handler for Keep {
    type Carried = ();
    type Result = (Vec<Step>, Vec<Span>);

    fn labelled(&self, (): &mut (), _: Piece, output: Output) -> Self::Result {
        let steps = output.labels.into_iter().map(|s| Step { start: s.start, end: s.end, label: s.label });
        (steps.collect(), output.spans)
    }
}

#[cfg(test)]
mod tests {
    use super::parse_range;

    #[test]
    fn a_range_is_two_numbers_in_order() {
        assert_eq!(parse_range("3..10"), Ok(3..10));
        assert!(parse_range("10..3").is_err());
        assert!(parse_range("3-10").is_err());
    }
}
