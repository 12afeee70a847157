#!/usr/bin/env python3
"""PyTorch twin of `strand train` for language models: the same recipe, the same network, the same way of training.

    python twin_language.py --recipe models/charlm-shakespeare.toml --data-root data --threads 1 \
        --test tinyshakespeare/input.txt.gz:1003854..1115394
    python twin_language.py --recipe models/service-log.toml --test ./runs/service-log/test.jsonl

Units are characters (format "text") or events (format "jsonl" with tokens). Embedding -> recurrent layers (dropout between
them and before the head) -> softmax over the units, full or torch.nn.AdaptiveLogSoftmaxWithLoss with a head bias. A stream's
first unit is told from a vector that is learnt. Training goes along the streams laid end to end in shuffled blocks, turned
by a random amount, cut into `batch` runs side by side whose state is carried from chunk to chunk and is zero where a stream
begins. Ends with nats and bits a unit of dev and of each --test, each stream read from its start in one pass; where
the test file has labels, with precision and recall at the threshold of dev's quantile, and the area under the ROC.
"""
import argparse, collections, copy, gzip, json, math, os, random, time, tomllib

for v in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(v, "1")
import torch
from torch import nn

CELLS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def located(path, root):
    return path if path.startswith(("./", "/")) else os.path.join(root, path)


def opened(path):
    return gzip.open(path, "rt", encoding="utf-8", newline="") if path.endswith(".gz") else open(path, encoding="utf-8", newline="")


def streams_of(spec, recipe, root):
    """Streams as (units, labels or None)."""
    spec = {"path": spec} if isinstance(spec, str) else spec
    with opened(located(spec["path"], root)) as f:
        if recipe["data"]["format"] == "jsonl":
            rows = [json.loads(line) for line in f if line.strip()]
            return [(row["tokens"], row.get("labels")) for row in rows]
        text = f.read()
    a, b = spec.get("range", [0, len(text)])
    return [(list(text[a:b]), None)]


class Net(nn.Module):
    def __init__(self, recipe, units):
        super().__init__()
        dim, task = recipe["encoder"]["dim"], recipe["task"]
        self.embed = nn.Embedding(units, dim)
        nn.init.normal_(self.embed.weight, 0, 0.1)
        self.rnn, width = nn.ModuleList(), dim
        for layer in recipe["layers"]:
            self.rnn.append(CELLS[layer["cell"]](width, layer["hidden"]))
            width = layer["hidden"]
        self.start = nn.Parameter(torch.zeros(width))
        if task.get("softmax") == "adaptive":
            self.soft = nn.AdaptiveLogSoftmaxWithLoss(width, units, task["cutoffs"], task.get("div_value", 4.0), head_bias=True)
        else:
            self.soft = None
            self.head = nn.Linear(width, units)
        t = recipe["train"]
        self.drop_in, self.drop = nn.Dropout(t["dropout_input"]), nn.Dropout(t["dropout_layers"])

    def zero(self, batch):
        shape = lambda r: torch.zeros(1, batch, r.hidden_size)
        return [(shape(r), shape(r)) if isinstance(r, nn.LSTM) else shape(r) for r in self.rnn]

    def forward(self, ids, states, reset):
        """ids [T, B] -> outputs [T, B, width]; states are set to zero before the steps of `reset` [T, B]."""
        cuts = [0] + [t for t in range(1, len(ids)) if reset[t].any()] + [len(ids)]
        x, states, parts = self.drop_in(self.embed(ids)), list(states), []
        for a, b in zip(cuts, cuts[1:]):
            if reset[a].any():
                keep = (~reset[a]).float()[None, :, None]
                states = [tuple(s * keep for s in st) if isinstance(st, tuple) else st * keep for st in states]
            y = x[a:b]
            for k, rnn in enumerate(self.rnn):
                y, states[k] = rnn(y, states[k])
                y = self.drop(y)
            parts.append(y)
        return torch.cat(parts), states

    def nats(self, rows, units):
        """-ln P of each unit after the output in its row."""
        if self.soft is not None:
            return -self.soft(rows, units).output
        return nn.functional.cross_entropy(self.head(rows), units, reduction="none")


def detached(states):
    return [tuple(s.detach() for s in st) if isinstance(st, tuple) else st.detach() for st in states]


@torch.no_grad()
def surprises(net, streams, lanes=64, chunk=500):
    """-ln P of the units of each stream, from its start; streams are stepped side by side."""
    net.eval()
    out, order = [None] * len(streams), sorted(range(len(streams)), key=lambda k: -len(streams[k]))
    for g in range(0, len(order), lanes):
        group = order[g : g + lanes]
        longest = len(streams[group[0]])
        ids = torch.zeros(longest, len(group), dtype=torch.long)
        for j, k in enumerate(group):
            ids[: len(streams[k]), j] = torch.tensor(streams[k])
        states, last, parts = net.zero(len(group)), net.start.expand(1, len(group), -1), []
        for a in range(0, longest, chunk):
            part = ids[a : a + chunk]
            y, states = net(part, states, torch.zeros_like(part, dtype=torch.bool))
            before = torch.cat([last, y[:-1]])
            parts.append(net.nats(before.flatten(0, 1), part.flatten()).view(part.shape))
            last = y[-1:]
        nats = torch.cat(parts)
        for j, k in enumerate(group):
            out[k] = nats[: len(streams[k]), j]
    return out


