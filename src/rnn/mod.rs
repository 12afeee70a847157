//! The recurrent engine: pure numerics, no async, no I/O.
use serde::{Deserialize, Serialize};

/// Kind of recurrent cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    Lstm,
    Gru,
    Rnn,
}

/// Nonlinearity of the plain `rnn` cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Nonlinearity {
    #[default]
    Tanh,
    Relu,
}

/// `[[layers]]` of a recipe and of a `model.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerSpec {
    pub cell: Cell,
    pub hidden: usize,
    #[serde(default, skip_serializing_if = "is_tanh")]
    pub nonlinearity: Nonlinearity,
}

fn is_tanh(n: &Nonlinearity) -> bool {
    *n == Nonlinearity::Tanh
}
