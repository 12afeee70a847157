//! Translation: from training to the daemon, on small made-up data. However the input is cut, batched or interrupted,
//! translations are the same, bit for bit.

use crate::daemon_harness;
use crate::daemon_harness::Daemon;
use crate::killed;
use crate::program;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use strand::encode::InputFormat;
use strand::model::testing::{TEXT, random_translator, translator_spec};
use strand::model::{Attention, Model, Output, Session, StateError, StatePrecision, Stepper, Translation};
use strand::train::transduce::train_until;
use strand::train::{Recipe, train};

const ATTENTIONS: [Attention; 3] = [Attention::None, Attention::Luong, Attention::Bahdanau];

fn model(attention: Attention, max_source: usize) -> Arc<Model> {
    let dir = tempfile::tempdir().unwrap();
    random_translator(dir.path(), &translator_spec("tr", attention, max_source), TEXT, 7).unwrap();
    Arc::new(Model::load(dir.path()).unwrap())
}

/// The translations of a stream that comes in these pieces; after each the session goes through its bytes.
fn translated(model: &Arc<Model>, pieces: &[&[u8]]) -> Vec<Translation> {
    let (mut session, mut output) = (Session::new(model), Output::default());
    let mut stepper = Stepper::new(model.clone());
    for piece in pieces {
        session.push(model, InputFormat::Text, piece).unwrap();
        stepper.step(&mut [&mut session], std::slice::from_mut(&mut output));
        let mut bytes = Vec::new();
        session.encode(model, &mut bytes);
        let restored = Session::decode(model, &bytes).unwrap();
        assert_eq!(restored, session);
        session = restored;
    }
    session.finish_unit(model).unwrap();
    stepper.step(&mut [&mut session], std::slice::from_mut(&mut output));
    session.conclude(model, &mut output);
    assert!(output.labels.is_empty() && session.end().is_none());
    output.translations
}

#[test]
fn translations_do_not_depend_on_cuts_company_or_interruptions() {
    for attention in ATTENTIONS {
        let model = model(attention, 60);
        let whole = translated(&model, &[TEXT.as_bytes()]);
        assert!(whole.len() > 5, "sentences, and parts of those that are longer than 60 characters");
        assert!(whole.iter().any(|t| t.cut) && whole.iter().any(|t| !t.cut));
        assert!(whole.iter().any(|t| !t.text.is_empty()));
        for t in &whole {
            let source: String = TEXT.chars().skip(t.start as usize).take((t.end - t.start) as usize).collect();
            assert_eq!(source, t.source);
            assert!((0.0..=1.0).contains(&t.score) && t.source.chars().count() <= 60);
        }
        for size in [1, 7, 50] {
            let pieces: Vec<&[u8]> = TEXT.as_bytes().chunks(size).collect();
            assert_eq!(translated(&model, &pieces), whole, "{attention:?}, pieces of {size}");
        }
        // All sentences of three streams together.
        let mut sessions: Vec<Session> = (0..3).map(|_| Session::new(&model)).collect();
        let mut outputs = vec![Output::default(); 3];
        for (session, from) in sessions.iter_mut().zip([0, 40, 99]) {
            session.push(&model, InputFormat::Text, &TEXT.as_bytes()[from..]).unwrap();
            session.finish_unit(&model).unwrap();
        }
        Stepper::new(model.clone()).step(&mut sessions.iter_mut().collect::<Vec<_>>(), &mut outputs);
        assert_eq!(outputs[0].translations, whole, "{attention:?}, in company");
        assert_eq!(outputs[2].translations, translated(&model, &[&TEXT.as_bytes()[99..]]));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_text_in_any_pieces_is_translated_the_same(text in "[aeL.é\n ]{0,80}", cut in 1usize..9) {
        let model = model(Attention::Luong, 20);
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(cut).collect();
        prop_assert_eq!(translated(&model, &pieces), translated(&model, &[text.as_bytes()]));
    }
}

#[test]
fn a_state_that_is_damaged_is_refused() {
    let model = model(Attention::Bahdanau, 1000);
    let mut session = Session::kept(&model, StatePrecision::Bf16);
    // More than any other reader leaves pending: the longest sentence there is.
    session.push(&model, InputFormat::Text, "é".repeat(1000).as_bytes()).unwrap();
    let mut bytes = Vec::new();
    session.encode(&model, &mut bytes);
    assert_eq!(Session::decode(&model, &bytes).unwrap(), session);
    for at in (0..bytes.len()).step_by(17) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(Session::decode(&model, &damaged).is_err(), "byte {at}");
        assert!(Session::decode(&model, &bytes[..at]).is_err());
    }
    let other = self::model(Attention::Luong, 1000);
    assert!(matches!(Session::decode(&other, &bytes), Err(StateError::OtherModel { .. })));
}

