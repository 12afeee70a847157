//! Language models: how likely streams are, whatever their cuts, company and interruptions; training, `eval`, `score`,
//! `sample`; and the daemon, also killed in the middle.

use crate::daemon_harness;
use crate::daemon_harness::Daemon;
use crate::killed;
use crate::program;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use strand::encode::{EncoderSpec, Features, InputFormat, ReaderState, WordSpec};
use strand::model::testing::{TEXT, chars_encoder, events_encoder, language_spec, layers, random_model};
use strand::model::{Model, Output, Session, StatePrecision, Stepper};
use strand::rnn::Cell;
use strand::train::trainer::train_until;
use strand::train::{Recipe, train};

/// A generator for tests: the same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
}

fn words_encoder() -> EncoderSpec {
    EncoderSpec::Words(WordSpec {
        word_dim: 6,
        min_count: 1,
        shape_dim: 2,
        char_dim: 4,
        char_hidden: 3,
        ..WordSpec::default()
    })
}

/// Random models over each kind of units, with a full and with an adaptive softmax.
fn models() -> Vec<Arc<Model>> {
    let of = |encoder: EncoderSpec, cutoffs: &[usize]| {
        let dir = tempfile::tempdir().unwrap();
        let spec = language_spec("lm", layers(&[Cell::Lstm, Cell::Gru], 8), encoder, cutoffs);
        random_model(dir.path(), &spec, TEXT, 5).unwrap();
        Arc::new(Model::load(dir.path()).unwrap())
    };
    vec![
        of(chars_encoder(), &[]),
        of(chars_encoder(), &[5, 20]),
        of(words_encoder(), &[]),
        of(words_encoder(), &[10, 30]),
        of(events_encoder(), &[]),
        of(events_encoder(), &[4, 12, 40]),
    ]
}

/// Pieces of a stream as records hold them: text cut anywhere, or a JSON array of some of its words.
fn pieces(model: &Model, text: &str, cuts: &[usize]) -> Vec<Vec<u8>> {
    let events = model.encoder().format() == InputFormat::Tokens;
    let words: Vec<&str> = text.split_whitespace().collect();
    let (mut pieces, mut at, mut cuts) = (Vec::new(), 0, cuts.iter().cycle());
    let end = if events { words.len() } else { text.len() };
    while at < end {
        let next = (at + 1 + cuts.next().unwrap()).min(end);
        pieces.push(match events {
            true => serde_json::to_vec(&words[at..next]).unwrap(),
            false => text.as_bytes()[at..next].to_vec(),
        });
        at = next;
    }
    pieces
}

/// A unit's place, text and label, and the bits of its score and surprise.
type ToldUnit = (u64, u64, String, usize, u32, u32);

/// What can be compared bit for bit.
fn told(output: &Output) -> (Vec<ToldUnit>, Option<(u64, u64)>) {
    let units = output.labels.iter().zip(&output.surprises);
    let units = units.map(|(l, s)| (l.start, l.end, l.text.clone(), l.label, l.score.to_bits(), s.to_bits()));
    (units.collect(), output.likelihood.map(|of| (of.log_probability.to_bits(), of.units)))
}

fn in_one_pass(model: &Arc<Model>, text: &str) -> (Output, Session) {
    let (mut session, mut output) = (Session::new(model), Output::default());
    for piece in pieces(model, text, &[usize::MAX / 2]) {
        session.push(model, model.encoder().format(), &piece).unwrap();
    }
    session.finish_unit(model).unwrap();
    Stepper::new(model.clone()).step(&mut [&mut session], std::slice::from_mut(&mut output));
    session.conclude(model, &mut output);
    (output, session)
}

