#!/usr/bin/env python3
"""Measures Strand beside its peers, by turns, and writes the tables of docs/PERFORMANCE.md between their markers
(<!-- begin NAME --> … <!-- end NAME -->); the prose around them stays as it is.

usage: performance.py [--only engine,train,tag,start,scaling,pipeline] [--rounds 5] [--threads 1,2] [--quick]
                      [--python PYTHON] [--peers DIR] [--text FILE] [--brokers HOST:PORT]

`--peers DIR` has rnn_speed.py, train_speed.py and kafka_consumer.py, run by `--python` (which has torch, onnxruntime,
spaCy, …). `--text` is for `tag`, `--brokers` for `pipeline`: a section that lacks what it needs is left out, and says so.
Standard library only. Build first: cargo build --release --locked
"""
import argparse
import collections
import os
import pathlib
import re
import statistics
import subprocess
import sys

BENCHES = pathlib.Path(__file__).resolve().parent
F32_PEERS = ["torch", "ort"]
# What `strand bench pipeline --tsv` prints first.
PIPELINE = "transport delivery precision threads streams words commit_ms records_per_s words_per_s".split()
OF_ENGINE = 13


def output(*command):
    """What the command prints; its complaints go where ours do."""
    return subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout


def rows(text, least):
    """Tab-separated lines with so many columns at least, without headers."""
    split = (line.split("\t") for line in text.splitlines())
    return [row for row in split if len(row) >= least and not row[-1].startswith("max")]


def table(header, lines):
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [header, rule, *lines])


def thousands(rate):
    return f"{rate:,.0f}" if rate < 10_000 else f"{rate / 1000:,.0f} k"


