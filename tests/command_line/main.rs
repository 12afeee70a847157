//! The program on files, the shipped models and the example of a configuration.

#[path = "../daemon_harness/mod.rs"]
mod daemon_harness;
#[path = "../program/mod.rs"]
mod program;

mod config_example;
mod eval;
mod shipped_models;
mod tag;
