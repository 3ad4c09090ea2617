#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Measures kecho beside every rival of lib.ECHO_SERVERS in one boot, by one client; "make bench" runs it in the VM.

Under vm/run's instruction clock a nanosecond of guest time is one executed instruction, whole
machine and client included, so the figures are the same wherever they are measured. They are
true only while the CPU never idles: a row with more than half a percent of idle is refused.
In real time each row is measured five times.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

from lib import (BACKLOG, ECHO_SERVERS, IDLE_MAX, INSTRUCTIONS, NAME, NATIVE, OUT, QUICK, REPEATS, bring, cpu_split, echo, named, no_time_waits, spread,
                 write)

SIZES = {64: "64 B", 4096: "4 KiB", 65536: "64 KiB", 1 << 20: "1 MiB"}
CONNECT = "connect, 64 B, close"
# bytes (CONNECT: a connection each), connections, what kecho's ratio to the best rival is to reach
ROWS = [(64, 1, 1.35), (64, 32, 1.2), (64, 256, 1.2), (64, 1024, 1.2), (64, 2048, 1.2),
        (4096, 1, None), (4096, 32, None), (4096, 256, None), (4096, 2048, None),
        (65536, 1, 1.3), (65536, 32, 1.3), (65536, 256, 1.3), (65536, 2048, 1.3),
        (1 << 20, 1, 1.3), (1 << 20, 32, 1.3), (1 << 20, 256, 1.3), (1 << 20, 2048, 1.3),
        (CONNECT, 1, 1.3), (CONNECT, 32, 1.3)]
if "ONLY" in os.environ:
    ROWS = named("ONLY", ROWS, lambda row: f"{SIZES.get(row[0], row[0])}, {row[1]}")
elif QUICK or not (INSTRUCTIONS or NATIVE):
    ROWS = [row for row in ROWS if row[:2] in {(64, 1), (64, 32), (64, 256), (65536, 1), (1 << 20, 1), (CONNECT, 32)}]
LATENCY = 32  # connections of which the latencies are drawn


def amount(size, connections):
    """Messages a connection: so many as take half a second of instruction time or so, QUICK or in real time half of that."""
    cost = 130000 if size == CONNECT else 25000 + 1.2 * size
    count = max(1, round((5e9 if NATIVE else 0.25e9 if QUICK or not INSTRUCTIONS else 0.5e9) / cost / connections))
    if size == CONNECT:
        return count
    # TCP acknowledges up to 16 of a connection's first segments at once, and sends few at first: those are to be few of all. Of the
    # largest row ten each would take half an hour of all servers.
    return max(count, 100 if size <= 4096 else 3 if QUICK or size * connections > 1 << 30 else 10)


def let_tcp_have_memory():
    """Three quarters of the guest's. With the kernel's own limit, a tenth, senders of 1 MiB on hundreds of connections wait for timers,
    and their rows, with an idle CPU, would be refused, of kecho and of most of its rivals."""
    pages = int(re.search(r"^MemTotal: *(\d+)", Path("/proc/meminfo").read_text(), re.M)[1]) * 1024 // os.sysconf("SC_PAGE_SIZE") * 3 // 4
    Path("/proc/sys/net/ipv4/tcp_mem").write_text(f"{pages} {pages} {pages}")