#[test]
fn each_unit_is_as_surprising_as_the_model_said_before_it() {
    for model in models() {
        let (whole, _) = in_one_pass(&model, TEXT);
        assert_eq!((whole.labels.len(), whole.steps), (whole.surprises.len(), whole.surprises.len()));
        let mut session = Session::new(&model);
        let mut stepper = Stepper::new(model.clone());
        let mut sum = 0.0;
        for (unit, &surprise) in whole.labels.iter().zip(&whole.surprises) {
            let said = session.next_unit(&model);
            let all: f64 = said.iter().map(|ln| ln.exp()).sum();
            assert!((all - 1.0).abs() < 1e-9, "the probabilities of all units add up to {all}");
            session.push_tokens(&model, &[&unit.text]);
            let mut output = Output::default();
            stepper.step(&mut [&mut session], std::slice::from_mut(&mut output));
            assert_eq!(output.surprises[0].to_bits(), surprise.to_bits());
            let (mut units, mut features) = (Vec::new(), Features::default());
            model.encoder().push_tokens(&mut ReaderState::default(), &[&unit.text], &mut units, &mut features);
            let ln = said[features.ids[0] as usize];
            assert!((ln + f64::from(surprise)).abs() < 1e-4 * (1.0 - ln), "{ln} was said, {surprise} it is: {unit:?}");
            assert_eq!(unit.label, usize::from(surprise > 3.0));
            sum += f64::from(surprise);
        }
        assert_eq!(session.likelihood(&model), whole.likelihood);
        let of = whole.likelihood.unwrap();
        assert_eq!((-of.log_probability, of.units), (sum, whole.steps as u64));
        assert!((of.perplexity().unwrap().ln() - sum / of.units as f64).abs() < 1e-9);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn surprise_does_not_depend_on_cuts_company_or_interruptions(
        cuts in proptest::collection::vec(0usize..40, 1..8),
        others in proptest::collection::vec(0usize..9, 1..4),
    ) {
        for model in models() {
            let texts = [TEXT.to_string(), TEXT[200..].to_string(), "Ada ".to_string()];
            let whole: Vec<Output> = texts.iter().map(|text| in_one_pass(&model, text).0).collect();
            let mut stepper = Stepper::new(model.clone());
            let mut sessions: Vec<Session> = texts.iter().map(|_| Session::new(&model)).collect();
            let mut outputs = vec![Output::default(); texts.len()];
            let mut pieces: Vec<_> = [&cuts, &others, &cuts].iter().zip(&texts)
                .map(|(cuts, text)| pieces(&model, text, cuts).into_iter()).collect();
            let mut going = true;
            while std::mem::replace(&mut going, false) {
                for (session, pieces) in sessions.iter_mut().zip(&mut pieces) {
                    match pieces.next() {
                        Some(piece) => {
                            going = true;
                            session.push(&model, model.encoder().format(), &piece).unwrap();
                        }
                        None => session.finish_unit(&model).unwrap(),
                    }
                }
                stepper.step(&mut sessions.iter_mut().collect::<Vec<_>>(), &mut outputs);
                for session in &mut sessions {
                    let mut bytes = Vec::new();
                    session.encode(&model, &mut bytes);
                    let restored = Session::decode(&model, &bytes).unwrap();
                    prop_assert_eq!(&restored, &*session);
                    *session = restored;
                }
            }
            for ((session, output), whole) in sessions.iter_mut().zip(&mut outputs).zip(&whole) {
                session.conclude(&model, output);
                prop_assert_eq!(told(output), told(whole));
            }
        }
    }
}

#[test]
fn a_reset_begins_anew_and_a_stream_without_a_unit_has_no_perplexity() {
    for model in models() {
        let (fresh, mut session) = in_one_pass(&model, "Turin . ");
        session.reset();
        assert_eq!(session.likelihood(&model).unwrap(), Default::default());
        let mut again = Output::default();
        for piece in pieces(&model, "Turin . ", &[100]) {
            session.push(&model, model.encoder().format(), &piece).unwrap();
        }
        Stepper::new(model.clone()).step(&mut [&mut session], std::slice::from_mut(&mut again));
        assert_eq!((again.surprises, again.likelihood), (fresh.surprises, fresh.likelihood));
        let mut nothing = Output::default();
        Session::new(&model).conclude(&model, &mut nothing);
        assert_eq!((nothing.likelihood.unwrap().units, nothing.likelihood.unwrap().perplexity()), (0, None));
    }
}

#[test]
fn the_likelihood_stays_exact_where_states_are_of_half_size() {
    let model = &models()[1];
    let (mut session, mut output) = (Session::kept(model, StatePrecision::Bf16), Output::default());
    let mut stepper = Stepper::new(model.clone());
    for _ in 0..3 {
        session.push(model, InputFormat::Text, TEXT.as_bytes()).unwrap();
        stepper.step(&mut [&mut session], std::slice::from_mut(&mut output));
        let mut bytes = Vec::new();
        session.encode(model, &mut bytes);
        assert_eq!(Session::decode(model, &bytes).unwrap(), session);
    }
    let sum: f64 = output.surprises.iter().map(|&nats| f64::from(nats)).sum();
    assert_eq!(output.likelihood.unwrap().log_probability, -sum);
}

/// Recipe of a small language model in `dir`, which also has its data.
fn recipe(dir: &Path, encoder: &str, task: &str, data: &str, changes: &[&str]) -> Recipe {
    let dir = dir.display();
    let text = format!(
        "layers = [{{ cell = \"gru\", hidden = 24 }}]\n[output]\ndir = \"{dir}/m\"\nrun = \"{dir}/run\"\nname = \"m\"\n\
         [task]\nkind = \"language_model\"\n{task}\n[data]\nroot = \"{dir}\"\n{data}\n[encoder]\n{encoder}\n\
         [train]\nepochs = 6\nbatch = 16\nchunk = 12\nlr = 0.01\nwarmup = 5\nema = 0.9\nword_dropout = 0.01\n\
         dropout_input = 0.0\ndropout_layers = 0.1\n"
    );
    Recipe::parse(&text, changes).unwrap()
}

const EVENTS: &str = "kind = \"events\"\ndim = 8";
const LINES: &str = "format = \"lines\"\ntrain = [\"train.txt\"]\ndev = [\"dev.txt\"]";

/// A session's events: open, then reads or writes that are told from how it was opened, then close.
fn session(random: &mut Random) -> Vec<String> {
    let kind = ["read", "write", "list"][random.below(3)];
    let mut events = vec!["open".to_string(), format!("as_{kind}")];
    for _ in 0..2 + random.below(6) {
        events.extend([kind.to_string(), "done".to_string()]);
    }
    events.push("close".to_string());
    events
}

fn sessions(path: &Path, lines: usize, seed: u64) {
    let mut random = Random(seed);
    let text: String = (0..lines).map(|_| session(&mut random).join(" ") + "\n").collect();
    std::fs::write(path, text).unwrap();
}

/// Sessions as JSON lines, of which each third has an event that does not belong there.
fn with_faults(path: &Path, lines: usize, seed: u64) {
    let (mut random, mut text) = (Random(seed), String::new());
    for n in 0..lines {
        let mut events = session(&mut random);
        let mut labels = vec!["normal"; events.len()];
        if n % 3 == 0 {
            let at = 2 + random.below(events.len() - 3);
            events.insert(at, ["open", "as_list", "never_seen"][random.below(3)].to_string());
            labels.insert(at, "surprising");
            for wake in labels.iter_mut().skip(at + 1).take(2) {
                *wake = "-";
            }
        }
        text += &(json!({"tokens": events, "labels": labels}).to_string() + "\n");
    }
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_training_is_the_same_on_any_threads_and_after_an_interruption() {
    let dir = tempfile::tempdir().unwrap();
    sessions(&dir.path().join("train.txt"), 400, 1);
    sessions(&dir.path().join("dev.txt"), 100, 2);
    let weights = || std::fs::read(dir.path().join("m/weights.safetensors")).unwrap();
    for task in ["", "softmax = \"adaptive\"\ncutoffs = [3, 6]\ndiv_value = 2.0"] {
        let of = |changes: &[&str]| recipe(dir.path(), EVENTS, task, LINES, changes);
        let report = train(&of(&["train.threads=1"]), false).unwrap();
        let nats = report.best.unwrap().nats.unwrap();
        // Of about 13 units two are open: the kind, and after each `done` whether it goes on.
        assert!(nats < 0.45, "{task:?}: {nats} nats a unit");
        let whole = weights();
        train_until(&of(&["train.threads=3"]), false, 2).unwrap();
        train(&of(&["train.threads=2"]), true).unwrap();
        assert!(weights() == whole, "resumed on other threads it has other weights");
        let model = Arc::new(Model::load(&dir.path().join("m")).unwrap());
        let first = Session::new(&model).next_unit(&model);
        let opens = (0..first.len() as u32).find(|&row| model.encoder().unit_text(row).as_deref() == Some("open"));
        assert!(first[opens.unwrap() as usize] > 0.9f64.ln(), "every stream begins so");
    }
}

#[test]
fn a_threshold_learnt_on_dev_finds_what_does_not_belong() {
    let dir = tempfile::tempdir().unwrap();
    sessions(&dir.path().join("train.txt"), 800, 1);
    sessions(&dir.path().join("dev.txt"), 300, 2);
    with_faults(&dir.path().join("test.jsonl"), 300, 3);
    train(&recipe(dir.path(), EVENTS, "threshold_quantile = 0.999", LINES, &["train.epochs=10"]), false).unwrap();
    let place = program::Place::new();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let eval = |more: &[&str]| place.run(&[&["eval", "--model", &path("m")], more].concat()).ok();
    let score: Value = serde_json::from_str(&eval(&[&path("test.jsonl"), "--json"])).unwrap();
    assert_eq!(
        (&score["task"], &score["records"], &score["anomalies"]),
        (&json!("language_model"), &json!(300), &json!(100))
    );
    let of = |key: &str| score[key].as_f64().unwrap();
    assert!(of("precision") > 0.8 && of("recall") > 0.9 && of("auc") > 0.99, "{score}");
    assert!((of("nats_per_token") / 2f64.ln() - of("bits_per_token")).abs() < 1e-9);
    assert!((of("nats_per_token").exp() - of("perplexity")).abs() < 1e-6);
    assert!((of("log_probability") + of("nats_per_token") * of("tokens")).abs() < 1e-6);
    let table = eval(&[&path("test.jsonl")]);
    assert!(table.contains("bits per unit") && table.contains("precision"), "{table}");
    // Of dev a share of one in a thousand is above, and no more.
    let dev: Value = serde_json::from_str(&eval(&[&path("dev.txt"), "--lines", "--json"])).unwrap();
    assert!(dev["surprising"].as_u64().unwrap() <= 1 + dev["tokens"].as_u64().unwrap() / 1000, "{dev}");

    // The same by `score`, unit by unit.
    let score_of =
        |more: &[&str]| place.run(&[&["score", "--model", &path("m"), &path("test.jsonl")], more].concat()).ok();
    let records: Vec<Value> =
        score_of(&["--json", "--steps"]).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let sum: f64 = records.iter().map(|record| record["log_probability"].as_f64().unwrap()).sum();
    assert!(records.len() == 300 && (sum - of("log_probability")).abs() < 1e-6);
    for record in &records {
        let steps = record["steps"].as_array().unwrap();
        let above = steps.iter().filter(|step| step["surprise"].as_f64().unwrap() > of("threshold"));
        assert_eq!(above.count() as u64, record["surprising"].as_u64().unwrap());
        assert_eq!(steps.iter().filter(|step| step["label"] == "surprising").count() as u64, record["surprising"]);
    }
    assert_eq!(score_of(&["--threads", "1"]), score_of(&["--threads", "3"]));
    let lines = score_of(&["--surprising"]);
    assert!(lines.lines().filter(|line| line.ends_with(" !")).count() as u64 == score["surprising"]);
    assert!(place.run(&["model", "show", &path("m")]).ok().contains("10 units, full softmax, surprising above"));
    assert!(std::fs::read_to_string(path("m/README.md")).unwrap().contains("A strictly online language model"));
}

#[test]
fn a_text_is_one_stream_and_parts_of_it_are_trained_and_scored() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("text.txt"), TEXT.repeat(16)).unwrap();
    let data = "format = \"text\"\ntrain = [{ path = \"text.txt\", range = [0, 3000] }]\n\
                dev = [{ path = \"text.txt\", range = [3000, 4000] }]";
    let report = train(&recipe(dir.path(), "kind = \"chars\"\ndim = 12", "", data, &[]), false).unwrap();
    let place = program::Place::new();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (m, text) = (path("m"), path("text.txt"));
    let eval = |range: &str| -> Value {
        serde_json::from_str(&place.run(&["eval", "--model", &m, &text, "--range", range, "--json"]).ok()).unwrap()
    };
    let dev = eval("3000..4000");
    assert_eq!((&dev["records"], &dev["tokens"]), (&json!(1), &json!(1000)));
    let nats = report.best.unwrap().nats.unwrap();
    assert!((dev["nats_per_token"].as_f64().unwrap() - nats).abs() < 0.01, "{dev}, {nats} in training");
    assert_eq!(place.run(&["eval", "--model", &m, &text, "--range", "3000..40000"]).code, 2);
    // Whole, and the whole as tag gives it.
    let whole = place.run(&["score", "--model", &m, &text, "--json"]).ok();
    let whole: Value = serde_json::from_str(&whole).unwrap();
    let tagged = place.run(&["tag", "--model", &m, &text, "--output", "jsonl"]).ok();
    let last: Value = serde_json::from_str(tagged.lines().last().unwrap()).unwrap();
    assert_eq!((&last["log_probability"], &last["units"]), (&whole["log_probability"], &whole["units"]));
    assert_eq!(place.run(&["eval", "--model", &m, &text, "--as", "endless"]).code, 2);
    assert!(place.run(&["score", "--model", &m, &text, "--surprising"]).stderr.contains("no threshold"));
    assert_eq!(place.run(&["score", "--model", "ner", &text]).code, 2);

    let sample = |more: &[&str]| place.run(&[&["sample", "--model", &m, "--steps", "80"], more].concat()).ok();
    let one = sample(&["--seed", "3", "--prompt", "Ada "]);
    assert_eq!(one, sample(&["--seed", "3", "--prompt", "Ada "]), "the same seed, the same text");
    assert_ne!(one, sample(&["--seed", "4", "--prompt", "Ada "]));
    assert!(one.starts_with("Ada ") && one.chars().count() == 4 + 80 + 1, "{one:?}");
    let likeliest = sample(&["--temperature", "0"]);
    assert_eq!(likeliest, sample(&["--top-k", "1", "--seed", "9"]));
    assert_eq!(likeliest, sample(&["--top-p", "0.0001", "--seed", "8"]));
    for wrong in ["--temperature=-1", "--top-p=0", "--top-p=1.5"] {
        assert_eq!(place.run(&["sample", "--model", &m, wrong]).code, 2, "{wrong}");
    }
    assert_eq!(place.run(&["sample", "--model", "ner"]).code, 2);
}

