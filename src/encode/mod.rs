//! From the bytes of a stream to the steps of a network, incrementally.
//!
//! The [`Encoder`] of a model cuts a stream's bytes into [`Unit`]s (words, characters, bases, events, vectors), however
//! the bytes arrive, and turns each unit into one row of [`Features`]: table indices, dense columns and the characters
//! of the word. What is unfinished waits in the stream's [`ReaderState`]. What the network makes of features is in
//! [`crate::model`].
//!
//! ```
//! use strand::encode::{Encoder, EncoderSpec, Features, InputFormat, ReaderState, WordSpec};
//!
//! let spec = EncoderSpec::Words(WordSpec { min_count: 1, ..WordSpec::default() });
//! let encoder = Encoder::learn(&spec, &mut ["I", "do", "n't"].into_iter(), ".".as_ref())?;
//! let (mut state, mut units, mut features) = (ReaderState::default(), Vec::new(), Features::default());
//! for piece in ["I do", "n't kn"] {
//!     encoder.push(&mut state, InputFormat::Text, piece.as_bytes(), &mut units, &mut features)?;
//! }
//! let words: Vec<_> = units.iter().map(|unit| (unit.start, unit.text.as_str())).collect();
//! assert_eq!(words, [(0, "I"), (2, "do"), (4, "n't")]); // "kn" may go on
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod char_class;
mod chars;
pub(crate) mod dna;
mod error;
mod events;
mod features;
mod index;
mod lexicon;
mod notes;
mod sentences;
mod spec;
mod state;
#[cfg(test)]
mod tests;
mod text;
mod tokens;
mod ud_english;
mod ud_english_lists;
pub mod units;
mod vector;
mod vocab;
mod words;

pub use error::{EncoderError, InputError};
pub use features::{Features, Layout, TableShape};
pub use notes::Chord;
pub use spec::{CharSpec, DnaSpec, EncoderSpec, EventSpec, NoteSpec, SentenceSpec, Tokenizer, VectorSpec, WordSpec};
pub use state::ReaderState;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;

/// One step of a stream as the user sees it.
///
/// `start` and `end` are positions since the stream's start, in characters (text), bases (DNA) or steps (all else).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    pub start: u64,
    pub end: u64,
    pub text: String,
}

/// How the value of a record is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum InputFormat {
    /// A UTF-8 piece of the stream, cut anywhere. For models of words or characters.
    Text,
    /// A JSON array of strings: words, events.
    Tokens,
    /// IUPAC codes in either case; whitespace between them is skipped.
    Dna,
    /// A JSON array of numbers (one step), an array of such arrays (several), or little-endian f32 bytes.
    ///
    /// A record is JSON if its first byte after white space is `[` and all its bytes are such as JSON arrays of
    /// numbers are written with: white space, digits, `[ ] + - . , "`, lower-case letters, `E`, `I` and `N`. Any other
    /// record is binary. This rule takes a binary record for JSON only if all its numbers are positive, none of them
    /// between 2.4e-4 and 2048, and its first byte is that of `[`; producers for which that is possible send JSON.
    Vector,
    /// A JSON array of steps, each an array of the MIDI pitches that sound together; `[]` is silence.
    Notes,
}

impl InputFormat {
    /// The name in configurations and messages.
    pub fn name(self) -> &'static str {
        match self {
            InputFormat::Text => "text",
            InputFormat::Tokens => "tokens",
            InputFormat::Dna => "dna",
            InputFormat::Vector => "vector",
            InputFormat::Notes => "notes",
        }
    }
}

/// Where an encoder puts what it read: a unit and its row of features go together.
struct Rows<'a> {
    units: &'a mut Vec<Unit>,
    features: &'a mut Features,
}

impl Rows<'_> {
    /// Begins a row: the caller adds its ids, columns and characters.
    fn unit(&mut self, start: u64, end: u64, text: String) -> &mut Features {
        self.units.push(Unit { start, end, text });
        self.features.steps += 1;
        self.features
    }
}

/// The encoder of one model: its specification, vocabularies and lexicon. Immutable, shared between threads.
#[derive(Debug, Clone)]
pub struct Encoder {
    spec: EncoderSpec,
    layout: Layout,
    kind: Kind,
    /// Of a model that writes by class: behind the columns of each step there is one for each class.
    classes: usize,
}

