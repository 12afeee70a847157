//! What looking ahead costs: words a second of taggers that see ahead, as a share of a strictly online one's of the same
//! width. Rounds of all by turns; medians. docs/LOOKAHEAD.md has the table.
//!
//! ```sh
//! cargo bench --bench lookahead
//! ```
//! Weights are random: they make no difference. `STRAND_BENCH_ROUNDS`: 7 by default.

use std::sync::Arc;
use std::time::Instant;
use strand::encode::InputFormat;
use strand::model::testing::{TEXT, layers, look_ahead_spec, random_model, words_spec};
use strand::model::{LookAhead, Model, ModelSpec, Output, Session, Stepper};
use strand::rnn::Cell;

const WIDTH: usize = 256;
const STREAMS: usize = 64;
const SEEN: [(usize, usize); 9] = [(0, 1), (1, 1), (2, 1), (4, 1), (4, 2), (8, 1), (8, 3), (8, 9), (16, 5)];

fn load(spec: &ModelSpec) -> Arc<Model> {
    let dir = tempfile::tempdir().expect("a directory can be made");
    random_model(dir.path(), spec, TEXT, 7).expect("the model can be written");
    Arc::new(Model::load(dir.path()).expect("the model can be read"))
}

/// Words a second of many streams that each get a word at a time.
fn word_by_word(model: &Arc<Model>) -> f64 {
    let words: Vec<String> = TEXT.split_whitespace().map(|word| format!("{word} ")).collect();
    let mut stepper = Stepper::new(model.clone());
    let mut sessions: Vec<Session> = (0..STREAMS).map(|_| Session::new(model)).collect();
    let begun = Instant::now();
    let rounds = 150;
    for round in 0..rounds {
        let mut outputs = vec![Output::default(); STREAMS];
        for (k, session) in sessions.iter_mut().enumerate() {
            let word = &words[(round + 5 * k) % words.len()];
            session.push(model, InputFormat::Text, word.as_bytes()).expect("it is text");
        }
        stepper.step(&mut sessions.iter_mut().collect::<Vec<_>>(), &mut outputs);
    }
    (rounds * STREAMS) as f64 / begun.elapsed().as_secs_f64()
}

/// Words a second of one long stream, read at once.
fn one_long(model: &Arc<Model>) -> f64 {
    let text = TEXT.repeat(60);
    let (mut stepper, mut session, mut output) = (Stepper::new(model.clone()), Session::new(model), Output::default());
    session.push(model, InputFormat::Text, text.as_bytes()).expect("it is text");
    session.finish_unit(model).expect("it is text");
    let begun = Instant::now();
    stepper.step(&mut [&mut session], std::slice::from_mut(&mut output));
    output.labels.len() as f64 / begun.elapsed().as_secs_f64()
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn main() {
    let rounds = std::env::var("STRAND_BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(7);
    let online = load(&words_spec("online", layers(&[Cell::Lstm], WIDTH)));
    let ahead = SEEN.map(|(steps, block)| {
        load(&look_ahead_spec("ahead", layers(&[Cell::Lstm], WIDTH / 2), Some(LookAhead { steps, block: Some(block) })))
    });
    let of = |run: fn(&Arc<Model>) -> f64| {
        let mut all = vec![Vec::new(); 1 + SEEN.len()];
        for _ in 0..rounds {
            for (model, speeds) in std::iter::once(&online).chain(&ahead).zip(&mut all) {
                speeds.push(run(model));
            }
        }
        // Ratios within a round, so that a busy machine slows both sides.
        let first = all[0].clone();
        let ratio = |speeds: &Vec<f64>| median(speeds.iter().zip(&first).map(|(a, b)| a / b).collect());
        (median(first.clone()), all[1..].iter().map(ratio).collect::<Vec<f64>>())
    };
    let (many, one) = (of(word_by_word), of(one_long));
    println!("strictly online: {:.0} words/s of {STREAMS} streams, {:.0} of one long one", many.0, one.0);
    println!("| steps ahead | block | {STREAMS} streams, word by word | one long stream |\n| --- | --- | --- | --- |");
    for ((steps, block), (many, one)) in SEEN.iter().zip(many.1.iter().zip(&one.1)) {
        println!("| {steps} | {block} | {many:.2} | {one:.2} |");
    }
}
