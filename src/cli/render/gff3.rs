//! Regions of sequences as GFF3 (1-based, the end included). The score is the mean probability of the region's labels; of
//! genes it is the nats that speak for them, and a sequence's are written when its length is known, behind
//! `##sequence-region`.

use super::{Form, Rendered};
use crate::cli::lanes::Handler;
use crate::cli::pieces::Piece;
use std::collections::VecDeque;
use std::fmt::Write;
use strand::model::Output;

pub struct Gff3 {
    /// The spans are genes.
    pub genes: bool,
}

/// A run of one label, as far as it has come.
struct Run {
    label: usize,
    start: u64,
    sum: f64,
    steps: u64,
}

#[derive(Default)]
pub struct Carried {
    /// Runs that may belong to a span not closed yet.
    runs: VecDeque<Run>,
    /// Lines of the sequence's genes.
    lines: String,
    genes: u64,
    /// Bases of the sequence.
    length: u64,
}

impl Handler for Gff3 {
    type Carried = Carried;
    type Result = Rendered;

    fn labelled(&self, carried: &mut Carried, piece: Piece, output: Output) -> Rendered {
        let bytes = if self.genes { genes(carried, &piece, &output) } else { regions(carried, &piece, &output) };
        Rendered { stream: piece.stream, ends: piece.ends, bytes: bytes.into_bytes() }
    }
}

/// The genes of a sequence, once it is over.
fn genes(carried: &mut Carried, piece: &Piece, output: &Output) -> String {
    let name = escaped(&piece.stream.name);
    carried.length = output.labels.last().map_or(carried.length, |last| last.end);
    for (span, gene) in output.spans.iter().zip(&output.genes) {
        carried.genes += 1;
        let (start, end, score, number) = (span.start + 1, span.end, gene.score, piece.stream.number);
        let strand = if span.label == "reverse" { '-' } else { '+' };
        let partial = if gene.partial { ";partial=true" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            carried.lines,
            "{name}\tstrand\tCDS\t{start}\t{end}\t{score:.2}\t{strand}\t0\tID={number}_{};start_type={}{partial}",
            carried.genes, gene.start_codon
        );
    }
    if !piece.ends || carried.length == 0 {
        return String::new();
    }
    format!("##sequence-region {name} 1 {}\n{}", carried.length, std::mem::take(&mut carried.lines))
}

/// The regions that closed.
fn regions(carried: &mut Carried, piece: &Piece, output: &Output) -> String {
    for step in &output.labels {
        match carried.runs.back_mut() {
            Some(run) if run.label == step.label => {
                run.sum += f64::from(step.score);
                run.steps += 1;
            }
            _ => carried.runs.push_back(Run {
                label: step.label,
                start: step.start,
                sum: f64::from(step.score),
                steps: 1,
            }),
        }
    }
    let mut lines = String::new();
    for span in &output.spans {
        while carried.runs.front().is_some_and(|run| run.start < span.start) {
            carried.runs.pop_front();
        }
        let score = carried.runs.front().map_or(0.0, |run| run.sum / run.steps as f64);
        let (kind, strand) = match span.label.as_str() {
            "forward" => ("CDS_region", '+'),
            "reverse" => ("CDS_region", '-'),
            _ => ("sequence_feature", '.'),
        };
        let (sequence, start, end) = (escaped(&piece.stream.name), span.start + 1, span.end);
        // Writing to a string cannot fail.
        let _ = writeln!(
            lines,
            "{sequence}\tstrand\t{kind}\t{start}\t{end}\t{score:.4}\t{strand}\t.\tName={}",
            escaped(&span.label)
        );
    }
    while carried.runs.len() > 1 {
        carried.runs.pop_front();
    }
    lines
}

impl Form for Gff3 {
    fn head(&self) -> String {
        "##gff-version 3\n".to_string()
    }
}

/// Percent-encodes what has a meaning in GFF3.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            c if c.is_control() || c.is_whitespace() || ";=&,%>".contains(c) => {
                let mut buffer = [0; 4];
                for byte in c.encode_utf8(&mut buffer).bytes() {
                    // Writing to a string cannot fail.
                    let _ = write!(out, "%{byte:02X}");
                }
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn signs_with_a_meaning_are_encoded() {
        assert_eq!(escaped("a b;c=\u{e9}\u{a0}"), "a%20b%3Bc%3D\u{e9}%C2%A0");
    }
}
