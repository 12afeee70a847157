//! Training and dev data as network input: read once, encoded once, then gathered into batches.

use super::network::NO_TARGET;
use super::recipe::{DataFormat, DataSpec, FileSpec, FileTable, GenomeTable, Recipe};
use super::{TrainError, beside};
use crate::data::{self, Content, DnaScheme, LabelAt, Sentence};
use crate::encode::{Chord, Encoder, EncoderSpec, Features, InputError, ReaderState};
use crate::model::spec::SURPRISE_LABELS;
use crate::model::transcribe::BLANK_LABEL;
use crate::model::{ClassifySpec, LanguageSpec, ModelSpec, Scheme, Task};
use crate::model::{GenerateSpec, generate};
use crate::rnn::matrix::Precision;
use std::collections::BTreeSet;
use std::path::Path;

/// Sentences (or sequences) with their labels, still as text.
pub struct Examples {
    /// Each with the weight of its file.
    pub sentences: Vec<(Sentence, f32)>,
    /// Bases and the class of each, for genomes.
    pub sequences: Vec<(Vec<u8>, Vec<u8>, f32)>,
    /// Streams with one label each, for classifiers; with a transcript for transcribers.
    pub streams: Vec<(Content, String, f32)>,
}

impl Examples {
    pub fn read(recipe: &Recipe, files: &[FileSpec]) -> Result<Examples, TrainError> {
        Examples::read_with(recipe, files, false)
    }

    /// What is trained on: as the recipe asks with white space.
    pub fn read_train(recipe: &Recipe) -> Result<Examples, TrainError> {
        Examples::read_with(recipe, &recipe.data.train, recipe.data.white_space)
    }

    fn read_with(recipe: &Recipe, files: &[FileSpec], white_space: bool) -> Result<Examples, TrainError> {
        let mut examples = Examples { sentences: Vec::new(), sequences: Vec::new(), streams: Vec::new() };
        for file in files {
            match (recipe.data.format, file) {
                (DataFormat::Dna, FileSpec::Genome(g)) => examples.genome(&recipe.data, g, dna_scheme(recipe))?,
                (DataFormat::Dna, _) => {
                    return Err(TrainError::recipe("data of format \"dna\" is { genome = …, intervals = … }"));
                }
                (_, FileSpec::Path(path)) => examples.file(recipe, &file_table(path), white_space)?,
                (_, FileSpec::File(table)) => examples.file(recipe, table, white_space)?,
                (_, FileSpec::Pair(_)) => {
                    return Err(TrainError::recipe("{ source = …, target = … } needs data.format = \"pairs\""));
                }
                (_, FileSpec::Genome(_)) => {
                    return Err(TrainError::recipe("{ genome = …, intervals = … } needs data.format = \"dna\""));
                }
            }
        }
        Ok(examples)
    }

    fn file(&mut self, recipe: &Recipe, table: &FileTable, white_space: bool) -> Result<(), TrainError> {
        match recipe.task.kind {
            Task::Classify => return self.labelled(recipe, table),
            Task::LanguageModel | Task::Generate => return self.unlabelled(recipe, table),
            Task::Transcribe => return self.transcribed(recipe, table),
            Task::Tag | Task::Transduce => {}
        }
        let (path, map) = (recipe.data.resolve(&table.path), &table.map);
        let mut sentences = match recipe.data.format {
            format if matches!(recipe.encoder, EncoderSpec::Chars(_)) => {
                let json_lines = format == DataFormat::Jsonl;
                data::characters::read(&path, json_lines, white_space, recipe.task.scheme(), map)?
            }
            DataFormat::Jsonl => {
                let (mut reader, mut all) = (data::JsonlReader::open(&path)?, Vec::new());
                while let Some(mut sentence) = reader.sentence()? {
                    data::conll::normalize_labels(&mut sentence.labels, recipe.task.scheme(), map);
                    all.push(sentence);
                }
                all
            }
            _ => data::read_sentences(&path, recipe.task.scheme(), map)?,
        };
        if let Some(beside) = &table.beside {
            let (beside, none) = (recipe.data.resolve(beside), Default::default());
            let others = match recipe.encoder {
                EncoderSpec::Chars(_) => {
                    data::characters::read(&beside, false, white_space, recipe.task.scheme(), &none)?
                }
                _ => data::read_sentences(&beside, Scheme::Plain, &none)?,
            };
            beside::join(&mut sentences, &others, &path, &beside)?;
        }
        sentences.retain(|s| !s.tokens.is_empty());
        for _ in 0..table.repeat {
            self.sentences.extend(sentences.iter().map(|s| (s.clone(), table.weight)));
        }
        Ok(())
    }

