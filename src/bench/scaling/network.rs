//! The network alone, on one thread: stacks of LSTMs over vectors of 100 numbers, 32 classes, as the engine's bench has it.

use super::{Axis, Effort, Point, seconds};
use crate::bench::engine::Part;
use crate::model::network::Network;
use crate::model::params::{NetShape, Params};
use crate::rnn::{Cell, LayerSpec};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const INPUT: usize = 100;
const HIDDEN: usize = 256;
const LAYERS: usize = 2;
/// Streams of a step where the batch does not grow.
const STREAMS: usize = 64;

/// A step of a stack of `layers` LSTMs for so many streams.
fn point(x: usize, [streams, hidden, layers]: [usize; 3], effort: Effort) -> Point {
    let layers = vec![LayerSpec::new(Cell::Lstm, hidden); layers];
    let shape = NetShape { dense: INPUT, layers, classes: 32, ..NetShape::default() };
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let net = Network::new(&shape, &Params::random(&shape, &mut rng));
    let mut part = Part::new(&net, streams, 1, INPUT, &mut rng);
    let ns = seconds(effort.budget, || part.run(&net)).map(|s| s * 1e9 / streams as f64);
    Point { x, ns, work: 1.0 }.of_flops(&shape)
}

impl Point {
    /// With the multiplications and additions of a step as its work, in millions.
    fn of_flops(self, shape: &NetShape) -> Point {
        let layers = shape.layers.iter().enumerate();
        let weights =
            |(k, layer): (usize, &LayerSpec)| layer.cell.gates() * layer.hidden * (shape.layer_input(k) + layer.hidden);
        let all = layers.map(weights).sum::<usize>() + shape.top() * shape.classes;
        Point { work: 2.0 * all as f64 / 1e6, ..self }
    }
}

/// Streams of a step, 1 to 4,096.
pub fn batch(effort: Effort) -> Axis {
    let sizes = (0..13).map(|k| 1usize << k);
    let points = sizes.map(|streams| Point { work: 1.0, ..point(streams, [streams, HIDDEN, LAYERS], effort) });
    let title = "Cost of a step by batch: 2 LSTM of 256";
    Axis { name: "batch", x: "streams", title, work: "step", points: points.collect() }
}

/// Width of the layers, 64 to 2,048.
pub fn hidden(effort: Effort) -> Axis {
    let sizes = (6..12).map(|k| 1usize << k);
    let points = sizes.map(|hidden| point(hidden, [STREAMS, hidden, LAYERS], effort)).collect();
    let title = "Cost of a step by width: 2 LSTM, 64 streams";
    Axis { name: "hidden", x: "hidden", title, work: "mflop", points }
}

/// Layers, 1 to 8.
pub fn depth(effort: Effort) -> Axis {
    let points = (1..=8).map(|layers| point(layers, [STREAMS, HIDDEN, layers], effort)).collect();
    let title = "Cost of a step by depth: LSTM of 256, 64 streams";
    Axis { name: "depth", x: "layers", title, work: "mflop", points }
}
