#!/usr/bin/env python3
"""Nottingham tunes as steps of notes by kind. Usage: nottingham.py FOLDER OUTDIR (FOLDER has the *.abc.gz files)

Writes OUTDIR/train.jsonl, valid.jsonl and test.jsonl, a line a tune: {"notes": [[48, 52, 55, 67], …], "label": "jig"}.

A step is an eighth note. The melody is what sounds when the step begins (a rest: nothing); under it sounds the chord named last
("G", "Em", "A7": triad, or with 7 the seventh too) around C3. Parts are written once; of a repeat |: … :| both endings follow
each other. Grace notes, ornaments, slurs and lyrics are passed over; triplets are three in the time of two. Tunes of fewer than
16 steps, and what cannot be read, are left out and counted.

Kinds are by file: jig (jigs, slip), reel (reels*), waltz (waltzes), morris, other (ashover, hpps, playford, xmas).
Split: by the SHA-256 of the tune's title in lower case, its first byte below 26: test (a tenth), below 52: valid, else train;
so that versions of a tune under one name stay together.
"""
import glob, gzip, hashlib, json, re, sys
from fractions import Fraction as F
from pathlib import Path

KINDS = {'jigs': 'jig', 'slip': 'jig', 'waltzes': 'waltz', 'morris': 'morris'}
kind = lambda name: 'reel' if name.startswith('reels') else KINDS.get(name, 'other')
SCALE = {'C': 0, 'D': 2, 'E': 4, 'F': 5, 'G': 7, 'A': 9, 'B': 11}
SHARPS, STEP = 'FCGDAEB', F(1, 8)
FIFTHS = {'C': 0, 'G': 1, 'D': 2, 'A': 3, 'E': 4, 'B': 5, 'F#': 6, 'F': -1, 'Bb': -2, 'Eb': -3, 'Ab': -4, 'Db': -5}
MODES = {'': 0, 'maj': 0, 'm': -3, 'min': -3, 'dor': -2, 'mix': -1, 'phr': -4, 'lyd': 1, 'aeo': -3}

def key(text):
    found = re.match(r'\s*([A-G][#b]?)\s*([A-Za-z]*)', text)
    mode = MODES[found[2].lower()[:3] if found[2].lower()[:3] in MODES else found[2].lower()[:1] if found[2].lower()[:1] == 'm' else '']
    n = FIFTHS[found[1]] + mode
    return {c: 1 for c in SHARPS[:n]} if n > 0 else {c: -1 for c in SHARPS[::-1][:-n]} if n else {}

def chord(name):
    found = re.match(r'([A-G])([#b]?)(m(?!aj)|dim)?(7)?', name)
    if not found: return []
    root = (SCALE[found[1]] + {'#': 1, 'b': -1, '': 0}[found[2]]) % 12
    notes = [0, 3 if found[3] else 4, 6 if found[3] == 'dim' else 7] + ([10] if found[4] else [])
    return [48 + root + n - (12 if root > 7 else 0) for n in notes]

def length(text):
    found = re.fullmatch(r'(\d*)(/*)(\d*)', text)
    n = F(int(found[1] or 1))
    return n / int(found[3]) if found[3] else n / 2 ** len(found[2])

NOTE = re.compile(r"([_=^]*)([A-Ga-gzxZ])([,']*)(\d*/*\d*)")
def steps(lines):  # (time, duration, pitch or None, chord), then sampled
    unit, meter, signature, events, now, harmony = F(1, 8), F(1), {}, [], F(0), []
    for line in lines:
        if re.match(r'[A-Za-z]:', line):
            field, value = line[0], line[2:].split('%')[0].strip()
            if field == 'L': a, b = value.split('/'); unit = F(int(a), int(b))
            if field == 'M' and '/' in value: a, b = value.split('/'); meter = F(int(a), int(b))
            if field == 'K': signature = key(value)
            continue
        line = re.sub(r'\{[^}]*\}|![^!]*!', '', line.split('%')[0])
        accidentals, triplet, broken, at = {}, 0, None, 0
        while at < len(line):
            c = line[at]
            if c == '"':
                end = line.index('"', at + 1); harmony = chord(line[at + 1:end]) or harmony; at = end + 1; continue
            inline = re.match(r'\[([A-Z]):([^\]]*)\]', line[at:])
            if inline: at += inline.end(); continue
            if c == '|': accidentals = {}
            found = re.match(r'\((\d)', line[at:])
            if found: triplet = 3 if found[1] == '3' else 0; at += 2; continue
            if c == '[' and re.match(r'\[\d', line[at:]): at += 2; continue
            if c in '<>': broken = (F(3, 2), F(1, 2)) if c == '>' else (F(1, 2), F(3, 2))
            if c in '<>' and events:
                t, d, p, h = events[-1]; events[-1] = (t, d * broken[0], p, h); now = t + d * broken[0]; at += 1; continue
            group = re.match(r'\[([^\]|]*)\](\d*/*\d*)', line[at:])
            inner = [NOTE.match(n[0]) for n in NOTE.finditer(group[1])] if group else []
            found = inner[0] if inner else NOTE.match(line, at)
            if not found: at += 1; continue
            sign, letter, octave, long = found.groups()
            d = length(long) * (length(group[2]) if group and group[2] else 1) * unit
            if triplet: d *= F(2, 3); triplet -= 1
            if broken: d *= broken[1]; broken = None
            p = None
            if letter not in 'zxZ':
                up = letter.upper()
                if sign: accidentals[letter] = sign.count('^') - sign.count('_')
                p = 60 + SCALE[up] + (12 if letter.islower() else 0) + 12 * (octave.count("'") - octave.count(','))
                p += accidentals.get(letter, signature.get(up, 0))
            events.append((now, d, p, list(harmony))); now += d
            at = at + group.end() if inner else found.end()
    out, k = [], 0
    for i in range(int(now / STEP)):
        while k + 1 < len(events) and events[k + 1][0] <= i * STEP: k += 1
        _, _, p, h = events[k]
        out.append(sorted({n for n in h + ([p] if p is not None else []) if 36 <= n <= 96}))
    return out

out = Path(sys.argv[2]); out.mkdir(parents=True, exist_ok=True)
parts, left, kinds = {'train': [], 'valid': [], 'test': []}, 0, {}
for path in sorted(glob.glob(f'{sys.argv[1]}/*.abc.gz')):
    of = kind(Path(path).name.split('.')[0])
    for tune in re.split(r'(?m)^(?=X:)', gzip.open(path, 'rt', encoding='utf-8', errors='replace').read()):
        title = re.search(r'(?m)^T:\s*(.*?)\s*$', tune)
        if not title: continue
        try: notes = steps(tune.splitlines())
        except (KeyError, ValueError, TypeError, ZeroDivisionError): notes = []
        if len(notes) < 16: left += 1; continue
        first = hashlib.sha256(title[1].lower().encode()).digest()[0]
        parts['test' if first < 26 else 'valid' if first < 52 else 'train'].append({'notes': notes, 'label': of})
        kinds[of] = kinds.get(of, 0) + 1
for part, tunes in parts.items():
    (out / f'{part}.jsonl').write_text(''.join(json.dumps(tune) + '\n' for tune in tunes))
    print(f'{part}: {len(tunes)} tunes, {sum(len(t["notes"]) for t in tunes)} steps')
print(f'left out: {left}; kinds: {kinds}')
