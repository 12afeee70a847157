//! Transcripts of streams: loss and gradients as PyTorch's, training on small made-up data, what is found however the input
//! is cut, batched or interrupted, and the daemon.

use crate::daemon_harness;
use crate::daemon_harness::Daemon;
use crate::killed;
use crate::program;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use strand::encode::{CharSpec, EncoderSpec, InputFormat, VectorSpec};
use strand::model::testing::{TEXT, layers, random_model, transcripts_spec};
use strand::model::{DecodeKind, DecodeSpec, LookAhead, Model, ModelSpec, Output, Session, Span, Stepper};
use strand::rnn::Cell;
use strand::train::ctc::{Ctc, fits};
use strand::train::{Recipe, train};

/// A case of `torch_ctc.py`.
#[derive(Deserialize)]
struct Golden {
    classes: usize,
    x: Vec<f64>,
    transcript: Vec<u32>,
    weight: f64,
    fits: bool,
    loss: f64,
    gradient: Vec<f64>,
}

#[test]
fn loss_and_gradients_are_those_of_pytorchs_ctc_loss() {
    let cases: Vec<Golden> = serde_json::from_slice(&std::fs::read("tests/golden/ctc.json").unwrap()).unwrap();
    assert!(cases.iter().any(|case| !case.fits) && cases.iter().any(|case| case.transcript.is_empty()));
    let mut ctc = Ctc::default();
    for (k, case) in cases.iter().enumerate() {
        let mut x = case.x.clone();
        assert_eq!(fits(x.len() / case.classes, &case.transcript), case.fits, "case {k}");
        let loss = ctc.loss(&mut x, case.classes, &case.transcript, case.weight);
        assert_eq!(loss.is_some(), case.fits, "case {k}");
        let loss = loss.unwrap_or(0.0);
        assert!((loss - case.loss).abs() < 1e-9 * case.loss.max(1.0), "case {k}: {loss}, PyTorch has {}", case.loss);
        for (at, (got, want)) in x.iter().zip(&case.gradient).enumerate() {
            assert!((got - want).abs() < 1e-9, "case {k}, number {at}: {got}, PyTorch has {want}");
        }
    }
}

/// Numbers from a generator.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }

    fn noise(&mut self) -> f64 {
        self.below(1000) as f64 / 2000.0 - 0.25
    }
}

/// Words of a few letters, "spoken": a letter is a few noisy frames with its number high, and there is a pause after each
/// letter and each word.
fn utterance(random: &mut Random) -> (String, Vec<Vec<f64>>) {
    let (mut transcript, mut frames) = (String::new(), Vec::new());
    let mut hold = |random: &mut Random, which: Option<usize>, steps: usize| {
        for _ in 0..steps {
            frames.push((0..3).map(|k| f64::from(Some(k) == which) + random.noise()).collect::<Vec<f64>>());
        }
    };
    for word in 0..random.below(3) {
        if word > 0 {
            transcript.push(' ');
            hold(random, None, 6);
        }
        for _ in 0..1 + random.below(3) {
            let letter = random.below(3);
            transcript.push(['a', 'b', 'c'][letter]);
            let (sounds, pause) = (2 + random.below(3), 1 + random.below(2));
            hold(random, Some(letter), sounds);
            hold(random, None, pause);
        }
    }
    hold(random, None, 4);
    (transcript, frames)
}

fn utterances(path: &Path, count: usize, seed: u64) {
    let mut random = Random(seed);
    let line = |_| {
        let (transcript, frames) = utterance(&mut random);
        json!({"transcript": transcript, "vector": frames}).to_string() + "\n"
    };
    std::fs::write(path, (0..count).map(line).collect::<String>()).unwrap();
}

/// Recipe of a small transcriber in `dir`, which also has its data.
fn recipe(dir: &Path, changes: &[&str]) -> Recipe {
    let dir = dir.display();
    let text = format!(
        "layers = [{{ cell = \"lstm\", hidden = 24 }}]\n[output]\ndir = \"{dir}/m\"\nrun = \"{dir}/run\"\nname = \"m\"\n\
         [task]\nkind = \"transcribe\"\n[data]\nroot = \"{dir}\"\nformat = \"jsonl\"\ntrain = [\"train.jsonl\"]\n\
         dev = [\"dev.jsonl\"]\n[encoder]\nkind = \"vector\"\nwidth = 3\n\
         [train]\nepochs = 12\nbatch = 16\nchunk = 80\nlr = 0.02\nwarmup = 10\ndropout_input = 0.0\ndropout_layers = 0.0\n"
    );
    Recipe::parse(&text, changes).unwrap()
}

