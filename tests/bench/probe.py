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
from lib import IDLE_MAX, INSTRUCTIONS, KO_DIR, QUICK, REPEATS, TOOLS, bring, pinned, spread, write

PORT = 12346
ROUNDS = 5000 if QUICK else 20000
RING = 1 << 19  # records of one CPU: what one that has all of the traffic makes of all repetitions, unread
FILE = "/proc/net/tcpprobe"
STAT = Path("/proc/net/stat/tcpprobe_plus")
TRACING = Path("/sys/kernel/tracing")
INSTANCE = TRACING / "instances" / "knet_bench"  # with buffers and switches that are nobody else's
TRACEPOINT, OF_ALL = "tracepoint tcp:tcp_probe", "of all, as nothing else is there"
idle = []  # of what was measured, too much


class Cost(float):
    """Instructions a round trip, the median of what was measured, and the least and the most of it."""

    def __new__(cls, values):
        cost = super().__new__(cls, statistics.median(values))
        cost.least, cost.most = min(values), max(values)
        return cost


def echo(rounds=ROUNDS, size=64, connections=1):
    """The Cost of a round trip."""
    results = [lib.echo(PORT, connections, rounds, size) for _ in range(REPEATS)]
    if INSTRUCTIONS and results[0][1] > IDLE_MAX:
        print(f"  idle {results[0][1]:.2%}", file=sys.stderr)
        idle.append(results[0][1])
    return Cost([1e9 * result["seconds"] / result["messages"] for result, _ in results])


@contextlib.contextmanager
def echo_server():
    with subprocess.Popen([*pinned("server"), TOOLS / "user-echo-server", "-p", str(PORT)]) as process:
        time.sleep(0.3)
        try:
            yield
        finally:
            process.terminate()


