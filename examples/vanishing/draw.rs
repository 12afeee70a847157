//! The pictures of [`super`].

use plotters::prelude::*;
use std::path::Path;
use strand::train::pictures::{Points, chart};

/// For each k the norm of the loss's gradient at the word k steps before the last.
pub struct Reach {
    pub name: &'static str,
    pub before: Vec<f64>,
    pub after: Vec<f64>,
}

/// Loss and gradient norm of each step of a training.
pub struct Explosion {
    pub steps: Vec<(f64, f64)>,
}

const COLORS: [RGBColor; 8] = [
    RGBColor(214, 39, 40),
    RGBColor(227, 119, 194),
    RGBColor(140, 86, 75),
    RGBColor(127, 127, 127),
    RGBColor(31, 119, 180),
    RGBColor(148, 103, 189),
    RGBColor(44, 160, 44),
    RGBColor(255, 127, 14),
];

/// Below this, lines are drawn along the bottom.
const LEAST: f64 = 1e-12;

/// Two charts side by side, drawn by `left` and `right`.
fn pair(
    path: &Path,
    left: impl Fn(&Area<'_>) -> Result<(), String>,
    right: impl Fn(&Area<'_>) -> Result<(), String>,
) -> Result<(), String> {
    let root = SVGBackend::new(path, (1000, 420)).into_drawing_area();
    root.fill(&WHITE).map_err(|e| e.to_string())?;
    let areas = root.split_horizontally(500);
    left(&areas.0)?;
    right(&areas.1)?;
    root.present().map_err(|e| e.to_string())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// How far gradients reach, of that at the last word, before training and after.
pub fn vanishing(path: &Path, cells: &[Reach]) -> Result<(), String> {
    let lines = |norms: fn(&Reach) -> &Vec<f64>| -> Vec<(String, Points, RGBColor)> {
        let points = |cell: &Reach| {
            let (norms, last) = (norms(cell), norms(cell)[0].max(f64::MIN_POSITIVE));
            norms.iter().enumerate().map(|(k, norm)| (k as f64, (norm / last).max(LEAST))).collect()
        };
        cells.iter().zip(COLORS).map(|(cell, color)| (cell.name.to_string(), points(cell), color)).collect()
    };
    let axes = ("words back from the last", "gradient there, of that at the last word");
    let none = Points::new();
    pair(
        path,
        |area| chart(area, "Before training", axes, true, &lines(|cell| &cell.before), &none),
        |area| chart(area, "After 300 steps of training, or solved", axes, true, &lines(|cell| &cell.after), &none),
    )
}

/// Gradient norm and loss, step by step, without clipping and with it.
pub fn exploding(path: &Path, free: &Explosion, clipped: &Explosion) -> Result<(), String> {
    let lines = |number: fn(&(f64, f64)) -> f64| -> Vec<(String, Points, RGBColor)> {
        let points = |e: &Explosion| e.steps.iter().enumerate().map(|(k, s)| (k as f64, number(s).max(1e-3))).collect();
        vec![("not clipped".into(), points(free), COLORS[0]), ("clipped to norm 1".into(), points(clipped), COLORS[4])]
    };
    let none = Points::new();
    let title = "Norm of the gradient (before clipping)";
    pair(
        path,
        |area| chart(area, title, ("step", "norm"), true, &lines(|s| s.1), &none),
        |area| chart(area, "Loss", ("step", "nats a sentence"), true, &lines(|s| s.0), &none),
    )
}
