//! The run's pictures, drawn from its CSV files after each epoch: `curves.svg` (loss and dev score) and `gradients.svg`
//! (how far gradients reach back in time; the gradient's norm with clipping events).

use super::TrainError;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use std::path::Path;

/// Points of a line, `(x, y)`.
pub type Points = Vec<(f64, f64)>;

/// Draws both pictures.
pub fn draw(run: &Path) -> Result<(), TrainError> {
    let failed = |e: String| TrainError::Picture { path: run.to_path_buf(), detail: e };
    curves(run).map_err(failed)?;
    gradients(run).map_err(failed)
}

/// Rows of a CSV file as numbers; empty fields are NaN.
fn table(run: &Path, name: &str) -> Result<Vec<Vec<f64>>, String> {
    let mut reader = csv::Reader::from_path(run.join(name)).map_err(|e| e.to_string())?;
    let number = |field: &str| field.parse().unwrap_or(f64::NAN);
    let row = |r: Result<csv::StringRecord, csv::Error>| r.map(|r| r.iter().map(number).collect());
    reader.records().map(row).collect::<Result<_, _>>().map_err(|e| e.to_string())
}

fn range(points: &[&Points], axis: impl Fn(&(f64, f64)) -> f64) -> std::ops::Range<f64> {
    let values = points.iter().flat_map(|p| p.iter()).map(axis).filter(|v| v.is_finite());
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    if low > high { 0.0..1.0 } else { low..high + (high - low).max(high.abs() * 1e-3 + 1e-9) * 0.05 }
}

/// One chart: titled, with named lines, and red marks. Numbers that are not finite are left out.
///
/// # Errors
/// When the picture cannot be written.
pub fn chart(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    (x_name, y_name): (&str, &str),
    logarithmic: bool,
    lines: &[(String, Points, RGBColor)],
    marks: &Points,
) -> Result<(), String> {
    let points: Vec<&Points> = lines.iter().map(|(_, p, _)| p).collect();
    let (xs, ys) = (range(&points, |p| p.0), range(&points, |p| p.1));
    let mut builder = ChartBuilder::on(area);
    builder.caption(title, ("sans-serif", 18)).margin(12).x_label_area_size(36).y_label_area_size(64);
    if logarithmic {
        let low = points.iter().flat_map(|p| p.iter()).map(|p| p.1).filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
        // Without a point there is no end to look for.
        let low = if low.is_finite() { low } else { 1.0 };
        let ys = (low.clamp(1e-12, 1e12)..ys.end.max(low * 10.0).max(1e-11)).log_scale();
        let chart = builder.build_cartesian_2d(xs, ys).map_err(|e| e.to_string())?;
        fill(chart, (x_name, y_name), true, lines, marks)
    } else {
        let chart = builder.build_cartesian_2d(xs, ys).map_err(|e| e.to_string())?;
        fill(chart, (x_name, y_name), false, lines, marks)
    }
}

fn fill<'a, Y: Ranged<ValueType = f64> + ValueFormatter<f64>>(
    mut chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<plotters::coord::types::RangedCoordf64, Y>>,
    (x_name, y_name): (&str, &str),
    logarithmic: bool,
    lines: &[(String, Points, RGBColor)],
    marks: &Points,
) -> Result<(), String> {
    let words = |e: DrawingAreaErrorKind<std::io::Error>| e.to_string();
    let mut mesh = chart.configure_mesh();
    let power = |y: &f64| format!("{y:.0e}");
    if logarithmic {
        mesh.y_label_formatter(&power);
    }
    mesh.x_desc(x_name).y_desc(y_name).light_line_style(WHITE.mix(0.0)).draw().map_err(words)?;
    drop(mesh);
    for (name, points, color) in lines {
        let (color, drawn) = (*color, points.iter().copied().filter(|p| p.1.is_finite()));
        chart
            .draw_series(LineSeries::new(drawn, color.stroke_width(2)))
            .map_err(words)?
            .label(name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.draw_series(marks.iter().map(|&p| Circle::new(p, 2, RED.filled()))).map_err(words)?;
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.2)).draw().map_err(words)
}

