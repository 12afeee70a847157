#!/usr/bin/env python3
"""Runs the benches beside their peers, by turns, and writes the tables of docs/PERFORMANCE.md.

usage: performance.py [--only engine,train,tag,start,scaling,kafka,pipeline] [--rounds 5] [--quick] [--raw FILE]
         [--peer-python PYTHON] [--rnn-speed rnn_speed.py] [--train-speed train_speed.py] [--text TEXT]
         [--spacy-python PYTHON] [--kafka-command 'COMMAND ...'] [--pipeline-command 'COMMAND ...'] [--strand target/release/strand] [--doc docs/PERFORMANCE.md]

Peers: rnn_speed.py and train_speed.py print the same TSV lines as `strand bench engine` and `strand bench train`; without
them a table has our own figures alone. A table stands between <!-- begin NAME --> and <!-- end NAME -->; all else in the
document is left as it is. Rounds go A B A B, and a ratio is of the two runs of one round."""
import argparse
import io
import os
import platform
import re
import statistics
import subprocess
import sys
from collections import defaultdict

import start
import tag_peers

SECTIONS = ['machine', 'engine', 'train', 'tag', 'start', 'scaling', 'kafka', 'pipeline']
# These need a command of their own.
ON_REQUEST = ['kafka', 'pipeline']
OURS = ['strand', 'strand-bf16', 'strand-int8']
FLOATS = ['torch', 'ort']


class Failed(Exception):
    pass


def lines_of(command, raw, what):
    """The tab-separated lines that a command prints, each also in the raw file."""
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode != 0:
        raise Failed(f'{" ".join(command)}: exit code {result.returncode}')
    rows = []
    for line in result.stdout.splitlines():
        if line.startswith('[torch.onnx]') or '\t' not in line:
            continue
        raw.write(f'{what}\t{line}\n')
        raw.flush()
        rows.append(line.split('\t'))
    return rows


def table(head, rows):
    text = ['| ' + ' | '.join(head) + ' |', '|' + ' --- |' * len(head)]
    return '\n'.join(text + ['| ' + ' | '.join(str(cell) for cell in row) + ' |' for row in rows])


def count(x):
    """Three digits that matter."""
    for limit, unit in [(1e6, 'M'), (1e3, 'k')]:
        if x >= limit:
            return f'{x / limit:.3g} {unit}'
    return f'{x:.3g}'


def ratio(ratios):
    """Median and spread of the rounds' ratios."""
    if not ratios:
        return '–'
    return f'{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})'


def machine(args, raw):
    """By its features: instruction sets, cores, caches, memory."""
    info, flags = '', set()
    if os.path.exists('/proc/cpuinfo'):
        with open('/proc/cpuinfo') as file:
            info = file.read()
        flags = set(re.search(r'^(?:flags|Features)\s*:\s*(.*)$', info, re.M)[1].split())
    named = {'avx2': 'AVX2', 'fma': 'FMA', 'avx512f': 'AVX-512', 'avx512_vnni': 'VNNI', 'avx_vnni': 'AVX-VNNI',
             'avx512_bf16': 'AVX-512 BF16', 'amx_tile': 'AMX', 'asimd': 'NEON', 'sve': 'SVE'}
    caches, base = [], '/sys/devices/system/cpu/cpu0/cache'
    for index in sorted(os.listdir(base)) if os.path.isdir(base) else []:
        def read(name):
            with open(f'{base}/{index}/{name}') as file:
                return file.read().strip()
        if index.startswith('index') and read('type') != 'Instruction':
            caches.append(f'L{read("level")} {read("size")}')
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
    parts = [platform.machine(), f'{os.cpu_count()} processors', f'{memory:.0f} GiB',
             ', '.join(name for flag, name in named.items() if flag in flags), ', '.join(caches)]
    return '; '.join(part for part in parts if part)


