#!/usr/bin/env python3
"""Baseline for genes: hexamer usage of a training genome, with a gene decoder of its own.

A codon that follows another scores log p(codon | codon before it, coding) - log p(the same, not coding), learnt from the
training part (`dna_baselines.py`). Every open reading frame, from each start codon (ATG, GTG, TTG) to the stop, scores the
sum of its codons; its best start is kept, and of all frames above a threshold those that together score most, with up to 60
bases shared. The threshold is chosen on the dev part by the mean of gene precision and recall.

    hexamer_genes.py --train-genome k12.fna.gz --train-intervals k12.cds.tsv.gz --genome g.fna.gz --intervals g.cds.tsv.gz
"""

import argparse
import bisect
import json

import numpy as np
from dna_baselines import Scores, read_genome, read_labels, triplets
from pyrodigal_genes import opened, paint


def intervals_of(path, accession):
    with opened(path) as file:
        fields = [line.rstrip("\n").split("\t") for line in file]
    return [(int(f[1]) - 1, int(f[2]), f[3]) for f in fields if f[0] == accession and f[1].isdigit()]


def frames(scores, bases):
    """The best-scoring start of every open reading frame: (start, end, strand, score)."""
    scores.triplet = triplets(bases)
    scores.previous = np.full(len(bases), -1, np.int16)
    scores.previous[3:] = scores.triplet[:-3]
    forward, reverse, stop, reverse_stop = scores.per_base("hexamer")
    number = lambda codon: sum("ACGT".index(base) * 4 ** (2 - k) for k, base in enumerate(codon))
    starts = np.isin(scores.triplet, [number(codon) for codon in ("ATG", "GTG", "TTG")])
    reverse_starts = np.isin(scores.triplet, [number(codon) for codon in ("CAT", "CAC", "CAA")])
    found = []
    for phase in range(3):
        ends = np.arange(phase, len(bases), 3)  # Last bases of the phase's codons.
        for strand, score, stops, begins in (("+", forward, stop, starts), ("-", reverse, reverse_stop, reverse_starts)):
            total = np.cumsum(np.where(stops[ends], 0.0, score[ends]))
            at = np.flatnonzero(stops[ends])
            begin = np.flatnonzero(begins[ends])
            for a, b in zip(at[:-1], at[1:]):
                inner = begin[bisect.bisect_right(begin, a) : bisect.bisect_left(begin, b)]
                if not len(inner):
                    continue
                if strand == "+":  # From the start, whichever leaves most, to the stop at b.
                    gain = total[b] - total[np.maximum(inner - 1, 0)]
                    k = int(gain.argmax())
                    gene = (int(ends[inner[k]]) - 2, int(ends[b]) + 1, "+", float(gain[k]))
                else:  # From the stop at a to the start.
                    gain = total[inner] - total[a]
                    k = int(gain.argmax())
                    gene = (int(ends[a]) - 2, int(ends[inner[k]]) + 1, "-", float(gain[k]))
                if gene[1] - gene[0] >= 90 and gene[3] > 0:
                    found.append(gene)
    return sorted(found, key=lambda gene: gene[1])


def chosen(found, threshold, overlap=60):
    found = [gene for gene in found if gene[3] > threshold]
    ends = [gene[1] for gene in found]
    best, take = [0.0], []
    for k, (start, end, _, score) in enumerate(found):
        before = min(bisect.bisect_right(ends, start + overlap), k)
        take.append((best[before] + score > best[-1], before))
        best.append(max(best[-1], best[before] + score))
    genes, k = [], len(found)
    while k > 0:
        if take[k - 1][0]:
            genes.append(found[k - 1][:3])
            k = take[k - 1][1]
        else:
            k -= 1
    return genes[::-1]


def figures(called, gold, begin, end, length):
    three_prime = lambda gene: gene[1] - 1 if gene[2] == "+" else gene[0]
    places = {}
    for gene in gold:
        if begin <= three_prime(gene) < end:
            places.setdefault((three_prime(gene), gene[2]), set()).add(gene[:2])
    called_here = [gene for gene in called if begin <= three_prime(gene) < end]
    found = sum((three_prime(gene), gene[2]) in places for gene in called_here)
    exact = sum(gene[:2] in places.get((three_prime(gene), gene[2]), ()) for gene in called_here)
    right = (paint(gold, length)[begin:end] == paint(called, length)[begin:end]).mean()
    return {
        "accuracy": float(right),
        "gene_precision": found / max(len(called_here), 1),
        "gene_recall": found / len(places),
        "gene_exact_precision": exact / max(len(called_here), 1),
        "gene_exact_recall": exact / len(places),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--train-genome", required=True)
    parser.add_argument("--train-intervals", required=True)
    parser.add_argument("--train", nargs=2, type=int, default=(0, 3_600_000))
    parser.add_argument("--dev", nargs=2, type=int, default=(3_600_000, 3_900_000))
    parser.add_argument("--genome", required=True)
    parser.add_argument("--intervals", required=True)
    parser.add_argument("--range", nargs=2, type=int)
    parser.add_argument("--code", type=int, default=11)
    args = parser.parse_args()
    accession, bases = read_genome(args.train_genome)
    label, position = read_labels(args.train_intervals, accession, len(bases))
    scores = Scores(bases, label, position, *args.train, args.code)
    found, gold = frames(scores, bases), intervals_of(args.train_intervals, accession)
    both = lambda f: f["gene_precision"] + f["gene_recall"]
    threshold = max(range(0, 120, 4), key=lambda t: both(figures(chosen(found, t), gold, *args.dev, len(bases))))
    accession, bases = read_genome(args.genome)
    found, gold = frames(scores, bases), intervals_of(args.intervals, accession)
    begin, end = args.range or (0, len(bases))
    print(json.dumps({"threshold": threshold} | figures(chosen(found, threshold), gold, begin, end, len(bases))))


if __name__ == "__main__":
    main()
