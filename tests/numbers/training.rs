//! Whole trainings on small made-up data: the same weights for any number of threads and after an interruption, a model
//! that has learnt, the files a run leaves.

use std::path::Path;
use strand::model::Model;
use strand::rnn::{Cell, LayerSpec};
use strand::train::trainer::train_until;
use strand::train::{Recipe, TrainReport, train};

/// Sentences whose names can only be told by the word before them ("Mr X" is a person, "in X" a place).
fn corpus(path: &Path, sentences: usize, seed: u64) {
    let mut random = seed;
    let mut pick = |n: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize % n
    };
    let mut text = String::new();
    for _ in 0..sentences {
        for _ in 0..2 + pick(3) {
            let name = format!("{}{}", ["Ab", "Dor", "Kel", "Nim"][pick(4)], ["a", "ek", "ius", "or"][pick(4)]);
            match pick(4) {
                0 => text.push_str(&format!("Mr\tO\n{name}\tB-PER\n{name}\tI-PER\n")),
                1 => text.push_str(&format!("in\tO\n{name}\tB-LOC\n")),
                _ => text.push_str(&format!("{}\tO\n", ["walks", "and", "sees", "the", "sea", "7"][pick(6)])),
            }
        }
        text.push_str(".\tO\n\n");
    }
    std::fs::write(path, text).unwrap();
}

/// The recipe of these tests, with some keys of `[train]` changed.
fn recipe(dir: &Path, name: &str, changes: &str) -> Recipe {
    let (train, dev) = (dir.join("train.tsv"), dir.join("dev.tsv"));
    if !train.exists() {
        corpus(&train, 1500, 1);
        corpus(&dev, 60, 2);
    }
    let text = format!(
        r#"
        layers = [{{ cell = "lstm", hidden = 16 }}, {{ cell = "gru", hidden = 12 }}]
        [output]
        dir = "{0}/{name}"
        run = "{0}/{name}-run"
        name = "{name}"
        [task]
        kind = "tag"
        scheme = "bio"
        [data]
        train = ["{1}"]
        dev = ["{2}"]
        [encoder]
        kind = "words"
        word_dim = 8
        char_dim = 6
        char_hidden = 8
        shape_dim = 3
        [train]
        epochs = 4
        batch = 12
        chunk = 10
        lr = 0.01
        warmup = 5
        dropout_input = 0.1
        dropout_layers = 0.1
        ema = 0.9
        "#,
        dir.display(),
        train.display(),
        dev.display()
    );
    let changes: Vec<String> = changes.lines().map(|change| format!("train.{change}")).collect();
    Recipe::parse(&text, &changes.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
}

fn run(recipe: &Recipe, resume: bool) -> (TrainReport, Vec<u8>) {
    let report = train(recipe, resume).unwrap();
    (report, std::fs::read(recipe.output.dir.join("weights.safetensors")).unwrap())
}

#[test]
fn the_same_seed_gives_the_same_weights_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let (report, one) = run(&recipe(dir.path(), "one", "threads=1"), false);
    let (_, three) = run(&recipe(dir.path(), "one", "threads=3"), false);
    let (_, other) = run(&recipe(dir.path(), "one", "seed=2"), false);
    assert!(one == three, "three threads give other weights than one");
    assert!(one != other, "another seed gives the same weights");
    let best = report.best.unwrap();
    assert!(best.f1.unwrap() > 0.9 && best.endless.unwrap() > 0.9, "{best}");
}

/// The recipe with other cells and all options.
fn recipe_with_options(dir: &Path) -> Recipe {
    let mut recipe = recipe(dir, "options", "");
    let layers = [(Cell::LstmPeephole, false), (Cell::GruSimplified, true), (Cell::LstmPeephole, true)];
    recipe.layers =
        layers.map(|(cell, residual)| LayerSpec { residual, layer_norm: true, ..LayerSpec::new(cell, 16) }).to_vec();
    recipe
}

