//! Genes of bacteria, archaea and their phages, from the network's probabilities of each base and the bases themselves:
//! `[decode] kind = "genes"`.
//!
//! A gene runs from a start codon to the first stop codon in its frame, on either strand. For each strand and frame there
//! is a running sum of what speaks for that frame,
//!
//! ```text
//! C_f(t) = Σ_{u ≤ t} clip(ln p_u(f) - ln (1 - p_u(f)))        p_u(f): the class of frame f's codon position at base u
//! ```
//!
//! so that C_f(end) - C_f(start), with what is known of starts (codon, ribosome binding site), less a prior, is the score
//! of a gene. [`chain`] chooses among all candidates those that go together. All sums are whole numbers, so that nothing
//! depends on how a stream was cut. A session carries open reading frames and candidates, no bases but the last few:
//! [`GenesSpec::longest`] bounds how far back a gene can start.

mod chain;
mod codons;
mod state;
#[cfg(test)]
mod tests;

use super::decode::ln;
use super::{DecodeKind, Model, ModelSpec, Output, Scheme, Session, Span};
use chain::{Candidate, Chain};
use codons::{Codons, EDGE};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// One nat in the whole numbers that are added up.
const NAT: f32 = 1024.0;
/// Bases that a start codon's surroundings reach to: where its ribosome binding site lies.
const AROUND: usize = 20;
/// Bases kept: what lies around a codon that is looked at, and the codon.
const KEPT: usize = 2 * AROUND + 3;
/// Start codons kept of an open reading frame: those that promise most.
const MAX_STARTS: usize = 64;
/// Start codons of a reading frame that are candidates.
const BEST_STARTS: usize = 12;
/// Every so many bases it is asked which genes are settled.
const SETTLE_EVERY: u64 = 64;

/// `[genes]`: what counts as a gene. Nats are natural logarithms of odds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenesSpec {
    /// NCBI's number of the genetic code: 11, or 4 (Mycoplasma), in which TGA is no stop.
    pub genetic_code: u8,
    /// Bases of the shortest gene.
    pub shortest: usize,
    /// Bases of the longest gene; a longer one is given from its first start codon within that.
    pub longest: usize,
    /// Genes that run over the ends of the sequence count.
    pub partial: bool,
    /// Nats that one base can speak for or against a gene.
    pub clip: f32,
    /// Nats that a gene must have.
    pub prior: f32,
    /// Nats of the start codons GTG and TTG, against ATG.
    pub gtg: f32,
    pub ttg: f32,
    /// Nats of each base of AGGAGG from the third on at its place before the start.
    pub rbs: f32,
    /// Nats of a gene whose neighbour on the same strand is next to it, as in operons.
    pub operon: f32,
    /// Bases that genes of the same strand may share, and two whose ends meet (`→←`).
    pub overlap_same: usize,
    pub overlap_opposite: usize,
}

impl Default for GenesSpec {
    fn default() -> GenesSpec {
        GenesSpec {
            genetic_code: 11,
            shortest: 90,
            longest: 16_384,
            partial: true,
            clip: 4.0,
            prior: 40.0,
            gtg: -4.0,
            ttg: -6.0,
            rbs: 2.0,
            operon: 4.0,
            overlap_same: 60,
            overlap_opposite: 200,
        }
    }
}

impl GenesSpec {
    /// Says what is out of range.
    pub fn check(&self) -> Result<(), String> {
        if ![4, 11].contains(&self.genetic_code) {
            return Err(format!("genetic_code = {}: 11 or 4", self.genetic_code));
        }
        if !(60..=self.longest).contains(&self.shortest) || self.longest > 65_536 {
            return Err("60 <= shortest <= longest <= 65536 must hold".into());
        }
        if self.overlap_same >= self.shortest || self.overlap_opposite > 1024 {
            return Err("overlap_same must be below shortest, overlap_opposite at most 1024".into());
        }
        let nats = [self.clip, self.prior, self.gtg, self.ttg, self.rbs, self.operon];
        if !nats.iter().all(|x| (-1000.0..=1000.0).contains(x)) || self.clip <= 0.0 {
            return Err("clip, prior, gtg, ttg, rbs and operon must be within ±1000, clip above 0".into());
        }
        Ok(())
    }
}