/// One variant for each of [`EncoderSpec`].
#[derive(Debug, Clone)]
enum Kind {
    Words(words::Words),
    Chars(chars::Chars),
    Dna(dna::Dna),
    Events(events::Events),
    Vector(vector::Vectors),
    Notes(notes::Notes),
    Sentences(sentences::Sentences),
}

impl Encoder {
    /// Counts the training text's `tokens` and builds the vocabularies; the lexicon's path is relative to `base`.
    pub fn learn(
        spec: &EncoderSpec,
        tokens: &mut dyn Iterator<Item = &str>,
        base: &Path,
    ) -> Result<Encoder, EncoderError> {
        spec.check()?;
        let kind = match spec {
            EncoderSpec::Words(spec) => Kind::Words(words::Words::learn(spec, tokens, base)?),
            EncoderSpec::Chars(spec) => Kind::Chars(chars::Chars::learn(spec, tokens)),
            EncoderSpec::Dna(spec) => Kind::Dna(dna::Dna::new(spec)),
            EncoderSpec::Events(spec) => Kind::Events(events::Events::learn(spec, tokens)),
            EncoderSpec::Vector(spec) => Kind::Vector(vector::Vectors::new(spec)),
            EncoderSpec::Notes(spec) => Kind::Notes(notes::Notes::new(spec)),
            EncoderSpec::Sentences(spec) => Kind::Sentences(sentences::Sentences::learn(spec, tokens)),
        };
        Ok(Encoder::new(spec, kind))
    }

    /// Reads the vocabularies and the lexicon of the model in `dir`.
    pub fn load(spec: &EncoderSpec, dir: &Path) -> Result<Encoder, EncoderError> {
        spec.check()?;
        let kind = match spec {
            EncoderSpec::Words(spec) => Kind::Words(words::Words::load(spec, dir)?),
            EncoderSpec::Chars(spec) => Kind::Chars(chars::Chars::load(spec, dir)?),
            EncoderSpec::Dna(spec) => Kind::Dna(dna::Dna::new(spec)),
            EncoderSpec::Events(_) => Kind::Events(events::Events::load(dir)?),
            EncoderSpec::Vector(spec) => Kind::Vector(vector::Vectors::new(spec)),
            EncoderSpec::Notes(spec) => Kind::Notes(notes::Notes::new(spec)),
            EncoderSpec::Sentences(spec) => Kind::Sentences(sentences::Sentences::load(spec, dir)?),
        };
        Ok(Encoder::new(spec, kind))
    }

    fn new(spec: &EncoderSpec, kind: Kind) -> Encoder {
        let mut spec = spec.clone();
        if let EncoderSpec::Words(WordSpec { lexicon: Some(path), .. }) = &mut spec {
            *path = lexicon::FILE.into();
        }
        let layout = match (&spec, &kind) {
            (EncoderSpec::Words(spec), Kind::Words(words)) => words.layout(spec),
            (EncoderSpec::Chars(spec), Kind::Chars(chars)) => chars.layout(spec),
            (EncoderSpec::Dna(spec), _) => dna::layout(spec),
            (EncoderSpec::Events(spec), Kind::Events(events)) => events.layout(spec),
            (EncoderSpec::Vector(spec), _) => Layout { dense: spec.width, ..Layout::default() },
            (EncoderSpec::Notes(spec), _) => Layout { dense: spec.pitches(), ..Layout::default() },
            (EncoderSpec::Sentences(_), Kind::Sentences(sentences)) => sentences.layout(),
            _ => unreachable!("`learn` and `load` make the kind from the specification"),
        };
        Encoder { spec, layout, kind, classes: 0 }
    }

    /// Writes `words.txt`, `chars.txt`, `bigrams.txt`, `trigrams.txt`, `events.txt`, `source.txt` and `lexicon.tsv`, as far
    /// as the encoder has them.
    pub fn save(&self, dir: &Path) -> Result<(), EncoderError> {
        match &self.kind {
            Kind::Words(words) => words.save(dir),
            Kind::Chars(chars) => chars.save(dir),
            Kind::Events(events) => events.save(dir),
            Kind::Dna(_) | Kind::Vector(_) | Kind::Notes(_) => Ok(()),
            Kind::Sentences(sentences) => sentences.save(dir),
        }
    }

