//! What `strand bench` measures: each file one question, in the lines that the peers' benchmarks print.

pub mod engine;
pub mod pipeline;
pub mod plot;
pub mod roofline;
pub mod scaling;
pub mod tag;
pub mod train;