#[test]
fn a_transcriber_learns_to_read_frames_and_its_binary_says_what_it_read() {
    let place = program::Place::new();
    utterances(&place.path("train.jsonl"), 300, 1);
    utterances(&place.path("dev.jsonl"), 60, 2);
    utterances(&place.path("test.jsonl"), 60, 3);
    let beam = ["decode.kind=beam", "decode.beam=8", "decode.lag=24", "train.epochs=30"];
    let report = train(&recipe(&place.path(""), &beam), false).unwrap();
    let [symbols, _] = report.best.unwrap().errors.unwrap();
    assert!(symbols < 0.05, "symbol error rate {symbols}");
    let eval: Value = serde_json::from_str(&place.run(&["eval", "--model", "m", "test.jsonl", "--json"]).ok()).unwrap();
    assert_eq!((&eval["task"], &eval["records"]), (&json!("transcribe"), &json!(60)));
    let rate = eval["word_error_rate"].as_f64().unwrap();
    assert!(rate < 0.1 && eval["character_error_rate"].as_f64().unwrap() < 0.05, "{eval}");
    assert!(place.run(&["eval", "--model", "m", "test.jsonl"]).ok().contains("words"));

    // Spans are the words, labels the symbols, each within its stream.
    let gold = std::fs::read_to_string(place.path("test.jsonl")).unwrap();
    let gold: Vec<Value> = gold.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lines = place.run(&["tag", "--model", "m", "test.jsonl"]).ok();
    let mut right = 0;
    for (line, gold) in lines.lines().zip(&gold) {
        let record: Value = serde_json::from_str(line).unwrap();
        let words: Vec<&str> =
            record["spans"].as_array().unwrap().iter().map(|span| span["label"].as_str().unwrap()).collect();
        assert_eq!(words.join(" "), record["transcript"].as_str().unwrap().trim());
        let steps = gold["vector"].as_array().unwrap().len() as u64;
        let labels = record["labels"].as_array().unwrap();
        let ends: Vec<u64> = labels.iter().map(|label| label["end"].as_u64().unwrap()).collect();
        assert!(ends.iter().all(|&end| end <= steps) && ends.is_sorted());
        assert!(
            labels
                .iter()
                .all(|label| label["text"] == label["label"] && label["start"].as_u64() < label["end"].as_u64())
        );
        right += usize::from(record["transcript"] == gold["transcript"]);
    }
    assert!(right > 50, "{right} of 60");
    let columns = place.run(&["tag", "--model", "m", "test.jsonl", "--output", "conll"]).ok();
    let given: Vec<&str> = columns.lines().map(|line| line.split_once('\t').unwrap().1).collect();
    assert_eq!(given.iter().zip(&gold).filter(|(given, gold)| **given == gold["transcript"]).count(), right);
    let shown = place.run(&["tag", "--model", "m", "test.jsonl", "--output", "ansi"]).ok();
    assert!(given.iter().filter(|text| !text.is_empty()).all(|text| shown.contains(text)), "{shown}");
    assert!(place.run(&["model", "show", "m"]).ok().contains("beam of 8, lag 24"));
}

#[test]
fn a_transcriber_that_looks_ahead_learns_too() {
    let dir = tempfile::tempdir().unwrap();
    utterances(&dir.path().join("train.jsonl"), 200, 1);
    utterances(&dir.path().join("dev.jsonl"), 60, 2);
    for ahead in [&["look_ahead.steps=4"][..], &[]] {
        let layer = "layers=[{cell=\"gru\", hidden=16, bidirectional=true}]";
        let report = train(&recipe(dir.path(), &[&["train.epochs=20", layer], ahead].concat()), false).unwrap();
        let [symbols, _] = report.best.unwrap().errors.unwrap();
        assert!(symbols < 0.1, "symbol error rate {symbols}");
        std::fs::remove_dir_all(dir.path().join("m")).unwrap();
    }
}

#[test]
fn words_may_be_the_symbols() {
    let place = program::Place::new();
    utterances(&place.path("train.jsonl"), 100, 1);
    utterances(&place.path("dev.jsonl"), 10, 2);
    let changes = ["task.symbols=words", "train.epochs=1", "data.train=[{path=\"train.jsonl\", repeat=2}]"];
    train(&recipe(&place.path(""), &changes), false).unwrap();
    let shown = place.run(&["model", "show", "m"]).ok();
    assert!(shown.contains("aa") && shown.contains("cb"), "{shown}");
}