    /// Hashes everything that decides which features a stream gives.
    pub fn fingerprint_into(&self, hash: &mut Sha256) {
        /// Goes up when this build reads the same bytes differently from the last (a rule of a tokenizer, say).
        const READING: u32 = 1;
        hash.update(READING.to_le_bytes());
        // Serializing can't fail: the keys are strings, and `new` made the only path a constant.
        let spec = serde_json::to_string(&self.spec).expect("a specification is plain data");
        vocab::fingerprint(hash, [spec.as_str()].into_iter());
        match &self.kind {
            Kind::Words(words) => words.fingerprint_into(hash),
            Kind::Chars(chars) => chars.fingerprint_into(hash),
            Kind::Events(events) => events.fingerprint_into(hash),
            Kind::Dna(_) | Kind::Vector(_) | Kind::Notes(_) => {}
            Kind::Sentences(sentences) => sentences.fingerprint_into(hash),
        }
    }

    /// The specification; the lexicon's path is its place in a model directory.
    pub fn spec(&self) -> &EncoderSpec {
        &self.spec
    }

    /// The shapes that the network's input layer must have.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The format in which records hold this model's input unless told otherwise.
    pub fn format(&self) -> InputFormat {
        match self.kind {
            Kind::Words(_) | Kind::Chars(_) | Kind::Sentences(_) => InputFormat::Text,
            Kind::Dna(_) => InputFormat::Dna,
            Kind::Events(_) => InputFormat::Tokens,
            Kind::Vector(_) => InputFormat::Vector,
            Kind::Notes(_) => InputFormat::Notes,
        }
    }

    /// Whether records of this format can be input of this model.
    pub fn accepts(&self, format: InputFormat) -> bool {
        format == self.format() || (format == InputFormat::Tokens && matches!(self.kind, Kind::Words(_)))
    }

    /// Reads the next piece of a stream: appends the units that it completes, and their features.
    ///
    /// On an error nothing has changed: neither `state` nor `units` nor `features`.
    pub fn push(
        &self,
        state: &mut ReaderState,
        format: InputFormat,
        bytes: &[u8],
        units: &mut Vec<Unit>,
        features: &mut Features,
    ) -> Result<(), InputError> {
        if !self.accepts(format) {
            let detail = format!("a model of {} does not read {}", self.spec.kind(), format.name());
            return Err(InputError::WrongShape { detail });
        }
        let (state_before, units_before, steps_before) = (state.clone(), units.len(), features.steps);
        let rows = &mut Rows { units, features };
        let result = match &self.kind {
            Kind::Words(words) => match format {
                InputFormat::Tokens => tokens::parse(bytes).and_then(|tokens| words.push_tokens(state, &tokens, rows)),
                _ => words.push(state, bytes, rows),
            },
            Kind::Chars(chars) => chars.push(state, bytes, rows),
            Kind::Dna(dna) => dna.push(state, bytes, rows),
            Kind::Events(events) => tokens::parse(bytes).map(|tokens| events.push_tokens(state, &tokens, rows)),
            Kind::Vector(vectors) => vectors.push(state, bytes, rows),
            Kind::Notes(notes) => notes.push(state, bytes, rows),
            Kind::Sentences(sentences) => sentences.push(state, bytes, rows),
        };
        match result {
            Ok(()) => self.tell_class(state, steps_before, features),
            Err(_) => {
                *state = state_before;
                units.truncate(units_before);
                // The class is not told yet, so that rows have other widths than the layout's; those before are whole.
                features.truncate(steps_before, &self.layout);
            }
        }
        result
    }

    /// What is pending is complete as it stands: the stream is flushed or ends.
    ///
    /// On an error (the pending bytes end inside a character) what was pending is dropped, and the reader is ready for
    /// the stream's next piece.
    pub fn finish(
        &self,
        state: &mut ReaderState,
        units: &mut Vec<Unit>,
        features: &mut Features,
    ) -> Result<(), InputError> {
        let before = features.steps;
        let rows = &mut Rows { units, features };
        let finished = match &self.kind {
            Kind::Words(words) => words.finish(state, rows),
            Kind::Sentences(sentences) => sentences.finish(state, rows),
            Kind::Chars(_) => text::finish_character(state),
            Kind::Dna(_) | Kind::Events(_) | Kind::Vector(_) | Kind::Notes(_) => Ok(()),
        };
        self.tell_class(state, before, features);
        finished
    }

