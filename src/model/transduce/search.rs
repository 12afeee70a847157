//! The search for the best translation: beam search with length normalisation (Wu et al. 2016, "Google's neural machine
//! translation system").
//!
//! A translation Y of |Y| units, its end included, is worth ln P(Y) / ((5 + |Y|) / 6)^α. Of every sentence the `beam` best
//! beginnings are followed. Those that end among the best are kept, and the search is over when no beginning can become
//! better than the best of them, or at `max_length` units, where what was not over ends. Equals are told apart by the
//! place of their beginning and the number of their unit, so that the result is settled.

use super::MAX_BEAM;
use super::net::{Row, Transducer};
use crate::encode::units::{END, UNKNOWN};

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search {
    /// Beginnings that are followed; 1: greedy.
    pub beam: usize,
    /// α; 0: the likeliest translation, which tends to be short.
    pub length_penalty: f64,
    /// The most units of a translation, its end not counted.
    pub max_length: usize,
}

impl Search {
    /// Says what is out of range.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=MAX_BEAM).contains(&self.beam) {
            return Err(format!("beam = {}: must be 1 to {MAX_BEAM}", self.beam));
        }
        if !(0.0..=10.0).contains(&self.length_penalty) {
            return Err(format!("length_penalty = {}: must be 0 to 10", self.length_penalty));
        }
        Ok(())
    }

    fn worth(&self, log_probability: f64, length: usize) -> f64 {
        log_probability / ((5.0 + length as f64) / 6.0).powf(self.length_penalty)
    }
}

/// A translation that was found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Found {
    /// Its units without the end, and for each the step of the source that had most attention.
    pub units: Vec<(u32, usize)>,
    /// ln P, the end included.
    pub log_probability: f64,
}

/// The beginning of a translation.
#[derive(Debug, Clone)]
struct Hypothesis {
    units: Vec<(u32, usize)>,
    log_probability: f64,
    state: Vec<f32>,
}

/// Where the search for one sentence stands.
struct Beam {
    alive: Vec<Hypothesis>,
    best: Option<(f64, Found)>,
}

impl Beam {
    fn finish(&mut self, search: Search, hypothesis: &Hypothesis, log_probability: f64) {
        let worth = search.worth(log_probability, hypothesis.units.len() + 1);
        if self.best.as_ref().is_none_or(|(best, _)| worth > *best) {
            self.best = Some((worth, Found { units: hypothesis.units.clone(), log_probability }));
        }
    }

    /// No beginning can become better than what was found: ln P only falls, and no penalty is weaker than that of the
    /// longest translation.
    fn is_over(&self, search: Search) -> bool {
        let hope = self.alive.iter().map(|h| search.worth(h.log_probability, search.max_length + 1));
        match &self.best {
            Some((best, _)) => hope.fold(f64::NEG_INFINITY, f64::max) <= *best,
            None => self.alive.is_empty(),
        }
    }
}

/// The best translation of each sentence (its units, then the end). `unknown`: the unknown unit may be written.
pub fn best(net: &Transducer, sentences: &[Vec<u32>], search: Search, unknown: bool) -> Vec<Found> {
    let reads = net.read(sentences);
    let first = |state: &Vec<f32>| Hypothesis { units: Vec::new(), log_probability: 0.0, state: state.clone() };
    let mut beams: Vec<Beam> = reads.iter().map(|read| Beam { alive: vec![first(&read.state)], best: None }).collect();
    let (mut probabilities, units) = (Vec::new(), net.units());
    for length in 0..=search.max_length {
        let mut rows: Vec<Row<'_>> = Vec::new();
        for (beam, read) in beams.iter_mut().zip(&reads) {
            rows.extend(beam.alive.iter_mut().map(|h| Row {
                read,
                unit: h.units.last().map_or(END, |(unit, _)| *unit),
                state: &mut h.state,
                looked_at: 0,
            }));
        }
        if rows.is_empty() {
            break;
        }
        net.step(&mut rows, &mut probabilities);
        let looked_at: Vec<usize> = rows.iter().map(|row| row.looked_at).collect();
        let (mut p, mut looked_at) = (probabilities.chunks_exact(units), looked_at.into_iter());
        for beam in &mut beams {
            let alive = std::mem::take(&mut beam.alive);
            let p: Vec<(&[f32], usize)> = p.by_ref().zip(looked_at.by_ref()).take(alive.len()).collect();
            go_on(beam, alive, &p, search, unknown, length == search.max_length);
        }
    }
    beams.into_iter().map(|beam| beam.best.map(|(_, found)| found).unwrap_or_default()).collect()
}

/// One step of one sentence's search: from the beginnings `alive` and the probabilities of their next units.
fn go_on(beam: &mut Beam, alive: Vec<Hypothesis>, p: &[(&[f32], usize)], search: Search, unknown: bool, is_last: bool) {
    let ln = |p: f32| f64::from(p.max(1e-30)).ln();
    if is_last {
        for (hypothesis, (p, _)) in alive.iter().zip(p) {
            beam.finish(search, hypothesis, hypothesis.log_probability + ln(p[END as usize]));
        }
        return;
    }
    // ln P, place of the beginning, unit: the best first.
    let mut candidates: Vec<(f64, usize, u32)> = Vec::new();
    let mut order: Vec<u32> = Vec::new();
    // Enough that as many go on as are followed, if all that could end do.
    let most = 2 * search.beam;
    for (place, (hypothesis, (p, _))) in alive.iter().zip(p).enumerate() {
        order.clear();
        order.extend((0..p.len() as u32).filter(|&unit| unknown || unit != UNKNOWN));
        let better = |a: &u32, b: &u32| p[*b as usize].total_cmp(&p[*a as usize]).then(a.cmp(b));
        if order.len() > most {
            order.select_nth_unstable_by(most, better);
            order.truncate(most);
        }
        candidates.extend(order.iter().map(|&unit| (hypothesis.log_probability + ln(p[unit as usize]), place, unit)));
    }
    candidates.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
    for (rank, &(log_probability, place, unit)) in candidates.iter().enumerate() {
        if unit == END {
            if rank < search.beam {
                beam.finish(search, &alive[place], log_probability);
            }
        } else if beam.alive.len() < search.beam {
            let Hypothesis { units, state, .. } = &alive[place];
            let mut units = units.clone();
            units.push((unit, p[place].1));
            beam.alive.push(Hypothesis { units, log_probability, state: state.clone() });
        }
    }
    if (search.beam == 1 && beam.best.is_some()) || beam.is_over(search) {
        beam.alive.clear();
    }
}
