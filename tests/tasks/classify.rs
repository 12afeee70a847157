//! One class for a stream: from training to the daemon, on small made-up data. However the input is cut, batched or
//! interrupted, estimates and the class at the end are the same, bit for bit.

use crate::daemon_harness;
use crate::daemon_harness::Daemon;
use crate::killed;
use crate::program;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use strand::encode::InputFormat;
use strand::model::testing::{TEXT, classes_spec, layers, random_model};
use strand::model::{Model, Output, Pooling, Session, StatePrecision, Stepper};
use strand::rnn::Cell;
use strand::train::trainer::train_until;
use strand::train::{Recipe, train};

const POOLINGS: [Pooling; 4] = [Pooling::Last, Pooling::Mean, Pooling::Max, Pooling::Attention];

/// Numbers from a generator.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
}

fn model(pooling: Pooling, every: Option<u64>) -> Arc<Model> {
    let dir = tempfile::tempdir().unwrap();
    random_model(dir.path(), &classes_spec("mood", layers(&[Cell::Lstm, Cell::Gru], 9), pooling, every), TEXT, 7)
        .unwrap();
    Arc::new(Model::load(dir.path()).unwrap())
}

/// Everything that an output says, to the bit.
fn told(output: &Output) -> Vec<(u64, u64, usize, u32)> {
    output.labels.iter().map(|l| (l.start, l.end, l.label, l.score.to_bits())).collect()
}

/// One stream in one piece.
fn in_one_pass(model: &Arc<Model>, text: &str) -> (Output, Session) {
    let (mut session, mut output) = (Session::new(model), Output::default());
    session.push(model, InputFormat::Text, text.as_bytes()).unwrap();
    session.finish_unit(model).unwrap();
    Stepper::new(model.clone()).step(&mut [&mut session], std::slice::from_mut(&mut output));
    session.conclude(model, &mut output);
    (output, session)
}

#[test]
fn estimates_do_not_depend_on_cuts_company_or_interruptions() {
    for pooling in POOLINGS {
        let model = model(pooling, Some(3));
        let texts = [TEXT.repeat(3), TEXT[200..].to_string(), "Ada".to_string()];
        let whole: Vec<Output> = texts.iter().map(|text| in_one_pass(&model, text).0).collect();
        let words = whole[0].steps;
        assert_eq!(whole[0].labels.len(), words / 3 + 1, "{pooling:?}: one every three words, one at the end");
        let scores: std::collections::BTreeSet<u32> = told(&whole[0]).iter().map(|told| told.3).collect();
        assert!(scores.len() > words / 6, "{pooling:?}: they go on changing");
        for output in &whole {
            for (label, p) in output.labels.iter().zip(output.probabilities.chunks_exact(3)) {
                assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                assert_eq!(p[label.label], label.score);
                assert!(p.iter().all(|&p| p <= label.score));
            }
        }
        // In pieces, together, and every session through its bytes after each round.
        let mut stepper = Stepper::new(model.clone());
        let mut sessions: Vec<Session> = texts.iter().map(|_| Session::new(&model)).collect();
        let mut outputs = vec![Output::default(); texts.len()];
        let mut pieces: Vec<_> = texts.iter().zip([7, 19, 1]).map(|(text, cut)| text.as_bytes().chunks(cut)).collect();
        let mut going = true;
        while std::mem::replace(&mut going, false) {
            for (session, pieces) in sessions.iter_mut().zip(&mut pieces) {
                match pieces.next() {
                    Some(piece) => {
                        going = true;
                        session.push(&model, InputFormat::Text, piece).unwrap();
                    }
                    None => session.finish_unit(&model).unwrap(),
                }
            }
            stepper.step(&mut sessions.iter_mut().collect::<Vec<_>>(), &mut outputs);
            for session in &mut sessions {
                let mut bytes = Vec::new();
                session.encode(&model, &mut bytes);
                let restored = Session::decode(&model, &bytes).unwrap();
                assert_eq!(restored, *session);
                *session = restored;
            }
        }
        for ((session, output), whole) in sessions.iter_mut().zip(&mut outputs).zip(&whole) {
            session.conclude(&model, output);
            assert_eq!((told(output), &output.probabilities), (told(whole), &whole.probabilities), "{pooling:?}");
            assert_eq!(output.steps, whole.steps);
        }
    }
}

