#!/usr/bin/env python3
"""Short grey films of a shape that moves, for `examples/moving-shapes.toml`: which way, no single frame can tell.

    python3 models/scripts/moving_shapes.py runs/shapes        # numpy; train.jsonl, dev.jsonl, test.jsonl

A film is 6 to 24 frames of 12 x 12 numbers: a disc, square, cross or ring of 1.5 to 3.5 pixels radius and of its own brightness
glides left, right, up or down at 0.25 to 1 pixel a frame, or stays where it is, before a ground with noise. It starts anywhere
and comes in again on the other side, so that no place on the picture tells of a direction. With --single each film is one
frame, the same film's in the middle. The same seed gives the same films.
"""
import argparse, json
from pathlib import Path
import numpy as np

SIZE, WAYS = 12, {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
PARTS = {"train": 3000, "dev": 400, "test": 1000}


def inside(kind, dx, dy, r):
    """How much of each pixel the shape covers, 0 to 1."""
    d = np.hypot(dx, dy)
    edge = {"disc": r - d, "square": 0.85 * r - np.maximum(abs(dx), abs(dy)), "ring": 0.35 * r + 0.3 - abs(d - 0.75 * r),
            "cross": np.minimum(r - np.maximum(abs(dx), abs(dy)), 0.35 * r + 0.3 - np.minimum(abs(dx), abs(dy)))}[kind]
    return np.clip(edge + 0.5, 0, 1)


def film(rng, way):
    frames, speed = int(rng.integers(6, 25)), rng.uniform(0.25, 1.0)
    kind, r = rng.choice(["disc", "square", "cross", "ring"]), rng.uniform(1.5, 3.5)
    x0, y0 = rng.uniform(0, SIZE, 2)
    ground, shape, noise = rng.uniform(-0.5, 0.5), rng.uniform(0.8, 1.6) * rng.choice([-1, 1]), rng.uniform(0.05, 0.3)
    at = np.arange(SIZE)
    out = []
    for t in range(frames):
        # From the nearest image of the shape on a picture whose sides are joined.
        dx = (at[None, :] - x0 - WAYS[way][0] * speed * t + SIZE / 2) % SIZE - SIZE / 2
        dy = (at[:, None] - y0 - WAYS[way][1] * speed * t + SIZE / 2) % SIZE - SIZE / 2
        picture = ground + shape * inside(kind, dx, dy, r) + noise * rng.standard_normal((SIZE, SIZE))
        out.append([round(float(x), 2) for x in picture.ravel()])
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", type=Path)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--single", action="store_true", help="one frame of each film")
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    for number, (part, count) in enumerate(PARTS.items()):
        rng = np.random.default_rng([a.seed, number])
        with open(a.out / f"{part}.jsonl", "w") as f:
            for k in range(count):
                way = list(WAYS)[k % len(WAYS)]
                frames = film(rng, way)
                frames = [frames[len(frames) // 2]] if a.single else frames
                f.write(json.dumps({"label": way, "vector": frames}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
