#!/usr/bin/env python3
"""Golden values from PyTorch for tests/transcribe_parity.rs. Usage: torch_ctc.py OUTDIR (tests/golden).

ctc.json   torch.nn.CTCLoss (blank 0, zero_infinity) in f64: scores before the softmax, transcripts, each one's loss, and
           the gradient of the weighted sum of the losses at the scores. With repeated symbols, empty transcripts, some that
           leave no step to spare, and some that their steps cannot read as.
"""
import json, sys
from pathlib import Path
import torch

torch.manual_seed(3); torch.set_num_threads(1); torch.set_default_dtype(torch.float64)
# Steps, classes, transcript, weight, scale of the scores.
CASES = [
    (8, 4, [1, 2, 3], 1.0, 2.0), (9, 4, [2, 2, 1, 1], 0.5, 2.0), (6, 5, [], 2.0, 3.0), (5, 6, [1, 2, 3, 4, 5], 1.0, 1.0),
    (5, 3, [1, 1, 1], 1.5, 2.0), (4, 3, [1, 1, 1], 1.0, 2.0), (3, 4, [1, 2, 3, 1], 1.0, 2.0), (1, 3, [2], 1.0, 2.0),
    (1, 3, [], 1.0, 2.0), (40, 12, [3, 3, 7, 1, 11, 5, 5, 5, 2, 9, 4], 1.0, 4.0), (70, 14, list(range(1, 14)) * 2, 0.25, 6.0),
    (40, 4, [1, 2, 1, 2, 1, 2, 3], 1.0, 40.0),
]
loss = torch.nn.CTCLoss(blank=0, reduction='none', zero_infinity=True)
out = []
for steps, classes, transcript, weight, scale in CASES:
    x = ((torch.rand(steps, 1, classes) * 2 - 1) * scale).requires_grad_()
    targets = torch.tensor([transcript], dtype=torch.long).reshape(1, -1)
    value = loss(x.log_softmax(-1), targets, torch.tensor([steps]), torch.tensor([len(transcript)]))
    (weight * value.sum()).backward()
    repeats = sum(a == b for a, b in zip(transcript, transcript[1:]))
    out.append({'classes': classes, 'x': x.detach().flatten().tolist(), 'transcript': transcript, 'weight': weight,
                'fits': len(transcript) + repeats <= steps, 'loss': value.item(), 'gradient': x.grad.flatten().tolist()})
(Path(sys.argv[1]) / 'ctc.json').write_text(json.dumps(out) + '\n')
