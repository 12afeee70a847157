//! `strand tag`, run as a program.

use crate::program::{Place, bases, conll, path_text, sentences};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use strand::model::testing;

/// The records of JSON output.
fn records(output: &str) -> Vec<Value> {
    output.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// `text/label` of all labels of each stream.
fn labels_by_stream(output: &str) -> BTreeMap<String, Vec<String>> {
    let mut streams: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in records(output) {
        let labels = record["labels"].as_array().unwrap().iter();
        let labels = labels.map(|l| format!("{}/{}", l["text"].as_str().unwrap(), l["label"].as_str().unwrap()));
        streams.entry(record["stream"].as_str().unwrap().to_string()).or_default().extend(labels);
    }
    streams
}

#[test]
fn output_does_not_depend_on_threads() {
    let place = Place::new();
    place.file("in.tsv", conll(&sentences(300), |_| "O".to_string()));
    for output in ["conll", "jsonl", "ansi"] {
        let tag =
            |threads| place.run(&["tag", "--model", "ner", "in.tsv", "--output", output, "--threads", threads]).ok();
        assert_eq!(tag("1"), tag("4"));
    }
}

#[test]
fn conll_output_has_the_tokens_of_the_input_and_its_blank_lines() {
    let place = Place::new();
    let input = conll(&sentences(100), |_| "O".to_string());
    place.file("in.tsv", &input);
    let output = place.run(&["tag", "--model", "ner", "in.tsv", "--output", "conll"]).ok();
    let tokens = |text: &str| text.lines().map(|l| l.split('\t').next().unwrap().to_string()).collect::<Vec<_>>();
    assert_eq!(tokens(&output), tokens(&input));
    assert!(output.contains("\tB-"));
}

#[test]
fn a_stream_on_stdin_is_labelled_as_it_comes() {
    let place = Place::new();
    let mut child = place.command(&["tag", "--model", "ner"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    stdin.write_all(b"Ada Lovelace met Cha").unwrap();
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    let words: Vec<&str> = first["labels"].as_array().unwrap().iter().map(|l| l["text"].as_str().unwrap()).collect();
    assert_eq!(words, ["Ada", "Lovelace", "met"]);
    assert_eq!(first["final"], false);
    stdin.write_all(b"rles").unwrap();
    drop(stdin);
    let last: Value = serde_json::from_str(&lines.map(Result::unwrap).last().unwrap()).unwrap();
    assert_eq!(last["labels"][0]["text"], "Charles");
    assert_eq!((last["labels"][0]["start"].as_u64(), last["final"].as_bool()), (Some(17), Some(true)));
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let place = Place::new();
    place.file("in.txt", testing::TEXT.repeat(2000));
    let mut child = place.command(&["tag", "--model", "ner", "in.txt"]).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 100]).unwrap();
    drop(stdout);
    let mut words = String::new();
    child.stderr.take().unwrap().read_to_string(&mut words).unwrap();
    assert_eq!((child.wait().unwrap().code(), words.as_str()), (Some(0), ""));
}

#[test]
fn interleaved_streams_keep_their_own_state() {
    let place = Place::new();
    let (a, b) = (&sentences(40)[..20], &sentences(40)[20..]);
    let line = |stream: &str, words: &[&str]| {
        format!("{}\n", serde_json::json!({ "stream": stream, "text": words.join(" ") + " " }))
    };
    let together: String = a.iter().zip(b).map(|(a, b)| line("a", a) + &line("b", b)).collect();
    let together = labels_by_stream(&place.run_with(&["tag", "--model", "ner", "--threads", "3"], together).ok());
    for (name, sentences) in [("a", a), ("b", b)] {
        let text: Vec<String> = sentences.iter().map(|words| words.join(" ")).collect();
        place.file(&format!("{name}.txt"), text.join(" "));
        let alone = place.run(&["tag", "--model", "ner", &format!("{name}.txt"), "--output", "jsonl"]).ok();
        assert_eq!(together[name], labels_by_stream(&alone)[&format!("{name}.txt")]);
    }
}

#[test]
fn records_of_a_stream_are_counted_and_the_last_is_final() {
    let place = Place::new();
    let input = "{\"stream\":\"a\",\"text\":\"Ada \"}\n{\"text\":\"own\"}\n{\"stream\":\"a\",\"tokens\":[\"Turin\"]}\n";
    let output = records(&place.run_with(&["tag", "--model", "ner", "--format", "jsonl"], input).ok());
    let heads: Vec<String> =
        output.iter().map(|r| format!("{} {} {}", r["stream"].as_str().unwrap(), r["seq"], r["final"])).collect();
    assert_eq!(heads, ["a 0 false", "standard input:2 0 true", "a 1 false", "a 2 true"]);
    assert_eq!(output[0]["model"], "ner");
}

#[test]
fn spans_carry_their_text() {
    let place = Place::new();
    place.file("in.txt", testing::TEXT);
    let output = records(&place.run(&["tag", "--model", "ner", "in.txt", "--output", "jsonl"]).ok());
    let characters: Vec<char> = testing::TEXT.chars().collect();
    let spans: Vec<&Value> = output.iter().flat_map(|record| record["spans"].as_array().unwrap()).collect();
    assert!(spans.len() > 3);
    for span in spans {
        let bounds = span["start"].as_u64().unwrap() as usize..span["end"].as_u64().unwrap() as usize;
        assert_eq!(span["text"], characters[bounds].iter().collect::<String>());
    }
}

#[test]
fn marked_text_is_the_text_with_marks() {
    let place = Place::new();
    let text = "Ada  Lovelace\nmet Zoë Babbage,\n\n in London \u{1b}[31m.\n".repeat(400);
    place.file("in.txt", &text);
    let output = place.run(&["tag", "--model", "ner", "in.txt", "--output", "ansi"]).ok();
    let marked = output.strip_prefix("PER ORG LOC\n\n").unwrap();
    assert!(marked.matches("PER]").count() > 3);
    let text = text.replace('\u{1b}', "\u{fffd}").replace("[31m", "31m");
    let bare = [" PER]", " ORG]", " LOC]", "["].iter().fold(marked.to_string(), |text, mark| text.replace(mark, ""));
    assert_eq!(bare, text);
    let output = place.run_with(&["tag", "--model", "pos", "--output", "ansi"], "Ada met\nher").ok();
    let bare = ["/NOUN", "/VERB", "/X"].iter().fold(output, |text, mark| text.replace(mark, ""));
    assert_eq!(bare, "Ada met\nher\n");
}

#[test]
fn sequences_are_streams_and_their_regions_are_gff3() {
    let place = Place::new();
    let (one, two) = (bases(5, 40_000), bases(6, 300));
    place.file("in.fna", format!(">one x\n{one}\n>two\n{two}\n"));
    let json = place.run(&["tag", "--model", "dna", "in.fna", "--output", "jsonl"]).ok();
    let labels = labels_by_stream(&json);
    assert_eq!((labels["one"].len(), labels["two"].len()), (40_000, 300));
    let mut regions = Vec::new();
    for record in records(&json) {
        for span in record["spans"].as_array().unwrap() {
            let strand = if span["label"] == "forward" { '+' } else { '-' };
            let (start, end) = (span["start"].as_u64().unwrap() + 1, span["end"].as_u64().unwrap());
            regions.push(format!("{} strand {start} {end} {strand}", record["stream"].as_str().unwrap()));
        }
    }
    assert!(regions.len() > 10);
    let gff3 = place.run(&["tag", "--model", "dna", "in.fna", "--output", "gff3", "--threads", "3"]).ok();
    let mut lines = gff3.lines();
    assert_eq!(lines.next(), Some("##gff-version 3"));
    let lines: Vec<String> = lines
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            assert_eq!(columns.len(), 9);
            assert!((0.0..=1.0).contains(&columns[5].parse::<f64>().unwrap()));
            [columns[0], columns[1], columns[3], columns[4], columns[6]].join(" ")
        })
        .collect();
    assert_eq!(lines, regions);
    let bands = place.run(&["tag", "--model", "dna", "in.fna", "--output", "ansi"]).ok();
    assert!(bands.contains("40,000 bases") && bands.contains("300 bases"), "{bands}");
}

