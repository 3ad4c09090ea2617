# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that kecho gives back every byte, in order, however it was sent."""

import contextlib
import json
import random
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from lib import (BENCH, DEBUG, PORT, alive, bench, connect, in_netns, ip, network_namespace, receive, receive_all, scaled, sh,
                 sysctl)

SIZES = [1, 2, 255, 256, 257, 1447, 1448, 1449, 4095, 4096, 4097, 65535, 65536, 65537, 1 << 20, 8 << 20]


def echo(data, sock, pieces=None):
    """Sends all and half-closes from a thread while reading up to the FIN; returns what came."""

    def send():
        if pieces is None:
            sock.sendall(data)
        else:
            off = 0
            for n in pieces:
                sock.sendall(data[off : off + n])
                off += n
        sock.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        return receive_all(sock)
    finally:
        thread.join()


@pytest.mark.smoke
def test_every_byte_value(kecho):
    """Each of the 256 values alone, NUL among them, and all in one message."""
    with connect() as s:
        for value in range(256):
            s.sendall(bytes([value]))
            assert receive(s, 1) == bytes([value])
        s.sendall(bytes(range(256)))
        assert receive(s, 256) == bytes(range(256))


@pytest.mark.parametrize("size", SIZES)
def test_random_binary(kecho, size):
    data = random.Random(size).randbytes(size)
    with connect() as s:
        assert echo(data, s) == data
    kecho.wait("bytes_out", size)


def test_pipelined_small_writes(kecho):
    """20,000 writes of 1 to 7 bytes, none waiting for an answer."""
    rng = random.Random(1)
    pieces = [rng.randint(1, 7) for _ in range(scaled(20000))]
    data = rng.randbytes(sum(pieces))
    with connect() as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert echo(data, s, pieces) == data


@pytest.mark.smoke
def test_half_close_with_megabytes_queued(kecho):
    """The client sends 3 MiB and FIN before it reads a byte, and still gets all, then FIN."""
    data = random.Random(2).randbytes(3 << 20)
    with connect() as s:
        s.setblocking(False)
        sent = 0
        while sent < len(data):
            try:
                sent += s.send(data[sent : sent + 65536])
            except BlockingIOError:
                break  # every buffer on the way is full
        assert sent > 1 << 20, "the buffers took less than a megabyte"
        s.shutdown(socket.SHUT_WR)
        s.settimeout(60)
        assert receive_all(s) == data[:sent]
    kecho.wait("active", 0)


def test_half_close_at_once(kecho):
    """Only a FIN: the server's own FIN answers it."""
    for _ in range(50):
        with connect() as s:
            s.shutdown(socket.SHUT_WR)
            assert receive_all(s) == b""
    kecho.wait("active", 0)
    assert kecho.stat("errors") == 0


@pytest.mark.parametrize("fin", [False, True])
def test_data_before_the_server_attached(load, mode, fin):
    """Data, and FIN, that are there before the connection is accepted are not lost.

    Every other accept fails for want of memory, so that it comes at least 10 ms late.
    """
    kecho = load("kecho", hooks=True, hook_accept_fails=2)
    socks = []
    for n in range(40):
        s = connect()
        s.sendall(b"first %d" % n)
        if fin:
            s.shutdown(socket.SHUT_WR)
        socks.append(s)
    for n, s in enumerate(socks):
        want = b"first %d" % n
        assert (receive_all(s) if fin else receive(s, len(want))) == want
        s.close()
    stats = kecho.stats()
    assert stats["accepted"] == 40 and stats["errors"] >= 20, stats


@pytest.mark.smoke
def test_data_in_the_same_instant_as_connect(kecho):
    """Two hundred clients that send and half-close without a pause after connect."""
    for n in range(200):
        with connect() as s:
            s.sendall(b"%d" % n)
            s.shutdown(socket.SHUT_WR)
            assert receive_all(s) == b"%d" % n
    kecho.wait("active", 0)


