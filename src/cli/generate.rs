//! `strand generate`: new sequences from nothing, a class or a beginning.

use super::{PrecisionArg, load_model, print, usage, written};
use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use strand::data::midi::{Pace, midi};
use strand::encode::{Chord, EncoderSpec};
use strand::model::generate::{LABELS, Prompt};
use strand::model::{Output, Session, StepLabel, Stepper};

/// Let a model of the task `generate` write: music, text, events
#[derive(clap::Args)]
#[command(after_help = "Examples:
  strand generate --model models/music-jsb --steps 64 --output midi --out new.mid
  strand generate --model models/music-jsb --prompt '[[48,60,64,67],[48,60,64,67]]' --temperature 0.8 --seed 7
  strand generate --model runs/nottingham/model --class jig --output midi --out jig.mid

The same model, class, prompt, temperature and seed give the same sequence.")]
pub struct Args {
    /// Model directory
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    precision: PrecisionArg,
    /// What kind of sequence, of a model that has kinds
    #[arg(long, value_name = "NAME")]
    class: Option<String>,
    /// What the sequence begins with: JSON such as [[60,64,67],[]] for notes, else text; events are parted by white space
    #[arg(long, default_value = "", value_name = "TEXT")]
    prompt: String,
    /// Steps to write after the prompt
    #[arg(long, default_value_t = 64, value_name = "N")]
    steps: usize,
    /// ln P is divided by this: below 1 tamer, above 1 wilder, 0 always the likeliest
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    temperature: f64,
    /// Of the random numbers
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// How the sequence is written down [default: jsonl for notes, else text]
    #[arg(long, value_enum, value_name = "FORM")]
    output: Option<Form>,
    /// The file to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// For MIDI: quarter notes a minute
    #[arg(long, default_value_t = 90.0, value_name = "X")]
    tempo: f64,
    /// For MIDI: steps in a quarter note
    #[arg(long, default_value_t = 1, value_name = "N")]
    steps_per_beat: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// A JSON object for each step
    Jsonl,
    /// Units as they follow each other; of notes a JSON array for each step
    Text,
    /// A standard MIDI file
    Midi,
}

#[derive(Serialize)]
struct Step<'a> {
    start: u64,
    end: u64,
    text: &'a str,
    label: &'a str,
    score: f32,
}

pub fn run(args: Args) -> anyhow::Result<()> {
    let model = load_model(&args.model, args.precision)?;
    let Some(spec) = &model.spec().generate else {
        let name = &model.spec().name;
        return Err(usage(format!("`{name}` does not generate (a language model writes with strand sample)")));
    };
    let of_notes = matches!(model.encoder().spec(), EncoderSpec::Notes(_));
    let form = args.output.unwrap_or(if of_notes { Form::Jsonl } else { Form::Text });
    if form == Form::Midi && !of_notes {
        return Err(usage(format!(
            "MIDI is for notes; `{}` writes {}",
            model.spec().name,
            model.encoder().spec().kind()
        )));
    }
    if form == Form::Midi && args.out.is_none() && std::io::stdout().is_terminal() {
        return Err(usage("a MIDI file is no text: give --out FILE"));
    }
    let at_once = |left: usize| u32::try_from(left).unwrap_or(u32::MAX).min(spec.max_steps);
    let mut left = args.steps;
    let mut prompt = Prompt {
        class: args.class.clone(),
        steps: Some(at_once(left)),
        temperature: Some(args.temperature),
        seed: Some(args.seed),
        ..given(&args.prompt, model.encoder().spec())?
    };
    let (mut session, mut stepper, mut output) = (Session::new(&model), Stepper::new(model.clone()), Output::default());
    loop {
        left -= prompt.steps.unwrap_or_default() as usize;
        session.ask(&model, &prompt).map_err(|e| usage(e.to_string()))?;
        stepper.step(&mut [&mut session], std::slice::from_mut(&mut output));
        stepper.generate(&mut [&mut session], std::slice::from_mut(&mut output));
        if left == 0 {
            break;
        }
        prompt = Prompt { steps: Some(at_once(left)), ..Prompt::default() };
    }
    let bytes = match form {
        Form::Jsonl => jsonl(&output.labels)?,
        Form::Text => text(&output.labels, model.encoder().spec()).into_bytes(),
        Form::Midi => {
            let chords = output.labels.iter().map(|step| serde_json::from_str(&step.text));
            let chords: Vec<Chord> = chords.collect::<Result<_, _>>()?;
            midi(&chords, Pace { tempo: args.tempo, steps_per_beat: args.steps_per_beat }).map_err(usage)?
        }
    };
    match &args.out {
        Some(path) => std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display())),
        None if form == Form::Midi => written(std::io::stdout().lock().write_all(&bytes)),
        None => print(&String::from_utf8(bytes)?),
    }
}

/// The prompt's steps, as the model reads them.
fn given(text: &str, encoder: &EncoderSpec) -> anyhow::Result<Prompt> {
    if text.is_empty() {
        return Ok(Prompt::default());
    }
    Ok(match encoder {
        EncoderSpec::Notes(_) => {
            let notes = serde_json::from_str(text)
                .map_err(|e| usage(format!("--prompt: expected steps of MIDI pitches such as [[60,64,67],[]]: {e}")))?;
            Prompt { notes: Some(notes), ..Prompt::default() }
        }
        EncoderSpec::Events(_) => {
            Prompt { tokens: Some(text.split_whitespace().map(str::to_string).collect()), ..Prompt::default() }
        }
        _ => Prompt { text: Some(text.to_string()), ..Prompt::default() },
    })
}

fn jsonl(steps: &[StepLabel]) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    for StepLabel { start, end, text, label, score } in steps {
        let step = Step { start: *start, end: *end, text, label: LABELS[*label], score: *score };
        serde_json::to_writer(&mut out, &step)?;
        out.push(b'\n');
    }
    Ok(out)
}

fn text(steps: &[StepLabel], encoder: &EncoderSpec) -> String {
    let parted = match encoder {
        EncoderSpec::Words(_) => " ",
        EncoderSpec::Chars(_) => "",
        _ => "\n",
    };
    let units: Vec<&str> = steps.iter().map(|step| step.text.as_str()).collect();
    units.join(parted) + "\n"
}
