#!/usr/bin/env python3
"""Prodigal's genes (pyrodigal, pip install pyrodigal), scored as `strand eval GENOME --intervals …` scores a model's.

    pyrodigal_genes.py --genome g.fna.gz --intervals g.cds.tsv.gz [--meta] [--range 3900000 4641652] [--code 11]

Single mode, unless --meta: the genome is seen whole, and Prodigal trains on it first. With --range the genes are those that
it finds in that part alone (after training on it). Per base: the strand that codes there, or none; where genes overlap, the
one that starts first keeps the base. Per gene: the same 3' end and strand; exactly: both ends. Prints time and peak memory.
"""

import argparse
import gzip
import json
import resource
import time

import numpy as np
import pyrodigal


def opened(path):
    return gzip.open(path, "rt") if path.endswith(".gz") else open(path)


def paint(genes, length):
    labels, free_from = np.zeros(length, np.int8), 0
    for start, end, strand in sorted(genes, key=lambda gene: (gene[0], -gene[1])):
        labels[max(start, free_from) : max(min(end, length), 0)] = 1 if strand == "+" else 2
        free_from = max(free_from, end)
    return labels


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--genome", required=True)
    parser.add_argument("--intervals", required=True)
    parser.add_argument("--range", nargs=2, type=int, metavar=("START", "END"))
    parser.add_argument("--code", type=int, default=11)
    parser.add_argument("--meta", action="store_true")
    args = parser.parse_args()

    records = {}
    with opened(args.genome) as file:
        for line in file:
            if line.startswith(">"):
                parts = records.setdefault(line[1:].split()[0], [])
            else:
                parts.append(line.strip())
    gold = {}
    with opened(args.intervals) as file:
        for line in file:
            fields = line.rstrip("\n").split("\t")
            if len(fields) >= 4 and fields[1].isdigit():
                gold.setdefault(fields[0], []).append((int(fields[1]) - 1, int(fields[2]), fields[3]))
    begun = time.time()
    counts = dict.fromkeys(["bases", "right", "gold", "called", "found", "exact"], 0)
    part = slice(*args.range) if args.range else slice(None)
    wholes = {name: "".join(parts) for name, parts in records.items()}
    finder = pyrodigal.GeneFinder(meta=args.meta)
    if not args.meta:
        finder.train(*(whole[part].encode() for whole in wholes.values()), translation_table=args.code)
    for name, whole in wholes.items():
        begin, end = args.range or (0, len(whole))
        bases = whole[begin:end].encode()
        called = [(g.begin - 1, g.end, "+" if g.strand == 1 else "-") for g in finder.find_genes(bases)]
        annotated = gold.get(name, [])
        counts["bases"] += len(bases)
        counts["right"] += int((paint(annotated, len(whole))[begin:end] == paint(called, len(bases))).sum())
        three_prime = lambda gene: gene[1] - 1 if gene[2] == "+" else gene[0]
        places = {}
        for gene in annotated:
            if begin <= three_prime(gene) < end and gene[1] <= len(whole):
                places.setdefault((three_prime(gene), gene[2]), set()).add(gene[:2])
        counts["gold"] += len(places)
        for start, stop, strand in called:
            gene = (start + begin, stop + begin, strand)
            cut = (strand == "+" and gene[1] == end < len(whole)) or (strand == "-" and gene[0] == begin > 0)
            found = places.get((three_prime(gene), strand))
            if not cut or found:
                counts["called"] += 1
                counts["found"] += bool(found)
                counts["exact"] += gene[:2] in (found or ())
    print(json.dumps({
        "pyrodigal": pyrodigal.__version__,
        "bases": counts["bases"],
        "accuracy": counts["right"] / counts["bases"],
        "gene_precision": counts["found"] / counts["called"],
        "gene_recall": counts["found"] / counts["gold"],
        "gene_exact_precision": counts["exact"] / counts["called"],
        "gene_exact_recall": counts["exact"] / counts["gold"],
        "seconds": round(time.time() - begun, 2),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }))


if __name__ == "__main__":
    main()
