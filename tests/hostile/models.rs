//! Model directories.
//!
//! Bytes: the model that is changed, whether weights are made to fit, then files, each after a line `==== name`; what
//! is before the first is `model.toml`. Files that are not given are those of the model.

use super::{Choices, formats, memory};
use std::path::Path;
use std::sync::Arc;
use strand::encode::{Encoder, InputFormat};
use strand::model::params::{NetShape, Params};
use strand::model::testing::{TEXT, random_model};
use strand::model::{Model, ModelSpec, Session};
use strand::rnn::matrix::Precision;

const NAMES: [&str; 6] = ["model.toml", "weights.safetensors", "words.txt", "chars.txt", "events.txt", "lexicon.tsv"];

/// What a directory's bytes may take, each: a matrix of one column takes 32 when its panels are filled up, and it is
/// held as it was read, as tensors and packed.
const FACTOR: usize = 48;
/// The TOML parser collects errors up to a number before it tells the first.
const FIXED: usize = 2 << 20;
/// What labelling may take whatever the model: the rows of a window through the widest layer, a few times.
const WINDOW: usize = 96 << 20;
/// Numbers in weights that are made to fit.
const MOST_NUMBERS: u128 = 200_000;

thread_local! {
    static BASES: Vec<Vec<(&'static str, Vec<u8>)>> = formats::specs().map(base).collect();
    static PLACE: tempfile::TempDir = tempfile::tempdir().unwrap();
}

/// The files of a tiny model. `model.toml` does not say what their fingerprint must be: no change would pass.
fn base(spec: ModelSpec) -> Vec<(&'static str, Vec<u8>)> {
    let dir = tempfile::tempdir().unwrap();
    random_model(dir.path(), &spec, TEXT, 7).unwrap();
    let place = dir.path().join(NAMES[0]);
    let text = std::fs::read_to_string(&place).unwrap();
    let text: String = text.split_inclusive('\n').filter(|line| !line.starts_with("fingerprint")).collect();
    std::fs::write(&place, text).unwrap();
    let read = |name: &'static str| std::fs::read(dir.path().join(name)).ok().map(|bytes| (name, bytes));
    NAMES.into_iter().filter_map(read).collect()
}

/// A directory is a model or is refused with words; neither takes memory that its bytes don't justify, and a model
/// labels whatever its shapes are.
pub fn check(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let which = choices.byte();
    let fits = choices.below(2) == 1;
    let body = choices.rest();
    BASES.with(|bases| {
        PLACE.with(|place| {
            let mut files = bases[usize::from(which) % bases.len()].clone();
            for (name, content) in sections(body) {
                files.retain(|(other, _)| *other != name);
                files.push((name, content.to_vec()));
            }
            NAMES.iter().for_each(|name| drop(std::fs::remove_file(place.path().join(name))));
            files.iter().for_each(|(name, content)| std::fs::write(place.path().join(name), content).unwrap());
            if fits {
                fit(place.path());
            }
            model(place.path());
        });
    });
}

/// Files between lines `==== name`. Names that are none are passed over.
fn sections(body: &[u8]) -> Vec<(&'static str, &[u8])> {
    const MARK: &[u8] = b"\n==== ";
    let mut found = Vec::new();
    let (mut name, mut rest) = (NAMES[0], body);
    loop {
        let end = rest.windows(MARK.len()).position(|window| window == MARK);
        let content = &rest[..end.unwrap_or(rest.len())];
        if !content.is_empty() {
            found.push((name, content));
        }
        let Some(end) = end else { return found };
        rest = &rest[end + MARK.len()..];
        let line = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        name = NAMES.into_iter().find(|name| name.as_bytes() == &rest[..line]).unwrap_or("unknown");
        rest = &rest[(line + 1).min(rest.len())..];
        if name == "unknown" {
            name = NAMES[0];
        }
    }
}

/// Gives the directory weights in the shapes that `model.toml` asks for, if they are not too many.
fn fit(dir: &Path) {
    let Ok(spec) = ModelSpec::load(dir) else { return };
    let Ok(encoder) = Encoder::load(&spec.encoder, dir) else { return };
    let encoder = encoder.with_classes(spec.stream_classes().len());
    let Ok(shape) = NetShape::of(&spec, encoder.layout()) else { return };
    if numbers(&shape) <= MOST_NUMBERS {
        let mut rng = <rand_chacha::ChaCha8Rng as rand::SeedableRng>::seed_from_u64(7);
        Params::<f32>::random(&shape, &mut rng).save(&dir.join("weights.safetensors"), Precision::F32).unwrap();
    }
}

fn numbers(shape: &NetShape) -> u128 {
    let of = |a: usize, b: usize| a as u128 * b as u128;
    // The most that any option adds: peepholes, and weight and bias of a normalisation.
    let layer = |gates: usize, input: usize, hidden: usize| of(gates * hidden, input + hidden + 2) + of(5, hidden);
    let tables: u128 = shape.tables.iter().map(|table| of(table.rows, table.dim)).sum();
    let chars = shape
        .chars
        .as_ref()
        .map_or(0, |c| of(c.rows, c.dim) + c.directions() as u128 * layer(c.cell.gates(), c.dim, c.hidden));
    let layers = (shape.layers.iter().enumerate())
        .map(|(k, l)| l.directions() as u128 * layer(l.cell.gates(), shape.layer_input(k), l.hidden));
    let tails = shape.language.iter().flat_map(|softmax| {
        (0..softmax.clusters()).map(|i| of(softmax.narrow(i, shape.top()), shape.top() + softmax.cluster(i).len()))
    });
    let crf = if shape.crf { of(shape.classes, shape.classes + 2) } else { 0 };
    tables
        + chars
        + layers.sum::<u128>()
        + of(shape.classes, shape.top() + 1)
        + tails.sum::<u128>()
        + crf
        + of(shape.written.classes, shape.top())
}

fn model(dir: &Path) {
    let size = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().metadata().unwrap().len() as usize;
    let bytes: usize = std::fs::read_dir(dir).unwrap().map(size).sum();
    let limit = FACTOR * bytes + FIXED;
    let model = match memory::within(limit, || Model::load(dir)) {
        Ok(model) => Arc::new(model),
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let width = model.encoder().layout().dense;
    let piece = match formats::format_of(&model) {
        InputFormat::Text => "Ada Lovelace met Charles-Babbage in London, 1833. ".repeat(20),
        InputFormat::Dna => "acgtn".repeat(200),
        InputFormat::Tokens => serde_json::json!(vec!["met"; 1000]).to_string(),
        InputFormat::Notes => serde_json::json!(vec![[(); 0]; 1000]).to_string(),
        InputFormat::Vector => serde_json::json!(vec![vec![0.5; width]; 20_000 / width]).to_string(),
    };
    let mut session = memory::within(limit, || Session::new(&model));
    session.push(&model, formats::format_of(&model), piece.as_bytes()).unwrap();
    session.finish_unit(&model).unwrap();
    memory::within(limit + WINDOW, || formats::step(&model, &mut session));
    let mut state = Vec::new();
    session.encode(&model, &mut state);
    // Of a step that waits: its bounds, its text, a probability for each label.
    let waits = session.undecided() * (64 + 4 * model.spec().labels.len());
    assert!(state.len() <= bytes + waits, "a state of {} bytes, by files of {bytes}", state.len());
    let restored = Session::decode(&model, &state).unwrap();
    let mut again = Vec::new();
    restored.encode(&model, &mut again);
    assert_eq!(again, state);
}