#[test]
fn what_a_recipe_gets_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    sessions(&dir.path().join("train.txt"), 40, 1);
    sessions(&dir.path().join("dev.txt"), 40, 2);
    let error = |task: &str, changes: &[&str]| {
        train(&recipe(dir.path(), EVENTS, task, LINES, changes), false).unwrap_err().to_string()
    };
    assert!(error("softmax = \"adaptive\"", &[]).contains("needs cutoffs"));
    assert!(error("cutoffs = [3]", &[]).contains("for softmax = \"adaptive\""));
    assert!(error("softmax = \"adaptive\"\ncutoffs = [5, 5]", &[]).contains("must rise"));
    assert!(error("softmax = \"adaptive\"\ncutoffs = [100]", &[]).contains("there are only 10 units"));
    assert!(error("threshold_quantile = 1.0", &[]).contains("below 1"));
    assert!(error("threshold_quantile = 0.9", &["data.dev=[]"]).contains("data.dev is empty"));
    assert!(error("pooling = \"mean\"", &[]).contains("not for kind = \"language_model\""));
    assert!(error("", &["train.label_smoothing=0.1"]).contains("label_smoothing"));
    assert!(error("", &["encoder={kind=\"vector\", width=2}"]).contains("words"));
    assert!(error("", &["data.train=[{path=\"train.txt\", range=[0, 9]}]"]).contains("\"text\""));
    let text = ["data.format=text", "data.train=[{path=\"train.txt\", range=[0, 99999]}]"];
    assert!(error("", &text).contains("are no part of its"));
}

