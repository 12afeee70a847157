//! Transcripts: the symbols that a stream reads as, without a label for every step.
//!
//! The network gives each step probabilities of the symbols and of a *blank* (class 0, for "no further symbol"). A sequence
//! of classes reads as what is left when classes that repeat are taken once and blanks are dropped (Graves et al. 2006;
//! how that is trained is in [`crate::train::ctc`]). The symbols are found
//!
//! - *greedily*: of each step the likeliest class; a symbol is final when the next step's class is another, or
//! - by a *prefix beam search* ([`beam`]): the likeliest transcripts, each over all the ways to align it.
//!
//! A [`Transcript`] is what a stream carries of its symbols that are not final. A symbol's label has the steps that it was
//! found in, the symbol as text, and as score the largest probability it had at one of them. Where a space is one of the
//! symbols, what stands between two of them is a *word*, and is told as a span whose label is the word.

pub mod beam;

use super::state::{Fields, StateError};
use super::{DecodeKind, Model, ModelSpec, Output, Scheme, Session, Span, StepLabel, Task};
use crate::encode::Unit;
use beam::{Hypothesis, Search};

/// The class that stands for no further symbol.
pub const BLANK: usize = 0;
/// Its name among a model's labels.
pub const BLANK_LABEL: &str = "<blank>";
/// The symbol that parts words.
pub const SPACE: &str = " ";
/// The most symbols, with the blank.
pub const MAX_SYMBOLS: usize = 4096;
/// The widest beam: a stream's state holds every hypothesis.
pub const MAX_BEAM: usize = 64;
/// Hypotheses that are kept where the model does not say.
pub const BEAM: usize = 16;
/// A longer word is told in parts of this length.
const MAX_WORD_BYTES: usize = 1024;

/// A symbol that is not final.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub class: u16,
    /// The step, counted from the stream's start (or the last reset), at which it began.
    pub frame: u64,
    /// What it covers, as [`crate::encode::Unit`].
    pub start: u64,
    pub end: u64,
    /// Its largest probability at a step, 0..=1.
    pub score: f32,
}

/// What a stream carries of its transcript.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Transcript {
    /// Greedily: the class of the last step, if it is a symbol. Else the symbol published last.
    last: Option<u16>,
    /// Steps so far.
    frames: u64,
    /// The likeliest first; none before the first step. Greedily: one, with the symbol that is open, or none.
    hypotheses: Vec<Hypothesis>,
}

/// How symbols are found. Immutable, shared by all streams of a model.
#[derive(Debug, Clone)]
pub struct Transcriber {
    classes: usize,
    /// Absent: greedily.
    search: Option<Search>,
    has_words: bool,
}

/// Says what does not go together in the specification of a transcriber.
pub fn check(spec: &ModelSpec) -> Result<(), String> {
    if spec.labels.first().map(String::as_str) != Some(BLANK_LABEL) || spec.labels.len() < 2 {
        return Err(format!("task = \"transcribe\" needs labels that begin with {BLANK_LABEL:?}, then the symbols"));
    }
    if spec.labels.len() > MAX_SYMBOLS {
        return Err(format!("{} labels: task = \"transcribe\" is for up to {MAX_SYMBOLS}", spec.labels.len()));
    }
    if let Some(twice) =
        (1..spec.labels.len()).find(|&k| spec.labels[k].is_empty() || spec.labels[..k].contains(&spec.labels[k]))
    {
        return Err(format!("the label {:?} is empty or there twice", spec.labels[twice]));
    }
    if spec.scheme != Scheme::Plain || spec.classes.is_some() || spec.outside.as_deref() != Some(BLANK_LABEL) {
        return Err(format!("a transcriber has scheme = \"plain\", outside = {BLANK_LABEL:?} and no classes"));
    }
    Ok(())
}

/// Symbols as text: one after the other where each is a character, else with spaces between them.
pub fn joined<'a>(labels: &[String], symbols: impl Iterator<Item = &'a str>) -> String {
    let by_character = labels.iter().skip(1).all(|label| label.chars().nth(1).is_none());
    let symbols: Vec<&str> = symbols.collect();
    symbols.join(if by_character { "" } else { SPACE })
}

