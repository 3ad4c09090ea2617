# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that a connection is dropped whatever becomes of it while it is looked up. The module's hook makes the time
between finding a pair's socket and dropping it long enough for that."""

import contextlib
import errno
import random
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from lib import DEBUG, HOOKS_DIR, TCPDROP, black_hole, insmod, packet, rmmod, scaled, sh, sysctl
from sockets import Pair, at_port, gained, key_of, line_of, wait_for, wait_state, walk, write

WAIT_MS = 6000 if DEBUG else 2000
TCP_REPAIR = 19


@pytest.fixture(name="drop", autouse=True)
def drop_slowly():
    insmod(HOOKS_DIR / "drop_tcp_sock.ko", hook_found_ms=WAIT_MS)
    yield
    rmmod("drop_tcp_sock")


@contextlib.contextmanager
def being_dropped(line):
    """What is done inside happens between a socket's being found and its being dropped."""
    writer = threading.Thread(target=write, args=(line + "\n",))
    writer.start()
    stack = Path(f"/proc/self/task/{writer.native_id}/stack")
    wait_for(lambda: "msleep" in stack.read_text())
    yield
    writer.join()


def test_closed_meanwhile():
    """Found as ESTABLISHED, it is a TIME-WAIT socket when it is to be dropped."""
    with Pair() as pair:
        key = key_of(pair.client)
        with being_dropped(line_of(key)):
            pair.client.close()
            assert pair.served.recv(1) == b""
            pair.served.close()
            wait_state(key, "time_wait")
        assert gained() == {"requested": 1, "dropped": 1, "dropped_time_wait": 1}
        assert not {e for e in walk() if e[:4] == key}


@pytest.mark.parametrize("by", ["pair", "selector"])
def test_accepted_meanwhile(by):
    """Found as a request, it is a connection when it is to be dropped; and one only. Of many that a line selects it may be
    so just after the last look, when the request counts too."""
    if by == "selector":
        Path("/sys/module/drop_tcp_sock/parameters/hook_meant_ms").write_text(str(WAIT_MS))
    with black_hole(), socket.socket() as listener, \
         socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as wire:
        listener.bind(("10.9.9.1", 0))
        listener.listen(16)
        port = listener.getsockname()[1]
        wire.bind(("hole", 3))
        wire.settimeout(20)
        packet("198.51.100.7", 5555, "10.9.9.1", port, seq=1000, flags="S")
        while (answer := wire.recv(2048))[0] >> 4 != 4:  # IPv6 talks of itself
            pass
        theirs = struct.unpack_from("!I", answer, 4 * (answer[0] & 15) + 4)[0]
        entry = wait_for(lambda: next((e for e in at_port(port) if e.state == "syn_recv"), None))
        with being_dropped(line_of(entry) if by == "pair" else f"10.9.9.1:{port} *:* connected"):
            packet("198.51.100.7", 5555, "10.9.9.1", port, seq=1001, ack=theirs + 1, flags="A")
            wait_state(entry[:4], "established")
        assert gained() == ({"requested": 1, "dropped": 1, "dropped_established": 1} if by == "pair" else
                            {"requested": 1, "dropped": 2, "dropped_syn_recv": 1, "dropped_established": 1})
        assert {e.state for e in at_port(port)} == {"listening"}


def test_ended_meanwhile():
    """It is gone altogether when it is to be dropped: not found."""
    with Pair() as pair:
        with being_dropped(line_of(key_of(pair.client))):
            pair.close()
        assert gained() == {"requested": 1, "not_found": 1}


@pytest.mark.parametrize("how", ["close", "accept"])
def test_not_accepted_yet(how):
    """While connections in a listener's queue are dropped it is closed, or accepts them: each is ended once, and the kernel has
    nothing to say of it."""
    Path("/sys/module/drop_tcp_sock/parameters/hook_found_ms").write_text("0")
    rng = random.Random(1)
    count = 100
    for _ in range(scaled(100, 5)):
        with socket.create_server(("127.0.0.1", 0), backlog=count) as listener, contextlib.ExitStack() as stack:
            port = listener.getsockname()[1]
            for _ in range(count):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer = threading.Thread(target=write, args=(f"127.0.0.1:{port} *:* connected\n",))
            writer.start()
            time.sleep(rng.uniform(0, 0.02 if DEBUG else 0.003))
            for _ in range(count if how == "accept" else 0):
                stack.enter_context(listener.accept()[0])
            listener.close()
            writer.join()
        dropped = gained().get("dropped", 0)
    print(f"{dropped} dropped")
    assert dropped


