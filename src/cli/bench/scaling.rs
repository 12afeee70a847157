//! `strand bench scaling`

use crate::cli::{print, usage};
use anyhow::Context;
use std::path::{Path, PathBuf};
use strand::bench::plot::log_log;
use strand::bench::scaling::{self, Axis, Effort};

/// What a step costs as batch, width, depth, live streams, records, partitions and threads grow
#[derive(clap::Args)]
pub struct Args {
    /// Only these: batch, hidden, depth, streams, record, partitions, threads
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Less time for each point, and 100,000 streams at most
    #[arg(long)]
    quick: bool,
    /// Draw a picture of each into this directory, scaling-NAME.svg
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
}

type Measure = fn(Effort) -> Axis;

const AXES: [(&str, Measure); 7] = [
    ("batch", scaling::batch),
    ("hidden", scaling::hidden),
    ("depth", scaling::depth),
    ("streams", scaling::streams),
    ("record", scaling::record),
    ("partitions", scaling::partitions),
    ("threads", scaling::threads),
];

pub fn run(args: Args) -> anyhow::Result<()> {
    if let Some(name) = args.only.iter().find(|name| !AXES.iter().any(|(axis, _)| axis == name)) {
        let names = AXES.map(|(axis, _)| axis).join(", ");
        return Err(usage(format!("--only {name}: there are {names}")));
    }
    let effort = if args.quick { Effort::QUICK } else { Effort::FULL };
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    for (_, measure) in AXES.iter().filter(|(name, _)| wanted(name)) {
        let axis = measure(effort);
        print(&format!("{}\n", axis.tsv()))?;
        if let Some(dir) = &args.plot {
            draw(dir, &axis)?;
        }
    }
    Ok(())
}

/// What was measured, and beside it what the cheapest unit of work so far would make of it.
fn draw(dir: &Path, axis: &Axis) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let measured = axis.points.iter().map(|point| (point.x as f64, point.ns[0])).collect();
    let linear = axis.points.iter().zip(axis.against_linear());
    let linear = linear.map(|(point, over)| (point.x as f64, point.ns[0] / over)).collect();
    let lines = [("linear at most".to_string(), linear), ("measured".to_string(), measured)];
    let path = dir.join(format!("scaling-{}.svg", axis.name));
    log_log(&path, axis.title, (axis.x, "ns a step"), &lines)
        .map_err(|detail| anyhow::anyhow!("cannot draw {}: {detail}", path.display()))
}
