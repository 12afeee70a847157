//! The rows that an encoder makes and a network reads.

/// Network input of `steps` units, row by row.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Features {
    pub steps: usize,
    /// Row index into each embedding table, `[steps, tables]`.
    pub ids: Vec<u32>,
    /// Dense columns, `[steps, dense]`.
    pub dense: Vec<f32>,
    /// Character ids of all words one after the other; empty without a character encoder.
    pub chars: Vec<u32>,
    /// End of each step's characters in `chars`, `[steps]`; empty without a character encoder.
    pub char_ends: Vec<u32>,
}

/// One embedding table: `rows` vectors of `dim` numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableShape {
    pub name: &'static str,
    pub rows: usize,
    pub dim: usize,
}

/// What an encoder yields a step: the shapes the network's input layer must have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    pub tables: Vec<TableShape>,
    /// Rows of the character embedding table, if the encoder reads characters.
    pub chars: Option<usize>,
    pub dense: usize,
}

impl Features {
    /// Table indices of a step, one for each of [`Layout::tables`].
    pub fn ids_of(&self, step: usize, layout: &Layout) -> &[u32] {
        let tables = layout.tables.len();
        &self.ids[step * tables..(step + 1) * tables]
    }

    /// Dense columns of a step.
    pub fn dense_of(&self, step: usize, layout: &Layout) -> &[f32] {
        &self.dense[step * layout.dense..(step + 1) * layout.dense]
    }

    /// Character ids of a step's word; empty without a character encoder.
    pub fn chars_of(&self, step: usize) -> &[u32] {
        match self.char_ends.get(step) {
            Some(&end) => &self.chars[self.char_start(step)..end as usize],
            None => &[],
        }
    }

    /// Keeps the first `steps` rows.
    pub fn truncate(&mut self, steps: usize, layout: &Layout) {
        if steps >= self.steps {
            return;
        }
        self.chars.truncate(self.char_start(steps));
        self.char_ends.truncate(steps);
        self.ids.truncate(steps * layout.tables.len());
        self.dense.truncate(steps * layout.dense);
        self.steps = steps;
    }

    /// Adds the rows of `other`, which the same encoder made, behind these.
    pub fn append(&mut self, other: &Features) {
        let before = self.chars.len() as u32;
        self.steps += other.steps;
        self.ids.extend_from_slice(&other.ids);
        self.dense.extend_from_slice(&other.dense);
        self.chars.extend_from_slice(&other.chars);
        self.char_ends.extend(other.char_ends.iter().map(|end| before + end));
    }

    /// Adds rows `from..to` of `other`, which the same encoder made, behind these.
    pub fn append_range(&mut self, other: &Features, from: usize, to: usize, layout: &Layout) {
        let tables = layout.tables.len();
        self.steps += to - from;
        self.ids.extend_from_slice(&other.ids[from * tables..to * tables]);
        self.dense.extend_from_slice(&other.dense[from * layout.dense..to * layout.dense]);
        if !other.char_ends.is_empty() {
            let (first, last) = (other.char_start(from), other.char_start(to));
            let before = self.chars.len() as u32;
            self.chars.extend_from_slice(&other.chars[first..last]);
            self.char_ends.extend(other.char_ends[from..to].iter().map(|end| before + end - first as u32));
        }
    }

    /// Drops the rows and keeps the memory.
    pub fn clear(&mut self) {
        self.steps = 0;
        self.ids.clear();
        self.dense.clear();
        self.chars.clear();
        self.char_ends.clear();
    }

    /// Where in `chars` the characters of `step` begin.
    fn char_start(&self, step: usize) -> usize {
        step.checked_sub(1).and_then(|before| self.char_ends.get(before)).map_or(0, |&end| end as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        let table = |name| TableShape { name, rows: 10, dim: 2 };
        Layout { tables: vec![table("word"), table("shape")], chars: Some(5), dense: 1 }
    }

    fn rows(words: &[(u32, &[u32])]) -> Features {
        let mut features = Features::default();
        for (id, chars) in words {
            features.steps += 1;
            features.ids.extend([*id, id + 1]);
            features.dense.push(*id as f32);
            features.chars.extend_from_slice(chars);
            features.char_ends.push(features.chars.len() as u32);
        }
        features
    }

    #[test]
    fn appending_and_truncating_keep_rows_whole() {
        let (a, b) = (rows(&[(1, &[1, 2]), (2, &[])]), rows(&[(3, &[3]), (4, &[4, 1, 2])]));
        let both = rows(&[(1, &[1, 2]), (2, &[]), (3, &[3]), (4, &[4, 1, 2])]);
        let mut joined = a.clone();
        joined.append(&b);
        assert_eq!(joined, both);
        assert_eq!(joined.chars_of(3), [4, 1, 2]);
        assert_eq!(joined.ids_of(2, &layout()), [3, 4]);
        assert_eq!(joined.dense_of(3, &layout()), [4.0]);
        joined.truncate(2, &layout());
        assert_eq!(joined, a);
        joined.append_range(&both, 2, 4, &layout());
        assert_eq!(joined, both);
        joined.truncate(0, &layout());
        assert_eq!(joined, Features::default());
    }
}
