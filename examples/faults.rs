//! Runs the tests that make faults happen and prints what each led to: fault × runs × lost × repeated × wrong.
//!
//! ```sh
//! cargo run --release --example faults              # the sizes of CI
//! cargo run --release --example faults -- --long    # 2,000 kills, 10,000,000 records, a soak of 20 minutes, …: hours
//! cargo run --release --example faults -- soak      # only tests whose name here contains this
//! ```
//!
//! Exit code 1 if a test failed, or if anything was lost or wrong, or repeated where nothing may be.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// Programs of tests, and the part of each: of its tests those whose names contain this.
const TESTS: [(&str, &str); 15] = [
    ("simulation", ""),
    ("daemon", "kill::"),
    ("daemon", "faults_clock::"),
    ("daemon", "faults_disk::"),
    ("daemon", "faults_load::"),
    ("daemon", "faults_model::"),
    ("daemon", "faults_store::"),
    ("soak", ""),
    ("kafka", "kill::"),
    ("kafka", "frozen::"),
    ("kafka", "faults::"),
    ("kafka", "transactions::"),
    ("kafka", "members::"),
    ("kafka", "restore::"),
    ("kafka", "disk::"),
];

/// What `--long` asks of the tests.
const LONG: [(&str, &str); 15] = [
    ("STRAND_SEEDS", "100000"),
    ("STRAND_KILLS", "2000"),
    ("STRAND_FULL_DISKS", "20"),
    ("STRAND_READ_ONLY_DISKS", "20"),
    ("STRAND_DAMAGED_STORES", "2000"),
    ("STRAND_DAMAGED_MODELS", "50000"),
    ("STRAND_CLOCK_JUMPS", "500"),
    ("STRAND_BAD_RECORDS", "1000000"),
    ("STRAND_STREAM_RECORDS", "10000000"),
    ("STRAND_HOT_RECORDS", "1000000"),
    ("STRAND_LARGE_RECORD_MIB", "50"),
    ("STRAND_SOAK_SECONDS", "1200"),
    ("STRAND_KAFKA_ROUNDS", "100"),
    ("STRAND_KAFKA_GONE_S", "120"),
    ("STRAND_KAFKA_BAD", "1000000"),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let long = arguments.iter().any(|argument| argument == "--long");
    let only: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let name = |(program, part): (&str, &str)| format!("{program}::{part}").trim_end_matches(':').to_string();
    let mut tests = TESTS.map(|test| (name(test), test)).to_vec();
    tests.retain(|(name, _)| only.is_empty() || only.iter().any(|part| name.contains(part.as_str())));
    let report = report_file(root);

    let (mut failed, mut rows) = (Vec::new(), Vec::new());
    for (number, (name, test)) in tests.iter().enumerate() {
        eprintln!("[{}/{}] {name}", number + 1, tests.len());
        let begun = Instant::now();
        let good = run(root, *test, &report, long);
        let new = std::fs::read_to_string(&report).unwrap_or_default();
        let new: Vec<Value> = new.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        eprintln!("    {} in {:.0} s", if good { "passed" } else { "FAILED" }, begun.elapsed().as_secs_f64());
        if !good {
            failed.push(name.clone());
        }
        rows = new;
    }
    print_table(&rows);
    let bad = rows.iter().filter(|row| !is_good(row)).count();
    if !failed.is_empty() {
        println!("\nfailed: {}", failed.join(", "));
    }
    if failed.is_empty() && bad == 0 && !rows.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// An empty file for the tests to write into.
fn report_file(root: &Path) -> PathBuf {
    let path = root.join("target").join("faults.jsonl");
    // Removed where it was there; the tests make it.
    let _ = std::fs::remove_file(&path);
    path
}

fn run(root: &Path, (program, part): (&str, &str), report: &Path, long: bool) -> bool {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--quiet", "--release", "--test", program, "--", part]).current_dir(root);
    command.env("STRAND_FAULTS_REPORT", report).stdin(Stdio::null());
    if long {
        let asked = LONG.into_iter().filter(|(name, _)| std::env::var_os(name).is_none());
        command.envs(asked);
    }
    match command.output() {
        // A part without tests is one that has moved away.
        Ok(output) if output.status.success() && !String::from_utf8_lossy(&output.stdout).contains(" 0 passed") => true,
        Ok(output) => {
            eprintln!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            false
        }
        Err(error) => {
            eprintln!("cannot run cargo: {error}");
            false
        }
    }
}

fn count(row: &Value, name: &str) -> u64 {
    row[name].as_u64().unwrap_or(0)
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_default()
}

/// Kafka at least once may repeat; nothing else may.
fn is_good(row: &Value) -> bool {
    let may_repeat = text(row, "transport").contains("at least once");
    count(row, "lost") == 0 && count(row, "wrong") == 0 && (may_repeat || count(row, "repeated") == 0)
}

fn print_table(rows: &[Value]) {
    println!("| fault | transport | runs | records | lost | repeated | wrong | |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |");
    for row in rows {
        let counts = ["runs", "records", "lost", "repeated", "wrong"].map(|name| count(row, name).to_string());
        println!(
            "| {} | {} | {} | {} |",
            text(row, "fault"),
            text(row, "transport"),
            counts.join(" | "),
            text(row, "note")
        );
    }
}