#[test]
fn what_is_pooled_stays_exact_where_states_are_of_half_size() {
    for pooling in POOLINGS {
        let model = model(pooling, None);
        let (mut session, mut output) = (Session::kept(&model, StatePrecision::Bf16), Output::default());
        let mut stepper = Stepper::new(model.clone());
        // More steps than a bf16 could count, in two records.
        for _ in 0..2 {
            session.push(&model, InputFormat::Text, TEXT.repeat(5).as_bytes()).unwrap();
            stepper.step(&mut [&mut session], std::slice::from_mut(&mut output));
            let mut bytes = Vec::new();
            session.encode(&model, &mut bytes);
            assert_eq!(Session::decode(&model, &bytes).unwrap(), session);
        }
        assert!(output.steps > 600, "{}", output.steps);
        session.conclude(&model, &mut output);
        let whole = in_one_pass(&model, &TEXT.repeat(10)).0;
        let (kept, exact) = (output.labels[0].score, whole.labels[0].score);
        assert!((kept - exact).abs() < 0.02, "{pooling:?}: {kept}, {exact} with exact h and c");
    }
}

#[test]
fn a_reset_begins_anew_and_a_stream_without_a_step_has_no_class() {
    for pooling in POOLINGS {
        let model = model(pooling, None);
        let (mut fresh, mut session) = in_one_pass(&model, "Turin . ");
        assert_eq!(fresh.labels.len(), 1);
        session.reset();
        let mut again = Output::default();
        session.estimate(&model, &mut again);
        assert_eq!(again, Output::default(), "nothing was read since");
        session.push(&model, InputFormat::Text, b"Turin . ").unwrap();
        Stepper::new(model.clone()).step(&mut [&mut session], std::slice::from_mut(&mut again));
        session.conclude(&model, &mut again);
        // The same, further on.
        fresh.labels[0].start += 8;
        fresh.labels[0].end += 8;
        assert_eq!(again, fresh);
        let (nothing, _) = in_one_pass(&model, " \n ");
        assert_eq!((nothing.labels, nothing.spans), (vec![], vec![]));
    }
}

/// Recipe of a small classifier in `dir`, which also has its data.
fn recipe(dir: &Path, encoder: &str, task: &str, data: &str, changes: &[&str]) -> Recipe {
    let dir = dir.display();
    let text = format!(
        "layers = [{{ cell = \"gru\", hidden = 16 }}]\n[output]\ndir = \"{dir}/m\"\nrun = \"{dir}/run\"\nname = \"m\"\n\
         [task]\nkind = \"classify\"\n{task}\n[data]\nroot = \"{dir}\"\n{data}\n[encoder]\n{encoder}\n\
         [train]\nepochs = 6\nbatch = 16\nchunk = 12\nlr = 0.02\nwarmup = 5\nema = 0.9\n\
         dropout_input = 0.1\ndropout_layers = 0.1\n"
    );
    Recipe::parse(&text, changes).unwrap()
}

const WORDS: &str = "kind = \"words\"\nword_dim = 8\nchar_dim = 4\nchar_hidden = 4\nshape_dim = 2";
const LINES: &str = "format = \"lines\"\ntrain = [\"train.txt\"]\ndev = [\"dev.txt\"]";

