//! The data of a language model: streams without labels, of which each unit is told from those before it; and what dev
//! says of a model.

use super::TrainError;
use super::corpus::{Corpus, Examples};
use super::network::NO_TARGET;
use super::parallel::for_each;
use super::recipe::{DataFormat, FileTable, Recipe};
use crate::data::{self, Content, DataError, Source};
use crate::encode::{Encoder, EncoderSpec, Features, InputFormat};
use crate::model::adaptive::UnitScratch;
use crate::model::network::{Lane, Network, Scratch};

/// Units of dev that are scored in one piece, and units before it that only run forwards (but for the stream's start).
const PIECE: usize = 1000;
const BEFORE: usize = 250;
/// Pieces that are stepped together.
const LANES: usize = 16;

impl Examples {
    /// Streams without labels.
    pub(super) fn unlabelled(&mut self, recipe: &Recipe, table: &FileTable) -> Result<(), TrainError> {
        let path = recipe.data.resolve(&table.path);
        let events = matches!(recipe.encoder, EncoderSpec::Events(_));
        if table.range.is_some() && recipe.data.format != DataFormat::Text {
            return Err(TrainError::recipe("data range = [from, to] is for data.format = \"text\""));
        }
        let streams = match recipe.data.format {
            DataFormat::Jsonl => json_lines(&path)?,
            DataFormat::Lines => lines(&path, events)?,
            DataFormat::Conll => {
                let (mut reader, mut all) = (data::ConllReader::new(Source::open(&path)?), Vec::new());
                while let Some(tokens) = reader.tokens()? {
                    all.push(Content::Tokens(tokens));
                }
                all
            }
            _ => vec![text(&path, table.range, events)?],
        };
        for _ in 0..table.repeat {
            self.streams.extend(streams.iter().map(|content| (content.clone(), String::new(), table.weight)));
        }
        Ok(())
    }
}

/// Each line a stream, blank ones passed over.
fn lines(path: &std::path::Path, events: bool) -> Result<Vec<Content>, DataError> {
    let (mut lines, mut line, mut all) = (data::Lines::new(Source::open(path)?), String::new(), Vec::new());
    while lines.next_into(&mut line)? {
        if !line.trim().is_empty() {
            all.push(content(line.clone(), events));
        }
    }
    Ok(all)
}

/// Each record a stream; labels and the names of streams are not looked at.
fn json_lines(path: &std::path::Path) -> Result<Vec<Content>, DataError> {
    let (mut reader, mut all) = (data::JsonlReader::open(path)?, Vec::new());
    while let Some(record) = reader.record()? {
        match (record.text, record.tokens) {
            (Some(text), None) => all.push(content(text, false)),
            (None, Some(tokens)) => all.push(Content::Tokens(tokens)),
            _ => return Err(reader.error("expected one of the keys `text`, `tokens`")),
        }
    }
    Ok(all)
}

/// The whole file one stream, or characters `range` of it.
fn text(path: &std::path::Path, range: Option<[usize; 2]>, events: bool) -> Result<Content, DataError> {
    let whole = data::read_text(path)?;
    let Some([from, to]) = range else { return Ok(content(whole, events)) };
    match data::characters(&whole, from..to) {
        Some(part) => Ok(content(part.to_string(), events)),
        None => Err(DataError::File {
            name: path.display().to_string(),
            detail: format!("characters {from}..{to} are no part of its {}", whole.chars().count()),
        }),
    }
}

fn content(text: String, events: bool) -> Content {
    match events {
        true => Content::Tokens(text.split_whitespace().map(str::to_string).collect()),
        false => Content::Bytes(InputFormat::Text, text.into_bytes()),
    }
}

impl Corpus {
    /// Encodes the streams; the target of each row is the unit after it.
    ///
    /// # Errors
    /// When the encoder cannot read a stream.
    pub fn of_units(examples: &Examples, encoder: &Encoder) -> Result<Corpus, TrainError> {
        let mut corpus = Corpus { starts: vec![0], of_units: true, ..Corpus::default() };
        let (mut units, tables) = (Vec::new(), encoder.layout().tables.len());
        for (content, _, weight) in &examples.streams {
            content
                .encode(encoder, &mut units, &mut corpus.features)
                .map_err(|e| super::corpus::unreadable(content, "", &e))?;
            units.clear();
            let (first, end) = (corpus.targets.len(), corpus.features.steps);
            if first == end {
                continue; // Nothing to read: not even a word.
            }
            corpus.targets.extend((first + 1..end).map(|row| corpus.features.ids[row * tables]));
            corpus.targets.push(NO_TARGET);
            corpus.weights.resize(end, *weight);
            corpus.starts.push(end);
        }
        Ok(corpus)
    }