#[test]
fn residual_and_normalised_layers_learn_and_train_the_same_on_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let mut recipe = recipe_with_options(dir.path());
    recipe.train.threads = 1;
    let (report, one) = run(&recipe, false);
    recipe.train.threads = 3;
    let (_, three) = run(&recipe, false);
    assert!(one == three, "three threads give other weights than one");
    let best = report.best.unwrap();
    assert!(best.f1.unwrap() > 0.9 && best.endless.unwrap() > 0.9, "{best}");
    let model = Model::load(&recipe.output.dir).unwrap();
    assert_eq!(model.spec().layers, recipe.layers);
}

#[test]
fn a_resumed_training_ends_at_the_same_weights() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, uninterrupted) = run(&recipe(dir.path(), "a", ""), false);
    let mut stopped = recipe(dir.path(), "b", "");
    stopped.output.name = "a".into();
    train_until(&stopped, false, 2).unwrap();
    let (resumed, weights) = run(&stopped, true);
    assert!(weights == uninterrupted, "the resumed training has other weights");
    assert_eq!((resumed.best, resumed.best_epoch), (whole.best, whole.best_epoch));
    let epochs = std::fs::read_to_string(dir.path().join("b-run/epochs.csv")).unwrap();
    assert_eq!(epochs.lines().count(), 1 + 4, "{epochs}");
    stopped.train.lr = 0.5;
    let error = train(&stopped, true).unwrap_err().to_string();
    assert!(error.contains("another recipe"), "{error}");
}

#[test]
fn a_run_leaves_logs_pictures_and_a_model_that_loads() {
    let dir = tempfile::tempdir().unwrap();
    let recipe = recipe(dir.path(), "m", "clip_norm=0.05\nclip_value=0.01\nepochs=2");
    train(&recipe, false).unwrap();
    let model = Model::load(&dir.path().join("m")).unwrap();
    assert_eq!(model.spec().labels, ["O", "B-LOC", "B-PER", "I-PER"]);
    let read = |name: &str| std::fs::read_to_string(dir.path().join("m-run").join(name)).unwrap();
    let steps = read("steps.csv");
    assert!(steps.lines().skip(1).any(|l| l.split(',').nth(5) == Some("1")), "clipping by norm is logged");
    assert!(steps.lines().skip(1).any(|l| l.split(',').nth(6) != Some("0")), "clipping by value is logged");
    assert_eq!(read("gradient_flow.csv").lines().count(), 1 + 2 * 2 * 10, "two epochs, two layers, ten steps back");
    for picture in ["curves.svg", "gradients.svg"] {
        assert!(read(picture).contains("</svg>"), "{picture}");
    }
    let card = std::fs::read_to_string(dir.path().join("m/README.md")).unwrap();
    assert!(card.contains("train.tsv") && card.contains("F1"), "{card}");
}

#[test]
fn what_a_recipe_gets_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let error = |changes: &str| train(&recipe(dir.path(), "e", changes), false).unwrap_err().to_string();
    assert_eq!(error("word_dropout=1.5"), "train.word_dropout = 1.5: must be at least 0 and below 1");
    assert_eq!(error("chunk=0"), "train.chunk = 0: must be at least 1");
    assert!(error("class_weights={ \"B-GPE\" = 2.0 }").contains("B-GPE"));
    let mut narrow = recipe_with_options(dir.path());
    narrow.layers[1].hidden = 12;
    let error_of = |recipe: &Recipe| train(recipe, false).unwrap_err().to_string();
    let narrow = error_of(&narrow);
    assert!(narrow.contains("layer 1: residual = true") && narrow.contains("16 numbers, hidden = 12"), "{narrow}");
    let mut missing = recipe(dir.path(), "e", "");
    missing.data.train = vec![toml::Value::from("none.tsv").try_into().unwrap()];
    let error = error_of(&missing);
    assert!(error.contains("none.tsv"), "{error}");
}
