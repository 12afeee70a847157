#!/usr/bin/env python3
"""Golden values from PyTorch for tests/numbers/cells.rs. Usage: torch_cells.py OUTDIR (tests/golden).

cell_options.safetensors   every cell, plain, residual, normalised and both, two layers, unequal lengths: weights, input,
                           first state, outputs, last state, and the gradients of Σ weights · outputs at all of them

The simplified GRU and the LSTM with peepholes are written out here in PyTorch, since it has neither; the script checks
them against torch.nn.GRU (its reset gate held open, its z = 1 - u) and torch.nn.LSTM (peepholes of zero).
"""
import sys
from pathlib import Path
import torch
from safetensors.torch import save_file

torch.manual_seed(21); torch.set_num_threads(1); torch.set_default_dtype(torch.float64)
LENGTHS, H = [4, 3, 1], 4
GATES = {'lstm': 4, 'lstm_peephole': 4, 'gru': 3, 'gru_simplified': 2, 'tanh': 1, 'relu': 1}


def step(cell, x, h, c, p):
    """One step of one layer: x, h, c [streams, H], p its parameters by PyTorch's names."""
    i, hh = x @ p['weight_ih'].T + p['bias_ih'], h @ p['weight_hh'].T + p['bias_hh']
    s = torch.sigmoid
    if cell in ('lstm', 'lstm_peephole'):
        (ai, af, ag, ao), peep = (i + hh).chunk(4, -1), p.get('peephole', torch.zeros(3 * H)).chunk(3)
        c_new = s(af + peep[1] * c) * c + s(ai + peep[0] * c) * torch.tanh(ag)
        return s(ao + peep[2] * c_new) * torch.tanh(c_new), c_new
    if cell == 'gru':
        (ir, iz, inn), (hr, hz, hn) = i.chunk(3, -1), hh.chunk(3, -1)
        z = s(iz + hz)
        return (1 - z) * torch.tanh(inn + s(ir + hr) * hn) + z * h, c
    if cell == 'gru_simplified':
        au, an = (i + hh).chunk(2, -1)
        u = s(au)
        return u * torch.tanh(an) + (1 - u) * h, c
    return (torch.tanh if cell == 'tanh' else torch.relu)(i + hh), c


def layer(cell, xs, h, c, p):
    """xs: for each step the rows of the streams that have it; returns the same of h, and the last h and c."""
    hs = []
    for x in xs:
        m = len(x)
        new_h, new_c = step(cell, x, h[:m], c[:m], p)
        h, c = torch.cat([new_h, h[m:]]), torch.cat([new_c, c[m:]])
        hs.append(new_h)
    return hs, h, c


def uniform(*shape):
    """Numbers that f32 holds exactly; computed with in f64."""
    return (torch.rand(*shape, dtype=torch.float32) * 2 - 1).double().requires_grad_()


def make(cell):
    g = GATES[cell] * H
    p = {'weight_ih': uniform(g, H), 'weight_hh': uniform(g, H), 'bias_ih': uniform(g), 'bias_hh': uniform(g)}
    return p | ({'peephole': uniform(3 * H)} if cell == 'lstm_peephole' else {})


def check():
    x, h, c = torch.randn(6, 3, H), torch.randn(3, H) / 2, torch.randn(3, H) / 2
    for cell, net in [('lstm', torch.nn.LSTM(H, H)), ('lstm_peephole', torch.nn.LSTM(H, H)), ('gru', torch.nn.GRU(H, H)),
                      ('gru_simplified', torch.nn.GRU(H, H)), ('tanh', torch.nn.RNN(H, H)),
                      ('relu', torch.nn.RNN(H, H, nonlinearity='relu'))]:
        p = make(cell)
        if cell == 'lstm_peephole':
            p['peephole'] = torch.zeros(3 * H)
        for name in ['weight_ih', 'weight_hh', 'bias_ih', 'bias_hh']:
            value = p[name].detach()
            if cell == 'gru_simplified':
                u, n = value.chunk(2)
                r = torch.full_like(u, 50.0 if name == 'bias_ih' else 0.0)
                value = torch.cat([r, -u, n])
            getattr(net, f'{name}_l0').data.copy_(value)
        want = net(x, (h[None], c[None]) if 'lstm' in cell else h[None])[0]
        got = torch.stack(layer(cell, list(x), h, c, p)[0])
        assert torch.allclose(got, want, atol=1e-12), cell


check()
sizes = [sum(l > t for l in LENGTHS) for t in range(LENGTHS[0])]
rows, tensors = sum(sizes), {'lengths': torch.tensor(LENGTHS, dtype=torch.int32)}
for cell in GATES:
    for options in ['plain', 'residual', 'norm', 'both']:
        leaves = {'x': uniform(rows, H), 'h0': uniform(2, len(LENGTHS), H), 'c0': uniform(2, len(LENGTHS), H)}
        y, hn, cn = leaves['x'], [], []
        for k in range(2):
            p = make(cell)
            hs, h, c = layer(cell, list(y.split(sizes)), leaves['h0'][k], leaves['c0'][k], p)
            out = torch.cat(hs)
            if options in ('norm', 'both'):
                p |= {'norm.weight': uniform(H), 'norm.bias': uniform(H)}
                out = torch.nn.functional.layer_norm(out, [H], p['norm.weight'], p['norm.bias'])
            y = out + y if options in ('residual', 'both') else out
            hn.append(h), cn.append(c)
            leaves |= {f'{name}_l{k}': value for name, value in p.items()}
        if 'lstm' not in cell:
            del leaves['c0']
        dy = uniform(rows, H).detach()
        (y * dy).sum().backward()
        case = {'y': y, 'dy': dy, 'hn': torch.stack(hn)} | ({'cn': torch.stack(cn)} if 'lstm' in cell else {})
        case |= leaves | {f'd/{name}': value.grad for name, value in leaves.items()}
        tensors |= {f'{cell}.{options}/{name}': value.detach().float() for name, value in case.items()}
save_file({k: v.contiguous() for k, v in tensors.items()}, Path(sys.argv[1]) / 'cell_options.safetensors')