#[test]
fn what_a_recipe_gets_wrong_is_said() {
    let dir = tempfile::tempdir().unwrap();
    utterances(&dir.path().join("train.jsonl"), 40, 1);
    utterances(&dir.path().join("dev.jsonl"), 10, 2);
    let error = |changes: &[&str]| train(&recipe(dir.path(), changes), false).unwrap_err().to_string();
    let long = error(&["train.chunk=20"]);
    assert!(long.contains("steps, more than train.chunk = 20") && long.contains("raise train.chunk"), "{long}");
    assert!(error(&["data.format=conll"]).contains("\"jsonl\""));
    assert!(error(&["task.pooling=mean"]).contains("not for kind = \"transcribe\""));
    assert!(error(&["train.label_smoothing=0.1"]).contains("label_smoothing"));
    assert!(error(&["decode.kind=crf"]).contains("greedy or beam"));
    assert!(error(&["decode.kind=beam"]).contains("decode.lag = 0"));
    assert!(error(&["decode.kind=beam", "decode.lag=8", "decode.beam=65"]).contains("must be 1 to 64"));
    assert!(error(&["decode.kind=greedy", "decode.lag=8"]).contains("are for decode.kind = \"beam\""));
    assert!(error(&["train.batch=100"]).contains("too few for a batch"));
    std::fs::write(dir.path().join("train.jsonl"), "{\"vector\":[[1,2,3]],\"label\":\"a\"}\n").unwrap();
    assert!(error(&[]).contains("line 1: expected the key `transcript`"));
}

fn decodes() -> [Option<DecodeSpec>; 3] {
    let beam = |beam, lag| Some(DecodeSpec { kind: DecodeKind::Beam, lag, beam: Some(beam) });
    [None, beam(6, 20), beam(16, 3)]
}

fn vectors(decode: Option<DecodeSpec>, look_ahead: Option<LookAhead>) -> ModelSpec {
    let mut layers = layers(&[Cell::Lstm, Cell::Gru], 9);
    layers[0].bidirectional = look_ahead.is_some();
    let encoder = EncoderSpec::Vector(VectorSpec { width: 2 });
    ModelSpec { decode, look_ahead, ..transcripts_spec("v", layers, encoder, "ab c") }
}

fn loaded(spec: &ModelSpec, seed: u64) -> Arc<Model> {
    let dir = tempfile::tempdir().unwrap();
    random_model(dir.path(), spec, TEXT, seed).unwrap();
    Arc::new(Model::load(dir.path()).unwrap())
}

/// A label, to the bit.
type Told = (u64, u64, String, u32);

/// Everything that an output says.
fn told(output: &Output) -> (Vec<Told>, Vec<Span>) {
    let label = |l: &strand::model::StepLabel| (l.start, l.end, l.text.clone(), l.score.to_bits());
    (output.labels.iter().map(label).collect(), output.spans.clone())
}

/// Steps as records of little-endian numbers.
fn bytes(random: &mut Random, steps: usize) -> Vec<u8> {
    (0..2 * steps).flat_map(|_| (6.0 * random.noise() as f32).to_le_bytes()).collect()
}

/// Ends a stream.
fn concluded(model: &Arc<Model>, session: &mut Session, output: &mut Output) {
    session.finish_unit(model).unwrap();
    Stepper::new(model.clone()).step(&mut [&mut *session], std::slice::from_mut(output));
    session.conclude(model, output);
    output.spans.extend(session.end());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn transcripts_do_not_depend_on_cuts_company_or_interruptions(
        lengths in prop::collection::vec(1usize..150, 1..6),
        cuts in prop::collection::vec(1usize..30, 1..5),
        which in 0usize..3,
        ahead in prop::option::of(0usize..5),
        seed: u64,
    ) {
        let look_ahead = ahead.map(|steps| LookAhead { steps, block: None });
        let model = loaded(&vectors(decodes()[which].clone(), look_ahead), seed);
        let mut random = Random(seed);
        let inputs: Vec<Vec<u8>> = lengths.iter().map(|&steps| bytes(&mut random, steps)).collect();
        let mut sessions: Vec<Session> = inputs.iter().map(|_| Session::new(&model)).collect();
        let mut outputs = vec![Output::default(); inputs.len()];
        let (mut stepper, mut at, mut round) = (Stepper::new(model.clone()), vec![0; inputs.len()], 0);
        while at.iter().zip(&inputs).any(|(&at, input)| at < input.len()) {
            for (k, (session, input)) in sessions.iter_mut().zip(&inputs).enumerate() {
                let piece = (8 * cuts[(round + 3 * k) % cuts.len()]).min(input.len() - at[k]);
                session.push(&model, InputFormat::Vector, &input[at[k]..at[k] + piece]).unwrap();
                at[k] += piece;
            }
            stepper.step(&mut sessions.iter_mut().collect::<Vec<_>>(), &mut outputs);
            for session in &mut sessions {
                let mut bytes = Vec::new();
                session.encode(&model, &mut bytes);
                let restored = Session::decode(&model, &bytes).unwrap();
                prop_assert_eq!(&restored, &*session);
                *session = restored;
            }
            round += 1;
        }
        for ((session, output), input) in sessions.iter_mut().zip(&mut outputs).zip(&inputs) {
            concluded(&model, session, output);
            let (mut alone, mut whole) = (Session::new(&model), Output::default());
            alone.push(&model, InputFormat::Vector, input).unwrap();
            concluded(&model, &mut alone, &mut whole);
            prop_assert_eq!(told(output), told(&whole));
        }
    }
}