@pytest.mark.smoke
def test_urgent_data(kecho):
    """An urgent byte in the middle of a stream comes back in its place, and nothing stalls."""
    with connect() as s:
        for n in range(50):
            before, after = b"before%d" % n, b"after%d" % n
            s.send(before)
            s.send(b"!", socket.MSG_OOB)
            s.send(after)
            want = before + b"!" + after
            assert receive(s, len(want)) == want
        s.send(b"last", socket.MSG_OOB)
        s.shutdown(socket.SHUT_WR)
        assert receive_all(s) == b"last"


@pytest.mark.smoke
def test_reset_in_the_middle(kecho):
    """Clients that vanish by RST with data on its way leave nothing behind."""
    linger = struct.pack("ii", 1, 0)
    for n in range(100):
        s = connect()
        s.sendall(b"x" * (n * 1000 + 1))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        s.close()
    kecho.wait("closed", 100)  # the last may yet have to be accepted
    stats = kecho.stats()
    assert stats["active"] == 0 and stats["errors"] > 0, stats
    with connect() as s:
        s.sendall(b"alive")
        assert receive(s, 5) == b"alive"


def test_closing_with_data_unread(kecho):
    """Clients that close without reading their answer (their kernel then sends RST)."""
    for _ in range(100):
        with connect() as s:
            s.sendall(b"y" * 5000)
    kecho.wait("closed", 100)


def nstat(name, netns=None):
    for line in sh("nstat", "-asz", name, netns=netns).stdout.splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise KeyError(name)


@pytest.mark.parametrize("fin", [False, True])
def test_fast_open(load, fin):
    """A TCP Fast Open client: its data is in the SYN, before the handshake is over."""
    with sysctl(ipv4__tcp_fastopen=0x607):  # client and server, no cookie, for every listener
        kecho = load("kecho")
        before = nstat("TcpExtTCPFastOpenPassive")
        for n in range(50):
            with socket.socket() as s:
                s.sendto(b"in the SYN %d" % n, socket.MSG_FASTOPEN, ("127.0.0.1", PORT))
                s.settimeout(20)
                want = b"in the SYN %d" % n
                if fin:
                    s.shutdown(socket.SHUT_WR)
                    assert receive_all(s) == want
                else:
                    assert receive(s, len(want)) == want
        assert nstat("TcpExtTCPFastOpenPassive") == before + 50
        kecho.wait("active", 0)


def test_memory_short_for_sends(load):
    """Every seventh send finds no memory, with nothing in flight whose ACK would start it again."""
    kecho = load("kecho", hooks=True, hook_send_fails=7)
    data = random.Random(3).randbytes(300000)
    with connect() as s:
        for n in range(100):
            s.sendall(b"%03d" % n)
            assert receive(s, 3) == b"%03d" % n
        assert echo(data, s) == data
    kecho.wait("active", 0)
    assert kecho.stat("errors") == 0


def test_room_that_goes_again(load):
    """Between the call that says there is room and the send it is gone: it must be asked for again."""
    kecho = load("kecho", hooks=True, hook_room_gone=2)
    data = random.Random(5).randbytes(scaled(8 << 20, 4))
    with connect() as s:
        sender = threading.Thread(target=s.sendall, args=(data,))
        sender.start()
        time.sleep(1)  # until every buffer on the way is full
        assert receive(s, len(data)) == data
        sender.join()
    kecho.wait("active", 0)
    assert kecho.stat("errors") == 0


