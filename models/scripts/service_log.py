#!/usr/bin/env python3
"""Logs of an imaginary service, as event streams, with and without faults. Usage: service_log.py --out runs/service-log

A stream is one client's session: it connects, logs in, asks for things (from a cache or from a database, with retries
after timeouts), takes and gives back locks, and leaves. What may happen next depends on more than the last event: a reply
is of its request's kind, a retry repeats its request, three timeouts end a request, and no lock is left behind.

train.jsonl, dev.jsonl      clean: {"tokens": […]}
test.jsonl                  one session in four has one fault: {"tokens": […], "labels": […], "fault": …}
test-KIND.jsonl             every session has a fault of this kind

Faults: missing (an event is left out), order (two neighbours change places), unknown (an event that no clean log has),
burst (an event is repeated two to five times). The first event that is wrong is labelled `surprising`: the one after a gap, the
first of two that changed places, the unknown one, the first repetition. What comes right after it, in the fault's wake, is
labelled `-`: nothing is said of it. All else is `normal`. A fault that makes no illegal sequence (leaving out an optional
event, say) is not one: the grammar is asked.
"""
import argparse, json, random
from pathlib import Path

KINDS = ["get", "put", "list"]
WAKE = 3


def request(r, out):
    """One request, with retries."""
    kind = r.choices(KINDS, [6, 3, 2])[0]
    lock = kind == "put"
    if lock:
        out.append("lock")
    out.append(f"request_{kind}")
    for attempt in range(3):
        if kind != "put" and r.random() < 0.5:
            out.append("cache_hit")
            break
        out += (["cache_miss"] if kind != "put" else []) + ["db_query"]
        if r.random() < 0.1:
            out.append("db_slow")
        if r.random() < 0.92:
            out.append("db_rows")
            break
        out.append("timeout")
        if attempt == 2:
            out += ["give_up"] + (["unlock"] if lock else [])
            return
        out += ["retry", f"request_{kind}"]
    out.append(f"reply_{kind}")
    if lock:
        out.append("unlock")


def session(r):
    out = ["connect"]
    tls = r.random() < 0.7
    if tls:
        out += ["tls_hello", "tls_done"]
    out.append("login")
    while r.random() < 0.08:
        out += ["login_refused", "login"]
    out.append("login_ok")
    for _ in range(r.randint(2, 9)):
        request(r, out)
        if r.random() < 0.15:
            out += ["ping", "pong"]
    return out + ["logout"] + (["tls_bye"] if tls else []) + ["disconnect"]


def legal(events):
    """How many events from the start could be those of a clean session; all of them, if it is one."""
    state, kind, attempts, lock, tls, requests = "new", None, 0, False, False, 0
    for k, e in enumerate(events):
        nxt = None
        if state == "new":
            nxt = {"connect": "connected"}.get(e)
        elif state == "connected":
            nxt = {"tls_hello": "hello", "login": "login"}.get(e)
        elif state == "hello":
            nxt = {"tls_done": "secure"}.get(e)
            tls = True
        elif state in ("secure", "refused"):
            nxt = {"login": "login"}.get(e)
        elif state == "login":
            nxt = {"login_refused": "refused", "login_ok": "idle"}.get(e)
        elif state in ("idle", "ponged"):
            if e == "lock" and requests < 9:
                nxt, lock = "locked", True
            elif e in ("request_get", "request_list") and requests < 9:
                nxt, kind, attempts = "asked", e[8:], 0
            elif e == "ping" and requests and state != "ponged":
                nxt = "pinged"
            elif e == "logout" and requests >= 2:
                nxt = "leaving"
        elif state == "pinged":
            nxt = {"pong": "ponged"}.get(e)
        elif state == "locked":
            if e == "request_put":
                nxt, kind, attempts = "asked", "put", 0
        elif state == "asked":
            if kind == "put":
                nxt = {"db_query": "query"}.get(e)
            else:
                nxt = {"cache_hit": "answered", "cache_miss": "missed"}.get(e)
        elif state == "missed":
            nxt = {"db_query": "query"}.get(e)
        elif state in ("query", "slow"):
            nxt = {"db_rows": "answered", "timeout": "timeout"}.get(e)
            if e == "db_slow" and state == "query":
                nxt = "slow"
        elif state == "timeout":
            attempts += 1
            nxt = ({"give_up": "over"} if attempts == 3 else {"retry": "retry"}).get(e)
        elif state == "retry":
            nxt = {f"request_{kind}": "asked"}.get(e)
        elif state == "answered":
            nxt = {f"reply_{kind}": "over"}.get(e)
        elif state == "unlock":
            nxt, lock = {"unlock": "idle"}.get(e), False
        elif state == "leaving":
            nxt = {"tls_bye" if tls else "disconnect": "bye" if tls else "end"}.get(e)
        elif state == "bye":
            nxt = {"disconnect": "end"}.get(e)
        if nxt is None:
            return k
        state = nxt
        if state == "over":
            requests += 1
            state = "unlock" if lock else "idle"
    return len(events)


def faulty(r, kind):
    """A session with a fault of this kind, and its labels."""
    while True:
        events = session(r)
        at = r.randrange(1, len(events) - 1)
        if kind == "missing":
            events, wrong, touched = events[:at] + events[at + 1 :], at, 1
        elif kind == "order":
            events[at], events[at + 1] = events[at + 1], events[at]
            wrong, touched = at, 2
        elif kind == "unknown":
            events, wrong, touched = events[:at] + [f"{r.choice(['panic', 'core_dump', 'oom', 'segv'])}"] + events[at:], at, 1
        else:
            times = r.randint(2, 5)
            events, wrong, touched = events[:at] + [events[at]] * times + events[at:], at + 1, times
        if legal(events) == wrong:
            wake = range(wrong + 1, min(wrong + touched + WAKE, len(events)))
            labels = ["normal"] * len(events)
            labels[wrong] = "surprising"
            for k in wake:
                labels[k] = "-"
            return {"tokens": events, "labels": labels, "fault": kind}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--seed", type=int, default=1)
    a = ap.parse_args()
    out = Path(a.out)
    out.mkdir(parents=True, exist_ok=True)
    r = random.Random(a.seed)
    write = lambda name, rows: (out / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    clean = lambda n: [{"tokens": session(r)} for _ in range(n)]
    train, dev = clean(6000), clean(3000)
    assert all(legal(row["tokens"]) == len(row["tokens"]) for row in train + dev)
    write("train.jsonl", train)
    write("dev.jsonl", dev)
    kinds = ["missing", "order", "unknown", "burst"]
    rows = []
    for k in range(2000):
        if k % 4 == 0:
            rows.append(faulty(r, kinds[k // 4 % 4]))
        else:
            tokens = session(r)
            rows.append({"tokens": tokens, "labels": ["normal"] * len(tokens)})
    write("test.jsonl", rows)
    for kind in kinds:
        write(f"test-{kind}.jsonl", [faulty(r, kind) for _ in range(300)])
    print(sum(len(row["tokens"]) for row in train), "events to train on,", sum(len(row["tokens"]) for row in rows), "to test on")


if __name__ == "__main__":
    main()
