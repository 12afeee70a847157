//! Streams that are written: the same whatever their company and interruptions; training, `eval`, `generate`; and the
//! daemon, also killed in the middle.

use crate::daemon_harness;
use crate::daemon_harness::Daemon;
use crate::killed;
use crate::program;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;
use strand::encode::EncoderSpec;
use strand::model::generate::Prompt;
use strand::model::testing::{TEXT, chars_encoder, events_encoder, generate_spec, layers, notes_encoder, random_model};
use strand::model::{Model, Output, Session, StatePrecision, Stepper};
use strand::rnn::Cell;
use strand::train::{Recipe, train};

fn model(encoder: EncoderSpec, classes: &[&str]) -> Arc<Model> {
    let dir = tempfile::tempdir().unwrap();
    let spec = generate_spec("gen", layers(&[Cell::Gru, Cell::Lstm], 8), encoder, classes);
    random_model(dir.path(), &spec, TEXT, 5).unwrap();
    Arc::new(Model::load(dir.path()).unwrap())
}

fn models() -> Vec<Arc<Model>> {
    vec![
        model(notes_encoder(), &[]),
        model(notes_encoder(), &["jig", "reel"]),
        model(chars_encoder(), &[]),
        model(events_encoder(), &["jig", "reel"]),
    ]
}

/// How a stream of this model may begin.
fn beginning(model: &Model, seed: u64, steps: u32) -> Prompt {
    let kind = model.encoder().spec().kind();
    let some = |this: &str| kind == this;
    Prompt {
        class: (!model.spec().stream_classes().is_empty()).then(|| ["jig", "reel"][seed as usize % 2].to_string()),
        notes: some("notes").then(|| serde_json::from_str("[[60,64],[],[71]]").unwrap()),
        text: some("characters").then(|| "Ada met ".to_string()),
        tokens: some("events").then(|| vec!["Ada".to_string(), "met".to_string()]),
        steps: Some(steps),
        temperature: Some(0.9),
        seed: Some(seed),
    }
}

fn more(steps: u32) -> Prompt {
    Prompt { steps: Some(steps), ..Prompt::default() }
}

/// What can be compared bit for bit: texts, whether they were given, and the bits of their probabilities.
fn written(output: &Output) -> Vec<(u64, String, usize, u32)> {
    output.labels.iter().map(|l| (l.start, l.text.clone(), l.label, l.score.to_bits())).collect()
}

fn write(stepper: &mut Stepper, model: &Model, session: &mut Session, prompt: &Prompt, output: &mut Output) {
    session.ask(model, prompt).unwrap();
    stepper.step(&mut [&mut *session], std::slice::from_mut(output));
    stepper.generate(&mut [session], std::slice::from_mut(output));
}

#[test]
fn a_stream_is_written_the_same_in_any_company_and_in_any_number_of_records() {
    for model in models() {
        let mut stepper = Stepper::new(model.clone());
        let mut alone = |seed: u64| {
            let (mut session, mut output) = (Session::new(&model), Output::default());
            write(&mut stepper, &model, &mut session, &beginning(&model, seed, 40), &mut output);
            assert_eq!(output.labels.iter().filter(|l| l.label == 1).count(), 40);
            written(&output)
        };
        let wanted: Vec<_> = (0..9).map(&mut alone).collect();
        assert!(wanted[0] != wanted[2] && wanted[1] != wanted[3], "other seeds, other sequences");
        proptest!(ProptestConfig::with_cases(24), |(
            cuts in proptest::collection::vec(proptest::collection::vec(0u32..30, 1..6), 1..9)
        )| {
            let mut stepper = Stepper::new(model.clone());
            let mut sessions: Vec<Session> = cuts.iter().map(|_| Session::new(&model)).collect();
            let mut outputs = vec![Output::default(); cuts.len()];
            let mut left = vec![40; cuts.len()];
            let rounds = cuts.iter().map(Vec::len).max().unwrap() + 1;
            for round in 0..rounds {
                for (k, session) in sessions.iter_mut().enumerate() {
                    let steps = if round + 1 == rounds { left[k] } else { cuts[k].get(round).copied().unwrap_or(0).min(left[k]) };
                    left[k] -= steps;
                    let prompt = if round == 0 { beginning(&model, k as u64, steps) } else { more(steps) };
                    session.ask(&model, &prompt).unwrap();
                }
                let mut together: Vec<&mut Session> = sessions.iter_mut().collect();
                stepper.step(&mut together, &mut outputs);
                stepper.generate(&mut together, &mut outputs);
                // Saved and read back.
                for session in &mut sessions {
                    let mut bytes = Vec::new();
                    session.encode(&model, &mut bytes);
                    let restored = Session::decode(&model, &bytes).unwrap();
                    prop_assert_eq!(&restored, &*session);
                    *session = restored;
                }
            }
            for (output, wanted) in outputs.iter().zip(&wanted) {
                prop_assert_eq!(&written(output), wanted);
            }
        });
    }
}