/// `label text` lines: what is said of a thing, turned over by "not"; up to `longest` words.
fn reviews(path: &Path, lines: usize, longest: usize, seed: u64) {
    let (mut random, mut text) = (Random(seed), String::new());
    for _ in 0..lines {
        let (good, not) = (random.below(2) == 1, random.below(3) == 0);
        let mut words: Vec<&str> =
            (0..random.below(longest)).map(|_| ["the", "film", "was", "a", "plot"][random.below(5)]).collect();
        let at = random.below(words.len() + 1);
        words.insert(at, [["dull", "sad", "bad"], ["fine", "fun", "great"]][usize::from(good)][random.below(3)]);
        if not {
            words.insert(at, "not");
        }
        text += &format!("{}\t{} .\n", if good != not { "pro" } else { "con" }, words.join(" "));
    }
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_training_is_the_same_on_any_threads_and_after_an_interruption() {
    let dir = tempfile::tempdir().unwrap();
    reviews(&dir.path().join("train.txt"), 600, 30, 1);
    reviews(&dir.path().join("dev.txt"), 200, 30, 2);
    let weights = || std::fs::read(dir.path().join("m/weights.safetensors")).unwrap();
    let of = |pooling: &str, changes: &[&str]| {
        recipe(dir.path(), WORDS, &format!("pooling = \"{pooling}\""), LINES, changes)
    };
    for pooling in ["last", "mean", "max", "attention"] {
        let report = train(&of(pooling, &["train.threads=1"]), false).unwrap();
        assert!(report.best.as_ref().unwrap().accuracy > 0.9, "{pooling}: {}", report.best.unwrap());
    }
    let whole = weights();
    train_until(&of("attention", &["train.threads=3"]), false, 2).unwrap();
    train(&of("attention", &["train.threads=2"]), true).unwrap();
    assert!(weights() == whole, "resumed on other threads it has other weights");
    let model = Model::load(&dir.path().join("m")).unwrap();
    assert_eq!(model.spec().labels, ["con", "pro"]);
    assert_ne!(model.spec().classify.as_ref().unwrap().temperature, 1.0, "it was fitted on dev");
}

/// Single steps: the class of a point by its quadrant, and of an event by what it is.
#[test]
fn one_to_one_a_stream_of_a_single_step_has_a_class() {
    let dir = tempfile::tempdir().unwrap();
    let points = |path: &str, lines: usize, seed: u64| {
        let mut random = Random(seed);
        let mut coordinate = || random.below(2001) as f64 / 1000.0 - 1.0;
        let line = |(x, y): (f64, f64)| {
            let class = ["south-west", "south-east", "north-west", "north-east"]
                [2 * usize::from(y > 0.0) + usize::from(x > 0.0)];
            json!({"vector": [x, y], "label": class}).to_string() + "\n"
        };
        let text: String = (0..lines).map(|_| line((coordinate(), coordinate()))).collect();
        std::fs::write(dir.path().join(path), text).unwrap();
    };
    points("train.jsonl", 1500, 1);
    points("dev.jsonl", 300, 2);
    points("test.jsonl", 300, 3);
    let data = "format = \"jsonl\"\ntrain = [\"train.jsonl\"]\ndev = [\"dev.jsonl\"]";
    train(&recipe(dir.path(), "kind = \"vector\"\nwidth = 2", "pooling = \"last\"", data, &[]), false).unwrap();
    let place = program::Place::new();
    let (m, test) = (dir.path().join("m"), dir.path().join("test.jsonl"));
    let (m, test) = (m.to_str().unwrap(), test.to_str().unwrap());
    let score: Value = serde_json::from_str(&place.run(&["eval", "--model", m, test, "--json"]).ok()).unwrap();
    assert_eq!((&score["task"], &score["records"], &score["tokens"]), (&json!("classify"), &json!(300), &json!(300)));
    assert!(score["accuracy"].as_f64().unwrap() > 0.95, "{score}");
    assert!(score["calibration_error"].as_f64().unwrap() < 0.1, "{score}");
    let one = place.run_with(&["tag", "--model", m, "--format", "jsonl"], "{\"vector\":[0.7,-0.9]}\n").ok();
    let one: Value = serde_json::from_str(&one).unwrap();
    let label = &one["labels"][0];
    assert_eq!((&label["label"], &label["start"], &label["end"]), (&json!("south-east"), &json!(0), &json!(1)));
    assert_eq!((&one["final"], one["labels"].as_array().unwrap().len()), (&json!(true), 1));
    assert_eq!(label["probabilities"].as_object().unwrap().len(), 4);

    let kinds =
        [("login", "people"), ("logout", "people"), ("boot", "machine"), ("fan", "machine"), ("rain", "weather")];
    let lines: String = (0..300).map(|k| format!("{1} {0}\n", kinds[k % 5].0, kinds[k % 5].1)).collect();
    std::fs::write(dir.path().join("train.txt"), &lines).unwrap();
    std::fs::write(dir.path().join("dev.txt"), &lines[..400]).unwrap();
    train(&recipe(dir.path(), "kind = \"events\"\ndim = 8", "pooling = \"mean\"", LINES, &[]), false).unwrap();
    let tagged = place
        .run_with(&["tag", "--model", m, "--format", "tokens", "--lines", "--output", "conll"], "fan\nrain\nlogin\n");
    assert_eq!(tagged.ok(), "standard input:1\tmachine\nstandard input:2\tweather\nstandard input:3\tpeople\n");
}

/// The recipe of `examples/stars.toml`, smaller and faster.
fn example(dir: &Path) -> Recipe {
    let dir = dir.display();
    let changes = [
        &format!("output.dir={dir}/m") as &str,
        &format!("output.run={dir}/run"),
        &format!("data.root={dir}"),
        "layers=[{cell=\"gru\", hidden=16}]",
        "train.epochs=8",
        "train.batch=16",
        "train.lr=0.02",
        "train.warmup=5",
        "train.ema=0.9",
        "train.dropout_input=0.1",
        "train.dropout_layers=0.1",
        "train.word_dropout=0.0",
    ];
    Recipe::parse(include_str!("../../examples/stars.toml"), &changes).unwrap()
}

#[test]
fn classes_in_order_are_missed_by_little() {
    let dir = tempfile::tempdir().unwrap();
    // Stars: how many of eight words are loud, one more or less now and then.
    let stars = |path: &str, lines: usize, seed: u64| {
        let (mut random, mut text) = (Random(seed), String::new());
        for _ in 0..lines {
            let loud = random.below(9);
            let words: Vec<&str> = (0..8).map(|k| if k < loud { "wow" } else { "hm" }).collect();
            let star = (2 + loud + random.below(3)).clamp(3, 9) / 2 + 6;
            text += &format!("{star} {}\n", words.join(" "));
        }
        std::fs::write(dir.path().join(path), text).unwrap();
    };
    stars("stars.train.txt", 800, 1);
    stars("stars.dev.txt", 300, 2);
    let report = train(&example(dir.path()), false).unwrap().best.unwrap();
    let model = Model::load(&dir.path().join("m")).unwrap();
    assert_eq!(model.spec().labels, ["7", "8", "9", "10"], "by their value, not their spelling");
    let error = report.mean_absolute_error.unwrap();
    assert!(error < 0.35 && report.accuracy > 0.65, "{report}");
    let place = program::Place::new();
    let (m, dev) = (dir.path().join("m"), dir.path().join("stars.dev.txt"));
    let eval = place.run(&["eval", "--model", m.to_str().unwrap(), dev.to_str().unwrap(), "--json"]).ok();
    let eval: Value = serde_json::from_str(&eval).unwrap();
    assert!((eval["mean_absolute_error"].as_f64().unwrap() - error).abs() < 1e-9, "{eval}, {error} in training");
}

#[test]
fn what_a_recipe_gets_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    reviews(&dir.path().join("train.txt"), 60, 5, 1);
    reviews(&dir.path().join("dev.txt"), 10, 5, 2);
    let error = |task: &str, changes: &[&str]| {
        train(&recipe(dir.path(), WORDS, task, LINES, changes), false).unwrap_err().to_string()
    };
    assert!(error("", &[]).contains("last, mean, max or attention"));
    assert!(error("pooling = \"mean\"\nscheme = \"bio\"", &[]).contains("for kind = \"tag\""));
    assert!(error("pooling = \"mean\"\nordinal = -1.0", &[]).contains("above 0"));
    assert!(error("pooling = \"mean\"\nevery = 0", &[]).contains("at least 1"));
    assert!(error("pooling = \"mean\"\nlabels = [\"pro\"]", &[]).contains("\"con\" is none of the model's"));
    assert!(error("pooling = \"mean\"", &["data.format=conll"]).contains("\"lines\" or \"jsonl\""));
    assert!(error("pooling = \"mean\"", &["train.batch=100"]).contains("60 streams are too few"));
    let last = "data.train=[{path=\"train.txt\", label_at=\"none\"}]";
    assert!(error("pooling = \"mean\"", &[last]).contains("go together"));
}

