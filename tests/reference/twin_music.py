#!/usr/bin/env python3
"""The network of models/music-jsb in PyTorch, trained in the same way. Usage: twin_music.py DIR [key=value …]

DIR has train.jsonl, valid.jsonl and test.jsonl of models/scripts/music_jsb.py. One GRU over 88 pitches, one sigmoid a pitch of the
next step, a learnt start vector. As in Strand the chorales, shuffled in blocks of eight, are laid end to end and cut into `batch` runs
side by side; the state is carried from chunk to chunk and is zero where a chorale begins. The epoch whose averaged weights are
best on valid is kept; test=1 tells its NLL on test.jsonl.
"""
import json, math, random, sys, time
from pathlib import Path
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits as bce

p = dict(hidden=256, lr=8e-3, epochs=40, batch=8, chunk=16, dropout_input=0.05, dropout_layers=0.2, weight_decay=0.01, ema=0.99,
         clip=1.0, warmup=100, min_lr=0.05, block=8, seed=1, test=0, threads=1)
for a in sys.argv[2:]:
    k, v = a.split('='); p[k] = type(p[k])(v)
torch.manual_seed(p['seed']); random.seed(p['seed']); torch.set_num_threads(p['threads'])
LOW, N, B, T = 21, 88, p['batch'], p['chunk']
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
        self.cell, self.head = nn.GRUCell(N, p['hidden']), nn.Linear(p['hidden'], N)
        self.start = nn.Parameter(torch.zeros(p['hidden']))
        self.drop_in, self.drop = nn.Dropout(p['dropout_input']), nn.Dropout(p['dropout_layers'])
        for w in list(self.cell.parameters()) + list(self.head.parameters()): nn.init.uniform_(w, -p['hidden'] ** -0.5, p['hidden'] ** -0.5)
    def forward(self, x, begins, h):  # [T, B, N], [T, B]: the outputs, and the last state
        x, out = self.drop_in(x), []
        for t in range(len(x)):
            h = self.cell(x[t], h * ~begins[t][:, None]); out.append(h)
        return self.drop(torch.stack(out)), h
net, other = Net(), Net()
ema = {k: v.clone() for k, v in net.state_dict().items()}
opt = torch.optim.AdamW(net.parameters(), lr=p['lr'], weight_decay=p['weight_decay'])

@torch.no_grad()
def nll(net, data):  # a step, averaged over all steps; and within streams, then over them
    net.eval(); sums = []
    for x in data:
        begins = torch.zeros(len(x), 1, dtype=torch.bool); begins[0] = True
        y, _ = net(x[:, None], begins, torch.zeros(1, p['hidden']))
        sums.append((bce(net.head(torch.cat([net.start[None], y[:-1, 0]])), x, reduction='sum').item(), len(x)))
    return sum(s for s, _ in sums) / sum(n for _, n in sums), sum(s / n for s, n in sums) / len(sums)

length = math.ceil(sum(map(len, train)) / B); chunks = math.ceil(length / T)
best, step, began = None, 0, time.time()
for epoch in range(p['epochs']):
    net.train(); blocks = [train[k:k + p['block']] for k in range(0, len(train), p['block'])]; random.shuffle(blocks)
    order = [x for block in blocks for x in block]
    rows, begins = torch.cat(order), torch.cat([torch.arange(len(x)) == 0 for x in order])
    turn = random.randrange(len(rows)); rows, begins = rows.roll(-turn, 0), begins.roll(-turn, 0)
    live = torch.arange(length * B) < len(rows)
    pad = length * B - len(rows)
    rows, begins = torch.cat([rows, torch.zeros(pad, N)]), torch.cat([begins, torch.zeros(pad, dtype=torch.bool)])
    after = torch.cat([rows[1:], rows[:1]])  # what comes next, but where a chorale ends
    goes_on = live & ~torch.cat([begins[1:], begins[:1]]) & torch.cat([live[1:], live[:1]])
    goes_on[length * B - pad - 1] = False  # the epoch ends
    side = lambda x: x.reshape(B, length, *x.shape[1:]).transpose(0, 1)
    rows, begins, after, goes_on, h, total, count = side(rows), side(begins), side(after), side(goes_on), torch.zeros(B, p['hidden']), 0, 0
    for i in range(0, length, T):
        s = slice(i, i + T)
        y, h = net(rows[s], begins[s], h.detach())
        first = rows[s][begins[s]]
        told = torch.cat([y[goes_on[s]], net.start.expand(len(first), -1)])
        wanted = torch.cat([after[s][goes_on[s]], first])
        loss = bce(net.head(told), wanted, reduction='sum') / len(wanted)
        opt.zero_grad(set_to_none=False); loss.backward(); nn.utils.clip_grad_norm_(net.parameters(), p['clip'])
        through = (step - p['warmup']) / (p['epochs'] * chunks - p['warmup'])
        lr = p['lr'] * ((step + 1) / p['warmup'] if step < p['warmup'] else p['min_lr'] + (1 - p['min_lr']) * 0.5 * (1 + math.cos(math.pi * through)))
        for g in opt.param_groups: g['lr'] = lr
        opt.step(); step += 1
        for k, v in net.state_dict().items(): ema[k].lerp_(v, 1 - p['ema'])
        total += loss.item() * len(wanted); count += len(wanted)
    other.load_state_dict(ema); v = nll(other, valid)
    if best is None or v[0] < best[0]: best = (v[0], v[1], epoch + 1, {k: t.clone() for k, t in ema.items()})
    print(f'epoch {epoch + 1} loss {total / count:.4f} valid {v[0]:.4f} best {best[0]:.4f}  {time.time() - began:.0f} s', flush=True)
print('parameters', sum(t.numel() for t in net.parameters()), f'valid {best[0]:.4f} (over streams {best[1]:.4f}), epoch {best[2]}')
if p['test']:
    other.load_state_dict(best[3]); print('test: %.4f nats a step, %.4f averaged over streams' % nll(other, read('test')))