#[test]
fn rounded_states_are_written_the_same_in_any_number_of_records_too() {
    let model = model(notes_encoder(), &["jig", "reel"]);
    let mut stepper = Stepper::new(model.clone());
    let mut of = |parts: &[u32]| {
        let (mut session, mut output) = (Session::kept(&model, StatePrecision::Bf16), Output::default());
        for (k, &steps) in parts.iter().enumerate() {
            let prompt = if k == 0 { beginning(&model, 1, steps) } else { more(steps) };
            write(&mut stepper, &model, &mut session, &prompt, &mut output);
        }
        written(&output)
    };
    assert_eq!(of(&[30]), of(&[1, 20, 9]));
}

#[test]
fn what_is_drawn_is_as_likely_as_reading_it_says() {
    for model in models() {
        let mut stepper = Stepper::new(model.clone());
        let (mut session, mut output) = (Session::new(&model), Output::default());
        write(&mut stepper, &model, &mut session, &beginning(&model, 3, 25), &mut output);
        let (mut reader, mut read) = (Session::new(&model), Output::default());
        let all = Prompt { steps: Some(0), ..beginning(&model, 3, 0) };
        let texts: Vec<&str> = output.labels.iter().map(|l| l.text.as_str()).collect();
        let all = match (&all.notes, &all.text) {
            (Some(_), _) => {
                Prompt { notes: Some(texts.iter().map(|t| serde_json::from_str(t).unwrap()).collect()), ..all }
            }
            (_, Some(_)) => Prompt { text: Some(texts.concat()), ..all },
            _ => Prompt { tokens: Some(texts.iter().map(|t| t.to_string()).collect()), ..all },
        };
        write(&mut stepper, &model, &mut reader, &all, &mut read);
        let bits = |output: &Output| output.surprises.iter().map(|s| s.to_bits()).collect::<Vec<u32>>();
        assert_eq!(bits(&read), bits(&output));
        assert_eq!(read.likelihood, output.likelihood);
    }
}

#[test]
fn the_class_decides_and_what_cannot_be_asked_is_said() {
    let model = model(notes_encoder(), &["jig", "reel"]);
    let mut stepper = Stepper::new(model.clone());
    let mut first = |class: &str| {
        let (mut session, mut output) = (Session::new(&model), Output::default());
        let prompt = Prompt { class: Some(class.into()), temperature: Some(0.0), ..more(12) };
        write(&mut stepper, &model, &mut session, &prompt, &mut output);
        written(&output)
    };
    assert_ne!(first("jig"), first("reel"));
    let mut session = Session::new(&model);
    let fresh = session.clone();
    let mut wrong = |prompt: Value| {
        let prompt = Prompt::parse(prompt.to_string().as_bytes()).unwrap();
        let error = session.ask(&model, &prompt).unwrap_err().to_string();
        assert_eq!(session, fresh, "a prompt was refused and left something behind");
        error
    };
    assert!(wrong(json!({})).contains("by class"));
    assert!(wrong(json!({"class": "waltz"})).contains("waltz"));
    assert!(wrong(json!({"class": "jig", "steps": 201})).contains("may ask for 200"));
    assert!(wrong(json!({"class": "jig", "temperature": -1.0})).contains("temperature"));
    assert!(wrong(json!({"class": "jig", "notes": [[59]]})).contains("pitch 59"));
    assert!(wrong(json!({"class": "jig", "text": "x"})).contains("does not read text"));
    assert!(wrong(json!({"class": "jig", "tokens": ["x"]})).contains("does not read tokens"));
    assert!(wrong(json!({"class": "jig", "text": "x", "notes": []})).contains("only one of"));
    session.ask(&model, &beginning(&model, 1, 1)).unwrap();
    assert!(session.ask(&model, &beginning(&model, 1, 1)).unwrap_err().to_string().contains("beginning"));
}

