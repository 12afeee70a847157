//! The recurrent engine: pure numerics, no async, no I/O.
//!
//! [`kernel`] has the products and elementwise functions, [`layer`] one recurrent layer over a ragged batch, [`bptt`]
//! the same layer for training, forwards and backwards.

pub mod bptt;
pub mod kernel;
pub mod layer;
pub mod real;

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

impl Cell {
    /// Gates of the cell: how many blocks of `hidden` rows its weight matrices have.
    pub fn gates(self) -> usize {
        match self {
            Cell::Lstm => 4,
            Cell::Gru => 3,
            Cell::Rnn => 1,
        }
    }

    /// Numbers that a stream's state has for each hidden unit: h, and c for the LSTM.
    pub fn state(self) -> usize {
        if self == Cell::Lstm { 2 } else { 1 }
    }
}
