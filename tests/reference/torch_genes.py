#!/usr/bin/env python3
"""The network of `models/dna-genes` in PyTorch, with the same weights over the same windows: what `strand tag` says of each base.

    strand tag --model models/dna-genes g.fna --output jsonl > g.jsonl
    torch_genes.py --model models/dna-genes g.fna g.jsonl

`torch.nn.GRU` forwards over the whole sequence; backwards from zero over each block of 192 bases and the 64 after it
(docs/LOOKAHEAD.md). Prints how many labels differ and by how much the probability of the label does at most. One sequence of
A, C, G, T in upper case.
"""

import argparse
import json
import tomllib

import numpy as np
import torch
from safetensors.torch import load_file


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("genome")
    parser.add_argument("labels")
    args = parser.parse_args()
    spec = tomllib.load(open(f"{args.model}/model.toml", "rb"))
    weights = load_file(f"{args.model}/weights.safetensors")
    text = "".join(line.strip() for line in open(args.genome) if not line.startswith(">"))
    bases = torch.tensor(["ACGT".index(base) for base in text])
    inputs = []
    for k in spec["encoder"]["kmers"]:
        code = torch.zeros(len(bases), dtype=torch.long)
        for back in range(k):
            code[k - 1 :] += bases[k - 1 - back : len(bases) - back] * 4**back
        code[k - 1 :] += 1
        table = next(weights[name] for name in weights if f"kmer{k}." in name)
        inputs.append(table[code])
    x = torch.cat([*inputs, torch.nn.functional.one_hot(bases, 4).float()], 1)
    hidden, ahead = spec["layers"][0]["hidden"], spec["look_ahead"]
    right = ahead["steps"] + 1 - ahead["block"]
    directions = []
    for suffix in ("", "_reverse"):
        gru = torch.nn.GRU(x.shape[1], hidden, batch_first=True)
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            found = next(key for key in weights if key.endswith(name + suffix))
            getattr(gru, name).data.copy_(weights[found])
        directions.append(gru)
    with torch.no_grad():
        forwards = directions[0](x[None])[0][0]
        backwards = torch.zeros_like(forwards)
        for at in range(0, len(x), ahead["block"]):
            window = x[at : at + ahead["block"] + right].flip(0)
            out = directions[1](window[None])[0][0].flip(0)
            backwards[at : at + ahead["block"]] = out[: ahead["block"]]
        weight = next(weights[name] for name in weights if name.endswith("weight") and len(weights[name]) == 7)
        bias = next(weights[name] for name in weights if name.endswith("bias") and len(weights[name]) == 7)
        p = torch.softmax(torch.cat([forwards, backwards], 1) @ weight.T + bias, 1)
    by_label = torch.stack([p[:, 0], p[:, 1:4].sum(1), p[:, 4:7].sum(1)], 1)
    score, label = by_label.max(1)
    told = [step for line in open(args.labels) for step in json.loads(line)["labels"]]
    names = np.array(spec["labels"])
    other = int((names[label.numpy()] != np.array([step["label"] for step in told])).sum())
    off = float((score - torch.tensor([step["score"] for step in told])).abs().max())
    print(f"{len(told)} bases, {other} labels differ, probabilities by at most {off:.1e}")


if __name__ == "__main__":
    main()
