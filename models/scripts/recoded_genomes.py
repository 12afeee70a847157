#!/usr/bin/env python3
"""Genomes with other codon usage and other GC, made from an annotated one: so that a gene finder does not learn one
species' habits.

The genome is cut into segments; each gets a GC content of its own. Genes keep where they lie and in what frame, and stay
free of stop codons within: each codon is drawn anew among those of the same amino acid, and now and then of a similar one,
with weights that favour G and C, or A and T, at each codon position as genomes of that GC do (Muto and Osawa, PNAS 84,
1987: the third position moves most, the second least), times a usage that is random for the segment. Start and stop codons
are drawn anew. Between genes bases are drawn towards the GC; the 20 bases before a start (ribosome binding site) and bases
of two genes stay as they are.

    recoded_genomes.py --genome g.fna.gz --intervals g.cds.tsv.gz --range 0 3600000 --copies 2 --out runs/dna/train

writes OUT.fna.gz and OUT.cds.tsv.gz, one record a copy, the same bytes for the same --seed. Needs numpy.
"""

import argparse
import gzip
import math
import sys

import numpy as np

CODONS = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT"]
AMINO = "KNKNTTTTRSRSIIMIQHQHPPPPRRRRLLLLEDEDAAAAGGGGVVVV*Y*YSSSS*CWCLFLF"
# Amino acids that often stand for one another.
ALIKE = ["ILVMF", "KRQ", "DENQ", "STAG", "FWY", "AGP", "HNQ", "CSA"]
STOPS = [k for k, amino in enumerate(AMINO) if amino == "*"]
STARTS = [CODONS.index(codon) for codon in ("ATG", "GTG", "TTG")]
IS_GC = np.array([[base in "GC" for base in codon] for codon in CODONS], float)


def read(genome, intervals):
    opened = lambda path: gzip.open(path, "rt") if path.endswith(".gz") else open(path)
    name, parts = None, []
    with opened(genome) as file:
        for line in file:
            if line.startswith(">"):
                if name is not None:
                    break
                name = line[1:].split()[0]
            else:
                parts.append(line.strip().upper())
    genes = []
    with opened(intervals) as file:
        for line in file:
            fields = line.rstrip("\n").split("\t")
            if fields[0] == name:
                genes.append((int(fields[1]) - 1, int(fields[2]), fields[3]))
    table = np.full(256, 0, np.int8)
    for number, base in enumerate(b"ACGT"):
        table[base] = number
    if not genes:
        sys.exit(f"{intervals}: no interval of {name}")
    return table[np.frombuffer("".join(parts).encode(), np.uint8)], sorted(genes)


def position_gc(gc):
    """GC at the three codon positions and between genes of genomes of this GC."""
    points = [0.25, 0.50, 0.72]
    positions = [[0.36, 0.58, 0.72], [0.27, 0.41, 0.51], [0.10, 0.54, 0.93], [0.19, 0.45, 0.68]]
    return [float(np.interp(gc, points, values)) for values in positions]


def logit(p):
    return math.log(p / (1 - p))


def similarity(share):
    """[codon, codon]: how readily the first is replaced by the second, before usage."""
    s = np.zeros((64, 64))
    for a in range(64):
        alike = set("".join(group for group in ALIKE if AMINO[a] in group)) - {AMINO[a]}
        same = [b for b in range(64) if AMINO[b] == AMINO[a]]
        other = [b for b in range(64) if AMINO[b] in alike]
        s[a, same] = 1 / len(same)
        if other:
            s[a, other] = share / len(other)
    return s


def recode(bases, genes, rng, low, high):
    """A copy of the genome with its segments recoded."""
    new, length = bases.copy(), len(bases)
    covered = np.zeros(length, np.int8)
    before_start = np.zeros(length, bool)
    for start, end, strand in genes:
        covered[start:end] += 1
        near = slice(max(start - 20, 0), start) if strand == "+" else slice(end, end + 20)
        before_start[near] = True
    at, next_gene = 0, 0
    while at < length:
        end = min(at + int(rng.integers(8_000, 30_000)), length)
        first, second, third, between = position_gc(rng.uniform(low, high))
        theta = [2.0 * (logit(first) - logit(0.58)), 2.2 * (logit(second) - logit(0.41)), 1.2 * (logit(third) - logit(0.54))]
        usage = np.exp(IS_GC @ theta + rng.normal(0, 0.5, 64))
        weights = similarity(float(rng.uniform(0.1, 0.5))) * usage
        weights /= weights.sum(1, keepdims=True)
        cumulative = weights.cumsum(1)
        stop = np.array([usage[k] for k in STOPS])
        start_codons = np.array([8.0, 1.0 + 3 * max(theta[2], 0), 0.5]) * 1.0

        free = np.arange(at, end)
        free = free[(covered[at:end] == 0) & ~before_start[at:end]]
        drawn = np.where(rng.random(len(free)) < between, rng.integers(1, 3, len(free)), 3 * rng.integers(0, 2, len(free)))
        keep = rng.random(len(free)) < 0.25
        new[free] = np.where(keep, bases[free], drawn)

        while next_gene < len(genes) and genes[next_gene][0] < end:
            gene_start, gene_end, strand = genes[next_gene]
            next_gene += 1
            if (gene_end - gene_start) % 3 or gene_end > length:
                continue
            span = np.arange(gene_start, gene_end)
            single = covered[span] == 1
            gene = bases[span]
            if strand == "-":
                span, single, gene = span[::-1], single[::-1], 3 - gene[::-1]
            gene, single = gene.reshape(-1, 3), single.reshape(-1, 3).all(1)
            codon = gene[:, 0] * 16 + gene[:, 1] * 4 + gene[:, 2]
            codon = codon.astype(int)
            redrawn = (rng.random(len(codon))[:, None] > cumulative[codon]).sum(1).clip(0, 63)
            redrawn[0] = STARTS[rng.choice(3, p=start_codons / start_codons.sum())]
            redrawn[-1] = STOPS[rng.choice(3, p=stop / stop.sum())]
            inner_stop = np.isin(codon, STOPS)
            inner_stop[-1] = codon[-1] not in STOPS
            codon = np.where(single & ~inner_stop, redrawn, codon)
            gene = np.stack([codon // 16, codon // 4 % 4, codon % 4], 1).reshape(-1)
            new[span] = gene if strand == "+" else 3 - gene
        at = end
    return new


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--genome", required=True)
    parser.add_argument("--intervals", required=True)
    parser.add_argument("--range", nargs=2, type=int, required=True, metavar=("START", "END"))
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--gc", nargs=2, type=float, default=(0.27, 0.72), metavar=("LOW", "HIGH"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    bases, genes = read(args.genome, args.intervals)
    begin, end = args.range
    bases = bases[begin:end]
    genes = [(s - begin, e - begin, strand) for s, e, strand in genes if s >= begin and e <= end]
    rng = np.random.default_rng(args.seed)
    letters = np.frombuffer(b"ACGT", np.uint8)
    raw = lambda path: gzip.GzipFile(path, "wb", mtime=0)
    with raw(args.out + ".fna.gz") as fasta, raw(args.out + ".cds.tsv.gz") as table:
        for copy in range(args.copies):
            name = f"recoded{copy}"
            text = letters[recode(bases, genes, rng, *args.gc)].tobytes()
            fasta.write(f">{name}\n".encode())
            for at in range(0, len(text), 80):
                fasta.write(text[at : at + 80] + b"\n")
            for start, stop, strand in genes:
                table.write(f"{name}\t{start + 1}\t{stop}\t{strand}\trecoded\n".encode())


if __name__ == "__main__":
    main()
