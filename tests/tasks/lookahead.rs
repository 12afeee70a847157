//! Bidirectional layers with bounded look-ahead, from training to the daemon: a label is final a few steps after its own,
//! and is the same however the stream was cut, batched or interrupted.

use crate::daemon_harness;
use crate::daemon_harness::Daemon;
use crate::killed;
use crate::program;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use strand::encode::InputFormat;
use strand::model::testing::{TEXT, layers, look_ahead_spec, random_model};
use strand::model::{LookAhead, Model, ModelSpec, Output, Scheme, Session, Stepper};
use strand::rnn::Cell;
use strand::train::{Recipe, train};

const FOUR: Option<LookAhead> = Some(LookAhead { steps: 4, block: Some(2) });

fn model(look_ahead: Option<LookAhead>) -> Arc<Model> {
    let dir = tempfile::tempdir().unwrap();
    random_model(dir.path(), &look_ahead_spec("ahead", layers(&[Cell::Lstm, Cell::Gru], 9), look_ahead), TEXT, 7)
        .unwrap();
    Arc::new(Model::load(dir.path()).unwrap())
}

/// Pushes a piece and labels what is final.
fn push(model: &Arc<Model>, session: &mut Session, text: &str) -> Output {
    let mut output = Output::default();
    session.push(model, InputFormat::Text, text.as_bytes()).unwrap();
    Stepper::new(model.clone()).step(&mut [session], std::slice::from_mut(&mut output));
    output
}

fn flush(model: &Arc<Model>, session: &mut Session) -> Output {
    let mut output = Output::default();
    session.finish_unit(model).unwrap();
    Stepper::new(model.clone()).step(&mut [session], std::slice::from_mut(&mut output));
    output
}

/// Words with their labels and the scores' bits.
fn told(output: &Output) -> Vec<(String, usize, u32)> {
    output.labels.iter().map(|l| (l.text.clone(), l.label, l.score.to_bits())).collect()
}

fn in_one_pass(model: &Arc<Model>, text: &str) -> Vec<(String, usize, u32)> {
    let mut session = Session::new(model);
    let mut output = push(model, &mut session, text);
    output.labels.extend(flush(model, &mut session).labels);
    told(&output)
}

#[test]
fn a_label_is_final_at_most_so_many_steps_later() {
    for (steps, block) in [(0, 1), (1, 1), (1, 2), (4, 1), (4, 2), (4, 5), (7, 3)] {
        let model = model(Some(LookAhead { steps, block: Some(block) }));
        let (mut session, mut labelled) = (Session::new(&model), 0);
        for (read, word) in TEXT.split_whitespace().filter(|w| w.chars().all(char::is_alphabetic)).enumerate() {
            labelled += push(&model, &mut session, &format!("{word} ")).labels.len();
            let waiting = read + 1 - labelled;
            assert!(waiting <= steps, "{steps} ahead, blocks of {block}: {waiting} wait after {} words", read + 1);
            assert_eq!(waiting, session.waiting());
        }
        labelled += flush(&model, &mut session).labels.len();
        assert_eq!((session.waiting(), session.steps()), (0, labelled as u64), "a flush leaves nothing waiting");
    }
}

#[test]
fn nothing_beyond_the_look_ahead_is_seen_and_everything_within_is() {
    let model = model(FOUR);
    let words = ["Ada", "met", "Charles", "Babbage", "in", "London", "in", "June", "and", "wrote", "the", "account"];
    let first = in_one_pass(&model, &format!("{} ", words.join(" ")));
    for changed in 0..words.len() {
        let mut others = words;
        others[changed] = "Turin";
        let second = in_one_pass(&model, &format!("{} ", others.join(" ")));
        for at in 0..changed {
            // Blocks of two, each of which sees the three words after it.
            let seen = at / 2 * 2 + 1 + 3;
            assert_eq!(first[at] == second[at], changed > seen, "word {at} when word {changed} is another");
        }
    }
}

#[test]
fn what_comes_after_a_flush_does_not_reach_back() {
    let model = model(FOUR);
    let mut session = Session::new(&model);
    let mut cut = push(&model, &mut session, "Ada met Charles ");
    assert!(cut.labels.is_empty(), "they wait for what follows");
    cut.labels.extend(flush(&model, &mut session).labels);
    assert_eq!(told(&cut), in_one_pass(&model, "Ada met Charles"));
    let more = push(&model, &mut session, "Babbage in London in June ");
    assert_eq!(more.labels.len(), 2);
    assert_ne!(told(&more), in_one_pass(&model, "Babbage in London in June")[..2], "h and c go on");
}