    /// Takes given tokens (from files of labelled tokens), each as one unit.
    ///
    /// Words have the positions that the text of the tokens, each followed by one space, would give them; what is
    /// pending of a text before them is finished first. To a model of characters each character of a token is a unit.
    /// Bases and events are 1 wide; a token that is no base code is an unknown one. A model of vectors has no tokens:
    /// nothing is added.
    pub fn push_tokens(
        &self,
        state: &mut ReaderState,
        tokens: &[impl AsRef<str>],
        units: &mut Vec<Unit>,
        features: &mut Features,
    ) {
        let before = features.steps;
        let rows = &mut Rows { units, features };
        match &self.kind {
            Kind::Words(words) => {
                // The error is of pending bytes that are dropped; tokens have none.
                let _ = words.push_tokens(state, tokens, rows);
            }
            Kind::Chars(chars) => chars.push_tokens(state, tokens, rows),
            Kind::Dna(dna) => dna.push_tokens(state, tokens, rows),
            Kind::Events(events) => events.push_tokens(state, tokens, rows),
            Kind::Sentences(sentences) => sentences.push_tokens(state, tokens, rows),
            Kind::Vector(_) | Kind::Notes(_) => {}
        }
        self.tell_class(state, before, features);
    }

    /// Takes steps of notes that are read already. On an error nothing has changed.
    pub fn push_chords(
        &self,
        state: &mut ReaderState,
        chords: &[Chord],
        units: &mut Vec<Unit>,
        features: &mut Features,
    ) -> Result<(), InputError> {
        let Kind::Notes(notes) = &self.kind else {
            let detail = format!("a model of {} does not read notes", self.spec.kind());
            return Err(InputError::WrongShape { detail });
        };
        let before = features.steps;
        notes.push_chords(state, chords, &mut Rows { units, features })?;
        self.tell_class(state, before, features);
        Ok(())
    }

    /// The same encoder for streams that are each of one of so many classes, which every step is told:
    /// [`ReaderState::set_class`].
    pub fn with_classes(mut self, classes: usize) -> Encoder {
        self.layout.dense += classes;
        self.classes += classes;
        self
    }

    /// Adds the columns of the class to the steps from `before` on, whose own columns are there.
    fn tell_class(&self, state: &ReaderState, before: usize, features: &mut Features) {
        if self.classes == 0 || before == features.steps {
            return;
        }
        let (wide, own) = (self.layout.dense, self.layout.dense - self.classes);
        let told = features.dense.split_off(before * wide);
        let class = state.class();
        for step in 0..features.steps - before {
            features.dense.extend_from_slice(&told[step * own..(step + 1) * own]);
            features.dense.extend((0..self.classes).map(|k| f32::from(u8::from(class == Some(k)))));
        }
    }

    /// The word (in the vocabulary's spelling), character or event of a row of the first table; none of row 0, which
    /// stands for all unknown ones.
    pub fn unit_text(&self, row: u32) -> Option<String> {
        match &self.kind {
            Kind::Words(words) => words.unit_text(row).map(str::to_string),
            Kind::Chars(chars) => chars.unit_text(row).map(String::from),
            Kind::Events(events) => events.unit_text(row).map(str::to_string),
            Kind::Dna(_) | Kind::Vector(_) | Kind::Notes(_) | Kind::Sentences(_) => None,
        }
    }

    /// The units that sentences are made of, if the encoder reads sentences.
    pub fn source_units(&self) -> Option<&units::Units> {
        match &self.kind {
            Kind::Sentences(sentences) => Some(&sentences.units),
            _ => None,
        }
    }

    /// Whether a step's word, character or event was not in the vocabulary, by its table indices.
    pub fn is_unknown(&self, ids: &[u32]) -> bool {
        ids.first() == Some(&0)
    }
}
