#!/usr/bin/env python3
"""Golden values from PyTorch for tests/numbers/parity.rs. Usage: torch_crf.py OUTDIR (tests/golden).

crf.safetensors   a linear-chain CRF over sequences of unequal lengths, some of them cut at a border (without start or end
                  scores): -ln p of the right labels, the gradients of its weighted sum, the best path and the marginals

-ln p is formed by the forward algorithm in matrix notation (Lafferty, McCallum and Pereira 2001), its gradients by autograd.
Best paths and marginals are found by going through all sequences; the script checks -ln p in the same way.
"""
import itertools, sys
from pathlib import Path
import torch
from safetensors.torch import save_file

torch.manual_seed(5); torch.set_num_threads(1); torch.set_default_dtype(torch.float64)
CLASSES = 4
# Length, begins with its stream, ends with it, weight.
SEQUENCES = [(6, True, True, 1.0), (5, False, True, 0.5), (4, True, False, 2.0), (3, False, False, 1.0), (1, True, True, 1.5)]


def uniform(*shape, scale=2.0):
    """Numbers that f32 holds exactly; computed with in f64."""
    return ((torch.rand(*shape, dtype=torch.float32) * 2 - 1) * scale).double().requires_grad_()


A, a, b = uniform(CLASSES, CLASSES), uniform(CLASSES), uniform(CLASSES)


def score(x, y, starts, ends):
    s = x[range(len(y)), list(y)].sum() + sum(A[i, j] for i, j in zip(y, y[1:]))
    return s + (a[y[0]] if starts else 0) + (b[y[-1]] if ends else 0)


def log_z(x, starts, ends):
    """ln of start · M_1 · … · M_n · end with M_t(i, j) = exp(A(i, j) + x_t(j))."""
    v = x[0] + (a if starts else 0)
    for row in x[1:]:
        v = torch.logsumexp(v[:, None] + A + row[None, :], 0)
    return torch.logsumexp(v + (b if ends else 0), 0)


tensors, total = {}, 0
xs = []
for k, (n, starts, ends, weight) in enumerate(SEQUENCES):
    x, y = uniform(n, CLASSES), torch.randint(CLASSES, (n,)).tolist()
    xs.append(x)
    loss = log_z(x, starts, ends) - score(x, y, starts, ends)
    total = total + weight * loss
    with torch.no_grad():
        paths = list(itertools.product(range(CLASSES), repeat=n))
        scores = torch.stack([score(x, path, starts, ends) for path in paths])
        assert torch.allclose(torch.logsumexp(scores, 0), log_z(x, starts, ends), atol=1e-12)
        p, marginals = torch.softmax(scores, 0), torch.zeros(n, CLASSES)
        for path, q in zip(paths, p):
            marginals[range(n), list(path)] += q
        best = paths[int(scores.argmax())]
    as_int = lambda values: torch.tensor(values, dtype=torch.int32)
    tensors |= {f'{k}/x': x, f'{k}/y': as_int(y), f'{k}/loss': loss[None], f'{k}/best': as_int(best), f'{k}/marginals': marginals}
    tensors |= {f'{k}/borders': as_int([starts, ends]), f'{k}/weight': torch.tensor([weight])}
total.backward()
tensors |= {'transitions': A, 'start': a, 'end': b, 'd/transitions': A.grad, 'd/start': a.grad, 'd/end': b.grad}
tensors |= {f'{k}/dx': x.grad for k, x in enumerate(xs)}
tensors = {name: value.detach() if value.dtype == torch.int32 else value.detach().float() for name, value in tensors.items()}
save_file({name: value.contiguous() for name, value in tensors.items()}, Path(sys.argv[1]) / 'crf.safetensors')
