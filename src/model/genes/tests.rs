use super::*;
use crate::model::spec::ClassSpec;
use crate::model::state::Fields;
use crate::model::testing::{layers, words_spec};
use crate::model::{DecodeSpec, ModelSpec};
use crate::rnn::Cell;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn spec(genes: GenesSpec) -> ModelSpec {
    let names = ["none", "forward0", "forward1", "forward2", "reverse0", "reverse1", "reverse2"];
    let label = |class: &str| class.trim_end_matches(char::is_numeric).to_string();
    ModelSpec {
        scheme: Scheme::Runs,
        labels: ["none", "forward", "reverse"].map(String::from).to_vec(),
        classes: Some(names.map(|class| ClassSpec { class: class.to_string(), label: label(class) }).to_vec()),
        decode: Some(DecodeSpec { kind: DecodeKind::Genes, lag: 0, beam: None }),
        genes: Some(genes),
        ..words_spec("genes", layers(&[Cell::Gru], 4))
    }
}

fn finder(genes: GenesSpec) -> GeneFinder {
    GeneFinder::new(&spec(genes)).unwrap().unwrap()
}

/// A base and the network's probabilities of it.
type Step = (char, [f32; 7]);

/// A gene of so many codons between start and stop, as it is read on its strand.
fn gene(codons: usize, rng: &mut ChaCha8Rng) -> String {
    let mut text = String::from("ATG");
    for _ in 0..codons {
        text += ["GCT", "AAA", "CTG", "GAA", "GGC", "ACC"][rng.random_range(0..6)];
    }
    text + ["TAA", "TGA", "TAG"][rng.random_range(0..3)]
}

fn opposite(text: &str) -> String {
    let paired = |base| match base {
        'A' => 'T',
        'C' => 'G',
        'G' => 'C',
        _ => 'A',
    };
    text.chars().rev().map(paired).collect()
}

