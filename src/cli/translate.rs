//! `strand translate`: one line in, one line out.

use super::{PrecisionArg, default_threads, load_model, usage, written};
use serde::Serialize;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use strand::data::{Lines, Source};
use strand::encode::{EncoderSpec, units::UnitKind};
use strand::model::transduce::search::Search;
use strand::model::transduce::{DecoderSpec, Translator, Written};
use strand::train::parallel::for_each;

/// Translate each line of a file, or of standard input
#[derive(clap::Args)]
#[command(after_help = "Examples:
  echo 'the 3rd of May 1998' | strand translate --model models/dates-iso
  strand translate --model runs/multi30k/model captions.en --beam 5 --length-penalty 0.8")]
pub struct Args {
    /// Model directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    precision: PrecisionArg,
    /// A file of lines, plain or gzip; `-` is standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    search: SearchArgs,
    /// Print a JSON object for each line: source, text, score
    #[arg(long)]
    json: bool,
    /// Threads that translate [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

/// How translations are looked for.
#[derive(clap::Args)]
pub struct SearchArgs {
    /// Hypotheses that are followed; 1: always the likeliest unit [default: the model's]
    #[arg(long, value_name = "N")]
    beam: Option<usize>,
    /// Rank translations by ln P / ((5 + length) / 6)^A [default: the model's]
    #[arg(long, value_name = "A")]
    length_penalty: Option<f64>,
    /// The most units of a translation [default: the model's]
    #[arg(long, value_name = "N")]
    max_length: Option<usize>,
}

impl SearchArgs {
    pub fn is_given(&self) -> bool {
        self.beam.is_some() || self.length_penalty.is_some() || self.max_length.is_some()
    }

    /// The model's search, with what was asked for.
    pub fn search(&self, decoder: &DecoderSpec) -> anyhow::Result<Search> {
        let asked = DecoderSpec {
            beam: self.beam.unwrap_or(decoder.beam),
            length_penalty: self.length_penalty.unwrap_or(decoder.length_penalty),
            max_length: self.max_length.unwrap_or(decoder.max_length),
            ..decoder.clone()
        };
        asked.check().map_err(|e| usage(e.replace("decoder.", "")))?;
        Ok(asked.search())
    }
}

#[derive(Serialize)]
struct Row<'a> {
    source: &'a str,
    text: &'a str,
    score: f32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

/// Lines that are read before they are translated together; from standard input each by itself.
const AT_ONCE: usize = 1024;
/// Lines of one thread's turn.
const TURN: usize = 64;

pub fn run(args: Args) -> anyhow::Result<()> {
    let model = load_model(&args.model, args.precision)?;
    let (Some(translator), Some(decoder), EncoderSpec::Sentences(sentences)) =
        (model.translator(), &model.spec().decoder, model.encoder().spec())
    else {
        let name = &model.spec().name;
        return Err(usage(format!("`{name}` is no translator: use `strand tag`, `score` or `sample`")));
    };
    let (search, longest) = (args.search.search(decoder)?, sentences.max_source);
    let threads = args.threads.map_or_else(default_threads, usize::from);
    let mut lines = Lines::new(Source::open(&args.file)?);
    let at_once = if args.file.as_os_str() == "-" { 1 } else { AT_ONCE };
    let mut out = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let mut going = true;
    while going {
        let (mut batch, mut line) = (Vec::new(), String::new());
        while batch.len() < at_once && going {
            going = lines.next_into(&mut line)?;
            if going {
                batch.push(line.trim().to_string());
            }
        }
        let shown: Vec<&str> = batch.iter().map(|line| first(line, longest)).collect();
        for ((whole, source), (text, score)) in
            batch.iter().zip(&shown).zip(translate(translator, &shown, search, threads))
        {
            let row = Row { source, text: &text, score, cut: source.len() < whole.len() };
            let line = if args.json { serde_json::to_string(&row)? } else { text };
            written(writeln!(out, "{line}"))?;
        }
        written(out.flush())?;
    }
    Ok(())
}

/// The first characters of a line that is longer.
pub fn first(line: &str, characters: usize) -> &str {
    line.char_indices().nth(characters).map_or(line, |(end, _)| line[..end].trim_end())
}

/// Translates lines on several threads; an empty line stays one.
pub fn translate(translator: &Translator, lines: &[&str], search: Search, threads: usize) -> Vec<Written> {
    let mut order: Vec<usize> = (0..lines.len()).filter(|&k| !lines[k].is_empty()).collect();
    order.sort_by_key(|&k| (lines[k].len(), k));
    let mut turns: Vec<(&[usize], Vec<Written>)> = order.chunks(TURN).map(|turn| (turn, Vec::new())).collect();
    for_each(threads, turns.iter_mut().collect(), |(turn, out)| {
        let texts: Vec<&str> = turn.iter().map(|&k| lines[k]).collect();
        *out = translator.translate(&texts, search);
    });
    let mut all = vec![(String::new(), 1.0); lines.len()];
    for (turn, out) in turns {
        turn.iter().zip(out).for_each(|(&k, found)| all[k] = found);
    }
    all
}

/// What units a translator is made of, in words.
pub fn units(kind: UnitKind) -> &'static str {
    match kind {
        UnitKind::Chars => "characters",
        UnitKind::Words => "words",
        UnitKind::Bpe => "pieces of words",
    }
}
