# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that a server whose allocations fail under traffic goes on serving: clients may be reset or wait, and when
there is memory again all is as before. And that what others do to their sockets is done, or not."""

import contextlib
import errno
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from answers import HELLO, parse_all
from faults import failing
from http_cases import get
from lib import (BENCH, HTSTRESS, HTTP_PORT, KO_DIR, PORT, TOP, connect, connections, drop_totals, forever, insmod, modes, receive_all, scaled,
                 sh)
from records import samples

pytestmark = pytest.mark.boot(faults=True, minutes=2)

SEED = int(os.environ.get("SEED") or 1)
SECONDS = 60 if os.environ.get("FAULTS") == "all" else 5
GET = get()
FILE = "/proc/net/drop_tcp_sock"


def echo_client(stop, seed, tally):
    """Connects, has some bytes echoed, closes in one of several ways; again and again."""
    rng = random.Random(seed)
    while not stop.is_set():
        data = rng.randbytes(rng.choice((1, 100, 5000, 70000)))
        try:
            with connect(timeout=2) as s:
                s.settimeout(2)
                failed = []
                sender = threading.Thread(target=send, args=(s, data, failed))
                sender.start()
                got = b""
                try:
                    while len(got) < len(data) and (part := s.recv(1 << 16)):
                        got += part
                finally:
                    assert data.startswith(got), "what came back is not what was sent"
                    if rng.random() < 0.3:
                        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    sender.join()
                # Of a reset one of the two who wait learns, and the other that there is no more.
                assert got == data or failed, "closed by FIN amid what was to come back"
                tally["whole" if got == data else "reset"] += 1
        except OSError as e:
            tally["late" if isinstance(e, TimeoutError) else "reset"] += 1


def http_client(stop, seed, tally):
    """Pipelined requests, bad ones at the end now and then: every answer that comes is one, and before a FIN all have come."""
    rng = random.Random(seed)
    while not stop.is_set():
        n = rng.choice((1, 3, 200))
        try:
            with connect(port=HTTP_PORT, timeout=2) as s:
                s.settimeout(2)
                last, answer = rng.choice(((b"", []), (b"nonsense\r\n", [(400, b"400 Bad Request\n")]), (get(b"Connection: close"), [(200, HELLO)])))
                s.sendall(GET * n + last)
                s.shutdown(socket.SHUT_WR)
                assert [(a.status, a.body) for a in parse_all(receive_all(s))] == [(200, HELLO)] * n + answer
                tally["whole"] += 1
        except OSError as e:
            tally["late" if isinstance(e, TimeoutError) else "reset"] += 1


def send(s, data, failed):
    try:
        s.sendall(data)
    except OSError as e:
        failed.append(e)


@modes("fast", "worker")
@pytest.mark.parametrize("module,client", [("kecho", echo_client), ("khttpd", http_client)])
@pytest.mark.parametrize("percent", [3, 40])
def test_service(load, module, client, percent):
    patience = ["idle_timeout"] if module == "kecho" else ["keepalive_timeout", "request_timeout"]
    server = load(module, **dict.fromkeys(patience, 5))
    stop = threading.Event()
    tally = {"whole": 0, "reset": 0, "late": 0}
    wrong = []

    def run(seed):
        try:
            client(stop, seed, tally)
        except Exception as e:  # pylint: disable=broad-exception-caught
            wrong.append(e)

    with failing(module, percent) as faults:
        clients = [threading.Thread(target=run, args=(SEED * 100 + n,)) for n in range(4)]
        for thread in clients:
            thread.start()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or ((faults() <= 10 or percent <= 3 and not tally["whole"]) and time.monotonic() < end + 60):
            time.sleep(0.2)
        stop.set()
        for thread in clients:
            thread.join()
        had = faults()
    print(f"{module}, {percent} %: {had} faults; connections {tally}; {server.stats()}")
    assert not wrong and had > 10
    assert tally["whole"] or percent > 3
    # There is memory again: every client is served in full, and what the others left goes.
    for name in patience:  # a busy host may be the cause that somebody waits
        server.set(name, 60)
    if module == "kecho":
        out = sh(BENCH, "-c", 20, "-n", scaled(400)).stdout
        assert f"{20 * scaled(400)} messages" in out
    else:
        sh(HTSTRESS, "-n", scaled(4000), "-c", 20, f"http://127.0.0.1:{HTTP_PORT}/")
    for name in patience:
        server.set(name, 5)
    server.wait("active", 0, seconds=60)
    stats = server.stats()
    assert stats["accepted"] == stats["closed"]


@pytest.mark.usefixtures("unloaded")
def test_drops():
    """Sockets that are dropped while they come and go are gone or not; what there was no memory for is done when there is some."""
    insmod(KO_DIR / "drop_tcp_sock.ko")
    end = 0  # not before all has started
    tally = {"written": 0, "refused": 0}

    def dropped():
        try:
            return drop_totals()["dropped"]
        except OSError as e:  # no memory to tell
            assert e.errno == errno.ENOMEM, e
            return 0

    def drop():
        lines = [b"*:7003 *:* connected", b"127.0.0.0/8:* *:7003 connected", b"nonsense", b"*:* *:7003 bucket", b"127.0.0.1:7003 127.0.0.1:1"]
        while time.monotonic() < end or not (tally["written"] and tally["refused"] and dropped()):
            try:
                with open(FILE, "wb", buffering=0) as f:
                    f.write(b"\n".join(lines) + b"\n")
                tally["written"] += 1
            except OSError as e:
                assert e.errno in (errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN), e
                tally["refused"] += 1
            time.sleep(0.02)

    with contextlib.ExitStack() as stack:
        server = stack.enter_context(subprocess.Popen([TOP / "userspace" / "user-echo-server", "-p", "7003"]))
        stack.callback(server.terminate)
        for how in ["--reconnect"], ["--lean"]:
            client = stack.enter_context(forever([BENCH, "-c", "10", "-n", "100000000", *how, "127.0.0.1", "7003"]))
            stack.callback(os.killpg, client.pid, signal.SIGKILL)
        had = stack.enter_context(failing("drop_tcp_sock", 40))
        end = time.monotonic() + SECONDS
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(drop) for _ in range(2)]:
                done.result()
        faults = had()
    counts = drop_totals()
    print(f"{faults} faults; {tally}; {counts}")
    assert faults > 10 and tally["written"] and tally["refused"] and counts["dropped"]
    with connections(3) as (asked, _, (addr, port)):
        Path(FILE).write_text(f"127.0.0.1:* {addr}:{port}\n")
        for s in asked:
            with pytest.raises(ConnectionAbortedError):
                s.send(b"x")


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


def check_recorded(fd):
    """Asserts that a connection is, from its first segment to its end: that is told where softirqs run, maybe later."""
    seen = set()
    end = time.monotonic() + 20
    converse(1)
    while not {"0", "1", "3", "4"} <= seen:
        assert time.monotonic() < end, seen
        with contextlib.suppress(BlockingIOError):
            seen |= types_read(fd)


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
        check_recorded(fd)
        assert flows_without_memory() == had
    finally:
        os.close(fd)
    assert not [line for line in klog.lines() if line.startswith("tcpprobe") and "memory" in line]


@pytest.mark.usefixtures("unloaded")
@pytest.mark.parametrize("percent", [5, 40])
def test_sizes_change_without_memory(percent):
    """Rings and tables are replaced under traffic and a reader, or not; no sample is lost sight of, and then all is recorded again."""
    insmod(KO_DIR / "tcpprobe.ko", readnum=1)
    fd = os.open("/proc/net/tcpprobe", os.O_RDONLY | os.O_NONBLOCK)
    stop = threading.Event()
    tally = {"set": 0, "refused": 0}

    def read():
        while True:
            try:
                types_read(fd)
            except BlockingIOError:
                return
            except OSError as e:
                assert e.errno == errno.EFAULT, e  # no page for the reader's own buffer: what it was to hold is there still

    def resize():
        rng = random.Random(SEED)
        while not stop.is_set():
            name, value = rng.choice([("bufsize", 16), ("bufsize", 4096), ("bufsize", 65536), ("hashsize", 32), ("hashsize", 65536)])
            try:
                Path("/proc/sys/net/tcpprobe_plus", name).write_text(str(value))
                tally["set"] += 1
            except OSError as e:
                assert e.errno in (errno.ENOMEM, errno.EBUSY), e
                tally["refused"] += 1
            read()

    with failing("tcpprobe", percent) as faults, ThreadPoolExecutor(1) as pool:
        resizing = pool.submit(resize)
        try:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end or (min(tally.values()) < 3 and time.monotonic() < end + 60):
                converse(5)
        finally:
            stop.set()
        resizing.result()
        had = faults()
    read()
    counted = samples()
    print(f"{percent} %: {had} faults; {tally}; {counted}")
    assert had > 10 and min(tally.values()) >= 3
    assert counted["taken"] == counted["read"] + counted["lost"] + counted["discarded"]
    Path("/proc/sys/net/tcpprobe_plus/bufsize").write_text("4096")  # 16 may be less than a connection's
    check_recorded(fd)
    os.close(fd)


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
            with failing(module, 100, most=1, kinds=("failslab",)) as faults:
                s.shutdown(socket.SHUT_WR)
                with pytest.raises(ConnectionResetError):
                    s.recv(1)
                assert faults() == 1
    finally:
        sh("ip", "route", "replace", *route)
    server.wait("active", 0)
    assert server.stat("errors") == 1