/// What is told of a gene besides where it lies; of each of [`Output::spans`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Gene {
    /// Nats that speak for the gene.
    pub score: f32,
    /// `ATG`, `GTG`, `TTG`, or `edge` where the gene's start lies before the sequence's end.
    pub start_codon: &'static str,
    /// The gene runs over the sequence's first or last base.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// The rules. Immutable, shared by all streams of a model.
#[derive(Debug, Clone)]
pub struct GeneFinder {
    spec: GenesSpec,
    codons: Codons,
    /// The network's classes of the forward frames' codon positions, then the reverse ones'.
    classes: [usize; 6],
    /// In whole numbers: what start codons are worth (ATG, GTG, TTG, none), and the others.
    starts: [i64; 4],
    rbs: i64,
    prior: i64,
    rules: chain::Rules,
}

/// A base that was read lately.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Seen {
    /// The bases that it may be, one bit each: A, C, G, T.
    set: u8,
    /// What speaks for each strand and frame.
    odds: [i32; 6],
}

/// A start codon in an open reading frame of the forward strand, or the frame's beginning at the sequence's.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Start {
    at: u64,
    kind: u8,
    /// The frame's sum before it, less what the start is worth.
    before: i64,
}

/// Where an open reading frame of the reverse strand ends: its stop codon, or the sequence's first base.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stop {
    at: u64,
    is_edge: bool,
    before: i64,
}

/// What a stream carries of its genes. Positions count from `origin`.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Genes {
    origin: u64,
    read: u64,
    window: VecDeque<Seen>,
    sums: [i64; 6],
    forward: [Vec<Start>; 3],
    reverse: [Option<Stop>; 3],
    chain: Chain,
}

fn whole(nats: f32) -> i64 {
    (nats * NAT).round() as i64
}

impl GeneFinder {
    /// What the specification asks for; nothing where it asks for no genes.
    ///
    /// # Errors
    /// Says what labels or classes do not fit.
    pub fn new(spec: &ModelSpec) -> Result<Option<GeneFinder>, String> {
        let is_asked = spec.decode.as_ref().is_some_and(|decode| decode.kind == DecodeKind::Genes);
        let genes = match &spec.genes {
            Some(_) if !is_asked => return Err("[genes] is for decode.kind = \"genes\"".into()),
            None if !is_asked => return Ok(None),
            genes => genes.clone().unwrap_or_default(),
        };
        genes.check().map_err(|e| format!("genes.{e}"))?;
        if spec.scheme != Scheme::Runs {
            return Err("decode.kind = \"genes\" is for scheme = \"runs\"".into());
        }
        let classes: &[_] = spec.classes.as_deref().unwrap_or_default();
        let mut found = [0; 6];
        for (k, class) in found.iter_mut().enumerate() {
            let strand = LABELS[k / 3];
            let name = format!("{strand}{}", k % 3);
            let place = classes.iter().position(|c| c.class == name && c.label == strand);
            *class = place.ok_or_else(|| {
                format!("decode.kind = \"genes\" needs the classes none, forward0 … reverse2; {name} is missing")
            })?;
        }
        Ok(Some(GeneFinder {
            codons: Codons::new(genes.genetic_code),
            classes: found,
            starts: [0, whole(genes.gtg), whole(genes.ttg), 0],
            rbs: whole(genes.rbs),
            prior: whole(genes.prior),
            rules: chain::Rules {
                operon: whole(genes.operon),
                overlap_same: genes.overlap_same as u64,
                overlap_opposite: genes.overlap_opposite as u64,
                longest: genes.longest as u64,
            },
            spec: genes,
        }))
    }

    /// What a base's probabilities, `[classes]`, say for each strand and codon position.
    fn odds(&self, p: &[f32]) -> [i32; 6] {
        const LEAST: f32 = 1e-7;
        let all: f32 = p.iter().sum();
        self.classes.map(|class| {
            let of = if p[class].is_nan() { 0.0 } else { p[class] };
            let odds = ln(of.clamp(LEAST, 1.0)) - ln((all - of).clamp(LEAST, 1.0));
            (odds.clamp(-self.spec.clip, self.spec.clip) * NAT).round() as i32
        })
    }

