//! Text without spaces, character by character: labels are the same however it is cut, batched, saved and restored; words
//! and their kinds are learnt from files of words, told by `strand tag`, scored by `strand eval` and given by a daemon that is
//! killed.

use crate::daemon_harness;
use crate::daemon_harness::Daemon;
use crate::killed;
use crate::program::Place;
use proptest::prelude::*;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, OnceLock};
use strand::encode::{CharSpec, EncoderSpec, InputFormat};
use strand::model::testing::{layers, random_model, words_spec};
use strand::model::{DecodeKind, DecodeSpec, LookAhead, Model, ModelSpec, Output, Session, Stepper};
use strand::rnn::{Cell, LayerSpec};
use strand::train::{Recipe, train};

/// Words and their kinds; 東 begins two of them.
const WORDS: [(&str, &str); 8] = [
    ("東京", "PLACE"),
    ("東", "SIDE"),
    ("から", "TO"),
    ("へ", "TO"),
    ("アテネ", "PLACE"),
    ("行く", "DO"),
    ("。", "END"),
    ("GT", "CAR"),
];

const TEXT: &str = "東京からﾛﾝﾄﾞﾝへ行く。ＧＴ GTで𠮷野家へ、か\u{3099}👩\u{200d}👩東へ\n行く。";

/// Looks up all there is of a character.
fn encoder() -> EncoderSpec {
    EncoderSpec::Chars(CharSpec {
        dim: 6,
        min_count: 1,
        nfkc: true,
        class_dim: 3,
        bigram_dim: 4,
        trigram_dim: 2,
        ngram_min_count: 1,
        ..CharSpec::default()
    })
}

/// Strictly online, and with two characters ahead.
fn models() -> &'static [Arc<Model>] {
    static MODELS: OnceLock<Vec<Arc<Model>>> = OnceLock::new();
    MODELS.get_or_init(|| {
        let of = |look_ahead: Option<LookAhead>| {
            let one = LayerSpec { bidirectional: look_ahead.is_some(), ..LayerSpec::new(Cell::Lstm, 7) };
            let decode = Some(DecodeSpec { kind: DecodeKind::Legal, lag: 0, beam: None });
            let spec = words_spec("ja", [vec![one], layers(&[Cell::Gru], 9)].concat());
            let dir = tempfile::tempdir().unwrap();
            random_model(dir.path(), &ModelSpec { encoder: encoder(), look_ahead, decode, ..spec }, TEXT, 3).unwrap();
            Arc::new(Model::load(dir.path()).unwrap())
        };
        vec![of(None), of(Some(LookAhead { steps: 2, block: Some(1) }))]
    })
}

type Told = (Vec<(u64, String, usize, u32)>, Vec<(u64, u64, String)>);

fn told(output: &Output) -> Told {
    let labels = output.labels.iter().map(|l| (l.start, l.text.clone(), l.label, l.score.to_bits()));
    (labels.collect(), output.spans.iter().map(|s| (s.start, s.end, s.label.clone())).collect())
}

fn end(model: &Model, stepper: &mut Stepper, session: &mut Session, output: &mut Output) {
    session.finish_unit(model).unwrap();
    stepper.step(&mut [session], std::slice::from_mut(output));
    session.conclude(model, output);
    output.spans.extend(session.end());
}

