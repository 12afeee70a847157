#!/usr/bin/env python3
"""Golden values from PyTorch for tests/numbers/language_parity.rs. Usage: torch_language.py OUTDIR (tests/golden).

language.safetensors
    adaptive/…  torch.nn.AdaptiveLogSoftmaxWithLoss (with a head bias): weights, inputs, units, ln P of all and of these
    full/…, tails/…  a language model trained for 60 steps with the state carried, with a full and with an adaptive softmax:
                first weights, units, the loss and the gradient's norm of each step. Two of the eight streams begin in
                every fifth step, so that their first units are told from `start`.
"""
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file

out = Path(sys.argv[1]); out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(21); torch.set_num_threads(1)

V, H, cutoffs = 30, 12, [5, 12, 20]
soft = torch.nn.AdaptiveLogSoftmaxWithLoss(H, V, cutoffs, div_value=2.0, head_bias=True)
x, units = torch.randn(V + 10, H) * 2, torch.cat([torch.arange(V), torch.randint(0, V, (10,))])
tensors = {f'adaptive/{k}': v.detach().clone() for k, v in soft.named_parameters()}
tensors |= {'adaptive/x': x, 'adaptive/units': units.to(torch.int32),
            'adaptive/all': soft.log_prob(x).detach(), 'adaptive/told': soft(x, units).output.detach()}

B, T, D, steps = 8, 10, 6, 60
for name, cuts in [('full', []), ('tails', [4, 9])]:
    V = 20
    emb, l0, l1 = torch.nn.Embedding(V, D), torch.nn.LSTM(D, 10), torch.nn.GRU(10, 8)
    torch.nn.init.normal_(emb.weight, 0, 0.1)
    start = torch.nn.Parameter(torch.zeros(8))
    soft = torch.nn.AdaptiveLogSoftmaxWithLoss(8, V, cuts, div_value=2.0, head_bias=True) if cuts else torch.nn.Linear(8, V)
    head = soft.head if cuts else soft
    first = {'tables.event.weight': emb.weight, 'head.weight': head.weight, 'head.bias': head.bias, 'start': start}
    for k, layer in enumerate([l0, l1]):
        first |= {f'rnn.{n[:-1]}{k}': p for n, p in layer.named_parameters()}
    first |= {f'tail.{k}': p for k, p in soft.tail.named_parameters()} if cuts else {}
    tensors |= {f'{name}/{k}': v.detach().clone() for k, v in first.items()}
    params = list(first.values())
    # Each unit is mostly three times the one before it, and one more.
    stream = [torch.randint(0, V, (B,))]
    for _ in range(steps * T):
        stream.append(torch.where(torch.rand(B) < 0.8, (stream[-1] * 3 + 1) % V, torch.randint(0, V, (B,))))
    stream = torch.stack(stream)
    opt = torch.optim.Adam(params, lr=0.02)
    h0, c0, h1, losses, norms = torch.zeros(1, B, 10), torch.zeros(1, B, 10), torch.zeros(1, B, 8), [], []
    for i in range(steps):
        x, y = stream[i * T:(i + 1) * T], stream[i * T + 1:(i + 1) * T + 1]
        h0, c0, h1 = h0.detach(), c0.detach(), h1.detach()
        begins = i % 5 == 0
        if begins:  # the first two streams begin with this chunk
            keep = torch.ones(1, B, 1); keep[:, :2] = 0
            h0, c0, h1 = h0 * keep, c0 * keep, h1 * keep
        a, (h0, c0) = l0(emb(x), (h0, c0))
        b, h1 = l1(a, h1)
        rows, units = b.flatten(0, 1), y.flatten()
        if begins:
            rows, units = torch.cat([rows, start.expand(2, -1)]), torch.cat([units, x[0, :2]])
        loss = soft(rows, units).loss if cuts else torch.nn.functional.cross_entropy(soft(rows), units)
        opt.zero_grad(set_to_none=False); loss.backward()  # `start` is also moved by momentum
        norms.append(torch.nn.utils.clip_grad_norm_(params, 0.5)); opt.step(); losses.append(loss.detach())
    tensors |= {f'{name}/units': stream.to(torch.int32), f'{name}/losses': torch.stack(losses), f'{name}/norms': torch.stack(norms)}
    print(f'{name}: loss {losses[0]:.4f} -> {losses[-1]:.4f}')
save_file({k: v.contiguous() for k, v in tensors.items()}, out / 'language.safetensors')
