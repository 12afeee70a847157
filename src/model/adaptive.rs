//! The softmax over a language model's units: full, or adaptive (Grave, Joulin, Cissé, Grangier and Jégou 2017, as
//! `torch.nn.AdaptiveLogSoftmaxWithLoss` with a head bias).
//!
//! Units are numbered by frequency. With the output o `[top]` of the last layer:
//!
//! - full: ln P(u) = ln softmax(W o + b)_u, W `[units, top]`
//! - adaptive: the head W `[shortlist + clusters, top]` has a row for each unit before the first cutoff and one for each
//!   cluster of rarer units. A unit of cluster i has ln P(u) = ln softmax(W o + b)_(shortlist + i)
//!   + ln softmax(T₁ T₀ o)_(u - first), with T₀ `[narrow, top]`, T₁ `[cluster, narrow]` and narrow = top / div^(i + 1).
//!
//! Where it is known what occurred, the tails of other clusters are not computed.

use super::network::{MAX_NUMBERS, Network};
use super::params::{NetShape, Params};
use super::spec::LanguageSpec;
use crate::rnn::kernel::{self, Start};
use crate::rnn::matrix::{Matrix, Precision};
use std::ops::Range;

/// How the units are shared out over head and clusters.
#[derive(Debug, Clone, PartialEq)]
pub struct UnitSoftmax {
    pub units: usize,
    /// The first unit of each cluster; empty: full.
    pub cutoffs: Vec<usize>,
    pub div_value: f64,
}

/// Where a unit's row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitAt {
    Head(usize),
    Tail { cluster: usize, row: usize },
}

impl UnitSoftmax {
    /// # Errors
    /// When there are fewer units than the cutoffs say.
    pub fn of(spec: &LanguageSpec, units: usize) -> Result<UnitSoftmax, String> {
        if let Some(last) = spec.cutoffs.last().filter(|last| **last >= units) {
            return Err(format!("cutoff {last}: there are only {units} units, so no cluster begins there"));
        }
        Ok(UnitSoftmax { units, cutoffs: spec.cutoffs.clone(), div_value: spec.div_value })
    }

    /// Units with a row of their own in the head.
    pub fn shortlist(&self) -> usize {
        self.cutoffs.first().copied().unwrap_or(self.units)
    }

    pub fn clusters(&self) -> usize {
        self.cutoffs.len()
    }

    /// Rows of the head.
    pub fn head(&self) -> usize {
        self.shortlist() + self.clusters()
    }

    /// Units of a cluster.
    pub fn cluster(&self, i: usize) -> Range<usize> {
        self.cutoffs[i]..self.cutoffs.get(i + 1).copied().unwrap_or(self.units)
    }

    /// Numbers that cluster `i` reads.
    pub fn narrow(&self, i: usize, top: usize) -> usize {
        ((top as f64 / self.div_value.powi(i as i32 + 1)) as usize).max(1)
    }

    pub fn place(&self, unit: u32) -> UnitAt {
        let unit = unit as usize;
        match self.cutoffs.partition_point(|first| *first <= unit) {
            0 => UnitAt::Head(unit),
            after => UnitAt::Tail { cluster: after - 1, row: unit - self.cutoffs[after - 1] },
        }
    }

    /// The row of the head that stands for a unit: its own, or its cluster's.
    pub fn head_row(&self, unit: u32) -> usize {
        match self.place(unit) {
            UnitAt::Head(row) => row,
            UnitAt::Tail { cluster, .. } => self.shortlist() + cluster,
        }
    }
}

/// What a language model has beside the head, ready to run.
#[derive(Debug)]
pub struct UnitHead {
    softmax: UnitSoftmax,
    tails: Vec<Tail>,
}

#[derive(Debug)]
struct Tail {
    down: Matrix,
    up: Matrix,
    narrow: usize,
    units: usize,
}

/// Working space of [`Network::surprises`].
#[derive(Debug, Default)]
pub struct UnitScratch {
    logits: Vec<f32>,
    x: Vec<f32>,
    narrow: Vec<f32>,
    rows: Vec<usize>,
}

