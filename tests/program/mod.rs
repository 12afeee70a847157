//! Runs the `strand` program in tests, on small models with random weights.

#![allow(dead_code, reason = "each test file uses a part")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use strand::model::testing;
use strand::model::{ModelSpec, Scheme};
use strand::rnn::Cell;
use tempfile::TempDir;

/// A folder with a word model, a model of parts of speech and a DNA model.
pub struct Place {
    dir: TempDir,
}

/// What a run of the program left.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The output of a run that must have succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}", self.stderr);
        self.stdout
    }
}

impl Place {
    pub fn new() -> Place {
        let place = Place { dir: TempDir::new().unwrap() };
        let layers = testing::layers(&[Cell::Lstm, Cell::Gru], 8);
        place.model("ner", &testing::words_spec("ner", layers.clone()), 7);
        let pos = ModelSpec {
            scheme: Scheme::Plain,
            labels: ["NOUN", "VERB", "X"].map(String::from).to_vec(),
            outside: None,
            ..testing::words_spec("pos", layers.clone())
        };
        place.model("pos", &pos, 3);
        place.model("dna", &testing::dna_spec("dna", layers), 4);
        place
    }

    fn model(&self, name: &str, spec: &ModelSpec, seed: u64) {
        std::fs::create_dir(self.path(name)).unwrap();
        testing::random_model(&self.path(name), spec, testing::TEXT, seed).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), content).unwrap();
        self.path(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strand"));
        command.current_dir(self.dir.path()).args(arguments).env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        ran(self.command(arguments).output().unwrap())
    }

    pub fn run_with(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Ran {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_ref()).unwrap();
        ran(child.wait_with_output().unwrap())
    }
}

fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Numbers below `below` that look random but are the same each time.
pub fn numbers(seed: u64, below: usize) -> impl FnMut() -> usize {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    }
}

/// Sentences of 1 to 12 words of [`testing::TEXT`], without those that are not plain words.
pub fn sentences(count: usize) -> Vec<Vec<&'static str>> {
    let words: Vec<&str> =
        testing::TEXT.split_whitespace().filter(|word| word.chars().all(|c| c.is_ascii_alphabetic())).collect();
    let (mut length, mut word) = (numbers(1, 12), numbers(2, words.len()));
    (0..count).map(|_| (0..=length()).map(|_| words[word()]).collect()).collect()
}

/// Sentences as CoNLL lines, each word with the label that `label` gives it by its number.
pub fn conll(sentences: &[Vec<&str>], mut label: impl FnMut(usize) -> String) -> String {
    let (mut text, mut count) = (String::new(), 0);
    for sentence in sentences {
        for word in sentence {
            text += &format!("{word}\t{}\n", label(count));
            count += 1;
        }
        text.push('\n');
    }
    text
}

/// `length` bases, not all of them certain.
pub fn bases(seed: u64, length: usize) -> String {
    let mut base = numbers(seed, 50);
    (0..length).map(|_| b"ACGTacgtN"[base() % 9] as char).collect()
}

pub fn path_text(path: &Path) -> &str {
    path.to_str().unwrap()
}