/// A sequence with genes in it and what a network that is `sure` of itself would say: positions and strands of the genes.
fn sequence(seed: u64, sure: f32) -> (Vec<Step>, Vec<(u64, u64, &'static str)>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut steps, mut genes): (Vec<Step>, Vec<_>) = Default::default();
    let mut put = |bases: &str, class: &dyn Fn(usize) -> usize, rng: &mut ChaCha8Rng| {
        for (k, base) in bases.chars().enumerate() {
            let noise: f32 = rng.random_range(0.0..0.2);
            let mut p = [(1.0 - sure + noise) / 7.0; 7];
            p[class(k)] += sure - noise;
            steps.push((base, p));
        }
        steps.len() as u64
    };
    for _ in 0..12 {
        let gap: String = (0..rng.random_range(3..120)).map(|_| ['A', 'C', 'G', 'T'][rng.random_range(0..4)]).collect();
        let start = put(&gap, &|_| 0, &mut rng);
        let text = gene(rng.random_range(40..300), &mut rng);
        let length = text.len();
        let (end, label) = if rng.random_bool(0.5) {
            (put(&text, &|k| 1 + k % 3, &mut rng), "forward")
        } else {
            (put(&opposite(&text), &|k| 4 + (length - 1 - k) % 3, &mut rng), "reverse")
        };
        genes.push((start, end, label));
    }
    put("ACGTACGTAA", &|_| 0, &mut rng);
    (steps, genes)
}

/// The genes of a sequence whose state is saved and restored at these places.
fn genes_of(finder: &GeneFinder, steps: &[Step], saved_at: &[usize]) -> Output {
    let (mut genes, mut output) = (Genes::default(), Output::default());
    for (k, (base, p)) in steps.iter().enumerate() {
        if saved_at.contains(&k) {
            genes = decoded(finder, &encoded(&genes)).unwrap();
        }
        finder.push(&mut genes, p, &base.to_string(), k as u64, &mut output);
    }
    finder.conclude(&mut genes, &mut output);
    assert_eq!((genes, output.genes.len()), (Genes::default(), output.spans.len()));
    output
}

fn encoded(genes: &Genes) -> Vec<u8> {
    let mut bytes = Vec::new();
    genes.encode(&mut bytes);
    bytes
}

fn decoded(finder: &GeneFinder, bytes: &[u8]) -> Result<Genes, crate::model::StateError> {
    let mut fields = Fields::of(bytes);
    let genes = Genes::decode(&mut fields, finder)?;
    assert!(fields.is_empty(), "it reads what it wrote");
    Ok(genes)
}

fn places(output: &Output) -> Vec<(u64, u64, &str)> {
    output.spans.iter().map(|span| (span.start, span.end, span.label.as_str())).collect()
}

#[test]
fn genes_of_both_strands_are_found_with_both_ends() {
    let finder = finder(GenesSpec::default());
    for seed in 0..20 {
        let (steps, genes) = sequence(seed, 0.9);
        let output = genes_of(&finder, &steps, &[]);
        assert_eq!(places(&output), genes, "seed {seed}");
        assert!(output.genes.iter().all(|gene| gene.start_codon == "ATG" && gene.score > 0.0 && !gene.partial));
    }
}

#[test]
fn most_genes_are_settled_long_before_the_sequence_ends() {
    let finder = finder(GenesSpec::default());
    let (steps, all) = sequence(3, 0.9);
    let (mut genes, mut output) = (Genes::default(), Output::default());
    for (k, (base, p)) in steps.iter().enumerate() {
        finder.push(&mut genes, p, &base.to_string(), k as u64, &mut output);
        let over = all.iter().filter(|gene| gene.1 + 2000 < k as u64).count();
        assert!(output.spans.len() >= over, "after {k} bases");
    }
    assert!(encoded(&genes).len() < 8192);
}

#[test]
fn a_gene_that_runs_over_the_edge_is_partial() {
    let finder = finder(GenesSpec::default());
    let (steps, genes) = sequence(5, 0.9);
    let (first, last) = (genes[2], genes[8]);
    let cut = &steps[first.0 as usize + 30..last.1 as usize - 30];
    let output = genes_of(&finder, cut, &[]);
    assert_eq!(output.spans.len(), 7);
    let partial: Vec<bool> = output.genes.iter().map(|gene| gene.partial).collect();
    assert_eq!(partial, [true, false, false, false, false, false, true]);
    assert!(output.spans[0].start < 3 && output.spans[6].end > cut.len() as u64 - 3);
    assert!(output.spans.iter().all(|span| (span.end - span.start) % 3 == 0));
    let closed = finder_of_whole_genes();
    assert!(genes_of(&closed, cut, &[]).genes.iter().all(|gene| !gene.partial));
}

fn finder_of_whole_genes() -> GeneFinder {
    finder(GenesSpec { partial: false, ..GenesSpec::default() })
}

#[test]
fn in_code_4_tga_is_no_stop() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let inner = gene(60, &mut rng);
    let text = format!("{}TGA{}TAA", &inner[..90], &inner[90..180]);
    let steps: Vec<Step> = (text.chars().enumerate())
        .map(|(k, base)| (base, std::array::from_fn(|class| if class == 1 + k % 3 { 0.9 } else { 0.1 / 6.0 })))
        .collect();
    let code_4 = GenesSpec { genetic_code: 4, ..GenesSpec::default() };
    assert_eq!(places(&genes_of(&finder(code_4), &steps, &[])), [(0, text.len() as u64, "forward")]);
    assert!(places(&genes_of(&finder_of_whole_genes(), &steps, &[])).iter().all(|gene| gene.1 <= 93));
}

#[test]
fn nothing_and_less_than_a_codon_have_no_genes() {
    let finder = finder(GenesSpec::default());
    let (steps, _) = sequence(1, 0.9);
    for length in 0..59 {
        assert!(genes_of(&finder, &steps[200..200 + length], &[0, length / 2]).spans.is_empty());
    }
}

#[test]
fn a_gene_longer_than_the_longest_begins_within_it() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let text = format!("ATG{}{}", &gene(200, &mut rng)[3..600].replace("AAA", "ATG"), &gene(100, &mut rng)[3..]);
    let steps: Vec<Step> = (text.chars().enumerate())
        .map(|(k, base)| (base, std::array::from_fn(|class| if class == 1 + k % 3 { 0.9 } else { 0.1 / 6.0 })))
        .collect();
    let short = finder(GenesSpec { longest: 600, partial: false, ..GenesSpec::default() });
    let output = genes_of(&short, &steps, &[]);
    let [span] = &output.spans[..] else { panic!("{:?}", output.spans) };
    assert!(span.end == text.len() as u64 && span.end - span.start <= 600 && span.end - span.start > 400);
}

