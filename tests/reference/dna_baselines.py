#!/usr/bin/env python3
"""Strictly online baselines for per-base coding prediction (forward, reverse, none).

Reference figures for strand's `dna-coding` model. Every base of a genome gets one of three labels: F (coding on the
forward strand), R (coding on the reverse strand), N (neither). The label of base t is predicted from bases <= t only.

Three baselines:

majority      the label that is most frequent in the training part, everywhere.
codon-usage   In each of the three phases (t modulo 3), and on each strand, a codon that ends at t scores
              log p(codon | coding on that strand, in frame) - log p(triplet | background). A window's score is the sum
              over the last W bases' codons of that phase; six scores (3 phases x 2 strands).
hexamer       the same with pairs of codons: log p(second codon | first codon, coding) - log p(second triplet |
              first triplet, background), conditional, interpolated with the codon frequencies.

A stop codon in a window's frame may reset its score (an open reading frame cannot contain one); without that it counts
as a codon, a very unlikely one in a gene. The label is N when the best of the six scores is below a threshold, or else
the strand of the best. The background is all triplets of the training part, at any phase, in bases that are not
coding. W, the threshold, and whether stop codons reset are chosen on the dev part, per baseline. Where intervals
overlap, the interval that starts first (at the lower coordinate) keeps the bases.

    dna_baselines.py --genome g.fna.gz --intervals g.cds.tsv.gz --train 0 3600000 --dev 3600000 3900000 \
        --test 3900000 4641652

Only the first record of the FASTA file is read, and the intervals of its accession. Ranges are 0-based and half-open.
Intervals are lines `accession<TAB>start<TAB>end<TAB>strand[<TAB>note]`, 1-based and inclusive. Only numpy is needed.
"""

import argparse
import gzip
import json
import sys

import numpy as np

LABELS = "NFR"
STOPS = {11: ("TAA", "TAG", "TGA"), 4: ("TAA", "TAG")}


def open_text(path):
    return gzip.open(path, "rt") if path.endswith(".gz") else open(path, encoding="utf-8")


def read_genome(path):
    """The accession and the bases of a FASTA file's first record; A C G T = 0..3, anything else 4."""
    parts, accession = [], None
    with open_text(path) as file:
        for line in file:
            if line.startswith(">"):
                if accession is not None:
                    break
                accession = line[1:].split()[0]
            else:
                parts.append(line.strip().upper())
    table = np.full(256, 4, np.int8)
    for number, base in enumerate(b"ACGT"):
        table[base] = number
    return accession, table[np.frombuffer("".join(parts).encode("ascii"), np.uint8)]


def read_labels(path, accession, length):
    """Label (0 N, 1 F, 2 R) and codon position (0..2, along the coding strand) of each base."""
    intervals = []
    with open_text(path) as file:
        for line in file:
            if line.strip() and not line.startswith("#"):
                fields = line.rstrip("\n").split("\t")
                if fields[0] == accession:
                    intervals.append((int(fields[1]) - 1, int(fields[2]), fields[3]))
    if not intervals:
        sys.exit(f"{path}: no interval of {accession}")
    label = np.zeros(length, np.int8)
    position = np.zeros(length, np.int8)
    for start, end, strand in sorted(intervals, key=lambda i: (i[0], -i[1])):
        at = np.arange(start, min(end, length))
        at = at[label[at] == 0]
        label[at] = 1 if strand == "+" else 2
        position[at] = ((at - start) if strand == "+" else (end - 1 - at)) % 3
    return label, position


def triplets(bases):
    """Number 0..63 of the three bases that end at t; -1 where they are incomplete or ambiguous."""
    number = np.full(len(bases), -1, np.int16)
    a, b, c = (bases[i : len(bases) - 2 + i].astype(np.int16) for i in range(3))
    known = (a < 4) & (b < 4) & (c < 4)
    number[2:] = np.where(known, a * 16 + b * 4 + c, -1)
    return number