def spread(ratios):
    """Median of ratios of one round each, with the least and the most."""
    ratios = [ratio for ratio in ratios if ratio]
    if not ratios:
        return "–"
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def machine():
    """The machine by its features."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    flags = set(re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.M).group(1).split())
    told = ["avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "i8mm"]
    caches = []
    for index in sorted(pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind = (index / "type").read_text().strip()
        if kind != "Instruction":
            caches.append(f"L{(index / 'level').read_text().strip()} {(index / 'size').read_text().strip()}")
    features = ", ".join(flag for flag in told if flag in flags)
    return f"Machine: {os.cpu_count()} cores with {features}; caches {', '.join(caches)} (of one core's view)."


class Engine:
    """`strand bench engine` beside rnn_speed.py."""

    name = "engine"

    def run(self, given):
        rates = collections.defaultdict(lambda: collections.defaultdict(list))
        roofline = {}
        quick = ["--quick"] if given.quick else []
        for _ in range(given.rounds):
            for threads in given.threads:
                texts = [
                    output(given.python, given.peers / "rnn_speed.py", *quick, "--threads", threads, "--models", given.models),
                    output(given.strand, "bench", "engine", "--tsv", "--threads", threads, "--models", given.models),
                ]
                for row in rows("\n".join(texts), 7):
                    model, work, peer, of_threads, rate = row[:5]
                    if model == "-":
                        continue
                    rates[model, work, int(of_threads)][peer].append(float(rate))
                    if len(row) >= 9:
                        roofline.setdefault((model, work, int(of_threads), peer), []).append((float(row[7]), row[8]))
        parts = []
        for threads in given.threads:
            header = ["model, workload", "torch", "ort", "ort int8", "f32", "bf16", "int8", "f32 ÷ faster of torch, ort"]
            header += ["bf16 ÷ ort int8", "int8 ÷ ort int8", "int8 ÷ f32", "f32, share of roofline"]
            lines = []
            for (model, work, of_threads), of in rates.items():
                if of_threads != threads:
                    continue
                faster = [max(both) for both in zip(*(of[peer] for peer in F32_PEERS))]
                ratio = lambda ours, theirs: spread([a / b for a, b in zip(ours, theirs) if b])
                peers = ["torch", "ort", "ort-int8", "strand", "strand-bf16", "strand-int8"]
                medians = [thousands(statistics.median(of[peer])) if of[peer] else "–" for peer in peers]
                share = roofline.get((model, work, threads, "strand"))
                share = f"{statistics.median(s for s, _ in share):.2f} {share[0][1]}" if share else "–"
                ratios = [ratio(of["strand"], faster), ratio(of["strand-bf16"], of["ort-int8"])]
                ratios += [ratio(of["strand-int8"], of["ort-int8"]), ratio(of["strand-int8"], of["strand"])]
                lines.append([f"{model} {work}", *medians, *ratios, share])
            parts.append(f"{threads} thread{'s' if threads > 1 else ''}, steps per second:\n\n{table(header, lines)}")
        return "\n\n".join(parts)


class Train:
    """`strand bench train` beside train_speed.py."""

    name = "train"

    def run(self, given):
        rates = collections.defaultdict(list)
        for _ in range(given.rounds):
            for threads in given.threads:
                texts = [
                    output(given.python, given.peers / "train_speed.py", threads),
                    output(given.strand, "bench", "train", "--threads", threads),
                ]
                for _, peer, of_threads, rate in rows("\n".join(texts), 4):
                    rates[int(of_threads), peer].append(float(rate.split()[0]))
        lines = []
        for threads in given.threads:
            ours, theirs = rates[threads, "strand"], rates[threads, "torch"]
            medians = [thousands(statistics.median(of)) for of in (theirs, ours)]
            lines.append([threads, *medians, spread([a / b for a, b in zip(ours, theirs)])])
        return table(["threads", "torch, words/s", "Strand, words/s", "ratio"], lines)


class Tag:
    """tag_peers.py."""

    name = "tag"

    def needs(self, given):
        return None if given.text else "--text FILE"

    def run(self, given):
        spacy = [] if given.spacy_model is None else ["--spacy-model", given.spacy_model]
        command = [given.python, BENCHES / "tag_peers.py", given.text, "--strand", given.strand, "--rounds", given.rounds]
        text = output(*command, *spacy)
        about = text.splitlines()[0].removeprefix("# ")
        lines = [[name, thousands(float(median)), thousands(float(least)), thousands(float(most)), ratio, int8]
                 for name, median, least, most, ratio, int8 in rows(text, 6) if name != "peer"]
        return f"{about}:\n\n" + table(["", "words/s", "least", "most", "`strand tag` ÷ it", "in int8 ÷ it"], lines)


class Start:
    """start.py."""

    name = "start"

    def run(self, given):
        text = output(sys.executable, BENCHES / "start.py", "--strand", given.strand, "--rounds", max(given.rounds, 5))
        times = collections.defaultdict(dict)
        for model, data, median, least, most in rows(text, 5):
            if model != "model":
                times[model][data] = f"{float(median):.0f} ({float(least):.0f}–{float(most):.0f})"
        lines = [[model, of.get("new", "–"), of.get("there", "–")] for model, of in times.items()]
        return table(["model", "new data directory, ms", "one that is there, ms"], lines)


class Scaling:
    """`strand bench scaling`, with its pictures."""

    name = "scaling"

    def run(self, given):
        images = given.docs.parent / "images"
        text = output(given.strand, "bench", "scaling", "--plot", images, *(["--quick"] if given.quick else []))
        lines, pictures = [], []
        for block in text.strip().split("\n\n"):
            header, *points = (line.split("\t") for line in block.splitlines())
            axis, unit = points[0][0], header[5].removeprefix("ns_per_")
            worst = max(points, key=lambda point: float(point[6]))
            least = min(points, key=lambda point: float(point[5]))
            cost = lambda point: f"{float(point[5]):,.0f} at {int(point[1]):,}"
            reach = f"{int(points[0][1]):,}–{int(points[-1][1]):,}"
            lines.append([f"{axis} ({header[1]})", reach, unit.replace("_", " "), cost(points[0]), cost(least), cost(points[-1]),
                          f"{float(worst[6]):.2f} at {int(worst[1]):,}"])
            pictures.append(f"![{axis}](images/scaling-{axis}.svg)")
        header = ["what grows", "from–to", "unit of work", "ns a unit, first", "least", "last", "most over linear"]
        return table(header, lines) + "\n\n" + "\n".join(pictures)


class Pipeline:
    """`strand bench pipeline` beside kafka_consumer.py on the same broker."""

    name = "pipeline"

    def needs(self, given):
        return None if given.brokers else "--brokers HOST:PORT"

    def run(self, given):
        lines = []
        for words, records in [(20, 20_000), (1, 100_000)]:
            for streams in (256, 10_000):
                for threads in given.threads:
                    theirs, ours = [], collections.defaultdict(list)
                    for _ in range(given.rounds):
                        peer = output(given.python, given.peers / "kafka_consumer.py", given.brokers, "--records", records,
                                      "--streams", streams, "--words", words, "--threads", threads)
                        theirs.append(float(peer.strip().split("\t")[-1].split()[0]))
                        text = output(given.strand, "bench", "pipeline", "--tsv", "--transports", "kafka", "--brokers",
                                      given.brokers, "--streams", streams, "--words", words, "--threads", threads,
                                      "--records", records, "--seconds", 0, "--precision", "f32,int8",
                                      "--delivery", "exactly-once,at-least-once")
                        for row in rows(text, len(PIPELINE)):
                            of = dict(zip(PIPELINE, row))
                            share = float(row[OF_ENGINE]) if len(row) > OF_ENGINE and row[OF_ENGINE] not in ("", "-") else None
                            ours[of["precision"], of["delivery"]].append((float(of["words_per_s"]), share))
                    for (precision, delivery), rates in ours.items():
                        of_engine = [share for _, share in rates if share]
                        lines.append([f"{words} words, {streams:,} streams, {threads} thread{'s'[:threads - 1]}, {precision}, {delivery}",
                                      thousands(statistics.median(theirs)), thousands(statistics.median(rate for rate, _ in rates)),
                                      spread([rate / peer for (rate, _), peer in zip(rates, theirs)]),
                                      f"{statistics.median(of_engine):.2f}" if of_engine else "–"])
        return table(["case", "Python + ort, words/s", "Strand, words/s", "ratio", "of the engine"], lines)


SECTIONS = [Engine(), Train(), Tag(), Start(), Scaling(), Pipeline()]


def write(docs, name, text):
    """Puts the text between the section's markers, at the end of the page if it has none yet."""
    page = docs.read_text(encoding="utf-8") if docs.exists() else "# Performance\n"
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    block = f"{begin}\n{text}\n{end}"
    if begin in page and end in page:
        before, rest = page.split(begin, 1)
        page = before + block + rest.split(end, 1)[1]
    else:
        page = f"{page.rstrip()}\n\n{block}\n"
    docs.write_text(page, encoding="utf-8")


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    arguments.add_argument("--only", help="sections, by commas [default: all]")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", default="1,2")
    arguments.add_argument("--models", default="S,M,L,Mgru", help="of the engine's section")
    arguments.add_argument("--quick", action="store_true", help="less time for each point")
    arguments.add_argument("--strand", default="target/release/strand")
    arguments.add_argument("--python", default=sys.executable, help="the peers' Python")
    arguments.add_argument("--peers", type=pathlib.Path, default=pathlib.Path("../shared/peers"))
    arguments.add_argument("--text", type=pathlib.Path)
    arguments.add_argument("--spacy-model")
    arguments.add_argument("--brokers")
    arguments.add_argument("--docs", type=pathlib.Path, default=pathlib.Path("docs/PERFORMANCE.md"))
    given = arguments.parse_args()
    given.threads = [int(threads) for threads in given.threads.split(",")]
    names = [section.name for section in SECTIONS]
    wanted = given.only.split(",") if given.only else names
    for name in wanted:
        if name not in names:
            arguments.error(f"--only {name}: there are {', '.join(names)}")
    write(given.docs, "machine", machine())
    for section in SECTIONS:
        if section.name not in wanted:
            continue
        needed = getattr(section, "needs", lambda _: None)(given)
        if needed:
            print(f"{section.name}: left out, it needs {needed}", file=sys.stderr)
            continue
        print(f"{section.name} …", file=sys.stderr, flush=True)
        write(given.docs, section.name, section.run(given))


if __name__ == "__main__":
    main()
