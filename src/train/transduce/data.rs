//! The pairs of a recipe, their vocabularies, and the order of an epoch.

use super::batch::Pair;
use crate::data::{SentencePair, read_pairs, read_parallel};
use crate::encode::units::Units;
use crate::encode::{Encoder, EncoderSpec};
use crate::model::ModelSpec;
use crate::model::transduce::decoder_of;
use crate::train::TrainError;
use crate::train::recipe::{FileSpec, Recipe};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// Batches whose pairs are sorted by length together.
const POOL: usize = 50;

/// Reads files of pairs; a pair of which one sentence is empty is left out.
///
/// # Errors
/// When one cannot be read.
pub fn read(recipe: &Recipe, files: &[FileSpec]) -> Result<Vec<SentencePair>, TrainError> {
    let mut all = Vec::new();
    for file in files {
        match file {
            FileSpec::Path(path) => all.extend(read_pairs(&recipe.data.resolve(path))?),
            FileSpec::Pair(pair) => {
                let (source, target) = (recipe.data.resolve(&pair.source), recipe.data.resolve(&pair.target));
                all.extend(read_parallel(&source, &target)?);
            }
            FileSpec::File(_) | FileSpec::Genome(_) => {
                return Err(TrainError::recipe(
                    "data of format \"pairs\" is { source = \"…\", target = \"…\" } or one path of a file with both",
                ));
            }
        }
    }
    all.retain(|pair| !pair.source.is_empty() && !pair.target.is_empty());
    Ok(all)
}

/// Both sides' vocabularies.
///
/// # Errors
/// When the recipe asks for sizes that make no sense.
pub fn learn(recipe: &Recipe, pairs: &[SentencePair]) -> Result<(Encoder, Units), TrainError> {
    let mut sources = pairs.iter().map(|pair| pair.source.as_str());
    let encoder =
        Encoder::learn(&recipe.encoder, &mut sources, Path::new(".")).map_err(|e| TrainError::recipe(e.to_string()))?;
    let decoder = recipe.decoder.as_ref().ok_or_else(|| TrainError::recipe("[decoder] is missing"))?;
    Ok((encoder, Units::learn(decoder.choice(), pairs.iter().map(|pair| pair.target.as_str()))))
}

/// The pairs as units; those that are longer than the model takes are left out, which is said.
///
/// # Errors
/// When the model is no translator.
pub fn encode(
    encoder: &Encoder,
    target: &Units,
    pairs: &[SentencePair],
    spec: &ModelSpec,
) -> Result<Vec<Pair>, TrainError> {
    let (EncoderSpec::Sentences(sentences), Some(source)) = (encoder.spec(), encoder.source_units()) else {
        return Err(TrainError::recipe("kind = \"transduce\" needs encoder.kind = \"sentences\""));
    };
    let longest = decoder_of(spec).map_err(TrainError::recipe)?.max_length;
    let mut all: Vec<Pair> = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().filter(|pair| pair.source.chars().count() <= sentences.max_source) {
        let target = target.encode(&pair.target).0;
        if target.len() <= longest {
            all.push(Pair { source: source.encode(&pair.source).0, target });
        }
    }
    if all.len() < pairs.len() {
        eprintln!(
            "{} of {} pairs are left out: longer than encoder.max_source = {} characters or decoder.max_length = {longest} units",
            pairs.len() - all.len(),
            pairs.len(),
            sentences.max_source
        );
    }
    Ok(all)
}

/// One epoch: batches of pairs that are about as long, in an order that the seed and the epoch say.
pub struct Course {
    pub batches: Vec<Vec<usize>>,
}

impl Course {
    pub fn new(pairs: &[Pair], seed: u64, epoch: usize, batch: usize) -> Course {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(1 << 63 | epoch as u64);
        let mut order: Vec<usize> = (0..pairs.len()).collect();
        order.shuffle(&mut rng);
        let mut batches = Vec::new();
        for pool in order.chunks_mut(POOL * batch) {
            pool.sort_by_key(|&k| (pairs[k].target.len(), pairs[k].source.len()));
            batches.extend(pool.chunks(batch).map(<[usize]>::to_vec));
        }
        batches.shuffle(&mut rng);
        Course { batches }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_every_pair_once_and_batches_of_like_lengths() {
        let pair = |k: usize| Pair { source: vec![2; 1 + k % 7], target: vec![3; 1 + k * 13 % 40] };
        let pairs: Vec<Pair> = (0..500).map(pair).collect();
        let course = Course::new(&pairs, 1, 0, 16);
        let mut seen: Vec<usize> = course.batches.concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..500).collect::<Vec<_>>());
        for batch in &course.batches {
            let lengths = batch.iter().map(|&k| pairs[k].target.len());
            assert!(lengths.clone().max().unwrap() - lengths.min().unwrap() <= 3);
        }
        assert!(course.batches != Course::new(&pairs, 1, 1, 16).batches, "another epoch, another order");
        assert_eq!(course.batches, Course::new(&pairs, 1, 0, 16).batches);
    }
}