def engine(args, raw):
    """Steps a second by model, workload and threads, beside the peers; the share of the roofline."""
    ours = [args.strand, 'bench', 'engine', '--threads', args.threads, '--models', args.models]
    ours += ['--seconds', '0.3'] if args.quick else []
    peers = None
    if args.rnn_speed:
        peers = [args.peer_python, args.rnn_speed, '--threads', args.threads, '--models', args.models]
        peers += ['--quick'] if args.quick else []
    # By model, workload and threads, then by peer: steps a second of each round.
    speeds, shares = defaultdict(lambda: defaultdict(dict)), defaultdict(list)
    columns = {}
    for k in range(args.rounds):
        for command in [ours] + ([peers] if peers else []):
            for row in lines_of(command, raw, f'engine\t{k}'):
                if row[0] == 'model':
                    columns = {name: at for at, name in enumerate(row)} if command is ours else columns
                    continue
                if row[0] == '-':
                    continue
                model, work, peer, threads, median = row[:5]
                speeds[model, work, threads][peer][k] = float(median)
                if command is ours and 'roofline' in columns and len(row) > columns['roofline']:
                    share = row[columns['roofline']]
                    bound = row[columns['bound']] if 'bound' in columns and len(row) > columns['bound'] else ''
                    shares[model, work, threads, peer].append((float(share), bound))
    tables = []
    for threads in args.threads.split(','):
        rows = []
        for (model, work, of), by_peer in speeds.items():
            if of != threads:
                continue
            rounds = range(args.rounds)
            best = {k: max(by_peer[p][k] for p in FLOATS if k in by_peer[p]) for k in rounds
                    if any(k in by_peer[p] for p in FLOATS)}
            int8 = by_peer.get('ort-int8', {})
            row = [model, work]
            row += [count(statistics.median(by_peer[p].values())) if by_peer[p] else '–'
                    for p in FLOATS + ['ort-int8'] + OURS]
            row += [ratio([by_peer['strand'][k] / best[k] for k in best if k in by_peer['strand']])]
            row += [ratio([by_peer[p][k] / int8[k] for k in int8 if k in by_peer[p]]) for p in OURS[1:]]
            row += [ratio([by_peer['strand-int8'][k] / by_peer['strand'][k] for k in by_peer['strand-int8']])]
            for peer in OURS:
                of_peer = shares.get((model, work, threads, peer))
                if not of_peer:
                    row.append('–')
                    continue
                share = statistics.median(share for share, _ in of_peer)
                row.append(f'{share * 100:.0f} % {of_peer[0][1]}'.strip())
            rows.append(row)
        head = ['model', 'workload', 'torch', 'ort', 'ort-int8', 'f32', 'bf16', 'int8', 'f32 / faster of torch, ort',
                'bf16 / ort-int8', 'int8 / ort-int8', 'int8 / f32', 'roofline f32', 'bf16', 'int8']
        if rows:
            tables.append(f'{threads} thread{"" if threads == "1" else "s"}, steps/s:\n\n' + table(head, rows))
    pairs = []
    for (model, work, threads), by_peer in speeds.items():
        one = speeds.get((model, work, '1'))
        if threads == '2' and one:
            both = [one['strand'], by_peer['strand']]
            ratios = [both[1][k] / both[0][k] for k in both[1] if k in both[0]]
            pairs.append([model, work] + [count(statistics.median(of.values())) for of in both] + [ratio(ratios)])
    if pairs:
        head = ['model', 'workload', 'one thread', 'two', 'ratio']
        tables.append('Two threads over one, f32 (B1T1024: one stream, its layers as a wavefront):\n\n' + table(head, pairs))
    quick = ', measurements of 0.3 s (`--quick`)' if args.quick else ''
    return f'Medians of {args.rounds} rounds by turns{quick}.\n\n' + '\n\n'.join(tables)


