//! Labels that wait for their neighbours: the same however the stream is cut, batched, saved and restored, through the
//! library, `strand tag` and a daemon that is killed; only legal sequences; and `strand train` learns a CRF.

use crate::daemon_harness::{Daemon, Place, STRAND};
use crate::faults::{Expected, Load, Shape};
use proptest::prelude::*;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strand::encode::InputFormat;
use strand::model::testing::{TEXT, layers, random_model, words_spec};
use strand::model::{DecodeKind, DecodeSpec, Model, ModelSpec, Output, Session, Stepper};
use strand::rnn::Cell;
use strand::train::Recipe;

fn spec(kind: DecodeKind, lag: usize) -> ModelSpec {
    ModelSpec { decode: Some(DecodeSpec { kind, lag, beam: None }), ..words_spec("w", layers(&[Cell::Lstm], 12)) }
}

fn model(spec: &ModelSpec, seed: u64) -> Arc<Model> {
    let dir = tempfile::tempdir().unwrap();
    random_model(dir.path(), spec, TEXT, seed).unwrap();
    Arc::new(Model::load(dir.path()).unwrap())
}

/// What a stream is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    GoesOn,
    Flush,
    Reset,
}

/// Labels with the scores' bits, and spans.
type Told = (Vec<(u64, u64, String, usize, u32)>, Vec<(u64, u64, String)>);

fn told(output: &Output) -> Told {
    let labels = output.labels.iter().map(|l| (l.start, l.end, l.text.clone(), l.label, l.score.to_bits()));
    (labels.collect(), output.spans.iter().map(|s| (s.start, s.end, s.label.clone())).collect())
}

/// One stream alone, record after record.
fn alone(model: &Arc<Model>, records: &[(String, Then)]) -> Told {
    let (mut session, mut output, mut stepper) = (Session::new(model), Output::default(), Stepper::new(model.clone()));
    for (text, then) in records {
        session.push(model, InputFormat::Text, text.as_bytes()).unwrap();
        after(model, &mut stepper, &mut session, *then, &mut output);
    }
    end(model, &mut stepper, &mut session, &mut output);
    told(&output)
}

fn after(model: &Model, stepper: &mut Stepper, session: &mut Session, then: Then, output: &mut Output) {
    if then != Then::GoesOn {
        session.finish_unit(model).unwrap();
        stepper.step(&mut [session], std::slice::from_mut(output));
    }
    match then {
        Then::GoesOn => {}
        Then::Flush => session.settle(model, output),
        Then::Reset => {
            session.conclude(model, output);
            output.spans.extend(session.reset());
        }
    }
}

fn end(model: &Model, stepper: &mut Stepper, session: &mut Session, output: &mut Output) {
    session.finish_unit(model).unwrap();
    stepper.step(&mut [session], std::slice::from_mut(output));
    session.conclude(model, output);
    output.spans.extend(session.end());
}

/// All streams, cut anew, stepped together in rounds, and saved and read back after each.
fn together(model: &Arc<Model>, streams: &[Vec<(String, Then)>], cuts: &[usize]) -> Vec<Told> {
    let mut stepper = Stepper::new(model.clone());
    let mut sessions: Vec<Session> = streams.iter().map(|_| Session::new(model)).collect();
    let mut outputs = vec![Output::default(); streams.len()];
    let mut left: Vec<Vec<(&[u8], Then)>> =
        streams.iter().map(|s| s.iter().rev().map(|(text, then)| (text.as_bytes(), *then)).collect()).collect();
    for round in 0.. {
        let mut over = true;
        for (k, session) in sessions.iter_mut().enumerate() {
            let Some((text, then)) = left[k].pop() else { continue };
            over = false;
            let (piece, rest) = text.split_at(cuts[(round + 5 * k) % cuts.len()].min(text.len()));
            session.push(model, InputFormat::Text, piece).unwrap();
            match rest {
                [] => after(model, &mut stepper, session, then, &mut outputs[k]),
                rest => left[k].push((rest, then)),
            }
        }
        stepper.step(&mut sessions.iter_mut().collect::<Vec<_>>(), &mut outputs);
        for session in &mut sessions {
            let mut bytes = Vec::new();
            session.encode(model, &mut bytes);
            let restored = Session::decode(model, &bytes).unwrap();
            assert_eq!(&restored, session);
            *session = restored;
        }
        if over {
            break;
        }
    }
    for (session, output) in sessions.iter_mut().zip(&mut outputs) {
        end(model, &mut stepper, session, output);
    }
    outputs.iter().map(told).collect()
}

fn records() -> impl Strategy<Value = Vec<(String, Then)>> {
    let then = prop_oneof![6 => Just(Then::GoesOn), 1 => Just(Then::Flush), 1 => Just(Then::Reset)];
    let record = (0usize..250, 1usize..80, then)
        .prop_map(|(from, n, then)| (TEXT.replace("London", "Łódź").chars().skip(from).take(n).collect(), then));
    prop::collection::vec(record, 1..7)
}