fn text() -> impl Strategy<Value = String> {
    (0usize..60, 1usize..60).prop_map(|(from, n)| TEXT.chars().cycle().skip(from).take(n).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn labels_do_not_depend_on_how_the_text_is_cut_on_company_or_on_restarts(
        texts in prop::collection::vec(text(), 1..5),
        cuts in prop::collection::vec(1usize..9, 1..6),
    ) {
        for model in models() {
            let mut stepper = Stepper::new(model.clone());
            let mut sessions: Vec<Session> = texts.iter().map(|_| Session::new(model)).collect();
            let mut outputs = vec![Output::default(); texts.len()];
            let mut rests: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
            for round in 0.. {
                if rests.iter().all(|rest| rest.is_empty()) {
                    break;
                }
                for (k, session) in sessions.iter_mut().enumerate() {
                    // Also inside a character.
                    let cut = cuts[(round + 3 * k) % cuts.len()].min(rests[k].len());
                    let (piece, rest) = rests[k].split_at(cut);
                    session.push(model, InputFormat::Text, piece).unwrap();
                    rests[k] = rest;
                }
                stepper.step(&mut sessions.iter_mut().collect::<Vec<_>>(), &mut outputs);
                for session in &mut sessions {
                    let mut bytes = Vec::new();
                    session.encode(model, &mut bytes);
                    *session = Session::decode(model, &bytes).unwrap();
                }
            }
            for ((session, output), text) in sessions.iter_mut().zip(&mut outputs).zip(&texts) {
                end(model, &mut stepper, session, output);
                let (mut alone, mut whole) = (Session::new(model), Output::default());
                alone.push(model, InputFormat::Text, text.as_bytes()).unwrap();
                end(model, &mut stepper, &mut alone, &mut whole);
                prop_assert_eq!(told(output), told(&whole));
                let read: String = whole.labels.iter().map(|label| label.text.as_str()).collect();
                prop_assert_eq!(&read, text, "every character has a label");
            }
        }
    }

    #[test]
    fn what_is_no_text_is_refused_and_leaves_the_stream_as_it_was(
        bytes in prop::collection::vec(any::<u8>(), 0..12), surrogate in 0x80u8..0xc0,
    ) {
        let model = &models()[0];
        for bad in [bytes, vec![0xed, surrogate | 0xa0, 0x80]] {
            let (mut session, mut stepper) = (Session::new(model), Stepper::new(model.clone()));
            session.push(model, InputFormat::Text, "東京".as_bytes()).unwrap();
            let before = session.clone();
            match session.push(model, InputFormat::Text, &bad) {
                Ok(()) => prop_assert!(std::str::from_utf8(&bad).map_or_else(|e| e.error_len().is_none(), |_| true)),
                Err(_) => prop_assert_eq!(&session, &before),
            }
            let mut output = Output::default();
            let _ = session.finish_unit(model);
            stepper.step(&mut [&mut session], std::slice::from_mut(&mut output));
        }
    }
}

/// Sentences of random words; names are those of two words, `東京から` as one, so that the labels of names differ from
/// those of words.
fn corpus(sentences: usize, mut random: u64) -> (String, String) {
    let mut pick = |n: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize % n
    };
    let (mut words, mut names) = (String::new(), String::new());
    for _ in 0..sentences {
        for _ in 0..2 + pick(6) {
            let (word, kind) = WORDS[pick(WORDS.len())];
            words += &format!("{word}\t{kind}\n");
            names += &format!("{word}\t{}\n", if kind == "PLACE" { "B-LOC" } else { "O" });
        }
        words.push('\n');
        names.push('\n');
    }
    (words, names)
}

fn recipe(place: &Place, name: &str, data: &str) -> Recipe {
    let (root, out) = (place.path(""), place.path(name));
    let text = format!(
        "[output]\ndir = '{out}'\nname = '{name}'\nrun = '{out}-run'\n[task]\nkind = 'tag'\nscheme = 'bio'\n\
         [decode]\nkind = 'legal'\n[data]\nroot = '{root}'\n{data}\nwhite_space = true\n\
         [encoder]\nkind = 'chars'\ndim = 8\nmin_count = 1\nnfkc = true\nclass_dim = 2\nbigram_dim = 6\n\
         [[layers]]\ncell = 'gru'\nhidden = 12\nbidirectional = true\n[look_ahead]\nsteps = 3\nblock = 1\n\
         [train]\nepochs = 8\nbatch = 8\nchunk = 12\nlr = 0.02\nthreads = 2\ndropout_input = 0.0\ndropout_layers = 0.0\n\
         word_dropout = 0.0\n",
        root = root.display(),
        out = out.display(),
    );
    Recipe::parse(&text, &[]).unwrap()
}

fn json(place: &Place, arguments: &[&str]) -> Value {
    serde_json::from_str(&place.run(arguments).ok()).unwrap()
}

