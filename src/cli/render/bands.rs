//! Sequences as coloured bands: a sign for every hundred bases, then a summary; short sequences base by base.

use super::paint::harmless;
use super::{Form, Kinds, Paint, Rendered};
use crate::cli::lanes::Handler;
use crate::cli::pieces::Piece;
use std::sync::Arc;
use strand::encode::EncoderSpec;
use strand::model::{Model, Output};

/// Signs in a row.
const ROW_CELLS: usize = 60;
/// Sequences up to this length are shown base by base.
const SHORT: usize = 600;

pub struct Bands {
    kinds: Kinds,
    paint: Paint,
    /// Steps that a sign stands for.
    cell_steps: usize,
    unit: &'static str,
    outside: String,
}

impl Bands {
    pub fn new(model: &Arc<Model>, paint: Paint) -> Bands {
        let is_dna = matches!(model.encoder().spec(), EncoderSpec::Dna(_));
        let (cell_steps, unit) = if is_dna { (100, "bases") } else { (1, "steps") };
        let outside = model.spec().outside.clone().unwrap_or_else(|| "none".to_string());
        Bands { kinds: Kinds::of(model.spec()), paint, cell_steps, unit, outside }
    }

    /// The sign of a kind: forward strand above, reverse strand below.
    fn sign(&self, kind: Option<usize>) -> &'static str {
        match kind.map(|kind| self.kinds.names[kind].as_str()) {
            None => "·",
            Some(name) if name.starts_with("forward") => "▀",
            Some(name) if name.starts_with("reverse") => "▄",
            Some(_) => "█",
        }
    }
}

#[derive(Default)]
pub struct Carried {
    /// The stream's first steps, as long as it may turn out to be short.
    first: Vec<(String, Option<usize>)>,
    /// Steps of each kind (the last: of none), in this cell and in all.
    cell: Vec<u64>,
    total: Vec<u64>,
    regions: Vec<u64>,
    last: Option<usize>,
    row: Vec<Option<usize>>,
    steps: u64,
    row_start: u64,
}

impl Handler for Bands {
    type Carried = Carried;
    type Result = Rendered;

    fn labelled(&self, carried: &mut Carried, piece: Piece, output: Output) -> Rendered {
        let kinds = self.kinds.names.len();
        carried.cell.resize(kinds + 1, 0);
        carried.total.resize(kinds + 1, 0);
        carried.regions.resize(kinds, 0);
        let mut out = String::new();
        for step in output.labels {
            let (kind, begins) = self.kinds.of_label(step.label);
            if carried.steps <= SHORT as u64 {
                carried.first.push((step.text, kind));
            }
            if let Some(kind) = kind.filter(|_| kind != carried.last || begins) {
                carried.regions[kind] += 1;
            }
            carried.last = kind;
            carried.cell[kind.unwrap_or(kinds)] += 1;
            carried.total[kind.unwrap_or(kinds)] += 1;
            carried.steps += 1;
            if carried.steps.is_multiple_of(self.cell_steps as u64) {
                self.end_cell(carried);
                if carried.row.len() == ROW_CELLS {
                    self.end_row(carried, &mut out);
                }
            }
        }
        if piece.ends {
            if carried.steps > SHORT as u64 || self.cell_steps == 1 {
                self.end_cell(carried);
                self.end_row(carried, &mut out);
            } else {
                self.base_by_base(carried, &mut out);
            }
            out.push_str(&self.summary(carried));
        }
        Rendered { stream: piece.stream, ends: piece.ends, bytes: out.into_bytes() }
    }
}

impl Bands {
    /// The cell takes the kind that most of its steps have.
    fn end_cell(&self, carried: &mut Carried) {
        let most = carried.cell.iter().enumerate().max_by_key(|(_, count)| **count);
        if let Some((kind, 1..)) = most.map(|(kind, count)| (kind, *count)) {
            carried.row.push((kind < self.kinds.names.len()).then_some(kind));
            carried.cell.fill(0);
        }
    }

    fn end_row(&self, carried: &mut Carried, out: &mut String) {
        if carried.row.is_empty() {
            return;
        }
        out.push_str(&self.paint.text(None, &format!("{:>13} ", grouped(carried.row_start + 1))));
        for cells in carried.row.chunk_by(|a, b| a == b) {
            out.push_str(&self.paint.text(cells[0], &self.sign(cells[0]).repeat(cells.len())));
        }
        out.push('\n');
        carried.row.clear();
        carried.row_start = carried.steps;
    }

    fn base_by_base(&self, carried: &Carried, out: &mut String) {
        for (k, row) in carried.first.chunks(ROW_CELLS).enumerate() {
            out.push_str(&self.paint.text(None, &format!("{:>13} ", grouped((k * ROW_CELLS) as u64 + 1))));
            for run in row.chunk_by(|a, b| a.1 == b.1) {
                let bases: String = run.iter().map(|(base, _)| base.as_str()).collect();
                out.push_str(&self.paint.text(run[0].1, &harmless(&bases)));
            }
            out.push('\n');
            if !self.paint.colours {
                let signs: String = row.iter().map(|(_, kind)| self.sign(*kind)).collect();
                out.push_str(&format!("{:>13} {signs}\n", ""));
            }
        }
    }

    fn summary(&self, carried: &Carried) -> String {
        let share = |count: u64| 100.0 * count as f64 / carried.steps.max(1) as f64;
        let mut parts = vec![format!("{} {}", grouped(carried.steps), self.unit)];
        for (kind, name) in self.kinds.names.iter().enumerate() {
            let (total, regions) = (carried.total[kind], carried.regions[kind]);
            let part = format!("{name} {:.1}% in {} regions", share(total), grouped(regions));
            parts.push(self.paint.text(Some(kind), &part));
        }
        let none = carried.total.last().copied().unwrap_or_default();
        parts.push(self.paint.text(None, &format!("{} {:.1}%", self.outside, share(none))));
        format!("{:>13} {}\n\n", "", parts.join(", "))
    }
}

impl Form for Bands {
    fn head(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        for (kind, name) in self.kinds.names.iter().enumerate() {
            parts.push(self.paint.text(Some(kind), &format!("{} {name}", self.sign(Some(kind)))));
        }
        parts.push(self.paint.text(None, &format!("{} {}", self.sign(None), self.outside)));
        if self.cell_steps > 1 {
            parts.push(self.paint.text(None, &format!("(a sign is {} {})", self.cell_steps, self.unit)));
        }
        format!("{}\n\n", parts.join("  "))
    }

    fn part(&self, _: Option<&Rendered>, next: &Rendered) -> String {
        format!("{}\n", self.paint.bold(&harmless(&next.stream.name)))
    }
}

/// A number with commas between the thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (k, digit) in digits.chars().enumerate() {
        if k > 0 && (digits.len() - k).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn thousands_are_parted() {
        assert_eq!(
            ["0", "999", "1,000", "4,641,652"],
            [0, 999, 1000, 4_641_652].map(super::grouped).each_ref().map(|s| &**s)
        );
    }
}
