#!/usr/bin/env python3
"""The network of models/music-jsb in PyTorch. Usage: twin_music.py DIR [key=value …]

DIR has train.jsonl, valid.jsonl and test.jsonl of models/scripts/music_jsb.py. A stack of GRUs over 88 pitches, one sigmoid a
pitch of the next step, a learnt start vector; trained on whole chorales, padded to the longest of a batch, moved by a chance
number of semitones each time (Strand lays chorales end to end instead and has all transpositions in each epoch). The epoch with
the best valid NLL is kept; with test=1 its NLL on test.jsonl is told.
"""
import json, math, random, sys, time
from pathlib import Path
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

p = dict(hidden=256, layers=2, lr=2e-3, epochs=150, batch=16, dropout_input=0.1, dropout_layers=0.4, weight_decay=0.01, ema=0.99,
         transpose='-5,6', clip=1.0, seed=1, test=0, cell='GRU', threads=1, min_lr=0.05)
for a in sys.argv[2:]:
    k, v = a.split('='); p[k] = type(p[k])(v)
torch.manual_seed(p['seed']); random.seed(p['seed']); torch.set_num_threads(p['threads'])
LOW, N = 21, 88
read = lambda name: [json.loads(l)['notes'] for l in open(Path(sys.argv[1]) / f'{name}.jsonl')]
def roll(chords, by=0):
    x = torch.zeros(len(chords), N)
    for t, c in enumerate(chords):
        for n in c: x[t, n - LOW + by] = 1
    return x
train, valid = read('train'), read('valid')
low, high = map(int, p['transpose'].split(','))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.ModuleList(getattr(nn, p['cell'])(N if k == 0 else p['hidden'], p['hidden'], batch_first=True) for k in range(p['layers']))
        self.head, self.start = nn.Linear(p['hidden'], N), nn.Parameter(torch.zeros(p['hidden']))
        self.drop_in, self.drop = nn.Dropout(p['dropout_input']), nn.Dropout(p['dropout_layers'])
    def forward(self, x):  # logits of every step, told by those before it
        y = self.drop_in(x)
        for layer in self.rnn: y = self.drop(layer(y)[0])
        return self.head(torch.cat([self.start.expand(len(x), 1, -1), y[:, :-1]], 1))

net = Net()
ema = {k: v.clone() for k, v in net.state_dict().items()}
other = Net()
opt = torch.optim.AdamW(net.parameters(), lr=p['lr'], weight_decay=p['weight_decay'])
steps = p['epochs'] * math.ceil(len(train) / p['batch'])
@torch.no_grad()
def nll(net, data):  # a step, averaged over all steps; and over streams
    net.eval(); sums = []
    for c in data:
        x = roll(c)[None]
        sums.append((bce(net(x), x, reduction='sum').item(), len(c)))
    return sum(s for s, _ in sums) / sum(n for _, n in sums), sum(s / n for s, n in sums) / len(sums)
best, step, began = None, 0, time.time()
for epoch in range(p['epochs']):
    net.train(); random.shuffle(train); total = count = 0
    for i in range(0, len(train), p['batch']):
        rolls = [roll(c, random.randint(low, high)) for c in train[i:i + p['batch']]]
        x = nn.utils.rnn.pad_sequence(rolls, batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones(len(r)) for r in rolls], batch_first=True)
        loss = (bce(net(x), x, reduction='none').sum(-1) * mask).sum() / mask.sum()
        opt.zero_grad(); loss.backward(); nn.utils.clip_grad_norm_(net.parameters(), p['clip'])
        lr = p['lr'] * (p['min_lr'] + (1 - p['min_lr']) * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for g in opt.param_groups: g['lr'] = lr
        opt.step(); step += 1
        for k, v in net.state_dict().items(): ema[k].lerp_(v, 1 - min(p['ema'], step / (step + 10)))
        total += loss.item() * mask.sum().item(); count += mask.sum().item()
    other.load_state_dict(ema); v = nll(other, valid)
    if best is None or v[0] < best[0]: best = (v[0], v[1], epoch + 1, {k: t.clone() for k, t in ema.items()})
    if epoch % 5 == 4: print(f'epoch {epoch + 1} loss {total / count:.3f} valid {v[0]:.3f} (a stream {v[1]:.3f}) best {best[0]:.3f} at {best[2]}  {time.time() - began:.0f} s', flush=True)
print('parameters', sum(t.numel() for t in net.parameters()), p, f'valid {best[0]:.4f} (a stream {best[1]:.4f}) epoch {best[2]}')
if p['test']:
    other.load_state_dict(best[3]); print('test: nats a step %.4f, averaged over streams %.4f' % nll(other, read('test')))