@contextlib.contextmanager
def tracing():
    """An instance of tracefs, of 64 MiB a CPU, but of no more than 1 GiB in all."""
    INSTANCE.mkdir()
    try:
        (INSTANCE / "buffer_size_kb").write_text(str(min(65536, (1 << 20) // os.cpu_count())))
        yield
    finally:
        INSTANCE.rmdir()


def define(text):
    """Adds to the machine's own kprobe events, or takes back from them."""
    fd = os.open(TRACING / "kprobe_events", os.O_WRONLY | os.O_APPEND)  # open() would seek to its end, which it has not
    try:
        os.write(fd, text.encode() + b"\n")
    finally:
        os.close(fd)


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
    process = subprocess.Popen([*pinned("client"), TOOLS / "cat", path], stdout=subprocess.DEVNULL)
    time.sleep(0.5)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def recorded():
    """What the instance's rings have taken since they were last cleared: what is in them, what was read, and what has made way."""
    counts = {"entries": 0, "overrun": 0, "read events": 0}
    for stats in (INSTANCE / "per_cpu").glob("cpu*/stats"):
        for line in stats.read_text().splitlines():
            name, _, value = line.partition(": ")
            if name in counts:
                counts[name] += int(value)
    return sum(counts.values()), counts["overrun"]


def traced():
    """What a round trip costs under an event, and the records that it makes; how many made way for others although somebody reads."""
    echo(1000)
    before = recorded()
    cost = echo()
    after = recorded()
    return cost, (after[0] - before[0]) / ROUNDS / REPEATS, after[1] - before[1]


@contextlib.contextmanager
def event(name, where=None, definition=None):
    """A trace event."""
    if definition:
        define(f"p:{name} {definition}")
    folder = INSTANCE / "events" / name
    if where:
        (folder / "filter").write_text(where)
    (folder / "enable").write_text("1")
    try:
        yield
    finally:
        (folder / "enable").write_text("0")
        if where:
            (folder / "filter").write_text("0")
        (INSTANCE / "trace").write_text("")
        if definition:
            define(f"-:{name}")


def row(rows, name, cost, base, records, wanted=None):
    each = (cost - base) / records if records else cost - base
    rows.append({"what": name, "per_round_trip": round(cost), "more": round(cost - base), "records_per_round_trip": round(records, 2),
                 "per_record": round(each), "wanted": wanted or "", "least": round(cost.least), "most": round(cost.most)})
    print(f"  {name}: {cost:.0f} a round trip, {cost - base:.0f} more, {records:.2f} records, {each:.0f} each", file=sys.stderr)


def measure():
    echo(2000)
    base = echo()
    rows = []
    row(rows, "nothing loaded", base, base, 0)
    with loaded(port=PORT):
        row(rows, "loaded, nobody reads", echo(), base, 0, "0.2 %")
    with loaded(port=9), opened():
        row(rows, "another port (per packet)", echo(), base, 4, 300)
    with loaded(port=PORT, bufsize=RING), opened():
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
    for filtered in None, where:
        how = "of this port" if filtered else OF_ALL
        with event("tcp/tcp_probe", filtered):
            cost, records, _ = traced()
            row(rows, f"{TRACEPOINT}, {how}, not read (11 fields, received only)", cost, base, records)
        with event("tcp/tcp_probe", filtered), reader(INSTANCE / "trace_pipe"):
            cost, records, lost = traced()
            row(rows, f"{TRACEPOINT}, {how}, read as text ({lost} lost)", cost, base, records)
    with event("knet_bench/established", definition="tcp_rcv_established"):
        cost, records, _ = traced()
        row(rows, "kprobe event without fields at tcp_rcv_established, not read", cost, base, records)
    bulk = 200 if QUICK else 600
    echo(20, 1 << 20)
    base = echo(bulk, 1 << 20)
    row(rows, "1 MiB messages, nothing loaded", base, base, 0)
    with loaded(port=PORT, bufsize=RING), opened():
        cost = echo(bulk, 1 << 20)
        assert samples()["lost"] == 0
        row(rows, f"1 MiB messages, recorded with full=1: {100 * (cost / base - 1):.1f} % more", cost, base, 0, "8 %")
    with loaded(port=PORT, bufsize=1 << 16, readnum=1000), reader(FILE):
        cost = echo(bulk, 1 << 20)
        row(rows, f"1 MiB messages, the same and read as text: {100 * (cost / base - 1):.1f} % more", cost, base, 0, "8 %")
    return rows


def paced():
    """20,000 records a second into 10,000 places, by a reader that wakes every 10 ms: what is lost."""
    with loaded(port=PORT, bufsize=10000, readnum=1):
        with echo_server(), opened() as fd:
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
            lib.echo(PORT, 1, 10000, 64)  # it may rest: that is what its pace is
            took = time.monotonic() - began
            time.sleep(0.1)
            stop = True
            thread.join()
            found = samples()
    return f"Paced reader: {found['taken'] / took:,.0f} records a second for {took:.1f} s, {found['lost']} lost, " \
           f"{found['missed']} missed."


# What a record's cost is compared with, by how the rows begin.
RIVALS = {"recorded, not read": f"{TRACEPOINT}, {OF_ALL}, not read", "recorded and read as text": f"{TRACEPOINT}, {OF_ALL}, read as text"}


def report(rows, told=""):
    """Writes the tables, what the tracepoint does for less first."""
    unit = "instructions" if INSTRUCTIONS else "ns (median of five, noisy)"
    rival = {ours: next(r for r in rows if r["what"].startswith(theirs)) for ours, theirs in RIVALS.items()}
    lost, lines = [], []
    for r in rows:
        other = next((other for ours, other in rival.items() if r["what"].startswith(ours)), None)
        ratios = [f"{other[key] / r[key]:.2f}" if other and r[key] > 0 else "" for key in ("more", "per_record")]
        if other and 0 < other["more"] < r["more"]:
            lost.append(f"- {r['what']}: a round trip gets {r['more']:,} dearer, under the tracepoint {other['more']:,}: {ratios[0]}.")
        cost = spread([r["per_round_trip"], *([] if INSTRUCTIONS else [r["least"], r["most"]])], "{:,.0f}")
        lines.append(f"| {r['what']} | {cost} | {r['more']:,} | {r['records_per_round_trip']} | {r['per_record']:,} | {ratios[1]} | "
                     f"{'<= ' + str(r['wanted']) if r['wanted'] else ''} |")
    lines = [f"| what | {unit} a round trip | more than without | records | {unit} a record | tracepoint's / it | wanted |",
             "|---|---:|---:|---:|---:|---:|---:|", *lines]
    if lost:
        lines = ["Where the tracepoint costs less:", "", *lost, "", *lines]
    write(rows, lines, f"{told} 64-byte echo over loopback, one connection. The tracepoint and the kprobe event tell of what arrives alone: two "
          "records a round trip, of fewer fields, where tcpprobe has four, so per round trip it can be dearer than they are though each of its "
          "records is cheaper." + (f" In {len(idle)} measurements the CPU idled too long." if idle else ""))


def main():
    bring("bench", "user-echo-server", "cat")
    with echo_server(), tracing():
        rows = measure()
    report(rows, paced())
    return len(idle)


if __name__ == "__main__":
    sys.exit(main() != 0)