    /// Streams with a label each.
    fn labelled(&mut self, recipe: &Recipe, table: &FileTable) -> Result<(), TrainError> {
        let path = recipe.data.resolve(&table.path);
        if (table.label_at == LabelAt::None) != table.label.is_some() {
            let shown = path.display();
            return Err(TrainError::recipe(format!("{shown}: label_at = \"none\" and label = \"…\" go together")));
        }
        let streams = match recipe.data.format {
            DataFormat::Jsonl => data::read_json_lines(&path)?,
            _ => data::read_lines(&path, table.label_at, matches!(recipe.encoder, EncoderSpec::Events(_)))?,
        };
        for _ in 0..table.repeat {
            self.streams.extend(streams.iter().map(|stream| {
                let label = table.map.apply(table.label.as_ref().unwrap_or(&stream.label));
                (stream.content.clone(), label, table.weight)
            }));
        }
        Ok(())
    }

    fn genome(&mut self, spec: &DataSpec, g: &GenomeTable, scheme: DnaScheme) -> Result<(), TrainError> {
        let path = spec.resolve(&g.genome);
        let intervals = data::read_intervals(&spec.resolve(&g.intervals))?;
        for sequence in data::read_sequences(&path)? {
            let none = Vec::new();
            let classes =
                data::dna_labels(intervals.get(&sequence.name).unwrap_or(&none), sequence.bases.len(), scheme);
            let whole = vec![[0, sequence.bases.len()]];
            for &[from, to] in g.ranges.as_ref().unwrap_or(&whole) {
                let (Some(bases), Some(classes)) = (sequence.bases.get(from..to), classes.get(from..to)) else {
                    let (name, len) = (path.display(), sequence.bases.len());
                    return Err(TrainError::recipe(format!("{name}: range {from}..{to} exceeds its {len} bases")));
                };
                self.sequences.push((bases.to_vec(), classes.to_vec(), g.weight));
                if g.reverse_complement {
                    let (bases, classes) = data::dna::reverse_complement(bases, classes, scheme);
                    self.sequences.push((bases, classes, g.weight));
                }
            }
        }
        Ok(())
    }

    /// The classes that a model writes by: as the recipe says, or as found; none where streams have no label.
    pub fn written_classes(&self, recipe: &Recipe) -> Result<Vec<String>, TrainError> {
        if recipe.task.kind != Task::Generate {
            return Ok(Vec::new());
        }
        let without = self.streams.iter().filter(|(_, label, _)| label.is_empty()).count();
        if without == self.streams.len() && recipe.task.labels.is_none() {
            return Ok(Vec::new());
        }
        if without > 0 {
            return Err(TrainError::recipe(format!("{without} streams have no `label`, the others have: all or none")));
        }
        Ok(self.stream_classes(recipe))
    }

    /// The classes of streams: as the recipe says, or as found, numbers by their value.
    fn stream_classes(&self, recipe: &Recipe) -> Vec<String> {
        if let Some(labels) = &recipe.task.labels {
            return labels.clone();
        }
        let found: BTreeSet<&String> = self.streams.iter().map(|(_, label, _)| label).collect();
        let mut classes: Vec<String> = found.into_iter().cloned().collect();
        if classes.iter().all(|class| class.parse::<i64>().is_ok()) {
            classes.sort_by_key(|class| class.parse::<i64>().unwrap_or_default());
        }
        classes
    }

    /// The classes of the network, `O` (or what stands for it) first, the rest in alphabetical order.
    pub fn classes(&self, recipe: &Recipe) -> Vec<String> {
        match recipe.task.kind {
            Task::Classify => return self.stream_classes(recipe),
            Task::LanguageModel => return SURPRISE_LABELS.map(String::from).to_vec(),
            Task::Generate => return generate::LABELS.map(String::from).to_vec(),
            Task::Transcribe => return self.symbols(recipe),
            Task::Transduce => return Vec::new(),
            Task::Tag => {}
        }
        if recipe.data.format == DataFormat::Dna {
            return dna_scheme(recipe).classes().iter().map(|c| c.to_string()).collect();
        }
        let found: BTreeSet<&String> = self.sentences.iter().flat_map(|(s, _)| &s.labels).collect();
        let mut classes: Vec<String> = found.into_iter().cloned().collect();
        let joined = recipe.has_labels_beside();
        classes.sort_by_key(|class| {
            let label = if joined { beside::label_of(class) } else { class };
            (label != "O", label.split_once('-').map(|(b, kind)| (kind.to_string(), b.to_string())))
        });
        classes
    }

