#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Measures khttpd against nginx and user-http-server in one boot, by the same clients: wrk for connections that are
kept, htstress for those that are not and for pipelined requests. See echo.py about the clock."""

import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

from lib import (IDLE_MAX, INSTRUCTIONS, NATIVE, QUICK, REPEATS, TOOLS, baseline, bring, cpu_split, idle_seconds, khttpd, named, nginx, no_time_waits,
                 pinned, spread, write)

# server: name, settings for the reader, port, khttpd's parameters to set first
SERVERS = [("nginx", "1.22, one worker, no access log, return 200", 8080, {}),
           ("nginx deferred", "the same, listen deferred (TCP_DEFER_ACCEPT)", 8083, {}),
           ("user-http-server", "one thread, edge-triggered epoll, 64 KiB buffer, 256 events a wait, TCP_DEFER_ACCEPT, no parser", 8082, {}),
           ("khttpd fastpath=1", "answers from the receive path where it can; backlog=1024, as nginx's", 8081, {"fastpath": 1}),
           ("khttpd fastpath=0", "answers by a worker", 8081, {"fastpath": 0})]
SERVERS = named("SERVERS", SERVERS, lambda server: server[0])
OURS, FIRST_RIVAL = "khttpd fastpath=1", "nginx"
# way, connections, requests or seconds, what khttpd's ratio to nginx is to reach
ROWS = [("kept alive", 1, 2, 1.6), ("kept alive", 32, 2, 1.4), ("kept alive", 256, 2, 1.3),
        ("a connection each", 1, 10000, 1.5), ("a connection each", 32, 10000, 1.5),
        ("16 pipelined", 1, 80000, 2), ("16 pipelined", 32, 80000, 2)]
ROWS = named("ONLY", ROWS, lambda row: f"{row[0]}, {row[1]}")
SPLIT = "kept alive", 32  # of which it is told where the CPU time goes


def cpu_seconds():
    """Of all CPUs, since the boot, by kind."""
    words = Path("/proc/stat").read_text().split()[1:8]
    spent = {kind: int(words[at]) / 100 for kind, at in (("user", 0), ("system", 2), ("idle", 3), ("softirq", 6))}
    return {**spent, "idle": idle_seconds()} if INSTRUCTIONS else spent


def wait_until_busy(most):
    """Until a client has begun: the CPU has not idled for 20 ms; or for so many seconds. While files come from a busy host, this
    clock runs ahead."""
    end = time.monotonic() + most
    while time.monotonic() < end:
        before = idle_seconds()
        time.sleep(0.02)
        if idle_seconds() - before < 0.02 * IDLE_MAX:
            break


def htstress(port, *args):
    """Its report; all of the requests have to be answered well."""
    done = subprocess.run([*pinned("client"), TOOLS / "htstress", *map(str, args), "--lean", "--json", f"http://127.0.0.1:{port}/"], check=True,
                          text=True, capture_output=True).stdout
    result = json.loads(done)
    assert result["bad"] == 0, result
    return result


def measure(way, connections, amount, port):
    """Requests a second, and the CPU's seconds by kind for each that it took."""
    if way == "kept alive":
        with subprocess.Popen([*pinned("client"), TOOLS / "wrk", "-t1", "-c", str(connections), "-d", str(amount), f"http://127.0.0.1:{port}/"],
                              text=True, stdout=subprocess.PIPE) as client:
            # Its start and its end wait for files; what it reports is of the time between.
            time.sleep(amount / 4)
            if INSTRUCTIONS:
                wait_until_busy(amount / 4)
            began, before = time.monotonic(), cpu_seconds()
            time.sleep(amount / 2)
            spent, took = cpu_seconds(), time.monotonic() - began
            done = client.communicate()[0]
        rate = re.search(r"Requests/sec: +([\d.]+)", done)
        assert rate and not client.returncode and "Socket errors" not in done and "Non-2xx" not in done, done or "wrk has no result"
        return float(rate[1]), {kind: (spent[kind] - before[kind]) / took for kind in spent}
    result = htstress(port, "-n", amount, "-c", connections, *(["-k", "-P", "16"] if "pipelined" in way else []))
    return result["requests_per_second"], {kind: spent / result["seconds"] for kind, spent in result["cpu_seconds"].items()}


