# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that limits hold, apply live, and that memory per connection is bounded."""

import errno
import random
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lib import (DEBUG, PORT, UNLOAD_MAX, alive, bench, connect, connected, modes, on_one_cpu, receive, receive_all, scaled, sh, shut,
                 socket_memory, thread_seconds)


def refused():
    """A new client is reset, at connect or after it."""
    try:
        return closed_by_reset(connect())
    except ConnectionResetError:
        return True


def closed_by_reset(sock):
    try:
        sock.settimeout(60)
        sock.sendall(b"?")
        return sock.recv(1) == b""
    except (ConnectionResetError, BrokenPipeError):
        return True


@modes("fast")
def test_max_conns(load):
    """One client more than allowed is reset at once and counted; a place that frees is given."""
    kecho = load("kecho", max_conns=3)
    socks = [connect() for _ in range(3)]
    assert all(alive(s) for s in socks)
    assert refused()
    kecho.wait("rejected", 1)
    assert kecho.stat("active") == 3
    socks.pop().close()
    kecho.wait("active", 2)
    socks.append(connect())
    assert alive(socks[-1])


@modes("fast")  # a worker may not have come to the last one's FIN yet
def test_max_conns_and_clients_one_after_the_other(load):
    """A place is free again once its client has gone, however soon the next one comes."""
    kecho = load("kecho", max_conns=1)
    for i in range(scaled(200, 4)):
        with on_one_cpu(), connect() as s:
            assert alive(s)
            if i % 3 == 1:  # of each three one waits for the server's FIN
                s.shutdown(socket.SHUT_WR)
                assert s.recv(1) == b""
            elif i % 3 == 2:  # and one goes by RST
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stats = kecho.stats()
    assert stats["rejected"] == 0 and stats["accepted"] == i + 1, stats


@modes("worker")
def test_a_place_that_is_not_free_in_time(load):
    """A client has gone, but an I/O worker has yet to come by its connection: the next one is refused for want of a place, by no error."""
    kecho = load("kecho", hooks=True, max_conns=1, hook_io_waits=10000)
    with connect() as s:
        kecho.wait("active", 1)  # what comes before is taken by who accepts
        s.sendall(b"x")
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert refused()
    kecho.wait("rejected", 1)
    kecho.set("hook_io_waits", 0)
    kecho.wait("active", 0)
    stats = kecho.stats()
    assert stats["errors"] == 1 and stats["rejected"] == 1, stats  # the reset


@modes("fast")
def test_max_conns_live(load):
    kecho = load("kecho", max_conns=1)
    first = connect()
    assert alive(first)
    assert refused()
    kecho.set("max_conns", 2)
    second = connect()
    assert alive(second)
    kecho.set("max_conns", 1)
    assert alive(first) and alive(second)  # those there stay
    assert refused()
    assert kecho.stat("rejected") == 2


@modes("fast")
def test_idle_timeout(load):
    """Without a byte for so long a connection is reset, not before, and counted; a busy one stays."""
    kecho = load("kecho", idle_timeout=6)
    began = time.monotonic()
    idle, busy = connect(), connect()
    while kecho.stat("timeouts") == 0:
        assert alive(busy)
        time.sleep(0.1)
        assert time.monotonic() - began < 30
    took = time.monotonic() - began
    assert 5.9 <= took <= (20 if DEBUG else 11), took
    assert closed_by_reset(idle)
    assert alive(busy)
    stats = kecho.stats()
    assert stats["timeouts"] == 1 and stats["active"] == 1 and stats["errors"] == 0, stats


@modes("fast")
def test_a_long_list_is_swept_to_its_end(load):
    """The sweep lets others have the list of connections between parts of it; it misses none, whoever comes and goes meanwhile."""
    kecho = load("kecho", idle_timeout=3)
    stop = threading.Event()

    def come_and_go():
        while not stop.is_set():
            with connect() as s:
                assert alive(s)

    with ThreadPoolExecutor(1) as pool:
        others = pool.submit(come_and_go)
        held = []
        for n in range(1500):
            held.append(connect())
            if n % 3 == 2:  # holes
                held.pop(-2).close()
        kecho.wait("timeouts", 1000, seconds=60)
        stop.set()
        others.result()
    assert all(closed_by_reset(s) for s in held) and len(held) == 1000
    kecho.wait("active", 0)
    assert kecho.stat("timeouts") == 1000


@modes("worker")
def test_a_byte_that_waits_for_a_worker_is_in_time(load):
    """The I/O worker has yet to come to it when the time is over."""
    kecho = load("kecho", hooks=True, idle_timeout=6)
    with connect() as s:
        kecho.wait("accepted", 1)
        began = time.monotonic()
        kecho.set("hook_io_waits", 10000)
        try:
            s.sendall(b"x")
            assert kecho.stat("bytes_in") == 0
            assert s.recv(1) == b"x"
            assert time.monotonic() - began > 5  # it was the sweep that found it
            assert kecho.stat("timeouts") == 0
        finally:
            kecho.set("hook_io_waits", 0)