    /// Vocabularies and all else that the encoder learns from the training text.
    pub fn learn_encoder(&self, recipe: &Recipe) -> Result<Encoder, TrainError> {
        let mut spec = recipe.encoder.clone();
        if let EncoderSpec::Words(w) = &mut spec
            && let Some(lexicon) = &mut w.lexicon
        {
            *lexicon = recipe.data.resolve(lexicon);
        }
        let texts = self.texts(&spec)?;
        let tokens = self.sentences.iter().flat_map(|(s, _)| s.tokens.iter().map(String::as_str));
        let mut tokens = tokens.chain(texts.iter().map(String::as_str));
        Encoder::learn(&spec, &mut tokens, Path::new(".")).map_err(|e| TrainError::recipe(e.to_string()))
    }

    /// The units of all labelled streams, as an encoder without a vocabulary cuts them.
    fn texts(&self, spec: &EncoderSpec) -> Result<Vec<String>, TrainError> {
        if self.streams.is_empty()
            || matches!(spec, EncoderSpec::Vector(_) | EncoderSpec::Dna(_) | EncoderSpec::Notes(_))
        {
            return Ok(Vec::new());
        }
        let mut bare = spec.clone();
        if let EncoderSpec::Words(w) = &mut bare {
            w.lexicon = None;
        }
        let cutter = Encoder::learn(&bare, &mut std::iter::empty(), Path::new("."))
            .map_err(|e| TrainError::recipe(e.to_string()))?;
        let (mut units, mut features) = (Vec::new(), Features::default());
        for (content, label, _) in &self.streams {
            features.clear();
            content.encode(&cutter, &mut units, &mut features).map_err(|e| unreadable(content, label, &e))?;
        }
        Ok(units.into_iter().map(|unit| unit.text).collect())
    }
}

/// An error about a stream that the encoder cannot read.
pub(super) fn unreadable(content: &Content, label: &str, error: &InputError) -> TrainError {
    let shown: String = match content {
        Content::Tokens(tokens) => tokens.join(" "),
        Content::Bytes(_, bytes) => String::from_utf8_lossy(bytes).into_owned(),
    };
    let shown: String = shown.chars().take(60).collect();
    TrainError::recipe(format!("the stream {shown:?} of class {label:?}: {error}"))
}

fn file_table(path: &Path) -> FileTable {
    FileTable {
        path: path.to_path_buf(),
        map: Default::default(),
        label_at: LabelAt::First,
        label: None,
        range: None,
        transpose: None,
        beside: None,
        weight: 1.0,
        repeat: 1,
    }
}

fn dna_scheme(recipe: &Recipe) -> DnaScheme {
    recipe.task.dna_labels.unwrap_or(DnaScheme::Strand)
}

/// All rows of a data set, in the order of the files.
#[derive(Debug, Default)]
pub struct Corpus {
    pub features: Features,
    /// Class of each row; for classifiers that of the stream on its last row.
    pub targets: Vec<u32>,
    pub weights: Vec<f32>,
    /// First row of each sentence or sequence, and the end.
    pub starts: Vec<usize>,
    /// Targets are the units that come next, and streams' first units are targets too.
    pub of_units: bool,
    /// The notes of each row, where steps are notes.
    pub chords: Vec<Chord>,
    /// For transcribers the symbols of each stream. The weight of its last row is the stream's.
    pub transcripts: Vec<Vec<u32>>,
}

/// Bases encoded at a time.
const PIECE: usize = 1 << 16;

