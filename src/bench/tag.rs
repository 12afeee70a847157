//! How fast the network alone is on the words of a text, put together as `strand tag` does: what `strand tag` is compared
//! with.

use crate::encode::Features;
use crate::model::network::{Lane, Scratch};
use crate::model::{Model, Session};
use std::time::Instant;

/// Streams that `strand tag` steps together.
const STREAMS: usize = 512;
/// Bytes of a stream that it reads at once.
const PIECE_BYTES: usize = 1 << 14;

/// Words per second of the network over `text`, one thread: median, least, most of `rounds`; and its words. Each line is a stream of its
/// own, or else all is one. None where the model looks ahead or its input is no text.
pub fn words_per_second(model: &Model, text: &str, by_lines: bool, rounds: usize) -> Option<([f64; 3], usize)> {
    if model.network().shape().window.is_some() {
        return None;
    }
    let features = |piece: &str| {
        let mut session = Session::new(model);
        session.push(model, model.encoder().format(), piece.as_bytes()).ok()?;
        session.finish_unit(model).ok()?;
        Some(session.into_features())
    };
    let batches: Vec<Vec<Features>> = if by_lines {
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.chunks(STREAMS).map(|lines| lines.iter().map(|line| features(line)).collect()).collect::<Option<_>>()?
    } else {
        pieces(text).map(|piece| Some(vec![features(piece)?])).collect::<Option<_>>()?
    };
    let words: usize = batches.iter().flatten().map(|features| features.steps).sum();
    let mut states = vec![vec![0.0; model.network().state_len()]; STREAMS];
    let mut probabilities = vec![Vec::new(); STREAMS];
    let mut rates: Vec<f64> = Vec::new();
    for _ in 0..rounds.max(1) {
        let (mut scratch, began) = (Scratch::default(), Instant::now());
        for batch in &batches {
            probabilities.iter_mut().for_each(Vec::clear);
            if by_lines {
                states.iter_mut().for_each(|state| state.fill(0.0));
            }
            let lanes = batch.iter().zip(&mut states).zip(&mut probabilities);
            let mut lanes: Vec<Lane<'_>> =
                lanes.map(|((features, state), probabilities)| Lane { features, state, probabilities }).collect();
            model.network().forward(&mut lanes, &mut scratch);
        }
        rates.push(words as f64 / began.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    Some(([rates[rates.len() / 2], rates[0], rates[rates.len() - 1]], words))
}

/// Cuts the text at white space into pieces of about [`PIECE_BYTES`].
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.char_indices().find(|(at, c)| *at >= PIECE_BYTES && c.is_whitespace()).map(|(at, _)| at);
        let (piece, later) = rest.split_at(end.unwrap_or(rest.len()));
        rest = later;
        (!piece.is_empty()).then_some(piece)
    })
}