    /// Takes one more base, which starts at `position`, and the network's probabilities of it.
    pub(super) fn push(&self, genes: &mut Genes, p: &[f32], base: &str, position: u64, output: &mut Output) {
        if genes.read == 0 {
            genes.origin = position;
        }
        let set = match base.as_bytes() {
            [code] => crate::encode::dna::base_set(*code),
            _ => 0,
        };
        let set = if set == 0 { 15 } else { set };
        let by_position = self.odds(p);
        let odds = std::array::from_fn(|k| match k {
            // Of frame f, codons begin at multiples of 3 plus f, from the left; reverse ones are read to the left.
            _ if set.count_ones() > 1 => -(NAT as i32),
            0..3 => by_position[(genes.read + 3 - k as u64) as usize % 3],
            _ => by_position[3 + (k as u64 + 2 - genes.read % 3) as usize % 3],
        });
        genes.window.push_back(Seen { set, odds });
        genes.read += 1;
        if let Some(at) = genes.read.checked_sub(1 + AROUND as u64) {
            self.look(genes, at, output);
        }
        if genes.window.len() > KEPT - 1 {
            genes.window.pop_front();
        }
    }

    /// The base at `at` and the codon that ends there.
    fn look(&self, genes: &mut Genes, at: u64, output: &mut Output) {
        let Some(here) = genes.seen(at) else { return };
        genes.sums.iter_mut().zip(here.odds).for_each(|(sum, odds)| *sum += i64::from(odds));
        let (Some(first), Some(second)) =
            (at.checked_sub(2).and_then(|k| genes.seen(k)), genes.seen(at.wrapping_sub(1)))
        else {
            return;
        };
        let end = at + 1;
        let frame = (end % 3) as usize;
        let codon = self.codons.of(first.set, second.set, here.set);
        // The frame's sums before the codon, of both strands.
        let [before, before_reverse] = [frame, 3 + frame]
            .map(|k| genes.sums[k] - i64::from(first.odds[k]) - i64::from(second.odds[k]) - i64::from(here.odds[k]));
        let opens = self.spec.partial && at < 5;

        let start = end - 3;
        if codon.stop {
            let mut starts = std::mem::take(&mut genes.forward[frame]);
            self.close(genes, frame, &mut starts, end, genes.sums[frame], false);
            starts.clear();
            genes.forward[frame] = starts;
        } else {
            if opens {
                genes.forward[frame].push(Start { at: start, kind: EDGE, before });
            }
            if let Some(kind) = codon.start {
                let worth = self.start_worth(kind, |k| Some(genes.seen(start.checked_sub(k)?)?.set));
                let starts = &mut genes.forward[frame];
                starts.push(Start { at: start, kind, before: before - worth });
                if starts.len() > MAX_STARTS {
                    // The first of those that promise least.
                    let worst = (0..starts.len()).rev().max_by_key(|&k| starts[k].before).unwrap_or(0);
                    starts.remove(worst);
                }
            }
        }

        if codon.reverse_stop {
            genes.reverse[frame] = Some(Stop { at: start, is_edge: false, before: before_reverse });
        } else {
            if opens {
                genes.reverse[frame] = Some(Stop { at: start, is_edge: true, before: before_reverse });
            }
            if let (Some(kind), Some(stop)) = (codon.reverse_start, genes.reverse[frame]) {
                let paired = |set: u8| set.reverse_bits() >> 4;
                let worth = self.start_worth(kind, |k| Some(paired(genes.seen(at + k)?.set)));
                self.reverse_candidate(genes, stop, end, genes.sums[3 + frame] + worth, kind);
            }
        }
        if end.is_multiple_of(SETTLE_EVERY) {
            self.settle(genes, end, output);
        }
    }

    /// What a start codon and its surroundings are worth. `upstream(k)`: the bases that the k-th before it may be.
    fn start_worth(&self, kind: u8, upstream: impl Fn(u64) -> Option<u8>) -> i64 {
        self.starts[usize::from(kind)] + self.rbs * codons::binding_site(upstream)
    }

    /// The reading frame of the forward strand ends: its best starts make candidates.
    fn close(&self, genes: &mut Genes, frame: usize, starts: &mut Vec<Start>, end: u64, sum: i64, cut: bool) {
        debug_assert_eq!(end % 3, frame as u64);
        let fits = |start: &Start| {
            let length = end - start.at;
            self.is_length(length, cut || start.kind == EDGE) && sum - start.before > self.prior
        };
        starts.retain(fits);
        if starts.len() > BEST_STARTS {
            starts.sort_by_key(|start| (start.before, start.at));
            starts.truncate(BEST_STARTS);
            starts.sort_by_key(|start| start.at);
        }
        for start in starts.iter() {
            let candidate = Candidate {
                start: start.at,
                end,
                is_reverse: false,
                kind: start.kind,
                is_cut: cut || start.kind == EDGE,
                score: sum - start.before - self.prior,
            };
            genes.chain.add(candidate, &self.rules);
        }
    }

