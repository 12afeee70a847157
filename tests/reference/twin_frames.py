#!/usr/bin/env python3
"""PyTorch twin of `strand train` for streams of vectors: the same recipe, the same network, the same way of training.

    python twin_frames.py --recipe models/digits-en.toml --test runs/digits/test-strings.jsonl --test runs/digits/test-voices.jsonl
    python twin_frames.py --recipe examples/moving-shapes.toml --test runs/shapes/test.jsonl

torch.nn.LSTM (or GRU; bidirectional layers see the whole stream) and a linear head. For `transcribe` (symbols are
characters) the head is over the symbols and the blank, the loss torch.nn.CTCLoss, the mean over the streams of a batch;
transcripts are read off greedily; ends with word and character error rates. For `classify` the outputs' mean goes to the
head; ends with the share of wrong classes. Batches are whole streams of about equal length, shuffled by epoch.
"""
import argparse, copy, json, math, random, time, tomllib
from pathlib import Path
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence


def read(path):
    with open(path, encoding="utf-8") as f:
        rows = [json.loads(line) for line in f]
    return [(torch.tensor(r["vector"], dtype=torch.float32), r.get("label") or " ".join(r["transcript"].split())) for r in rows]


class Twin(nn.Module):
    def __init__(self, recipe, classes):
        super().__init__()
        width, self.rnn = recipe["encoder"]["width"], nn.ModuleList()
        for layer in recipe["layers"]:
            both = layer.get("bidirectional", False)
            kind = {"lstm": nn.LSTM, "gru": nn.GRU}[layer["cell"]]
            self.rnn.append(kind(width, layer["hidden"], batch_first=True, bidirectional=both))
            width = layer["hidden"] * (2 if both else 1)
        self.input, self.drop = nn.Dropout(recipe["train"]["dropout_input"]), nn.Dropout(recipe["train"]["dropout_layers"])
        self.head, self.pools = nn.Linear(width, classes), recipe["task"]["kind"] == "classify"
        assert recipe["task"].get("pooling", "mean") == "mean"

    def forward(self, x, lengths):
        x = self.input(x)
        for k, rnn in enumerate(self.rnn):
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            x = pad_packed_sequence(rnn(packed)[0], batch_first=True)[0]
            if self.pools and k + 1 == len(self.rnn):
                x = x.sum(1) / lengths[:, None]  # Behind a stream's end are zeros.
            x = self.drop(x)
        return self.head(x).log_softmax(-1)


def edits(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]


@torch.no_grad()
def rates(model, data, symbols):
    model.eval()
    wrong, all = [0, 0], [0, 0]
    for k in range(0, len(data), 64):
        part = data[k : k + 64]
        lengths = torch.tensor([len(x) for x, _ in part])
        best = model(pad_sequence([x for x, _ in part], batch_first=True), lengths).argmax(-1)
        if model.pools:
            wrong[0] += sum(symbols[c] != gold for c, (_, gold) in zip(best.tolist(), part))
            all[0] += len(part)
            continue
        for path, n, (_, gold) in zip(best, lengths, part):
            path = path[:n].unique_consecutive().tolist()
            given = " ".join("".join(symbols[c - 1] for c in path if c).split())
            for at, cut in enumerate([str.split, list]):
                wrong[at] += edits(cut(gold), cut(given))
                all[at] += len(cut(gold))
    return [w / max(1, n) for w, n in zip(wrong, all)]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--recipe", required=True)
    ap.add_argument("--epochs", type=int)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--test", action="append", default=[])
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    recipe = tomllib.loads(Path(a.recipe).read_text())
    t = recipe["train"]
    epochs = a.epochs or t["epochs"]
    torch.manual_seed(t["seed"])
    data = [row for path in recipe["data"]["train"] for row in read(path)]
    dev = [row for path in recipe["data"]["dev"] for row in read(path)]
    classifies = recipe["task"]["kind"] == "classify"
    symbols = recipe["task"]["labels"] if classifies else sorted(set("".join(text for _, text in data)))
    ids = [torch.tensor([symbols.index(text)] if classifies else [symbols.index(c) + 1 for c in text]) for _, text in data]
    model, ctc = Twin(recipe, len(symbols) + (not classifies)), nn.CTCLoss(blank=0, reduction="sum", zero_infinity=True)
    print(f"{len(data)} streams, {sum(p.numel() for p in model.parameters())} parameters", flush=True)
    opt = torch.optim.AdamW(model.parameters(), lr=t["lr"], weight_decay=t["weight_decay"])
    rng, n, batch, mean = random.Random(t["seed"]), len(data), t["batch"], copy.deepcopy(model)
    total, step, best, kept = epochs * math.ceil(n / batch), 0, math.inf, None
    for epoch in range(epochs):
        model.train()
        order, batches, begin, losses = rng.sample(range(n), n), [], time.time(), 0.0
        for k in range(0, n, 16 * batch):
            part = sorted(order[k : k + 16 * batch], key=lambda i: -len(data[i][0]))
            batches += [part[j : j + batch] for j in range(0, len(part), batch)]
        rng.shuffle(batches)
        for streams in batches:
            lengths = torch.tensor([len(data[i][0]) for i in streams])
            logs = model(pad_sequence([data[i][0] for i in streams], batch_first=True), lengths)
            targets = torch.cat([ids[i] for i in streams])
            if classifies:
                loss = nn.functional.nll_loss(logs, targets)
            else:
                loss = ctc(logs.transpose(0, 1), targets, lengths, torch.tensor([len(ids[i]) for i in streams])) / len(streams)
            done = (step - t["warmup"]) / max(1, total - t["warmup"])
            down = t["min_lr_ratio"] + (1 - t["min_lr_ratio"]) * 0.5 * (1 + math.cos(math.pi * done))
            opt.param_groups[0]["lr"] = t["lr"] * ((step + 1) / t["warmup"] if step < t["warmup"] else down)
            opt.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), t["clip_norm"])
            opt.step()
            step += 1
            losses += loss.item() * len(streams)
            with torch.no_grad():
                for p, q in zip(mean.parameters(), model.parameters()):
                    p.lerp_(q, 1 - min(t["ema"], step / (step + 10)))
        words, characters = rates(mean, dev, symbols)
        print(f"epoch {epoch + 1:3d}  loss {losses / n:.4f}  dev wrong {words:.4f}, characters {characters:.4f}  {time.time() - begin:.0f} s", flush=True)
        if (words if classifies else characters) < best:
            best, kept = words if classifies else characters, copy.deepcopy(mean.state_dict())
    mean.load_state_dict(kept)
    for path in a.test:
        words, characters = rates(mean, read(path), symbols)
        print(f"{path}  " + (f"accuracy {1 - words:.4f}" if classifies else f"word error rate {words:.4f}  character error rate {characters:.4f}"), flush=True)


if __name__ == "__main__":
    main()