/// A place with a random language model of characters in `lm/`.
fn place_with_model() -> program::Place {
    let place = program::Place::new();
    std::fs::create_dir(place.path("lm")).unwrap();
    let spec = language_spec("lm", layers(&[Cell::Lstm], 8), chars_encoder(), &[6, 20]);
    random_model(&place.path("lm"), &spec, TEXT, 3).unwrap();
    place
}

fn daemon(place: &program::Place, data: &str) -> Daemon {
    let mut command = std::process::Command::new(daemon_harness::STRAND);
    command.args(["run", "--log-format", "json", "--http", "127.0.0.1:0", "--model"]).arg(place.path("lm"));
    command.arg("--data-dir").arg(place.path(data));
    Daemon::start(command)
}

#[test]
fn the_daemon_tells_the_surprise_of_each_unit_and_how_likely_the_stream_was() {
    let place = place_with_model();
    let daemon = daemon(&place, "data");
    let post = |query: &str, text: &str| daemon.post(&format!("/v1/streams/s?wait=1&{query}"), text).json();
    let first = post("", "Ada met ");
    assert_eq!((first["labels"].as_array().unwrap().len(), &first["units"]), (8, &json!(8)));
    let sum: f64 = first["labels"].as_array().unwrap().iter().map(|l| l["surprise"].as_f64().unwrap()).sum();
    assert!((first["log_probability"].as_f64().unwrap() + sum).abs() < 1e-4, "{first}");
    let label = &first["labels"][0];
    let (surprise, score) = (label["surprise"].as_f64().unwrap(), label["score"].as_f64().unwrap());
    assert!(((-surprise).exp() - score).abs() < 1e-6, "{label}");
    assert_eq!(label["label"], if surprise > 3.0 { "surprising" } else { "normal" });
    let second = post("event=end", "Babbage");
    assert_eq!((&second["units"], &second["final"]), (&json!(15), &json!(true)));
    place.file("in.txt", "Ada met Babbage");
    let scored: Value = serde_json::from_str(&place.run(&["score", "--model", "lm", "in.txt", "--json"]).ok()).unwrap();
    assert_eq!(
        (&scored["log_probability"], &scored["perplexity"]),
        (&second["log_probability"], &second["perplexity"])
    );
    assert_eq!(daemon.metric("strand_surprising_total"), scored["surprising"].as_f64().unwrap());
    assert_eq!(daemon.metric("strand_surprise_nats_count"), 15.0);
    // A reset tells how likely it was until then; what comes after it begins anew.
    post("", "Ada met ");
    let reset = post("event=reset", "");
    assert_eq!((&reset["log_probability"], &reset["units"]), (&first["log_probability"], &json!(8)));
    assert_eq!(post("", "Ada met ")["log_probability"], first["log_probability"]);
    let empty = daemon.post("/v1/streams/e?wait=1&event=end", "").json();
    assert_eq!((&empty["units"], &empty["perplexity"], &empty["labels"]), (&json!(0), &Value::Null, &json!([])));
    let check = place.run(&["check", "--model", "lm"]).ok();
    assert!(check.contains("model: lm") && check.contains("input.format: text"), "{check}");
}

#[test]
fn killed_in_the_middle_the_daemon_gives_the_same_surprises() {
    let place = place_with_model();
    let told = killed::in_the_middle(|data| daemon(&place, data));
    assert!(told.iter().all(|labels| labels.contains("log_probability")));
}
