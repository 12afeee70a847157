//! What a step costs as one thing after the other grows: the batch, hidden units, layers, live streams, records' words,
//! partitions, threads. Where cost grows no faster than the work there is to do, it is *linear* here.

mod network;
mod stream;

pub use network::{batch, depth, hidden};
pub use stream::{partitions, record, streams, threads};

use std::time::{Duration, Instant};

/// How long to measure, and how far to go.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Time for one point.
    pub budget: Duration,
    /// Most live streams.
    pub streams: usize,
}

impl Effort {
    pub const FULL: Effort = Effort { budget: Duration::from_secs(2), streams: 1_000_000 };
    pub const QUICK: Effort = Effort { budget: Duration::from_millis(300), streams: 100_000 };
}

/// One thing that grows, and what a step costs at each of its sizes.
#[derive(Debug, Clone)]
pub struct Axis {
    pub name: &'static str,
    /// What `x` counts, and what is held fixed.
    pub x: &'static str,
    pub title: &'static str,
    /// What the cost of is compared: 1 unit of work.
    pub work: &'static str,
    pub points: Vec<Point>,
}

#[derive(Debug, Clone, Copy)]
pub struct Point {
    pub x: usize,
    /// Nanoseconds a step: median, least, most.
    pub ns: [f64; 3],
    /// Units of work in a step.
    pub work: f64,
}

impl Point {
    /// Nanoseconds for a unit of work.
    pub fn per_work(&self) -> f64 {
        self.ns[0] / self.work
    }
}

impl Axis {
    /// For each point the cost of a unit of work over the least that it was at a smaller x: above 1 cost grows faster than
    /// the work.
    pub fn against_linear(&self) -> Vec<f64> {
        let mut least = f64::INFINITY;
        let ratio = |point: &Point| {
            least = least.min(point.per_work());
            point.per_work() / least
        };
        self.points.iter().map(ratio).collect()
    }

    /// The points as tab-separated lines, with a header.
    pub fn tsv(&self) -> String {
        let mut lines = format!("axis\t{}\tns_per_step\tleast\tmost\tns_per_{}\tover_linear\n", self.x, self.work);
        for (point, over) in self.points.iter().zip(self.against_linear()) {
            let ([median, least, most], per) = (point.ns, point.per_work());
            let (name, x) = (self.name, point.x);
            lines += &format!("{name}\t{x}\t{median:.0}\t{least:.0}\t{most:.0}\t{per:.1}\t{over:.2}\n");
        }
        lines
    }
}

/// Seconds that `run` takes: median, least, most of at least five, after one to warm up.
fn seconds(budget: Duration, mut run: impl FnMut()) -> [f64; 3] {
    run();
    let (mut times, began) = (Vec::new(), Instant::now());
    while times.len() < 5 || (began.elapsed() < budget && times.len() < 10_000) {
        let round = Instant::now();
        run();
        times.push(round.elapsed().as_secs_f64());
    }
    spread(times)
}

/// Median, least, most.
fn spread(mut times: Vec<f64>) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    [times[times.len() / 2], times[0], times[times.len() - 1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_of_work_that_costs_more_than_before_is_over_linear() {
        let point = |x, median, work| Point { x, ns: [median; 3], work };
        let points = vec![point(1, 100.0, 1.0), point(2, 100.0, 2.0), point(4, 300.0, 4.0), point(8, 400.0, 8.0)];
        let axis = Axis { name: "hidden", x: "hidden", title: "", work: "mflop", points };
        assert_eq!(axis.against_linear(), [1.0, 1.0, 1.5, 1.0]);
        assert!(axis.tsv().lines().nth(3).is_some_and(|line| line == "hidden\t4\t300\t300\t300\t75.0\t1.50"));
    }
}