def train(args, raw):
    """Words a second of training beside PyTorch."""
    speeds = defaultdict(dict)
    commands = [[args.strand, 'bench', 'train', '--threads', args.threads]]
    if args.train_speed:
        commands.append([args.peer_python, args.train_speed] + args.threads.split(','))
    for k in range(args.rounds):
        for command in commands:
            for row in lines_of(command, raw, f'train\t{k}'):
                speeds[row[2], row[1]][k] = float(row[3].split()[0])
    rows = []
    for threads in args.threads.split(','):
        ours, theirs = speeds[threads, 'strand'], speeds[threads, 'torch']
        median = [count(statistics.median(of.values())) if of else '–' for of in (ours, theirs)]
        rows.append([threads] + median + [ratio([ours[k] / theirs[k] for k in theirs])])
    return table(['threads', 'strand, words/s', 'torch, words/s', 'ratio (least–most)'], rows)


def tag(args, raw):
    """Words a second of `strand tag` beside spaCy."""
    if not args.text:
        raise Failed('give --text FILE: running text, a sentence or paragraph a line')
    of_tag = argparse.Namespace(text=args.text, strand=args.strand, model='models/ner-en', rounds=args.rounds, cpu=0,
                                precisions=args.tag_precisions,
                                peer_python=args.spacy_python, peer_package=args.spacy_package)
    rates = tag_peers.rounds(of_tag)
    for what, all_of in rates.items():
        raw.writelines(f'tag\t{k}\t{what}\t{rate:.0f}\n' for k, rate in enumerate(all_of))
    rows = []
    for what, all_of in rates.items():
        spread = f'{count(min(all_of))}–{count(max(all_of))}'
        over = ['–', '–'] if what.startswith('spacy') else [
            ratio([a / b for a, b in zip(all_of, rates.get(f'spacy-{pipes}', []))]) for pipes in ('ner', 'all')]
        rows.append([what, count(statistics.median(all_of)), spread] + over)
    return table(['what', 'words/s', 'least–most', 'over spaCy, ner alone', 'over spaCy, its whole pipeline'], rows)


def start_time(args, raw):
    """From exec to ready with each shipped model."""
    models = sorted(f'models/{name}' for name in os.listdir('models') if os.path.exists(f'models/{name}/model.toml'))
    rows = list(start.rows(args.strand, models, max(args.rounds, 3)))
    raw.writelines('start\t' + '\t'.join(row) + '\n' for row in rows)
    shown = [[row[0], row[1], f'{row[2]} ({row[3]}–{row[4]})', f'{row[5]} ({row[6]}–{row[7]})'] for row in rows]
    return table(['model', 'MB', 'new data directory, ms (least–most)', 'data directory of before, ms'], shown)


def scaling(args, raw):
    """Cost of a step as things grow; pictures beside the document."""
    images = os.path.join(os.path.dirname(args.doc), 'images')
    command = [args.strand, 'bench', 'scaling', '--plot', images] + (['--quick'] if args.quick else [])
    axes, name = {}, None
    for row in lines_of(command, raw, 'scaling'):
        if row[0] == 'axis':
            head = row[1:]
            continue
        axes.setdefault(row[0], (head, []))[1].append(row[1:])
    parts = []
    for name, (head, rows) in axes.items():
        named = [head[0], 'ns a step', 'least', 'most', head[4].replace('_', ' '), 'over linear']
        parts.append(f'![{name}](images/scaling-{name}.svg)\n\n' + table(named, rows))
    return '\n\n'.join(parts)


