//! `strand model`: what is in a model directory.

use super::{PrecisionArg, load_model, print, usage};
use anyhow::Context;
use clap::Subcommand;
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use strand::model::Model;
use strand::rnn::matrix::Precision;

/// Inspect models
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show what a model is: labels, encoder, layers, size, how it was trained
    Show {
        /// Model directory
        #[arg(value_name = "DIR")]
        model: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write a model with its weight matrices rounded: a quarter (int8) or half (bf16) of their bytes, faster on most processors
    Quantize {
        /// Model directory
        #[arg(value_name = "DIR")]
        model: PathBuf,
        /// Where the new directory is made
        #[arg(value_name = "TO")]
        to: PathBuf,
        /// int8: a scale for each row of a matrix; bf16: the upper half of each number
        #[arg(long, value_enum, default_value = "int8")]
        precision: Precision,
    },
}

pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Show { model: dir, json } => {
            let model = load_model(&dir, PrecisionArg { precision: None })?;
            let bytes = directory_bytes(&dir)?;
            print(&if json { as_json(&model, bytes)? } else { as_text(&model, bytes)? })
        }
        Command::Quantize { model, to, precision } => quantize(&model, &to, precision),
    }
}

fn quantize(dir: &Path, to: &Path, precision: Precision) -> anyhow::Result<()> {
    if to.exists() {
        return Err(usage(format!("{} is there already; name a directory that is not", to.display())));
    }
    Model::quantize(dir, to, precision).with_context(|| format!("cannot quantize the model in {}", dir.display()))?;
    let mib = |dir| directory_bytes(dir).map(|bytes| bytes as f64 / f64::from(1 << 20));
    print(&format!("{}: {}, {:.2} MiB (before: {:.2} MiB)\n", to.display(), precision.name(), mib(to)?, mib(dir)?))
}

/// Bytes of the files in a model directory.
fn directory_bytes(dir: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

fn as_json(model: &Model, bytes: u64) -> anyhow::Result<String> {
    let mut object = match serde_json::to_value(model.spec())? {
        serde_json::Value::Object(object) => object,
        other => anyhow::bail!("the specification is no object: {other}"),
    };
    object.insert("fingerprint".to_string(), json!(model.fingerprint()));
    object.insert("parameters".to_string(), json!(model.parameters()));
    object.insert("directory_bytes".to_string(), json!(bytes));
    Ok(serde_json::to_string_pretty(&object)? + "\n")
}

fn as_text(model: &Model, bytes: u64) -> anyhow::Result<String> {
    let (spec, mut out) = (model.spec(), String::new());
    let mib = bytes as f64 / f64::from(1 << 20);
    writeln!(out, "{}", spec.name)?;
    writeln!(out, "  task         {}", toml::Value::try_from(spec.task)?.as_str().unwrap_or_default())?;
    if !spec.labels.is_empty() {
        writeln!(out, "  labels       {}", spec.labels.join(" "))?;
    }
    if let Some(classify) = &spec.classify {
        let pooling = toml::Value::try_from(classify.pooling)?;
        let every =
            classify.every.map_or("at the end".to_string(), |every| format!("every {every} steps and at the end"));
        let (pooling, temperature) = (pooling.as_str().unwrap_or_default(), classify.temperature);
        writeln!(out, "  classes      {every}, outputs pooled: {pooling}, temperature {temperature}")?;
    }
    if let Some(language) = &spec.language {
        let softmax = match language.cutoffs.as_slice() {
            [] => "full softmax".to_string(),
            cutoffs => format!("adaptive softmax, clusters from units {cutoffs:?}, div_value {}", language.div_value),
        };
        let units = model.encoder().layout().tables.first().map_or(0, |table| table.rows);
        let threshold = match language.threshold {
            Some(nats) => format!("surprising above {nats} nats"),
            None => "no threshold of surprise".to_string(),
        };
        writeln!(out, "  language     {units} units, {softmax}, {threshold}")?;
    }
    if let Some(generate) = &spec.generate {
        let classes = match generate.classes.as_slice() {
            [] => "no classes".to_string(),
            classes => format!("by class: {}", classes.join(" ")),
        };
        writeln!(out, "  generate     {classes}, at most {} steps a record", generate.max_steps)?;
    }
    if let (Some(decoder), Some(translator)) = (&spec.decoder, model.translator()) {
        let attention = toml::Value::try_from(decoder.attention)?;
        let (source, target) = (&translator.source, &translator.target);
        writeln!(
            out,
            "  translates   {} ({}) to {} ({}), attention {}, beam {}, length penalty {}",
            super::translate::units(source.kind()),
            source.rows(),
            super::translate::units(target.kind()),
            target.rows(),
            attention.as_str().unwrap_or_default(),
            decoder.beam,
            decoder.length_penalty
        )?;
    }
    if let Some(classes) = &spec.classes {
        let classes: Vec<String> = classes.iter().map(|c| format!("{} → {}", c.class, c.label)).collect();
        writeln!(out, "  classes      {}", classes.join(", "))?;
    }
    if let Some(window) = spec.window() {
        let (steps, block) = (window.most_waiting(), window.block);
        let waits = if spec.needs_the_end() {
            "labels wait for the end of a stream".to_string()
        } else {
            format!("a label is final at most {steps} steps after its own, in blocks of {block}")
        };
        writeln!(out, "  look-ahead   {waits}")?;
    }
    if let Some(decode) = &spec.decode {
        let kind = toml::Value::try_from(decode.kind)?;
        let beam = decode.beam.map_or(String::new(), |beam| format!(" of {beam}"));
        writeln!(out, "  decoding     {}{beam}, lag {}", kind.as_str().unwrap_or_default(), decode.lag)?;
    }
    writeln!(out, "  size         {} parameters, {:.2} MiB", model.parameters(), mib)?;
    writeln!(out, "  precision    {}", spec.precision.name())?;
    writeln!(out, "  fingerprint  {}", model.fingerprint())?;
    writeln!(out, "\ninput of a step")?;
    let layout = model.encoder().layout();
    for table in &layout.tables {
        writeln!(out, "  {:<12} table of {} × {}", table.name, table.rows, table.dim)?;
    }
    if let Some(rows) = layout.chars {
        writeln!(out, "  {:<12} recurrent, over {rows} kinds of characters", "characters")?;
    }
    if layout.dense > 0 {
        writeln!(out, "  {:<12} {}", "columns", layout.dense)?;
    }
    writeln!(out, "\nlayers")?;
    for (k, layer) in spec.layers.iter().enumerate() {
        let cell = toml::Value::try_from(layer.cell)?;
        let both = if layer.bidirectional { " in each of two directions" } else { "" };
        let name = format!("{} {}", k + 1, cell.as_str().unwrap_or_default());
        writeln!(out, "  {name:<12} {} wide{both}", layer.hidden)?;
    }
    if let Some(decoder) = &spec.decoder {
        writeln!(out, "\ndecoder\n{}", indented(&toml::to_string(decoder)?))?;
    }
    writeln!(out, "\nencoder\n{}", indented(&toml::to_string(&spec.encoder)?))?;
    if let Some(training) = &spec.training {
        writeln!(out, "training\n{}", indented(&toml::to_string(training)?))?;
    }
    Ok(out)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_string() } else { format!("  {line}\n") }).collect()
}