    fn reverse_candidate(&self, genes: &mut Genes, stop: Stop, end: u64, sum: i64, kind: u8) {
        let is_cut = stop.is_edge || kind == EDGE;
        let score = sum - stop.before - self.prior;
        if score > 0 && self.is_length(end - stop.at, is_cut) {
            genes.chain.add(Candidate { start: stop.at, end, is_reverse: true, kind, is_cut, score }, &self.rules);
        }
    }

    fn is_length(&self, bases: u64, is_cut: bool) -> bool {
        let shortest = if is_cut { 60 } else { self.spec.shortest };
        (shortest as u64..=self.rules.longest).contains(&bases)
    }

    /// Publishes the genes that nothing to come can change; `end` bases are looked at.
    fn settle(&self, genes: &mut Genes, end: u64, output: &mut Output) {
        let earliest = end.saturating_sub(self.rules.longest);
        let mut horizon = end.saturating_sub(2);
        for starts in &mut genes.forward {
            starts.retain(|start| start.at >= earliest);
            horizon = starts.first().map_or(horizon, |start| horizon.min(start.at));
        }
        for stop in &mut genes.reverse {
            *stop = stop.filter(|stop| stop.at >= earliest);
            horizon = stop.map_or(horizon, |stop| horizon.min(stop.at));
        }
        let settled = genes.chain.settle(horizon, end, &self.rules);
        publish(genes.origin, &settled, output);
    }

    /// The sequence ends: all genes are settled, and the next begins anew.
    fn conclude(&self, genes: &mut Genes, output: &mut Output) {
        for at in genes.read.saturating_sub(AROUND as u64)..genes.read {
            self.look(genes, at, output);
        }
        if self.spec.partial {
            // Ends of the frames' last whole codons, in rising order.
            for end in genes.read.saturating_sub(2).max(3)..=genes.read {
                let frame = (end % 3) as usize;
                let beyond = |k: usize| {
                    (end..genes.read).filter_map(|at| genes.seen(at)).map(|s| i64::from(s.odds[k])).sum::<i64>()
                };
                let sums = [frame, 3 + frame].map(|k| genes.sums[k] - beyond(k));
                let mut starts = std::mem::take(&mut genes.forward[frame]);
                self.close(genes, frame, &mut starts, end, sums[0], true);
                if let Some(stop) = genes.reverse[frame] {
                    self.reverse_candidate(genes, stop, end, sums[1], EDGE);
                }
            }
        }
        let settled = genes.chain.conclude();
        publish(genes.origin, &settled, output);
        *genes = Genes::default();
    }
}

/// The labels of genes.
const LABELS: [&str; 2] = ["forward", "reverse"];

fn publish(origin: u64, settled: &[Candidate], output: &mut Output) {
    for gene in settled {
        let label = LABELS[usize::from(gene.is_reverse)].to_string();
        output.spans.push(Span { start: origin + gene.start, end: origin + gene.end, label });
        output.genes.push(Gene {
            score: gene.score as f32 / NAT,
            start_codon: codons::START_NAMES[usize::from(gene.kind)],
            partial: gene.is_cut,
        });
    }
}

impl Genes {
    /// The base at `at`, if it is one of the last.
    fn seen(&self, at: u64) -> Option<Seen> {
        let first = self.read - self.window.len() as u64;
        self.window.get(usize::try_from(at.checked_sub(first)?).ok()?).copied()
    }

    /// Bytes of memory on the heap, about.
    pub fn memory(&self) -> usize {
        let starts: usize = self.forward.iter().map(Vec::capacity).sum();
        self.window.capacity() * size_of::<Seen>() + starts * size_of::<Start>() + self.chain.memory()
    }
}

impl Session {
    /// The stream ends or is reset: the genes that wait are settled.
    pub(super) fn conclude_genes(&mut self, model: &Model, output: &mut Output) {
        if let Some(finder) = &model.genes {
            finder.conclude(&mut self.genes, output);
        }
    }
}
