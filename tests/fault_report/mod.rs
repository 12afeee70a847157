//! What a fault test counted, as one line of the table that `cargo run --release --example faults` prints.
#![allow(dead_code, reason = "each test file uses a part")]

use serde_json::json;
use std::io::Write;

/// The file to which the counts are appended; without it they are only printed.
pub const REPORT: &str = "STRAND_FAULTS_REPORT";

/// One row of the table.
#[derive(Debug, Default)]
pub struct Row<'a> {
    pub fault: &'a str,
    pub transport: &'a str,
    /// How often the fault was made to happen.
    pub runs: u64,
    pub records: u64,
    pub lost: u64,
    pub repeated: u64,
    pub wrong: u64,
    /// What else the figures should be read with.
    pub note: String,
}

/// Adds a row to the table. Call it before the counts are asserted: what went wrong should be in the table too.
pub fn report(row: &Row) {
    let Row { fault, transport, runs, records, lost, repeated, wrong, note } = row;
    let line = json!({
        "fault": fault, "transport": transport, "runs": runs, "records": records,
        "lost": lost, "repeated": repeated, "wrong": wrong, "note": note,
    });
    println!("{line}");
    if let Some(path) = std::env::var_os(REPORT) {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        // In one piece: other tests write too.
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// A number from the environment, by which a test can be made longer.
pub fn size(variable: &str, default: u64) -> u64 {
    let number = |text: String| text.parse().unwrap_or_else(|e| panic!("{variable}={text}: {e}"));
    std::env::var(variable).ok().map_or(default, number)
}