def kafka(args, raw):
    """The tables that kafka_peers.py prints."""
    if not args.kafka_command:
        raise Failed('give --kafka-command, such as "python3 benches/kafka_peers.py kafka_consumer.py --rounds 5"')
    result = subprocess.run(args.kafka_command.split(), stdout=subprocess.PIPE, text=True)
    if result.returncode != 0:
        raise Failed(f'{args.kafka_command}: exit code {result.returncode}')
    parts, head, rows, notes = [], None, [], []
    for line in result.stdout.splitlines() + ['end\tof\tall']:
        raw.write(f'kafka\t{line}\n')
        cells = line.split('\t')
        if line.startswith('# '):
            notes.append(rows[-1][:4] + [line.split(': ', 1)[1]])
        elif len(cells) == 1:
            parts.append(line + '.')
        elif not cells[0].isdigit():
            if head:
                parts.append(table(head, rows))
            if notes:
                parts.append('Two threads over one:\n\n' + table(head[:4] + ['ratio'], notes))
            head, rows, notes = cells, [], []
        else:
            rows.append(cells)
    return '\n\n'.join(parts)


def pipeline(args, raw):
    """Whatever `strand bench pipeline` prints, as a table: the median of the rounds for each row."""
    if not args.pipeline_command:
        raise Failed('give --pipeline-command, such as "target/release/strand bench pipeline --brokers HOST:PORT"')
    head, cells = None, {}
    for k in range(args.rounds):
        rows = lines_of(args.pipeline_command.split(), raw, f'pipeline\t{k}')
        head = rows[0]
        for at, row in enumerate(rows[1:]):
            cells.setdefault(at, []).append(row)

    def middle(values):
        try:
            return f'{statistics.median(float(value) for value in values):.4g}'
        except ValueError:
            return values[0]
    return table(head, [[middle(column) for column in zip(*rounds)] for rounds in cells.values()])


MEASURE = {'machine': machine, 'engine': engine, 'train': train, 'tag': tag, 'start': start_time, 'scaling': scaling,
           'kafka': kafka, 'pipeline': pipeline}


def put(doc, name, text):
    """Writes `text` between the markers of `name`."""
    with open(doc, encoding='utf-8') as file:
        all_of = file.read()
    begin, end = f'<!-- begin {name} -->', f'<!-- end {name} -->'
    if begin not in all_of or end not in all_of:
        raise Failed(f'{doc} has no place {begin} … {end}')
    before, after = all_of.split(begin)[0], all_of.split(end)[1]
    with open(doc, 'w', encoding='utf-8') as file:
        file.write(f'{before}{begin}\n{text}\n{end}{after}')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', default=','.join(name for name in SECTIONS if name not in ON_REQUEST), help='sections: ' + ', '.join(SECTIONS))
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--threads', default='1,2')
    parser.add_argument('--models', default='S,M,L,Mgru')
    parser.add_argument('--raw', help='all lines of all runs go to this file too')
    parser.add_argument('--strand', default='target/release/strand')
    parser.add_argument('--doc', default='docs/PERFORMANCE.md')
    parser.add_argument('--peer-python', default=sys.executable)
    parser.add_argument('--rnn-speed', help='path of rnn_speed.py')
    parser.add_argument('--train-speed', help='path of train_speed.py')
    parser.add_argument('--text', help='running text for `strand tag`')
    parser.add_argument('--tag-precisions', default='', help='`strand tag` also with these: bf16,int8')
    parser.add_argument('--spacy-python', help='a Python with spaCy')
    parser.add_argument('--spacy-package', default='en_core_web_sm')
    parser.add_argument('--kafka-command', help='what prints the tables beside the Python consumer')
    parser.add_argument('--pipeline-command', help='what prints the lines of the pipeline section')
    args = parser.parse_args()
    wanted = args.only.split(',')
    unknown = [name for name in wanted if name not in SECTIONS]
    if unknown:
        parser.error(f'--only {",".join(unknown)}: there are {", ".join(SECTIONS)}')
    raw = open(args.raw, 'a', encoding='utf-8') if args.raw else io.StringIO()
    failed = False
    for name in SECTIONS:
        if name not in wanted:
            continue
        print(f'{name} …', file=sys.stderr, flush=True)
        try:
            put(args.doc, name, MEASURE[name](args, raw))
        except Failed as error:
            failed = True
            print(f'{name}: {error}', file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main()
