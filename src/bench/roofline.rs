//! What a core could do at best (Williams, Waterman and Patterson 2009): its peak of operations, by a kernel that only touches
//! registers, and how fast it reads what holds the weights, both measured on the spot.

use super::engine::{BenchModel, Workload};
use crate::rnn::Cell;
use crate::rnn::kernel;
use crate::rnn::kernel::memory::Memory;
use crate::rnn::kernel::narrow;
use crate::rnn::matrix::Precision;
use std::collections::BTreeMap;
use std::time::Instant;

/// A core's limits.
#[derive(Debug)]
pub struct Roofline {
    /// Operations per second in each precision.
    peak: [f64; 3],
    /// Bytes per second by the size of what is read: [`sizes`].
    read: BTreeMap<usize, f64>,
}

/// What a workload could reach.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    pub steps_per_second: f64,
    /// Where most of that time goes: `"compute"` or `"memory"`.
    pub bound: &'static str,
}

/// The most bytes whose reading is measured.
const LARGEST: usize = 64 << 20;

/// Bytes whose reading is measured: powers of two from 16 KiB on, and one and a half times each.
fn sizes() -> impl Iterator<Item = usize> {
    (14..26).flat_map(|power| [1 << power, 3 << (power - 1)]).chain([LARGEST])
}

/// The best of some rounds of `work`, in units that it counts, per second.
fn best_rate(mut work: impl FnMut() -> f64) -> f64 {
    let rate = |_| {
        let started = Instant::now();
        let done = work();
        done / started.elapsed().as_secs_f64()
    };
    (0..7).map(rate).fold(0.0, f64::max)
}

impl Roofline {
    /// Takes about a second.
    pub fn measure() -> Roofline {
        let kernels = kernel::active();
        let peak = Precision::ALL.map(|precision| {
            let narrow = (precision != Precision::F32).then(|| narrow::active(precision).peak).flatten();
            let peak = narrow.unwrap_or(kernels.peak);
            best_rate(|| peak(1 << 18))
        });
        let read = sizes().map(|size| {
            // In the same kind of memory as weights.
            let mut numbers = Memory::zeroed(size / size_of::<f32>());
            numbers.fill(1.0);
            let times = LARGEST / size;
            let rate = best_rate(|| {
                (0..times).for_each(|_| _ = std::hint::black_box((kernels.read)(std::hint::black_box(&numbers))));
                (times * size) as f64
            });
            (size, rate)
        });
        Roofline { peak, read: read.collect() }
    }

    /// Bytes per second where so many are read over and over: of the sizes measured, the next larger.
    fn bandwidth(&self, bytes: usize) -> f64 {
        self.read.range(bytes..).next().or(self.read.last_key_value()).map_or(f64::INFINITY, |(_, rate)| *rate)
    }

    /// What this workload could reach on one core: every product takes as long as its operations at the peak or reading its
    /// weights once a sweep, whichever is longer. Activations are not counted.
    pub fn limit(&self, model: &BenchModel, work: &Workload, precision: Precision) -> Limit {
        let per_weight = [4, 2, 1][precision as usize];
        let gates = match model.cell {
            Cell::Gru => 3,
            _ => 4,
        } * model.hidden;
        let rows = work.streams * work.steps;
        // Of each product: its weights, rows that go through it in all, and at a time.
        let mut products = Vec::new();
        for layer in 0..model.layers {
            let input = if layer == 0 { model.input } else { model.hidden };
            products.push((input * gates, rows));
            products.push((model.hidden * gates, work.streams));
        }
        products.push((model.hidden * model.classes, rows));
        let all: usize = products.iter().map(|(weights, _)| weights * per_weight).sum();
        let (mut compute, mut memory) = (0.0, 0.0);
        for (weights, together) in products {
            let bytes = weights * per_weight;
            // Step by step over one layer, its weights are alone in the cache; else all layers' come by turns.
            let held = if work.steps > 1 { bytes } else { all };
            let by_compute = (2 * weights * rows) as f64 / self.peak[precision as usize];
            let sweeps = (rows / together) * together.div_ceil(kernel::rows_of_a_sweep(bytes));
            let by_memory = (bytes * sweeps) as f64 / self.bandwidth(held);
            if by_compute >= by_memory { compute += by_compute } else { memory += by_memory }
        }
        let bound = if compute >= memory { "compute" } else { "memory" };
        Limit { steps_per_second: rows as f64 / (compute + memory), bound }
    }

    /// `peak f32 … bf16 … int8 … GFLOP/s`, then GB/s by size: for people.
    pub fn describe(&self) -> String {
        let peaks: Vec<String> = (Precision::ALL.iter().zip(self.peak))
            .map(|(precision, rate)| format!("{} {:.0}", precision.name(), rate / 1e9))
            .collect();
        let reads: Vec<String> =
            self.read.iter().map(|(bytes, rate)| format!("{} KiB {:.0}", bytes >> 10, rate / 1e9)).collect();
        format!("# peak, G operations/s: {}; read, GB/s: {}", peaks.join(", "), reads.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_held_against_the_next_larger_size_that_was_read() {
        let read: BTreeMap<usize, f64> = sizes().map(|size| (size, 1.0 / size as f64)).collect();
        assert!(read.keys().copied().eq(sizes()), "sizes grow");
        let roofline = Roofline { peak: [1.0; 3], read };
        let held = |bytes| (1.0 / roofline.bandwidth(bytes)).round() as usize;
        assert_eq!([held(1), held(23 << 20), held(25 << 20)], [16 << 10, 24 << 20, 32 << 20]);
        assert_eq!(held(LARGEST + 1), LARGEST);
    }
}
