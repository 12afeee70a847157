#!/usr/bin/env python3
"""PyTorch twin of `strand train` for classifiers: the same recipe, the same network, the same way of training.

    python twin_classifier.py --recipe models/sentiment-en.toml --strand target/release/strand --cutter models/pos-en \
        --test runs/sentiment/test-rt.tsv.gz --test runs/sentiment/test-uci.tsv.gz

The network is that of `twin_tagger.py` up to the recurrent layers; their outputs are pooled (last, mean, max, attention)
and a linear head gives the classes. Text is cut into words by `strand tag` with any model whose tokenizer is the
recipe's. Batches are whole streams of about equal length, in their order shuffled by epoch. Ends with accuracy and
expected calibration error (15 bins) after temperature scaling on dev.
"""
import argparse, copy, json, math, random, subprocess, tempfile, time, tomllib

from twin_tagger import Columns, Corpus, Tagger, located, opened
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence


def read(path, names):
    """(label, text) of `label<TAB or space>text` lines; numbers count the names from 0."""
    out = []
    with opened(path) as f:
        for line in f:
            if line.strip():
                label, text = line.rstrip("\n").split("\t" if "\t" in line else " ", 1)
                out.append((names[int(label)] if label.isdigit() else label, text.strip()))
    return out


def cut(rows, strand, cutter):
    """(words, [label], weight) as twin_tagger's Corpus wants them."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as f:
        f.writelines(text + "\n" for _, text in rows)
        f.flush()
        args = [strand, "tag", "--model", cutter, f.name, "--lines", "--format", "text", "--output", "jsonl"]
        lines = subprocess.run(args, check=True, capture_output=True, text=True).stdout.splitlines()
    words = [[l["text"] for l in json.loads(line)["labels"]] for line in lines]
    assert len(words) == len(rows)
    return [(w, [label] * len(w), 1.0) for w, (label, _) in zip(words, rows) if w]


class Classifier(Tagger):
    def __init__(self, recipe, columns, labels):
        super().__init__(recipe, columns, labels)
        self.pooling = recipe["task"]["pooling"]
        bound = 1 / math.sqrt(self.head.in_features)
        self.query = nn.Parameter(torch.empty(self.head.in_features).uniform_(-bound, bound))

    def classify(self, x, segments, lengths):
        data = x[segments.data]
        for k, rnn in enumerate(self.rnn):
            out, _ = rnn(segments._replace(data=data))
            data = self.drop(out.data) if k + 1 < len(self.rnn) else out.data
        y, _ = pad_packed_sequence(segments._replace(data=data), batch_first=True)
        there = torch.arange(y.shape[1])[None] < lengths[:, None]
        if self.pooling == "last":
            p = y[torch.arange(len(y)), lengths - 1]
        elif self.pooling == "mean":
            p = (y * there[..., None]).sum(1) / lengths[:, None]
        elif self.pooling == "max":
            p = y.masked_fill(~there[..., None], -math.inf).max(1).values
        else:
            a = (y @ self.query).masked_fill(~there, -math.inf).softmax(1)
            p = (y * a[..., None]).sum(1)
        return self.head(self.drop(p))


def batch_logits(model, corpus, streams):
    steps = torch.cat([torch.arange(corpus.start[i], corpus.start[i] + corpus.length[i]) for i in streams])
    forms, inverse = corpus.form[steps].unique(return_inverse=True)
    spelled = model.chars([corpus.spelling[i] for i in forms])[inverse]
    x = model.input(corpus.ids[steps], corpus.dense[steps], spelled)
    lengths = torch.tensor([int(corpus.length[i]) for i in streams])
    ends = lengths.cumsum(0)
    packed = pack_sequence([torch.arange(e - n, e) for n, e in zip(lengths, ends)], enforce_sorted=False)
    return model.classify(x, packed, lengths)


def classes(corpus, streams):
    return torch.tensor([int(corpus.y[corpus.start[i]]) for i in streams])


@torch.no_grad()
def predict(model, corpus):
    model.eval()
    n = len(corpus.length)
    logits = torch.cat([batch_logits(model, corpus, range(k, min(k + 64, n))) for k in range(0, n, 64)])
    return logits, classes(corpus, range(n))


def accuracy(logits, gold):
    return (logits.argmax(-1) == gold).float().mean().item()


def calibration_error(logits, gold, temperature):
    p, best = (logits / temperature).softmax(-1).max(-1)
    bins = (p * 15).ceil().clamp(1, 15)
    return sum(((p - (best == gold).float())[bins == b].sum().abs() for b in range(1, 16)), torch.tensor(0.0)).item() / len(p)


def temperature(logits, gold):
    """The one of the lowest loss, of a fine grid."""
    grid = torch.logspace(math.log10(0.05), math.log10(20), 2000)
    losses = torch.stack([nn.functional.cross_entropy(logits / t, gold) for t in grid])
    return grid[losses.argmin()].item()


def train(recipe, model, corpus, dev):
    t = recipe["train"]
    rng = random.Random(t["seed"])
    opt = torch.optim.AdamW(model.parameters(), lr=t["lr"], weight_decay=t["weight_decay"])
    n, batch = len(corpus.length), t["batch"]
    group = 16 * batch
    # The last group and its last batch may be short.
    per_epoch = sum(math.ceil(min(group, n - k) / batch) for k in range(0, n, group))
    total, step, best, kept = t["epochs"] * per_epoch, 0, -1.0, None
    mean = copy.deepcopy(model)
    for epoch in range(t["epochs"]):
        model.train()
        order, batches, begin, losses = rng.sample(range(n), n), [], time.time(), 0.0
        for k in range(0, n, group):
            part = sorted(order[k : k + group], key=lambda i: -corpus.length[i])
            batches += [part[j : j + batch] for j in range(0, len(part), batch)]
        rng.shuffle(batches)
        for streams in batches:
            loss = nn.functional.cross_entropy(batch_logits(model, corpus, streams), classes(corpus, streams))
            done = (step - t["warmup"]) / max(1, total - t["warmup"])
            down = t["min_lr_ratio"] + (1 - t["min_lr_ratio"]) * 0.5 * (1 + math.cos(math.pi * done))
            opt.param_groups[0]["lr"] = t["lr"] * ((step + 1) / t["warmup"] if step < t["warmup"] else down)
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), t["clip_norm"])
            opt.step()
            step += 1
            losses += loss.item()
            with torch.no_grad():
                for p, q in zip(mean.parameters(), model.parameters()):
                    p.lerp_(q, 1 - min(t["ema"], step / (step + 10)))
        score = accuracy(*predict(mean, dev))
        print(f"epoch {epoch + 1:3d}  loss {losses / len(batches):.4f}  dev {score:.4f}  {time.time() - begin:.0f} s", flush=True)
        if score > best:
            best, kept = score, copy.deepcopy(mean.state_dict())
    mean.load_state_dict(kept)
    return mean


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--recipe", required=True)
    ap.add_argument("--data-root", default="data")
    ap.add_argument("--strand", default="target/release/strand")
    ap.add_argument("--cutter", default="models/pos-en")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--test", action="append", default=[])
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    with open(a.recipe, "rb") as f:
        recipe = tomllib.load(f)
    torch.manual_seed(recipe["train"]["seed"])
    labels = recipe["task"]["labels"]
    part = lambda paths: [r for p in paths for r in cut(read(located(p, a.data_root), labels), a.strand, a.cutter)]
    groups = [part(recipe["data"]["train"])]
    columns = Columns(recipe["encoder"], groups, a.data_root)
    model = Classifier(recipe, columns, labels)
    corpus, dev = Corpus(groups, columns, labels), Corpus([part(recipe["data"]["dev"])], columns, labels)
    print(f"{len(corpus.length)} streams, {sum(p.numel() for p in model.parameters())} parameters", flush=True)
    model = train(recipe, model, corpus, dev)
    heat = temperature(*predict(model, dev))
    for path in [None, *a.test]:
        logits, gold = predict(model, dev if path is None else Corpus([cut(read(path, labels), a.strand, a.cutter)], columns, labels))
        print(f"{path or 'dev'}  accuracy {accuracy(logits, gold):.4f}  calibration error {calibration_error(logits, gold, heat):.4f}"
              f"  (temperature {heat:.4f}, without {calibration_error(logits, gold, 1.0):.4f})", flush=True)


if __name__ == "__main__":
    main()