impl UnitHead {
    pub fn new(softmax: &UnitSoftmax, shape: &NetShape, params: &Params<f32>, precision: Precision) -> UnitHead {
        let top = shape.top();
        let tail = |i: usize| {
            let (narrow, units, at) = (softmax.narrow(i, top), softmax.cluster(i).len(), shape.tail_at(i));
            Tail {
                down: Matrix::new(params.slice(at), [top, narrow], precision),
                up: Matrix::new(params.slice(at + 1), [narrow, units], precision),
                narrow,
                units,
            }
        };
        UnitHead { softmax: softmax.clone(), tails: (0..softmax.clusters()).map(tail).collect() }
    }
}

impl Tail {
    /// The tail's logits of `rows` outputs `x` `[rows, top]`.
    fn logits(&self, x: &[f32], rows: usize, narrow: &mut Vec<f32>, out: &mut Vec<f32>) {
        narrow.clear();
        narrow.resize(rows * self.narrow, 0.0);
        self.down.product(Start::Old, rows, x, narrow, self.narrow);
        out.clear();
        out.resize(rows * self.units, 0.0);
        self.up.product(Start::Old, rows, narrow, out, self.units);
    }
}

/// -ln of the softmax of each row's `wanted` column, in nats. Turns the logits into probabilities.
///
/// Of the largest logit m and its probability p, ln Σ e^x = m - ln p, so that nothing under- or overflows.
fn surprise_rows(
    width: usize,
    logits: &mut [f32],
    wanted: impl Iterator<Item = usize>,
    mut told: impl FnMut(usize, f64),
) {
    let tops: Vec<(usize, f32, f32)> = (logits.chunks_exact(width).zip(wanted))
        .map(|(row, wanted)| {
            let mut top = 0;
            for (k, x) in row.iter().enumerate() {
                if *x > row[top] {
                    top = k;
                }
            }
            (top, row[top], row[wanted])
        })
        .collect();
    (kernel::active().softmax_rows)(width, logits);
    for (row, (p, (top, largest, own))) in logits.chunks_exact(width).zip(tops).enumerate() {
        told(row, f64::from(largest) - f64::from(own) - f64::from(p[top]).ln());
    }
}

impl Network {
    /// -ln P, in nats, of `units`, each after the output at its row of `x` `[units, top]`; appended to `out`. Bit for bit
    /// the same whatever the other rows are.
    pub fn surprises(&self, x: &[f32], units: &[u32], s: &mut UnitScratch, out: &mut Vec<f32>) {
        let Some(head) = &self.units else { return };
        let (top, width) = (self.shape().top(), self.shape().classes);
        let at_once = (MAX_NUMBERS / width).max(1);
        for (x, units) in x.chunks(at_once * top).zip(units.chunks(at_once)) {
            let mut nats = vec![0.0f64; units.len()];
            self.logits(x, units.len(), &mut s.logits);
            let wanted = units.iter().map(|&unit| head.softmax.head_row(unit));
            surprise_rows(width, &mut s.logits, wanted, |row, surprise| nats[row] = surprise);
            for (i, tail) in head.tails.iter().enumerate() {
                s.rows.clear();
                let within = |unit: &u32| head.softmax.cluster(i).contains(&(*unit as usize));
                s.rows.extend((0..units.len()).filter(|&row| within(&units[row])));
                for rows in s.rows.chunks((MAX_NUMBERS / tail.units.max(1)).max(1)) {
                    s.x.clear();
                    rows.iter().for_each(|&row| s.x.extend_from_slice(&x[row * top..(row + 1) * top]));
                    tail.logits(&s.x, rows.len(), &mut s.narrow, &mut s.logits);
                    let first = head.softmax.cluster(i).start;
                    let wanted = rows.iter().map(|&row| units[row] as usize - first);
                    surprise_rows(tail.units, &mut s.logits, wanted, |k, surprise| nats[rows[k]] += surprise);
                }
            }
            out.extend(nats.into_iter().map(told));
        }
    }

