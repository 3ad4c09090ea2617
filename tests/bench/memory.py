#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Measures what an idle connection costs each server, of echoes and of HTTP: connections that have been answered once and then
stay. Both ends are on one machine, so the client's socket is in each figure, the same in all."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

from lib import ECHO_SERVERS, QUICK, TOOLS, NoServer, baseline, bring, khttpd, nginx, write

COUNT = 1000 if QUICK else 5000
PAGE = 4096
FAILS = NoServer, AssertionError, OSError, subprocess.CalledProcessError
# server: its port, and what has it serve
HTTP_SERVERS = {"khttpd": (8081, khttpd), "nginx": (8080, nginx), "user-http-server": (8082, baseline)}
# Asks once by each of so many connections, says so, and holds them until its input ends.
HTTP_CLIENT = """
import resource, socket, sys
port, count = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100,) * 2)
held = []
for _ in range(count):
    s = socket.create_connection(("127.0.0.1", port), 60)
    s.sendall(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    answer = b""
    while not answer.endswith(b"Hello World!"):
        part = s.recv(4096)
        assert part
        answer += part
    held.append(s)
print("holding", flush=True)
sys.stdin.read()
"""


def meminfo():
    """Bytes by name."""
    return {line.split(":")[0]: int(line.split()[1]) << 10 for line in Path("/proc/meminfo").read_text().splitlines() if line.endswith("kB")}


def socket_pages():
    """Pages that TCP holds, in bytes."""
    words = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:")).split()
    return int(words[words.index("mem") + 1]) * PAGE


def rss(pid):
    """Of a program, in bytes; 0 for a module."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE if pid else 0


def sample(pid):
    """Where memory is: slabs, kernel stacks, page tables, TCP's pages, the server's own, once it has settled."""
    last = None
    for _ in range(50):
        Path("/proc/sys/vm/drop_caches").write_text("3")
        for cache in Path("/sys/kernel/slab").glob("*/shrink"):
            cache.write_text("1")
        info = meminfo()
        now = {"slab": info["Slab"], "stacks": info["KernelStack"], "page tables": info["PageTables"], "TCP pages": socket_pages(),
               "RSS": rss(pid)}
        if last and all(abs(now[key] - last[key]) < 64 << 10 for key in now):
            return now
        last = now
        time.sleep(0.3)
    return now


@contextlib.contextmanager
def held_echoes(port, count):
    """While this is open so many connections are."""
    with subprocess.Popen([TOOLS / "bench", "-c", str(count), "-n", "1", "--hold", "127.0.0.1", str(port)],
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        try:
            assert "holding" in client.stderr.readline()
            yield
        finally:
            client.send_signal(signal.SIGTERM)
        assert client.wait() == 0


@contextlib.contextmanager
def held_requests(port, count):
    with subprocess.Popen([sys.executable, "-S", "-c", HTTP_CLIENT, str(port), str(count)], text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as client:
        try:
            assert "holding" in client.stdout.readline()
            yield
        finally:
            client.stdin.close()
        assert client.wait() == 0


def measure(name, port, held, pid):
    """A row: bytes a connection, by where they are."""
    for count in (COUNT // 5, COUNT):  # the first fills caches
        before = sample(pid)
        with held(port, count):
            after = sample(pid)
        time.sleep(2)
    row = {key: round((after[key] - before[key]) / COUNT) for key in after}
    print(f"  {name}: {row}", file=sys.stderr)
    return {"server": name, "all": sum(row.values()), **row}


def main():
    # No old ones of one server may go while those of the next are counted.
    Path("/proc/sys/net/ipv4/tcp_max_tw_buckets").write_text("0")
    bring("bench", "user-http-server", *[server.program for server in ECHO_SERVERS if server.program])
    echoes, missing = [], []
    for server in ECHO_SERVERS:
        try:
            with server.serving() as process:
                echoes.append(measure(server.name, server.port, held_echoes, process and process.pid))
        except FAILS as why:
            missing.append(f"{server.name}: {why}")
    requests = []
    for name, (port, serving) in HTTP_SERVERS.items():
        try:
            with serving() as pid:
                time.sleep(0.5)
                requests.append(measure(name, port, held_requests, pid))
        except FAILS as why:
            missing.append(f"{name}: {why}")
    lines = []
    for rows in filter(None, (echoes, requests)):
        rows.sort(key=lambda row: row["all"])
        lines += ["| " + " | ".join(rows[0]) + " |", "|---|" + "---:|" * (len(rows[0]) - 1)]
        lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows] + [""]
    write(echoes + requests, lines, f"Bytes an idle connection, of {COUNT} that were answered once and stay: 64 bytes echoed, or a page asked for. The "
          "client's socket and file are in it, the same in each row. io_uring's pool of buffers, 256 MiB, is there before."
          + "".join(f" Not measured: {why}." for why in missing), timed=False)
    return len(missing)


if __name__ == "__main__":
    sys.exit(main() != 0)
