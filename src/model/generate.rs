//! New sequences: a stream begins with nothing, a class or a few steps, and what the network makes is its next input.
//!
//! [`Session::ask`] takes what is asked of a stream, [`Stepper::generate`] writes it, many streams together. Each stream
//! draws from random numbers of its own, of which its state says how many were drawn: so it is written the same in any
//! company, in one go or in several.

use super::notes::WrittenShape;
use super::sample::{SamplerSpec, pick};
use super::spec::{ModelSpec, Scheme};
use super::state::{Fields, StateError};
use super::{Model, Output, Session, Stepper};
use crate::encode::{Chord, EncoderSpec, InputError, InputFormat};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

/// The labels of a generating model's steps.
pub const LABELS: [&str; 2] = ["given", "generated"];

/// Steps where nobody says how many.
const STEPS: u32 = 64;
/// A greater `max_steps` is a mistake.
const MOST_STEPS: u32 = 1 << 16;
/// More classes than these are a mistake.
const MOST_CLASSES: usize = 1000;
/// Higher temperatures are no different from chance.
const MOST_TEMPERATURE: f64 = 100.0;

const EXPECTED: &str = "a prompt, such as {\"steps\": 64, \"temperature\": 1.0, \"seed\": 1}, or nothing";

/// `[generate]`: what may be asked of the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateSpec {
    /// The most steps that one record may ask for.
    #[serde(default = "a_thousand")]
    pub max_steps: u32,
    /// What kinds of sequences there are; each stream is of one of them. None: there are no kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
}

fn a_thousand() -> u32 {
    1024
}

impl Default for GenerateSpec {
    fn default() -> Self {
        GenerateSpec { max_steps: a_thousand(), classes: Vec::new() }
    }
}

impl GenerateSpec {
    /// Says what is out of range.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=MOST_STEPS).contains(&self.max_steps) {
            return Err(format!("max_steps = {}: must be 1 to {MOST_STEPS}", self.max_steps));
        }
        if self.classes.len() > MOST_CLASSES {
            return Err(format!("{} classes: there may be {MOST_CLASSES}", self.classes.len()));
        }
        let twice = |(k, class): (usize, &String)| class.is_empty() || self.classes[..k].contains(class);
        match self.classes.iter().enumerate().position(twice) {
            Some(at) => Err(format!("classes: {:?} is empty or there twice", self.classes[at])),
            None => Ok(()),
        }
    }
}

/// Says what a model that generates cannot be.
pub(super) fn check(spec: &ModelSpec) -> Result<(), String> {
    let Some(generate) = &spec.generate else {
        return Err("task = \"generate\" needs [generate]; max_steps = 1024 is one".into());
    };
    generate.check().map_err(|e| format!("generate.{e}"))?;
    if spec.labels != LABELS || spec.scheme != Scheme::Plain || spec.classes.is_some() {
        return Err(format!("task = \"generate\" has labels = {LABELS:?}, scheme = \"plain\" and no [[classes]]"));
    }
    match (&spec.encoder, &spec.language) {
        (EncoderSpec::Notes(_), None) => Ok(()),
        (EncoderSpec::Notes(_), Some(_)) => Err("[language] is for units; steps of notes have no softmax".into()),
        (EncoderSpec::Words(_) | EncoderSpec::Chars(_) | EncoderSpec::Events(_), Some(language)) => {
            language.check().map_err(|e| format!("language.{e}"))
        }
        (EncoderSpec::Words(_) | EncoderSpec::Chars(_) | EncoderSpec::Events(_), None) => {
            Err("task = \"generate\" of units needs [language]; softmax = \"full\" is one".into())
        }
        _ => Err("task = \"generate\" is for words, chars, events or notes".into()),
    }
}

/// How a stream is written.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    temperature: f64,
    seed: u64,
    /// Words of the random numbers that are used up.
    drawn: u64,
    /// Steps of which the last record asked.
    steps: u32,
    /// Steps that are still to be written; none between two records.
    left: u32,
    /// The step that waits is drawn, not given.
    pub(super) drawing: bool,
}

impl Default for Generation {
    fn default() -> Self {
        Generation { temperature: 1.0, seed: 1, drawn: 0, steps: STEPS, left: 0, drawing: false }
    }
}

impl Generation {
    /// `temperature f64 | seed u64 | drawn u64 | steps u32`
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.temperature.to_bits().to_le_bytes());
        out.extend_from_slice(&self.seed.to_le_bytes());
        out.extend_from_slice(&self.drawn.to_le_bytes());
        out.extend_from_slice(&self.steps.to_le_bytes());
    }

    pub(super) fn decode(fields: &mut Fields<'_>, spec: &GenerateSpec) -> Result<Generation, StateError> {
        let (temperature, seed, drawn) = (f64::from_bits(fields.u64()?), fields.u64()?, fields.u64()?);
        let steps = fields.u32()?;
        if !is_temperature(temperature) || drawn > u64::MAX / 2 || steps > spec.max_steps.max(STEPS) {
            return Err(StateError::Damaged("what is to be written is impossible".into()));
        }
        Ok(Generation { temperature, seed, drawn, steps, left: 0, drawing: false })
    }
}