impl Corpus {
    /// Encodes the examples; labels that are no class of `spec` are not scored (dev) or an error (`strict`).
    pub fn new(
        examples: &Examples,
        encoder: &Encoder,
        classes: &[String],
        class_weights: &[f32],
        strict: bool,
    ) -> Result<Corpus, TrainError> {
        let mut corpus = Corpus { starts: vec![0], ..Corpus::default() };
        let (mut units, mut state) = (Vec::new(), ReaderState::default());
        for (number, (sentence, weight)) in examples.sentences.iter().enumerate() {
            // Characters are learnt both at a stream's start and behind another sentence.
            let goes_on = strict && number % 2 == 1 && matches!(encoder.spec(), EncoderSpec::Chars(_));
            state = ReaderState { context: if goes_on { state.context } else { Vec::new() }, ..Default::default() };
            encoder.push_tokens(&mut state, &sentence.tokens, &mut units, &mut corpus.features);
            units.clear();
            for label in &sentence.labels {
                let class = classes.iter().position(|c| c == label);
                if class.is_none() && strict {
                    return Err(TrainError::recipe(format!("the label {label:?} is no class of the model")));
                }
                corpus.targets.push(class.map_or(NO_TARGET, |c| c as u32));
                corpus.weights.push(class.map_or(0.0, |c| weight * class_weights[c]));
            }
            corpus.starts.push(corpus.features.steps);
        }
        for (bases, labels, weight) in &examples.sequences {
            let mut state = ReaderState::default();
            for piece in bases.chunks(PIECE) {
                encoder
                    .push(&mut state, encoder.format(), piece, &mut units, &mut corpus.features)
                    .map_err(|e| TrainError::recipe(e.to_string()))?;
                units.clear();
            }
            corpus.targets.extend(labels.iter().map(|&c| c as u32));
            corpus.weights.extend(labels.iter().map(|&c| weight * class_weights[c as usize]));
            corpus.starts.push(corpus.features.steps);
        }
        for (content, label, weight) in &examples.streams {
            content.encode(encoder, &mut units, &mut corpus.features).map_err(|e| unreadable(content, label, &e))?;
            units.clear();
            let class = classes.iter().position(|c| c == label);
            if class.is_none() && strict {
                return Err(TrainError::recipe(format!("the label {label:?} is none of the model's: {classes:?}")));
            }
            let steps = corpus.features.steps;
            if corpus.starts.last() == Some(&steps) {
                continue; // Nothing to read: not even a word.
            }
            corpus.targets.resize(steps - 1, NO_TARGET);
            corpus.weights.resize(steps - 1, 0.0);
            corpus.targets.push(class.map_or(NO_TARGET, |c| c as u32));
            corpus.weights.push(class.map_or(0.0, |c| weight * class_weights[c]));
            corpus.starts.push(steps);
        }
        if corpus.targets.len() != corpus.features.steps {
            return Err(TrainError::recipe("labels and steps do not correspond (white space in the genome?)"));
        }
        Ok(corpus)
    }

    pub fn rows(&self) -> usize {
        self.targets.len()
    }
}

/// The model that a recipe with these classes makes.
pub fn model_spec(recipe: &Recipe, classes: &[String], encoder: &Encoder) -> ModelSpec {
    use crate::model::spec::ClassSpec;
    let framed = recipe.task.dna_labels == Some(DnaScheme::StrandFrame);
    let joined = recipe.has_labels_beside();
    let label_of = |class: &str| match joined {
        true => beside::label_of(class).to_string(),
        false => class.trim_end_matches(|c: char| framed && c.is_ascii_digit()).to_string(),
    };
    let mut labels: Vec<String> = Vec::new();
    for class in classes {
        let label = label_of(class);
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    let outside = match recipe.task.scheme() {
        Scheme::Plain => (recipe.task.kind == Task::Transcribe).then(|| BLANK_LABEL.to_string()),
        Scheme::Bio => Some("O".to_string()),
        Scheme::Runs => labels.first().cloned(),
    };
    ModelSpec {
        format: 1,
        name: recipe.output.name.clone(),
        task: recipe.task.kind,
        scheme: recipe.task.scheme(),
        labels,
        outside,
        classes: (framed || joined)
            .then(|| classes.iter().map(|c| ClassSpec { class: c.clone(), label: label_of(c) }).collect()),
        look_ahead: recipe.look_ahead,
        classify: recipe.task.pooling.map(|pooling| ClassifySpec {
            pooling,
            every: recipe.task.every,
            temperature: 1.0,
            ordinal: recipe.task.ordinal.is_some(),
        }),
        language: recipe.of_units().then(|| LanguageSpec {
            softmax: recipe.task.softmax.unwrap_or_default(),
            cutoffs: recipe.task.cutoffs.clone(),
            div_value: recipe.task.div_value.unwrap_or(4.0),
            threshold: None,
        }),
        // The classes of streams are known to the trainer.
        generate: (recipe.task.kind == Task::Generate)
            .then(|| GenerateSpec { max_steps: recipe.task.max_steps.unwrap_or(1024), ..GenerateSpec::default() }),
        decode: recipe.decode.clone(),
        genes: recipe.genes.clone(),
        encoder: encoder.spec().clone(),
        layers: recipe.layers.clone(),
        decoder: recipe.decoder.clone(),
        precision: Precision::F32,
        fingerprint: None,
        training: None,
    }
}
