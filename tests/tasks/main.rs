//! What models are for, one task a file: trained small, then tagged, evaluated and served.

#[path = "../daemon_harness/mod.rs"]
mod daemon_harness;
#[path = "../fault_report/mod.rs"]
mod fault_report;
#[path = "../faults/mod.rs"]
mod faults;
#[path = "../killed/mod.rs"]
mod killed;
#[path = "../program/mod.rs"]
mod program;

mod classify;
mod decoding;
mod generate;
mod genes;
mod japanese;
mod language;
mod lookahead;
mod transcribe;
mod transduce;
mod video;