    /// The unit of a row, of a language model.
    pub fn unit(&self, row: usize) -> u32 {
        let tables = self.features.ids.len() / self.rows().max(1);
        self.features.ids[row * tables]
    }
}

/// Rows that are stepped together, and how many of them are there only to be read.
type DevPiece = (Features, usize);

/// The dev set of a language model, cut into pieces that are stepped side by side.
pub struct DevUnits {
    pieces: Vec<DevPiece>,
    tables: usize,
}

impl DevUnits {
    /// # Errors
    /// When the encoder cannot read a stream.
    pub fn new(examples: &Examples, encoder: &Encoder) -> Result<DevUnits, TrainError> {
        let corpus = Corpus::of_units(examples, encoder)?;
        let mut pieces = Vec::new();
        for stream in corpus.starts.windows(2) {
            for from in (stream[0]..stream[1]).step_by(PIECE) {
                let first = from.saturating_sub(BEFORE).max(stream[0]);
                let mut rows = Features::default();
                rows.append_range(&corpus.features, first, (from + PIECE).min(stream[1]), encoder.layout());
                pieces.push((rows, from - first));
            }
        }
        pieces.sort_by_key(|(rows, _)| std::cmp::Reverse(rows.steps));
        Ok(DevUnits { pieces, tables: encoder.layout().tables.len() })
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// -ln P of every unit, in nats. Those of a piece are told from at least 250 units before them, not from all of the
    /// stream.
    pub fn surprises(&self, net: &Network, threads: usize) -> Vec<f32> {
        let mut groups: Vec<(&[DevPiece], Vec<f32>)> =
            self.pieces.chunks(LANES).map(|group| (group, Vec::new())).collect();
        for_each(threads, groups.iter_mut().collect(), |(group, out)| self.group(net, group, out));
        groups.into_iter().flat_map(|(_, surprises)| surprises).collect()
    }

    fn group(&self, net: &Network, group: &[DevPiece], out: &mut Vec<f32>) {
        let top = net.shape().top();
        let mut states = vec![vec![0.0; net.state_len()]; group.len()];
        let mut outputs = vec![Vec::new(); group.len()];
        let mut lanes: Vec<Lane<'_>> = (group.iter().zip(&mut states).zip(&mut outputs))
            .map(|(((features, _), state), probabilities)| Lane { features, state, probabilities })
            .collect();
        net.outputs_range(&mut lanes, 0..usize::MAX, &mut Scratch::default());
        let mut scratch = UnitScratch::default();
        for ((features, before), outputs) in group.iter().zip(outputs) {
            let mut x = Vec::with_capacity(outputs.len());
            if *before == 0 {
                x.extend_from_slice(net.start());
            }
            x.extend_from_slice(&outputs[before.saturating_sub(1) * top..(features.steps - 1) * top]);
            let units: Vec<u32> = features.ids.iter().step_by(self.tables).skip(*before).copied().collect();
            net.surprises(&x, &units, &mut scratch, out);
        }
    }
}

/// The surprise that a share `quantile` of all is not above.
pub fn quantile(mut surprises: Vec<f32>, quantile: f64) -> f64 {
    surprises.sort_by(f32::total_cmp);
    let at = (quantile * surprises.len() as f64).ceil() as usize;
    surprises.get(at.max(1) - 1).map_or(0.0, |&nats| f64::from(nats))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_surprises_is_above_the_quantile() {
        let surprises: Vec<f32> = (0..1000).rev().map(|k| k as f32).collect();
        assert_eq!(quantile(surprises.clone(), 0.99), 989.0, "ten are above");
        assert_eq!((quantile(surprises.clone(), 1.0), quantile(surprises, 0.0)), (999.0, 0.0));
        assert_eq!(quantile(Vec::new(), 0.5), 0.0);
    }
}
