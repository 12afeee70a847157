//! The file `weights.safetensors`, in any precision.
//!
//! The matrices that the network multiplies with are F32, BF16, or I8 `[rows, columns]` beside `NAME.scale` F32 `[rows]`, by
//! which each row is multiplied. Embeddings, biases and the rest are F32.

use super::params::{Params, Tensors};
use super::spec::ModelError;
use crate::rnn::kernel::narrow::{bf16, int8_weights};
use crate::rnn::matrix::Precision;
use ndarray::ArrayD;
use safetensors::tensor::{Dtype, Metadata, TensorView};
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What is added to a tensor's name for its scales.
const SCALE: &str = ".scale";

/// Bytes of the file that are turned into numbers at once: they are in the cache then.
const READ_TOGETHER: usize = 64 << 10;

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

    /// The tensors that `shape` asks for; each must be there, in its shape, and finite; no others may be.
    pub(crate) fn of_stored(shape: &impl Tensors, mut stored: Stored) -> Result<Params<f32>, ModelError> {
        let path = std::mem::take(&mut stored.path);
        let invalid = |detail: String| ModelError::Invalid { path: path.clone(), detail };
        let (mut names, mut values) = (Vec::new(), Vec::new());
        for (name, dims, _) in shape.tensors() {
            let numbers = stored.take(&name, &dims).map_err(invalid)?;
            values.push(ArrayD::from_shape_vec(dims, numbers).map_err(|e| invalid(format!("tensor {name}: {e}")))?);
            names.push(name);
        }
        match stored.tensors.keys().min() {
            Some(extra) => Err(invalid(format!("tensor {extra} belongs to no part of the network in model.toml"))),
            None => Ok(Params { names, values }),
        }
    }
}

/// All that a file of weights holds, before it is known what a network asks for.
pub(crate) struct Stored {
    path: PathBuf,
    tensors: HashMap<String, StoredTensor>,
}

struct StoredTensor {
    kind: Dtype,
    dims: Vec<usize>,
    /// Of I8 without its scales; of kinds that no network has, none.
    numbers: Vec<f32>,
    /// The first number that is infinite or none.
    not_finite: Option<usize>,
}

impl Stored {
    /// Reads the file at `path`, each tensor at once into the numbers that stay.
    pub fn read(path: &Path) -> Result<Stored, ModelError> {
        let failed = |source| ModelError::Read { path: path.to_path_buf(), source };
        let invalid = |detail: String| ModelError::Invalid {
            path: path.to_path_buf(),
            detail: format!("not a safetensors file: {detail}"),
        };
        let mut file = File::open(path).map_err(failed)?;
        let mut rest = file.metadata().map_err(failed)?.len();
        let mut length = [0; 8];
        let header = match rest.checked_sub(length.len() as u64) {
            None => return Err(invalid("it ends within the length of its header".into())),
            Some(after) => {
                file.read_exact(&mut length).map_err(failed)?;
                rest = after;
                u64::from_le_bytes(length)
            }
        };
        rest = rest.checked_sub(header).ok_or_else(|| invalid("it ends within its header".into()))?;
        let mut json = Vec::new();
        (&mut file).take(header).read_to_end(&mut json).map_err(failed)?;
        let header: Metadata = serde_json::from_slice(&json).map_err(|e| invalid(format!("its header: {e}")))?;
        if header.data_len() as u64 != rest {
            return Err(invalid(format!("its tensors have {} bytes, after the header are {rest}", header.data_len())));
        }
        let mut tensors = HashMap::new();
        // In the order of the file.
        for name in header.offset_keys() {
            let Some(info) = header.info(&name) else { continue };
            let bytes = (info.data_offsets.1 - info.data_offsets.0) as u64;
            let numbers = numbers_of(info.dtype, (&mut file).take(bytes), bytes as usize).map_err(failed)?;
            let not_finite = not_finite(&numbers);
            tensors.insert(name, StoredTensor { kind: info.dtype, dims: info.shape.clone(), numbers, not_finite });
        }
        Ok(Stored { path: path.to_path_buf(), tensors })
    }

    /// A tensor's numbers, whatever its precision.
    fn take(&mut self, name: &str, dims: &[usize]) -> Result<Vec<f32>, String> {
        let tensor = (self.tensors.remove(name))
            .ok_or_else(|| format!("tensor {name} is missing; model.toml describes a network that has it"))?;
        let StoredTensor { kind, mut numbers, mut not_finite, .. } = tensor;
        let narrow = is_matrix(name) && matches!(kind, Dtype::BF16 | Dtype::I8);
        if !(narrow || kind == Dtype::F32) || tensor.dims != dims {
            let kinds = if is_matrix(name) { "F32, BF16 or I8" } else { "F32" };
            return Err(format!(
                "tensor {name} is {kind:?} {:?}; model.toml and the vocabularies ask for {kinds} {dims:?}",
                tensor.dims
            ));
        }
        if kind == Dtype::I8 {
            let named = format!("{name}{SCALE}");
            let rows = dims.first().copied().unwrap_or(0);
            let scales = self.tensors.remove(&named).filter(|s| s.kind == Dtype::F32 && s.dims == [rows]);
            let scales =
                scales.ok_or_else(|| format!("tensor {name} is I8: {named} F32 [{rows}] must be there too"))?.numbers;
            let width = (numbers.len() / rows.max(1)).max(1);
            for (row, scale) in numbers.chunks_exact_mut(width).zip(scales) {
                row.iter_mut().for_each(|x| *x *= scale);
            }
            not_finite = self::not_finite(&numbers);
        }
        match not_finite {
            Some(at) => Err(format!("tensor {name}: number {at} is not finite")),
            None => Ok(numbers),
        }
    }
}

