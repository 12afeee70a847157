//! Streams with transcripts, for [`super::ctc`]: read, encoded, and scored on dev.

use super::TrainError;
use super::corpus::{Corpus, Examples, unreadable};
use super::ctc::fits;
use super::dev::{DevScore, LANES, probabilities};
use super::network::NO_TARGET;
use super::parallel::for_each;
use super::recipe::{FileTable, Recipe, Symbols};
use crate::data::read_transcripts;
use crate::encode::{Encoder, Features};
use crate::model::ModelSpec;
use crate::model::network::Network;
use crate::model::transcribe::{BLANK_LABEL, MAX_SYMBOLS, SPACE, Transcriber, joined};
use crate::score::{Edits, words};
use std::collections::BTreeSet;

/// A transcript's symbols.
fn cut(transcript: &str, symbols: Symbols) -> Vec<String> {
    match symbols {
        Symbols::Words => transcript.split_whitespace().map(str::to_string).collect(),
        Symbols::Characters => words(transcript).join(SPACE).chars().map(String::from).collect(),
    }
}

impl Examples {
    /// Streams with a transcript each.
    pub(super) fn transcribed(&mut self, recipe: &Recipe, table: &FileTable) -> Result<(), TrainError> {
        let path = recipe.data.resolve(&table.path);
        let streams = read_transcripts(&path)?;
        for _ in 0..table.repeat {
            self.streams.extend(streams.iter().map(|s| (s.content.clone(), s.label.clone(), table.weight)));
        }
        Ok(())
    }

    /// The blank, and the symbols of all transcripts in their order.
    pub(super) fn symbols(&self, recipe: &Recipe) -> Vec<String> {
        let cut = |(_, transcript, _): &(_, String, _)| cut(transcript, recipe.task.symbols.unwrap_or_default());
        let found: BTreeSet<String> = self.streams.iter().flat_map(cut).collect();
        std::iter::once(BLANK_LABEL.to_string()).chain(found).collect()
    }
}

impl Corpus {
    /// Encodes streams with transcripts. Those whose steps cannot read as their transcript, being too few, are left out and
    /// counted on standard error.
    ///
    /// # Errors
    /// When a stream cannot be read, or is longer than `train.chunk`: a transcript is learnt from as a whole.
    pub(super) fn of_transcripts(
        examples: &Examples,
        encoder: &Encoder,
        recipe: &Recipe,
        classes: &[String],
    ) -> Result<Corpus, TrainError> {
        if classes.len() < 2 || classes.len() > MAX_SYMBOLS {
            let found = classes.len() - 1;
            return Err(TrainError::recipe(format!("{found} symbols in the transcripts: must be 1 to {MAX_SYMBOLS}")));
        }
        let mut corpus = Corpus { starts: vec![0], ..Corpus::default() };
        let (mut units, mut short, longest) = (Vec::new(), 0, recipe.train.chunk);
        for (content, transcript, weight) in &examples.streams {
            let before = corpus.features.steps;
            let mut features = Features::default();
            content.encode(encoder, &mut units, &mut features).map_err(|e| unreadable(content, transcript, &e))?;
            units.clear();
            if features.steps > longest {
                let steps = features.steps;
                let detail =
                    "a transcript is learnt from as a whole: raise train.chunk, or cut the stream where it pauses";
                return Err(TrainError::recipe(format!(
                    "the stream with transcript {:?} has {steps} steps, more than train.chunk = {longest}; {detail}",
                    transcript.chars().take(60).collect::<String>()
                )));
            }
            let symbols = cut(transcript, recipe.task.symbols.unwrap_or_default());
            let class = |symbol: &String| classes.iter().position(|c| c == symbol).map_or(NO_TARGET, |c| c as u32);
            let symbols: Vec<u32> = symbols.iter().map(class).collect();
            if features.steps == 0 || !fits(features.steps, &symbols) {
                short += 1;
                continue;
            }
            corpus.features.append(&features);
            let steps = corpus.features.steps;
            corpus.targets.resize(steps, NO_TARGET);
            corpus.weights.resize(steps - 1, 0.0);
            corpus.weights.push(*weight);
            corpus.starts.push(before + features.steps);
            corpus.transcripts.push(symbols);
        }
        if short > 0 {
            let all = examples.streams.len();
            eprintln!("{short} of {all} streams have too few steps for their transcript and are left out");
        }
        Ok(corpus)
    }
}

/// A stream and what it reads as.
type Read = (Features, String);

/// Dev streams with what they read as.
pub(super) struct DevTranscripts {
    /// The longest first.
    streams: Vec<Read>,
    transcriber: Option<Transcriber>,
    labels: Vec<String>,
}

impl DevTranscripts {
    pub fn new(examples: &Examples, encoder: &Encoder, spec: &ModelSpec) -> Result<DevTranscripts, TrainError> {
        let (mut streams, mut units) = (Vec::new(), Vec::new());
        for (content, transcript, _) in &examples.streams {
            let mut features = Features::default();
            content.encode(encoder, &mut units, &mut features).map_err(|e| unreadable(content, transcript, &e))?;
            units.clear();
            streams.push((features, words(transcript).join(SPACE)));
        }
        streams.sort_by_key(|(features, _)| std::cmp::Reverse(features.steps));
        // A beam is for the finished model; epochs are told apart without.
        let transcriber = Transcriber::new(&ModelSpec { decode: None, ..spec.clone() });
        Ok(DevTranscripts { streams, transcriber, labels: spec.labels.clone() })
    }

    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    pub fn score(&self, net: &Network, threads: usize) -> DevScore {
        let mut groups: Vec<(&[Read], [Edits; 2])> =
            self.streams.chunks(LANES).map(|group| (group, Default::default())).collect();
        for_each(threads, groups.iter_mut().collect(), |(group, edits)| {
            let streams: Vec<&Features> = group.iter().map(|(features, _)| features).collect();
            for ((_, gold), p) in group.iter().zip(probabilities(net, &streams)) {
                let classes = self.transcriber.as_ref().map_or(Vec::new(), |transcriber| transcriber.transcribe(&p));
                let given = joined(&self.labels, classes.iter().map(|&class| self.labels[class as usize].as_str()));
                let characters = |text: &str| text.chars().collect::<Vec<char>>();
                edits[0] += Edits::between(&characters(gold), &characters(&given));
                edits[1] += Edits::between(&words(gold), &words(&given));
            }
        });
        let mut all = [Edits::default(); 2];
        groups.iter().for_each(|(_, edits)| (0..2).for_each(|k| all[k] += edits[k]));
        let errors = all.map(|edits| edits.rate());
        DevScore { accuracy: 1.0 - errors[0], errors: Some(errors), ..DevScore::default() }
    }
}
