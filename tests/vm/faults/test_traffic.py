# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that a server whose allocations fail under traffic goes on serving: clients may be reset or wait, and when
there is memory again all is as before."""

import os
import random
import re
import socket
import threading
import time
from pathlib import Path

import pytest
from faults import failing
from http_cases import get
from lib import BENCH, HTSTRESS, HTTP_PORT, KO_DIR, PORT, connect, insmod, modes, receive_all, scaled, sh

pytestmark = pytest.mark.boot(faults=True, minutes=2)

SEED = int(os.environ.get("SEED") or 1)
SECONDS = 60 if os.environ.get("FAULTS") == "all" else 5
GET = get()


def echo_client(stop, seed, tally):
    """Connects, has some bytes echoed, closes in one of several ways; again and again."""
    rng = random.Random(seed)
    while not stop.is_set():
        data = rng.randbytes(rng.choice((1, 100, 5000, 70000)))
        try:
            with connect(timeout=2) as s:
                s.settimeout(2)
                sender = threading.Thread(target=quietly, args=(s.sendall, data))
                sender.start()
                got = b""
                try:
                    while len(got) < len(data) and (part := s.recv(1 << 16)):
                        got += part
                finally:
                    with_all = got == data
                    assert data.startswith(got), "what came back is not what was sent"
                    if rng.random() < 0.3:
                        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    sender.join()
                tally["whole" if with_all else "cut"] += 1
        except OSError:
            tally["failed"] += 1


def http_client(stop, seed, tally):
    """Pipelined requests, bad ones at the end now and then: every answer that comes is one."""
    rng = random.Random(seed)
    while not stop.is_set():
        n = rng.choice((1, 3, 200))
        try:
            with connect(port=HTTP_PORT, timeout=2) as s:
                s.settimeout(2)
                s.sendall(GET * n + rng.choice((b"", b"nonsense\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")))
                s.shutdown(socket.SHUT_WR)
                got = receive_all(s)
                assert got.count(b"HTTP/1.1 200 OK\r\n") <= n + 1
                assert not got or got.startswith(b"HTTP/1.1 "), got
                tally["whole" if got.count(b"HTTP/1.1 200 OK\r\n") >= n else "cut"] += 1
        except OSError:
            tally["failed"] += 1


def quietly(call, *args):
    try:
        call(*args)
    except OSError:
        pass


@modes("fast", "worker")
@pytest.mark.parametrize("module,client", [("kecho", echo_client), ("khttpd", http_client)])
@pytest.mark.parametrize("percent", [3, 40])
def test_service(load, module, client, percent):
    server = load(module, **({"idle_timeout": 5} if module == "kecho" else {"keepalive_timeout": 5, "request_timeout": 5}))
    stop = threading.Event()
    tally = {"whole": 0, "cut": 0, "failed": 0}
    wrong = []

    def run(seed):
        try:
            client(stop, seed, tally)
        except AssertionError as e:
            wrong.append(e)

    with failing(module, percent) as faults:
        clients = [threading.Thread(target=run, args=(SEED * 100 + n,)) for n in range(4)]
        for thread in clients:
            thread.start()
        time.sleep(SECONDS)
        stop.set()
        for thread in clients:
            thread.join()
        had = faults()
    print(f"{module}, {percent} %: {had} faults; connections {tally}; {server.stats()}")
    assert not wrong and had > 10
    # There is memory again: every client is served in full, and what the others left goes.
    if module == "kecho":
        out = sh(BENCH, "-c", 20, "-n", scaled(400)).stdout
        assert f"{20 * scaled(400)} messages" in out
    else:
        sh(HTSTRESS, "-n", scaled(4000), "-c", 20, f"http://127.0.0.1:{HTTP_PORT}/")
    server.wait("active", 0, seconds=60)
    stats = server.stats()
    assert stats["accepted"] == stats["closed"]


def converse(count):
    """So many connections over loopback, one after the other, each with a byte to and fro."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(count):
            with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as served:
                client.sendall(b"?")
                served.sendall(served.recv(1))
                assert client.recv(1) == b"?"


def flows_without_memory():
    """How many the probe's statistics tell of."""
    total = next(line for line in Path("/proc/net/stat/tcpprobe_plus").read_text().splitlines() if line.startswith("Total:"))
    return int(re.search(r"conn_drop: +\d+ +(\d+)", total)[1])


def types_read(fd):
    """The kinds of records that there are."""
    return {line.split()[0] for line in os.read(fd, 1 << 20).decode().splitlines()}


@pytest.mark.usefixtures("unloaded")
def test_flows(klog):
    """Traffic that the probe has no memory to track passes as ever, not recorded and counted; with memory it is again."""
    insmod(KO_DIR / "tcpprobe.ko", readnum=1)
    fd = os.open("/proc/net/tcpprobe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with failing("tcpprobe", 100) as faults:
            converse(20)
            had = faults()
        assert had >= 40 and flows_without_memory() == had
        assert types_read(fd) == {"4"}  # that a connection has ended is told of any
        converse(1)
        assert {"0", "1", "3", "4"} <= types_read(fd)
        assert flows_without_memory() == had
    finally:
        os.close(fd)
    assert not [line for line in klog.lines() if line.startswith("tcpprobe") and "memory" in line]


@modes("fast", "worker")
@pytest.mark.parametrize("module,data", [("kecho", b"x" * 100), ("khttpd", GET)])
def test_fin_without_memory(load, module, data):
    """A client that waits for the server's FIN, for which there was no memory, is told so by a reset, at once: not when it has
    sent its own FIN again, which it does not if that was acknowledged."""
    server = load(module)
    route = ("local", "127.0.0.1", "dev", "lo", "table", "local", "proto", "kernel", "scope", "host", "src", "127.0.0.1")
    sh("ip", "route", "replace", *route, "rto_min", "60s")
    try:
        with connect(port=HTTP_PORT if module == "khttpd" else PORT, timeout=10) as s:
            s.sendall(data)
            assert s.recv(1 << 16)
            with failing(module, 100, most=1) as faults:
                s.shutdown(socket.SHUT_WR)
                with pytest.raises(ConnectionResetError):
                    s.recv(1)
                assert faults() == 1
    finally:
        sh("ip", "route", "replace", *route)
    server.wait("active", 0)
    assert server.stat("errors") == 1
