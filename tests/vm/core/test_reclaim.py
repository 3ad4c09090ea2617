# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves, by lockdep, that nobody waits for memory who holds the lock of a kernel's socket: reclaim may wait for such a lock, as
with NFS. In a boot of its own, as lockdep does not forget."""

import socket

import pytest
from http_cases import get
from lib import HOOKS_DIR, HTTP_PORT, KO_DIR, PORT, Server, connect, insmod, rmmod, sockstat

pytestmark = [pytest.mark.boot(alone=True), pytest.mark.usefixtures("unloaded")]


@pytest.mark.parametrize("module,asked", [("kecho", b"?" * 200), ("khttpd", get())])
def test_nobody_waits_for_memory_under_the_lock(module, asked):
    """Clients that close first, are reset, and that TCP is left with, as they have yet to read when the module is unloaded."""
    insmod(HOOKS_DIR / "kreclaim.ko")
    rmmod("kreclaim")
    insmod(KO_DIR / f"{module}.ko")
    server = Server(module)
    port = {"kecho": PORT, "khttpd": HTTP_PORT}[module]
    for how in "fin", "reset":
        with connect(port=port) as s:
            s.sendall(asked)
            assert s.recv(1)
            if how == "fin":
                s.shutdown(socket.SHUT_WR)
                while s.recv(1 << 16):
                    pass
            else:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.wait("active", 0)
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(60)
        s.connect(("127.0.0.1", port))
        s.sendall(asked * 100)
        s.shutdown(socket.SHUT_WR)
        server.wait("bytes_in", len(asked) * 102)
        rmmod(module)
        assert sockstat("orphan") == 1  # it is TCP's
        while s.recv(1 << 16):
            pass