@pytest.mark.parametrize("then", ["close", "accept", "accepted"])
def test_fast_open(then):
    """A connection that TCP Fast Open has made of a SYN, and whose handshake is not done: whether it is accepted when it is dropped,
    or after that, or never, it is ended once, and leaves a place for the next one."""
    Path("/sys/module/drop_tcp_sock/parameters/hook_found_ms").write_text("0")
    with sysctl(ipv4__tcp_fastopen=0x603), black_hole(), socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("10.9.9.1", 0))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 1)  # that may be so at a time
        listener.listen(16)
        listener.settimeout(10)
        port = listener.getsockname()[1]
        for n in range(1, 4):
            packet("198.51.100.7", 5555 + n, "10.9.9.1", port, seq=1000, flags="S", data=b"in a SYN")
            entry = wait_for(lambda: next((e for e in at_port(port) if e.state == "syn_recv"), None))
            if then == "accepted":
                child = stack.enter_context(listener.accept()[0])
                assert child.recv(16) == b"in a SYN"
            write(line_of(entry) + "\n")
            assert gained() == {"requested": n, "dropped": n, "dropped_syn_recv": n}
            assert {e.state for e in at_port(port)} == {"listening"}
            if then == "close":
                break
            if then == "accept":
                child, peer = listener.accept()
                stack.enter_context(child)
                assert peer == ("198.51.100.7", 5555 + n)
            with pytest.raises(ConnectionAbortedError):
                child.recv(16)
            child.close()


def repaired(device, local="127.0.0.1", remote="127.0.0.1"):
    """A connection without a peer: as a checkpointed one is restored."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    if device:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
    s.bind((local, 7001))
    s.connect((remote, 7002))
    return s


@pytest.mark.parametrize("name,dropped", [("%lo", "bound"), ("", "unbound")])
def test_twins(name, dropped):
    """Two connections of the same pair, one of them bound to a device: the one that is named, first, goes."""
    with repaired(b"lo") as bound, repaired(None) as unbound:
        sockets = {"bound": bound, "unbound": unbound}
        write(f"127.0.0.1{name}:7001 127.0.0.1:7002\n")
        assert gained() == {"requested": 1, "dropped": 1, "dropped_established": 1}
        state = {key: s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] for key, s in sockets.items()}
        assert {key for key, value in state.items() if value != 1} == {dropped}


@pytest.mark.parametrize("state,dropped", [("syn-sent", "opening"), ("established", "bound"), ("", "opening")])
def test_twins_in_two_states(state, dropped):
    """TCP finds the one that is bound to no device first, which may be in another state than the line asks for. A dry run says
    the same."""
    with black_hole(), repaired(b"hole", "10.9.9.1", "198.51.100.7") as bound, socket.socket() as opening:
        opening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opening.bind(("10.9.9.1", 7001))
        opening.setblocking(False)
        assert opening.connect_ex(("198.51.100.7", 7002)) == errno.EINPROGRESS
        wait_for(lambda: {e.state for e in at_port(7001)} == {"established", "syn_sent"})
        sockets = {"bound": bound, "opening": opening}
        words = ["10.9.9.1:7001", "198.51.100.7:7002", *([state] if state else [])]
        said = sh(TCPDROP, "-n", *words).stdout.splitlines()
        assert len(said) == 1 and said[0].endswith({"opening": " syn-sent", "bound": " established"}[dropped]), said
        write(" ".join(words) + "\n")
        gone = {"opening": "dropped_syn_sent", "bound": "dropped_established"}[dropped]
        assert gained() == {"requested": 1, "dropped": 1, gone: 1}
        assert {key for key, s in sockets.items() if s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == 7} == {dropped}
