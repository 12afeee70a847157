#!/usr/bin/env python3
"""Golden values from PyTorch for tests/numbers/parity.rs. Usage: torch_golden.py OUTDIR (tests/golden).

cells.safetensors     every cell, depth 1 to 3, unequal lengths: weights, input, first state, outputs, last state
training.safetensors  a tagger trained for 100 steps with the state carried: first weights, data, the loss of each step
"""
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

out = Path(sys.argv[1]); out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(20); torch.set_num_threads(1)

# Cells. Lengths sorted, longest first, as the engine lays them out.
tensors, lengths, I, H = {}, [7, 5, 5, 2, 1], 5, 6
for cell in ['lstm', 'gru', 'tanh', 'relu']:
    for depth in [1, 2, 3]:
        make = {'lstm': torch.nn.LSTM, 'gru': torch.nn.GRU}.get(cell, torch.nn.RNN)
        extra = {} if cell in ('lstm', 'gru') else {'nonlinearity': cell}
        net = make(I, H, depth, **extra)
        x = torch.randn(max(lengths), len(lengths), I)
        h, c = torch.randn(depth, len(lengths), H) / 2, torch.randn(depth, len(lengths), H) / 2
        packed = pack_padded_sequence(x, torch.tensor(lengths))
        y, last = net(packed, (h, c) if cell == 'lstm' else h)
        name = f'{cell}{depth}'
        tensors |= {f'{name}/{k}': v.detach().clone() for k, v in net.named_parameters()}
        tensors |= {f'{name}/x': packed.data.clone(), f'{name}/h0': h, f'{name}/y': y.data.detach().clone()}
        if cell == 'lstm':
            tensors |= {f'{name}/c0': c, f'{name}/hn': last[0].detach(), f'{name}/cn': last[1].detach()}
        else:
            tensors[f'{name}/hn'] = last.detach()
tensors['lengths'] = torch.tensor(lengths, dtype=torch.int32)
save_file({k: v.contiguous() for k, v in tensors.items()}, out / 'cells.safetensors')

# Training: embedding 12 x 6, LSTM 10, GRU 8, 4 classes; 8 streams, 12 steps a chunk, state carried, class weights,
# clipping by the global norm, Adam.
V, D, B, T, C, steps = 12, 6, 8, 12, 4, 100
emb, l0, l1, head = torch.nn.Embedding(V, D), torch.nn.LSTM(D, 10), torch.nn.GRU(10, 8), torch.nn.Linear(8, C)
torch.nn.init.normal_(emb.weight, 0, 0.1)
first = {'tables.word.weight': emb.weight, 'head.weight': head.weight, 'head.bias': head.bias}
for k, layer in enumerate([l0, l1]):
    first |= {f'rnn.{n[:-1]}{k}': p for n, p in layer.named_parameters()}
params = list(first.values())
tensors = {k: v.detach().clone() for k, v in first.items()}
x = torch.randint(0, V, (steps, T, B))
stream = x.reshape(steps * T, B)
before = torch.cat([torch.zeros(2, B, dtype=torch.long), stream[:-2]])
y = (before % C).reshape(steps, T, B)  # the word two steps ago: needs the state
weight = torch.tensor([1.0, 0.5, 2.0, 1.5])
opt = torch.optim.Adam(params, lr=0.02)
h0, c0, h1, losses, norms = torch.zeros(1, B, 10), torch.zeros(1, B, 10), torch.zeros(1, B, 8), [], []
for i in range(steps):
    a, (h0, c0) = l0(emb(x[i]), (h0.detach(), c0.detach()))
    b, h1 = l1(a, h1.detach())
    loss = torch.nn.functional.cross_entropy(head(b).flatten(0, 1), y[i].flatten(), weight=weight)
    opt.zero_grad(); loss.backward()
    norms.append(torch.nn.utils.clip_grad_norm_(params, 0.25)); opt.step(); losses.append(loss.detach())
tensors |= {'x': x.to(torch.int32), 'y': y.to(torch.int32), 'losses': torch.stack(losses), 'norms': torch.stack(norms),
            'class_weights': weight}
save_file({k: v.contiguous() for k, v in tensors.items()}, out / 'training.safetensors')
print(f'loss {losses[0]:.4f} -> {losses[-1]:.4f}; clipped {sum(n > 0.25 for n in norms)} of {steps} steps')