/// A place with the random classifier in `mood/`.
fn place_with_classes(every: Option<u64>) -> program::Place {
    let place = program::Place::new();
    std::fs::create_dir(place.path("mood")).unwrap();
    let spec = classes_spec("mood", layers(&[Cell::Lstm], 8), Pooling::Attention, every);
    random_model(&place.path("mood"), &spec, TEXT, 3).unwrap();
    place
}

#[test]
fn tag_shows_the_class_of_each_stream_in_every_form() {
    let place = place_with_classes(Some(4));
    place.file("in.txt", "Ada met Babbage in London today .\n\nTurin\n");
    let tag = |more: &[&str]| place.run(&[&["tag", "--model", "mood", "in.txt", "--lines"], more].concat()).ok();
    let records: Vec<Value> = tag(&[]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ends: Vec<u64> = records[0]["labels"].as_array().unwrap().iter().map(|l| l["end"].as_u64().unwrap()).collect();
    assert_eq!((records.len(), ends), (2, vec![18, 33]), "after four words, and at the end");
    let class = |k: usize, n: usize| records[k]["labels"][n]["label"].as_str().unwrap();
    let wanted = format!("in.txt:1\t{}\nin.txt:1\t{}\nin.txt:3\t{}\n", class(0, 0), class(0, 1), class(1, 0));
    assert_eq!(tag(&["--output", "conll"]), wanted);
    let shown = tag(&["--output", "ansi"]);
    assert!(
        shown.lines().last().unwrap().starts_with(class(1, 0)) && shown.trim_end().ends_with("%  Turin"),
        "{shown}"
    );
    assert_eq!(tag(&["--threads", "3"]), tag(&["--threads", "1"]));
    assert_eq!(place.run(&["tag", "--model", "mood", "in.txt", "--output", "gff3"]).code, 2);
    let empty = place.run_with(&["tag", "--model", "mood", "--output", "jsonl"], " \n").ok();
    let last: Value = serde_json::from_str(empty.lines().last().unwrap()).unwrap();
    assert_eq!((&last["labels"], &last["final"], &last["empty"]), (&json!([]), &json!(true), &json!(true)));
    assert!(
        place.run(&["model", "show", "mood"]).ok().contains("every 4 steps and at the end, outputs pooled: attention")
    );
}

#[test]
fn eval_finds_the_labels_and_says_what_it_does_not_know() {
    let place = place_with_classes(None);
    let eval = |more: &[&str]| place.run(&[&["eval", "--model", "mood", "--json"], more].concat());
    let json = |more: &[&str]| -> Value { serde_json::from_str(&eval(more).ok()).unwrap() };
    place.file("named.txt", "good Ada met Babbage .\nbad Turin\n\nfair London , London\n");
    place.file("numbers.txt", "Ada met Babbage .\t2\nTurin\t0\nLondon , London\t1\n");
    place.file("other.txt", "+ Ada met Babbage .\n- Turin\n");
    place.file(
        "in.jsonl",
        "{\"tokens\":[\"Ada\",\"met\",\"Babbage\",\".\"],\"label\":\"good\"}\n{\"text\":\"Turin\",\"label\":0}\n",
    );
    let named = json(&["named.txt"]);
    assert_eq!((&named["task"], &named["records"], &named["tokens"]), (&json!("classify"), &json!(3), &json!(8)));
    assert_eq!(named, json(&["numbers.txt"]), "numbers count the labels from 0");
    assert_eq!(named["per_label"]["good"]["support"], 1);
    assert!((0.0..=1.0).contains(&named["calibration_error"].as_f64().unwrap()));
    assert_eq!(json(&["other.txt", "--map", "+=good,-=bad"]), json(&["in.jsonl"]));
    assert_eq!(json(&["named.txt", "--from", "tokens"])["tokens"], 8);
    let unknown = eval(&["other.txt"]);
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.stderr.contains("line 1: `+` is none of the labels bad, fair, good of `mood`"),
        "{}",
        unknown.stderr
    );
    assert_eq!(eval(&["named.txt", "--as", "endless"]).code, 2);
    let table = place.run(&["eval", "--model", "mood", "named.txt"]).ok();
    assert!(table.contains("% of streams") && table.contains("calibration error"), "{table}");
}

