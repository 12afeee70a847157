//! Genes, from FASTA files and from the daemon. The networks are random and the models let pass for a gene whatever goes
//! from a start codon to a stop; how genes are chosen is tested in `src/model/genes`.

use crate::daemon_harness;
use crate::daemon_harness::Daemon;
use crate::killed;
use crate::program::{Place, numbers};
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;
use strand::encode::InputFormat;
use strand::model::testing::{genes_spec, layers, random_model};
use strand::model::{LookAhead, Model, ModelSpec, Output, Session, Stepper};
use strand::rnn::{Cell, LayerSpec};
use strand::train::Recipe;

/// A network that sees twelve bases ahead.
fn spec() -> ModelSpec {
    let both_ways = LayerSpec { bidirectional: true, ..layers(&[Cell::Gru], 6).remove(0) };
    genes_spec("genes", vec![both_ways], Some(LookAhead { steps: 12, block: Some(8) }))
}

fn place() -> Place {
    let place = Place::new();
    random_model(&place.path("genes"), &spec(), "", 7).unwrap();
    place
}

fn acgt(seed: u64, length: usize) -> String {
    let mut base = numbers(seed, 4);
    (0..length).map(|_| b"ACGT"[base()] as char).collect()
}

/// Lines of so many bases.
fn wrapped(bases: &str, width: usize, line_end: &str) -> String {
    bases.as_bytes().chunks(width).map(|line| format!("{}{line_end}", std::str::from_utf8(line).unwrap())).collect()
}

fn gff3(place: &Place, file: &str) -> String {
    place.run(&["tag", "--model", "genes", file, "--output", "gff3"]).ok()
}

#[test]
fn genes_as_gff3_are_valid() {
    let place = place();
    place.file("in.fna", format!(">one of two\n{}\n>b;2\n{}\n>empty\n", acgt(1, 40_000), acgt(2, 7_000)));
    let output = gff3(&place, "in.fna");
    let mut lines = output.lines();
    assert_eq!(lines.next(), Some("##gff-version 3"));
    let (mut ids, mut region, mut regions) = (HashSet::new(), (String::new(), 0), Vec::new());
    for line in lines {
        if let Some(of) = line.strip_prefix("##sequence-region ") {
            let [name, "1", length] = of.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            region = (name.to_string(), length.parse().unwrap());
            regions.push(region.clone());
            continue;
        }
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, "strand", "CDS", start, end, score, "+" | "-", "0", attributes] = columns[..] else {
            panic!("{line}")
        };
        let (start, end): (u64, u64) = (start.parse().unwrap(), end.parse().unwrap());
        assert!(
            name == region.0 && 1 <= start && start < end && end <= region.1 && (end + 1 - start) % 3 == 0,
            "{line}"
        );
        assert!(score.parse::<f64>().unwrap() > 0.0);
        let attributes: Vec<(&str, &str)> = attributes.split(';').map(|pair| pair.split_once('=').unwrap()).collect();
        assert!(attributes[0].0 == "ID" && ids.insert(attributes[0].1.to_string()), "{line}");
    }
    assert_eq!(regions, [("one".to_string(), 40_000), ("b%3B2".to_string(), 7_000)]);
    assert!(ids.len() > 50, "{} genes", ids.len());
}

