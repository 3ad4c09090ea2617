#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Measures what tcpprobe costs, beside the kernel's own tcp:tcp_probe tracepoint, in one boot.

Under vm/run's instruction clock a nanosecond of guest time is one executed instruction. What is timed is a 64-byte
echo over loopback by bench --lean and user-echo-server; what a record costs is what a round trip takes longer, by the
records that it brings (four of tcpprobe's: each end sends one segment and receives one).
"""

import contextlib
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import lib
from lib import INSTRUCTIONS, KO_DIR, QUICK, REPEATS, TOOLS, bring, write

PORT = 12346
ROUNDS = 5000 if QUICK else 20000
FILE = "/proc/net/tcpprobe"
STAT = Path("/proc/net/stat/tcpprobe_plus")
TRACING = Path("/sys/kernel/tracing")


def echo(rounds=ROUNDS, size=64, connections=1):
    """Instructions a round trip, and what of them was idle."""
    results = [lib.echo(PORT, connections, rounds, size) for _ in range(REPEATS)]
    if INSTRUCTIONS and results[0][1] > 0.005:
        print(f"  idle {results[0][1]:.2%}", file=sys.stderr)
    return statistics.median(1e9 * result["seconds"] / result["messages"] for result, _ in results)


def samples():
    words = next(line for line in STAT.read_text().splitlines() if line.startswith("Samples:")).split()[1:]
    return dict(zip(words[::2], map(int, words[1::2])))


@contextlib.contextmanager
def loaded(**params):
    subprocess.run(["insmod", KO_DIR / "tcpprobe.ko", *[f"{k}={v}" for k, v in params.items()]], check=True)
    try:
        yield
    finally:
        subprocess.run(["rmmod", "tcpprobe"], check=True)


@contextlib.contextmanager
def opened():
    """Armed, but not read."""
    fd = os.open(FILE, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def reader(path):
    """A process that copies path to nowhere."""
    process = subprocess.Popen([TOOLS / "cat", path], stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def event(name, where=None, definition=None):
    """A trace event."""
    if definition:
        (TRACING / "kprobe_events").write_text(definition)
    folder = TRACING / "events" / name
    if where:
        (folder / "filter").write_text(where)
    (folder / "enable").write_text("1")
    try:
        yield
    finally:
        (folder / "enable").write_text("0")
        if where:
            (folder / "filter").write_text("0")
        if definition:
            (TRACING / "kprobe_events").write_text("")
        (TRACING / "trace").write_text("")


def row(rows, name, cost, base, records, wanted=None):
    each = (cost - base) / records if records else cost - base
    rows.append({"what": name, "per_round_trip": round(cost), "records_per_round_trip": round(records, 2),
                 "per_record": round(each), "wanted": wanted or ""})
    print(f"  {name}: {cost:.0f} a round trip, {records:.2f} records, {each:.0f} each", file=sys.stderr)


def measure():
    bring("bench", "user-echo-server", "cat")
    server = subprocess.Popen([TOOLS / "user-echo-server", "-p", str(PORT)])
    time.sleep(0.3)
    echo(2000)
    base = echo()
    rows = []
    row(rows, "nothing loaded", base, base, 0)
    with loaded(port=PORT):
        row(rows, "loaded, nobody reads", echo(), base, 0, "0.2 %")
    with loaded(port=9), opened():
        row(rows, "another port (per packet)", echo(), base, 4, 300)
    with loaded(port=PORT, bufsize=1 << 18), opened():
        echo(1000)
        before = samples()
        cost = echo()
        after = samples()
        assert after["lost"] == before["lost"]
        row(rows, "recorded, not read", cost, base, (after["taken"] - before["taken"]) / ROUNDS / REPEATS, 900)
    with loaded(port=PORT, bufsize=1 << 16, readnum=1000), reader(FILE):
        echo(1000)
        before = samples()
        cost = echo()
        after = samples()
        lost = after["lost"] - before["lost"]
        row(rows, f"recorded and read as text ({lost} lost)", cost, base, (after["taken"] - before["taken"]) / ROUNDS / REPEATS, 5000)
    where = f"sport == {PORT} || dport == {PORT}"
    (TRACING / "buffer_size_kb").write_text("65536")
    for filtered in None, where:
        how = "of this port" if filtered else "of all, as nothing else is there"
        with event("tcp/tcp_probe", filtered):
            echo(1000)
            row(rows, f"tracepoint tcp:tcp_probe, {how}, not read (11 fields, received only)", echo(), base, 2)
        with event("tcp/tcp_probe", filtered), reader(TRACING / "trace_pipe"):
            echo(1000)
            row(rows, f"tracepoint tcp:tcp_probe, {how}, read as text", echo(), base, 2)
    with event("kprobes/established", definition="p:kprobes/established tcp_rcv_established"):
        echo(1000)
        row(rows, "kprobe event without fields at tcp_rcv_established, not read", echo(), base, 2)
    bulk = 200 if QUICK else 600
    echo(20, 1 << 20)
    base = echo(bulk, 1 << 20)
    row(rows, "1 MiB messages, nothing loaded", base, base, 0)
    with loaded(port=PORT, bufsize=1 << 18), opened():
        cost = echo(bulk, 1 << 20)
        row(rows, f"1 MiB messages, recorded with full=1: {100 * (cost / base - 1):.1f} % more", cost, base, 0, "8 %")
    with loaded(port=PORT, bufsize=1 << 16, readnum=1000), reader(FILE):
        cost = echo(bulk, 1 << 20)
        row(rows, f"1 MiB messages, the same and read as text: {100 * (cost / base - 1):.1f} % more", cost, base, 0, "8 %")
    server.terminate()
    return rows


def paced():
    """20,000 records a second into 10,000 places, by a reader that wakes every 10 ms: what is lost."""
    with loaded(port=PORT, bufsize=10000, readnum=1):
        server = subprocess.Popen([TOOLS / "user-echo-server", "-p", str(PORT)])
        time.sleep(0.3)
        with opened() as fd:
            os.set_blocking(fd, False)
            stop = False

            def run():
                while not stop:
                    time.sleep(0.01)
                    with contextlib.suppress(BlockingIOError):
                        while os.read(fd, 1 << 18):
                            pass

            thread = threading.Thread(target=run)
            thread.start()
            began = time.monotonic()
            echo(10000)
            took = time.monotonic() - began
            time.sleep(0.1)
            stop = True
            thread.join()
            found = samples()
        server.terminate()
    return f"Paced reader: {found['taken'] / took:,.0f} records a second for {took:.1f} s, {found['lost']} lost, " \
           f"{found['missed']} missed."


def main():
    rows = measure()
    unit = "instructions" if INSTRUCTIONS else "ns (median of five, noisy)"
    lines = [f"| what | {unit} a round trip | records | {unit} a record | wanted |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {r['what']} | {r['per_round_trip']:,} | {r['records_per_round_trip']} | {r['per_record']:,} | "
              f"{'<= ' + str(r['wanted']) if r['wanted'] else ''} |" for r in rows]
    write(rows, lines, f"{paced()} 64-byte echo over loopback, one connection.")


if __name__ == "__main__":
    main()
