//! Whatever the bytes are, nothing panics, nothing takes more memory than they justify, and what is read is read in
//! one way only. The fuzz targets (`docs/FUZZING.md`) call the same functions.

mod hostile;

use hostile::{config, files, formats, lines, models, mutate, states};

#[test]
fn configurations() {
    mutate::run("config", 4000, config::check);
}

#[test]
fn records_of_every_format() {
    mutate::run("formats", 3000, formats::check);
}

#[test]
fn lines_of_json() {
    mutate::run("lines", 300, lines::check);
}

#[test]
fn saved_states() {
    mutate::run("states", 20_000, states::check);
}

#[test]
fn model_directories() {
    mutate::run("models", 1000, models::check);
}

#[test]
fn files_to_be_read() {
    mutate::run("files", 3000, files::check);
}
