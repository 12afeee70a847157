#!/usr/bin/env python3
"""Time from starting `strand run` to /readyz answering 200, with the embedded queue: for each model directory the median,
least and most of several runs, in an empty data directory and in one that a run before has left.

usage: start.py [--strand target/release/strand] [--rounds 9] [--data-dir DIR] [MODEL ...]     (default: all of models/)
"""
import argparse
import http.client
import pathlib
import signal
import socket
import statistics
import subprocess
import tempfile
import time

LIMIT_S = 30


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_ready(port):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False


def start_ms(strand, model, data_dir):
    """Milliseconds from exec to ready; the daemon is stopped afterwards."""
    port = free_port()
    command = [strand, "run", "--model", model, "--data-dir", data_dir, "--http", f"127.0.0.1:{port}"]
    began = time.perf_counter()
    daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while not is_ready(port):
            if daemon.poll() is not None:
                raise SystemExit(f"{' '.join(map(str, command))} ended with {daemon.returncode} before it was ready")
            if time.perf_counter() - began > LIMIT_S:
                raise SystemExit(f"{model}: not ready after {LIMIT_S} s")
            time.sleep(0.0005)
        return 1000 * (time.perf_counter() - began)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("models", nargs="*", type=pathlib.Path)
    arguments.add_argument("--strand", default="target/release/strand")
    arguments.add_argument("--rounds", type=int, default=9)
    arguments.add_argument("--data-dir", help="where data directories are made [default: the system's temporary one]")
    given = arguments.parse_args()
    models = given.models or sorted(path.parent for path in pathlib.Path("models").glob("*/model.toml"))
    print("model\tdata\tmedian_ms\tleast\tmost", flush=True)
    for model in models:
        first, again = [], []
        for _ in range(given.rounds):
            with tempfile.TemporaryDirectory(dir=given.data_dir) as place:
                first.append(start_ms(given.strand, model, place))
                again.append(start_ms(given.strand, model, place))
        for data, times in [("new", first), ("there", again)]:
            median = statistics.median(times)
            print(f"{model.name}\t{data}\t{median:.1f}\t{min(times):.1f}\t{max(times):.1f}", flush=True)


if __name__ == "__main__":
    main()