impl Transcriber {
    /// What the specification asks for; nothing for other tasks.
    pub fn new(spec: &ModelSpec) -> Option<Transcriber> {
        if spec.task != Task::Transcribe {
            return None;
        }
        let decode = spec.decode.as_ref().filter(|decode| decode.kind == DecodeKind::Beam);
        let search = decode.map(|decode| Search { lag: decode.lag as u64, ..Search::of(decode.beam.unwrap_or(BEAM)) });
        let has_words = spec.labels.iter().any(|label| label == SPACE);
        Some(Transcriber { classes: spec.labels.len(), search, has_words })
    }

    /// Takes the probabilities `[classes]` of one more step; symbols that are final now are appended to `done`.
    pub fn push(&self, state: &mut Transcript, p: &[f32], unit: &Unit, done: &mut Vec<Found>) {
        let frame = state.frames;
        state.frames += 1;
        match &self.search {
            Some(search) => search.push(&mut state.last, &mut state.hypotheses, frame, p, unit, done),
            None => greedy(state, p, frame, unit, done),
        }
    }

    /// What the likeliest hypothesis says is final now, whatever may follow.
    pub fn settle(&self, state: &mut Transcript, done: &mut Vec<Found>) {
        match &self.search {
            Some(search) => search.settle(&mut state.last, &mut state.hypotheses, done),
            None => done.extend(state.hypotheses.drain(..).flat_map(|open| open.symbols)),
        }
    }

    /// The classes of a whole stream's symbols by its probabilities `[steps, classes]`.
    pub fn transcribe(&self, probabilities: &[f32]) -> Vec<u32> {
        let (mut state, mut done) = (Transcript::default(), Vec::new());
        for (k, p) in (0..).zip(probabilities.chunks_exact(self.classes)) {
            self.push(&mut state, p, &Unit { start: k, end: k + 1, text: String::new() }, &mut done);
        }
        self.settle(&mut state, &mut done);
        done.into_iter().map(|found| u32::from(found.class)).collect()
    }
}

/// One step by its likeliest class, the first of equals.
fn greedy(state: &mut Transcript, p: &[f32], frame: u64, unit: &Unit, done: &mut Vec<Found>) {
    let best = (1..p.len()).fold(BLANK, |best, class| if p[class] > p[best] { class } else { best });
    let class = (best != BLANK).then_some(best as u16);
    if class != state.last {
        done.extend(state.hypotheses.drain(..).flat_map(|open| open.symbols));
        if let Some(class) = class {
            let found = Found { class, frame, start: unit.start, end: unit.end, score: beam::share(p[best]) };
            state.hypotheses.push(Hypothesis { symbols: vec![found], in_blank: 0.0, in_symbol: 1.0 });
        }
        state.last = class;
    } else if let Some(open) = state.hypotheses.first_mut().and_then(|open| open.symbols.last_mut()) {
        open.end = unit.end;
        open.score = open.score.max(beam::share(p[best]));
    }
}

impl Session {
    /// Takes the probabilities of one of the waiting steps.
    pub(super) fn hear(&mut self, model: &Model, p: &[f32], unit: &Unit, done: &mut Vec<Found>, output: &mut Output) {
        let Some(transcriber) = &model.transcriber else { return };
        transcriber.push(&mut self.transcript, p, unit, done);
        self.publish_symbols(model, transcriber, done, output);
    }

    /// Symbols that are not final are now (`flush`).
    pub(super) fn settle_transcript(&mut self, model: &Model, output: &mut Output) {
        let Some(transcriber) = &model.transcriber else { return };
        let mut done = Vec::new();
        transcriber.settle(&mut self.transcript, &mut done);
        self.publish_symbols(model, transcriber, &mut done, output);
    }

    /// The same for the last time: the stream ends or is reset.
    pub(super) fn conclude_transcript(&mut self, model: &Model, output: &mut Output) {
        self.settle_transcript(model, output);
        self.transcript = Transcript::default();
    }