def train(recipe, net, streams, dev):
    t = recipe["train"]
    rng, torch_rng = random.Random(t["seed"]), torch.Generator().manual_seed(t["seed"])
    opt = torch.optim.AdamW(net.parameters(), lr=t["lr"], weight_decay=t["weight_decay"])
    total_units = sum(map(len, streams))
    length = math.ceil(total_units / t["batch"])
    total, step, best, kept, mean = t["epochs"] * math.ceil(length / t["chunk"]), 0, math.inf, None, copy.deepcopy(net)
    block = t.get("block", 8)
    for epoch in range(t["epochs"]):
        net.train()
        blocks = [streams[k : k + block] for k in range(0, len(streams), block)]
        rng.shuffle(blocks)
        order = [s for b in blocks for s in b]
        ids = torch.tensor([u for s in order for u in s])
        nxt = torch.tensor([u for s in order for u in s[1:] + [-1]])
        first = torch.tensor([k == 0 for s in order for k in range(len(s))])
        turn = rng.randrange(total_units)
        pad = length * t["batch"] - total_units
        lay = lambda x, fill: torch.cat([x.roll(-turn), x.new_full((pad,), fill)]).view(t["batch"], length).T
        ids, nxt, first = lay(ids, 0), lay(nxt, -1), lay(first, False)
        states, began, losses, rows = net.zero(t["batch"]), time.time(), 0.0, 0
        for a in range(0, length, t["chunk"]):
            x, y, f = ids[a : a + t["chunk"]], nxt[a : a + t["chunk"]], first[a : a + t["chunk"]]
            read = x.masked_fill(torch.rand(x.shape, generator=torch_rng) < t["word_dropout"], 0)
            out, states = net(read, states, f)
            states, has = detached(states), y >= 0
            nats = net.nats(torch.cat([out[has], net.start.expand(int(f.sum()), -1)]), torch.cat([y[has], x[f]]))
            loss = nats.mean()
            done = (step - t["warmup"]) / max(1, total - t["warmup"])
            down = t.get("min_lr_ratio", 0.05)
            down += (1 - down) * 0.5 * (1 + math.cos(math.pi * done))
            opt.param_groups[0]["lr"] = t["lr"] * ((step + 1) / t["warmup"] if step < t["warmup"] else down)
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), t.get("clip_norm", 1.0))
            opt.step()
            step += 1
            losses, rows = losses + loss.item() * len(nats), rows + len(nats)
            with torch.no_grad():
                for p, q in zip(mean.parameters(), net.parameters()):
                    p.lerp_(q, 1 - min(t["ema"], step / (step + 10)))
        score = torch.cat(surprises(mean, dev)).mean().item()
        print(f"epoch {epoch + 1:3d}  loss {losses / rows:.4f}  dev {score / math.log(2):.4f} bits  {time.time() - began:.0f} s", flush=True)
        if score < best:
            best, kept = score, copy.deepcopy(mean.state_dict())
    mean.load_state_dict(kept)
    return mean


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--recipe", required=True)
    ap.add_argument("--data-root", default="data")
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--test", action="append", default=[], help="a file, of texts also FILE:FROM..TO in characters")
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    with open(a.recipe, "rb") as f:
        recipe = tomllib.load(f)
    torch.manual_seed(recipe["train"]["seed"])
    part = lambda specs: [s for spec in specs for s in streams_of(spec, recipe, a.data_root)]
    texts, dev = part(recipe["data"]["train"]), part(recipe["data"]["dev"])
    counts = collections.Counter(u for units, _ in texts for u in units)
    least = recipe["encoder"].get("min_count", 2 if recipe["encoder"]["kind"] == "chars" else 1)
    ranked = sorted((u for u in counts if counts[u] >= least), key=lambda u: (-counts[u], u))
    row = {u: k + 1 for k, u in enumerate(ranked)}
    ids = lambda streams: [[row.get(u, 0) for u in units] for units, _ in streams]
    net = Net(recipe, len(ranked) + 1)
    print(f"{sum(counts.values())} units of {len(ranked) + 1} kinds, {sum(p.numel() for p in net.parameters())} parameters", flush=True)
    net = train(recipe, net, ids(texts), ids(dev))
    nats = torch.cat(surprises(net, ids(dev)))
    share = recipe["task"].get("threshold_quantile")
    threshold = nats.sort().values[max(1, math.ceil(share * len(nats))) - 1].item() if share else None
    print(f"dev  {nats.mean():.4f} nats, {nats.mean() / math.log(2):.4f} bits a unit" + (f", threshold {threshold:.4f}" if share else ""))
    for test in a.test:
        path, _, at = test.partition(":")
        spec = {"path": path, **({"range": [int(x) for x in at.split("..")]} if at else {})}
        streams = streams_of(spec, recipe, a.data_root)
        found = surprises(net, ids(streams))
        nats = torch.cat(found)
        text = f"{test}  {len(nats)} units, {nats.mean():.4f} nats, {nats.mean() / math.log(2):.4f} bits a unit"
        judged = [(n.item(), l == "surprising") for (_, labels), ns in zip(streams, found) if labels
                  for n, l in zip(ns, labels) if l in ("normal", "surprising")]
        if judged and share:
            right = sum(n > threshold and l for n, l in judged)
            given, gold = sum(n > threshold for n, _ in judged), sum(l for _, l in judged)
            judged.sort()
            below = pairs = 0
            for _, l in judged:
                pairs, below = (pairs + below, below) if l else (pairs, below + 1)
            text += f", precision {right / given:.4f}, recall {right / gold:.4f}, AUC {pairs / (gold * below):.4f}"
        print(text, flush=True)


if __name__ == "__main__":
    main()