@modes("fast")
def test_idle_timeout_live(load):
    """The default is an hour; 1 ends the idle soon, 0 never."""
    kecho = load("kecho")
    assert kecho.get("idle_timeout") == "3600"
    s = connect()
    time.sleep(2.5)
    assert alive(s)
    kecho.set("idle_timeout", 0)
    time.sleep(2.5)
    assert alive(s)
    kecho.set("idle_timeout", 1)
    kecho.wait("timeouts", 1, seconds=6)
    assert closed_by_reset(s)


def test_slow_reader_is_not_idle(load):
    """A client that takes a little now and then moves bytes, if none come from it."""
    kecho = load("kecho", idle_timeout=5)
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        s.settimeout(20)
        s.connect(("127.0.0.1", PORT))
        s.setblocking(False)
        sent = 0
        try:
            while True:
                sent += s.send(b"s" * 65536)
        except BlockingIOError:
            pass
        s.settimeout(20)
        for _ in range(30):
            receive(s, 16384)
            time.sleep(0.3)
        assert kecho.stat("timeouts") == 0
        assert kecho.stat("active") == 1


def half_closed(data):
    """A client that takes next to nothing of what comes back, and has sent its FIN behind data. The server has sent its own."""
    others = connected(PORT).count("LAST-ACK")
    s = shut(PORT, data)
    s.shutdown(socket.SHUT_WR)
    end = time.monotonic() + 20
    while connected(PORT).count("LAST-ACK") == others:
        assert time.monotonic() < end
        time.sleep(0.05)
    return s


def test_half_closed_clients_are_clients(load):
    """One that has sent its FIN and does not read is counted by max_conns, and ended by idle_timeout: it is not the machine's
    orphan, for as long as it likes."""
    kecho = load("kecho", max_conns=3)
    data = random.Random(6).randbytes(20000)
    socks = [half_closed(data) for _ in range(3)]
    time.sleep(1)
    assert kecho.stat("active") == 3 and kecho.stat("bytes_in") == 3 * len(data)
    assert refused()
    kecho.wait("rejected", 1)
    kecho.set("idle_timeout", 2)
    kecho.wait("active", 0, seconds=30)
    stats = kecho.stats()
    assert stats["timeouts"] == 3 and stats["errors"] == 0, stats
    assert connected(PORT) == ""
    for s in socks:
        s.close()


def test_half_closed_client_that_reads(load):
    """Slowly: it gets all, and its FIN, however long it takes."""
    idle, rest = (10, 0.4) if DEBUG else (3, 0.25)
    kecho = load("kecho", idle_timeout=idle)
    data = random.Random(7).randbytes(20000)
    with half_closed(data) as s:
        got = b""
        began = time.monotonic()
        while len(got) < len(data):
            part = s.recv(500)
            assert part
            got += part
            time.sleep(rest)
        assert got == data and time.monotonic() - began > max(8, idle + 2)
        assert s.recv(1) == b""
        kecho.wait("active", 0)
    assert kecho.stat("timeouts") == kecho.stat("errors") == 0


def test_half_closed_client_and_rmmod(kecho):
    """All was said and heard: what is left to deliver needs no module."""
    data = random.Random(8).randbytes(20000)
    with half_closed(data) as s:
        sh("rmmod", "kecho")
        assert receive_all(s) == data


def test_half_closed_client_that_dies(kecho):
    """By a reset, which is no error of anybody's: it had said all."""
    s = half_closed(bytes(20000))
    assert kecho.stat("active") == 1
    s.close()  # with bytes unread: a reset
    kecho.wait("active", 0)
    assert kecho.stat("errors") == kecho.stat("timeouts") == 0
    assert connected(PORT) == ""


def test_fastpath_live(load, mode):
    """fastpath changes under traffic: no byte is lost, and the counter shows who served."""
    kecho = load("kecho")
    data = random.Random(5).randbytes(1 << 20)
    with connect() as s:
        thread = threading.Thread(target=lambda: [s.sendall(data), s.shutdown(socket.SHUT_WR)])
        thread.start()
        for n in range(40):
            kecho.set("fastpath", n % 2)
            time.sleep(0.01)
        assert receive_all(s) == data
        thread.join()
    kecho.set("fastpath", 0)
    before = kecho.stat("fastpath_bytes")
    bench("-c", 5, "-n", 20)
    assert kecho.stat("fastpath_bytes") == before
    kecho.set("fastpath", 1)
    bench("-c", 5, "-n", 20)
    assert kecho.stat("fastpath_bytes") > before


@pytest.mark.parametrize("name,value", [
    ("fastpath", "2"), ("fastpath", "x"), ("max_conns", "0"), ("max_conns", "16777217"),
    ("idle_timeout", "-1"), ("idle_timeout", "31536001"), ("idle_timeout", ""),
])
@modes("fast")
def test_bad_value_while_loaded(kecho, klog, name, value):
    """A bad value is refused with EINVAL, named in the log, and the old one stays."""
    old = kecho.get(name)
    with pytest.raises(OSError) as failed:
        kecho.set(name, value)
    assert failed.value.errno == errno.EINVAL
    assert kecho.get(name) == old
    said = klog.lines()
    assert len(said) == 1 and f"{name}={value}" in said[0], said