/// Numbers in words and as digits, `two seven` to `27`, and a recipe for them.
fn recipe(dir: &Path, changes: &[&str]) -> Recipe {
    let names = ["zero", "one", "two", "three", "four", "five"];
    for (path, lines, seed) in [("train.tsv", 700, 1u64), ("dev.tsv", 60, 2), ("test.tsv", 60, 3)] {
        let (mut random, mut text) = (seed, String::new());
        let mut below = |n: usize| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) as usize % n
        };
        for _ in 0..lines {
            let digits: Vec<usize> = (0..1 + below(5)).map(|_| below(6)).collect();
            let words: Vec<&str> = digits.iter().map(|&d| names[d]).collect();
            let figures: String = digits.iter().map(|d| d.to_string()).collect();
            text += &format!("{}\t{figures}\n", words.join(" "));
        }
        std::fs::write(dir.join(path), text).unwrap();
    }
    let dir = dir.display();
    let text = format!(
        "layers = [{{ cell = \"gru\", hidden = 24, bidirectional = true }}]\n\
         [output]\ndir = \"{dir}/m\"\nrun = \"{dir}/run\"\nname = \"m\"\n[task]\nkind = \"transduce\"\n\
         [data]\nroot = \"{dir}\"\nformat = \"pairs\"\ntrain = [\"train.tsv\"]\ndev = [\"dev.tsv\"]\n\
         [encoder]\nkind = \"sentences\"\nunits = \"words\"\ndim = 12\nmax_source = 80\n\
         [decoder]\nunits = \"chars\"\ndim = 8\nattention = \"luong\"\nbeam = 2\nlength_penalty = 0.6\nmax_length = 8\n\
         layers = [{{ cell = \"gru\", hidden = 32 }}]\n\
         [train]\nepochs = 24\nbatch = 40\nlr = 0.02\nwarmup = 5\nema = 0.9\ndropout_input = 0.05\ndropout_layers = 0.05\n\
         word_dropout = 0.0\n"
    );
    Recipe::parse(&text, changes).unwrap()
}

#[test]
fn a_training_learns_and_is_the_same_on_any_threads_and_after_an_interruption() {
    let place = program::Place::new();
    let dir = place.path("");
    let weights = || std::fs::read(dir.join("m/weights.safetensors")).unwrap();
    let report = train(&recipe(&dir, &["train.threads=1"]), false).unwrap();
    let best = report.best.unwrap();
    assert!(best.accuracy > 0.9, "{best}");
    let whole = weights();
    train_until(&recipe(&dir, &["train.threads=3"]), false, 3).unwrap();
    train(&recipe(&dir, &["train.threads=2"]), true).unwrap();
    assert!(weights() == whole, "resumed on other threads it has other weights");

    let score: Value = serde_json::from_str(&place.run(&["eval", "--model", "m", "test.tsv", "--json"]).ok()).unwrap();
    assert_eq!((&score["task"], &score["records"]), (&json!("transduce"), &json!(60)));
    assert!(score["exact_match"].as_f64().unwrap() > 0.85, "{score}");
    let lines = place.run_with(&["translate", "--model", "m"], "two five one\n\nfour\n").ok();
    assert_eq!(lines, "251\n\n4\n");
    place.file("in.txt", "two five one\nfour");
    let rows = place.run(&["translate", "--model", "m", "in.txt", "--json", "--beam", "1", "--max-length", "2"]).ok();
    let row: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert_eq!((&row["source"], &row["text"]), (&json!("two five one"), &json!("25")), "no longer than was asked");
    let shown = place.run(&["model", "show", "m"]).ok();
    assert!(shown.contains("translates   words (8) to characters (8), attention luong, beam 2"), "{shown}");
    let refused = place.run(&["tag", "--model", "m", "in.txt", "--output", "conll"]).stderr;
    assert!(refused.contains("strand translate"), "{refused}");
    let refused = place.run(&["translate", "--model", "m", "in.txt", "--beam", "0"]).stderr;
    assert!(refused.contains("beam = 0: must be 1 to 256"), "{refused}");
    for attention in ["none", "bahdanau"] {
        let attention = format!("decoder.attention={attention}");
        let report = train(&recipe(&dir, &[&attention, "train.epochs=2"]), false).unwrap();
        assert!(report.best.unwrap().accuracy > 0.02);
    }
}

