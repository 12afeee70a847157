#!/usr/bin/env python3
"""Golden values from PyTorch for tests/numbers/notes_parity.rs. Usage: torch_notes.py OUTDIR (tests/golden).

notes.safetensors: a network that tells sets of notes, one sigmoid a pitch, of streams of three classes (one-hot columns behind
the pitches, a start vector each): weights, notes, the loss of binary_cross_entropy_with_logits summed over the pitches and
averaged over the steps, and the gradient of every weight.
"""
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file

out = Path(sys.argv[1]); out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(31); torch.set_num_threads(1)
P, C, B, T = 12, 3, 5, 9
l0, l1, head = torch.nn.GRU(P + C, 10), torch.nn.LSTM(10, 8), torch.nn.Linear(8, P)
start = torch.nn.Parameter(torch.randn(C, 8) * 0.3)
notes = (torch.rand(T, B, P) < 0.25).float()
classes = torch.arange(B) % C
x = torch.cat([notes, torch.nn.functional.one_hot(classes, C).float().expand(T, B, C)], -1)
y = l1(l0(x)[0])[0]
told = torch.cat([start[classes][None], y[:-1]])
loss = torch.nn.functional.binary_cross_entropy_with_logits(head(told), notes, reduction='sum') / (T * B)
loss.backward()
named = {'head.weight': head.weight, 'head.bias': head.bias, 'start': start}
for k, layer in enumerate([l0, l1]):
    named |= {f'rnn.{n[:-1]}{k}': p for n, p in layer.named_parameters()}
tensors = {'x': x, 'loss': loss.detach()[None]}
for name, p in named.items():
    tensors |= {name: p.detach().clone(), f'grad/{name}': p.grad}
print(f'loss {loss:.4f}')
save_file({k: v.contiguous() for k, v in tensors.items()}, out / 'notes.safetensors')
