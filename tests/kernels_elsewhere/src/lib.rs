//! `src/rnn` of Strand as a crate of its own.

#[path = "../../../src/rnn/mod.rs"]
pub mod rnn;