def measure(server, size, connections):
    """A row of one server; or why there is none."""
    options = ["--lean", "--reconnect"] if size == CONNECT else ["--lean"]
    size_of = 64 if size == CONNECT else size
    count = amount(size, connections)
    row = {"server": server.name, "bytes": size, "connections": connections, "refused": ""}
    try:
        echo(server.port, connections, max(1, count // 8), size_of, *options)  # warm
        for _ in range(3):  # one tick is more than QUICK's rows may idle, and a busy host can be the cause
            results = [echo(server.port, connections, count, size_of, *options) for _ in range(REPEATS)]
            if not INSTRUCTIONS or results[0][1] <= IDLE_MAX:
                break
    except RuntimeError as why:
        return {**row, "refused": str(why)}
    if INSTRUCTIONS and results[0][1] > IDLE_MAX:
        row["refused"] = f"idle {results[0][1]:.1%}"
    rates = [result["messages_per_second"] for result, _ in results]
    return {**row, "messages": count * connections, "ns_per_message": [1e9 / rate for rate in rates],
            "idle_share": round(results[0][1], 5), **cpu_split(results[0][0]["cpu_seconds"])}


def latency(server):
    """The distribution of latencies of 64-byte messages, into a file of the server's."""
    file = OUT / f"{NAME}-latency-{server.name.replace(' ', '-')}.csv"
    count = amount(64, LATENCY)
    echo(server.port, LATENCY, max(1, count // 8), 64)
    echo(server.port, LATENCY, count, 64, "--hist", str(file))


def rows_of(server):
    """What is to be measured of it."""
    return [row[:2] for row in ROWS if row[0] == CONNECT or not server.connects]


def main():
    if not any(rows_of(server) for server in ECHO_SERVERS):
        print(f"{NAME}: of {'; '.join(server.name for server in ECHO_SERVERS)} there is no row but '{CONNECT}'", file=sys.stderr)
        sys.exit(2)
    if INSTRUCTIONS:
        let_tcp_have_memory()
    bring("bench", *[server.program for server in ECHO_SERVERS if server.program])
    for old in OUT.glob(f"{NAME}-latency-*.csv"):  # of servers that are not measured this time
        old.unlink()
    rows, missing = [], []
    for server in ECHO_SERVERS:
        wanted = rows_of(server)
        no_time_waits()
        try:
            with server.serving():
                for size, connections in wanted:
                    rows.append(measure(server, size, connections))
                    row = rows[-1]
                    told = row["refused"] or f"{spread(row['ns_per_message'])} ns a message"
                    print(f"  {server.name}, {SIZES.get(size, size)}, {connections} connections: {told}", file=sys.stderr)
                if (INSTRUCTIONS or NATIVE) and "ONLY" not in os.environ and not server.connects:
                    latency(server)
        except (RuntimeError, subprocess.CalledProcessError) as why:  # NoServer, a client that fails, a module that does not go
            print(f"  {server.name}: {why}", file=sys.stderr)
            missing.append(server.name)
            have = {(row["bytes"], row["connections"]) for row in rows if row["server"] == server.name}
            rows += [{"server": server.name, "bytes": size, "connections": connections, "refused": str(why)}
                     for size, connections in wanted if (size, connections) not in have]
    return report(rows) + len(missing)


def report(rows):
    """Writes the tables, where a rival wins first; how many of kecho's own rows were refused."""
    ours = [server.name for server in ECHO_SERVERS if server.ours]
    rivals = [server.name for server in ECHO_SERVERS if not server.ours]
    head = "| message | connections | " + " | ".join(ours + rivals) + " | best rival / kecho | wanted |"
    won, lost = [], []
    for size, connections, wanted in ROWS:
        costs = {r["server"]: r["ns_per_message"] for r in rows
                 if (r["bytes"], r["connections"]) == (size, connections) and not r["refused"]}
        best = min((r for r in rivals if r in costs), key=lambda r: sorted(costs[r])[len(costs[r]) // 2], default=None)
        refused = {r["server"] for r in rows if (r["bytes"], r["connections"]) == (size, connections) and r["refused"]}
        cells = [spread(costs[s]) if s in costs else "refused" if s in refused else "" for s in ours + rivals]
        line = f"| {SIZES.get(size, size)} | {connections} | " + " | ".join(cells) + " | "
        ratio = 0
        if best and ours and ours[0] in costs:
            ratio = sorted(costs[best])[len(costs[best]) // 2] / sorted(costs[ours[0]])[len(costs[ours[0]]) // 2]
            line += f"{ratio:.2f} ({best}{', of those not refused' if refused.intersection(rivals) else ''})"
        (lost if ratio < 1 else won).append(f"{line} | {wanted or ''} |")
    unit = "Instructions" if INSTRUCTIONS else "Nanoseconds of real time, median (least-most) of five, noisy,"
    lines = []
    if lost:
        lines += ["Where a rival needs less than kecho, or nothing could be compared:", "", head, "|---|" + "---:|" * (head.count("|") - 2), *lost, ""]
    if won:
        lines += ["Where kecho needs less than every rival:", "", head, "|---|" + "---:|" * (head.count("|") - 2), *won, ""]
    settings = [f"- {server.name}: {server.about}" for server in ECHO_SERVERS]
    lines += ["Settings. The sockets of all but kecho's have TCP_NODELAY, and TCP_QUICKACK off, as kecho's have; the backlog is "
              f"{BACKLOG:,} everywhere{', and tcp_mem three quarters of the memory' if INSTRUCTIONS else ''}:", "", *settings, ""]
    why = [f"- {r['server']}, {SIZES.get(r['bytes'], r['bytes'])}, {r['connections']} connections: {r['refused']}" for r in rows if r["refused"]]
    if why:
        lines += ["Refused:", "", *why, ""]
    split = [r for r in rows if (r["bytes"], r["connections"]) == (64, 32) and "user" in r]
    if split:
        lines += ["Where the CPU time goes, 64 bytes, 32 connections, by the kernel's ticks, client included:", "",
                  "| server | user % | system % | softirq % |", "|---|---:|---:|---:|"]
        lines += [f"| {r['server']} | {r['user']} | {r['system']} | {r['softirq']} |" for r in split]
        lines += [""]
    for r in rows:
        costs = sorted(r.pop("ns_per_message", []))
        if costs:
            r |= {"ns_per_message": round(costs[len(costs) // 2]), "least": round(costs[0]), "most": round(costs[-1])}
    write(rows, lines, f"{unit} a message: client (bench --lean), server and network stack together. The ratio says how many times kecho's "
          "instructions the best rival needs." if INSTRUCTIONS else f"{unit} a message: client (bench --lean), server and network stack.")
    return sum(1 for r in rows if r["refused"] and r["server"] in ours)


if __name__ == "__main__":
    sys.exit(main() != 0)
