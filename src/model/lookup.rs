//! The first layer's product with the first table's embeddings, W · E, looked up instead of computed at every step.
//!
//! A row is bias + W e of one symbol, computed when the symbol is first seen and kept for all threads. Sums run over the
//! table's numbers first, so in f32 the bits are those of the whole product.

use super::params::{NetShape, Params};
use crate::rnn::kernel::Start;
use crate::rnn::matrix::{Matrix, Precision};
use std::sync::OnceLock;

/// Memory that the rows take at most, if all symbols are seen. Vocabularies are sorted by frequency: what comes later is
/// rare, and computed each time.
const MOST_BYTES: usize = 64 << 20;

#[derive(Debug)]
pub struct Lookup {
    rows: Box<[OnceLock<Box<[f32]>>]>,
    /// What rows are made with, as exact as the weights are.
    first: Matrix,
    /// W for the rest of a step's input.
    rest: Matrix,
    bias: Vec<f32>,
}

impl Lookup {
    /// Networks whose steps begin with a table, unless the first layer needs its input itself.
    pub fn serves(shape: &NetShape) -> bool {
        let first = shape.layers.first();
        !shape.tables.is_empty() && shape.window.is_none() && first.is_some_and(|layer| !layer.residual)
    }

    /// None where [`Lookup::serves`] is false.
    pub fn new(shape: &NetShape, params: &Params<f32>, bias: &[f32], precision: Precision) -> Option<Lookup> {
        let table = shape.tables.first().filter(|_| Lookup::serves(shape))?;
        let (w_ih, input, width) = (params.layer(shape.layer_at(0)).w_ih, shape.layer_input(0), bias.len());
        let matrix = |from, k, precision| Matrix::of_columns(w_ih, input, from, [k, width], precision);
        let kept = table.rows.min(MOST_BYTES / (size_of::<f32>() * width));
        Some(Lookup {
            rows: (0..kept).map(|_| OnceLock::new()).collect(),
            first: matrix(0, table.dim, Precision::F32),
            rest: matrix(table.dim, input - table.dim, precision),
            bias: bias.to_vec(),
        })
    }

    /// Fills `gates` `[rows, width]` with what the symbols `ids` of the steps, whose embeddings `table` `[symbols, dim]` has,
    /// and the rest of their input `x` `[rows, rest]` come to.
    pub fn gates(&self, ids: impl Iterator<Item = usize>, table: &[f32], x: &[f32], gates: &mut [f32]) {
        let width = self.bias.len();
        let dim = self.first.rows();
        let row_of = |id: usize, to: &mut [f32]| {
            self.first.product(Start::Row(&self.bias), 1, &table[id * dim..(id + 1) * dim], to, width);
        };
        let mut rows = 0;
        for (gates, id) in gates.chunks_exact_mut(width).zip(ids) {
            rows += 1;
            let Some(known) = self.rows.get(id) else {
                row_of(id, gates);
                continue;
            };
            gates.copy_from_slice(known.get_or_init(|| {
                let mut row = vec![0.0; width];
                row_of(id, &mut row);
                row.into()
            }));
        }
        if self.rest.rows() > 0 {
            self.rest.product(Start::Old, rows, x, gates, width);
        }
    }
}
