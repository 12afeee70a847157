//! Prefix beam search (Hannun, Maas, Jurafsky and Ng 2014, "First-pass large vocabulary continuous speech recognition using
//! bi-directional recurrent DNNs"), online.
//!
//! A *hypothesis* is a transcript of the steps so far, with the probability of all paths that read as it: of those that end
//! in a blank, and of those that end in its last symbol. A step with probabilities y makes of it
//!
//! ```text
//! the same:               in_blank' = (in_blank + in_symbol) y(blank)      in_symbol' = in_symbol y(last)
//! the same and symbol c:  in_symbol' = (in_blank + [c ≠ last] in_symbol) y(c)
//! ```
//!
//! and the likeliest `beam` of what comes of all hypotheses go on, but for those less likely than [`LEAST_SHARE`] of the
//! best. With a beam that holds every transcript the search is exact. Probabilities are kept as shares of the beam, in f64, by
//! products and sums in a fixed order: no logarithm, and the same bits everywhere.
//!
//! A symbol is *final* when all hypotheses begin with it and the best one is past it; it is published and forgotten, which
//! changes nothing of the search. What hypotheses have disputed for more than `lag` steps the best one decides: those that say
//! otherwise are dropped.

use super::{BLANK, Found};
use crate::encode::Unit;

/// A hypothesis goes on only if it is at least this likely, as a share of the best one. What steps to come say of two
/// hypotheses that end alike is the same: one so far behind hardly ever wins, but it would keep symbols from being final.
pub const LEAST_SHARE: f64 = 1e-2;

/// How the search is bounded.
#[derive(Debug, Clone, PartialEq)]
pub struct Search {
    /// Hypotheses that go on.
    pub beam: usize,
    /// Steps that a symbol may be disputed.
    pub lag: u64,
    /// See [`LEAST_SHARE`].
    pub least_share: f64,
}

/// A transcript of what is not published yet, and how likely it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Hypothesis {
    pub symbols: Vec<Found>,
    /// The share of the paths that end in a blank, and of those that end in the last symbol.
    pub in_blank: f64,
    pub in_symbol: f64,
}

impl Hypothesis {
    fn total(&self) -> f64 {
        self.in_blank + self.in_symbol
    }

    /// Its last symbol, or the one published last.
    fn last(&self, published: Option<u16>) -> Option<u16> {
        self.symbols.last().map_or(published, |found| Some(found.class))
    }

    /// Whether this is `before` and one more symbol.
    fn extends(&self, before: &Hypothesis) -> bool {
        self.symbols.len() == before.symbols.len() + 1
            && self.symbols.iter().zip(&before.symbols).all(|(a, b)| a.class == b.class)
    }
}

/// At least 0 and at most 1, also where `p` is no number.
pub(super) fn share(p: f32) -> f32 {
    if p.is_nan() { 0.0 } else { p.clamp(0.0, 1.0) }
}

impl Search {
    /// With so many hypotheses, and no bound on how long they may disagree.
    pub fn of(beam: usize) -> Search {
        Search { beam, lag: u64::MAX, least_share: LEAST_SHARE }
    }

