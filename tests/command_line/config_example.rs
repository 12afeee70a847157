//! `deploy/strand.example.toml` is the reference of the configuration: it must be whole and true.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use strand::config::{Config, InputConfig, Listen, StdioConfig, ValueFormat};
use strand::rnn::matrix::Precision;
use toml::{Table, Value};

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/strand.example.toml")
}

/// The defaults, and a value for each key that has none by default.
fn every_key_given() -> Config {
    let mut config = Config::default();
    config.precision = Some(Precision::Int8);
    config.previous_model = Some("models/old".into());
    config.input = InputConfig { format: Some(ValueFormat::Text), ..config.input };
    config.stdio = StdioConfig { state_file: Some("strand-states.redb".into()) };
    (config.kafka.input_partitions, config.kafka.replication_factor) = (Some(8), Some(3));
    config.http.listen = Some(Listen::At("127.0.0.1:8080".parse().unwrap()));
    config.http.token = Some("${STRAND_TOKEN}".to_string());
    config
}

/// Dotted names of all keys of a table.
fn keys(table: &Table, within: &str, found: &mut BTreeSet<String>) {
    for (name, value) in table {
        let name = format!("{within}{name}");
        match value {
            Value::Table(table) if !table.is_empty() => keys(table, &format!("{name}."), found),
            _ => _ = found.insert(name),
        }
    }
}

fn keys_of(config: &Config) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    keys(&Table::try_from(config).unwrap(), "", &mut found);
    found
}

/// The keys that serde knows in `table`, as the error about an unknown one lists them.
fn known_in(table: &str) -> BTreeSet<String> {
    let prefix = if table.is_empty() { String::new() } else { format!("{table}.") };
    let set = format!("{prefix}zzzzzzzzzzzzzzzzzzzz=1");
    let error = Config::parse("", None, &[set], &|_| None).unwrap_err().to_string();
    let (_, known) = error.split_once("; known here: ").unwrap_or_else(|| panic!("{error}"));
    known.split(", ").map(|key| format!("{prefix}{key}")).collect()
}

/// The example with its keys that are commented out put in force.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix("# ").and_then(|rest| rest.split_once(" = ")) {
        Some((name, _)) if !name.contains(' ') => line[2..].to_string(),
        _ => line.to_string(),
    };
    text.lines().map(|l| line(l) + "\n").collect()
}

#[test]
fn the_example_is_the_defaults() {
    assert_eq!(Config::load(Some(&path()), &[]).unwrap(), Config::default());
}

#[test]
fn the_example_mentions_every_key_and_no_other() {
    let text = uncommented(&std::fs::read_to_string(path()).unwrap());
    let mut mentioned = BTreeSet::new();
    keys(&text.parse().unwrap(), "", &mut mentioned);
    assert_eq!(mentioned, keys_of(&every_key_given()));
    // What is commented out is what the test above thinks it is.
    let env = |name: &str| Some(format!("${{{name}}}"));
    assert_eq!(Config::parse(&text, None, &[], &env).unwrap(), every_key_given());
}

/// Keys without a default could be forgotten above; the parser knows them all.
#[test]
fn no_key_is_left_out_of_this_test() {
    let known: BTreeSet<String> = known_in("")
        .into_iter()
        .flat_map(|key| match Table::try_from(Config::default()).unwrap().get(&key) {
            Some(Value::Table(_)) => known_in(&key),
            _ => BTreeSet::from([key]),
        })
        .collect();
    assert_eq!(known, keys_of(&every_key_given()));
}

#[test]
fn every_key_is_explained() {
    let text = std::fs::read_to_string(path()).unwrap();
    let lines: Vec<&str> = uncommented(&text).leak().lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let is_key = |line: &str| !line.starts_with('#') && line.contains(" = ");
        if is_key(line) {
            // A comment is directly above, or above the keys that it explains together.
            let above = lines[..number].iter().rev().find(|above| !is_key(above));
            assert!(above.is_some_and(|above| above.starts_with('#')), "{}: {line}", number + 1);
        }
    }
}
