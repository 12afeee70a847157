//! Numeric vectors as steps: the numbers are the dense columns.

use super::{InputError, ReaderState, Rows, VectorSpec};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

const EXPECTED: &str = "an array of numbers, or an array of such arrays";

/// Times weights, greater numbers than this could sum to infinity less infinity, which is no number; and no state would
/// ever be one again.
const MOST: f32 = 1e30;

#[derive(Debug, Clone)]
pub(super) struct Vectors {
    width: usize,
}

impl Vectors {
    pub fn new(spec: &VectorSpec) -> Vectors {
        Vectors { width: spec.width }
    }

    pub fn push(&self, state: &mut ReaderState, bytes: &[u8], rows: &mut Rows) -> Result<(), InputError> {
        let numbers = if is_json(bytes) { self.json(bytes)? } else { self.binary(bytes)? };
        for vector in numbers.chunks_exact(self.width) {
            rows.unit(state.position, state.position + 1, String::new()).dense.extend_from_slice(vector);
            state.position += 1;
        }
        Ok(())
    }

    /// The numbers of all steps, one step after the other. Of several faults the first is told.
    fn json(&self, bytes: &[u8]) -> Result<Vec<f32>, InputError> {
        let items: Vec<Item> = serde_json::from_slice(bytes).map_err(|error| {
            let detail = error.to_string();
            match error.is_data() {
                true => InputError::WrongShape { detail: format!("expected {EXPECTED}: {detail}") },
                false => InputError::InvalidJson { expected: EXPECTED, detail },
            }
        })?;
        // No room is made before the items are known to have this width: a record of `[],[],…` claims much.
        let mut numbers = Vec::new();
        let mut single = None;
        for (step, item) in items.into_iter().enumerate() {
            if *single.get_or_insert(matches!(item, Item::Number(_))) != matches!(item, Item::Number(_)) {
                return Err(InputError::WrongShape { detail: format!("expected {EXPECTED}, not both in one") });
            }
            match item {
                Item::Number(number) => numbers.push(number),
                Item::Vector(vector) => {
                    self.check_width(vector.len(), || format!("vector {step} of the record"))?;
                    check_finite(&vector, numbers.len())?;
                    numbers.extend_from_slice(&vector);
                }
            }
        }
        if single == Some(true) {
            self.check_width(numbers.len(), || "the vector".to_string())?;
            check_finite(&numbers, 0)?;
        }
        Ok(numbers)
    }

    fn binary(&self, bytes: &[u8]) -> Result<Vec<f32>, InputError> {
        let step = 4 * self.width;
        if !bytes.len().is_multiple_of(step) {
            let (length, width) = (bytes.len(), self.width);
            let detail = format!(
                "neither JSON ({EXPECTED}) nor little-endian f32: {length} bytes are no multiple of {step} \
                 (this model's vectors have {width} numbers)"
            );
            return Err(InputError::WrongShape { detail });
        }
        let (numbers, _) = bytes.as_chunks::<4>();
        let numbers: Vec<f32> = numbers.iter().map(|&number| f32::from_le_bytes(number)).collect();
        check_finite(&numbers, 0)?;
        Ok(numbers)
    }

    fn check_width(&self, found: usize, what: impl FnOnce() -> String) -> Result<(), InputError> {
        if found == self.width {
            return Ok(());
        }
        let detail = format!("{} has {found} numbers, this model's vectors have {}", what(), self.width);
        Err(InputError::WrongShape { detail })
    }
}

/// Of a record's numbers, before which there are so many others.
fn check_finite(numbers: &[f32], before: usize) -> Result<(), InputError> {
    match numbers.iter().position(|number| number.is_nan() || number.abs() > MOST) {
        Some(index) => Err(InputError::NotFinite { index: before + index }),
        None => Ok(()),
    }
}

/// The rule of [`super::InputFormat::Vector`].
fn is_json(bytes: &[u8]) -> bool {
    let written = |byte: &u8| {
        byte.is_ascii_whitespace()
            || byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || b"[]+-.,\"EIN".contains(byte)
    };
    bytes.trim_ascii_start().first() == Some(&b'[') && bytes.iter().all(written)
}

/// An element of a record's array.
enum Item {
    Number(f32),
    Vector(Vec<f32>),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Item, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Item;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a number or an array of numbers")
            }
            fn visit_f64<E>(self, number: f64) -> Result<Item, E> {
                Ok(Item::Number(number as f32))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Item, E> {
                Ok(Item::Number(number as f32))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Item, E> {
                Ok(Item::Number(number as f32))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Item, A::Error> {
                let mut vector = Vec::new();
                while let Some(number) = items.next_element()? {
                    vector.push(number);
                }
                Ok(Item::Vector(vector))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Encoder, EncoderSpec, Features, InputFormat};
    use super::*;

    fn push(bytes: &[u8]) -> Result<Vec<f32>, InputError> {
        let encoder = Encoder::load(&EncoderSpec::Vector(VectorSpec { width: 2 }), "".as_ref()).unwrap();
        let (mut state, mut units, mut features) = (ReaderState::default(), Vec::new(), Features::default());
        encoder.push(&mut state, InputFormat::Vector, bytes, &mut units, &mut features)?;
        assert_eq!((state.position, units.len()), (features.steps as u64, features.steps));
        Ok(features.dense)
    }

    fn detail(bytes: &[u8]) -> String {
        push(bytes).unwrap_err().to_string()
    }

    #[test]
    fn a_vector_several_vectors_and_binary_ones() {
        assert_eq!(push(b" [1, -2.5e0]\n").unwrap(), [1.0, -2.5]);
        assert_eq!(push(b"[[1,2],[3,4]]").unwrap(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(push(b"[]").unwrap(), Vec::<f32>::new());
        let bytes = [0.25f32, -1e9, 3.0, 0.0].map(f32::to_le_bytes).concat();
        assert_eq!(push(&bytes).unwrap(), [0.25, -1e9, 3.0, 0.0]);
        // The first byte is '[', but the others are none of JSON's.
        let bytes = [f32::from_le_bytes([b'[', 0, 0x80, 0x3f]), 1.0].map(f32::to_le_bytes).concat();
        assert_eq!(push(&bytes).unwrap()[1], 1.0);
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(detail(b"[1,2,3]"), "the vector has 3 numbers, this model's vectors have 2");
        assert_eq!(detail(b"[[1,2],[3]]"), "vector 1 of the record has 1 numbers, this model's vectors have 2");
        assert!(detail(b"[1,[2]]").contains("not both in one"));
        assert!(detail(b"1,2").contains("3 bytes are no multiple of 8"));
        assert_eq!(push(b"[1,2").unwrap_err().code(), "invalid_json");
        assert_eq!(push(b"[1,NaN]").unwrap_err().code(), "invalid_json");
        assert_eq!(push(b"[\"a\",2]").unwrap_err().code(), "wrong_shape");
        assert_eq!(push(b"[1,null]").unwrap_err().code(), "wrong_shape");
        assert_eq!(push(b"[[1,2],[3,1e39]]").unwrap_err(), InputError::NotFinite { index: 3 });
        assert_eq!(push(b"[-2e30,1e30]").unwrap_err(), InputError::NotFinite { index: 0 });
        assert_eq!(push(b"[-1e30,1e30]").unwrap(), [-1e30, 1e30]);
        let bytes = [1.0, f32::NAN].map(f32::to_le_bytes).concat();
        assert_eq!(push(&bytes).unwrap_err(), InputError::NotFinite { index: 1 });
    }
}