fn daemon(place: &program::Place, data: &str) -> Daemon {
    let mut command = std::process::Command::new(daemon_harness::STRAND);
    command.args(["run", "--log-format", "json", "--http", "127.0.0.1:0", "--model"]).arg(place.path("mood"));
    command.arg("--data-dir").arg(place.path(data));
    Daemon::start(command)
}

#[test]
fn the_daemon_estimates_on_request_and_concludes_at_the_end() {
    let place = place_with_classes(None);
    let daemon = daemon(&place, "data");
    let post = |query: &str, text: &str| daemon.post(&format!("/v1/streams/s?wait=1&{query}"), text).json();
    assert_eq!(post("", "Ada met Bab")["labels"], json!([]), "nothing is final");
    let flushed = post("event=flush", "bage");
    let label = &flushed["labels"][0];
    assert_eq!((&flushed["final"], &label["start"], &label["end"]), (&json!(false), &json!(0), &json!(15)));
    assert_eq!(
        (&label["text"], &label["probabilities"][label["label"].as_str().unwrap()]),
        (&json!(""), &label["score"])
    );
    let reset = post("event=reset", " Turin ");
    assert_eq!(reset["labels"][0], *label, "what was so far, once more");
    let ended = post("event=end", "");
    let label = &ended["labels"][0];
    assert_eq!((&ended["final"], &label["start"], &label["end"]), (&json!(true), &json!(16), &json!(21)));
    assert_eq!((&ended["spans"], &ended["empty"]), (&json!([]), &Value::Null));
    let empty = post("event=end", " \n");
    assert_eq!((&empty["labels"], &empty["final"], &empty["empty"]), (&json!([]), &json!(true), &json!(true)));
    assert_eq!(
        ["bad", "fair", "good"]
            .map(|l| daemon.metric(&format!("strand_labels_total{{label=\"{l}\"}}")))
            .iter()
            .sum::<f64>(),
        3.0
    );
}

#[test]
fn killed_in_the_middle_the_daemon_gives_the_same_classes() {
    let place = place_with_classes(Some(5));
    let told = killed::in_the_middle(|data| daemon(&place, data));
    assert!(told.iter().all(|labels| labels.contains("probabilities")));
}
