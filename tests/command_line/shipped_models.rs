//! The models in `models/`: complete, small enough, documented, and labelling what they were made for, the same through
//! the library, `strand tag` and the daemon.

use crate::daemon_harness::{Daemon, STRAND};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use strand::model::{Model, Output, Session, Stepper};

const SHIPPED: &[&str] = &[
    "ner-en",
    "pos-en",
    "ner-en-ahead",
    "pos-en-ahead",
    "dna-coding",
    "sentiment-en",
    "charlm-shakespeare",
    "service-log",
    "music-jsb",
    "pos-ja",
    "pos-ja-ahead",
    "ner-ja",
    "ner-ja-ahead",
    "dates-iso",
    "digits-en",
    "dna-genes",
];

fn dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name)
}

/// Bases from a generator: a reading frame of common codons between random stretches.
fn bases() -> String {
    let mut random = 7u64;
    let mut pick = |n: usize| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) as usize % n
    };
    let mut bases: String = (0..90).map(|_| ['A', 'C', 'G', 'T'][pick(4)]).collect();
    bases.push_str("AGGAGGTAAACCATG");
    for _ in 0..150 {
        bases.push_str(["CTG", "GAA", "GCG", "AAA", "GGC", "ATT", "GTG", "CAG", "GAT", "ACC"][pick(10)]);
    }
    bases.push_str("TAA");
    bases.extend((0..90).map(|_| ['A', 'C', 'G', 'T'][pick(4)]));
    bases
}

const LETTER: &str = "Dear Mr. Okafor, thank you for your letter from Lagos. Our office in Geneva will answer; please ask \
    for Ingrid Weber of Lufthansa, who was in London with Charles Babbage and Ada Lovelace in 1833. ";

#[test]
fn each_model_is_complete_small_and_documented() {
    for name in SHIPPED {
        let model = Model::load(&dir(name)).unwrap();
        assert_eq!(model.spec().name, *name);
        let bytes: u64 = std::fs::read_dir(dir(name)).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < 10 << 20, "{name} has {bytes} bytes");
        let card = std::fs::read_to_string(dir(name).join("README.md")).unwrap();
        for word in ["## Data", "licence", "## Scores", "PyTorch"] {
            assert!(card.contains(word), "the card of {name} says nothing of {word:?}");
        }
        assert!(dir(name).with_extension("toml").exists(), "{name} has no recipe");
    }
}

/// Texts and labels by the library.
fn label(name: &str, input: &str) -> Vec<(String, String)> {
    let model = Arc::new(Model::load(&dir(name)).unwrap());
    let (mut session, mut output) = (Session::new(&model), Output::default());
    session.push(&model, model.encoder().format(), input.as_bytes()).unwrap();
    session.finish_unit(&model).unwrap();
    Stepper::new(model.clone()).step(&mut [&mut session], std::slice::from_mut(&mut output));
    output.labels.into_iter().map(|l| (l.text, model.spec().labels[l.label].clone())).collect()
}

#[test]
fn names_and_parts_of_speech_are_told() {
    for model in ["ner-en", "ner-en-ahead"] {
        let found = label(model, LETTER);
        let of = |word: &str| found.iter().find(|(text, _)| text == word).map_or("", |(_, label)| label.as_str());
        for (word, kind) in
            [("Okafor", "PER"), ("Lagos", "LOC"), ("Geneva", "LOC"), ("Ingrid", "PER"), ("London", "LOC")]
        {
            assert!(of(word).ends_with(kind), "{model}: {word} is {:?}", of(word));
        }
        assert_eq!(of("thank"), "O");
    }
    for model in ["pos-en", "pos-en-ahead"] {
        let tags = label(model, LETTER);
        let of = |word: &str| tags.iter().find(|(text, _)| text == word).map_or("", |(_, label)| label.as_str());
        for (word, tag) in [("thank", "VERB"), ("letter", "NOUN"), ("Geneva", "PROPN"), ("in", "ADP"), ("1833", "NUM")]
        {
            assert_eq!(of(word), tag, "{model}: {word}");
        }
    }
}