#[test]
fn errors_say_where_and_what() {
    let place = Place::new();
    let run = |arguments: &[&str]| {
        let ran = place.run(arguments);
        (ran.code, ran.stderr.trim_end().to_string())
    };
    place.file("bad.fna", ">a\nACGT\nAC!T\n");
    let (code, words) = run(&["tag", "--model", "dna", "bad.fna"]);
    assert_eq!((code, words.as_str()), (1, "strand: bad.fna, line 3: `!` is no IUPAC base code"));
    place.file("bad.txt", b"Ada\xff Lovelace");
    let (code, words) = run(&["tag", "--model", "ner", "bad.txt"]);
    assert_eq!((code, words.as_str()), (1, "strand: bad.txt, byte 4: the text is not valid UTF-8 there"));
    place.file("bad.jsonl", "{\"text\":\"fine\"}\n{\"dna\":\"ACGT\"}\n");
    let (code, words) = run(&["tag", "--model", "ner", "bad.jsonl"]);
    assert!(code == 1 && words.starts_with("strand: bad.jsonl, line 2: "), "{words}");
    let (code, words) = run(&["tag", "--model", "ner", "missing.txt"]);
    assert!(code == 1 && words.starts_with("strand: cannot read missing.txt: "), "{words}");
    assert_eq!(run(&["tag", "--model", "nowhere"]).0, 2);
    assert_eq!(run(&["tag", "--model", "ner", "bad.fna"]).0, 2);
    assert_eq!(run(&["tag", "--model", "ner", "bad.txt", "--output", "gff3"]).0, 2);
    assert_eq!(run(&["tag", "--modle", "ner"]).0, 2);
}

#[test]
fn what_came_before_an_error_is_labelled() {
    let place = Place::new();
    place.file("in.jsonl", "{\"text\":\"Ada\"}\n{\"text\":\"Turin\"}\noops\n");
    let ran = place.run(&["tag", "--model", "ner", "in.jsonl", "--output", "conll"]);
    assert_eq!((ran.code, ran.stdout.lines().filter(|line| line.contains('\t')).count()), (1, 2));
}

#[test]
fn a_model_can_be_looked_at() {
    let place = Place::new();
    let json: Value = serde_json::from_str(&place.run(&["model", "show", "ner", "--json"]).ok()).unwrap();
    assert_eq!((json["name"].as_str(), json["labels"][1].as_str()), (Some("ner"), Some("B-PER")));
    assert!(json["parameters"].as_u64().unwrap() > 100);
    let words = place.run(&["model", "show", path_text(&place.path("dna"))]).ok();
    assert!(words.contains("none forward reverse"), "{words}");
}