/// Two kinds of tunes: up the scale or down, three notes at most, each begun anew.
fn tunes(path: &std::path::Path, labelled: bool) {
    let mut text = String::new();
    for n in 0..60 {
        let up = n % 2 == 0;
        let notes: Vec<Vec<u8>> =
            (0..12).map(|k| vec![62 + if up { k % 4 } else { 3 - k % 4 }, 67 + (k / 4) % 2]).collect();
        let mut line = json!({"notes": notes});
        if labelled {
            line["label"] = json!(if up { "up" } else { "down" });
        }
        text += &(line.to_string() + "\n");
    }
    std::fs::write(path, text).unwrap();
}

fn recipe(dir: &std::path::Path, transpose: &str) -> Recipe {
    let shown = dir.display();
    let text = format!(
        r#"
        output = {{ dir = "{shown}/m", name = "m", run = "{shown}/run" }}
        task = {{ kind = "generate", max_steps = 50 }}
        data = {{ root = "{shown}", format = "jsonl", train = [{{ path = "train.jsonl"{transpose} }}], dev = ["dev.jsonl"] }}
        encoder = {{ kind = "notes", lowest = 60, highest = 72 }}
        layers = [{{ cell = "gru", hidden = 24 }}]
        [train]
        epochs = 30
        batch = 8
        chunk = 12
        lr = 0.02
        dropout_input = 0.0
        dropout_layers = 0.0
        threads = 1
        "#
    );
    Recipe::parse(&text, &[]).unwrap()
}

#[test]
fn tunes_are_learnt_by_class_and_written_as_midi() {
    let dir = tempfile::tempdir().unwrap();
    tunes(&dir.path().join("train.jsonl"), true);
    tunes(&dir.path().join("dev.jsonl"), true);
    let report = train(&recipe(dir.path(), ""), false).unwrap();
    let nats = report.best.unwrap().nats.unwrap();
    assert!(nats < 0.2, "{nats} nats a step: what comes next is certain");
    let place = program::Place::new();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let m = path("m");
    let score: Value =
        serde_json::from_str(&place.run(&["eval", "--model", &m, &path("dev.jsonl"), "--json"]).ok()).unwrap();
    assert_eq!((&score["task"], &score["records"], &score["steps"]), (&json!("generate"), &json!(60), &json!(720)));
    assert!((score["nats_per_step"].as_f64().unwrap() - nats).abs() < 1e-4, "{score}, {nats} in training");
    assert!((score["nats_per_step_by_stream"].as_f64().unwrap() - nats).abs() < 1e-4, "all are as long");
    assert!(place.run(&["eval", "--model", &m, &path("dev.jsonl")]).ok().contains("nats per step"));
    let scored = place.run(&["score", "--model", &m, &path("dev.jsonl"), "--json"]).ok();
    let sum: f64 =
        scored.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["log_probability"].as_f64().unwrap()).sum();
    assert!((sum - score["log_probability"].as_f64().unwrap()).abs() < 1e-6);

    let generate = |more: &[&str]| place.run(&[&["generate", "--model", &m, "--temperature", "0"], more].concat());
    let up = generate(&["--class", "up", "--steps", "5", "--output", "text"]).ok();
    assert_eq!(up, "[62,67]\n[63,67]\n[64,67]\n[65,67]\n[62,68]\n");
    let down = generate(&["--class", "down", "--steps", "3", "--prompt", "[[65,67]]"]).ok();
    let down: Vec<Value> = down.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<(&str, &str)> =
        down.iter().map(|step| (step["text"].as_str().unwrap(), step["label"].as_str().unwrap())).collect();
    assert_eq!(
        steps,
        [("[65,67]", "given"), ("[64,67]", "generated"), ("[63,67]", "generated"), ("[62,67]", "generated")]
    );
    // More than a record may ask for.
    assert_eq!(generate(&["--class", "up", "--steps", "120"]).ok().lines().count(), 120);
    let midi = path("new.mid");
    generate(&["--class", "up", "--steps", "8", "--output", "midi", "--out", &midi, "--tempo", "120"]).ok();
    assert!(std::fs::read(&midi).unwrap().starts_with(b"MThd"));
    for wrong in [
        &["--steps", "3"][..],
        &["--class", "sideways"],
        &["--class", "up", "--prompt", "[60]"],
        &["--class", "up", "--tempo", "0", "--output", "midi", "--out", &midi],
    ] {
        assert_eq!(generate(wrong).code, 2, "{wrong:?}");
    }
    assert_eq!(place.run(&["generate", "--model", "ner"]).code, 2);
    assert!(place.run(&["model", "show", &m]).ok().contains("by class: down up"));
    assert!(std::fs::read_to_string(path("m/README.md")).unwrap().contains("model that generates"));
}

