//! The recurrent engine: pure numerics, no async, no I/O.
//!
//! [`kernel`] has the products and elementwise functions, [`layer`] one recurrent layer over a ragged batch, [`bptt`]
//! the same layer for training, forwards and backwards; [`ahead`] says which steps a layer that reads backwards sees.

pub mod ahead;
pub mod attention;
pub mod bptt;
pub mod kernel;
pub mod layer;
pub mod matrix;
pub mod real;

use serde::{Deserialize, Serialize};

/// Kind of recurrent cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    Lstm,
    Gru,
    Rnn,
    /// The update gate alone.
    GruSimplified,
    /// The gates see c.
    LstmPeephole,
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
    /// The layer's input is added to its output; both are as wide.
    #[serde(default, skip_serializing_if = "is_false")]
    pub residual: bool,
    /// The layer's output is normalised (before the input is added); what is carried in time is not.
    #[serde(default, skip_serializing_if = "is_false")]
    pub layer_norm: bool,
    /// A second direction reads backwards; `hidden` is the width of each, and the output is both, one after the other.
    #[serde(default, skip_serializing_if = "is_false")]
    pub bidirectional: bool,
}

impl LayerSpec {
    /// A layer without options.
    pub fn new(cell: Cell, hidden: usize) -> LayerSpec {
        let nonlinearity = Nonlinearity::Tanh;
        LayerSpec { cell, hidden, nonlinearity, residual: false, layer_norm: false, bidirectional: false }
    }

    pub fn directions(&self) -> usize {
        1 + usize::from(self.bidirectional)
    }

    /// Numbers that the layer hands up for each step.
    pub fn output(&self) -> usize {
        self.directions() * self.hidden
    }

    /// Each direction as a layer of its own. Of two, neither adds the input: it is added to both together.
    pub fn direction(&self) -> LayerSpec {
        LayerSpec { bidirectional: false, residual: self.residual && !self.bidirectional, ..self.clone() }
    }

    /// Says what the layer cannot be, over an input of this width.
    pub fn check(&self, input: usize) -> Result<(), String> {
        let (hidden, output) = (self.hidden, self.output());
        if self.residual && input != output {
            let twice = if self.bidirectional { " in each of two directions" } else { "" };
            return Err(format!(
                "residual = true adds the layer's input to its output, so both must be as wide: its input has {input} \
                 numbers, hidden = {hidden}{twice}"
            ));
        }
        if self.layer_norm && hidden < 2 {
            return Err(format!("layer_norm = true with hidden = {hidden}: a lone number is always its own mean"));
        }
        Ok(())
    }
}

fn is_false(b: &bool) -> bool {
    !*b
}

fn is_tanh(n: &Nonlinearity) -> bool {
    *n == Nonlinearity::Tanh
}

impl Cell {
    /// Gates of the cell: how many blocks of `hidden` rows its weight matrices have.
    pub fn gates(self) -> usize {
        match self {
            Cell::Lstm | Cell::LstmPeephole => 4,
            Cell::Gru => 3,
            Cell::GruSimplified => 2,
            Cell::Rnn => 1,
        }
    }

    /// Whether the cell carries c beside h.
    pub fn has_c(self) -> bool {
        matches!(self, Cell::Lstm | Cell::LstmPeephole)
    }

    /// Numbers that a stream's state has for each hidden unit: h, and c for the LSTMs.
    pub fn state(self) -> usize {
        1 + usize::from(self.has_c())
    }

    /// Of its gates, those whose product with h can be added to that with the input: all, but for the GRU's n, whose
    /// hidden part is multiplied by r first.
    fn shared_gates(self) -> usize {
        if self == Cell::Gru { 2 } else { self.gates() }
    }
}