#[test]
fn a_saved_state_that_is_damaged_is_refused() {
    for decode in decodes() {
        let model = loaded(&vectors(decode, None), 5);
        let mut session = Session::new(&model);
        session.push(&model, InputFormat::Vector, &bytes(&mut Random(4), 33)).unwrap();
        Stepper::new(model.clone()).step(&mut [&mut session], &mut [Output::default()]);
        let mut saved = Vec::new();
        session.encode(&model, &mut saved);
        for at in 0..saved.len() - 4 {
            for bit in [0x01, 0x80] {
                let mut damaged = saved.clone();
                damaged[at] ^= bit;
                assert!(Session::decode(&model, &damaged).is_err(), "byte {at}");
                // With a checksum that fits it is taken only if it can go on.
                let body = damaged.len() - 4;
                let sum = crc32fast::hash(&damaged[..body]);
                damaged[body..].copy_from_slice(&sum.to_le_bytes());
                if let Ok(mut session) = Session::decode(&model, &damaged) {
                    session.push(&model, InputFormat::Vector, &bytes(&mut Random(4), 5)).unwrap();
                    concluded(&model, &mut session, &mut Output::default());
                }
            }
        }
    }
}

fn daemon(place: &program::Place, model: &str, data: &str) -> Daemon {
    let mut command = std::process::Command::new(daemon_harness::STRAND);
    command.args(["run", "--log-format", "json", "--http", "127.0.0.1:0", "--model"]).arg(place.path(model));
    command.arg("--data-dir").arg(place.path(data));
    Daemon::start(command)
}

fn place_with(spec: &ModelSpec, seed: u64) -> program::Place {
    let place = program::Place::new();
    std::fs::create_dir(place.path("t")).unwrap();
    random_model(&place.path("t"), spec, TEXT, seed).unwrap();
    place
}

#[test]
fn the_daemon_tells_symbols_as_they_become_final() {
    let decode = Some(DecodeSpec { kind: DecodeKind::Beam, lag: 6, beam: Some(8) });
    let place = place_with(&vectors(decode, None), 11);
    let daemon = daemon(&place, "t", "data");
    let mut random = Random(9);
    let mut frames = |n: usize| json!((0..n).map(|_| [3.0 * random.noise(), 3.0 * random.noise()]).collect::<Vec<_>>());
    let post =
        |query: &str, body: &Value| daemon.post(&format!("/v1/streams/s?wait=1&{query}"), body.to_string()).json();
    let mut transcript = String::new();
    for _ in 0..20 {
        let told = post("", &frames(5));
        transcript += told["transcript"].as_str().unwrap();
    }
    assert!(!transcript.is_empty(), "symbols come before the end");
    // Nothing waits after a flush, nor at the end.
    post("event=flush", &frames(3));
    assert_eq!(post("event=end", &json!([]))["transcript"], "");
    let wrong = daemon.post("/v1/streams/s?wait=1", "[[1,2,3]]");
    assert_eq!(wrong.status, 422, "{}", wrong.body);
}

#[test]
fn killed_in_the_middle_the_daemon_gives_the_same_transcripts() {
    let mut random = Random(5);
    for decode in decodes() {
        let place = place_with(&vectors(decode, None), 3);
        let piece = || {
            json!((0..1 + random.below(12)).map(|_| [3.0 * random.noise(), 3.0 * random.noise()]).collect::<Vec<_>>())
        };
        let told = killed::in_the_middle_of(&killed::records_of(piece), |data| daemon(&place, "t", data));
        assert!(told.iter().any(|records| records.contains("\"text\":\"a\"")));
    }
}

#[test]
fn characters_are_transcribed_as_well() {
    let encoder = EncoderSpec::Chars(CharSpec { dim: 5, min_count: 1, ..CharSpec::default() });
    let decode = decodes()[1].clone();
    let place = place_with(&ModelSpec { decode, ..transcripts_spec("c", layers(&[Cell::Gru], 8), encoder, "xyz") }, 3);
    killed::in_the_middle(|data| daemon(&place, "t", data));
}
