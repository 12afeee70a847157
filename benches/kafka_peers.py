#!/usr/bin/env python3
"""Strand beside a Python consumer on the same broker, by turns, with as many records of as many words over as many streams.

usage: kafka_peers.py PEER [--python PYTHON] [--strand target/release/strand] [--broker own|tansu|HOST:PORT] [--rounds 5]
       [--threads 1,2] [--streams 256,10000] [--words 20,1] [--budget WORDS[,WORDS]] [--precision f32,int8]

PEER is a script that takes BOOTSTRAP --records --streams --words --threads, fills a topic and prints a line with
"N words/s". Each fills a topic of its own; neither counts that. Of Strand's side `strand bench pipeline` is the client: its
model is random, 10,000 words, embedding 100, two LSTM of 256, 32 labels. "own" is the broker of the tests
(target/release/strand-test-broker), "tansu" what tests/setup.sh fetches. Prints a table: medians, least and most, ratios.
The last part compares exactly-once with at-least-once delivery, by turns too (skip it with --no-delivery)."""
import argparse, re, shutil, socket, statistics, subprocess, sys, tempfile, time

arguments = argparse.ArgumentParser()
arguments.add_argument('peer')
arguments.add_argument('--python', default=sys.executable)
arguments.add_argument('--strand', default='target/release/strand')
arguments.add_argument('--broker', default='own')
arguments.add_argument('--rounds', type=int, default=5)
for name, default in [('threads', '1,2'), ('streams', '256,10000'), ('words', '20,1'), ('precision', 'f32,int8')]:
    arguments.add_argument('--' + name, default=default)
arguments.add_argument('--budget', default='200000', help='words of a run; one number, or one for each of --words')
arguments.add_argument('--commit-ms', type=int, default=0)
arguments.add_argument('--no-peer', action='store_true')
arguments.add_argument('--no-delivery', action='store_true')
args = arguments.parse_args()


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


NAMES = {'own': 'the broker of the tests', 'tansu': 'Tansu, in memory'}


def start_broker(kind):
    """Its address, the process to stop, and its directory to remove."""
    if kind not in NAMES:
        return kind, None, None
    address, directory = f'127.0.0.1:{free_port()}', tempfile.mkdtemp()
    if kind == 'own':
        command = ['target/release/strand-test-broker', '--dir', directory, '--listen', address]
    else:
        url = f'tcp://{address}'
        command = ['target/test-tools/tansu', 'broker', '--listener-url', url, '--advertised-listener-url', url,
                   '--storage-engine', 'memory://tansu/']
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(tuple(address.split(':'))).close()
            return address, process, directory
        except OSError:
            time.sleep(0.05)
    sys.exit(f'{NAMES[kind]} does not listen on {address}')


def output(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        sys.exit(f'{" ".join(command)}: {done.stderr[-2000:]}')
    return done.stdout


def peer(address, threads, streams, words):
    """Words a second."""
    records = max(budgets[words] // words, streams)
    text = output([args.python, args.peer, address, '--records', str(records), '--streams', str(streams), '--words', str(words),
                   '--threads', str(threads)])
    return float(re.search(r'([\d.]+) words/s', text)[1])


def strand(address, threads, streams, words, precision, delivery):
    """Words a second, and the engine's own steps a second."""
    text = output([args.strand, 'bench', 'pipeline', '--tsv', '--transports', 'kafka', '--brokers', address, '--seconds', '0',
                   '--threads', str(threads), '--streams', str(streams), '--words', str(words), '--precision', precision,
                   '--delivery', delivery, '--commit-ms', str(args.commit_ms), '--budget', str(budgets[words])])
    fields = text.strip().split('\t')
    return float(fields[8]), float(fields[12])


def told(values):
    return f'{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})'


def ratio(above, below):
    """Of the medians; least and most of the ratios of neighbouring turns."""
    turns = [a / b for a, b in zip(above, below)]
    return f'{statistics.median(above) / statistics.median(below):.2f} ({min(turns):.2f} to {max(turns):.2f})'


def numbers(text):
    return [int(n) for n in text.split(',')]


words_of_records, budgets = numbers(args.words), numbers(args.budget)
if len(budgets) not in (1, len(words_of_records)):
    sys.exit('--budget: one number, or one for each of --words')
budgets = dict(zip(words_of_records, budgets * len(words_of_records)))
broker = None


def stop_broker():
    if broker and broker[1]:
        broker[1].kill()
        broker[1].wait()
        shutil.rmtree(broker[2], ignore_errors=True)


def fresh_broker():
    """The address of a new one: what a hundred runs leave behind fills a disk."""
    global broker
    stop_broker()
    broker = start_broker(args.broker)
    return broker[0]


try:
    print(f'broker: {NAMES.get(args.broker, args.broker)}; {args.rounds} runs each, by turns; words a second: median (least to most)')
    print('threads\tstreams\twords\tprecision\tpeer\tstrand\tstrand / peer\tstrand / its engine')
    precisions = args.precision.split(',')
    one_thread = {}
    for words in words_of_records:
        for streams in numbers(args.streams):
            for threads in numbers(args.threads):
                address = fresh_broker()
                ours, engines, theirs = {p: [] for p in precisions}, {p: [] for p in precisions}, []
                for _ in range(args.rounds):
                    if not args.no_peer:
                        theirs.append(peer(address, threads, streams, words))
                    for precision in precisions:
                        speed, engine = strand(address, threads, streams, words, precision, 'exactly-once')
                        ours[precision].append(speed)
                        engines[precision].append(engine)
                for precision in precisions:
                    own = ours[precision]
                    beside = ratio(own, theirs) if theirs else '-'
                    print(f'{threads}\t{streams}\t{words}\t{precision}\t{told(theirs) if theirs else "-"}\t{told(own)}\t{beside}\t'
                          f'{ratio(own, engines[precision])}', flush=True)
                    if threads == 1:
                        one_thread[words, streams, precision] = own
                    elif (words, streams, precision) in one_thread:
                        print(f'# {threads} threads / 1: {ratio(own, one_thread[words, streams, precision])}', flush=True)
    if not args.no_delivery:
        print('words\tstreams\tprecision\texactly once\tat least once\tratio')
        for words in words_of_records:
            for streams in numbers(args.streams):
                for precision in precisions:
                    address = fresh_broker()
                    once, least = [], []
                    for _ in range(args.rounds):
                        once.append(strand(address, 1, streams, words, precision, 'exactly-once')[0])
                        least.append(strand(address, 1, streams, words, precision, 'at-least-once')[0])
                    print(f'{words}\t{streams}\t{precision}\t{told(once)}\t{told(least)}\t{ratio(once, least)}', flush=True)
finally:
    stop_broker()
