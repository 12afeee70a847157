//! Bounded look-ahead: which steps a direction that reads backwards sees, and how their rows are laid out.
//!
//! A stream is cut into *blocks* of a few steps, counted from its start. For each block there is a *window*: the block and
//! up to `right` steps after it. Every layer runs over the whole window: forwards from the state that the steps before
//! the block left (only the block's steps are carried on), backwards from the window's last step, from zero. A step so sees
//! `right` to `right + block - 1` steps that come after it, whatever the number of layers. (Latency-controlled
//! bidirectional networks: Zhang et al. 2016, "Highway long short-term memory RNNs for distant speech recognition".)
//!
//! A larger block reads fewer steps twice, as each window serves all its steps; its first steps wait longer.

/// How windows are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Steps that are carried on together, at least 1.
    pub block: usize,
    /// Steps that the last step of a block sees after it.
    pub right: usize,
}

impl Window {
    /// Of so many steps in waiting, those that can be labelled. `closing`: none follow, for now.
    pub fn ready(self, waiting: usize, closing: bool) -> usize {
        match waiting.checked_sub(self.right) {
            _ if closing => waiting,
            Some(steps) => steps / self.block * self.block,
            None => 0,
        }
    }

    /// The most steps that can be in waiting with none of them ready.
    pub fn most_waiting(self) -> usize {
        self.block - 1 + self.right
    }
}

/// One window of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub stream: usize,
    /// Its first step.
    pub from: usize,
    /// Steps of its block.
    pub block: usize,
    /// Steps in all.
    pub steps: usize,
}

/// Rows of many windows. First come the *main* rows, those of the blocks, as in [`super::layer`]; then the rows *ahead*:
/// the rest of each window, laid out as if each were a stream of its own, those with the most rows first. Backwards, each
/// whole window is such a stream.
#[derive(Debug, Clone, Default)]
pub struct Windows {
    /// Main rows.
    pub main: usize,
    /// How many windows have a first, second … row ahead.
    pub ahead_sizes: Vec<usize>,
    /// Of each window with rows ahead the main row before them: its block's last.
    pub ahead_after: Vec<usize>,
    /// Stream and step of each row ahead.
    pub ahead_rows: Vec<(usize, usize)>,
    /// How many windows have a first, second … row, read backwards.
    pub back_sizes: Vec<usize>,
    /// The row, main or ahead, of each row that is read backwards.
    pub back_rows: Vec<usize>,
    // Working space.
    first_ahead: Vec<usize>,
    order: Vec<usize>,
}

impl Windows {
    /// Lays out these windows; `row_of(stream, step)` is a block's step's main row.
    pub fn lay(&mut self, parts: &mut [Part], main: usize, row_of: impl Fn(usize, usize) -> usize) {
        self.main = main;
        parts.sort_unstable_by_key(|part| (std::cmp::Reverse(part.steps - part.block), part.stream, part.from));
        stack(parts.iter().map(|part| part.steps - part.block), &mut self.ahead_sizes);
        self.ahead_after.clear();
        self.ahead_rows.clear();
        for (at, &windows) in self.ahead_sizes.iter().enumerate() {
            let of = |part: &Part| (part.stream, part.from + part.block + at);
            self.ahead_rows.extend(parts[..windows].iter().map(of));
        }
        let with_rows = self.ahead_sizes.first().copied().unwrap_or(0);
        let last = |part: &Part| row_of(part.stream, part.from + part.block - 1);
        self.ahead_after.extend(parts[..with_rows].iter().map(last));

        self.first_ahead.clear();
        let mut first = main;
        for windows in &self.ahead_sizes {
            self.first_ahead.push(first);
            first += windows;
        }
        let order = &mut self.order;
        order.clear();
        order.extend(0..parts.len());
        order.sort_unstable_by_key(|&place| (std::cmp::Reverse(parts[place].steps), place));
        stack(order.iter().map(|&place| parts[place].steps), &mut self.back_sizes);
        self.back_rows.clear();
        for (at, &windows) in self.back_sizes.iter().enumerate() {
            for &place in &order[..windows] {
                let part = &parts[place];
                let step = part.steps - 1 - at;
                self.back_rows.push(match step.checked_sub(part.block) {
                    None => row_of(part.stream, part.from + step),
                    Some(ahead) => self.first_ahead[ahead] + place,
                });
            }
        }
    }

    /// Main rows and rows ahead.
    pub fn rows(&self) -> usize {
        self.main + self.ahead_rows.len()
    }
}

/// For lengths that never grow: how many are longer than 0, than 1, …
fn stack(lengths: impl ExactSizeIterator<Item = usize> + DoubleEndedIterator, sizes: &mut Vec<usize>) {
    sizes.clear();
    let all = lengths.len();
    for (shorter, length) in lengths.rev().enumerate() {
        sizes.resize(length, all - shorter);
    }
}

/// Copies the rows `rows` of `from` `[…, width]`, one after the other.
pub fn gather<T: Copy>(from: &[T], width: usize, rows: &[usize], out: &mut Vec<T>) {
    out.clear();
    out.reserve(rows.len() * width);
    for &row in rows {
        out.extend_from_slice(&from[row * width..(row + 1) * width]);
    }
}

/// The output of a layer of two directions, `[rows, 2·hidden]`: `forwards` `[rows, hidden]` and, of the same rows,
/// `backwards`, whose rows are those that `back_rows` says (others are left out).
pub fn join<T: Copy + Default>(forwards: &[T], backwards: &[T], hidden: usize, back_rows: &[usize], out: &mut Vec<T>) {
    out.clear();
    out.resize(2 * forwards.len(), T::default());
    for (both, forwards) in out.chunks_exact_mut(2 * hidden).zip(forwards.chunks_exact(hidden)) {
        both[..hidden].copy_from_slice(forwards);
    }
    for (backwards, &row) in backwards.chunks_exact(hidden).zip(back_rows) {
        if let Some(both) = out.get_mut(2 * row * hidden..2 * (row + 1) * hidden) {
            both[hidden..].copy_from_slice(backwards);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_waits_for_those_it_sees() {
        let window = Window { block: 2, right: 3 };
        assert_eq!((0..9).map(|n| window.ready(n, false)).collect::<Vec<_>>(), [0, 0, 0, 0, 0, 2, 2, 4, 4]);
        assert_eq!(window.ready(4, true), 4);
        assert_eq!(window.most_waiting(), 4);
    }

    #[test]
    fn windows_are_laid_out_behind_their_blocks() {
        // Stream 0 has steps 0..5 in blocks of two with one step ahead, stream 1 has one block of two and nothing ahead.
        let mut parts = [
            Part { stream: 1, from: 0, block: 2, steps: 2 },
            Part { stream: 0, from: 0, block: 2, steps: 3 },
            Part { stream: 0, from: 2, block: 2, steps: 3 },
            Part { stream: 0, from: 4, block: 1, steps: 1 },
        ];
        let rows = [[0, 2, 4, 5, 6], [1, 3, 0, 0, 0]];
        let mut windows = Windows::default();
        windows.lay(&mut parts, 7, |stream, step| rows[stream][step]);
        assert_eq!((windows.rows(), &windows.ahead_sizes[..]), (9, &[2][..]));
        assert_eq!((&windows.ahead_after[..], &windows.ahead_rows[..]), (&[2, 5][..], &[(0, 2), (0, 4)][..]));
        assert_eq!(windows.back_sizes, [4, 3, 2]);
        assert_eq!(windows.back_rows, [7, 8, 3, 6, 2, 5, 1, 0, 4]);
    }
}
