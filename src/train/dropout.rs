//! Dropout: of the input, between layers, and of whole words (so that `<UNK>` is learnt).

use crate::rnn::real::Real;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The chances, and the randomness of one shard of one step: drawn from the seed, the step and the shard, so that it
/// does not depend on the threads.
#[derive(Debug)]
pub struct Dropout {
    pub input: f64,
    pub layers: f64,
    pub word: f64,
    rng: ChaCha8Rng,
    bytes: Vec<u8>,
}

impl Dropout {
    pub fn new(input: f64, layers: f64, word: f64) -> Dropout {
        Dropout { input, layers, word, rng: ChaCha8Rng::seed_from_u64(0), bytes: Vec::new() }
    }

    /// Starts the randomness of a step of a shard.
    pub fn seed(&mut self, seed: u64, step: u64, shard: u64) {
        self.rng = ChaCha8Rng::seed_from_u64(seed);
        self.rng.set_stream((step << 16) | shard);
    }

    /// Turns some words of the first table into `<UNK>`.
    pub fn words(&mut self, ids: &mut [u32], tables: usize) {
        if self.word > 0.0 && tables > 0 {
            for id in ids.iter_mut().step_by(tables) {
                if self.rng.random_bool(self.word) {
                    *id = 0;
                }
            }
        }
    }
}

/// Which numbers were kept; empty when nothing is dropped.
#[derive(Debug, Default)]
pub struct Mask<T>(Vec<T>);

impl<T: Real> Mask<T> {
    /// Draws the mask of `n` numbers: each is dropped with chance `p` (to 1/65536), the rest grow by 1 / (1 - p).
    pub fn draw(&mut self, dropout: Option<&mut Dropout>, p: f64, n: usize) {
        self.0.clear();
        let Some(dropout) = dropout.filter(|_| p > 0.0) else { return };
        dropout.bytes.resize(2 * n, 0);
        dropout.rng.fill_bytes(&mut dropout.bytes);
        let limit = (p * 65536.0).round() as u32;
        let keep = T::of(1.0 / (1.0 - p));
        let draws = dropout.bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]) as u32);
        self.0.extend(draws.map(|u| if u < limit { T::zero() } else { keep }));
    }

    /// Of the numbers from `from` on.
    pub fn apply_from(&self, from: usize, x: &mut [T]) {
        for (x, &m) in x.iter_mut().zip(self.0.get(from..).unwrap_or_default()) {
            *x *= m;
        }
    }

    pub fn apply(&self, x: &mut [T]) {
        for (x, &m) in x.iter_mut().zip(&self.0) {
            *x *= m;
        }
    }
}
