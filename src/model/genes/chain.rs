//! Which candidates go together: the best chain of genes, by their ends from left to right.
//!
//! ```text
//! V(g) = score(g) + max over g' that g may follow of V(g') + link(g', g)
//! ```
//!
//! Genes that follow each other may share some bases. A gene is settled when all chains that something to come could go on
//! from have it in common; or, at the latest, when two of the longest genes would fit behind it: then the best chain's is
//! taken, and what does not follow it is dropped.

/// Candidates that are kept; more in two of the longest genes' length are not looked at.
pub const MAX_NODES: usize = 4096;
/// A chain that begins here, or with the last gene that is settled.
pub const ROOT: u32 = u32::MAX;

/// A possible gene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub start: u64,
    pub end: u64,
    pub is_reverse: bool,
    /// Of the start codon.
    pub kind: u8,
    /// It goes over the sequence's edge.
    pub is_cut: bool,
    pub score: i64,
}

/// A candidate at the end of its best chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    pub gene: Candidate,
    /// V, less that of the last gene settled.
    pub total: i64,
    /// The node before it in the chain.
    pub before: u32,
}

/// What is unsettled. Nodes lie in the order of their ends.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chain {
    pub nodes: Vec<Node>,
    /// The last gene settled.
    pub last: Option<Candidate>,
}

/// What may follow what.
#[derive(Debug, Clone)]
pub struct Rules {
    pub operon: i64,
    pub overlap_same: u64,
    pub overlap_opposite: u64,
    pub longest: u64,
}

impl Rules {
    /// What it is worth that `next` follows `gene`; nothing where it may not.
    fn link(&self, gene: &Candidate, next: &Candidate) -> Option<i64> {
        let same = gene.is_reverse == next.is_reverse;
        let shared = gene.end.saturating_sub(next.start);
        if shared > 0 {
            let most = match (same, gene.is_reverse) {
                (true, _) => self.overlap_same,
                // Their ends meet.
                (false, false) => self.overlap_opposite,
                // Their starts would.
                (false, true) => 0,
            };
            let shorter = (gene.end - gene.start).min(next.end - next.start);
            if shared > most || 2 * shared > shorter || next.start <= gene.start || next.end <= gene.end {
                return None;
            }
        }
        let is_near = shared < 16 && next.start.saturating_sub(gene.end) < 30;
        Some(if same && is_near { self.operon } else { 0 })
    }
}

impl Chain {
    /// Takes a candidate that ends where the last one ended or after it.
    pub fn add(&mut self, gene: Candidate, rules: &Rules) {
        let from_root = match &self.last {
            None => Some(0),
            Some(last) => rules.link(last, &gene),
        };
        let mut best = from_root.map(|worth| (worth, ROOT));
        // What ends so early that whatever may follow `gene` may follow it.
        let clear = gene.end.saturating_sub(rules.overlap_same.max(rules.overlap_opposite));
        let mut to_beat = i64::MIN;
        for (k, node) in self.nodes.iter().enumerate() {
            if node.gene.end <= clear {
                to_beat = to_beat.max(node.total);
            }
            if let Some(worth) = rules.link(&node.gene, &gene)
                && best.is_none_or(|(total, _)| node.total + worth > total)
            {
                best = Some((node.total + worth, k as u32));
            }
        }
        let Some((total, before)) = best else { return };
        let total = total + gene.score;
        if total > to_beat && total > 0 && self.nodes.len() < MAX_NODES {
            self.nodes.push(Node { gene, total, before });
        }
    }

    /// Nothing to come starts before `horizon`, nor ends before `end`: the genes that are settled.
    pub fn settle(&mut self, horizon: u64, end: u64, rules: &Rules) -> Vec<Candidate> {
        let Some(first) = self.nodes.first() else { return Vec::new() };
        let is_late = first.gene.end + 2 * rules.longest < end;
        let is_full = self.nodes.len() >= MAX_NODES;
        let Some(behind) = self.best(|gene| gene.end <= horizon) else { return Vec::new() };
        let mut live = vec![false; self.nodes.len()];
        live[behind] = true;
        for (k, node) in self.nodes.iter().enumerate() {
            live[k] |= node.gene.end > horizon;
        }
        let common = if is_late || is_full { Some(behind) } else { self.common(&live) };
        let settled = common.map_or(Vec::new(), |common| self.path(common));
        self.keep(live, common);
        settled
    }

    /// Nothing comes: all genes that were not settled.
    pub fn conclude(&mut self) -> Vec<Candidate> {
        let settled = self.best(|_| true).map_or(Vec::new(), |best| self.path(best));
        *self = Chain::default();
        settled
    }

    /// The node with the best chain (the first of equals) of those.
    fn best(&self, of: impl Fn(&Candidate) -> bool) -> Option<usize> {
        let mut best: Option<usize> = None;
        for (k, node) in self.nodes.iter().enumerate().filter(|(_, node)| of(&node.gene)) {
            if best.is_none_or(|best| node.total > self.nodes[best].total) {
                best = Some(k);
            }
        }
        best
    }

    /// The last node that all these chains have in common.
    fn common(&self, live: &[bool]) -> Option<usize> {
        let mut open = live.to_vec();
        let mut count = open.iter().filter(|&&open| open).count();
        // From the last node to the first, each gives way to the one before it, until one is left.
        for k in (0..open.len()).rev() {
            if !open[k] {
                continue;
            }
            if count == 1 {
                return Some(k);
            }
            let before = self.nodes[k].before;
            if before == ROOT {
                return None;
            }
            let before = before as usize;
            count -= usize::from(open[before]);
            open[before] = true;
        }
        None
    }

    fn path(&self, last: usize) -> Vec<Candidate> {
        let mut genes = Vec::new();
        let mut at = last as u32;
        while at != ROOT {
            let node = &self.nodes[at as usize];
            genes.push(node.gene);
            at = node.before;
        }
        genes.reverse();
        genes
    }

    /// Keeps live nodes and those of their chains, as far as they follow `common`, which is settled.
    fn keep(&mut self, mut live: Vec<bool>, common: Option<usize>) {
        for k in (0..self.nodes.len()).rev() {
            let before = self.nodes[k].before;
            if live[k] && before != ROOT {
                live[before as usize] = true;
            }
        }
        let settled_total = common.map_or(0, |common| self.nodes[common].total);
        if let Some(common) = common {
            self.last = Some(self.nodes[common].gene);
            live[common] = false;
        }
        // The new place of each node, or that it is the root.
        let mut places: Vec<Option<u32>> = vec![None; self.nodes.len()];
        if let Some(common) = common {
            places[common] = Some(ROOT);
        }
        let mut kept = 0;
        for k in 0..self.nodes.len() {
            let node = self.nodes[k];
            let before = match node.before {
                ROOT if common.is_none() => Some(ROOT),
                ROOT => None,
                before => places[before as usize],
            };
            if let (true, Some(before)) = (live[k], before) {
                places[k] = Some(kept as u32);
                self.nodes[kept] = Node { total: node.total - settled_total, before, ..node };
                kept += 1;
            }
        }
        self.nodes.truncate(kept);
    }

    pub fn memory(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
    }
}
