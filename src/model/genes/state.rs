//! What a stream carries of its genes, as bytes.
//!
//! ```text
//! origin u64 | read u64 | sums i64 [6] | bases kept u8, of each: set u8, odds i32 [6]
//! | of each forward frame: starts u8, of each: at u64, kind u8, before i64
//! | of each reverse frame: 0, or 1 (a stop codon) or 2 (the edge), at u64, before i64
//! | the last gene settled: 0, or 1 and the gene | nodes u32, of each: the gene, total i64, the node before u32
//! gene: start u64, end u64, bits u8 (1 reverse, 2 cut), kind u8, score i64
//! ```

use super::chain::{Candidate, Chain, MAX_NODES, Node, ROOT};
use super::codons::EDGE;
use super::{GeneFinder, Genes, KEPT, MAX_STARTS, NAT, Seen, Start, Stop};
use crate::model::state::{Fields, StateError};

/// Sums are within this, either way: so many bases that none is too many.
const MOST: i64 = 1 << 56;

fn damaged(what: &str) -> StateError {
    StateError::Damaged(format!("of its genes {what}"))
}

impl Genes {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let number = |out: &mut Vec<u8>, x: u64| out.extend_from_slice(&x.to_le_bytes());
        let sum = |out: &mut Vec<u8>, x: i64| out.extend_from_slice(&x.to_le_bytes());
        number(out, self.origin);
        number(out, self.read);
        self.sums.iter().for_each(|&x| sum(out, x));
        out.push(self.window.len() as u8);
        for seen in &self.window {
            out.push(seen.set);
            seen.odds.iter().for_each(|x| out.extend_from_slice(&x.to_le_bytes()));
        }
        for starts in &self.forward {
            out.push(starts.len() as u8);
            for start in starts {
                number(out, start.at);
                out.push(start.kind);
                sum(out, start.before);
            }
        }
        for stop in &self.reverse {
            let Some(stop) = stop else {
                out.push(0);
                continue;
            };
            out.push(1 + u8::from(stop.is_edge));
            number(out, stop.at);
            sum(out, stop.before);
        }
        out.push(u8::from(self.chain.last.is_some()));
        self.chain.last.iter().for_each(|gene| put_gene(out, gene));
        out.extend_from_slice(&(self.chain.nodes.len() as u32).to_le_bytes());
        for node in &self.chain.nodes {
            put_gene(out, &node.gene);
            sum(out, node.total);
            out.extend_from_slice(&node.before.to_le_bytes());
        }
    }

    /// The inverse of [`Genes::encode`].
    pub fn decode(fields: &mut Fields<'_>, finder: &GeneFinder) -> Result<Genes, StateError> {
        let mut genes = Genes { origin: fields.u64()?, read: fields.u64()?, ..Genes::default() };
        if genes.origin > u64::MAX / 4 || genes.read > u64::MAX / 4 {
            return Err(damaged("the position is impossible"));
        }
        let read = genes.read;
        for x in &mut genes.sums {
            *x = sum(fields)?;
        }
        let [kept] = fields.array()?;
        if usize::from(kept) != (KEPT - 1).min(usize::try_from(read).unwrap_or(usize::MAX)) {
            return Err(damaged("the last bases are not as many as it keeps"));
        }
        for _ in 0..kept {
            let [set] = fields.array()?;
            let mut odds = [0; 6];
            for x in &mut odds {
                *x = i32::from_le_bytes(fields.array()?);
            }
            let most = (finder.spec.clip.max(1.0) * NAT) as i32 + 1;
            if !(1..16).contains(&set) || odds.iter().any(|x| !(-most..=most).contains(x)) {
                return Err(damaged("a base is impossible"));
            }
            genes.window.push_back(Seen { set, odds });
        }
        for (frame, starts) in genes.forward.iter_mut().enumerate() {
            let [count] = fields.array()?;
            if usize::from(count) > MAX_STARTS {
                return Err(damaged("a reading frame has too many starts"));
            }
            for _ in 0..count {
                let (at, [kind], before) = (fields.u64()?, fields.array()?, sum(fields)?);
                let rises = starts.last().is_none_or(|last: &Start| (last.at, last.kind) < (at, 4) && last.at <= at);
                if at + 3 > read || at % 3 != frame as u64 || kind > EDGE || !rises {
                    return Err(damaged("a start is impossible"));
                }
                starts.push(Start { at, kind, before });
            }
        }
        for (frame, stop) in genes.reverse.iter_mut().enumerate() {
            let [there] = fields.array()?;
            if there == 0 {
                continue;
            }
            let (at, before) = (fields.u64()?, sum(fields)?);
            if there > 2 || at + 3 > read || at % 3 != frame as u64 {
                return Err(damaged("a stop is impossible"));
            }
            *stop = Some(Stop { at, is_edge: there == 2, before });
        }
        genes.chain = chain(fields, read)?;
        Ok(genes)
    }
}

fn chain(fields: &mut Fields<'_>, read: u64) -> Result<Chain, StateError> {
    let last = match fields.array()? {
        [0u8] => None,
        [1u8] => Some(gene(fields, read)?),
        _ => return Err(damaged("the last is neither there nor absent")),
    };
    let mut chain = Chain { nodes: Vec::new(), last };
    let count = fields.u32()? as usize;
    if count > MAX_NODES {
        return Err(damaged("more are unsettled than may be"));
    }
    for k in 0..count {
        let node = Node { gene: gene(fields, read)?, total: sum(fields)?, before: fields.u32()? };
        let follows = chain.nodes.last().is_none_or(|last| last.gene.end <= node.gene.end);
        if !follows || node.total <= 0 || (node.before != ROOT && node.before as usize >= k) {
            return Err(damaged("one that is unsettled is impossible"));
        }
        chain.nodes.push(node);
    }
    Ok(chain)
}

fn sum(fields: &mut Fields<'_>) -> Result<i64, StateError> {
    let x = i64::from_le_bytes(fields.array()?);
    if (-MOST..=MOST).contains(&x) { Ok(x) } else { Err(damaged("a sum is impossible")) }
}

fn put_gene(out: &mut Vec<u8>, gene: &Candidate) {
    out.extend_from_slice(&gene.start.to_le_bytes());
    out.extend_from_slice(&gene.end.to_le_bytes());
    out.push(u8::from(gene.is_reverse) | u8::from(gene.is_cut) << 1);
    out.push(gene.kind);
    out.extend_from_slice(&gene.score.to_le_bytes());
}

fn gene(fields: &mut Fields<'_>, read: u64) -> Result<Candidate, StateError> {
    let (start, end, [bits, kind], score) = (fields.u64()?, fields.u64()?, fields.array()?, sum(fields)?);
    let gene = Candidate { start, end, is_reverse: bits & 1 == 1, kind, is_cut: bits & 2 == 2, score };
    if bits > 3 || start >= end || end > read || kind > EDGE || score <= 0 {
        return Err(damaged("one is impossible"));
    }
    Ok(gene)
}