    /// ln P of every unit after the output `x` `[top]`.
    pub fn log_probabilities(&self, x: &[f32]) -> Vec<f64> {
        let Some(head) = &self.units else { return Vec::new() };
        let (mut logits, mut narrow) = (Vec::new(), Vec::new());
        self.logits(x, 1, &mut logits);
        let mut all = log_softmax(&logits);
        let clusters = all.split_off(head.softmax.shortlist());
        for (tail, cluster) in head.tails.iter().zip(clusters) {
            tail.logits(x, 1, &mut narrow, &mut logits);
            all.extend(log_softmax(&logits).into_iter().map(|ln| cluster + ln));
        }
        all
    }
}

/// A network whose numbers have overflowed is surprised by anything.
pub(super) fn told(nats: f64) -> f32 {
    if nats.is_finite() { (nats as f32).max(0.0) } else { f32::MAX }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let top = logits.iter().fold(f64::NEG_INFINITY, |top, &x| top.max(f64::from(x)));
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - top).exp()).sum();
    logits.iter().map(|&x| f64::from(x) - top - sum.ln()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::TableShape;
    use crate::rnn::{Cell, LayerSpec};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    fn network(cutoffs: &[usize]) -> Network {
        let softmax = UnitSoftmax { units: 23, cutoffs: cutoffs.to_vec(), div_value: 2.0 };
        let shape = NetShape {
            tables: vec![TableShape { name: "event", rows: 23, dim: 4 }],
            layers: vec![LayerSpec::new(Cell::Gru, 9)],
            classes: softmax.head(),
            language: Some(softmax),
            ..NetShape::default()
        };
        let mut params = Params::random(&shape, &mut ChaCha8Rng::seed_from_u64(5));
        params.slices_mut().flatten().for_each(|x| *x *= 6.0);
        Network::new(&shape, &params)
    }

    #[test]
    fn the_probabilities_of_all_units_add_up_to_one_and_each_is_told_alone() {
        let mut rng = ChaCha8Rng::seed_from_u64(6);
        for cutoffs in [&[][..], &[5], &[3, 10, 11]] {
            let network = network(cutoffs);
            for _ in 0..20 {
                let x: Vec<f32> = (0..9).map(|_| rng.random_range(-4.0..4.0)).collect();
                let all = network.log_probabilities(&x);
                let sum: f64 = all.iter().map(|ln| ln.exp()).sum();
                assert!((sum - 1.0).abs() < 1e-9 && all.len() == 23, "{sum}");
                let units: Vec<u32> = (0..23).collect();
                let (mut together, mut s) = (Vec::new(), UnitScratch::default());
                network.surprises(&x.repeat(23), &units, &mut s, &mut together);
                for (unit, surprise) in together.iter().enumerate() {
                    assert!((f64::from(*surprise) + all[unit]).abs() < 1e-5 * (1.0 - all[unit]), "{unit}");
                    let mut alone = Vec::new();
                    network.surprises(&x, &[unit as u32], &mut s, &mut alone);
                    assert_eq!(alone[0].to_bits(), surprise.to_bits(), "in company it has other bits");
                }
            }
        }
    }

    #[test]
    fn clusters_are_narrower_the_rarer_their_units() {
        let softmax = UnitSoftmax { units: 100, cutoffs: vec![10, 40], div_value: 4.0 };
        assert_eq!((softmax.shortlist(), softmax.head(), softmax.cluster(1)), (10, 12, 40..100));
        assert_eq!((softmax.narrow(0, 64), softmax.narrow(1, 64), softmax.narrow(1, 3)), (16, 4, 1));
        assert_eq!(softmax.place(9), UnitAt::Head(9));
        assert_eq!(softmax.place(40), UnitAt::Tail { cluster: 1, row: 0 });
        assert_eq!((softmax.head_row(9), softmax.head_row(39), softmax.head_row(99)), (9, 10, 11));
    }
}
