//! Strand as a library: one stream, labelled piece by piece. `cargo run --release --example label_stream [MODEL]`

use std::path::PathBuf;
use std::sync::Arc;
use strand::model::{Model, Output, Session, Stepper};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).map_or(PathBuf::from("models/ner-en"), PathBuf::from);
    let model = Arc::new(Model::load(&dir)?);
    let format = model.encoder().format();
    let mut stepper = Stepper::new(model.clone());
    let mut session = Session::new(&model);
    // Cut anywhere, as a network would.
    for piece in ["Ada Love", "lace met Charles Bab", "bage in Lon", "don. "] {
        let mut output = Output::default();
        session.push(&model, format, piece.as_bytes())?;
        stepper.step(&mut [&mut session], std::slice::from_mut(&mut output));
        for l in &output.labels {
            println!("{:>3}..{:<3} {:<10} {:<6} {:.3}", l.start, l.end, l.text, model.spec().labels[l.label], l.score);
        }
    }
    Ok(())
}