#[test]
fn genes_do_not_depend_on_how_the_fasta_file_is_written() {
    let place = place();
    // IUPAC codes and a run of N, as scaffolds have them.
    let one = acgt(3, 20_000) + &"N".repeat(3000) + &acgt(4, 9_000) + "RYSWKMBDHVN" + &acgt(5, 4_000);
    let two = acgt(6, 3_001);
    place.file("plain.fna", format!(">one\n{one}\n>two\n{two}\n"));
    let wanted = gff3(&place, "plain.fna");
    assert!(wanted.lines().count() > 40);
    let forms = [
        ("lower.fna", format!(">one\n{}\n>two\n{}\n", one.to_lowercase(), two)),
        ("masked.fna", format!(">one soft-masked\n{}{}\n>two\n{two}", one[..9000].to_lowercase(), &one[9000..])),
        ("wrapped.fna", format!(">one\n{}>two\n{}", wrapped(&one, 60, "\n"), wrapped(&two, 70, "\n"))),
        ("dos.fna", format!(">one\r\n{}\r\n>two\r\n{}", wrapped(&one, 80, "\r\n"), wrapped(&two, 61, "\r\n"))),
        ("rna.fna", format!(">one\n{}\n>two\n{}\n", one.replace('T', "U"), two)),
    ];
    for (name, text) in forms {
        place.file(name, &text);
        assert_eq!(gff3(&place, name), wanted, "{name}");
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        place.file(&format!("{name}.gz"), gz.finish().unwrap());
        assert_eq!(gff3(&place, &format!("{name}.gz")), wanted, "{name}.gz");
    }
}

#[test]
fn eval_scores_genes_by_one_end_and_by_both() {
    let place = place();
    place.file("g.fna", format!(">g\n{}\n", acgt(8, 30_000)));
    let mut intervals = String::new();
    let mut genes = 0;
    for (k, line) in gff3(&place, "g.fna").lines().filter(|line| !line.starts_with('#')).enumerate() {
        let c: Vec<&str> = line.split('\t').collect();
        let (mut start, mut end): (u64, u64) = (c[3].parse().unwrap(), c[4].parse().unwrap());
        if k % 2 == 1 {
            // Another start, the same end.
            (start, end) = if c[6] == "+" { (start + 3, end) } else { (start, end - 3) };
        }
        intervals += &format!("g\t{start}\t{end}\t{}\t\n", c[6]);
        genes += 1;
    }
    place.file("g.tsv", intervals);
    let report = place.run(&["eval", "--model", "genes", "g.fna", "--intervals", "g.tsv", "--json"]).ok();
    let report: Value = serde_json::from_str(&report).unwrap();
    let figure = |name: &str| report[name].as_f64().unwrap();
    assert_eq!((figure("gene_precision"), figure("gene_recall")), (1.0, 1.0));
    let exact = f64::from((genes + 1) / 2) / f64::from(genes);
    assert!((figure("gene_exact_precision") - exact).abs() < 1e-9, "{report}");
    assert!(figure("gene_exact_recall") == figure("gene_exact_precision") && figure("accuracy") > 0.95);
}

fn record(place: &Place, data: &str) -> std::process::Command {
    let mut command = std::process::Command::new(daemon_harness::STRAND);
    command.args([
        "run",
        "--log-format",
        "json",
        "--http",
        "127.0.0.1:0",
        "--set",
        "pipeline.batch_records=8",
        "--model",
    ]);
    command.arg(place.path("genes")).arg("--data-dir").arg(place.path(data));
    command
}

#[test]
fn the_daemon_gives_genes_as_they_are_settled() {
    let place = place();
    let daemon = Daemon::start(record(&place, "data"));
    let bases = acgt(9, 8_000);
    let post = |query: &str, text: &str| daemon.post(&format!("/v1/streams/s?wait=1{query}"), text).json();
    let (mut spans, mut labels) = (Vec::new(), 0);
    for piece in bases.as_bytes().chunks(700) {
        let told = post("", std::str::from_utf8(piece).unwrap());
        labels += told["labels"].as_array().unwrap().len();
        spans.extend(told["spans"].as_array().unwrap().clone());
    }
    assert!(labels >= bases.len() - 12 && spans.len() > 3, "labels at once, genes when they are settled");
    let last = post("&event=end", "");
    spans.extend(last["spans"].as_array().unwrap().clone());
    assert_eq!(last["final"], json!(true));
    place.file("s.fna", format!(">s\n{bases}\n"));
    let tagged = place.run(&["tag", "--model", "genes", "s.fna", "--output", "jsonl"]).ok();
    let records = tagged.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_file: Vec<Value> = records.flat_map(|record| record["spans"].as_array().unwrap().clone()).collect();
    assert_eq!(spans, of_file);
    assert!(spans[1]["score"].as_f64().unwrap() > 0.0 && spans[1]["start_codon"].as_str().unwrap().len() >= 3);
}

