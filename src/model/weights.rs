//! The file `weights.safetensors`, in any precision.
//!
//! The matrices that the network multiplies with are F32, BF16, or I8 `[rows, columns]` beside `NAME.scale` F32 `[rows]`, by
//! which each row is multiplied. Embeddings, biases and the rest are F32.

use super::params::{NetShape, Params, Tensors};
use super::spec::ModelError;
use crate::rnn::kernel::narrow::{bf16, int8_weights};
use crate::rnn::matrix::Precision;
use ndarray::ArrayD;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::path::Path;

/// What is added to a tensor's name for its scales.
const SCALE: &str = ".scale";

/// Whether the network multiplies with this tensor as a matrix.
fn is_matrix(name: &str) -> bool {
    let linear = ["head.", "tail.", "bridge.", "readout.", "attention.key.", "attention.query."];
    let recurrent = name.contains(".weight_ih_") || name.contains(".weight_hh_");
    recurrent || (name.ends_with(".weight") && linear.iter().any(|prefix| name.starts_with(prefix)))
}

fn widened(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}

impl Params<f32> {
    /// The bytes of a `weights.safetensors` in this precision.
    pub fn to_safetensors(&self, precision: Precision) -> Vec<u8> {
        let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        for at in 0..self.len() {
            let (name, dims, numbers) = (self.name(at), self.dims(at).to_vec(), self.slice(at));
            let rows = dims.first().copied().unwrap_or(1).max(1);
            match precision {
                Precision::Bf16 if is_matrix(name) => {
                    let bytes = numbers.iter().flat_map(|&x| bf16(x).to_le_bytes()).collect();
                    tensors.push((name.to_string(), Dtype::BF16, dims, bytes));
                }
                Precision::Int8 if is_matrix(name) => {
                    let width = (numbers.len() / rows).max(1);
                    let (mut bytes, mut scales) = (Vec::with_capacity(numbers.len()), Vec::new());
                    for row in numbers.chunks_exact(width) {
                        let (rounded, scale) = int8_weights(row.iter().copied());
                        bytes.extend(rounded.iter().map(|&q| q as u8));
                        scales.extend(scale.to_le_bytes());
                    }
                    tensors.push((name.to_string(), Dtype::I8, dims, bytes));
                    tensors.push((format!("{name}{SCALE}"), Dtype::F32, vec![rows], scales));
                }
                _ => {
                    let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
                    tensors.push((name.to_string(), Dtype::F32, dims, bytes));
                }
            }
        }
        let views = tensors.iter().map(|(name, kind, dims, bytes)| {
            let view = TensorView::new(*kind, dims.clone(), bytes);
            (name, view.expect("the data has the size of its shape"))
        });
        safetensors::serialize(views, None).expect("tensors of known sizes serialise")
    }

    /// What reading a file of this precision would give: matrices rounded, all else as it is.
    pub fn rounded(&self, precision: Precision) -> Params<f32> {
        let mut rounded = self.clone();
        for at in (0..self.len()).filter(|&at| is_matrix(self.name(at))) {
            let width = self.dims(at).get(1).copied().unwrap_or(1).max(1);
            for row in rounded.slice_mut(at).chunks_exact_mut(width) {
                match precision {
                    Precision::F32 => {}
                    Precision::Bf16 => row.iter_mut().for_each(|x| *x = widened(bf16(*x))),
                    Precision::Int8 => {
                        let (whole, scale) = int8_weights(row.iter().copied());
                        row.iter_mut().zip(whole).for_each(|(x, q)| *x = f32::from(q) * scale);
                    }
                }
            }
        }
        rounded
    }

    pub fn save(&self, path: &Path, precision: Precision) -> Result<(), ModelError> {
        std::fs::write(path, self.to_safetensors(precision))
            .map_err(|source| ModelError::Write { path: path.to_path_buf(), source })
    }

    /// Reads the tensors that `shape` asks for; each must be there, in its shape, and finite; no others may be.
    pub fn load(shape: &NetShape, path: &Path) -> Result<Params<f32>, ModelError> {
        Params::read(shape, path)
    }

    pub(crate) fn read(shape: &impl Tensors, path: &Path) -> Result<Params<f32>, ModelError> {
        let bytes = std::fs::read(path).map_err(|source| ModelError::Read { path: path.to_path_buf(), source })?;
        Params::of_bytes(shape, path, &bytes)
    }

    /// As [`Params::load`], from what the file at `path` holds.
    pub(crate) fn of_bytes(shape: &impl Tensors, path: &Path, bytes: &[u8]) -> Result<Params<f32>, ModelError> {
        let invalid = |detail: String| ModelError::Invalid { path: path.to_path_buf(), detail };
        let file = SafeTensors::deserialize(bytes).map_err(|e| invalid(format!("not a safetensors file: {e}")))?;
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for (name, dims, _) in shape.tensors() {
            let numbers = numbers_of(&file, &name, &dims).map_err(invalid)?;
            if let Some(at) = numbers.iter().position(|x| !x.is_finite()) {
                return Err(invalid(format!("tensor {name}: number {at} is not finite")));
            }
            values.push(ArrayD::from_shape_vec(dims, numbers).map_err(|e| invalid(format!("tensor {name}: {e}")))?);
            names.push(name);
        }
        let belongs = |extra: &str| {
            let of = extra.strip_suffix(SCALE).filter(|of| file.tensor(of).is_ok_and(|t| t.dtype() == Dtype::I8));
            names.iter().any(|name| name == extra || of == Some(name))
        };
        if let Some(extra) = file.names().iter().find(|extra| !belongs(extra)) {
            return Err(invalid(format!("tensor {extra} belongs to no part of the network in model.toml")));
        }
        Ok(Params { names, values })
    }
}

/// A tensor's numbers, whatever its precision.
fn numbers_of(file: &SafeTensors<'_>, name: &str, dims: &[usize]) -> Result<Vec<f32>, String> {
    let tensor = file
        .tensor(name)
        .map_err(|_| format!("tensor {name} is missing; model.toml describes a network that has it"))?;
    let narrow = is_matrix(name) && matches!(tensor.dtype(), Dtype::BF16 | Dtype::I8);
    if !(narrow || tensor.dtype() == Dtype::F32) || tensor.shape() != dims {
        let kinds = if is_matrix(name) { "F32, BF16 or I8" } else { "F32" };
        return Err(format!(
            "tensor {name} is {:?} {:?}; model.toml and the vocabularies ask for {kinds} {dims:?}",
            tensor.dtype(),
            tensor.shape()
        ));
    }
    let data = tensor.data();
    Ok(match tensor.dtype() {
        Dtype::BF16 => data.as_chunks().0.iter().map(|&b| widened(u16::from_le_bytes(b))).collect(),
        Dtype::I8 => {
            let named = format!("{name}{SCALE}");
            let rows = dims.first().copied().unwrap_or(0);
            let scales = file.tensor(&named).ok().filter(|s| s.dtype() == Dtype::F32 && s.shape() == [rows]);
            let scales =
                scales.ok_or_else(|| format!("tensor {name} is I8: {named} F32 [{rows}] must be there too"))?;
            let scales = scales.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b));
            (data.chunks_exact((data.len() / rows.max(1)).max(1)).zip(scales))
                .flat_map(|(row, scale)| row.iter().map(move |&q| f32::from(q as i8) * scale))
                .collect()
        }
        _ => data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
    })
}
