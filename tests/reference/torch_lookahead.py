#!/usr/bin/env python3
"""Golden values from PyTorch for tests/numbers/parity.rs. Usage: torch_lookahead.py OUTDIR (tests/golden).

lookahead.safetensors   two bidirectional layers (LSTM, GRU, tanh) and a linear head over one stream, seen whole and in
                        windows of bounded look-ahead: weights by Strand's names, input, targets; for each case the class
                        probabilities, the mean cross-entropy and its gradients at all weights

Seen whole it is torch.nn.LSTM(…, num_layers=2, bidirectional=True) itself. A window is a call of the layers on the block
and the steps after it: forwards from the state before the block, backwards from zero; only the block's outputs and the
state after the block are kept (Zhang et al. 2016, latency-controlled bidirectional networks).
"""
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file

torch.manual_seed(31); torch.set_num_threads(1); torch.set_default_dtype(torch.float64)
T, INPUT, H, CLASSES = 11, 5, 4, 3
NETS = {'lstm': torch.nn.LSTM, 'gru': torch.nn.GRU, 'tanh': torch.nn.RNN}
CASES = [(1, 0), (1, 2), (2, 1), (3, 2), (4, 0)]  # block, right


def one_way(kind, net, k, suffix):
    """Direction `suffix` of layer k as a network of its own that shares the weights."""
    single = NETS[kind](INPUT if k == 0 else 2 * H, H)
    for name in ['weight_ih', 'weight_hh', 'bias_ih', 'bias_hh']:
        del single._parameters[f'{name}_l0']
        setattr(single, f'{name}_l0', getattr(net, f'{name}_l{k}{suffix}'))
    single._flat_weights = [getattr(single, name) for name in single._flat_weights_names]
    return single


def windows(kind, net, x, block, right):
    layers = [(one_way(kind, net, k, ''), one_way(kind, net, k, '_reverse')) for k in range(2)]
    states, out = [None, None], []
    for start in range(0, T, block):
        seen, kept = x[start:start + block + right], min(block, T - start)
        for k, (forwards, backwards) in enumerate(layers):
            y, states[k] = forwards(seen[:kept], states[k])
            if len(seen) > kept:
                y = torch.cat([y, forwards(seen[kept:], states[k])[0]])
            back = backwards(seen.flip(0))[0].flip(0)
            seen = torch.cat([y, back], -1)
        out.append(seen[:kept])
    return torch.cat(out)


def exact(parameter):
    parameter.data.copy_(parameter.data.float().double())


tensors = {}
x, targets = (torch.rand(T, INPUT) * 2 - 1).float().double(), torch.randint(0, CLASSES, (T,))
tensors |= {'x': x.float(), 'targets': targets.int()}
for kind, make in NETS.items():
    net, head = make(INPUT, H, num_layers=2, bidirectional=True), torch.nn.Linear(2 * H, CLASSES)
    parameters = {f'rnn.{n}': p for n, p in net.named_parameters()} | {f'head.{n}': p for n, p in head.named_parameters()}
    for parameter in parameters.values():
        exact(parameter)
    tensors |= {f'{kind}/{name}': p.detach().float() for name, p in parameters.items()}
    whole = net(x)[0]
    assert torch.allclose(windows(kind, net, x, T, 0), whole, atol=1e-12)
    for case in [(T, 0)] + CASES:
        y = whole if case == (T, 0) else windows(kind, net, x, *case)
        logits = head(y)
        loss = torch.nn.functional.cross_entropy(logits, targets)
        grads = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
        name = f'{kind}.{case[0]}.{case[1]}'
        tensors |= {f'{name}/p': logits.softmax(-1).detach().float(), f'{name}/loss': loss.detach().float()[None]}
        tensors |= {f'{name}/d/{n}': g.float() for n, g in zip(parameters, grads)}
save_file({k: v.contiguous() for k, v in tensors.items()}, Path(sys.argv[1]) / 'lookahead.safetensors')
