# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Sockets in every state, and an account of those that exist that does not come from our own code."""

import contextlib
import errno
import ipaddress
import itertools
import os
import socket
import struct
import time
from collections import namedtuple
from pathlib import Path

import pytest

FILE = Path("/proc/net/drop_tcp_sock")
STATES = ["", "established", "syn_sent", "syn_recv", "fin_wait_1", "fin_wait_2", "time_wait", "close",
          "close_wait", "last_ack", "listening", "closing"]

Entry = namedtuple("Entry", "local local_port remote remote_port state")


def address(text):
    """An address of /proc/net/tcp or tcp6: 32-bit words in the machine's order."""
    words = [int(text[i:i + 8], 16) for i in range(0, len(text), 8)]
    return ipaddress.ip_address(struct.pack(f"={len(words)}I", *words)).compressed


def walk(pid="self"):
    """Every TCP socket that the kernel lists, of a process's namespace."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc", str(pid), "net", name).read_text().splitlines()[1:]:
            fields = line.split()
            (local, lport), (remote, rport) = fields[1].split(":"), fields[2].split(":")
            state = STATES[int(fields[3], 16)] if int(fields[3], 16) < 12 else "syn_recv"
            found.add(Entry(address(local), int(lport, 16), address(remote), int(rport, 16), state))
    return found


def at_port(port, entries=None):
    """Those of walk() with this local port."""
    return {e for e in (walk() if entries is None else entries) if e.local_port == port}


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return value


def wait_state(sock_or_entry, state):
    """Waits until the socket with these addresses is in a state; its entry."""
    key = sock_or_entry if isinstance(sock_or_entry, tuple) else key_of(sock_or_entry)
    return wait_for(lambda: next((e for e in walk() if e[:4] == key and e.state == state), None))


def key_of(sock):
    """(local, port, remote, port) as walk() has them."""
    (local, lport), (remote, rport) = sock.getsockname()[:2], sock.getpeername()[:2]
    clean = [ipaddress.ip_address(a.split("%")[0]).compressed for a in (local, remote)]
    return (clean[0], lport, clean[1], rport)


def line_of(key):
    """A line that names the socket of a key or an entry."""
    ends = []
    for addr, port in ((key[0], key[1]), (key[2], key[3])):
        ends.append(f"[{addr}]:{port}" if ":" in addr else f"{addr}:{port}")
    return " ".join(ends)


def family_of(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


# Below the ports that a client is given: one of those could be what an earlier test's socket in TIME-WAIT has as its
# remote port, and a selector would find both.
PORTS = itertools.cycle(range(13000, 32768))


def listen(host):
    """A listener on a port that no test has had for long."""
    listener = socket.socket(family_of(host))
    while True:
        try:
            listener.bind((host, next(PORTS)))
            listener.listen(128)
            return listener
        except OSError as err:
            if err.errno != errno.EADDRINUSE:
                raise


class Pair:
    """A listener and a connection to it: client and served, unless it is not accepted."""

    def __init__(self, host="127.0.0.1", accept=True, listener_host=None):
        self.listener = listen(listener_host or host)
        self.client = socket.socket(family_of(host))
        self.client.settimeout(20)
        self.client.connect((host, self.listener.getsockname()[1]))
        self.served = self.listener.accept()[0] if accept else None
        self.port = self.listener.getsockname()[1]

    def stuff(self, sock):
        """Fills every buffer on the way from a socket to its peer."""
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock.send(bytes(1 << 16))
        sock.setblocking(True)

    def close(self):
        for sock in (self.listener, self.client, self.served):
            if sock:
                # No trace of it is to be left for the next test.
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def time_wait(host="127.0.0.1"):
    """A socket in TIME-WAIT; its key."""
    return time_waits(1, host)[0]


def time_waits(count, host="127.0.0.1"):
    """The keys of so many, waited for together: to list all sockets takes long where detectors look on."""
    keys = []
    for _ in range(count):
        with Pair(host) as pair:
            keys.append(key_of(pair.client))
            pair.client.close()
            assert pair.served.recv(1) == b""
            pair.served.close()
    wait_for(lambda: set(keys) <= {e[:4] for e in walk() if e.state == "time_wait"})
    return keys


class Survivors:
    """Sockets that nothing may happen to: connections, one in TIME-WAIT, listeners, over both IPs."""

    def __init__(self):
        self.pairs = [Pair("127.0.0.1"), Pair("::1")]
        self.keys = {(*key_of(s), "established") for p in self.pairs for s in (p.client, p.served)}
        self.keys |= {(*p.listener.getsockname()[:2], "::" if p.listener.family == socket.AF_INET6
                       else "0.0.0.0", 0, "listening") for p in self.pairs}
        self.keys.add((*time_wait(), "time_wait"))
        self.born = time.monotonic()

    def check(self):
        gone = self.keys
        for _ in range(5):  # what a walk shows is there; what it does not show may have been beside its way
            gone = gone - {tuple(e) for e in walk()}
        age = time.monotonic() - self.born
        if age > 50:  # TIME-WAIT is over by itself
            gone = {k for k in gone if k[4] != "time_wait"}
        if gone:
            pytest.fail(f"gone: {gone}, {age:.1f} s old; there: {walk()}")
        for pair in self.pairs:
            pair.client.sendall(b"still there?")
            assert pair.served.recv(100) == b"still there?"

    def close(self):
        for pair in self.pairs:
            pair.close()


def write(data, path=FILE):
    """One open, one write, one close. An OSError of the write is raised."""
    fd = os.open(path, os.O_WRONLY)
    try:
        return os.write(fd, data.encode() if isinstance(data, str) else data)
    finally:
        os.close(fd)


def totals(text=None):
    """What the file tells, numbers as such."""
    text = FILE.read_text() if text is None else text
    lines = [line.split(" ", 1) for line in text.splitlines()]
    assert lines[0] == ["version", "1"]
    return {name: value if name == "last_malformed" else int(value) for name, value in lines}


def gained(before=None):
    """What grew since an earlier totals(), or since the module was loaded."""
    after = totals()
    before = before or {k: int(k == "version") for k in after}
    return {k: after[k] - before[k] for k in after
            if isinstance(after[k], int) and after[k] != before[k]}