#[test]
fn tunes_in_other_keys_are_learnt_from_one() {
    let dir = tempfile::tempdir().unwrap();
    tunes(&dir.path().join("train.jsonl"), false);
    let moved = std::fs::read_to_string(dir.path().join("train.jsonl")).unwrap();
    let up = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        for pitch in line["notes"].as_array_mut().unwrap().iter_mut().flat_map(|c| c.as_array_mut().unwrap()) {
            *pitch = json!(pitch.as_u64().unwrap() + 2);
        }
        line.to_string() + "\n"
    };
    std::fs::write(dir.path().join("dev.jsonl"), moved.lines().map(up).collect::<String>()).unwrap();
    let nats = |transpose: &str| train(&recipe(dir.path(), transpose), false).unwrap().best.unwrap().nats.unwrap();
    let (own, all) = (nats(""), nats(", transpose = [-2, 3]"));
    assert!(all < 0.5 * own, "{all} nats with other keys, {own} without");
}

#[test]
fn what_a_recipe_gets_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    tunes(&dir.path().join("train.jsonl"), true);
    tunes(&dir.path().join("dev.jsonl"), false);
    let error = |change: &dyn Fn(&mut Recipe)| {
        let mut recipe = recipe(dir.path(), "");
        change(&mut recipe);
        train(&recipe, false).unwrap_err().to_string()
    };
    assert!(error(&|_| {}).contains("is none of the classes"), "dev has no labels");
    assert!(
        error(&|r| r.encoder = serde_json::from_value(json!({"kind": "notes", "lowest": 60, "highest": 50})).unwrap())
            .contains("highest")
    );
    assert!(
        error(&|r| r.encoder = serde_json::from_value(json!({"kind": "notes", "lowest": 64, "highest": 72})).unwrap())
            .contains("pitch")
    );
    assert!(
        error(&|r| r.encoder = serde_json::from_value(json!({"kind": "vector", "width": 2})).unwrap())
            .contains("notes")
    );
    assert!(error(&|r| r.task.max_steps = Some(0)).contains("max_steps"));
    assert!(error(&|r| r.task.threshold_quantile = Some(0.9)).contains("threshold_quantile"));
    assert!(error(&|r| r.train.label_smoothing = 0.1).contains("label_smoothing"));
}

/// A place with a random model of notes by class in `gen/`.
fn place_with_model() -> program::Place {
    let place = program::Place::new();
    std::fs::create_dir(place.path("gen")).unwrap();
    let spec = generate_spec("gen", layers(&[Cell::Gru, Cell::Lstm], 8), notes_encoder(), &["jig", "reel"]);
    random_model(&place.path("gen"), &spec, TEXT, 3).unwrap();
    place
}

fn daemon(place: &program::Place, data: &str) -> Daemon {
    let mut command = std::process::Command::new(daemon_harness::STRAND);
    command.args(["run", "--log-format", "json", "--http", "127.0.0.1:0", "--model"]).arg(place.path("gen"));
    command.arg("--data-dir").arg(place.path(data));
    Daemon::start(command)
}

fn texts(record: &Value) -> Vec<String> {
    record["labels"].as_array().unwrap().iter().map(|l| l["text"].as_str().unwrap().to_string()).collect()
}

