//! Pictures of measurements.

use plotters::prelude::*;
use std::ops::Range;
use std::path::Path;

/// A line of a picture: its name and its points, all above 0.
pub type Line = (String, Vec<(f64, f64)>);

const COLORS: [RGBColor; 3] = [RGBColor(31, 119, 180), RGBColor(255, 127, 14), RGBColor(44, 160, 44)];

/// Draws lines with their points, both axes logarithmic.
///
/// # Errors
/// When the picture cannot be written.
pub fn log_log(path: &Path, title: &str, (x_name, y_name): (&str, &str), lines: &[Line]) -> Result<(), String> {
    let root = SVGBackend::new(path, (640, 400)).into_drawing_area();
    let words = |e: DrawingAreaErrorKind<std::io::Error>| e.to_string();
    root.fill(&WHITE).map_err(words)?;
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let (xs, ys) = (range(points().map(|p| p.0)), range(points().map(|p| p.1)));
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(72)
        .build_cartesian_2d(xs.log_scale(), ys.log_scale())
        .map_err(words)?;
    chart
        .configure_mesh()
        .x_desc(x_name)
        .y_desc(y_name)
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .light_line_style(WHITE.mix(0.0))
        .draw()
        .map_err(words)?;
    for (k, (name, points)) in lines.iter().enumerate() {
        let color = COLORS[k % COLORS.len()];
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))
            .map_err(words)?
            .label(name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(points.iter().map(|&p| Circle::new(p, 3, color.filled()))).map_err(words)?;
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw()
        .map_err(words)?;
    root.present().map_err(words)
}

/// From the least to the most, with some room.
fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
    if low > high { 1.0..10.0 } else { low / 1.2..high * 1.5 }
}

fn number(x: &f64) -> String {
    match *x {
        x if x >= 1e6 => format!("{}M", x / 1e6),
        x if x >= 1e3 => format!("{}k", x / 1e3),
        x => format!("{x}"),
    }
}
