#!/usr/bin/env python3
"""Words per second of `strand tag` beside its own network alone and spaCy, by turns on the same text, all on one core.

usage: tag_peers.py TEXT [--strand target/release/strand] [--model models/ner-en] [--rounds 5] [--words 100000]
                         [--spacy-model en_core_web_sm]

TEXT is running text with a sentence or a paragraph a line; its first --words words (by white space) are used. Runs in a
Python that has spaCy and the model. Everything is pinned to one core. For Strand the whole process counts, its start
included; for spaCy only `nlp.pipe`, once everything is loaded. Peers: `strand tag --lines` (a line a stream) and without
(one stream), `strand bench tag` (the network alone, with features at hand), spaCy's `ner` with what it needs (`tok2vec`),
and the whole pipeline.
"""
import argparse
import importlib
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

BATCH = 128  # texts; spaCy's default is 1000, which is no faster here and not as fair in memory


def first_words(path, wanted):
    """The first lines with so many words, and how many there are."""
    lines, words = [], 0
    with open(path, encoding="utf-8", errors="replace") as text:
        for line in text:
            line = " ".join(line.split())
            if line:
                lines.append(line)
                words += line.count(" ") + 1
                if words >= wanted:
                    break
    return lines, words


def seconds(run):
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def spacy_peers(name, lines, words):
    spacy = importlib.import_module("spacy")
    try:
        load = importlib.import_module(name).load
    except ImportError:
        load = lambda **options: spacy.load(name, **options)
    whole = load()
    kept = {"tok2vec", "ner"}
    ner = load(exclude=[pipe for pipe in whole.pipe_names if pipe not in kept])

    def rate(nlp):
        return words / seconds(lambda: [None for _ in nlp.pipe(lines, batch_size=BATCH)])

    return {"spacy ner": lambda: rate(ner), "spacy whole": lambda: rate(whole)}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("text", type=pathlib.Path)
    arguments.add_argument("--strand", default="target/release/strand")
    arguments.add_argument("--model", default="models/ner-en")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--words", type=int, default=100_000)
    arguments.add_argument("--spacy-model", default="en_core_web_sm", help="package or name; `none` leaves spaCy out")
    given = arguments.parse_args()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"

    lines, words = first_words(given.text, given.words)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".txt") as text:
        text.write("\n".join(lines) + "\n")
        text.flush()

        def strand(*options, command=("tag",)):
            call = [given.strand, *command, "--model", given.model, text.name, *options]
            return subprocess.run(call, check=True, capture_output=True, text=True).stdout

        def tag(*options):
            return words / seconds(lambda: strand("--threads", "1", "--output", "jsonl", *options))

        def network(*options):
            """In words by white space too: the network's are tokens."""
            call = strand("--rounds", "1", *options, command=("bench", "tag"))
            _, _, _, tokens_per_s, *_, tokens = call.split()
            return float(tokens_per_s) * words / float(tokens)

        peers = {
            "strand lines": lambda: tag("--lines"),
            "network lines": lambda: network("--lines"),
            "strand lines int8": lambda: tag("--lines", "--precision", "int8"),
            "network lines int8": lambda: network("--lines", "--precision", "int8"),
            "strand stream": tag,
            "network stream": network,
        }
        if given.spacy_model != "none":
            peers |= spacy_peers(given.spacy_model, lines, words)
        rates = {peer: [] for peer in peers}
        for peer in peers.values():
            peer()  # to warm up
        for _ in range(given.rounds):
            for name, peer in peers.items():
                rates[name].append(peer())

    print(f"# {words} words, {len(lines)} lines, {given.rounds} rounds by turns, one core")
    # Of a network what `strand tag` reaches of it, of spaCy how much faster `strand tag --lines` is, in f32 and in int8.
    print("peer\twords_per_s\tmin\tmax\tstrand_over_it\tint8_over_it")
    for name, of_peer in rates.items():
        like = "strand " + name.split(maxsplit=1)[1] if name.startswith("network") else name
        like = like if like in rates else "strand lines"
        ratios = [
            statistics.median(ours / theirs for ours, theirs in zip(rates[peer], of_peer))
            for peer in (like, "strand lines int8")
        ]
        figures = [statistics.median(of_peer), min(of_peer), max(of_peer)]
        print(name, *(f"{figure:.0f}" for figure in figures), *(f"{ratio:.2f}" for ratio in ratios), sep="\t")


if __name__ == "__main__":
    main()