@contextlib.contextmanager
def nested_tunnels():
    """Two namespaces with a tunnel in a tunnel between them, neither of which fits into what carries it: 10.6.2.1 and
    10.6.2.2 are its ends."""
    with network_namespace("near") as near, network_namespace("far") as far:
        sh("modprobe", "ipip", check=not DEBUG)
        ip(f"link add wire netns {near} type veth peer name wire netns {far}")
        for ns, me, peer in ((near, 1, 2), (far, 2, 1)):
            commands = [f"addr add 10.6.0.{me}/24 dev wire", "link set wire mtu 600 up"]
            for n, mtu in ((1, 1000), (2, 1400)):
                commands += [f"tunnel add tun{n} mode ipip local 10.6.{n - 1}.{me} remote 10.6.{n - 1}.{peer} nopmtudisc",
                             f"addr add 10.6.{n}.{me}/24 dev tun{n}", f"link set tun{n} mtu {mtu} up"]
            ip(*commands, netns=ns)
            in_netns(ns, lambda: Path("/proc/sys/net/ipv4/ip_no_pmtu_disc").write_text("1"))
        yield near, far


def test_fragments_within_fragments(load):
    """What two tunnels cut up arrives as lists of pieces within lists."""
    with nested_tunnels() as (near, far):
        kecho = load("kecho", netns=near)
        before = nstat("IpReasmOKs", netns=near)
        data = random.Random(6).randbytes(scaled(300000, 3))
        with in_netns(far, lambda: socket.create_connection(("10.6.2.1", PORT), timeout=20)) as s:
            assert echo(data, s) == data
        kecho.wait("active", 0)
        # Each segment of 1,360 bytes is put together twice.
        assert nstat("IpReasmOKs", netns=near) - before >= 2 * (len(data) // 1360)


def test_input_that_cannot_be_read(load):
    """As it lies in a device's memory: who sent it is reset, and nobody else."""
    kecho = load("kecho", hooks=True)
    with connect() as other:
        assert alive(other)
        for n, size in enumerate((1, 100000), 1):
            kecho.set("hook_unreadable", 1)
            with connect() as s, pytest.raises((ConnectionResetError, BrokenPipeError)):
                s.sendall(b"x" * size)
                receive(s, size)
            kecho.wait("errors", n)
            kecho.set("hook_unreadable", 0)
            assert alive(other)
        assert kecho.stat("closed") == 2


@pytest.mark.smoke
def test_statistics_add_up(kecho, mode):
    """The counters equal what the clients did."""
    each = scaled(200)
    out = bench("-c", 50, "-n", each, "-s", 100)
    assert f"{50 * each} messages" in out.stdout
    kecho.wait("closed", 50)
    stats = kecho.stats()
    assert stats["accepted"] == 50 and stats["active"] == 0
    assert stats["bytes_in"] == stats["bytes_out"] == 50 * each * 100
    assert stats["rejected"] == stats["timeouts"] == stats["errors"] == 0
    if mode == "fast":
        # What is there before its connection is accepted, a message at most, is not.
        assert stats["fastpath_bytes"] >= 0.95 * (stats["bytes_in"] - 50 * 100)
    elif mode == "worker":
        assert stats["fastpath_bytes"] == 0
    else:
        assert 0 < stats["fastpath_bytes"] < stats["bytes_in"]


def test_nothing_of_a_client_in_the_log(kecho, klog):
    """What a client sends or does is not logged, a reset neither."""
    with connect() as s:
        s.sendall(b"SECRET\0\n\x80%s%n" * 100)
        receive(s, 1000)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for _ in range(20):
        connect().close()
    kecho.wait("closed", 21)
    assert klog.lines() == []


def test_a_client_that_meets_itself():
    """Where nobody listens on a port that the kernel may give to the client, the client's end may be that port: that is no server."""
    with network_namespace("ns1"):
        sh("sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40000", netns="ns1")
        for address in "127.0.0.1", "::1":
            done = sh(BENCH, "-c", "1", "-n", "1", "--json", address, "40000", netns="ns1", check=False)
            said = json.loads(done.stdout)
            assert done.returncode == 1 and said["messages"] == 0 and said["errors"]["connect"] == 1, said
            assert "refused" in said["errors"]["first"]