#[test]
fn words_without_spaces_are_told_in_full_and_half_width() {
    let word = |model: &str, text: &str, at: usize| label(model, text)[at].1.clone();
    for model in ["pos-ja", "pos-ja-ahead"] {
        let labels: Vec<String> = label(model, "太郎は東京で").into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["B-PROPN", "I-PROPN", "B-ADP", "B-PROPN", "I-PROPN", "B-ADP"], "{model}");
        assert_eq!(word(model, "ﾃﾞｰﾀは１２３件ある。", 0), "B-NOUN", "{model}");
        assert_eq!(word(model, "ﾃﾞｰﾀは１２３件ある。", 6), "I-NUM", "{model}");
        assert_eq!(word(model, "東京\n大阪", 2), "O", "{model}: a line feed");
    }
}

#[test]
fn moods_are_told() {
    let model = Arc::new(Model::load(&dir("sentiment-en")).unwrap());
    for (text, class) in [
        ("A wonderful, touching film.", "positive"),
        ("Dull, badly acted and far too long.", "negative"),
        ("The food was great and the staff friendly.", "positive"),
        ("It broke after two days, what a waste of money!", "negative"),
    ] {
        let (mut session, mut output) = (Session::new(&model), Output::default());
        session.push(&model, model.encoder().format(), text.as_bytes()).unwrap();
        session.finish_unit(&model).unwrap();
        Stepper::new(model.clone()).step(&mut [&mut session], std::slice::from_mut(&mut output));
        session.conclude(&model, &mut output);
        assert_eq!(model.spec().labels[output.labels[0].label], class, "{text}");
    }
}

/// The surprises of a stream's units, and which of them are above the threshold.
fn surprises(name: &str, input: &[u8]) -> (Vec<f32>, Vec<usize>) {
    let model = Arc::new(Model::load(&dir(name)).unwrap());
    let (mut session, mut output) = (Session::new(&model), Output::default());
    session.push(&model, model.encoder().format(), input).unwrap();
    session.finish_unit(&model).unwrap();
    Stepper::new(model.clone()).step(&mut [&mut session], std::slice::from_mut(&mut output));
    let above = (0..output.labels.len()).filter(|&k| output.labels[k].label == 1).collect();
    (output.surprises, above)
}

#[test]
fn verse_is_likelier_than_the_same_letters_backwards() {
    let nats = |text: &str| {
        let surprises = surprises("charlm-shakespeare", text.as_bytes()).0;
        surprises.iter().sum::<f32>() / surprises.len() as f32
    };
    let verse = "KING HENRY:\nNow, by my sword, good cousin, thou shalt stay,\nAnd we shall hear what news the morrow brings.\n";
    let backwards: String = verse.chars().rev().collect();
    assert!(
        nats(verse) < 2.2 && nats(&backwards) > nats(verse) + 1.0,
        "{}, {} backwards",
        nats(verse),
        nats(&backwards)
    );
}

#[test]
fn events_out_of_place_are_surprising() {
    let session = ["connect", "login", "login_ok", "lock", "request_put", "db_query", "db_rows", "reply_put", "unlock"];
    let told = |events: &[&str]| surprises("service-log", serde_json::to_string(events).unwrap().as_bytes()).1;
    assert_eq!(told(&session), Vec::<usize>::new());
    let mut other = session;
    other[7] = "reply_get";
    assert_eq!(told(&other)[0], 7, "a reply of another kind");
    let without: Vec<&str> = session.into_iter().filter(|event| *event != "lock").collect();
    assert_eq!(told(&without)[0], 3, "a lock that was not taken");
    other[7] = "core_dump";
    assert_eq!(told(&other)[0], 7, "never seen");
}

