//! `strand tag`: labels for files and for what comes in on standard input.

use super::guess::FileFormat;
use super::lanes::label_all;
use super::pieces::{Reading, pieces};
use super::render::{
    Bands, Classes, Conll, Form, Gff3, Json, OutputFormat, Paint, Prose, Rendered, Spans, Transcripts,
};
use super::{PrecisionArg, default_threads, load_model, usage, written};
use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use strand::encode::EncoderSpec;
use strand::model::{DecodeKind, Model, Scheme, Task};

/// Label files, or standard input as it comes
#[derive(clap::Args)]
#[command(after_help = "Examples:
  echo 'Ada Lovelace met Charles Babbage in London .' | strand tag --model models/ner-en
  strand tag --model models/sentiment-en reviews.txt --lines --output conll
  tail -f chat.log | strand tag --model models/ner-en --output jsonl
  strand tag --model models/pos-ja tegami.txt --output spans
  strand tag --model models/digits-en utterances.jsonl
  strand tag --model models/dna-coding genome.fna.gz --output gff3")]
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
    /// How labels are written [default: ansi on a terminal, else jsonl]
    #[arg(long, value_enum, value_name = "FORM")]
    output: Option<OutputFormat>,
    /// Each line of a text (or tokens) file is a stream of its own, not the whole file one stream
    #[arg(long)]
    lines: bool,
    /// Threads that label [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let is_terminal = std::io::stdout().is_terminal();
    let output = args.output.unwrap_or(if is_terminal { OutputFormat::Ansi } else { OutputFormat::Jsonl });
    let model = load_model(&args.model, args.precision)?;
    let (is_dna, is_vector) = match model.encoder().spec() {
        EncoderSpec::Dna(_) => (true, false),
        EncoderSpec::Vector(_) | EncoderSpec::Notes(_) => (false, true),
        _ => (false, false),
    };
    let classifies = model.spec().task == Task::Classify;
    if model.spec().task == Task::Transduce && output != OutputFormat::Jsonl {
        let name = &model.spec().name;
        return Err(usage(format!("`{name}` translates: use `strand translate`, or --output jsonl")));
    }
    match output {
        OutputFormat::Jsonl => tag(&args, &model, Json { model: model.clone() }),
        OutputFormat::Conll | OutputFormat::Ansi if model.spec().task == Task::Transcribe => {
            let paint = (output == OutputFormat::Ansi).then(Paint::from_environment);
            tag(&args, &model, Transcripts { model: model.clone(), paint })
        }
        OutputFormat::Conll if classifies => tag(&args, &model, Classes::new(model.clone(), None)),
        OutputFormat::Ansi if classifies => {
            tag(&args, &model, Classes::new(model.clone(), Some(Paint::from_environment())))
        }
        OutputFormat::Conll => tag(&args, &model, Conll { model: model.clone() }),
        OutputFormat::Spans if model.spec().scheme == Scheme::Bio => tag(&args, &model, Spans { model: model.clone() }),
        OutputFormat::Spans => Err(usage(format!(
            "--output spans is for labels B-X, I-X and O; those of `{}` are none",
            model.spec().name
        ))),
        OutputFormat::Gff3 if is_dna && !classifies => tag(&args, &model, Gff3 { genes: finds_genes(&model) }),
        OutputFormat::Gff3 => {
            Err(usage(format!("GFF3 is for regions of DNA; `{}` reads other input", model.spec().name)))
        }
        OutputFormat::Ansi if is_dna || is_vector => tag(&args, &model, Bands::new(&model, Paint::from_environment())),
        OutputFormat::Ansi => tag(&args, &model, Prose::new(model.clone(), Paint::from_environment())),
    }
}

fn finds_genes(model: &Model) -> bool {
    model.spec().decode.as_ref().is_some_and(|decode| decode.kind == DecodeKind::Genes)
}

fn tag<F: Form>(args: &Args, model: &Arc<Model>, form: F) -> anyhow::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    written(out.write_all(form.head().as_bytes()).and_then(|()| out.flush()))?;
    let reading = Reading { format: args.format, lines: args.lines };
    let pieces = pieces(args.files.clone(), reading, model.clone());
    let threads = args.threads.map_or_else(default_threads, usize::from);
    let form = Arc::new(form);
    let mut before: Option<Rendered> = None;
    let result = label_all(model, threads, pieces, form.clone(), |mut next, is_last| {
        if !next.bytes.is_empty() {
            if before.as_ref().is_none_or(|before| before.stream.number != next.stream.number) {
                written(out.write_all(form.part(before.as_ref(), &next).as_bytes()))?;
            }
            written(out.write_all(&next.bytes))?;
            next.bytes.clear();
            before = Some(next);
        } else if let Some(before) = before.as_mut().filter(|before| before.stream.number == next.stream.number) {
            before.ends = next.ends;
        }
        if is_last { written(out.flush()) } else { Ok(()) }
    });
    // What was labelled before an error is shown all the same.
    result.and(written(out.flush()))
}