    fn publish_symbols(&mut self, model: &Model, of: &Transcriber, done: &mut Vec<Found>, output: &mut Output) {
        for Found { class, start, end, score, .. } in done.drain(..) {
            let label = usize::from(class);
            let text = model.spec.labels[label].clone();
            if of.has_words && text == SPACE {
                output.spans.extend(self.spans.finish());
            } else if of.has_words {
                match &mut self.spans.open {
                    Some(word) if word.label.len() < MAX_WORD_BYTES => {
                        word.label.push_str(&text);
                        word.end = word.end.max(end);
                    }
                    open => output.spans.extend(open.replace(Span { start, end, label: text.clone() })),
                }
            }
            output.labels.push(StepLabel { start, end, text, label, score });
        }
    }
}

impl Transcript {
    /// Bytes of memory on the heap, about.
    pub fn memory(&self) -> usize {
        let symbols: usize = self.hypotheses.iter().map(|h| h.symbols.capacity()).sum();
        self.hypotheses.capacity() * size_of::<Hypothesis>() + symbols * size_of::<Found>()
    }

    /// `last class u16, all ones: none | steps u64 | hypotheses u8 | of each: in_blank f64 in_symbol f64 symbols u8
    /// | of each of those: class u16 frame u64 start u64 end u64 score f32`, little-endian.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.last.unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(&self.frames.to_le_bytes());
        out.push(self.hypotheses.len() as u8);
        for h in &self.hypotheses {
            out.extend_from_slice(&h.in_blank.to_bits().to_le_bytes());
            out.extend_from_slice(&h.in_symbol.to_bits().to_le_bytes());
            out.push(h.symbols.len() as u8);
            for found in &h.symbols {
                out.extend_from_slice(&found.class.to_le_bytes());
                [found.frame, found.start, found.end].iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
                out.extend_from_slice(&found.score.to_le_bytes());
            }
        }
    }

    /// The inverse of [`Transcript::encode`].
    pub(super) fn decode(fields: &mut Fields<'_>, of: &Transcriber) -> Result<Transcript, StateError> {
        let damaged = |what: &str| StateError::Damaged(format!("of its transcript {what}"));
        let is_symbol = |class: u16| usize::from(class) != BLANK && usize::from(class) < of.classes;
        let last = match u16::from_le_bytes(fields.array()?) {
            u16::MAX => None,
            class if is_symbol(class) => Some(class),
            _ => return Err(damaged("the last symbol is none of the model's")),
        };
        let (frames, [count]) = (fields.u64()?, fields.array()?);
        let (most, lag) = of.search.as_ref().map_or((1, 1), |search| (search.beam, search.lag));
        if usize::from(count) > most || frames > u64::MAX / 2 {
            return Err(damaged("there are more hypotheses, or steps, than there can be"));
        }
        let mut hypotheses = Vec::new();
        for _ in 0..count {
            let mut share = || fields.u64().map(f64::from_bits);
            let (in_blank, in_symbol) = (share()?, share()?);
            if ![in_blank, in_symbol].iter().all(|p| (0.0..=1.0 + 1e-6).contains(p)) || in_blank + in_symbol <= 0.0 {
                return Err(damaged("a hypothesis has no probability"));
            }
            let (mut symbols, [length]): (Vec<Found>, [u8; 1]) = (Vec::new(), fields.array()?);
            if u64::from(length) > lag {
                return Err(damaged("more symbols wait than the model lets wait"));
            }
            for _ in 0..length {
                let class = u16::from_le_bytes(fields.array()?);
                let (frame, start, end) = (fields.u64()?, fields.u64()?, fields.u64()?);
                let score = f32::from_bits(fields.u32()?);
                let follows = symbols.last().is_none_or(|before| before.frame < frame) && frame < frames;
                // Greedily a symbol stays open as long as it lasts.
                let waits = of.search.is_none() || frames - frame <= lag;
                if !is_symbol(class) || !follows || !waits || start >= end || !(0.0..=1.0).contains(&score) {
                    return Err(damaged("a symbol that waits is impossible"));
                }
                symbols.push(Found { class, frame, start, end, score });
            }
            if of.search.is_none() && symbols.first().map(|found| found.class) != last {
                return Err(damaged("the symbol that is open is not the last"));
            }
            hypotheses.push(Hypothesis { symbols, in_blank, in_symbol });
        }
        Ok(Transcript { last, frames, hypotheses })
    }
}

#[cfg(test)]
mod tests;