#[test]
fn killed_in_the_middle_the_daemon_gives_the_same_genes() {
    let place = place();
    let told =
        killed::in_the_middle_of(&killed::records(&acgt(10, 20_000), 400), |data| Daemon::start(record(&place, data)));
    assert!(told.iter().all(|genes| genes.matches("start_codon").count() > 2));
}

#[test]
fn genes_are_asked_for_in_a_recipe() {
    let recipe = |labels: &str, more: &str| -> Result<(), String> {
        let text = format!(
            "layers = [{{ cell = \"gru\", hidden = 8 }}]\n[output]\ndir = \"m\"\nname = \"m\"\n[task]\nkind = \"tag\"\n\
             scheme = \"runs\"\ndna_labels = \"{labels}\"\n[data]\nformat = \"dna\"\ntrain = []\n[encoder]\nkind = \"dna\"\n\
             kmers = [3]\nkmer_dims = [4]\n{more}"
        );
        Recipe::parse(&text, &[]).unwrap().check()
    };
    let asked = "[decode]\nkind = \"genes\"\n";
    assert_eq!(recipe("strand+frame", &format!("{asked}[genes]\ngenetic_code = 4\n")), Ok(()));
    assert!(recipe("strand", asked).unwrap_err().contains("strand+frame"));
    assert!(recipe("strand+frame", "[genes]\n").unwrap_err().contains("decode.kind"));
    assert!(recipe("strand+frame", &format!("{asked}[genes]\ngenetic_code = 5\n")).unwrap_err().contains("11 or 4"));
}

/// What streams that are pushed together, in pieces, yield; `saved`: through their states as bytes after each piece.
fn found(model: &Arc<Model>, streams: &[String], pieces: &[usize], saved: bool) -> Vec<Output> {
    let mut sessions: Vec<Session> = streams.iter().map(|_| Session::new(model)).collect();
    let mut outputs = vec![Output::default(); streams.len()];
    let mut stepper = Stepper::new(model.clone());
    let mut places = vec![0; streams.len()];
    for piece in pieces.iter().cycle() {
        for (k, (session, stream)) in sessions.iter_mut().zip(streams).enumerate() {
            let to = stream.len().min(places[k] + piece + k);
            session.push(model, InputFormat::Dna, &stream.as_bytes()[places[k]..to]).unwrap();
            places[k] = to;
        }
        stepper.step(&mut sessions.iter_mut().collect::<Vec<_>>(), &mut outputs);
        if saved {
            for session in &mut sessions {
                let mut bytes = Vec::new();
                session.encode(model, &mut bytes);
                *session = Session::decode(model, &bytes).unwrap();
            }
        }
        if places.iter().zip(streams).all(|(place, stream)| *place == stream.len()) {
            break;
        }
    }
    sessions.iter_mut().for_each(|session| session.finish_unit(model).unwrap());
    stepper.step(&mut sessions.iter_mut().collect::<Vec<_>>(), &mut outputs);
    sessions.iter_mut().zip(&mut outputs).for_each(|(session, output)| session.conclude(model, output));
    outputs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn genes_do_not_depend_on_cuts_company_or_interruption(
        seed in 0u64..1000, lengths in prop::collection::vec(0usize..4000, 1..4), pieces in prop::collection::vec(1usize..900, 1..6)
    ) {
        let dir = tempfile::tempdir().unwrap();
        random_model(dir.path(), &spec(), "", seed).unwrap();
        let model = Arc::new(Model::load(dir.path()).unwrap());
        let streams: Vec<String> = lengths.iter().enumerate().map(|(k, &n)| acgt(seed + k as u64, n)).collect();
        let alone: Vec<Output> =
            streams.iter().flat_map(|s| found(&model, std::slice::from_ref(s), &[usize::MAX / 2], false)).collect();
        prop_assert_eq!(&found(&model, &streams, &pieces, false), &alone);
        prop_assert_eq!(&found(&model, &streams, &pieces, true), &alone);
    }
}
