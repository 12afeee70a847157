#!/usr/bin/env python3
"""The JSB chorales as JSON lines. Usage: music_jsb.py jsb-chorales-quarter.json.gz OUTDIR

Writes OUTDIR/train.jsonl, valid.jsonl and test.jsonl, a line a chorale: {"notes": [[57, 60, 65], …]}, MIDI pitches in rising
order, each once (two voices on one pitch are one note, as in the published piano rolls). The split is the data's own.
"""
import gzip, json, sys
from pathlib import Path

out = Path(sys.argv[2]); out.mkdir(parents=True, exist_ok=True)
data = json.load(gzip.open(sys.argv[1]))
for part in ['train', 'valid', 'test']:
    lines = [json.dumps({'notes': [sorted(set(step)) for step in chorale]}) for chorale in data[part]]
    (out / f'{part}.jsonl').write_text('\n'.join(lines) + '\n')
    print(f'{part}: {len(lines)} chorales, {sum(map(len, data[part]))} steps')
