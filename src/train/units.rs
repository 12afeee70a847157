//! The data of a language model: streams without labels, of which each unit is told from those before it; and what dev
//! says of a model.

use super::TrainError;
use super::corpus::{Corpus, Examples};
use super::network::NO_TARGET;
use super::parallel::for_each;
use super::recipe::{DataFormat, FileTable, Recipe};
use crate::data::{self, Content, DataError, Source};
use crate::encode::{Chord, Encoder, EncoderSpec, Features, InputFormat, Layout, NoteSpec, ReaderState};
use crate::model::adaptive::UnitScratch;
use crate::model::network::{Lane, Network, Scratch};
use crate::model::notes::WrittenShape;
use crate::model::{ModelSpec, Task};

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
        if table.transpose.is_some_and(|[from, to]| from > to || to - from > 24) {
            return Err(TrainError::recipe(
                "data transpose = [from, to]: from at most to, 24 semitones in all at most",
            ));
        }
        let mut streams: Vec<(Content, String)> = match recipe.data.format {
            DataFormat::Jsonl => {
                let labelled = recipe.task.kind == Task::Generate;
                let mut all = json_lines(&path)?;
                all.iter_mut().filter(|_| !labelled).for_each(|(_, label)| label.clear());
                all
            }
            DataFormat::Lines => without_labels(lines(&path, events)?),
            DataFormat::Conll => {
                let (mut reader, mut all) = (data::ConllReader::new(Source::open(&path)?), Vec::new());
                while let Some(tokens) = reader.tokens()? {
                    all.push(Content::Tokens(tokens));
                }
                without_labels(all)
            }
            _ => without_labels(vec![text(&path, table.range, events)?]),
        };
        if let (Some([from, to]), EncoderSpec::Notes(notes)) = (table.transpose, &recipe.encoder) {
            let given = std::mem::take(&mut streams);
            for (content, label) in &given {
                let moved = (from..=to).filter_map(|by| transposed(content, by, notes));
                streams.extend(moved.map(|content| (content, label.clone())));
            }
        } else if table.transpose.is_some() {
            return Err(TrainError::recipe("data transpose = [from, to] is for encoder.kind = \"notes\""));
        }
        for _ in 0..table.repeat {
            self.streams.extend(streams.iter().map(|(content, label)| (content.clone(), label.clone(), table.weight)));
        }
        Ok(())
    }
}

fn without_labels(streams: Vec<Content>) -> Vec<(Content, String)> {
    streams.into_iter().map(|content| (content, String::new())).collect()
}