#[test]
fn a_cadence_is_likelier_than_its_notes_a_little_off() {
    let nats = |notes: &[u8]| surprises("music-jsb", notes).0.iter().sum::<f32>();
    let cadence = nats(b"[[60,67,76,84],[65,69,77,84],[67,71,74,83],[60,67,76,84]]");
    let off = nats(b"[[60,66,76,85],[65,68,77,84],[67,72,73,83],[61,67,76,82]]");
    assert!(cadence < 50.0 && off > cadence + 20.0, "{cadence} nats, {off} a little off");
}

#[test]
fn dates_are_translated() {
    let model = Model::load(&dir("dates-iso")).unwrap();
    let translator = model.translator().unwrap();
    let dates = ["3rd of May 1998", "Monday, July 20, 1969", "24.12.2021", "7/4/1976", "20 sept. '99"];
    let found = translator.translate(&dates, translator.search);
    let texts: Vec<&str> = found.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(texts, ["1998-05-03", "1969-07-20", "2021-12-24", "1976-07-04", "1999-09-20"]);
}

#[test]
fn bases_are_labelled_one_by_one() {
    let found = label("dna-coding", &bases());
    assert_eq!(found.len(), bases().len());
    // Well inside the frame (which has 450 bases from 105 on) a model that knows codons knows it.
    let forward = found[255..555].iter().filter(|(_, label)| label == "forward").count();
    assert!(forward > 250, "{forward} of 300 bases inside a gene are told");
}

#[test]
fn a_gene_is_found_with_both_ends() {
    let model = Arc::new(Model::load(&dir("dna-genes")).unwrap());
    let (mut session, mut output) = (Session::new(&model), Output::default());
    session.push(&model, model.encoder().format(), bases().as_bytes()).unwrap();
    session.finish_unit(&model).unwrap();
    Stepper::new(model.clone()).step(&mut [&mut session], std::slice::from_mut(&mut output));
    session.conclude(&model, &mut output);
    let gene = output.spans.iter().position(|gene| gene.end == 105 + 450 + 3).expect("its stop codon");
    assert_eq!((output.spans[gene].start, output.spans[gene].label.as_str()), (102, "forward"));
    assert_eq!(output.genes[gene].start_codon, "ATG");
}

#[test]
fn the_daemon_labels_as_tag_does() {
    let bases = bases();
    for (name, input) in [
        ("ner-en", LETTER),
        ("pos-en", LETTER),
        ("ner-en-ahead", LETTER),
        ("pos-en-ahead", LETTER),
        ("dna-coding", bases.as_str()),
        ("sentiment-en", LETTER),
        ("charlm-shakespeare", LETTER),
        ("dna-genes", bases.as_str()),
    ] {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("input.txt");
        std::fs::write(&file, input).unwrap();
        let tag = Command::new(STRAND)
            .args(["tag", "--format", "text", "--output", "jsonl", "--model"])
            .arg(dir(name))
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(tag.status.success(), "{}", String::from_utf8_lossy(&tag.stderr));
        let labels_of = |lines: &str| -> Vec<Value> {
            let records = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            records.flat_map(|record| record["labels"].as_array().unwrap().clone()).collect()
        };
        let tagged = labels_of(&String::from_utf8(tag.stdout).unwrap());

        let mut command = Command::new(STRAND);
        command.args(["run", "--log-format", "json", "--http", "127.0.0.1:0", "--model"]).arg(dir(name));
        command.arg("--data-dir").arg(place.path().join("data"));
        let daemon = Daemon::start(command);
        for piece in input.as_bytes().chunks(23) {
            assert_eq!(daemon.post("/v1/streams/s?wait=1", piece).status, 200);
        }
        daemon.post("/v1/streams/s?wait=1&event=end", "");
        let served = labels_of(&daemon.get("/v1/labels?stream=s&limit=1000").body);
        assert!(!served.is_empty());
        assert_eq!(tagged, served, "{name}");
    }
}
