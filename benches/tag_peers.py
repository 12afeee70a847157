#!/usr/bin/env python3
"""Words a second of `strand tag` beside spaCy, on one thread, by turns.

usage: tag_peers.py TEXT [--strand target/release/strand] [--model models/ner-en] [--rounds 5] [--cpu 0] [--peer-python PYTHON]
TEXT is a file of running text, a sentence or paragraph a line. `strand tag` reads it as one stream (strand) and line by line
as streams of their own (strand-lines); spaCy reads it line by line with nlp.pipe, once with all of its pipeline
(spacy-all) and once with tok2vec and ner alone (spacy-ner). Words are counted by each side's own tokens; loading the
model counts for neither: it is measured with an empty text and taken off.

All run on one processor (--cpu) and are measured by processor time, which on one thread of a quiet machine is the time that
passes, and on a busy one does not count the others. The peer is a process of its own that is handed the text anew each round. Prints TSV: what,
words a second (median, least, most); then ratios, strand over each peer."""
import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile

PEER = r'''
import sys, time, json, importlib
package, path = sys.argv[1], sys.argv[2]
texts = [line.strip() for line in open(path, encoding='utf-8') if line.strip()]
nlp = importlib.import_module(package).load()
keep = {'all': nlp.pipe_names, 'ner': [n for n in ('tok2vec', 'transformer', 'ner') if n in nlp.pipe_names]}
for request in sys.stdin:
    with nlp.select_pipes(enable=keep[request.strip()]):
        began = time.process_time()
        words = sum(len(doc) for doc in nlp.pipe(texts, batch_size=256))
        print(json.dumps([words, time.process_time() - began]), flush=True)
'''


class Peer:
    def __init__(self, python, package, text, one_thread):
        command = one_thread + [python, '-c', PEER, package, text]
        env = dict(os.environ, OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1', MKL_NUM_THREADS='1')
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)

    def rate(self, pipes):
        self.process.stdin.write(pipes + '\n')
        self.process.stdin.flush()
        words, seconds = json.loads(self.process.stdout.readline())
        return words / seconds

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def tag(args, text, what, one_thread, out):
    """Seconds of the processor that `strand tag` takes; `what` is strand, -lines, and a precision."""
    command = one_thread + [args.strand, 'tag', '--model', args.model, '--threads', '1', '--output', 'conll']
    command += ['--format', 'text'] + (['--lines'] if '-lines' in what else [])
    precision = what.rpartition(':')[2] if ':' in what else None
    command += ['--precision', precision] if precision else []
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(out, 'wb') as file:
        subprocess.run(command + [text], stdout=file, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def rounds(args):
    one_thread = ['taskset', '-c', str(args.cpu)]
    ours = [what + precision for precision in [''] + [f':{p}' for p in args.precisions.split(',') if p]
            for what in ('strand', 'strand-lines')]
    rates = {what: [] for what in ours}
    peer = None
    if args.peer_python:
        peer = Peer(args.peer_python, args.peer_package, args.text, one_thread)
        rates |= {'spacy-all': [], 'spacy-ner': []}
        for pipes in ('all', 'ner'):
            peer.rate(pipes)
    with tempfile.TemporaryDirectory() as scratch:
        out, empty = os.path.join(scratch, 'out'), os.path.join(scratch, 'empty.txt')
        open(empty, 'w').close()
        for _ in range(args.rounds):
            for what in rates:
                if what.startswith('spacy'):
                    rate = peer.rate(what.removeprefix('spacy-'))
                else:
                    start = min(tag(args, empty, what, one_thread, out) for _ in range(3))
                    seconds = tag(args, args.text, what, one_thread, out) - start
                    with open(out, 'rb') as file:
                        rate = sum(line != b'\n' for line in file) / seconds
                rates[what].append(rate)
                print(f'{what}\t{rate:.0f}', file=sys.stderr, flush=True)
    if peer:
        peer.close()
    return rates


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('text')
    parser.add_argument('--strand', default='target/release/strand')
    parser.add_argument('--model', default='models/ner-en')
    parser.add_argument('--precisions', default='', help='also with `--precision` bf16, int8')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--cpu', type=int, default=0)
    parser.add_argument('--peer-python', help='a Python with spaCy; absent: strand alone')
    parser.add_argument('--peer-package', default='en_core_web_sm')
    args = parser.parse_args()
    rates = rounds(args)
    print('what\twords_per_s\tleast\tmost')
    for what, all_of in rates.items():
        print(f'{what}\t{statistics.median(all_of):.0f}\t{min(all_of):.0f}\t{max(all_of):.0f}')
    print('ratio\tmedian\tleast\tmost')
    for ours in (what for what in rates if what.startswith('strand')):
        for theirs in rates:
            if theirs.startswith('spacy'):
                ratios = [a / b for a, b in zip(rates[ours], rates[theirs])]
                print(f'{ours}/{theirs}\t{statistics.median(ratios):.2f}\t{min(ratios):.2f}\t{max(ratios):.2f}')


if __name__ == '__main__':
    main()
