//! What must hold whatever the bytes are: one module for each thing that reads what others wrote, each with a
//! `check(bytes)` that panics where something does not hold.
//!
//! The fuzz targets in `fuzz/` call these functions on nightly with libFuzzer; `tests/hostile_*.rs` call them on
//! stable with the seeds in `fuzz/seeds` and with what [`mutate`] makes of them.
#![allow(dead_code)] // Each program that includes this uses its part.

pub mod config;
pub mod files;
pub mod formats;
pub mod http;
pub mod lines;
pub mod memory;
pub mod models;
pub mod mutate;
pub mod states;

/// Decisions taken from the front of the bytes; when they are used up, every decision is 0.
pub struct Choices<'a>(pub &'a [u8]);

impl<'a> Choices<'a> {
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// One of the first `n` numbers.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    /// All that is left.
    pub fn rest(self) -> &'a [u8] {
        self.0
    }
}

/// Cuts bytes into pieces whose lengths follow from `seed`: short ones mostly, some of them empty.
pub fn pieces(mut bytes: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut state = u32::from(seed).wrapping_mul(2_654_435_761) | 1;
    while !bytes.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let most = [1, 2, 4, 9, 70, 600, 5000, usize::MAX][usize::from(seed) % 8].min(bytes.len());
        let (piece, rest) = bytes.split_at((state >> 8) as usize % (most + 1));
        pieces.push(piece);
        bytes = rest;
    }
    pieces
}
