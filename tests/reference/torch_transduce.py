"""Golden values for tests/numbers/transduce_parity.rs: loss and all gradients of small encoder–decoders in PyTorch, without and with
attention, in f64.

    python tests/reference/torch_transduce.py tests/golden/transduce.safetensors
"""

import sys

import torch
from safetensors.torch import save_file
from torch import nn

SOURCE, TARGET, END = 9, 8, 1
PAIRS = [([2, 5, 3, 8], [4, 2, 6]), ([7, 0], [3, 3, 5, 7, 2, 0]), ([6, 6, 4, 2, 3, 5, 8], [7]), ([3], [])]


class Transducer(nn.Module):
    """The network of src/model/transduce/shape.rs."""

    def __init__(self, cell, layers, hidden, bidirectional, attention, inner=6, readout=5):
        super().__init__()
        rnn = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.cell, self.layers, self.hidden, self.attention_kind = cell, layers, hidden, attention
        memory = hidden * (2 if bidirectional else 1)
        self.both = bidirectional
        self.encoder = nn.ModuleDict(
            {"embed": nn.Embedding(SOURCE, 4), "rnn": rnn(4, hidden, num_layers=layers, bidirectional=bidirectional)}
        )
        states = 2 if cell == "lstm" else 1
        self.bridge = nn.ModuleList([nn.Linear(memory, states * hidden) for _ in range(layers)])
        reads = {"none": 0, "luong": 0, "bahdanau": memory}[attention]
        self.decoder = nn.ModuleDict(
            {"embed": nn.Embedding(TARGET, 3), "rnn": rnn(3 + reads, hidden, num_layers=layers)}
        )
        if attention == "luong":
            self.attention = nn.ModuleDict({"key": nn.Linear(memory, hidden, bias=False)})
        if attention == "bahdanau":
            self.attention = nn.ModuleDict(
                {
                    "key": nn.Linear(memory, inner),
                    "query": nn.Linear(hidden, inner, bias=False),
                    "energy": nn.Linear(inner, 1, bias=False),
                }
            )
        more = {"none": 0, "luong": memory, "bahdanau": memory + 3}[attention]
        self.readout = nn.Linear(hidden + more, readout)
        self.head = nn.Linear(readout, TARGET)

    def forward(self, source, target):
        """Scores of the units that follow, for one pair: [T + 1, units]."""
        m, _ = self.encoder["rnn"](self.encoder["embed"](torch.tensor(source + [END])))
        last = torch.cat([m[-1, : self.hidden], m[0, self.hidden :]])
        begun = [torch.tanh(bridge(last)) for bridge in self.bridge]
        h = torch.stack([state[: self.hidden] for state in begun])
        state = (h, torch.stack([state[self.hidden :] for state in begun])) if self.cell == "lstm" else h
        y = self.decoder["embed"](torch.tensor([END] + target))
        if self.attention_kind == "none":
            s, _ = self.decoder["rnn"](y, state)
            reads = s
        elif self.attention_kind == "luong":
            s, _ = self.decoder["rnn"](y, state)
            weights = torch.softmax(s @ self.attention["key"](m).T, dim=1)
            reads = torch.cat([s, weights @ m], dim=1)
        else:
            rows, keys = [], self.attention["key"](m)
            for step in range(len(y)):
                top = (state[0] if self.cell == "lstm" else state)[-1]
                energy = self.attention["energy"](torch.tanh(self.attention["query"](top) + keys)).squeeze(1)
                context = torch.softmax(energy, dim=0) @ m
                s, state = self.decoder["rnn"](torch.cat([y[step], context]).unsqueeze(0), state)
                rows.append(torch.cat([s[0], context, y[step]]))
            reads = torch.stack(rows)
        return self.head(torch.tanh(self.readout(reads)))


def main():
    torch.manual_seed(5)
    torch.set_default_dtype(torch.float64)
    tensors = {}
    for name, cell, layers, both, attention in [
        ("none", "lstm", 1, False, "none"),
        ("luong", "gru", 2, True, "luong"),
        ("bahdanau", "lstm", 2, True, "bahdanau"),
    ]:
        net = Transducer(cell, layers, 7, both, attention)
        for parameter in net.parameters():
            nn.init.uniform_(parameter, -0.8, 0.8)
        scores = torch.cat([net(source, target) for source, target in PAIRS])
        wanted = torch.tensor([unit for _, target in PAIRS for unit in target + [END]])
        for smoothing in [0.0, 0.1]:
            net.zero_grad()
            loss = nn.functional.cross_entropy(scores, wanted, label_smoothing=smoothing)
            loss.backward(retain_graph=True)
            tensors[f"{name}/loss/{smoothing}"] = loss.detach().reshape(1)
            for key, parameter in net.named_parameters():
                tensors[f"{name}/grad/{smoothing}/{key}"] = parameter.grad.clone()
        for key, parameter in net.named_parameters():
            tensors[f"{name}/param/{key}"] = parameter.detach().clone()
    save_file(tensors, sys.argv[1])


main()
