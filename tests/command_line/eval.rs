//! `strand eval`, run as a program.

use crate::program::{Place, bases, conll, numbers, sentences};
use serde_json::Value;
use strand::model::Scheme;
use strand::score::{SpanScore, spans_of};

const LABELS: [&str; 7] = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"];

/// Writes `gold.tsv` with random labels.
fn gold(place: &Place) -> String {
    let mut label = numbers(9, LABELS.len());
    let text = conll(&sentences(120), |_| LABELS[label()].to_string());
    place.file("gold.tsv", &text);
    text
}

fn eval(place: &Place, arguments: &[&str]) -> Value {
    let all = [&["eval", "--json", "--model"], arguments].concat();
    serde_json::from_str(&place.run(&all).ok()).unwrap()
}

/// The labels of each sentence of a CoNLL text.
fn labels(text: &str) -> Vec<Vec<&str>> {
    let sentences = text.split("\n\n").filter(|sentence| !sentence.is_empty());
    sentences.map(|s| s.lines().map(|line| line.split_once('\t').unwrap().1).collect()).collect()
}

fn close(a: &Value, b: f64) {
    assert!((a.as_f64().unwrap() - b).abs() < 1e-12, "{a} {b}");
}

#[test]
fn eval_scores_what_tag_gives() {
    let place = Place::new();
    let gold = gold(&place);
    let tagged = place.run(&["tag", "--model", "ner", "gold.tsv", "--output", "conll"]).ok();
    let (gold, tagged) = (labels(&gold), labels(&tagged));
    let (mut score, mut right, mut tokens) = (SpanScore::default(), 0, 0);
    for (gold, tagged) in gold.iter().zip(&tagged) {
        let spans = |labels: &[&str]| spans_of(Scheme::Bio, Some("O"), labels.iter().copied());
        score.add(&spans(gold), &spans(tagged));
        // The gold labels are read as IOB2: what begins a span is B-.
        let begins = |k: usize| k == 0 || gold[k - 1] == "O" || gold[k - 1][2..] != gold[k][2..];
        let iob2 = |k: usize| {
            if gold[k].starts_with("I-") && begins(k) { gold[k].replace("I-", "B-") } else { gold[k].into() }
        };
        right += (0..gold.len()).filter(|&k| iob2(k) == tagged[k]).count();
        tokens += gold.len();
    }
    let report = eval(&place, &["ner", "gold.tsv"]);
    let overall = score.overall().figures();
    assert!(overall.f1 > 0.0);
    close(&report["f1"], overall.f1);
    close(&report["precision"], overall.precision);
    close(&report["recall"], overall.recall);
    close(&report["per_label"]["PER"]["f1"], score.by_type()["PER"].figures().f1);
    close(&report["accuracy"], right as f64 / tokens as f64);
    assert_eq!((report["task"].as_str(), report["records"].as_u64()), (Some("tag"), Some(120)));
    assert_eq!(report["tokens"].as_u64(), Some(tokens as u64));
    let counted: u64 = report["confusion"]["matrix"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|row| row.as_array().unwrap())
        .map(|count| count.as_u64().unwrap())
        .sum();
    assert_eq!(counted, tokens as u64);
}

#[test]
fn figures_do_not_depend_on_threads() {
    let place = Place::new();
    gold(&place);
    for more in
        [&["--as", "sentences"][..], &["--as", "endless"], &["--from", "text"], &["--from", "text", "--as", "endless"]]
    {
        let on = |threads| eval(&place, &[&["ner", "gold.tsv", "--threads", threads], more].concat());
        assert_eq!(on("1"), on("5"));
    }
}

#[test]
fn plain_words_score_the_same_from_tokens_and_from_text() {
    let place = Place::new();
    gold(&place);
    for streams in ["sentences", "endless"] {
        let [tokens, text] =
            ["tokens", "text"].map(|from| eval(&place, &["ner", "gold.tsv", "--as", streams, "--from", from]));
        assert_eq!(tokens["accuracy"], text["accuracy"]);
        if streams == "sentences" {
            assert_eq!(tokens["f1"], text["f1"]);
            assert_eq!(tokens["per_label"], text["per_label"]);
        }
    }
}

#[test]
fn an_endless_stream_carries_its_state_over_sentences() {
    let place = Place::new();
    gold(&place);
    let [sentences, endless] =
        ["sentences", "endless"].map(|streams| eval(&place, &["ner", "gold.tsv", "--as", streams]));
    assert_ne!(sentences["confusion"], endless["confusion"]);
    assert_eq!(sentences["tokens"], endless["tokens"]);
}