def measure_row(way, connections, amount, server):
    """What one server needs for one kind of request."""
    name, _, port, params = server
    for key, value in params.items():
        Path("/sys/module/khttpd/parameters", key).write_text(f"{value}\n")
    if way == "kept alive":
        htstress(port, "-n", 2000, "-c", connections, "-k")  # warm; wrk runs for a second at least
    else:
        measure(way, connections, amount // 10, port)
    for _ in range(3):  # a client that starts late idles
        if way == "a connection each":
            no_time_waits()
        results = [measure(way, connections, amount, port) for _ in range(REPEATS)]
        spent = results[0][1]
        if not INSTRUCTIONS or spent["idle"] <= IDLE_MAX:
            break
    costs = sorted(1e9 / rate for rate, _ in results)
    print(f"  {name}, {way}, {connections} connections: {spread(costs)} ns a request", file=sys.stderr)
    return {"way": way, "connections": connections, "server": name, "requests_per_second": round(1e9 / statistics.median(costs), 1),
            "ns_per_request": round(statistics.median(costs)), "least": round(costs[0]), "most": round(costs[-1]),
            "idle_share": round(spent["idle"], 5), **cpu_split(spent),
            "refused": f"idle {spent['idle']:.1%}" if INSTRUCTIONS and spent["idle"] > IDLE_MAX else ""}


def row_or_why(*what):
    """measure_row(), or a row that says why there is none."""
    try:
        return measure_row(*what)
    except (AssertionError, subprocess.CalledProcessError) as why:
        print(f"  {what[3][0]}, {what[0]}, {what[1]} connections: {why}", file=sys.stderr)
        return {"way": what[0], "connections": what[1], "server": what[3][0], "refused": (str(why).splitlines() or ["fails"])[0][:200]}


def main():
    bring("htstress", "wrk", "user-http-server")
    rows = []
    with nginx(), baseline(), khttpd():
        time.sleep(0.5)
        for way, connections, amount, _ in ROWS:
            if QUICK:
                amount = amount // 4 if amount > 10 else 1
            if NATIVE and amount > 10:
                amount *= 10
            rows += [row_or_why(way, connections, amount, server) for server in SERVERS]
    return report(rows)


def report(rows):
    """Writes the tables, where a rival wins first; how many rows were refused."""
    names = sorted((server[0] for server in SERVERS), key=lambda name: not name.startswith("khttpd"))
    head = ["| requests | connections | " + " | ".join(names) + f" | {FIRST_RIVAL} / khttpd | wanted | best rival / khttpd |",
            "|---|---:|" + "---:|" * (len(names) + 3)]
    won, lost = [], []
    for way, connections, _, wanted in ROWS:
        mine = {row["server"]: row for row in rows if (row["way"], row["connections"]) == (way, connections)}
        costs = {name: row["ns_per_request"] for name, row in mine.items() if not row["refused"]}
        cells = [spread_of(mine[name]) if name in costs else "refused" for name in names]
        rivals = [name for name in costs if not name.startswith("khttpd")]
        best = min(rivals, key=costs.get) if rivals and OURS in costs else None
        ratio = costs[best] / costs[OURS] if best else 0
        first = f"{costs[FIRST_RIVAL] / costs[OURS]:.2f}" if FIRST_RIVAL in costs and OURS in costs else ""
        line = f"| {way} | {connections} | " + " | ".join(cells) + f" | {first} | {wanted} | " + (f"{ratio:.2f} ({best})" if best else "") + " |"
        (lost if ratio < 1 else won).append(line)
    lines = []
    if lost:
        lines += ["Where a rival needs less than khttpd, or nothing could be compared:", "", *head, *lost, ""]
    if won:
        lines += ["Where khttpd needs less than every rival:", "", *head, *won, ""]
    refused = [f"- {row['server']}, {row['way']}, {row['connections']} connections: {row['refused']}" for row in rows if row["refused"]]
    if refused:
        lines += ["Refused:", "", *refused, ""]
    lines += ["Settings:", "", *[f"- {server[0]}: {server[1]}" for server in SERVERS], ""]
    split = [row for row in rows if (row["way"], row["connections"]) == SPLIT and "user" in row]
    if split:
        lines += [f"Where the CPU time goes, {SPLIT[0]}, {SPLIT[1]} connections, by the kernel's ticks, client included:", "",
                  "| server | user % | system % | softirq % |", "|---|---:|---:|---:|"]
        lines += [f"| {row['server']} | {row['user']} | {row['system']} | {row['softirq']} |" for row in split]
    unit = "Instructions" if INSTRUCTIONS else "Nanoseconds of real time, median (least-most) of five, noisy,"
    write(rows, lines, f"{unit} a request: client (wrk -t1 for connections that are kept, else htstress --lean), server and network stack together. "
          "user-http-server parses nothing: it says what a parser and HTTP's rules cost.")
    return len(refused)


def spread_of(row):
    return f"{row['ns_per_request']}" if INSTRUCTIONS else f"{row['ns_per_request']} ({row['least']}-{row['most']})"


if __name__ == "__main__":
    sys.exit(main() != 0)