fn is_temperature(x: f64) -> bool {
    (0.0..=MOST_TEMPERATURE).contains(&x)
}

/// What may be asked of a stream, all of it or nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Prompt {
    /// Of which class the stream is; only before its first step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Steps that are given: notes,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notes: Option<Vec<Chord>>,
    /// text of whole words or characters,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// or words or events, each a string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Vec<String>>,
    /// Steps to write; absent: as many as the last time, at first 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// ln P is divided by this: below 1 likely steps become likelier; 0: always the likeliest. Absent: as it was, at first 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Of the random numbers; only before the stream's first step. Absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl Prompt {
    /// Nothing but white space is the empty prompt.
    pub fn parse(bytes: &[u8]) -> Result<Prompt, InputError> {
        if bytes.trim_ascii().is_empty() {
            return Ok(Prompt::default());
        }
        // An array would be taken for the keys' values in their order.
        if bytes.trim_ascii_start().first() == Some(&b'[') && serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
            return Err(InputError::WrongShape { detail: format!("expected {EXPECTED}, found an array") });
        }
        serde_json::from_slice(bytes).map_err(|error| {
            let detail = error.to_string();
            match error.is_data() {
                true => InputError::WrongShape { detail: format!("expected {EXPECTED}: {detail}") },
                false => InputError::InvalidJson { expected: EXPECTED, detail },
            }
        })
    }
}

impl Session {
    /// Takes what is asked of a stream: what is given waits for [`Stepper::step`], then [`Stepper::generate`] writes the rest.
    /// On an error the session is unchanged.
    pub fn ask(&mut self, model: &Model, prompt: &Prompt) -> Result<(), InputError> {
        let wrong = |detail: String| Err(InputError::WrongShape { detail });
        let Some(spec) = &model.spec.generate else {
            return wrong(format!("`{}` writes nothing: its task is not \"generate\"", model.spec.name));
        };
        let steps = prompt.steps.unwrap_or(self.generation.steps.min(spec.max_steps));
        if steps > spec.max_steps {
            return wrong(format!("steps = {steps}: a record may ask for {} of this model", spec.max_steps));
        }
        let temperature = prompt.temperature.unwrap_or(self.generation.temperature);
        if !is_temperature(temperature) {
            return wrong(format!("temperature = {temperature}: must be 0 to {MOST_TEMPERATURE}"));
        }
        if self.is_begun() && (prompt.class.is_some() || prompt.seed.is_some()) {
            return wrong("class and seed are for a stream's beginning: send them with `start` or `reset`".into());
        }
        if [prompt.notes.is_some(), prompt.text.is_some(), prompt.tokens.is_some()]
            .iter()
            .filter(|given| **given)
            .count()
            > 1
        {
            return wrong("only one of notes, text and tokens may be given".into());
        }
        let before = self.reader.clone();
        let class = prompt.class.as_ref().map_or(Ok(()), |class| self.set_class(model, class));
        let taken = class.and_then(|()| self.check_class(model)).and_then(|()| self.give(model, prompt));
        if let Err(error) = taken {
            self.reader = before;
            return Err(error);
        }
        let g = &mut self.generation;
        (g.steps, g.left, g.temperature, g.drawing) = (steps, steps, temperature, false);
        if let Some(seed) = prompt.seed {
            (g.seed, g.drawn) = (seed, 0);
        }
        Ok(())
    }

    /// Says of which class the stream is, of a model that has classes.
    ///
    /// # Errors
    /// When the model has no such class.
    pub fn set_class(&mut self, model: &Model, class: &str) -> Result<(), InputError> {
        let classes = model.spec.stream_classes();
        let Some(k) = classes.iter().position(|known| known == class) else {
            return Err(InputError::WrongShape { detail: format!("class = {class:?}: this model has {classes:?}") });
        };
        self.reader.set_class(k as u16);
        Ok(())
    }

    /// # Errors
    /// When the model has classes and nothing said of which one the stream is.
    pub fn check_class(&self, model: &Model) -> Result<(), InputError> {
        let classes = model.spec.stream_classes();
        if classes.is_empty() || self.reader.class().is_some() {
            return Ok(());
        }
        Err(InputError::WrongShape { detail: format!("this model writes by class: give one of {classes:?}") })
    }

    /// Whether there was a step since the start, or the last reset.
    fn is_begun(&self) -> bool {
        self.features.steps > 0 || self.pool.first().is_some_and(|&begun| begun > 0.0)
    }