#[test]
fn tokens_that_text_cuts_differently_count_as_wrong() {
    let place = Place::new();
    place.file("gold.tsv", "Ada\tNOUN\nmet her\tVERB\nfriend\tNOUN\n");
    let report = eval(&place, &["pos", "gold.tsv", "--from", "text"]);
    assert_eq!(report["tokens"], 3);
    assert!(report["accuracy"].as_f64().unwrap() < 0.7);
    assert!(report["precision"].as_f64().unwrap() <= 0.5);
}

#[test]
fn gold_labels_can_be_renamed() {
    let place = Place::new();
    place.file("gold.tsv", "Ada\tB-person\nin\tO\nTurin\tI-location\nand\tB-product\n");
    let report = eval(&place, &["ner", "gold.tsv", "--map", "person=PER,location=LOC,*=O"]);
    assert_eq!(report["per_label"]["LOC"]["support"], 1);
    assert!(report["per_label"].get("product").is_none() && report["per_label"].get("O").is_none());
    let table = place.run(&["eval", "--model", "ner", "gold.tsv"]).ok();
    assert!(table.contains("location") && table.contains("accuracy"), "{table}");
    let ran = place.run(&["eval", "--model", "ner", "gold.tsv", "--map", "person"]);
    assert!(ran.code == 2 && ran.stderr.contains("OLD=NEW"), "{}", ran.stderr);
}

#[test]
fn genomes_are_scored_by_base_and_by_gene() {
    let place = Place::new();
    let genome = bases(5, 30_000);
    place.file("g.fna", format!(">chr\n{genome}\n"));
    // The model's own regions as genes: everything is right.
    let gff3 = place.run(&["tag", "--model", "dna", "g.fna", "--output", "gff3"]).ok();
    let rows: Vec<Vec<&str>> = gff3.lines().skip(1).map(|line| line.split('\t').collect()).collect();
    let genes: String = rows.iter().map(|r| format!("{}\t{}\t{}\t{}\t\n", r[0], r[3], r[4], r[6])).collect();
    place.file("all.tsv", &genes);
    let report = eval(&place, &["dna", "g.fna", "--intervals", "all.tsv"]);
    for figure in ["accuracy", "coding_precision", "coding_recall", "gene_precision", "gene_recall"] {
        assert_eq!(report[figure], 1.0, "{figure}");
    }
    assert_eq!(report["tokens"], 30_000);
    // Without every other gene.
    let half: String = genes.lines().step_by(2).map(|line| format!("{line}\n")).collect();
    place.file("half.tsv", &half);
    let report = eval(&place, &["dna", "g.fna", "--intervals", "half.tsv"]);
    assert_eq!((&report["gene_recall"], &report["coding_recall"]), (&Value::from(1.0), &Value::from(1.0)));
    close(&report["gene_precision"], half.lines().count() as f64 / rows.len() as f64);
    let part = eval(&place, &["dna", "g.fna", "--intervals", "half.tsv", "--range", "20000..25000"]);
    assert_eq!(part["tokens"], 5000);
}

#[test]
fn errors_say_where_and_what() {
    let place = Place::new();
    place.file("bad.tsv", "Ada\tB-PER\n\nTurin LOC\n");
    let run = |arguments: &[&str]| {
        let ran = place.run(&[&["eval", "--model"], arguments].concat());
        (ran.code, ran.stderr.trim_end().to_string())
    };
    let (code, words) = run(&["ner", "bad.tsv"]);
    let expected = "strand: bad.tsv, line 3: expected token<TAB>label, found 1 column (is the separator a space?)";
    assert_eq!((code, words.as_str()), (1, expected));
    place.file("g.fna", ">chr\nACGT\n");
    place.file("i.tsv", "other\t1\t3\t+\t\n");
    assert_eq!(run(&["dna", "g.fna"]).0, 2);
    let (code, words) = run(&["dna", "g.fna", "--intervals", "i.tsv"]);
    assert_eq!(
        (code, words.as_str()),
        (1, "strand: g.fna: no interval is of sequence `chr`; the accessions in i.tsv are other")
    );
    place.file("i.tsv", "chr\t1\t3\t+\t\n");
    assert_eq!(run(&["dna", "g.fna", "--intervals", "i.tsv", "--range", "0..9"]).0, 2);
    assert_eq!(run(&["ner", "bad.tsv", "--intervals", "i.tsv"]).0, 2);
}