/// What the notes show: only what follows tells whether "Teddy" is a name.
fn sentences(path: &Path, lines: usize, seed: usize) {
    let (says, surnames) = (["He said", "She said", "They said"], ["Roosevelt", "Kennedy", "Wilson", "Stone"]);
    let (was, are) = (["was a great president", "was a writer"], ["are on sale", "are soft toys"]);
    let mut text = String::new();
    for line in 0..lines {
        let pick = |n: usize, salt: usize| (line * 7919 + salt * 104729 + seed * 31 + line / 3) % n;
        let (words, labels): (String, Vec<&str>) = if line % 2 == 0 {
            let (surname, was) = (surnames[pick(4, 2)], was[pick(2, 3)]);
            (format!("{} , Teddy {surname} {was}", says[pick(3, 1)]), vec!["O", "O", "O", "B-PER", "I-PER"])
        } else {
            (format!("{} , Teddy bears {}", says[pick(3, 1)], are[pick(2, 3)]), vec![])
        };
        for (k, word) in words.split(' ').enumerate() {
            text += &format!("{word}\t{}\n", labels.get(k).unwrap_or(&"O"));
        }
        text.push('\n');
    }
    std::fs::write(path, text).unwrap();
}

fn recipe(dir: &Path, bidirectional: bool, more: &str) -> Recipe {
    let dir = dir.display();
    let text = format!(
        "layers = [{{ cell = \"lstm\", hidden = 12, bidirectional = {bidirectional} }}]\n{more}\n[output]\ndir = \"{dir}/m\"\n\
         run = \"{dir}/run\"\nname = \"m\"\n[task]\nkind = \"tag\"\nscheme = \"bio\"\n[data]\nroot = \"{dir}\"\n\
         train = [\"train.tsv\"]\ndev = [\"dev.tsv\"]\n[encoder]\nkind = \"words\"\nword_dim = 8\nchar_dim = 4\n\
         char_hidden = 4\nshape_dim = 2\n[train]\nepochs = 6\nbatch = 8\nchunk = 10\nlr = 0.02\nwarmup = 5\nema = 0.9\n\
         dropout_input = 0.1\ndropout_layers = 0.1\n"
    );
    Recipe::parse(&text, &[]).unwrap()
}

#[test]
fn only_who_looks_ahead_can_tell_teddy_roosevelt_from_teddy_bears() {
    let dir = tempfile::tempdir().unwrap();
    sentences(&dir.path().join("train.tsv"), 400, 1);
    sentences(&dir.path().join("dev.tsv"), 60, 2);
    let teddy = || {
        let model = Arc::new(Model::load(&dir.path().join("m")).unwrap());
        ["He said, Teddy Roosevelt was a great president", "He said, Teddy bears are on sale"].map(|text| {
            let labels = in_one_pass(&model, text);
            assert_eq!(labels[3].0, "Teddy");
            (model.spec().labels[labels[3].1].clone(), labels[3].2)
        })
    };
    let online = train(&recipe(dir.path(), false, ""), false).unwrap().best.unwrap();
    let [president, bears] = teddy();
    assert_eq!(president, bears, "up to there, all that it has read is the same");
    assert!(online.f1.unwrap() < 0.9, "{online}");
    for more in ["look_ahead = { steps = 1 }", "look_ahead = { steps = 4, block = 2 }", ""] {
        let ahead = train(&recipe(dir.path(), true, more), false).unwrap().best.unwrap();
        assert!(ahead.f1.unwrap() > 0.98, "{more}: {ahead}");
        let [president, bears] = teddy();
        assert_eq!((&president.0[..], &bears.0[..]), ("B-PER", "O"), "{more}");
    }
}

#[test]
fn training_is_the_same_on_any_threads() {
    let dir = tempfile::tempdir().unwrap();
    sentences(&dir.path().join("train.tsv"), 300, 1);
    sentences(&dir.path().join("dev.tsv"), 40, 2);
    let weights = |threads: &str| {
        let mut recipe = recipe(dir.path(), true, "look_ahead = { steps = 3 }");
        (recipe.train.threads, recipe.train.epochs, recipe.train.batch) = (threads.parse().unwrap(), 2, 20);
        train(&recipe, false).unwrap();
        std::fs::read(dir.path().join("m/weights.safetensors")).unwrap()
    };
    assert!(weights("1") == weights("3"));
}

#[test]
fn what_does_not_go_together_is_said() {
    let dir = tempfile::tempdir().unwrap();
    sentences(&dir.path().join("train.tsv"), 60, 1);
    sentences(&dir.path().join("dev.tsv"), 10, 2);
    let error = |both: bool, more: &str| train(&recipe(dir.path(), both, more), false).unwrap_err().to_string();
    assert!(error(false, "look_ahead = { steps = 3 }").contains("set bidirectional = true"));
    assert!(error(true, "look_ahead = { steps = 3, block = 5 }").contains("must be 1 to look_ahead.steps + 1 = 4"));
    assert!(error(true, "look_ahead = { steps = 3, block = 0 }").contains("must be 1 to"));
    assert!(error(true, "look_ahead = { steps = 100000 }").contains("at most 1024"));
}

