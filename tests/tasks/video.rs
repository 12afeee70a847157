//! Films as streams of vectors, one class each: which way a dot moves is told by its frames in their order, and by none alone.

use serde_json::json;
use std::path::Path;
use strand::train::{Recipe, train};

const SIZE: usize = 5;

/// Numbers from a generator.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % n
    }
}

/// A dot on a noisy ground whose sides are joined, for 3 to 7 frames; or only one of them.
fn films(path: &Path, count: usize, single: bool, seed: u64) {
    let (mut random, mut lines) = (Random(seed), String::new());
    for k in 0..count {
        let (way, dx, dy) = [("left", SIZE - 1, 0), ("right", 1, 0), ("up", 0, SIZE - 1), ("down", 0, 1)][k % 4];
        let (mut x, mut y, steps) = (random.below(SIZE), random.below(SIZE), 3 + random.below(5));
        let mut frames = Vec::new();
        for _ in 0..if single { 1 } else { steps } {
            let pixel = |at: usize, noise: usize| f64::from(at == y * SIZE + x) + noise as f64 / 400.0 - 0.125;
            frames.push((0..SIZE * SIZE).map(|at| pixel(at, random.below(100))).collect::<Vec<f64>>());
            (x, y) = ((x + dx) % SIZE, (y + dy) % SIZE);
        }
        lines += &format!("{}\n", json!({"vector": frames, "label": way}));
    }
    std::fs::write(path, lines).unwrap();
}

/// The accuracy on dev of a small classifier of films, or of single frames.
fn accuracy(single: bool) -> f64 {
    let dir = tempfile::tempdir().unwrap();
    films(&dir.path().join("train.jsonl"), 800, single, 1);
    films(&dir.path().join("dev.jsonl"), 200, single, 2);
    let at = dir.path().display();
    let text = format!(
        "layers = [{{ cell = \"lstm\", hidden = 32 }}]\n[output]\ndir = \"{at}/m\"\nrun = \"{at}/run\"\nname = \"m\"\n\
         [task]\nkind = \"classify\"\npooling = \"mean\"\n[data]\nroot = \"{at}\"\nformat = \"jsonl\"\n\
         train = [\"train.jsonl\"]\ndev = [\"dev.jsonl\"]\n[encoder]\nkind = \"vector\"\nwidth = 25\n\
         [train]\nepochs = 16\nbatch = 16\nchunk = 8\nlr = 0.02\nwarmup = 20\ndropout_input = 0.0\ndropout_layers = 0.0\n"
    );
    train(&Recipe::parse(&text, &[]).unwrap(), false).unwrap().best.unwrap().accuracy
}

#[test]
fn which_way_a_dot_moves_is_told_by_its_frames_and_by_none_alone() {
    let (films, frames) = (accuracy(false), accuracy(true));
    assert!(films > 0.95, "accuracy of films {films}");
    assert!(frames < 0.4, "accuracy of single frames {frames}, where a quarter is chance");
}
