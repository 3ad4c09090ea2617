#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Measures kecho against user-echo-server in one boot, by one client; "make bench" runs it in the VM.

Under vm/run's instruction clock a nanosecond of guest time is one executed instruction, whole
machine and client included, so the figures are the same wherever they are measured. They are
true only while the CPU never idles: a row with more than half a percent of idle is refused.
"""

import subprocess
import sys
import time
from pathlib import Path

from lib import IDLE_MAX, INSTRUCTIONS, KO_DIR, QUICK, TOOLS, bring, echo, write

PARAMS = Path("/sys/module/kecho/parameters")

# server: name, port, parameters of kecho to set first
SERVERS = [
    ("user-echo-server", 12346, {}),
    ("kecho fastpath=1", 12345, {"fastpath": 1}),
    ("kecho fastpath=0 bench=0", 12345, {"fastpath": 0}),
    ("kecho fastpath=0 bench=1", 12344, {"fastpath": 0}),
]
# connections, bytes, messages in all, what the ratio to user-echo-server is to reach by server
ROWS = [
    (1, 64, 80000, {"kecho fastpath=1": 1.45, "kecho fastpath=0": 1.15}),
    (32, 64, 80000, {"kecho fastpath=1": 1.14, "kecho fastpath=0": 0.97}),
    (256, 64, 80000, {"kecho fastpath=1": 1.09}),
    (1, 1 << 20, 1600, {"kecho fastpath=1": 1.1}),
]


def stats():
    text = Path("/proc/net/stat/kecho").read_text()
    return {k: int(v) for k, v in (line.split() for line in text.splitlines())}


def run(connections, size, messages, port):
    """One measurement; messages a second and the share of idle time."""
    result, idle = echo(port, connections, max(1, messages // connections), size)
    return result["messages_per_second"], idle


def load(bench):
    subprocess.run(["rmmod", "kecho"], capture_output=True)
    subprocess.run(["insmod", KO_DIR / "kecho.ko", "backlog=1024", f"bench={bench}"], check=True)


def measure():
    bring("bench", "user-echo-server")
    baseline = subprocess.Popen([TOOLS / "user-echo-server", "-p", "12346"])
    time.sleep(0.3)
    rows = []
    loaded = None
    for name, port, params in SERVERS:
        bench = 1 if "bench=1" in name else 0
        if loaded != bench:
            load(bench)
            loaded = bench
        port = 12346 if name == "user-echo-server" else 12345
        for key, value in params.items():
            (PARAMS / key).write_text(f"{value}\n")
        for connections, size, messages, _ in ROWS:
            if QUICK:
                messages //= 4
            run(connections, size, max(connections, 100 if size > 65536 else 2000), port)  # warm
            before = stats()
            rate, idle = run(connections, size, messages, port)
            after = stats()
            bytes_in = after["bytes_in"] - before["bytes_in"]
            fast = after["fastpath_bytes"] - before["fastpath_bytes"]
            rows.append({"server": name, "connections": connections, "bytes": size,
                         "messages_per_second": round(rate, 1),
                         "instructions_per_message": round(1e9 / rate),
                         "idle_share": round(idle, 5),
                         "fastpath_share": round(fast / bytes_in, 4) if bytes_in else ""})
            print(f"  {name}, {connections} connections, {size} bytes: {rate:.0f}/s", file=sys.stderr)
    baseline.terminate()
    return rows


def report(rows):
    """Writes the table; how many rows were refused."""
    lines = ["| connections | bytes | server | messages/s | instructions/message | ratio | wanted | fast path |",
             "|---:|---:|---|---:|---:|---:|---:|---:|"]
    refused = 0
    for connections, size, _, wanted in ROWS:
        group = [r for r in rows if (r["connections"], r["bytes"]) == (connections, size)]
        base = next(r for r in group if r["server"] == "user-echo-server")
        for r in group:
            if INSTRUCTIONS and r["idle_share"] > IDLE_MAX:
                lines.append(f"| {connections} | {size} | {r['server']} | refused: idle "
                             f"{r['idle_share']:.2%} | | | | |")
                refused += 1
                continue
            ratio = r["messages_per_second"] / base["messages_per_second"]
            want = next((w for s, w in wanted.items() if r["server"].startswith(s)), "")
            share = f"{r['fastpath_share']:.1%}" if r["fastpath_share"] != "" else ""
            lines.append(f"| {connections} | {size} | {r['server']} | {r['messages_per_second']:.0f} | "
                         f"{r['instructions_per_message']} | {ratio:.3f} | {want} | {share} |")
    write("echo", rows, lines, "Client, server and network stack together. Ratio: messages/s over user-echo-server's; "
          "fewer instructions.")
    return refused


if __name__ == "__main__":
    sys.exit(report(measure()) != 0)