    /// Takes the probabilities `p` `[classes]` of step number `frame`; what is final now is appended to `done`.
    pub(super) fn push(
        &self,
        last: &mut Option<u16>,
        hypotheses: &mut Vec<Hypothesis>,
        frame: u64,
        p: &[f32],
        unit: &Unit,
        done: &mut Vec<Found>,
    ) {
        if hypotheses.is_empty() {
            hypotheses.push(Hypothesis { in_blank: 1.0, ..Hypothesis::default() });
        }
        let found = |class: u16| {
            let score = share(p[usize::from(class)]);
            Found { class, frame, start: unit.start, end: unit.end, score }
        };
        let y = |class: u16| f64::from(share(p[usize::from(class)]));
        // The same transcripts, one step on.
        let mut next: Vec<Hypothesis> = Vec::with_capacity(hypotheses.len());
        for h in hypotheses.iter() {
            let in_symbol = h.last(*last).map_or(0.0, |class| h.in_symbol * y(class));
            next.push(Hypothesis { symbols: Vec::new(), in_blank: h.total() * y(BLANK as u16), in_symbol });
        }
        // Those with one more symbol: some are among the hypotheses, the others are (probability, hypothesis, symbol).
        let mut new: Vec<(f64, usize, u16)> = Vec::new();
        // Which of the hypotheses is best told by the steps of another, being that and a symbol just found.
        let mut times: Vec<Option<usize>> = vec![None; hypotheses.len()];
        for (k, h) in hypotheses.iter().enumerate() {
            let of_last = h.last(*last);
            let longer: Vec<usize> = (0..hypotheses.len()).filter(|&g| hypotheses[g].extends(h)).collect();
            for class in 1..p.len() as u16 {
                let before = if of_last == Some(class) { h.in_blank } else { h.total() };
                let mass = before * y(class);
                if mass <= 0.0 {
                    continue;
                }
                match longer.iter().find(|&&g| hypotheses[g].last(None) == Some(class)) {
                    Some(&g) => {
                        if mass > next[g].total() {
                            times[g] = Some(k);
                        }
                        next[g].in_symbol += mass;
                    }
                    None => new.push((mass, k, class)),
                }
            }
        }
        for (k, h) in next.iter_mut().enumerate() {
            h.symbols = match times[k] {
                Some(from) => {
                    hypotheses[from].symbols.iter().cloned().chain(hypotheses[k].last(None).map(found)).collect()
                }
                None => hypotheses[k].symbols.clone(),
            };
            if h.in_symbol >= h.in_blank
                && let Some(open) = h.symbols.last_mut()
            {
                open.end = unit.end;
                open.score = open.score.max(share(p[usize::from(open.class)]));
            }
        }
        // The likeliest; of equals first those that were there, in their order.
        new.sort_by(|a, b| b.0.total_cmp(&a.0));
        new.truncate(self.beam);
        next.extend(new.into_iter().map(|(mass, k, class)| {
            let symbols = hypotheses[k].symbols.iter().cloned().chain([found(class)]).collect();
            Hypothesis { symbols, in_blank: 0.0, in_symbol: mass }
        }));
        next.sort_by(|a, b| b.total().total_cmp(&a.total()));
        let least = self.least_share * next[0].total();
        next.truncate(self.beam);
        next.retain(|h| h.total() > 0.0 && h.total() >= least);
        // A step that leaves nothing possible says nothing.
        if !next.is_empty() {
            *hypotheses = next;
        }
        normalise(hypotheses);
        self.publish(last, hypotheses, frame + 1, done);
    }

    /// What all hypotheses agree on, and what has waited for too long.
    fn publish(&self, last: &mut Option<u16>, hypotheses: &mut Vec<Hypothesis>, frames: u64, done: &mut Vec<Found>) {
        let best = &hypotheses[0];
        let past = best.symbols.len() - usize::from(!best.symbols.is_empty() && best.in_symbol >= best.in_blank);
        let undisputed = |k: &usize| {
            let class = hypotheses[0].symbols[*k].class;
            hypotheses.iter().all(|h| h.symbols.get(*k).is_some_and(|found| found.class == class))
        };
        let agreed = (0..past).take_while(undisputed).count();
        forget(last, hypotheses, agreed, done);

        let is_old = |found: &Found| frames - found.frame > self.lag;
        if hypotheses.iter().any(|h| h.symbols.first().is_some_and(is_old)) {
            let old = hypotheses[0].symbols.iter().take_while(|found| is_old(found)).count();
            let decided: Vec<u16> = hypotheses[0].symbols[..old].iter().map(|found| found.class).collect();
            hypotheses.retain(|h| {
                h.symbols.len() >= old
                    && h.symbols.iter().zip(&decided).all(|(found, class)| found.class == *class)
                    && h.symbols.get(old).is_none_or(|found| !is_old(found))
            });
            forget(last, hypotheses, old, done);
            normalise(hypotheses);
        }
    }

    /// The best hypothesis is what the stream reads as so far; the search goes on from it alone.
    pub(super) fn settle(&self, last: &mut Option<u16>, hypotheses: &mut Vec<Hypothesis>, done: &mut Vec<Found>) {
        hypotheses.truncate(1);
        let symbols = hypotheses.first().map_or(0, |best| best.symbols.len());
        forget(last, hypotheses, symbols, done);
        normalise(hypotheses);
    }
}

/// The first symbols of all hypotheses are published, as the best one tells them.
fn forget(last: &mut Option<u16>, hypotheses: &mut [Hypothesis], symbols: usize, done: &mut Vec<Found>) {
    if symbols == 0 {
        return;
    }
    for (k, h) in hypotheses.iter_mut().enumerate() {
        let published = h.symbols.drain(..symbols);
        if k == 0 {
            done.extend(published);
            *last = done.last().map(|found| found.class);
        }
    }
}

/// Shares of 1 in all.
fn normalise(hypotheses: &mut [Hypothesis]) {
    let all: f64 = hypotheses.iter().map(Hypothesis::total).sum();
    if all > 0.0 {
        for h in hypotheses {
            h.in_blank /= all;
            h.in_symbol /= all;
        }
    }
}
