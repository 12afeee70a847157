//! h and c of all layers as a session keeps them between two records: exact, or in half the space.
//!
//! bf16 is the upper half of an f32: its sign, its exponent and 7 bits of its fraction. Numbers are rounded to the nearest,
//! ties to even, once at the end of a record; within a record the network computes in f32.

use serde::{Deserialize, Serialize};

/// How a stream's h and c are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatePrecision {
    /// Bit for bit.
    #[default]
    F32,
    /// In two bytes a number. Labels then depend on where records end, though on nothing else.
    Bf16,
}

impl StatePrecision {
    /// Bytes a number.
    pub fn bytes(self) -> usize {
        match self {
            StatePrecision::F32 => 4,
            StatePrecision::Bf16 => 2,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Numbers {
    F32(Box<[f32]>),
    Bf16(Box<[u16]>),
}

impl Numbers {
    pub fn zeros(len: usize, precision: StatePrecision) -> Numbers {
        match precision {
            StatePrecision::F32 => Numbers::F32(vec![0.0; len].into()),
            StatePrecision::Bf16 => Numbers::Bf16(vec![0; len].into()),
        }
    }

    pub fn precision(&self) -> StatePrecision {
        match self {
            Numbers::F32(_) => StatePrecision::F32,
            Numbers::Bf16(_) => StatePrecision::Bf16,
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Numbers::F32(numbers) => numbers.len(),
            Numbers::Bf16(numbers) => numbers.len(),
        }
    }

    pub fn clear(&mut self) {
        *self = Numbers::zeros(self.len(), self.precision());
    }

    /// The same numbers, rounded if they were kept more exactly.
    pub fn kept_as(self, precision: StatePrecision) -> Numbers {
        match (&self, precision) {
            (Numbers::F32(numbers), StatePrecision::Bf16) => Numbers::Bf16(numbers.iter().map(|x| round(*x)).collect()),
            (Numbers::Bf16(numbers), StatePrecision::F32) => Numbers::F32(numbers.iter().map(|x| widen(*x)).collect()),
            _ => self,
        }
    }

    /// Little-endian, [`StatePrecision::bytes`] each.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Numbers::F32(numbers) => {
                let from = out.len();
                out.resize(from + 4 * numbers.len(), 0);
                let places = out[from..].as_chunks_mut().0.iter_mut();
                places.zip(numbers).for_each(|(place, x)| *place = x.to_le_bytes());
            }
            Numbers::Bf16(numbers) => numbers.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes())),
        }
    }

    /// The inverse of [`Numbers::encode`]; bytes beyond the last whole number are left.
    pub fn decode(bytes: &[u8], precision: StatePrecision) -> Numbers {
        match precision {
            StatePrecision::F32 => {
                Numbers::F32(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
            }
            StatePrecision::Bf16 => {
                Numbers::Bf16(bytes.as_chunks().0.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect())
            }
        }
    }
}

/// The bf16 nearest to `x`, of two equally near the even one. NaN stays NaN.
pub(super) fn round(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

/// The f32 that is this bf16.
pub(super) fn widen(x: u16) -> f32 {
    f32::from_bits(u32::from(x) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_a_bf16_stays_as_it_is() {
        for bits in 0..=u16::MAX {
            let wide = widen(bits);
            assert!(wide.is_nan() && widen(round(wide)).is_nan() || round(wide) == bits, "{bits:#06x}");
        }
    }

    #[test]
    fn ties_go_to_even_and_the_largest_to_infinity() {
        // 1 + 2^-8 lies between 1 and 1 + 2^-7; 1 + 3·2^-8 between that and 1 + 2^-6.
        assert_eq!(widen(round(1.0 + 2f32.powi(-8))), 1.0);
        assert_eq!(widen(round(1.0 + 3.0 * 2f32.powi(-8))), 1.0 + 2f32.powi(-6));
        assert_eq!(widen(round(f32::MAX)), f32::INFINITY);
        assert_eq!(widen(round(-0.0)).to_bits(), (-0.0f32).to_bits());
    }

    proptest! {
        #[test]
        fn nothing_is_nearer(bits: u32) {
            let x = f32::from_bits(bits);
            prop_assume!(x.is_finite() && x.abs() < 3e38);
            let near = widen(round(x));
            for other in [round(x).wrapping_sub(1), round(x).wrapping_add(1)].map(widen) {
                prop_assert!(!other.is_finite() || (near - x).abs() <= (other - x).abs());
            }
        }
    }
}