#[test]
fn a_prompt_begins_a_stream_of_events_and_flush_goes_on() {
    let place = place_with_model();
    let daemon = daemon(&place, "data");
    let post = |query: &str, body: &str| daemon.post(&format!("/v1/streams/s?wait=1&{query}"), body);
    let prompt = r#"{"class":"jig","notes":[[60],[62,64]],"steps":10,"seed":7,"temperature":0.8}"#;
    let first = post("event=start", prompt).json();
    let labels = first["labels"].as_array().unwrap();
    assert_eq!((labels.len(), &labels[0]["start"], &first["units"]), (10, &json!(2), &json!(12)));
    assert!(labels.iter().all(|l| l["label"] == "generated" && l["surprise"].as_f64().unwrap() >= 0.0), "{first}");
    let second = post("event=flush", "").json();
    let third = post("event=end", r#"{"steps":4}"#).json();
    assert_eq!((texts(&second).len(), texts(&third).len(), &third["final"]), (10, 4, &json!(true)));
    let arguments = ["generate", "--model", "gen", "--class", "jig", "--prompt", "[[60],[62,64]]", "--steps", "24"];
    let whole =
        place.run(&[&arguments[..], &["--seed", "7", "--temperature", "0.8", "--output", "text"]].concat()).ok();
    let all = [texts(&first), texts(&second), texts(&third)].concat();
    assert_eq!(whole.lines().skip(2).collect::<Vec<_>>(), all, "in one go it is the same");
    // Without a prompt the model's class is missing; a wrong prompt is told and leaves the stream as it was.
    assert_eq!(post("event=start", "").status, 422);
    for wrong in
        [r#"{"class":"jig","steps":201}"#, r#"{"class":"waltz"}"#, r#"{"class":"jig","tempo":3}"#, "[[60]]", "{"]
    {
        assert_eq!(post("event=start", wrong).status, 422, "{wrong}");
    }
    let letters = daemon.get("/v1/dead-letters").lines();
    assert_eq!(letters.len(), 6);
    assert!(letters[1]["detail"].as_str().unwrap().contains("200"), "{}", letters[1]);
    post("event=start", r#"{"class":"reel","steps":0}"#);
    assert_eq!(post("", r#"{"seed":3,"steps":5}"#).json()["labels"].as_array().unwrap().len(), 5);
    assert_eq!(post("", r#"{"seed":3}"#).status, 422, "it has begun");
    // A reset is a new beginning within the stream.
    assert_eq!(post("event=reset", "").json()["labels"], json!([]));
    assert_eq!(post("event=flush", "").status, 422, "of no class yet");
    let again = post("event=reset", prompt).json();
    assert_eq!(texts(&again), texts(&first));
    let check = place.run(&["check", "--model", "gen"]).ok();
    assert!(check.contains("input.format: prompt"), "{check}");
}

#[test]
fn killed_in_the_middle_the_daemon_goes_on_with_the_same_music() {
    let place = place_with_model();
    let mut records = Vec::new();
    let mut random = program::numbers(5, 1000);
    for n in 0..120 {
        let k = random() % killed::STREAMS;
        let class = ["jig", "reel"][random() % 2];
        let mut record = json!({"stream": format!("s{k}"), "id": n});
        let notes = vec![vec![60 + random() % 12]; random() % 3];
        match (n < killed::STREAMS, random() % 8) {
            (true, _) | (_, 0) => {
                record["stream"] = json!(format!("s{}", if n < killed::STREAMS { n } else { k }));
                record["event"] = json!(["start", "reset"][if n < killed::STREAMS { 0 } else { random() % 2 }]);
                record["value"] = json!({"class": class, "notes": notes, "steps": random() % 30, "seed": random()});
            }
            (_, 1) => record["value"] = json!({"notes": notes, "steps": random() % 30, "temperature": 0.7}),
            (_, 2) => record["value"] = json!({"steps": 1000}),
            _ => record["event"] = json!("flush"),
        }
        records.push(record.to_string());
    }
    records.extend(
        (0..killed::STREAMS).map(|k| json!({"stream": format!("s{k}"), "event": "end", "id": 1000}).to_string()),
    );
    let told = killed::in_the_middle_of(&records, |data| daemon(&place, data));
    assert!(told.iter().all(|labels| labels.contains("\"label\":\"generated\"")));
}
