# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that a module leaves nothing behind, however often it is loaded, used and unloaded."""

import os
import socket
import struct
import time
from pathlib import Path

import pytest
from lib import HTTP_PORT, KO_DIR, MODULES, connect, connected, connections, insmod, receive, rmmod, scaled, slabs

pytestmark = pytest.mark.usefixtures("unloaded")

# Of what has been loaded once a load takes as many objects as before: those of a module's own, of its threads, files and
# sockets. The rest is others', who come and go.
WATCHED = ["TCP", "TCPv6", "sock_inode_cache", "request_sock_TCP", "pool_workqueue", "proc_inode_cache", "proc_dir_entry", "task_struct",
           *[f"kmalloc-{size}" for size in (64, 96, 128, 192, 256, 512, "1k", "2k", "4k", "8k")]]


def by_reset(s):
    """It leaves no TIME-WAIT, which holds memory of its own for a minute."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def echo():
    with connect() as s:
        by_reset(s)
        s.sendall(b"hi")
        assert receive(s, 2) == b"hi"


def request():
    with connect(port=HTTP_PORT) as s:
        by_reset(s)
        s.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert receive(s, 17) == b"HTTP/1.1 200 OK\r\n"


def drop():
    with connections(1) as (asked, _, _):
        (host, port), peer = asked[0].getsockname(), asked[0].getpeername()
        Path("/proc/net/drop_tcp_sock").write_text(f"{host}:{port} {peer[0]}:{peer[1]}\n")
        with pytest.raises(ConnectionAbortedError):
            asked[0].recv(1)


def probe():
    fd = os.open("/proc/net/tcpprobe", os.O_RDONLY)
    with connections(1) as (asked, _, _):
        by_reset(asked[0])
        assert os.read(fd, 65536)
    os.close(fd)


USE = {"kecho": echo, "khttpd": request, "drop_tcp_sock": drop, "tcpprobe": probe}


def in_a_slab(name):
    """Objects of one: a CPU that has begun a slab of a cache's has all that are in it counted as in use."""
    lines = Path("/proc/slabinfo").read_text().splitlines()[2:]
    return next(int(fields[4]) for fields in map(str.split, lines) if fields[0] == name)


@pytest.mark.parametrize("module", MODULES)
def test_load_and_unload_200_times(module):
    """With somebody who uses it each time; memory is as before. An object for every second time would be one too many, where that
    can be told."""
    rounds = scaled(200, small=2)
    before = None
    for n in range(rounds):
        insmod(KO_DIR / f"{module}.ko")
        USE[module]()
        rmmod(module)
        if n == rounds // 10:
            before = slabs(WATCHED)
    allowed = {name: max((rounds - rounds // 10) // 2, 2 * in_a_slab(name)) for name in before}
    end = time.monotonic() + 20  # what goes after a grace period, or with the last reference
    while grown := {name: (before[name], now) for name, now in slabs(WATCHED).items() if now > before[name] + allowed[name]}:
        assert time.monotonic() < end, grown
        time.sleep(1)
    assert len(before) > 10
    for port in 12345, HTTP_PORT:
        assert connected(port) == ""
