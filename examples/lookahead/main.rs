//! What looking ahead is worth: the score on dev against the words that a label waits for, from strictly online to the end
//! of the stream. docs/LOOKAHEAD.md tells what comes out.
//!
//! ```sh
//! cargo run --release --example lookahead -- ../data                 # half an hour; picture in runs/lookahead
//! cargo run --release --example lookahead -- ../data docs/images     # picture there
//! ```
//! Data as models/pos-en.toml and models/ner-en.toml name them; finished trainings are not done again.

use plotters::prelude::*;
use std::path::{Path, PathBuf};
use strand::model::LookAhead;
use strand::train::Recipe;
use strand::train::pictures::{Points, chart};
use strand::train::trainer::train_until;

const STEPS: [usize; 6] = [0, 1, 2, 4, 8, 16];

/// How far a network sees.
#[derive(Clone, Copy)]
enum Sees {
    /// One direction, as wide as the two together.
    Nothing,
    Ahead(usize),
    TheEnd,
}

impl Sees {
    fn name(self) -> String {
        match self {
            Sees::Nothing => "online".into(),
            Sees::Ahead(steps) => steps.to_string(),
            Sees::TheEnd => "end".into(),
        }
    }

    fn apply(self, recipe: &mut Recipe) {
        for layer in &mut recipe.layers {
            if let Sees::Nothing = self {
                layer.hidden = layer.output();
                layer.bidirectional = false;
            }
        }
        recipe.look_ahead = match self {
            Sees::Ahead(steps) => Some(LookAhead { steps, block: None }),
            Sees::Nothing | Sees::TheEnd => None,
        };
        let name = format!("{}-{}", recipe.output.name, self.name());
        recipe.output.dir = recipe.output.dir.with_file_name(&name);
        recipe.output.run = Some(Path::new("runs/lookahead").join(&name));
        recipe.output.name = name;
    }
}

/// The score on dev, per cent: each sentence as a stream of its own, and all as one.
fn score(recipe: &Recipe, sees: Sees) -> Result<f64, Box<dyn std::error::Error>> {
    let mut recipe = recipe.clone();
    sees.apply(&mut recipe);
    let resume = recipe.output.run_dir().join("checkpoint.safetensors").exists();
    let report = train_until(&recipe, resume, recipe.train.epochs)?.finish()?;
    let best = report.best.ok_or("the recipe has no dev part")?;
    Ok(100.0 * best.main())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let data = arguments.next().ok_or("usage: lookahead DATA [PICTURES]")?;
    let pictures = arguments.next().map_or(PathBuf::from("runs/lookahead"), PathBuf::from);
    std::fs::create_dir_all(&pictures)?;
    let path = pictures.join("lookahead.svg");
    let area = SVGBackend::new(&path, (900, 380)).into_drawing_area();
    area.fill(&WHITE)?;
    let sees: Vec<Sees> = [Sees::Nothing].into_iter().chain(STEPS.map(Sees::Ahead)).chain([Sees::TheEnd]).collect();
    println!("| dev score |{}", sees.iter().map(|s| format!(" {} |", s.name())).collect::<String>());
    println!("| --- |{}", " --- |".repeat(sees.len()));
    let both = [
        ("Parts of speech", "accuracy, %", include_str!("pos.toml")),
        ("Names", "F1 of spans, %", include_str!("ner.toml")),
    ];
    for (half, (title, unit, text)) in area.split_evenly((1, 2)).iter().zip(both) {
        let mut recipe = Recipe::parse(text, &[])?;
        recipe.data.root = PathBuf::from(&data);
        let scores = sees.iter().map(|&sees| score(&recipe, sees)).collect::<Result<Vec<f64>, _>>()?;
        println!("| {title}, {unit} |{}", scores.iter().map(|s| format!(" {s:.2} |")).collect::<String>());
        let level = |score: f64| vec![(0.0, score), (STEPS[STEPS.len() - 1] as f64, score)];
        let curve: Points = STEPS.iter().zip(&scores[1..]).map(|(&steps, &score)| (steps as f64, score)).collect();
        let lines = [
            ("strictly online".to_string(), level(scores[0]), RGBColor(120, 120, 120)),
            ("sees so many words ahead".to_string(), curve, RGBColor(31, 119, 180)),
            ("sees the end".to_string(), level(scores[scores.len() - 1]), RGBColor(44, 160, 44)),
        ];
        chart(half, title, ("words that a label waits for, at most", unit), false, &lines, &Vec::new())?;
    }
    area.present()?;
    eprintln!("{}", path.display());
    Ok(())
}
