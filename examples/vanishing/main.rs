//! Vanishing and exploding gradients, to be seen: which cells learn to remember a name over 10 to 500 words, how far
//! their gradients reach, and what clipping does. docs/CELLS.md tells what comes out.
//!
//! ```sh
//! cargo run --release --example vanishing                  # a few minutes; pictures in runs/vanishing
//! cargo run --release --example vanishing -- docs/images   # pictures there
//! cargo run --release --example vanishing -- --pictures    # without the table: some seconds
//! ```

mod draw;
mod task;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use strand::rnn::{Cell, LayerSpec, Nonlinearity};
use strand::train::optimizer::Rule;
use strand::train::parallel::for_each;
use task::{Learner, NAMES, layer};

const DISTANCES: [usize; 5] = [10, 50, 100, 200, 500];
const SEEDS: [u64; 3] = [1, 2, 3];
/// A training ends after so many steps of 32 sentences, or when it tells this share of new sentences' names.
const STEPS: usize = 1000;
const SOLVED: f64 = 0.99;
const LR: f64 = 0.01;

/// A cell, and how its training begins.
#[derive(Clone)]
struct Contender {
    name: &'static str,
    layer: LayerSpec,
    /// Whether its gates remember from the start: see [`Learner::remember`].
    remembers: bool,
}

fn contenders() -> Vec<Contender> {
    let of = |name, cell, remembers| Contender { name, layer: layer(cell), remembers };
    let mut relu = of("rnn, relu", Cell::Rnn, false);
    relu.layer.nonlinearity = Nonlinearity::Relu;
    vec![
        of("rnn, tanh", Cell::Rnn, false),
        relu,
        of("lstm, gates at random", Cell::Lstm, false),
        of("gru, gates at random", Cell::Gru, false),
        of("lstm", Cell::Lstm, true),
        of("lstm_peephole", Cell::LstmPeephole, true),
        of("gru", Cell::Gru, true),
        of("gru_simplified", Cell::GruSimplified, true),
    ]
}

impl Contender {
    fn learner(&self, distance: usize, seed: u64) -> Learner {
        let mut learner = Learner::new(self.layer.clone(), distance, Rule::Adam, Some(1.0), seed);
        if self.remembers {
            learner.remember();
        }
        learner
    }
}

/// What came of one training.
#[derive(Clone, Copy)]
struct Outcome {
    steps: usize,
    accuracy: f64,
}

/// Trains until it is solved, for so many steps at most.
fn train(learner: &mut Learner, most: usize) -> Outcome {
    let mut outcome = Outcome { steps: 0, accuracy: 0.0 };
    while outcome.accuracy < SOLVED && outcome.steps < most {
        for _ in 0..25 {
            learner.step(LR);
        }
        outcome = Outcome { steps: outcome.steps + 25, accuracy: learner.accuracy() };
    }
    outcome
}

/// One seed's trainings of a cell, distance after distance. What was not learnt at two distances is not tried further.
fn distances(contender: &Contender, seed: u64) -> Vec<Option<Outcome>> {
    let mut outcomes: Vec<Option<Outcome>> = Vec::new();
    for distance in DISTANCES {
        let failed = outcomes.iter().filter(|outcome| !outcome.is_some_and(|o| o.accuracy >= SOLVED)).count();
        outcomes.push((failed < 2).then(|| train(&mut contender.learner(distance, seed), STEPS)));
    }
    outcomes
}

/// A field of the table: what came of a cell at one distance, by each seed.
fn field(runs: &[Option<Outcome>]) -> String {
    let mut tried: Vec<Outcome> = runs.iter().flatten().copied().collect();
    tried.sort_by_key(|outcome| outcome.steps);
    let solved: Vec<usize> = tried.iter().filter(|o| o.accuracy >= SOLVED).map(|o| o.steps).collect();
    let best = tried.iter().map(|o| o.accuracy).fold(0.0, f64::max);
    match solved[..] {
        [] if tried.is_empty() => "not tried".into(),
        [] => format!("0 of {}; best {:.0} %", runs.len(), 100.0 * best),
        _ => format!("**{} of {}** ({})", solved.len(), runs.len(), solved[solved.len() / 2]),
    }
}

/// Trains every cell at every distance and prints which learnt, as Markdown.
fn table(threads: usize) {
    let contenders = contenders();
    let mut jobs: Vec<_> =
        contenders.iter().flat_map(|c| SEEDS.map(|seed| (c, seed, Vec::<Option<Outcome>>::new()))).collect();
    let (done, total) = (AtomicUsize::new(0), jobs.len());
    // The last ones take longest.
    for_each(threads, jobs.iter_mut().rev().collect(), |(contender, seed, outcomes)| {
        *outcomes = distances(contender, *seed);
        eprint!("\r{} of {total} ", done.fetch_add(1, Relaxed) + 1);
    });
    eprintln!();
    println!("| cell |{}", DISTANCES.map(|d| format!(" {d} words |")).concat());
    println!("| --- |{}", DISTANCES.map(|_| " --- |").concat());
    for (contender, seeds) in contenders.iter().zip(jobs.chunks(SEEDS.len())) {
        let at = |k: usize| seeds.iter().map(|(_, _, outcomes)| outcomes[k]).collect::<Vec<_>>();
        let fields = (0..DISTANCES.len()).map(|k| format!(" {} |", field(&at(k))));
        println!("| {} |{}", contender.name, fields.collect::<String>());
    }
    println!();
    println!(
        "k of {} trainings solved (steps it took, the median); chance is {:.0} %",
        SEEDS.len(),
        100.0 / NAMES as f64
    );
}

/// How far the gradients of each cell reach, before training and after.
fn reach() -> Vec<draw::Reach> {
    let one = |contender: Contender| {
        let mut learner = contender.learner(100, 1);
        let before = learner.reach();
        train(&mut learner, 300);
        draw::Reach { name: contender.name, before, after: learner.reach() }
    };
    contenders().into_iter().map(one).collect()
}

/// A plain network whose recurrent weights are drawn three times as wide as usual, taught by plain gradient descent.
fn exploding(clip_norm: Option<f64>) -> draw::Explosion {
    let mut learner = Learner::new(layer(Cell::Rnn), 20, Rule::Sgd, clip_norm, 1);
    learner.widen(3.0);
    let steps = (0..400).map(|_| learner.step(0.1)).map(|(loss, report)| (loss.loss, report.norm));
    draw::Explosion { steps: steps.collect() }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let dir = arguments.iter().find(|argument| !argument.starts_with("--"));
    let dir = dir.map_or(PathBuf::from("runs/vanishing"), PathBuf::from);
    std::fs::create_dir_all(&dir)?;
    draw::vanishing(&dir.join("vanishing.svg"), &reach())?;
    draw::exploding(&dir.join("exploding.svg"), &exploding(None), &exploding(Some(1.0)))?;
    eprintln!("pictures: {}", dir.display());
    if !arguments.iter().any(|argument| argument == "--pictures") {
        table(std::thread::available_parallelism().map_or(1, |n| n.get()));
    }
    Ok(())
}