const BLUE_: RGBColor = RGBColor(31, 119, 180);
const ORANGE: RGBColor = RGBColor(255, 127, 14);
const GREEN_: RGBColor = RGBColor(44, 160, 44);

fn curves(run: &Path) -> Result<(), String> {
    let epochs = table(run, "epochs.csv")?;
    let column = |k: usize| -> Points { epochs.iter().map(|r| (r[0], r[k])).filter(|p| p.1.is_finite()).collect() };
    let path = run.join("curves.svg");
    let root = SVGBackend::new(&path, (1000, 420)).into_drawing_area();
    root.fill(&WHITE).map_err(|e| e.to_string())?;
    let (left, right) = root.split_horizontally(500);
    chart(
        &left,
        "Training loss",
        ("epoch", "nats a step"),
        false,
        &[("loss".into(), column(2), BLUE_)],
        &Points::new(),
    )?;
    let scores: Vec<_> = [("accuracy", 3, BLUE_), ("F1", 4, ORANGE), ("endless", 5, GREEN_)]
        .into_iter()
        .map(|(name, k, color)| (name.to_string(), column(k), color))
        .filter(|(_, points, _)| !points.is_empty())
        .collect();
    chart(&right, "Dev score", ("epoch", "score"), false, &scores, &Points::new())?;
    root.present().map_err(|e| e.to_string())
}

fn gradients(run: &Path) -> Result<(), String> {
    let (flow, steps) = (table(run, "gradient_flow.csv")?, table(run, "steps.csv")?);
    let path = run.join("gradients.svg");
    let root = SVGBackend::new(&path, (1000, 420)).into_drawing_area();
    root.fill(&WHITE).map_err(|e| e.to_string())?;
    let (left, right) = root.split_horizontally(500);
    let last = flow.last().map_or(0.0, |r| r[0]);
    let layers = flow.iter().map(|r| r[1] as usize + 1).max().unwrap_or(0);
    let mut lines = Vec::new();
    for layer in 0..layers {
        for (epoch, shade) in [(1.0, 0.45), (last, 1.0)] {
            let at = |r: &&Vec<f64>| r[0] == epoch && r[1] as usize == layer;
            let points: Points = flow.iter().filter(at).map(|r| (r[2], r[3].max(1e-12))).collect();
            let base = [BLUE_, ORANGE, GREEN_, BLACK][layer % 4];
            let fade = |c: u8| (255.0 - (255.0 - c as f64) * shade) as u8;
            let color = RGBColor(fade(base.0), fade(base.1), fade(base.2));
            lines.push((format!("layer {layer}, epoch {epoch}"), points, color));
            if last == 1.0 {
                break;
            }
        }
    }
    let title = "Gradient of the last step's loss, followed back";
    // A transcript's loss is no step's.
    if !lines.is_empty() {
        chart(&left, title, ("steps back in time", "norm at h"), true, &lines, &Points::new())?;
    }
    // At most 2,000 points, each the largest of its stretch.
    let stretch = steps.len().div_ceil(2000).max(1);
    let largest = |rows: &[Vec<f64>]| rows.iter().map(|r| r[4]).filter(|v| v.is_finite()).fold(1e-12, f64::max);
    let norms: Points = steps.chunks(stretch).map(|rows| (rows[0][0], largest(rows))).collect();
    let clipped = |rows: &&[Vec<f64>]| rows.iter().any(|r| r[5] > 0.0);
    let marks: Points = steps.chunks(stretch).filter(clipped).map(|rows| (rows[0][0], largest(rows))).collect();
    let title = format!("Gradient norm; red: clipped ({} steps)", steps.iter().filter(|r| r[5] > 0.0).count());
    chart(&right, &title, ("step", "norm"), true, &[("norm".into(), norms, BLUE_)], &marks)?;
    root.present().map_err(|e| e.to_string())
}