def reverse_complement_table():
    n = np.arange(64)
    return (3 - n % 4) * 16 + (3 - n // 4 % 4) * 4 + (3 - n // 16)


def normalise(counts, prior):
    counts = counts + prior
    return counts / counts.sum(-1, keepdims=True)


class Scores:
    """Log-odds per base of a codon (pair) that ends there, for both strands, learnt from the training part."""

    def __init__(self, bases, label, position, begin, end, code):
        self.reverse = reverse_complement_table()
        triplet = triplets(bases)
        previous = np.full(len(bases), -1, np.int16)
        previous[3:] = triplet[:-3]
        here = np.zeros(len(bases), bool)
        here[begin + 6 : end] = True
        here &= (triplet >= 0) & (previous >= 0)
        # A forward codon ends at t when its codon position is 2; a reverse codon (read to the left) ends at t, as the
        # genome is read, with its first base: position 0. The codon before t's is the genome's codon before, for both.
        forward = here & (label == 1) & (position == 2)
        backward = here & (label == 2) & (position == 0)
        none = here & (label == 0)
        pairs = np.zeros((64, 64))
        np.add.at(pairs, (previous[forward], triplet[forward]), 1)
        mirrored = np.zeros((64, 64))
        np.add.at(mirrored, (previous[backward], triplet[backward]), 1)
        # Both strands' genes teach one codon table; the pair (p, t) as the genome is read is the pair
        # (rc t, rc p) along a reverse gene.
        along = pairs + mirrored[np.ix_(self.reverse, self.reverse)].T
        background = np.zeros((64, 64))
        np.add.at(background, (previous[none], triplet[none]), 1)
        background = background + background[np.ix_(self.reverse, self.reverse)].T
        codon, noise = normalise(along.sum(0), 1.0), normalise(background.sum(0), 1.0)
        self.codon = np.log(codon) - np.log(noise)
        # Conditional probabilities, with `strength` pseudo-counts spread as the single codons.
        strength = 64.0
        ahead = normalise(along, strength * codon), normalise(background, strength * noise)
        back = normalise(along.T, strength * normalise(along.sum(1), 1.0)), normalise(background.T, strength * noise)
        self.pair = np.log(ahead[0]) - np.log(ahead[1])  # [first, second], forward genes
        # A reverse gene, read rightwards along the genome, shows its later codon first.
        self.pair_back = np.log(back[0]) - np.log(back[1])  # [later codon, earlier codon]
        self.stops = np.zeros(64, bool)
        for stop in STOPS[code]:
            self.stops["ACGT".index(stop[0]) * 16 + "ACGT".index(stop[1]) * 4 + "ACGT".index(stop[2])] = True
        self.triplet, self.previous = triplet, previous

    def per_base(self, kind):
        """(forward, reverse) log-odds of what ends at each base, and whether a stop codon ends there."""
        t, p = self.triplet, self.previous
        known, both = t >= 0, (t >= 0) & (p >= 0)
        reverse = self.reverse[t]
        forward_score = np.where(known, self.codon[t], 0.0)
        reverse_score = np.where(known, self.codon[reverse], 0.0)
        if kind == "hexamer":
            forward_score = np.where(both, self.pair[p, t], forward_score)
            reverse_score = np.where(both, self.pair_back[self.reverse[p], reverse], reverse_score)
        return forward_score, reverse_score, known & self.stops[t], known & self.stops[reverse]


def windowed(score, stop, window, resets):
    """For each base, the sum of the scores at t, t-3, t-6, ... within the last `window` bases, not past a stop codon.

    A reading frame is a row of bases three apart, so the three phases are worked out side by side.
    """
    codons = max(window // 3, 1)
    length = -(-len(score) // 3)
    padded = np.zeros(length * 3)
    # A stop codon's own log-odds (very low) would outlast the reset; after a reset nothing before it counts.
    padded[: len(score)] = np.where(stop, 0.0, score) if resets else score
    stops = np.zeros(length * 3, bool)
    stops[: len(score)] = stop
    rows, marks = padded.reshape(-1, 3), stops.reshape(-1, 3)
    total = np.concatenate([np.zeros((1, 3)), np.cumsum(rows, 0)])
    number = np.arange(length)[:, None]
    start = np.maximum(number - codons + 1, 0) + np.zeros((1, 3), int)
    if resets:
        start = np.maximum(start, np.maximum.accumulate(np.where(marks, number, 0), 0))
    sums = total[1:] - np.take_along_axis(total, start, 0)
    return sums.reshape(-1)[: len(score)]


def best_of_phases(sums):
    """The best of the three phases' newest sums: of those that end at t, t-1 and t-2."""
    padded = np.concatenate([np.full(2, -np.inf), sums])
    return np.maximum(np.maximum(padded[2:], padded[1:-1]), padded[:-2])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--genome", required=True)
    parser.add_argument("--intervals", required=True)
    parser.add_argument("--train", nargs=2, type=int, default=(0, 3600000), metavar=("START", "END"))
    parser.add_argument("--dev", nargs=2, type=int, default=(3600000, 3900000), metavar=("START", "END"))
    parser.add_argument("--test", nargs=2, type=int, required=True, metavar=("START", "END"))
    parser.add_argument("--code", type=int, default=11, choices=sorted(STOPS), help="genetic code (stop codons)")
    parser.add_argument("--windows", nargs="+", type=int, default=[48, 72, 96, 120, 150, 180, 240, 300, 400, 600])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    args = parser.parse_args()

    accession, bases = read_genome(args.genome)
    label, position = read_labels(args.intervals, accession, len(bases))
    for name in ("train", "dev", "test"):
        begin, end = getattr(args, name)
        if not 0 <= begin < end <= len(bases):
            sys.exit(f"--{name} {begin} {end}: not a range within the genome's {len(bases)} bases")
    scores = Scores(bases, label, position, *args.train, args.code)
    dev, test = slice(*args.dev), slice(*args.test)

    majority = np.bincount(label[slice(*args.train)], minlength=3).argmax()
    report = {"majority": {"label": LABELS[majority], "test": float((label[test] == majority).mean())}}
    for kind in ("codon-usage", "hexamer"):
        forward, reverse, forward_stop, reverse_stop = scores.per_base(kind)
        best = None
        for resets in (False, True):
            for window in args.windows:
                f = best_of_phases(windowed(forward, forward_stop, window, resets))
                r = best_of_phases(windowed(reverse, reverse_stop, window, resets))
                top, strand = np.maximum(f, r), np.where(f >= r, 1, 2)
                # The threshold below which the label is N: every one of 200 quantiles is tried on dev.
                for threshold in np.quantile(top[dev], np.linspace(0, 0.5, 201)):
                    accuracy = (np.where(top[dev] < threshold, 0, strand[dev]) == label[dev]).mean()
                    if best is None or accuracy > best[0]:
                        guess = np.where(top[test] < threshold, 0, strand[test])
                        best = (accuracy, window, float(threshold), resets, guess)
        accuracy, window, threshold, resets, guess = best
        truth = label[test]
        classes = {
            LABELS[c]: {
                "precision": float((truth[guess == c] == c).mean()) if (guess == c).any() else 0.0,
                "recall": float((guess[truth == c] == c).mean()) if (truth == c).any() else 0.0,
            }
            for c in range(3)
        }
        report[kind] = {
            "window": window,
            "threshold": threshold,
            "stop_resets": resets,
            "dev": float(accuracy),
            "test": float((guess == truth).mean()),
            "classes": classes,
        }

    if args.json:
        print(json.dumps(report, indent=2))
        return
    print(f"majority     always {report['majority']['label']}: test accuracy {100 * report['majority']['test']:.2f}")
    for kind in ("codon-usage", "hexamer"):
        r = report[kind]
        each = ", ".join(f"{c} {100 * v['precision']:.1f}/{100 * v['recall']:.1f}" for c, v in r["classes"].items())
        print(
            f"{kind:12} window {r['window']}, threshold {r['threshold']:.2f}, stop codons "
            f"{'reset' if r['stop_resets'] else 'do not reset'}: dev {100 * r['dev']:.2f}, test accuracy "
            f"{100 * r['test']:.2f} (precision/recall {each})"
        )


if __name__ == "__main__":
    main()