/// A sequence of notes so many semitones higher; none if that leaves the model's pitches, or it is no such sequence (which
/// the encoder says of the one that is not moved).
fn transposed(content: &Content, by: i32, notes: &NoteSpec) -> Option<Content> {
    let Content::Bytes(InputFormat::Notes, bytes) = content else { return None };
    if by == 0 {
        return Some(content.clone());
    }
    let chords: Vec<Chord> = serde_json::from_slice(bytes).ok()?;
    let moved = chords.into_iter().map(|chord| chord.transposed(by, notes.lowest..=notes.highest));
    let moved: Vec<String> = moved.map(|chord| chord.map(Chord::json)).collect::<Option<_>>()?;
    Some(Content::Bytes(InputFormat::Notes, format!("[{}]", moved.join(",")).into_bytes()))
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

/// Each record a stream, with its `label`, if it has one; labels of tokens and the names of streams are not looked at.
fn json_lines(path: &std::path::Path) -> Result<Vec<(Content, String)>, DataError> {
    let (mut reader, mut all) = (data::JsonlReader::open(path)?, Vec::new());
    while let Some(record) = reader.record()? {
        let label = record.label_text().unwrap_or_default();
        match (record.text, record.tokens, record.notes) {
            (Some(text), None, None) => all.push((content(text, false), label)),
            (None, Some(tokens), None) => all.push((Content::Tokens(tokens), label)),
            (None, None, Some(notes)) => {
                all.push((Content::Bytes(InputFormat::Notes, notes.to_string().into_bytes()), label));
            }
            _ => return Err(reader.error("expected one of the keys `text`, `tokens`, `notes`")),
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
    pub fn of_units(examples: &Examples, encoder: &Encoder, spec: &ModelSpec) -> Result<Corpus, TrainError> {
        let classes = spec.stream_classes();
        let written = WrittenShape::of(spec);
        let pitches = encoder.layout().dense - classes.len();
        let mut corpus = Corpus { starts: vec![0], of_units: true, ..Corpus::default() };
        let (mut units, tables) = (Vec::new(), encoder.layout().tables.len());
        for (content, label, weight) in &examples.streams {
            let mut state = ReaderState::default();
            match classes.iter().position(|class| class == label) {
                Some(class) => state.set_class(class as u16),
                None if classes.is_empty() => {}
                None => {
                    return Err(TrainError::recipe(format!("the label {label:?} is none of the classes {classes:?}")));
                }
            }
            content
                .encode_from(state, encoder, &mut units, &mut corpus.features)
                .map_err(|e| super::corpus::unreadable(content, label, &e))?;
            units.clear();
            let (first, end) = (corpus.targets.len(), corpus.features.steps);
            if first == end {
                continue; // Nothing to read: not even a word.
            }
            match written.notes {
                Some(lowest) => {
                    let columns = (first..end).map(|row| &corpus.features.dense_of(row, encoder.layout())[..pitches]);
                    corpus.chords.extend(columns.map(|columns| Chord::of_columns(columns, lowest)));
                    corpus.targets.resize(end - 1, 0);
                }
                None => corpus.targets.extend((first + 1..end).map(|row| corpus.features.ids[row * tables])),
            }
            corpus.targets.push(NO_TARGET);
            corpus.weights.resize(end, *weight);
            corpus.starts.push(end);
        }
        Ok(corpus)
    }

    /// The unit of a row, of a language model; 0 where steps are notes.
    pub fn unit(&self, row: usize) -> u32 {
        if !self.chords.is_empty() {
            return 0;
        }
        let tables = self.features.ids.len() / self.rows().max(1);
        self.features.ids[row * tables]
    }
}

/// Rows that are stepped together, and how many of them are there only to be read.
type DevPiece = (Features, usize);

/// The dev set of a language model, cut into pieces that are stepped side by side.
pub struct DevUnits {
    pieces: Vec<DevPiece>,
    layout: Layout,
}

impl DevUnits {
    /// # Errors
    /// When the encoder cannot read a stream.
    pub fn new(examples: &Examples, encoder: &Encoder, spec: &ModelSpec) -> Result<DevUnits, TrainError> {
        let corpus = Corpus::of_units(examples, encoder, spec)?;
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
        Ok(DevUnits { pieces, layout: encoder.layout().clone() })
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
                let columns = features.dense_of(0, &self.layout);
                x.extend_from_slice(net.start(net.shape().written.class_of(columns)));
            }
            x.extend_from_slice(&outputs[before.saturating_sub(1) * top..(features.steps - 1) * top]);
            if let Some(lowest) = net.shape().written.notes {
                let columns = (*before..features.steps).map(|row| features.dense_of(row, &self.layout));
                let columns = columns.map(|columns| &columns[..net.shape().classes]);
                let chords: Vec<Chord> = columns.map(|columns| Chord::of_columns(columns, lowest)).collect();
                net.surprises_of_chords(&x, &chords, lowest, out);
                continue;
            }
            let units: Vec<u32> =
                features.ids.iter().step_by(self.layout.tables.len()).skip(*before).copied().collect();
            net.surprises(&x, &units, &mut scratch, out);
        }
    }
}

/// A threshold that a share `quantile` of all surprises is not above: in the middle of the widest gap from the one at the quantile on
/// to where half as many are left above. Units in like places are as surprising as each other but for rounding, so that a
/// threshold right at the quantile may cut through many of them, and another precision of the weights moves it to their other side.
pub fn threshold(mut surprises: Vec<f32>, quantile: f64) -> f64 {
    surprises.sort_by(f32::total_cmp);
    let at = ((quantile * surprises.len() as f64).ceil() as usize).max(1) - 1;
    let Some(&least) = surprises.get(at) else { return 0.0 };
    // Those that are as surprising as the one at the quantile are not above it.
    let above = surprises.len() - surprises.partition_point(|&nats| nats <= least);
    let candidates = &surprises[at..surprises.len() - above / 2];
    let gaps = candidates.windows(2).map(|pair| (pair[1] - pair[0], f64::from(pair[0])));
    let widest = gaps.max_by(|a, b| a.0.total_cmp(&b.0));
    widest.map_or(f64::from(least), |(gap, from)| from + f64::from(gap) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_surprises_is_above_the_quantile() {
        let surprises: Vec<f32> = (0..1000).rev().map(|k| k as f32).collect();
        assert_eq!(threshold(surprises.clone(), 0.99), 993.5, "of ten above 989, six are left");
        assert_eq!((threshold(surprises.clone(), 1.0), threshold(surprises, 0.0)), (999.0, 499.5));
        assert_eq!(threshold(Vec::new(), 0.5), 0.0);
        assert_eq!(threshold(vec![2.0], 0.5), 2.0);
    }

    #[test]
    fn a_threshold_keeps_away_from_units_that_are_alike() {
        let near = |nats: f32, n: u32| (0..n).map(move |k| nats + k as f32 * 1e-5);
        let mut surprises: Vec<f32> = near(0.1, 980).collect();
        // The quantile is the third of ten that are as good as the same.
        surprises.extend(near(2.7, 10).chain([2.75, 3.0, 3.01, 3.02, 5.0, 5.1, 5.2, 5.3, 9.0, 9.1]));
        let found = threshold(surprises, 0.983);
        assert!((found - 2.875).abs() < 1e-6, "{found}");
    }
}