/// Spans from reset to reset are whole: an `I-X` follows its like.
fn assert_legal(model: &Model, records: &[(String, Then)], told: &Told) {
    let labels = &model.spec().labels;
    let (mut position, mut resets) = (0, Vec::new());
    for (text, then) in records {
        position += text.chars().count() as u64;
        resets.extend((*then == Then::Reset).then_some(position));
    }
    let mut before: Option<(u64, &str)> = None;
    for (start, _, text, label, _) in &told.0 {
        let label = labels[*label].as_str();
        if let Some((at, before)) = before.filter(|(at, _)| !resets.iter().any(|reset| at < reset && reset <= start)) {
            let goes_on = label.strip_prefix("I-").is_none_or(|kind| before.get(2..) == Some(kind));
            assert!(goes_on, "{text:?} at {start} is {label} after {before} at {at}");
        } else {
            assert!(!label.starts_with("I-"), "{text:?} at {start} is {label}, and the first");
        }
        before = Some((*start, label));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn labels_do_not_depend_on_cuts_company_or_restarts(
        streams in prop::collection::vec(records(), 1..6),
        cuts in prop::collection::vec(1usize..40, 1..6),
        crf: bool, lag in 0usize..7, seed: u64,
    ) {
        let kind = if crf { DecodeKind::Crf } else { DecodeKind::Legal };
        let model = model(&spec(kind, lag), seed);
        let got = together(&model, &streams, &cuts);
        for (records, got) in streams.iter().zip(&got) {
            prop_assert_eq!(got, &alone(&model, records));
            assert_legal(&model, records, got);
        }
    }
}

#[test]
fn a_label_comes_when_the_lag_is_over_or_the_stream_is_flushed() {
    let model = model(&spec(DecodeKind::Crf, 2), 3);
    let (mut session, mut stepper) = (Session::new(&model), Stepper::new(model.clone()));
    let mut push = |session: &mut Session, text: &str| {
        let mut output = Output::default();
        session.push(&model, InputFormat::Text, text.as_bytes()).unwrap();
        stepper.step(&mut [session], std::slice::from_mut(&mut output));
        output.labels.into_iter().map(|label| label.text).collect::<Vec<_>>()
    };
    assert!(push(&mut session, "Ada met ").is_empty());
    assert_eq!(push(&mut session, "Charles "), ["Ada"]);
    assert_eq!(push(&mut session, "in Turin "), ["met", "Charles"]);
    assert_eq!(session.undecided(), 2);
    let mut output = Output::default();
    session.settle(&model, &mut output);
    assert_eq!((output.labels.len(), session.undecided()), (2, 0));
    assert!(push(&mut session, "and London ").is_empty());
}

#[test]
fn a_state_whose_waiting_steps_are_damaged_is_refused() {
    let model = model(&spec(DecodeKind::Legal, 2), 3);
    let mut session = Session::new(&model);
    session.push(&model, InputFormat::Text, b"Ada met Charles ").unwrap();
    Stepper::new(model.clone()).step(&mut [&mut session], &mut [Output::default()]);
    let mut bytes = Vec::new();
    session.encode(&model, &mut bytes);
    // "met" and "Charles" wait.
    let at = bytes.windows(3).position(|bytes| bytes == b"met").unwrap();
    let sealed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = bytes[..bytes.len() - 4].to_vec();
        change(&mut body);
        let sum = crc32fast::hash(&body).to_le_bytes();
        body.extend_from_slice(&sum);
        Session::decode(&model, &body)
    };
    assert_eq!(sealed(&|_| ()), Ok(session.clone()));
    // The text, before it its length, bounds, the number of steps and the last label.
    for change in [
        &|body: &mut Vec<u8>| body[at] = 0xff,
        &|body: &mut Vec<u8>| body[at - 4] = 200,
        &|body: &mut Vec<u8>| body[at - 12..at - 4].fill(0),
        &|body: &mut Vec<u8>| body[at - 21] = 3,
        &|body: &mut Vec<u8>| body[at - 23] = 7,
    ] as [&dyn Fn(&mut Vec<u8>); 5]
    {
        assert!(sealed(change).unwrap_err().to_string().contains("damaged"));
    }
}

/// The words and labels that `strand tag` gives, as `word<TAB>label` lines.
fn tag(model: &Path, input: &Path) -> String {
    let mut command = Command::new(STRAND);
    command.args(["tag", "--format", "text", "--output", "conll", "--model"]).arg(model).arg(input);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_string()
}

/// A place whose model waits four steps.
fn place() -> Place {
    Place::with(&spec(DecodeKind::Crf, 4))
}