    /// The steps that are given wait for the network.
    fn give(&mut self, model: &Model, prompt: &Prompt) -> Result<(), InputError> {
        let accepts = |format: InputFormat| match model.encoder.accepts(format) {
            true => Ok(()),
            false => Err(InputError::WrongShape {
                detail: format!("a model of {} does not read {}", model.encoder.spec().kind(), format.name()),
            }),
        };
        if let Some(chords) = &prompt.notes {
            model.encoder.push_chords(&mut self.reader, chords, &mut self.units, &mut self.features)?;
        }
        if let Some(text) = &prompt.text {
            accepts(InputFormat::Text)?;
            self.push(model, InputFormat::Text, text.as_bytes())?;
            self.finish_unit(model)?;
        }
        if let Some(tokens) = &prompt.tokens {
            accepts(InputFormat::Tokens)?;
            self.push_tokens(model, tokens);
        }
        Ok(())
    }

    /// Steps that [`Stepper::generate`] is to write.
    pub fn to_write(&self) -> usize {
        self.generation.left as usize
    }

    /// Draws the next step, if one is to be written, and lets it wait for the network.
    fn draw(&mut self, model: &Model) {
        let Some(left) = self.generation.left.checked_sub(1) else { return };
        let Generation { temperature, seed, drawn, .. } = self.generation;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_word_pos(drawn.into());
        match model.network.shape().written {
            WrittenShape { notes: Some(lowest), .. } => {
                let mut logits = Vec::new();
                model.network.logits(self.context(&model.network), 1, &mut logits);
                let chord = draw_chord(&logits, lowest, temperature, &mut rng);
                // The model's own pitches are in its range.
                let _ = model.encoder.push_chords(&mut self.reader, &[chord], &mut self.units, &mut self.features);
            }
            _ => {
                let row =
                    pick(&self.next_unit(model), SamplerSpec { temperature, seed, ..SamplerSpec::default() }, &mut rng);
                // Every row but 0 has a text, and 0 is drawn only where there is no other.
                let text = model.encoder.unit_text(row).unwrap_or_default();
                self.push_tokens(model, &[&text]);
            }
        }
        let g = &mut self.generation;
        (g.left, g.drawn, g.drawing) = (left, rng.get_word_pos() as u64, true);
    }
}

/// Each pitch by itself: it sounds with the probability σ(x / temperature).
fn draw_chord(logits: &[f32], lowest: u8, temperature: f64, rng: &mut ChaCha8Rng) -> Chord {
    let mut chord = Chord::default();
    for (pitch, &x) in (lowest..=127).zip(logits) {
        let sounds = match temperature {
            0.0 => x > 0.0,
            _ => rng.random::<f64>() < 1.0 / (1.0 + (-f64::from(x) / temperature).exp()),
        };
        if sounds {
            chord = chord.with(pitch);
        }
    }
    chord
}

impl Stepper {
    /// Writes what the sessions were asked for, all of them step by step together; what is written is appended to
    /// `outputs[k]` for `sessions[k]`. Call with nothing that is given waiting. Bit for bit the same however the sessions
    /// are batched, and in however many records the steps were asked for.
    pub fn generate(&mut self, sessions: &mut [&mut Session], outputs: &mut [Output]) {
        let model = self.model.clone();
        while sessions.iter().any(|session| session.to_write() > 0) {
            sessions.iter_mut().for_each(|session| session.draw(&model));
            self.step(sessions, outputs);
        }
        sessions.iter_mut().for_each(|session| session.generation.drawing = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_drawn_as_often_as_they_are_likely() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut often = |temperature: f64| {
            let mut counts = [0; 3];
            for _ in 0..10_000 {
                let chord = draw_chord(&[1.0, -0.5, 0.0], 60, temperature, &mut rng);
                (60..63).zip(&mut counts).for_each(|(pitch, count)| *count += usize::from(chord.has(pitch)));
            }
            counts.map(|count| count as f64 / 1e4)
        };
        for (temperature, wanted) in [(1.0, [0.731, 0.378, 0.5]), (0.5, [0.881, 0.269, 0.5]), (0.0, [1.0, 0.0, 0.0])] {
            let got = often(temperature);
            assert!(got.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 0.02), "{got:?}, expected {wanted:?}");
        }
    }

    #[test]
    fn a_prompt_is_all_or_nothing() {
        assert_eq!(Prompt::parse(b" \n").unwrap(), Prompt::default());
        let prompt =
            Prompt::parse(br#"{"class":"jig","notes":[[60],[]],"steps":3,"temperature":0.5,"seed":7}"#).unwrap();
        assert_eq!(prompt.notes, Some(vec![Chord::default().with(60), Chord::default()]));
        assert_eq!((prompt.class.as_deref(), prompt.steps, prompt.seed), (Some("jig"), Some(3), Some(7)));
        let code = |json: &str| Prompt::parse(json.as_bytes()).unwrap_err().code();
        assert_eq!((code("{"), code("[]"), code(r#"{"step":3}"#)), ("invalid_json", "wrong_shape", "wrong_shape"));
        assert_eq!(
            (code(r#"{"steps":-1}"#), code(r#"["jig"]"#), code("[")),
            ("wrong_shape", "wrong_shape", "invalid_json")
        );
    }
}
