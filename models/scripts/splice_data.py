#!/usr/bin/env python3
"""UCI's primate splice junctions as streams with a class each, for `strand train --config examples/dna-splice.toml`.

Each sequence of 60 bases becomes a line {"dna": "CCAG…", "label": "EI"} of train.jsonl, dev.jsonl or test.jsonl: by the
SHA-256 of its bases, of a hundred values 80, 10 and 10, so that sequences that are in the set twice are in one part.

    splice_data.py --data ../data --out runs/splice
"""

import argparse
import gzip
import hashlib
import json
import pathlib


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, required=True, help="folder that holds dna-splice-uci")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    parts = {"train": [], "dev": [], "test": []}
    with gzip.open(args.data / "dna-splice-uci" / "splice.data.gz", "rt") as file:
        for line in filter(str.strip, file):
            label, _, bases = (field.strip() for field in line.split(","))
            place = int(hashlib.sha256(bases.encode()).hexdigest(), 16) % 100
            part = "train" if place < 80 else "dev" if place < 90 else "test"
            parts[part].append(json.dumps({"dna": bases, "label": label}) + "\n")
    for name, lines in parts.items():
        (args.out / f"{name}.jsonl").write_text("".join(lines))
        print(name, len(lines))


if __name__ == "__main__":
    main()