#[test]
fn the_daemon_labels_as_tag_does() {
    let place = place();
    let file = place.path().join("input.txt");
    std::fs::write(&file, TEXT).unwrap();
    let daemon = place.start(&[]);
    for piece in TEXT.as_bytes().chunks(11) {
        assert_eq!(daemon.post("/v1/streams/s?wait=1", piece).status, 200);
    }
    let flushed = daemon.post("/v1/streams/s?wait=1&event=flush", "").json();
    assert_eq!(flushed["labels"].as_array().unwrap().len(), 4, "{flushed}");
    let after = daemon.post("/v1/streams/s?wait=1&event=end", "").json();
    assert_eq!(after["labels"].as_array().unwrap().len(), 0, "{after}");
    let records = daemon.get("/v1/labels?stream=s&limit=1000").lines();
    let labels = records.iter().flat_map(|record| record["labels"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let lines: Vec<String> = labels.map(|l| format!("{}\t{}", text(&l["text"]), text(&l["label"]))).collect();
    // A flush does not count end scores, the end of a file does.
    let tagged = tag(&place.model(), &file);
    let tagged: Vec<&str> = tagged.lines().collect();
    assert_eq!(lines.len(), tagged.len());
    assert_eq!(lines[..lines.len() - 4], tagged[..tagged.len() - 4]);
}

#[test]
fn a_daemon_killed_and_restarted_gives_the_labels_of_an_undisturbed_one() {
    const SETTINGS: [&str; 4] = ["--set", "pipeline.batch_records=16", "--set", "state.max_resident=8"];
    let (place, load) = (place(), Load::start(Shape::default()));
    // The store is there before the first kill.
    place.start(&SETTINGS).kill();
    for kill in 0..12 {
        let daemon = Daemon::spawn(place.command(&SETTINGS));
        let until = Instant::now() + Duration::from_millis(60 + 35 * kill);
        while Instant::now() < until {
            load.point_at(&daemon);
            std::thread::sleep(Duration::from_millis(1));
        }
        daemon.kill();
    }
    let daemon = place.start(&SETTINGS);
    load.point_at(&daemon);
    let sent = load.stop();
    daemon.settle();
    let verdict = Expected::at(&self::place(), &sent).compare(&daemon);
    assert!(verdict.is_good() && verdict.labels > 1000, "{verdict:?}");
    assert!(daemon.stop().success());
}

/// `x y` where the second word of a pair says what the first was: no step tells it by itself, the path does.
#[test]
fn a_crf_is_trained_labels_as_its_dev_score_says_and_waits_for_what_tells() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = 5u64;
    let mut pick = |n: u64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % n
    };
    let mut sentences = |count: usize| {
        let mut text = String::new();
        for _ in 0..count {
            for _ in 0..1 + pick(4) {
                text += match pick(3) {
                    0 => "teddy\tB-PER\nroosevelt\tI-PER\n",
                    1 => "teddy\tB-TOY\nbears\tI-TOY\n",
                    _ => "and\tO\n",
                };
            }
            text += "\n";
        }
        text
    };
    for (name, count) in [("train.tsv", 400), ("dev.tsv", 100), ("test.tsv", 200)] {
        std::fs::write(dir.path().join(name), sentences(count)).unwrap();
    }
    let recipe = |lag: usize| {
        let (root, out) = (dir.path().display(), dir.path().join(format!("lag{lag}")));
        let out = out.display();
        format!(
            "[output]\ndir = '{out}/model'\nname = 'teddy'\nrun = '{out}/run'\n[task]\nkind = 'tag'\nscheme = 'bio'\n\
             [decode]\nkind = 'crf'\nlag = {lag}\n[data]\nroot = '{root}'\ntrain = ['train.tsv']\ndev = ['dev.tsv']\n\
             [encoder]\nkind = 'words'\ntokenizer = 'whitespace'\nword_dim = 8\nmin_count = 1\nshape_dim = 0\n\
             char_hidden = 0\n[[layers]]\ncell = 'gru'\nhidden = 8\n[train]\nepochs = 6\nbatch = 8\nchunk = 12\n\
             lr = 0.02\nthreads = 2\n"
        )
    };
    let score = |lag: usize| {
        let recipe = Recipe::parse(&recipe(lag), &[]).unwrap();
        let report = strand::train::train(&recipe, false).unwrap();
        let mut scores = vec![report.best.unwrap().f1.unwrap()];
        for streams in ["sentences", "endless"] {
            let mut command = Command::new(STRAND);
            command.args(["eval", "--json", "--as", streams, "--model"]).arg(&recipe.output.dir);
            let output = command.arg(dir.path().join("test.tsv")).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            scores.push(serde_json::from_slice::<Value>(&output.stdout).unwrap()["f1"].as_f64().unwrap());
        }
        scores
    };
    let (greedy, waiting) = (score(0), score(1));
    assert!(greedy.iter().all(|f1| *f1 < 0.8), "teddies cannot be told apart before the next word: {greedy:?}");
    assert!(waiting.iter().all(|f1| *f1 > 0.98), "{waiting:?}");
}
