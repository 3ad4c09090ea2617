#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Measures what dropping a TIME-WAIT socket costs: by drop_tcp_sock, and by "ss -K" in the same boot.

Under vm/run's instruction clock a nanosecond of guest time is one executed instruction. What is timed is the one write(2), of
lines that are ready, and the whole run of ss or tcpdrop: ss finds its sockets itself, as "*:*" does, while pairs come from somebody.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from lib import INSTRUCTIONS, KO_DIR, NATIVE, QUICK, REPEATS, TOOLS, bring, idle_seconds, spread, write

FILE = "/proc/net/drop_tcp_sock"
PORT = 12345

# how, sockets, instructions a socket that are wanted at most, how many times as many "ss -nK" is to need
ROWS = [
    ("pairs, one write", 1000, 4500, None),
    ("pairs, one write", 10000, 4500, 150),
    ("pairs, one write", 100000, 4500, None),
    ("*:* 127.0.0.N:PORT time-wait", 1000, 3500, None),
    ("*:* 127.0.0.N:PORT time-wait", 10000, 3500, 150),
    ("*:* 127.0.0.N:PORT time-wait", 100000, 3500, None),
    ("tcpdrop, pairs on standard input", 100000, None, None),
    ("ss -nK state time-wait", 1000, None, None),
    ("ss -nK state time-wait", 10000, None, None),
    ("ss -nK state time-wait", 100000, None, None),
    ("ss -K state time-wait", 10000, None, None),
]


def time_waits():
    """(local, port, remote, port) as text, of each IPv4 socket in TIME-WAIT."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "06":
            ends = [(end[:8], int(end[9:], 16)) for end in fields[1:3]]
            found.append(tuple(x for addr, port in ends
                               for x in (".".join(str(b) for b in bytes.fromhex(addr)[::-1]), port)))
    return found


def make(count):
    """That many sockets in TIME-WAIT, 20,000 for each server address."""
    left = count
    host = 1
    while left:
        now = min(left, 20000)
        subprocess.run([TOOLS / "bench", "-c", "50", "-n", str(now // 50), "-s", "1", "--reconnect",
                        f"127.0.0.{host}", str(PORT)], check=True, capture_output=True)
        left -= now
        host += 1
    there = len(time_waits())
    assert 0.98 * count <= there <= count, f"{there} sockets in TIME-WAIT, not {count}"  # in real time some have gone already
    return host - 1, there


def idle_ns():
    """How long the CPU has idled; where it is not one, or the clock another, that is not taken off."""
    return INSTRUCTIONS and round(idle_seconds() * 1e9)


def measure(how, count):
    """Instructions a socket, idle time not counted."""
    hosts, count = make(count)
    if how.startswith("pairs"):
        data = "".join(f"{a}:{p} {b}:{q}\n" for a, p, b, q in time_waits()).encode()
    elif how.startswith("*:*"):
        data = "".join(f"*:* 127.0.0.{n + 1}:{PORT} time-wait\n" for n in range(hosts)).encode()
    elif "standard input" in how:
        data = "".join(f"{a}:{p} {b}:{q}\n" for a, p, b, q in time_waits()).encode()
        command = [TOOLS / "tcpdrop", "-"]
    else:
        data, command = b"", [TOOLS / "ss", *how.split()[1:]]
    idle = idle_ns()
    if how.startswith(("pairs", "*:*")):
        fd = os.open(FILE, os.O_WRONLY)
        began = time.monotonic_ns()
        written = os.write(fd, data)
        took = time.monotonic_ns() - began
        os.close(fd)
        assert written == len(data)
    else:
        began = time.monotonic_ns()
        subprocess.run(command, input=data, check=True, stdout=subprocess.DEVNULL)
        took = time.monotonic_ns() - began
    assert not time_waits(), f"{how}: some are left"
    idle = idle_ns() - idle
    if idle > took / 100:
        print(f"  {how}, {count} sockets: idle {idle / 1e6:.0f} ms of {took / 1e6:.0f} ms", file=sys.stderr)
    return (took - idle) / count


def main():
    bring("bench", "tcpdrop", "ss")
    if "PIN" in os.environ:  # all of it is one program's work
        os.sched_setaffinity(0, {int(os.environ["PIN"].split()[1])})
    with contextlib.ExitStack() as stack:
        for module, *params in ("kecho", "backlog=1024"), ("drop_tcp_sock",):
            subprocess.run(["insmod", KO_DIR / f"{module}.ko", *params], check=True)
            stack.callback(subprocess.run, ["rmmod", module], check=True)
        report(measure_all())


def measure_all():
    """What each socket cost, by how and how many."""
    Path("/proc/sys/net/ipv4/tcp_max_tw_buckets").write_text("200000")
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("10000 65000")
    Path("/proc/sys/net/ipv4/tcp_tw_reuse").write_text("0")  # or new connections take over old ports
    # What they are made of comes from the host, for which TIME-WAIT does not wait on a clock that runs ahead then.
    subprocess.run([TOOLS / "ss", "-K", "state", "time-wait"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([TOOLS / "tcpdrop", "-"], input=b"", check=False, stdout=subprocess.DEVNULL)
    for how in dict.fromkeys(row[0] for row in ROWS):  # programs and modules are loaded before they are timed
        measure(how, 1000)
    costs = {}
    for how, count, *_ in ROWS:
        if count > 10000 and (QUICK or not (INSTRUCTIONS or NATIVE)):
            continue
        costs[how, count] = [measure(how, count) for _ in range(REPEATS)]
        print(f"  {how}, {count} sockets: {spread(costs[how, count])}", file=sys.stderr)
    return costs


def report(costs):
    unit = "instructions a socket" if INSTRUCTIONS else "ns a socket, median (least-most) of five, noisy"
    lines = [f"| how | sockets | {unit} | wanted | ss -nK / it | wanted | ss -K / it |", "|---|---:|---:|---:|---:|---:|---:|"]
    rows = []
    for how, count, wanted, times in ROWS:
        if (how, count) not in costs:
            continue
        cost = statistics.median(costs[how, count])
        ratios = []
        for rival in "ss -nK state time-wait", "ss -K state time-wait":
            other = costs.get((rival, count))
            ratios.append(f"{statistics.median(other) / cost:.1f}" if other and not how.startswith("ss") else "")
        rows.append({"how": how, "sockets": count, "ns_each": round(cost), "least": round(min(costs[how, count])),
                     "most": round(max(costs[how, count]))})
        lines.append(f"| {how} | {count} | {spread(costs[how, count], '{:,.0f}')} | {f'<= {wanted:,}' if wanted else ''} | "
                     f"{ratios[0]} | {f'>= {times}' if times else ''} | {ratios[1]} |")
    write(rows, lines, "TIME-WAIT sockets of loopback connections. Timed is the write alone of lines that are ready, or the whole run of tcpdrop or "
          "ss" + ("; time in which the CPU idled is not counted." if INSTRUCTIONS else "."))


if __name__ == "__main__":
    main()
