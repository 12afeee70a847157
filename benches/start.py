#!/usr/bin/env python3
"""From exec to ready: how long `strand run` takes, with the embedded queue, until GET /readyz answers 200.

usage: start.py [--strand target/release/strand] [--models DIR ...] [--runs 7]
Each run is a process of its own, first with a new data directory, then with the one left behind. Prints TSV:
model, MB of weights, milliseconds fresh (median, least, most), milliseconds again (median, least, most)."""
import argparse
import glob
import http.client
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

HEAD = ['model', 'MB', 'fresh_ms', 'least', 'most', 'again_ms', 'least', 'most']


def ready_after(strand, model, data):
    """Seconds until ready, or what the daemon said instead of starting."""
    command = [strand, 'run', '--model', model, '--data-dir', data, '--http', '127.0.0.1:0', '--log-format', 'text']
    began = time.perf_counter()
    daemon = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        said, address = '', None
        for line in daemon.stderr:
            said += line
            address = re.search(r'listening on http://([\d.:]+)/', line)
            if address:
                break
        if not address:
            return None, said.strip().splitlines()[-1] if said.strip() else 'it ended without a word'
        while True:
            connection = http.client.HTTPConnection(address[1], timeout=10)
            connection.request('GET', '/readyz')
            if connection.getresponse().status == 200:
                return time.perf_counter() - began, None
            connection.close()
            time.sleep(0.0005)
    finally:
        daemon.terminate()
        daemon.stderr.close()
        daemon.wait()


def measure(strand, model, runs):
    """Fresh and again, each milliseconds of all runs; or why not."""
    times = ([], [])
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as data:
            for times_of in times:
                seconds, refusal = ready_after(strand, model, data)
                if refusal:
                    return None, refusal
                times_of.append(seconds * 1e3)
    return times, None


def rows(strand, models, runs):
    for model in models:
        times, refusal = measure(strand, model, runs)
        name = os.path.basename(model.rstrip('/'))
        if refusal:
            print(f'{name}: {refusal}', file=sys.stderr)
            continue
        size = os.path.getsize(os.path.join(model, 'weights.safetensors')) / 1e6
        cells = [f(of) for of in times for f in (statistics.median, min, max)]
        yield [name, f'{size:.1f}'] + [f'{cell:.1f}' for cell in cells]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--strand', default='target/release/strand')
    parser.add_argument('--models', nargs='*')
    parser.add_argument('--runs', type=int, default=7)
    args = parser.parse_args()
    models = args.models or sorted(os.path.dirname(path) for path in glob.glob('models/*/model.toml'))
    print('\t'.join(HEAD), flush=True)
    for row in rows(args.strand, models, args.runs):
        print('\t'.join(row), flush=True)


if __name__ == '__main__':
    main()