@pytest.mark.parametrize("name", ["port", "addr", "backlog", "bench"])
@modes("fast")
def test_fixed_parameters_are_read_only(kecho, name):
    mode = Path("/sys/module/kecho/parameters", name).stat().st_mode & 0o777
    assert mode == 0o444


def test_slow_reader_against_fast_writer(kecho):
    """A client that writes as fast as it can and reads nothing, then slowly: memory stays bounded.

    The bound is what TCP allows one socket, tcp_rmem[2] and tcp_wmem[2], and a quarter more for
    a segment past the mark; the fastest sample of ten a second counts.
    """
    rmem = int(Path("/proc/sys/net/ipv4/tcp_rmem").read_text().split()[2])
    wmem = int(Path("/proc/sys/net/ipv4/tcp_wmem").read_text().split()[2])
    stop = threading.Event()
    samples = []

    def sample():
        while not stop.is_set():
            samples.append(socket_memory(PORT))
            time.sleep(0.1)

    sampler = threading.Thread(target=sample)
    sampler.start()
    total = 64 << 20
    block = random.Random(7).randbytes(1 << 16)
    sent = 0
    try:
        with connect() as s:
            s.setblocking(False)
            end = time.monotonic() + 4
            while time.monotonic() < end and sent < total:
                try:
                    sent += s.send(block[sent % 65536:])
                except BlockingIOError:
                    time.sleep(0.05)
            assert sent < total, "the server took 64 MiB that nobody reads"
            s.settimeout(60)
            got = 0
            for _ in range(20):  # slowly
                part = s.recv(20000)
                assert part == (block * 2)[got % 65536:][: len(part)]
                got += len(part)
                time.sleep(0.1)
            s.shutdown(socket.SHUT_WR)
            while got < sent:
                part = s.recv(32768)
                assert part and part == (block * 2)[got % 65536:][: len(part)]
                got += len(part)
            assert s.recv(1) == b""
    finally:
        stop.set()
        sampler.join()
    assert len(samples) > (10 if DEBUG else 15)
    assert 0 < max(samples) <= 1.25 * (rmem + wmem), max(samples)
    kecho.wait("active", 0)


def test_many_slow_readers(kecho):
    """200 clients that fill every buffer on the way and leave: all memory comes back."""
    socks = []
    count = scaled(200, 10)
    for _ in range(count):
        s = connect()
        s.setblocking(False)
        try:
            for _ in range(40):
                s.send(b"f" * 65536)
        except BlockingIOError:
            pass
        socks.append(s)
    kecho.wait("active", count, seconds=60)
    for s in socks:
        s.close()
    kecho.wait("active", 0, seconds=30)
    assert socket_memory(PORT) == 0


@modes("fast")
def test_257_idle_clients(kecho):
    """Idle clients occupy no worker: the 601st is served at once, and rmmod is not held up."""
    idle = [connect() for _ in range(600)]
    with connect() as s:
        assert alive(s)
    assert len(idle) == 600
    began = time.monotonic()
    sh("rmmod", "kecho")
    assert time.monotonic() - began < 5 * UNLOAD_MAX  # they would stay for an hour


@modes("fast")
def test_accept_failures_do_not_spin(load, klog):
    """Every accept fails for want of memory: a few tries a second, counted, nothing logged."""
    kecho = load("kecho", hooks=True, hook_accept_fails=1)
    s = connect()
    time.sleep(3)
    tries = kecho.stat("errors")
    assert 3 <= tries <= 40, tries
    assert klog.lines()[1:] == []  # the first is the load message
    kecho.set("hook_accept_fails", 0)
    assert alive(s)


@modes("fast")
def test_listener_killed_from_outside(kecho, klog):
    """'ss -K' on the listener: one log line, clients there go on, no worker spins, reload works."""
    with connect() as s:
        assert alive(s)
        sh("ss", "-K", "state", "listening", "sport", "=", f":{PORT}")
        said, end = [], time.monotonic() + 60
        while not said and time.monotonic() < end:
            time.sleep(1)
            said += [line for line in klog.lines() if "closed from outside" in line]
        assert len(said) == 1
        before = thread_seconds("kecho")
        time.sleep(1)
        assert thread_seconds("kecho") - before < 0.5  # one that spins has all of it
        assert alive(s)
        with pytest.raises(ConnectionRefusedError):
            connect()
    kecho.wait("active", 0)


def test_connections_are_freed_when_they_end(kecho):
    """Not at rmmod: after 2,000 connections the module holds none of them."""
    each = scaled(20)
    bench("-c", 100, "-n", each, "--reconnect")
    kecho.wait("closed", 100 * each)
    assert kecho.stat("active") == 0
    assert connected(PORT) == ""
