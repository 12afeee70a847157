//! Scores on genomes: per base and per gene, against coding intervals.

use super::Keep;
use super::report::Report;
use crate::cli::lanes::label_all;
use crate::cli::pieces::{self, At, Payload, Piece, Place};
use crate::cli::usage;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use strand::data::{DnaScheme, Interval, Sequence, Strand, dna_labels, read_intervals, read_sequences};
use strand::encode::InputFormat;
use strand::model::{DecodeKind, Model, Span};
use strand::score::{BaseScore, Confusion, GeneScore, run_genes};

/// Bases in one piece.
const PIECE_BASES: usize = 16 * 1024;

pub fn evaluate(
    model: &Arc<Model>,
    genome: &Path,
    intervals: &Path,
    range: Option<Range<usize>>,
    threads: usize,
) -> anyhow::Result<Report> {
    let strands: Vec<Option<Strand>> = model.spec().labels.iter().map(|label| strand_of(label)).collect();
    if ![Some(Strand::Forward), Some(Strand::Reverse)].iter().all(|strand| strands.contains(strand)) {
        let (name, labels) = (&model.spec().name, model.spec().labels.join(", "));
        return Err(usage(format!("genomes are scored by the labels forward and reverse; `{name}` gives {labels}")));
    }
    let intervals_of = read_intervals(intervals)?;
    let sequences = read_sequences(genome)?;
    if !sequences.iter().any(|sequence| intervals_of.contains_key(&sequence.name)) {
        let known: Vec<&str> = intervals_of.keys().map(String::as_str).take(3).collect();
        anyhow::bail!(
            "{}: no interval is of sequence `{}`; the accessions in {} are {}",
            genome.display(),
            sequences[0].name,
            intervals.display(),
            if known.is_empty() { "none".to_string() } else { known.join(", ") }
        );
    }
    let parts = parts(&sequences, range, genome)?;
    let pieces = base_pieces(sequences.iter().zip(&parts), genome);
    let finds_genes = model.spec().decode.as_ref().is_some_and(|decode| decode.kind == DecodeKind::Genes);
    let mut predicted: Vec<Vec<Option<Strand>>> = vec![Vec::new()];
    let mut called: Vec<Vec<Interval>> = vec![Vec::new()];
    let ends: Vec<bool> = pieces.iter().map(|piece| piece.ends).collect();
    let mut ends = ends.into_iter();
    label_all(model, threads, pieces.into_iter().map(Ok), Keep, |(steps, spans), _| {
        if let Some(last) = predicted.last_mut() {
            last.extend(steps.iter().map(|step| strands[step.label]));
        }
        if let (Some(last), true) = (called.last_mut(), finds_genes) {
            last.extend(spans.iter().filter_map(gene_of));
        }
        if ends.next() == Some(true) {
            predicted.push(Vec::new());
            called.push(Vec::new());
        }
        Ok(())
    })?;

    let (mut bases, mut genes) = (BaseScore::default(), GeneScore::default());
    let mut confusion = Confusion::new(DnaScheme::Strand.classes().iter().copied());
    for (((sequence, part), predicted), called) in sequences.iter().zip(&parts).zip(&mut predicted).zip(&mut called) {
        let intervals = intervals_of.get(&sequence.name).map_or(&[][..], Vec::as_slice);
        let gold = dna_labels(intervals, sequence.bases.len(), DnaScheme::Strand);
        if finds_genes {
            // A base's label is that of its gene.
            called.sort_by_key(|gene| (gene.start, std::cmp::Reverse(gene.end)));
            let classes = dna_labels(called, part.len(), DnaScheme::Strand);
            *predicted = classes.iter().map(|&k| strand_of(DnaScheme::Strand.classes()[usize::from(k)])).collect();
        } else {
            *called = run_genes(predicted);
        }
        for (&gold, &predicted) in gold[part.clone()].iter().zip(&*predicted) {
            let gold = strand_of(DnaScheme::Strand.classes()[usize::from(gold)]);
            bases.add(gold, predicted);
            confusion.add(word(gold), word(predicted));
        }
        genes.add(intervals, part.clone(), sequence.bases.len(), called);
    }
    let rows = confusion.labels().iter().zip(confusion.by_label());
    Ok(Report {
        task: "tag",
        model: model.spec().name.clone(),
        records: sequences.len() as u64,
        record_word: "sequences",
        tokens: bases.bases,
        token_word: "bases",
        accuracy: bases.accuracy(),
        overall: None,
        more: vec![
            ("coding_precision", bases.coding_precision()),
            ("coding_recall", bases.coding_recall()),
            ("gene_precision", genes.precision()),
            ("gene_recall", genes.recall()),
            ("gene_exact_precision", genes.exact_precision()),
            ("gene_exact_recall", genes.exact_recall()),
        ],
        rows: rows.map(|(label, counts)| (label.clone(), counts.figures())).collect(),
        row_word: "label",
        confusion,
        conditions: BTreeMap::new(),
    })
}

/// The gene that a span is.
fn gene_of(span: &Span) -> Option<Interval> {
    let strand = strand_of(&span.label)?;
    Some(Interval { start: span.start as usize, end: span.end as usize, strand, note: String::new() })
}

fn strand_of(label: &str) -> Option<Strand> {
    match label.trim_end_matches(|c: char| c.is_ascii_digit()) {
        "forward" => Some(Strand::Forward),
        "reverse" => Some(Strand::Reverse),
        _ => None,
    }
}

fn word(strand: Option<Strand>) -> &'static str {
    match strand {
        None => "none",
        Some(Strand::Forward) => "forward",
        Some(Strand::Reverse) => "reverse",
    }
}

/// The part of each sequence that is scored.
fn parts(sequences: &[Sequence], range: Option<Range<usize>>, genome: &Path) -> anyhow::Result<Vec<Range<usize>>> {
    let Some(range) = range else {
        return Ok(sequences.iter().map(|sequence| 0..sequence.bases.len()).collect());
    };
    let [sequence] = sequences else {
        let (file, count) = (genome.display(), sequences.len());
        return Err(usage(format!("--range is for a file with one sequence; {file} has {count}")));
    };
    if range.end > sequence.bases.len() {
        let (name, length) = (&sequence.name, sequence.bases.len());
        return Err(usage(format!("--range {}..{} exceeds the {length} bases of {name}", range.start, range.end)));
    }
    Ok(vec![range])
}

fn base_pieces<'a>(sequences: impl Iterator<Item = (&'a Sequence, &'a Range<usize>)>, genome: &Path) -> Vec<Piece> {
    let (file, mut numbers): (Arc<str>, _) = (genome.display().to_string().into(), pieces::Streams::default());
    let mut found = Vec::new();
    for (sequence, part) in sequences {
        let stream = numbers.open(&sequence.name);
        let (bases, count) = (&sequence.bases[part.clone()], part.len().div_ceil(PIECE_BASES).max(1));
        for k in 0..count {
            let piece = &bases[k * PIECE_BASES..((k + 1) * PIECE_BASES).min(bases.len())];
            found.push(Piece {
                stream: stream.clone(),
                place: Place { file: file.clone(), at: At::Byte((part.start + k * PIECE_BASES) as u64) },
                payload: Payload::Bytes(InputFormat::Dna, piece.to_vec()),
                ends: k + 1 == count,
            });
        }
    }
    found
}
