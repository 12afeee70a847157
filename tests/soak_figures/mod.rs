//! What a process holds, over time: memory, open files and threads; whether that is flat, and its picture.

use super::{FAULTS, Fault};
use plotters::prelude::*;
use std::path::Path;
use std::time::{Duration, Instant};

/// After this time all caches of a process are full, and all its threads were there.
const WARM: Duration = Duration::from_secs(60);

/// Seconds, then the figures in the order of [`NAMES`].
type Sample = (f64, [f64; 3]);

const NAMES: [&str; 3] = ["memory (RSS), MiB", "open files", "threads"];
/// What the median of each may rise by from the first third to the last, beside a tenth: threads that read the store
/// for clients come and go.
const SLACK: [f64; 3] = [16.0, 8.0, 16.0];

pub struct Figures {
    begun: Instant,
    samples: Vec<Sample>,
    marks: Vec<(f64, Fault)>,
}

/// Medians of the first and the last third of the time in which one process was alone.
pub struct Flat {
    time: Duration,
    first: [f64; 3],
    last: [f64; 3],
}

impl Figures {
    pub fn new() -> Figures {
        Figures { begun: Instant::now(), samples: Vec::new(), marks: Vec::new() }
    }

    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    pub fn mark(&mut self, fault: Fault) {
        self.marks.push((self.elapsed().as_secs_f64(), fault));
    }

    /// As /proc has it now.
    pub fn sample(&mut self, process: u32) {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let field = |name: &str| -> f64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        let files = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
        let figures = [field("VmRSS:") / 1024.0, files as f64, field("Threads:")];
        self.samples.push((self.elapsed().as_secs_f64(), figures));
    }

    /// Between these times, without the first fifth, in which caches fill.
    pub fn flat(&self, from: Duration, until: Duration) -> Flat {
        let time = until - from;
        let (from, until) = (from.as_secs_f64(), until.as_secs_f64());
        let from = from + (until - from) / 5.0;
        let third = (until - from) / 3.0;
        Flat { time, first: self.medians(from, from + third), last: self.medians(until - third, until) }
    }

    fn medians(&self, from: f64, until: f64) -> [f64; 3] {
        std::array::from_fn(|figure| {
            let within = self.samples.iter().filter(|(time, _)| (from..until).contains(time));
            let mut values: Vec<f64> = within.map(|(_, figures)| figures[figure]).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        })
    }

    /// One chart a figure, with a mark for each fault.
    pub fn draw(&self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::new(path, (1000, 900)).into_drawing_area();
        root.fill(&WHITE)?;
        let colors = [RED, BLUE, MAGENTA, RGBColor(255, 127, 14), RGBColor(44, 160, 44), RGBColor(90, 90, 90)];
        let end = self.samples.last().map_or(1.0, |sample| sample.0);
        for (figure, area) in root.split_evenly((3, 1)).into_iter().enumerate() {
            let top = self.samples.iter().map(|sample| sample.1[figure]).fold(1.0, f64::max) * 1.15;
            let mut builder = ChartBuilder::on(&area);
            builder.caption(NAMES[figure], ("sans-serif", 18)).margin(10);
            let mut chart =
                builder.x_label_area_size(32).y_label_area_size(56).build_cartesian_2d(0.0..end, 0.0..top)?;
            chart.configure_mesh().x_desc("seconds").light_line_style(WHITE.mix(0.0)).draw()?;
            for (fault, color) in FAULTS.into_iter().zip(colors) {
                let at = self.marks.iter().filter(|mark| mark.1 == fault);
                let marks =
                    at.map(|mark| PathElement::new([(mark.0, 0.0), (mark.0, top * 0.06)], color.stroke_width(2)));
                let drawn = chart.draw_series(marks)?;
                drawn.label(format!("{fault:?}")).legend(move |(x, y)| Circle::new((x + 9, y), 4, color.filled()));
            }
            // Few enough points for a picture; the highest of each stretch.
            let stretch = self.samples.len().div_ceil(1500).max(1);
            let highest = |samples: &[Sample]| samples.iter().map(|sample| sample.1[figure]).fold(0.0, f64::max);
            let line = self.samples.chunks(stretch).map(|samples| (samples[0].0, highest(samples)));
            chart.draw_series(LineSeries::new(line, BLACK.stroke_width(1)))?;
            if figure == 0 {
                let mut labels = chart.configure_series_labels();
                labels.position(SeriesLabelPosition::UpperRight).background_style(WHITE.mix(0.8));
                labels.border_style(BLACK.mix(0.2)).draw()?;
            }
        }
        Ok(root.present()?)
    }
}

impl Flat {
    /// Too short a time only shows that nothing leaves its bounds.
    pub fn must_hold(&self) {
        let bounds = [192.0, 128.0, 64.0];
        assert!(self.last.iter().zip(bounds).all(|(last, bound)| *last < bound), "{self}");
        if self.time < WARM {
            return;
        }
        for (figure, name) in NAMES.iter().enumerate() {
            let (first, last) = (self.first[figure], self.last[figure]);
            assert!(last <= first * 1.1 + SLACK[figure], "{name}: {first} at first, {last} at last");
        }
    }
}

impl std::fmt::Display for Flat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [first, last] = [self.first, self.last];
        write!(f, "first to last third of one process: {:.0} to {:.0} MiB, ", first[0], last[0])?;
        write!(f, "{:.0} to {:.0} open files, {:.0} to {:.0} threads", first[1], last[1], first[2], last[2])
    }
}