#[test]
fn what_a_recipe_gets_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let error = |changes: &[&str]| train(&recipe(dir.path(), changes), false).unwrap_err().to_string();
    assert!(error(&["decoder.beam=0"]).contains("decoder.beam = 0"));
    assert!(error(&["decoder.max_length=0"]).contains("decoder.max_length = 0: must be 1 to 4096"));
    assert!(error(&["encoder.max_source=2000"]).contains("max_source = 2000: must be at most 1000"));
    assert!(error(&["data.format=lines"]).contains("go together"));
    assert!(error(&["task.pooling=mean"]).contains("not for kind = \"transduce\""));
    assert!(error(&["data.train=[{genome=\"a\", intervals=\"b\"}]"]).contains("source = "));
    assert!(error(&["decoder.layers=[{cell=\"gru\", hidden=4, bidirectional=true}]"]).contains("not written yet"));
    assert!(error(&["decoder.inner=4"]).contains("bahdanau"));
    assert!(error(&["train.batch=5000"]).contains("too few"));
    std::fs::write(dir.path().join("bad.tsv"), "one 1\n").unwrap();
    let wrong = train(&recipe(dir.path(), &["data.dev=[\"bad.tsv\"]"]), false).unwrap_err().to_string();
    assert!(wrong.contains("bad.tsv, line 1: expected source<TAB>target"), "{wrong}");
}

/// A place with a random translator in `tr/`.
fn place_with_model() -> program::Place {
    let place = program::Place::new();
    std::fs::create_dir(place.path("tr")).unwrap();
    random_translator(&place.path("tr"), &translator_spec("tr", Attention::Luong, 40), TEXT, 3).unwrap();
    place
}

fn daemon(place: &program::Place, data: &str) -> Daemon {
    let mut command = std::process::Command::new(daemon_harness::STRAND);
    command.args(["run", "--log-format", "json", "--http", "127.0.0.1:0", "--model"]).arg(place.path("tr"));
    command.arg("--data-dir").arg(place.path(data));
    Daemon::start(command)
}

#[test]
fn the_daemon_translates_what_was_gathered() {
    let place = place_with_model();
    let daemon = daemon(&place, "data");
    let post = |query: &str, text: &str| daemon.post(&format!("/v1/streams/s?wait=1&{query}"), text).json();
    let first = post("", "Ada met ");
    assert_eq!((&first["labels"], &first["translations"]), (&json!([]), &json!([])));
    let second = post("", "Babbage. In Turin\nin ");
    let told = second["translations"].as_array().unwrap();
    let sources: Vec<(&str, u64, u64)> = told
        .iter()
        .map(|t| (t["source"].as_str().unwrap(), t["start"].as_u64().unwrap(), t["end"].as_u64().unwrap()))
        .collect();
    assert_eq!(sources, [("Ada met Babbage.", 0, 16), ("In Turin", 17, 25)]);
    let third = post("event=flush", "June");
    assert_eq!((&third["translations"][0]["source"], &third["final"]), (&json!("in June"), &json!(false)));
    let position = daemon.get("/v1/streams/s").json();
    assert_eq!(position["position"], 33);
    let last = post("event=end", &"Ada ".repeat(15));
    assert_eq!((&last["translations"][0]["cut"], &last["final"]), (&json!(true), &json!(true)));
    // The same by the command.
    let line = place.run_with(&["translate", "--model", "tr", "--json"], "Ada met Babbage.\n").ok();
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["text"], &line["score"]), (&told[0]["text"], &told[0]["score"]));
    let check = place.run(&["check", "--model", "tr"]).ok();
    assert!(check.contains("model: tr") && check.contains("input.format: text"), "{check}");
}

#[test]
fn killed_in_the_middle_the_daemon_gives_the_same_translations() {
    let place = place_with_model();
    let told = killed::in_the_middle(|data| daemon(&place, data));
    assert!(told.iter().all(|records| records.contains("\"source\":\"")));
}