/// What `file`, which goes on for `bytes`, says; each number's bytes are of this kind.
fn numbers_of(kind: Dtype, mut file: impl Read, bytes: usize) -> std::io::Result<Vec<f32>> {
    let size = match kind {
        Dtype::F32 => 4,
        Dtype::BF16 => 2,
        Dtype::I8 => 1,
        _ => return std::io::copy(&mut file, &mut std::io::sink()).map(|_| Vec::new()),
    };
    let mut numbers = Vec::with_capacity(bytes / size);
    let mut chunk = vec![0; READ_TOGETHER.min(bytes)];
    for from in (0..bytes).step_by(READ_TOGETHER) {
        let chunk = &mut chunk[..READ_TOGETHER.min(bytes - from)];
        file.read_exact(chunk)?;
        match kind {
            Dtype::BF16 => numbers.extend(chunk.as_chunks().0.iter().map(|&b| widened(u16::from_le_bytes(b)))),
            Dtype::I8 => numbers.extend(chunk.iter().map(|&q| f32::from(q as i8))),
            _ => numbers.extend(chunk.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
        }
    }
    Ok(numbers)
}

/// The first number that is infinite or none.
fn not_finite(numbers: &[f32]) -> Option<usize> {
    // All bits of the exponent are set in these, and so they are the greatest; in vectors, since none is the rule.
    let greatest = numbers.iter().fold(0, |greatest, x| x.abs().to_bits().max(greatest));
    if f32::from_bits(greatest).is_finite() { None } else { numbers.iter().position(|x| !x.is_finite()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::params::NetShape;
    use crate::rnn::{Cell, LayerSpec};
    use proptest::prelude::*;
    use rand::SeedableRng;

    fn net() -> (NetShape, Params<f32>) {
        let layers = vec![LayerSpec::new(Cell::Lstm, 3), LayerSpec::new(Cell::Gru, 2)];
        let shape = NetShape { dense: 5, layers, classes: 4, ..NetShape::default() };
        let params = Params::random(&shape, &mut rand_chacha::ChaCha8Rng::seed_from_u64(1));
        (shape, params)
    }

    fn read(shape: &NetShape, bytes: &[u8]) -> Result<Params<f32>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, bytes).unwrap();
        let stored = Stored::read(file.path()).map_err(|e| e.to_string())?;
        Params::of_stored(shape, stored).map_err(|e| e.to_string())
    }

    #[test]
    fn every_precision_reads_as_it_was_rounded() {
        let (shape, params) = net();
        for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
            assert_eq!(read(&shape, &params.to_safetensors(precision)), Ok(params.rounded(precision)));
        }
    }

    #[test]
    fn a_number_that_is_not_finite_is_told() {
        let (shape, mut params) = net();
        params.slice_mut(1)[3] = f32::NAN;
        let error = read(&shape, &params.to_safetensors(Precision::F32)).unwrap_err();
        assert!(error.contains("tensor rnn.weight_hh_l0: number 3 is not finite"), "{error}");
    }

    #[test]
    fn a_tensor_too_many_is_told() {
        let (shape, params) = net();
        let smaller = NetShape { layers: shape.layers[..1].to_vec(), classes: 0, ..shape };
        let error = read(&smaller, &params.to_safetensors(Precision::F32)).unwrap_err();
        assert!(error.contains("head.weight"), "{error}");
    }

    proptest! {
        #[test]
        fn a_damaged_file_is_refused_or_has_the_shape(
            precision in prop::sample::select(vec![Precision::F32, Precision::Bf16, Precision::Int8]),
            flips in prop::collection::vec((0usize..2000, any::<u8>()), 0..4),
            length in prop::option::of(0usize..2000),
        ) {
            let (shape, params) = net();
            let mut bytes = params.to_safetensors(precision);
            for (at, byte) in flips {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(length.unwrap_or(bytes.len()));
            match read(&shape, &bytes) {
                Ok(read) => prop_assert!((0..read.len()).all(|at| read.slice(at).iter().all(|x| x.is_finite()))),
                Err(error) => prop_assert!(!error.is_empty()),
            }
        }
    }
}
