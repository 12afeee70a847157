#!/usr/bin/env python3
"""The network of models/music-jsb in PyTorch. Usage: twin_music.py DIR [key=value …]

DIR has train.jsonl, valid.jsonl and test.jsonl of models/scripts/music_jsb.py. One GRU over 88 pitches, one sigmoid a pitch of the
next step, a learnt start vector. Trained on two whole chorales a step, padded to the longer: about as many steps of optimisation
an epoch, of as many notes, as Strand's eight runs of sixteen. The epoch whose averaged weights are best on valid is kept; test=1 tells
its NLL on test.jsonl.
"""
import json, math, random, sys, time
from pathlib import Path
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce
from torch.nn.utils.rnn import pad_sequence

p = dict(hidden=256, lr=8e-3, epochs=40, batch=2, dropout_input=0.05, dropout_layers=0.2, weight_decay=0.01, ema=0.99, clip=1.0,
         warmup=100, min_lr=0.05, seed=1, test=0, threads=1)
for a in sys.argv[2:]:
    k, v = a.split('='); p[k] = type(p[k])(v)
torch.manual_seed(p['seed']); random.seed(p['seed']); torch.set_num_threads(p['threads'])
LOW, N = 21, 88
def read(name):
    rolls = []
    for line in open(Path(sys.argv[1]) / f'{name}.jsonl'):
        chords = json.loads(line)['notes']; x = torch.zeros(len(chords), N)
        for t, chord in enumerate(chords): x[t, [n - LOW for n in chord]] = 1
        rolls.append(x)
    return rolls
train, valid = read('train'), read('valid')

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.GRU(N, p['hidden'], batch_first=True), nn.Linear(p['hidden'], N)
        self.start = nn.Parameter(torch.zeros(p['hidden']))
        self.drop_in, self.drop = nn.Dropout(p['dropout_input']), nn.Dropout(p['dropout_layers'])
    def forward(self, x):  # logits of every step, told by those before it
        y = self.drop(self.rnn(self.drop_in(x))[0])
        return self.head(torch.cat([self.start.expand(len(x), 1, -1), y[:, :-1]], 1))
net, other = Net(), Net()
ema = {k: v.clone() for k, v in net.state_dict().items()}
opt = torch.optim.AdamW(net.parameters(), lr=p['lr'], weight_decay=p['weight_decay'])

@torch.no_grad()
def nll(net, data):  # a step, averaged over all steps; and within streams, then over them
    net.eval(); sums = [(bce(net(x[None]), x[None], reduction='sum').item(), len(x)) for x in data]
    return sum(s for s, _ in sums) / sum(n for _, n in sums), sum(s / n for s, n in sums) / len(sums)

steps, best, step, began = p['epochs'] * math.ceil(len(train) / p['batch']), None, 0, time.time()
for epoch in range(p['epochs']):
    net.train(); random.shuffle(train); total = count = 0
    for i in range(0, len(train), p['batch']):
        rolls = train[i:i + p['batch']]
        x, mask = pad_sequence(rolls, batch_first=True), pad_sequence([torch.ones(len(r)) for r in rolls], batch_first=True)
        loss = (bce(net(x), x, reduction='none').sum(-1) * mask).sum() / mask.sum()
        opt.zero_grad(); loss.backward(); nn.utils.clip_grad_norm_(net.parameters(), p['clip'])
        through = (step - p['warmup']) / (steps - p['warmup'])
        lr = p['lr'] * ((step + 1) / p['warmup'] if step < p['warmup'] else p['min_lr'] + (1 - p['min_lr']) * 0.5 * (1 + math.cos(math.pi * through)))
        for g in opt.param_groups: g['lr'] = lr
        opt.step(); step += 1
        for k, v in net.state_dict().items(): ema[k].lerp_(v, 1 - p['ema'])
        total += loss.item() * mask.sum().item(); count += mask.sum().item()
    other.load_state_dict(ema); v = nll(other, valid)
    if best is None or v[0] < best[0]: best = (v[0], v[1], epoch + 1, {k: t.clone() for k, t in ema.items()})
    print(f'epoch {epoch + 1} loss {total / count:.4f} valid {v[0]:.4f} best {best[0]:.4f}  {time.time() - began:.0f} s', flush=True)
print('parameters', sum(t.numel() for t in net.parameters()), f'valid {best[0]:.4f} (over streams {best[1]:.4f}), epoch {best[2]}')
if p['test']:
    other.load_state_dict(best[3]); print('test: %.4f nats a step, %.4f averaged over streams' % nll(other, read('test')))