#[test]
fn words_and_their_kinds_are_learnt_from_files_of_words() {
    let place = Place::new();
    let (train_words, train_names) = corpus(400, 1);
    let (test_words, test_names) = corpus(100, 2);
    for (file, text) in
        [("w.tsv", &train_words), ("n.tsv", &train_names), ("wt.tsv", &test_words), ("nt.tsv", &test_names)]
    {
        place.file(file, text);
    }
    train(&recipe(&place, "words", "train = ['w.tsv']\ndev = ['wt.tsv']"), false).unwrap();
    let report = json(&place, &["eval", "--model", "words", "wt.tsv", "--json"]);
    assert!(report["f1"].as_f64().unwrap() > 0.97, "{report}");
    assert!(report["bounds_f1"].as_f64() >= report["f1"].as_f64(), "{report}");
    assert!(report["type_accuracy"].as_f64() >= report["accuracy"].as_f64(), "{report}");
    let characters: usize = test_words.lines().filter_map(|line| Some(line.split_once('\t')?.0.chars().count())).sum();
    assert_eq!(report["tokens"].as_u64(), Some(characters as u64));
    let endless = json(&place, &["eval", "--model", "words", "wt.tsv", "--json", "--as", "endless"]);
    assert!(endless["f1"].as_f64().unwrap() > 0.97, "{endless}");

    // Half-width katakana, full-width letters, white space.
    place.file("in.txt", "東京からｱﾃﾈへ行く。\nＧＴ GT東へ");
    let spans = place.run(&["tag", "--model", "words", "in.txt", "--output", "spans"]).ok();
    let wanted =
        "東京\tPLACE\nから\tTO\nｱﾃﾈ\tPLACE\nへ\tTO\n行く\tDO\n。\tEND\nＧＴ\tCAR\nGT\tCAR\n東\tSIDE\nへ\tTO\n\n";
    assert_eq!(spans, wanted);
    let conll = place.run(&["tag", "--model", "words", "in.txt", "--output", "conll"]).ok();
    assert!(conll.starts_with("東\tB-PLACE\n京\tI-PLACE\nか\tB-TO\n"), "{conll}");
    let lines: Vec<Value> = place
        .run(&["tag", "--model", "words", "in.txt", "--output", "jsonl"])
        .ok()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let first = lines.iter().find_map(|line| line["spans"].as_array().unwrap().first().cloned()).unwrap();
    assert_eq!((&first["text"], &first["end"]), (&"東京".into(), &2.into()));
    let given = place.run(&["tag", "--model", "words", "wt.tsv", "--output", "spans"]).ok();
    let right = given.lines().zip(test_words.lines()).filter(|(a, b)| a == b).count();
    assert!(right > 90 * test_words.lines().count() / 100, "files of words are read as their characters");
    let ansi = place.run(&["tag", "--model", "words", "in.txt", "--output", "ansi"]).ok();
    assert!(ansi.contains("[東京 PLACE][から TO][ｱﾃﾈ PLACE]"), "{ansi}");

    // Names, with the words beside them.
    let data = "train = [{ path = 'n.tsv', beside = 'w.tsv' }]\ndev = ['nt.tsv']";
    let report = train(&recipe(&place, "names", data), false).unwrap();
    let model = Model::load(&place.path("names")).unwrap();
    assert_eq!(model.spec().labels, ["O", "B-LOC", "I-LOC"]);
    assert!(model.spec().classes.as_ref().unwrap().len() > 8, "a class for each pair");
    let eval = json(&place, &["eval", "--model", "names", "nt.tsv", "--json"]);
    assert!(eval["f1"].as_f64().unwrap() > 0.97, "{eval}");
    assert_eq!(report.best.unwrap().f1, eval["f1"].as_f64(), "dev is scored by the labels that the model gives");
    let names = place.run(&["tag", "--model", "names", "in.txt", "--output", "spans"]).ok();
    assert_eq!(names, "東京\tLOC\nｱﾃﾈ\tLOC\n\n");
}

#[test]
fn what_does_not_go_together_is_refused() {
    let place = Place::new();
    let (words, names) = corpus(20, 1);
    place.file("w.tsv", words);
    place.file("n.tsv", names);
    let check = |change: &dyn Fn(&mut Recipe)| {
        let mut recipe = recipe(&place, "x", "train = [{ path = 'n.tsv', beside = 'w.tsv' }]");
        change(&mut recipe);
        train(&recipe, false).unwrap_err().to_string()
    };
    assert!(check(&|r| r.decode.as_mut().unwrap().kind = DecodeKind::Crf).contains("leave beside out"));
    assert!(check(&|r| r.data.dev = r.data.train.clone()).contains("dev is scored by the labels of its path"));
    assert!(check(&|r| r.data.train.push(strand::train::recipe::FileSpec::Path("w.tsv".into()))).contains("or none"));
    let text = place.run(&["tag", "--model", "pos", "w.tsv", "--output", "spans"]);
    assert_eq!(text.code, 2);
    assert!(text.stderr.contains("B-X, I-X and O"), "{}", text.stderr);
    place.file("w.tsv", corpus(20, 3).0);
    assert!(check(&|_| ()).contains("differ in sentence"));
}

fn daemon(model: &Path, root: &Path, data: &str) -> Daemon {
    let mut command = Command::new(daemon_harness::STRAND);
    command.args(["run", "--log-format", "json", "--http", "127.0.0.1:0", "--model"]).arg(model);
    command.arg("--data-dir").arg(root.join(data)).env_remove("RUST_LOG");
    Daemon::start(command)
}

#[test]
fn killed_in_the_middle_the_daemon_gives_the_same_labels() {
    for look_ahead in [None, Some(LookAhead { steps: 2, block: Some(1) })] {
        let dir = tempfile::tempdir().unwrap();
        let model = dir.path().join("model");
        let one = LayerSpec { bidirectional: look_ahead.is_some(), ..LayerSpec::new(Cell::Lstm, 7) };
        let spec = ModelSpec { encoder: encoder(), look_ahead, ..words_spec("ja", vec![one]) };
        random_model(&model, &spec, TEXT, 3).unwrap();
        let told = killed::in_the_middle_of(&killed::records(TEXT, 40), |data| daemon(&model, dir.path(), data));
        assert!(told.iter().all(|labels| labels.contains("𠮷")));
    }
}