#[test]
fn what_is_out_of_range_is_said() {
    let said = |genes: GenesSpec| GeneFinder::new(&spec(genes)).unwrap_err();
    assert!(said(GenesSpec { genetic_code: 1, ..GenesSpec::default() }).contains("11 or 4"));
    assert!(said(GenesSpec { shortest: 30, ..GenesSpec::default() }).contains("60 <= shortest"));
    assert!(said(GenesSpec { clip: f32::NAN, ..GenesSpec::default() }).contains("clip"));
    let mut other = spec(GenesSpec::default());
    other.classes = None;
    assert!(GeneFinder::new(&other).unwrap_err().contains("forward0 is missing"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn genes_do_not_depend_on_where_the_state_was_saved(
        seed in 0u64..1000, sure in 0.2f32..0.9, cuts in prop::collection::vec(0usize..9000, 0..40)
    ) {
        let finder = finder(GenesSpec { longest: 900, ..GenesSpec::default() });
        let (steps, _) = sequence(seed, sure);
        prop_assert_eq!(genes_of(&finder, &steps, &cuts), genes_of(&finder, &steps, &[]));
    }

    #[test]
    fn whatever_the_network_says_genes_begin_with_a_start_and_end_with_a_stop(
        seed in 0u64..1000, p in prop::collection::vec(prop::array::uniform7(0.0f32..1.0), 1..50)
    ) {
        let (mut steps, _) = sequence(seed, 0.0);
        steps.iter_mut().zip(p.iter().cycle()).for_each(|(step, p)| step.1 = *p);
        let finder = finder(GenesSpec { prior: 0.0, longest: 600, partial: false, ..GenesSpec::default() });
        let text: String = steps.iter().map(|step| step.0).collect();
        let output = genes_of(&finder, &steps, &[]);
        for (span, told) in output.spans.iter().zip(&output.genes) {
            let bases = &text[span.start as usize..span.end as usize];
            let gene = if span.label == "reverse" { opposite(bases) } else { bases.to_string() };
            let codons: Vec<&str> = gene.as_bytes().chunks(3).map(|codon| std::str::from_utf8(codon).unwrap()).collect();
            prop_assert_eq!(codons[0], told.start_codon);
            let stops: Vec<usize> = (0..codons.len()).filter(|&k| ["TAA", "TAG", "TGA"].contains(&codons[k])).collect();
            prop_assert_eq!(stops, [codons.len() - 1]);
        }
        for pair in output.spans.windows(2) {
            prop_assert!(pair[0].start < pair[1].start && pair[0].end < pair[1].end);
            prop_assert!(pair[0].end <= pair[1].start + 200);
        }
    }

    #[test]
    fn a_damaged_state_is_an_error_or_a_state(
        seed in 0u64..50, at in 0usize..4000, length in 0usize..4000, changes in prop::collection::vec((0usize..4000, 0u8..=255), 0..6)
    ) {
        let finder = finder(GenesSpec::default());
        let (steps, _) = sequence(seed, 0.5);
        let (mut genes, mut output) = (Genes::default(), Output::default());
        for (k, (base, p)) in steps[..at.min(steps.len())].iter().enumerate() {
            finder.push(&mut genes, p, &base.to_string(), k as u64, &mut output);
        }
        let mut bytes = encoded(&genes);
        for (place, byte) in changes {
            let place = place % bytes.len();
            bytes[place] = byte;
        }
        bytes.truncate(bytes.len() - bytes.len().min(length / 8) * usize::from(length % 8 == 0));
        if let Ok(mut genes) = Genes::decode(&mut Fields::of(&bytes), &finder) {
            let from = genes.origin + genes.read;
            for (k, (base, p)) in steps.iter().enumerate() {
                finder.push(&mut genes, p, &base.to_string(), from + k as u64, &mut output);
            }
            finder.conclude(&mut genes, &mut output);
        }
    }
}
