#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Measures what an idle connection costs each echo server of lib.ECHO_SERVERS, and khttpd: connections that have been
answered once and then stay. Both ends are on one machine, so the client's socket is in each figure, the same in all."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from lib import ECHO_SERVERS, QUICK, TOOLS, bring, write

COUNT = 1000 if QUICK else 5000
PAGE = 4096


def meminfo():
    """Bytes by name."""
    return {line.split(":")[0]: int(line.split()[1]) << 10 for line in Path("/proc/meminfo").read_text().splitlines() if line.endswith("kB")}


def socket_pages():
    """Pages that TCP holds, in bytes."""
    words = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:")).split()
    return int(words[words.index("mem") + 1]) * PAGE


def rss(process):
    """Of a program, in bytes; 0 for a module."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * PAGE if process else 0


def sample(process):
    """Where memory is: slabs, kernel stacks, page tables, TCP's pages, the server's own, once it has settled."""
    last = None
    for _ in range(50):
        Path("/proc/sys/vm/drop_caches").write_text("3")
        for cache in Path("/sys/kernel/slab").glob("*/shrink"):
            cache.write_text("1")
        info = meminfo()
        now = {"slab": info["Slab"], "stacks": info["KernelStack"], "page tables": info["PageTables"], "TCP pages": socket_pages(),
               "RSS": rss(process)}
        if last and all(abs(now[key] - last[key]) < 64 << 10 for key in now):
            return now
        last = now
        time.sleep(0.3)
    return now


def measure(server):
    """A row: bytes a connection, by where they are."""
    with server.serving() as process:
        for count in (COUNT // 5, COUNT):  # the first fills caches
            before = sample(process)
            with subprocess.Popen([TOOLS / "bench", "-c", str(count), "-n", "1", "--hold", "127.0.0.1", str(server.port)],
                                  text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
                assert "holding" in client.stderr.readline()
                after = sample(process)
                client.send_signal(signal.SIGTERM)
                assert client.wait() == 0
            time.sleep(2)
    row = {key: round((after[key] - before[key]) / COUNT) for key in after}
    return {"server": server.name, "all": sum(row.values()), **row}


def main():
    Path("/proc/sys/net/ipv4/tcp_tw_reuse").write_text("0")
    bring("bench", *[server.program for server in ECHO_SERVERS if server.program])
    rows = []
    for server in ECHO_SERVERS:
        if server.name.startswith("kecho worker"):
            continue  # holds what kecho holds
        rows.append(measure(server))
        print(f"  {rows[-1]}", file=sys.stderr)
    rows.sort(key=lambda row: row["all"])
    lines = ["| " + " | ".join(rows[0]) + " |", "|---|" + "---:|" * (len(rows[0]) - 1)]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    write(rows, lines, f"Bytes an idle connection, of {COUNT} that echoed 64 bytes once and stay. The client's socket and file are in it, the "
          "same in each row. io_uring's RSS is its pool of buffers, as far as it was ever used: it does not grow with connections.", timed=False)


if __name__ == "__main__":
    main()