fn place(look_ahead: Option<LookAhead>) -> program::Place {
    place_with(look_ahead_spec("ahead", layers(&[Cell::Lstm, Cell::Gru], 8), look_ahead))
}

fn place_with(spec: ModelSpec) -> program::Place {
    let place = program::Place::new();
    std::fs::create_dir(place.path("ahead")).unwrap();
    random_model(&place.path("ahead"), &spec, TEXT, 3).unwrap();
    place
}

fn command(place: &program::Place, data: &str) -> std::process::Command {
    let mut command = std::process::Command::new(daemon_harness::STRAND);
    command.args([
        "run",
        "--log-format",
        "json",
        "--http",
        "127.0.0.1:0",
        "--set",
        "pipeline.batch_records=8",
        "--model",
    ]);
    command.arg(place.path("ahead")).arg("--data-dir").arg(place.path(data));
    command
}

#[test]
fn files_are_labelled_and_scored_as_by_the_library() {
    for look_ahead in [FOUR, None] {
        let spec = look_ahead_spec("ahead", layers(&[Cell::Lstm, Cell::Gru], 8), look_ahead);
        let place = place_with(ModelSpec { scheme: Scheme::Plain, outside: None, ..spec });
        place.file("in.txt", TEXT);
        let model = Arc::new(Model::load(&place.path("ahead")).unwrap());
        let tagged = place.run(&["tag", "--model", "ahead", "in.txt", "--output", "conll"]).ok();
        let wanted: Vec<String> = in_one_pass(&model, TEXT)
            .into_iter()
            .map(|(text, label, _)| format!("{text}\t{}", model.spec().labels[label]))
            .collect();
        assert_eq!(tagged.trim_end().lines().collect::<Vec<_>>(), wanted);
        // Two sentences, of which the first's last words are labelled with the second in an endless stream.
        place.file("gold.tsv", format!("{}\n\n{}\n", wanted[..9].join("\n"), wanted[9..].join("\n")));
        let eval = |more: &[&str]| -> Value {
            let all = [&["eval", "--model", "ahead", "gold.tsv", "--json"], more].concat();
            serde_json::from_str(&place.run(&all).ok()).unwrap()
        };
        let endless = eval(&["--as", "endless"]);
        assert_eq!((&endless["accuracy"], &endless["tokens"]), (&json!(1.0), &json!(wanted.len())));
        assert_ne!(eval(&[])["accuracy"], json!(1.0), "a sentence's end hides what follows");
        let shown = place.run(&["model", "show", "ahead"]).ok();
        let waits = if look_ahead.is_some() { "at most 4 steps after its own" } else { "wait for the end" };
        assert!(shown.contains(waits) && shown.contains("in each of two directions"), "{shown}");
    }
}

#[test]
fn the_daemon_refuses_a_model_that_needs_the_end_of_a_stream() {
    let place = place(None);
    let (code, said) = daemon_harness::ended(command(&place, "data"));
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("[look_ahead]"), "{said}");
    let checked = place.run(&["check", "--model", place.path("ahead").to_str().unwrap()]);
    assert_eq!(checked.code, 2);
    assert!(checked.stderr.contains("see to the end of a stream"), "{}", checked.stderr);
}

#[test]
fn the_daemon_gives_labels_when_they_are_final() {
    let place = place(FOUR);
    let daemon = Daemon::start(command(&place, "data"));
    let post = |query: &str, text: &str| daemon.post(&format!("/v1/streams/s?wait=1&{query}"), text).json();
    let words = |record: &Value| record["labels"].as_array().unwrap().len();
    assert_eq!(words(&post("", "Ada met Charles Babbage ")), 0);
    assert_eq!(words(&post("", "in ")), 2, "a block, and three words after it");
    assert_eq!(words(&post("", "London ")), 0);
    let flushed = post("event=flush", "tod");
    assert_eq!((words(&flushed), &flushed["final"]), (5, &json!(false)));
    assert_eq!(words(&post("", "Turin ")), 0);
    let reset = post("event=reset", "Ada ");
    assert_eq!((words(&reset), &reset["labels"][0]["text"]), (1, &json!("Turin")), "a reset does not lose what waits");
    let ended = post("event=end", "");
    assert_eq!((words(&ended), &ended["labels"][0]["text"], &ended["final"]), (1, &json!("Ada"), &json!(true)));
}

#[test]
fn killed_in_the_middle_the_daemon_gives_the_same_labels() {
    let place = place(FOUR);
    let told = killed::in_the_middle(|data| Daemon::start(command(&place, data)));
    assert!(told.iter().all(|labels| labels.contains("Lovelace")));
}
