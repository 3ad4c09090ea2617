# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves every deadline and limit, and that an answer to a wrong request reaches its client."""

import contextlib
import fcntl
import os
import socket
import struct
import termios
import threading
import time

import pytest
from answers import HTTP_PORT, SLACK, ask, client, drain, exchange, parse, parse_all, read
from http_cases import MAX_HEADER, chunked, filled, get, sized
from lib import (DEBUG, black_hole, connected, in_netns, ip, modes, network_namespace, on_one_cpu, packet, receive, rmmod, scaled, sh, shut, slabs,
                 sysctl)

GET = get()
KINDS = ("header", "body", "keepalive", "response")


def timeouts(khttpd):
    stats = khttpd.stats()
    assert stats["timeouts"] == sum(stats[f"timeouts_{kind}"] for kind in KINDS)
    return {kind: stats[f"timeouts_{kind}"] for kind in KINDS if stats[f"timeouts_{kind}"]}


def fed(sock, data, until, every=0.2):
    """Sends data a byte at a time until the server has had enough; returns what it said."""
    sock.setblocking(False)
    end = time.monotonic() + until
    for n in range(1 << 30):
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            sock.send(data[n % len(data):][:1])
        time.sleep(every)
        with contextlib.suppress(BlockingIOError):
            sock.setblocking(True)
            sock.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                return sock.recv(4096)
            sock.setblocking(False)
        assert time.monotonic() < end
    return None


def within(began, least, most):
    took = time.monotonic() - began
    assert least - 0.1 <= took <= most + SLACK, took


@pytest.mark.parametrize("begun", [b"G", b"GET / HTTP/1.1\r\nHost: a\r\nX: ", b"\r"])
@modes("fast")
def test_header_deadline(load, begun):
    """From a request's first byte on, however its bytes drip in: 408, readable, and closed."""
    khttpd = load("khttpd", request_timeout=2)
    with client() as s:
        assert ask(s).status == 200
        time.sleep(1)
        began = time.monotonic()
        s.sendall(begun)
        answer = parse(fed(s, b"a" if begun != b"\r" else b"", 10) if begun != b"\r" else s.recv(4096))
        within(began, 2, 4)
        assert answer.status == 408 and answer.closes()
    assert timeouts(khttpd) == {"header": 1}
    assert khttpd.stat("requests") == khttpd.stat("responses_2xx") + khttpd.stat("responses_4xx") == 2
    assert khttpd.stat("parse_errors") == 0


@modes("fast")
def test_408_to_a_head(load):
    """Has no body, as no answer to one has."""
    load("khttpd", request_timeout=2)
    with client() as s:
        s.sendall(b"HEAD / HTTP/1.1\r\nHost: a\r\n")
        answer = parse(drain(s), head=True)
        assert answer.status == 408 and answer.closes() and not answer.rest and int(answer.fields["content-length"]) > 0


@pytest.mark.parametrize("request_", [sized(b"3", b"abc"), chunked(b"3;x=y\r\nabc\r\n0\r\nT: u\r\n\r\n")])
@modes("fast")
def test_408_wherever_a_request_stops(load, request_):
    """Behind each of its bytes: the head's deadline up to the head's end, then the body's."""
    khttpd = load("khttpd", request_timeout=2)
    socks = [client() for _ in range(1, len(request_))]
    for at, s in enumerate(socks, 1):
        s.sendall(request_[:at])
    for at, s in enumerate(socks, 1):
        answer = parse(drain(s))
        assert answer.status == 408 and answer.closes() and not answer.rest, at
        s.close()
    head = request_.index(b"\r\n\r\n") + 4
    assert timeouts(khttpd) == {"header": head - 1, "body": len(request_) - head}


@modes("fast")
def test_each_head_has_its_time(load):
    """Also one whose first bytes come with the last of the one before."""
    khttpd = load("khttpd", request_timeout=5)
    request = get()
    with client() as s:
        s.sendall(request[:9])
        for _ in range(6):
            time.sleep(1.2)
            s.sendall(request[9:] + request[:9])
            assert parse(s.recv(4096)).status == 200
    assert timeouts(khttpd) == {}


@pytest.mark.parametrize("body", [sized(b"1000"), chunked(b"3e8\r\n"), chunked(b"0\r\nX: ")])
@modes("fast")
def test_body_deadline(load, body):
    khttpd = load("khttpd", request_timeout=2)
    with client() as s:
        began = time.monotonic()
        s.sendall(body)
        answer = parse(fed(s, b"a", 10))
        within(began, 2, 4)
        assert answer.status == 408 and answer.closes()
    assert timeouts(khttpd) == {"body": 1}


@modes("fast")
def test_head_and_body_have_a_time_each(load):
    khttpd = load("khttpd", request_timeout=10)
    with client() as s:
        data = sized(b"3", b"abc")
        s.sendall(data[:5])
        time.sleep(6)
        s.sendall(data[5:-2])
        time.sleep(6)
        assert ask(s, data[-2:]).status == 405
        time.sleep(3)
        assert ask(s).status == 200
    assert timeouts(khttpd) == {}


@pytest.mark.parametrize("requests", [0, 1, 3])
@modes("fast")
def test_keepalive_deadline(load, requests):
    """An idle connection is closed by FIN, without an answer; each request starts the time anew."""
    khttpd = load("khttpd", keepalive_timeout=4)
    with client() as s:
        began = time.monotonic()
        for _ in range(requests):
            ask(s)
            time.sleep(1.2)
        if requests:
            ask(s)
            began = time.monotonic()
        assert drain(s) == b""
        within(began, 4, 6)
    assert timeouts(khttpd) == {"keepalive": 1}


@modes("fast")
def test_keepalive_longer_than_request(load):
    """The time for reading an answer does not end a connection whose answer was read."""
    khttpd = load("khttpd", keepalive_timeout=6, request_timeout=1)
    with client() as s:
        ask(s)
        began = time.monotonic()
        time.sleep(3)
        assert ask(s).status == 200
        began = time.monotonic()
        assert drain(s) == b""
        within(began, 6, 8)
    assert timeouts(khttpd) == {"keepalive": 1}


def ended_by_reset(sock):
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while sock.recv(1 << 20):
            pass
        return False
    return True


def test_unread_answers(load):
    """Who asks and asks and never reads is reset, and counted; whatever was kept for it is freed."""
    khttpd = load("khttpd", request_timeout=2)
    with client() as s:
        s.setblocking(False)
        began = time.monotonic()
        with contextlib.suppress(BlockingIOError):
            while True:
                s.send(GET * 1000)
        khttpd.wait("accepted", 1)  # or it is not active yet
        khttpd.wait("active", 0, seconds=10)
        within(began, 2, 6)
        s.setblocking(True)
        assert ended_by_reset(s)
    assert timeouts(khttpd) == {"response": 1}


def test_unread_in_the_send_buffer(load):
    """The same where all answers fit into the send buffer, and the client's window is shut."""
    khttpd = load("khttpd", request_timeout=2, keepalive_timeout=30)
    with shut(HTTP_PORT, GET * 60):
        khttpd.wait("requests", 60)
        began = time.monotonic()
        khttpd.wait("active", 0, seconds=10)
        within(began, 1.5, 6)
    assert timeouts(khttpd) == {"response": 1}


@contextlib.contextmanager
def unreachable(port):
    """Behind each segment of the client at that port a router tells the server that it cannot reach the client."""
    sent = []
    done = threading.Event()

    def route(wire, router):
        while not done.is_set():
            with contextlib.suppress(TimeoutError):
                packet = wire.recv(2000)
                if packet[9] != socket.IPPROTO_TCP or struct.unpack("!HH", packet[20:24]) != (port, HTTP_PORT):
                    continue
                # In it the head of what the server had sent, up to its sequence number.
                inner = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 60, 0, 0, 64, socket.IPPROTO_TCP, 0, packet[16:20], packet[12:16])
                inner += packet[22:24] + packet[20:22] + packet[28:32] + bytes(12)
                message = struct.pack("!BBHI", 3, 1, 0, 0) + inner
                total = sum(struct.unpack(f"!{len(message) // 2}H", message))
                total = (total & 0xffff) + (total >> 16)
                total = (total & 0xffff) + (total >> 16)
                sent.append(router.sendto(message[:2] + struct.pack("!H", total ^ 0xffff) + message[4:], ("127.0.0.1", 0)))

    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x800)) as wire, \
         socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as router:
        wire.bind(("lo", 0x800))
        wire.settimeout(0.1)
        thread = threading.Thread(target=route, args=(wire, router))
        thread.start()
        yield sent
        done.set()
        thread.join()


@pytest.mark.parametrize("icmp", [False, True], ids=["silence", "unreachable"])
def test_asking_on_gains_no_time(load, icmp):
    """Nor does it for who asks again and again: TCP itself gives up on a client that acknowledges nothing. Whatever ICMP has
    told meanwhile, it is a time-out."""
    khttpd = load("khttpd", request_timeout=2, keepalive_timeout=30)
    with contextlib.ExitStack() as stack:
        s = stack.enter_context(shut(HTTP_PORT, GET * 60))
        sent = stack.enter_context(unreachable(s.getsockname()[1])) if icmp else None
        khttpd.wait("requests", 60)
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < began + 30 and khttpd.stat("active"):
                s.sendall(GET)
                time.sleep(0.5)
        khttpd.wait("active", 0)
        within(began, 2, 9)
        assert not icmp or sent
    assert timeouts(khttpd) == {"response": 1}
    assert khttpd.stat("errors") == 0


@modes("fast")
def test_who_acknowledges_little_is_not_given_up(load):
    """A client that loses much acknowledges a segment now and then, which is all one loss to TCP: its own user timeout, of six
    seconds here, would be over. One who then acknowledges nothing is given up after as long."""
    khttpd = load("khttpd", request_timeout=4)
    with black_hole(), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as wire:
        wire.bind(("hole", 3))
        wire.settimeout(20)
        ends = "198.51.100.7", 5555, "10.9.9.1", HTTP_PORT
        packet(*ends, seq=1000, flags="S")
        while (answer := wire.recv(2048))[0] >> 4 != 4:  # IPv6 talks of itself
            pass
        acked = struct.unpack_from("!I", answer, 4 * (answer[0] & 15) + 4)[0] + 1
        requests = GET * 50
        packet(*ends, seq=1001, ack=acked, flags="A", data=requests)
        khttpd.wait("requests", 50)
        began = time.monotonic()
        while time.monotonic() < began + 15:
            time.sleep(2)
            acked += 536
            last = time.monotonic()
            packet(*ends, seq=1001 + len(requests), ack=acked, flags="A")
            assert khttpd.stat("active") == 1, time.monotonic() - began
        khttpd.wait("active", 0)
        within(last, 4, 7)
    assert timeouts(khttpd) == {"response": 1} and khttpd.stat("errors") == 0


@modes("fast")
def test_unread_beyond_keepalive(load):
    """Who has not read is not idle, however short the time for that is."""
    khttpd = load("khttpd", request_timeout=6, keepalive_timeout=1)
    with shut(HTTP_PORT, GET * 60):
        khttpd.wait("requests", 60)
        began = time.monotonic()
        khttpd.wait("active", 0)
        within(began, 4, 9)
    assert timeouts(khttpd) == {"response": 1}


@pytest.mark.parametrize("last,half", [(get(b"Connection: close"), False), (b"GARBAGE\r\n", False), (get(), True),
                                       (get(b"Connection: close"), True)])
@modes("fast")
def test_unread_last_answer(load, last, half):
    """Who leaves the last answer unread has its time like any other, lingering close or FIN or not, and is counted meanwhile:
    nothing of it is left to core TCP."""
    khttpd = load("khttpd", request_timeout=8, max_conns_per_ip=1)
    with shut(HTTP_PORT, GET * 60 + last) as s:
        if half:
            s.shutdown(socket.SHUT_WR)
        khttpd.wait("requests", 61)
        began = time.monotonic()
        time.sleep(6)
        assert khttpd.stat("active") == 1
        assert refused("127.0.0.1") is True
        khttpd.wait("active", 0)
        within(began, 7, 12)
        assert connected(HTTP_PORT) == ""
    assert timeouts(khttpd) == {"response": 1}
    assert khttpd.stat("errors") == 0


@pytest.mark.parametrize("last,room", [(get(b"Connection: close"), True), (b"GARBAGE\r\n", True), (b"", True), (b"", False)],
                         ids=["close", "error", "kept", "blocked"])
@modes("fast")
def test_steady_reader_is_served(load, last, room):
    """However slowly it reads, and wherever its answers wait: all comes, and the FIN after the last."""
    # Between two of its ACKs it reads half of its buffer, which a guest with detectors may take many seconds for.
    timeout, rest = (25, 0.6) if os.environ.get("VM_KERNEL") == "kcsan" else (8, 0.2) if DEBUG else (3, 0.2)
    khttpd = load("khttpd", request_timeout=timeout, keepalive_timeout=5)
    with contextlib.ExitStack() as stack:
        if not room:
            stack.enter_context(sysctl(ipv4__tcp_wmem="4096 4096 4096"))
        s = stack.enter_context(shut(HTTP_PORT, GET * 200 + last))
        data = b""
        began = time.monotonic()
        s.settimeout(60)
        while part := s.recv(600):
            data += part
            time.sleep(rest)
        assert time.monotonic() - began > max(9, timeout + 1)
        assert len(parse_all(data)) == 200 + bool(last)
    assert timeouts(khttpd) == ({} if last else {"keepalive": 1})
    assert khttpd.stat("errors") == 0


@pytest.mark.parametrize("last,unloaded", [(b"", False), (get(b"Connection: close"), False), (get(b"Connection: close"), True)],
                         ids=["kept", "close", "unloaded"])
@modes("fast")
def test_steady_reader_of_large_segments_is_served(load, last, unloaded):
    """What waits first may take longer to fit into the small windows of a slow reader than TCP waits for one who acknowledges
    nothing: TCP does not give up on one who does. Left to TCP meanwhile, as all is said and heard, he has that time from then on."""
    timeout = 6 if DEBUG else 3
    asked = 4000 if unloaded else 8000
    with network_namespace("web") as web:
        if unloaded:  # all answers are to be in the send buffer
            sh("sysctl", "-qw", "net.ipv4.tcp_wmem=4096 4194304 4194304", netns=web)
        sh("ethtool", "-K", "lo", "tso", "off", "gso", "off", netns=web)  # or a window's worth would come in few large pieces
        khttpd = load("khttpd", netns=web, request_timeout=timeout, keepalive_timeout=5)
        with in_netns(web, socket.socket) as s:
            # A large window at first, by which TCP makes what it sends; then 4 KiB at a time.
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 131072)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1460)
            s.settimeout(60)
            s.connect(("127.0.0.1", HTTP_PORT))
            s.sendall(GET * (asked - bool(last)) + last)
            if unloaded:
                s.shutdown(socket.SHUT_WR)
                khttpd.wait("requests", asked)
            time.sleep(0.5)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            data = receive(s, struct.unpack("i", fcntl.ioctl(s, termios.FIONREAD, bytes(4)))[0])
            end = time.monotonic() + 4 * (timeout + 2)
            while time.monotonic() < end:
                data += s.recv(600)
                time.sleep(0.1)
            assert data.count(b"HTTP/") < asked  # some has waited all the while
            if unloaded:
                rmmod("khttpd")
                end = time.monotonic() + timeout / 2
                while time.monotonic() < end:
                    data += s.recv(600)
                    time.sleep(0.1)
            while part := s.recv(1 << 20):
                data += part
        assert data.count(b"HTTP/1.1 200 OK\r\n") == data.count(b"Hello World!") == asked
        if unloaded:
            return
        khttpd.wait("active", 0)
        assert timeouts(khttpd) == ({} if last else {"keepalive": 1})
        assert khttpd.stat("errors") == 0


@modes("worker")
def test_a_body_that_waits_for_a_worker_is_in_time(load):
    """Nor is one given up that is more than is taken in at a time, as long as some of it waits."""
    body = bytes(900000)
    khttpd = load("khttpd", hooks=True, request_timeout=2, keepalive_timeout=2)
    with sysctl(ipv4__tcp_rmem="4096 8388608 8388608"), client() as s:
        khttpd.wait("accepted", 1)
        khttpd.set("hook_io_waits", 10000)
        try:
            s.sendall(sized(b"%d" % len(body), body))
            assert read(s).status == 405
            assert timeouts(khttpd) == {}
        finally:
            khttpd.set("hook_io_waits", 0)


@modes("worker")
def test_what_waits_for_a_worker_is_in_time(load):
    """A request that came before its deadline is answered, though the I/O worker has yet to come to it."""
    khttpd = load("khttpd", hooks=True, keepalive_timeout=3)
    with client() as s:
        khttpd.wait("accepted", 1)
        khttpd.set("hook_io_waits", 10000)
        try:
            s.sendall(GET)
            began = time.monotonic()
            assert khttpd.stat("requests") == 0
            assert read(s).status == 200
            assert time.monotonic() - began > 1  # it was the deadline that found it
            assert timeouts(khttpd) == {}
        finally:
            khttpd.set("hook_io_waits", 0)


@pytest.mark.parametrize("asked,kind", [(b"GET", "header"), (sized(b"9"), "body")])
@modes("fast")
def test_time_for_a_408(load, asked, kind):
    """It has its time to be acknowledged, like any answer, however long the client had been silent before."""
    with network_namespace("web") as web:
        khttpd = load("khttpd", netns=web, request_timeout=8)
        with in_netns(web, client) as s:
            s.sendall(asked)
            khttpd.wait("bytes_in", len(asked))
            sh("tc", "qdisc", "add", "dev", "lo", "root", "netem", "loss", "100%", netns=web)
            khttpd.wait(f"timeouts_{kind}", 1, seconds=30)
            began = time.monotonic()
            khttpd.wait("active", 0, seconds=30)
            within(began, 5, 11)  # from when this has noticed
        assert timeouts(khttpd) == {kind: 1, "response": 1}


@modes("fast")
def test_what_is_thrown_away_gains_no_time(load):
    """A client that has its last answer to read and goes on sending instead."""
    khttpd = load("khttpd", request_timeout=1000)
    with shut(HTTP_PORT, GET * 60 + get(b"Connection: close")) as s:
        khttpd.wait("requests", 61)
        khttpd.set("request_timeout", 7)  # which TCP is not told of
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while khttpd.stat("active") and time.monotonic() < began + 30:
                s.sendall(b"x")
                time.sleep(0.5)
        within(began, 6, 10)
    assert timeouts(khttpd) == {"response": 1}


@modes("fast")
def test_idle_begins_when_all_is_read(load):
    """Not when it was sent: who took its time for that has the whole of keepalive_timeout for the next request."""
    khttpd = load("khttpd", keepalive_timeout=6, request_timeout=6)
    with shut(HTTP_PORT, GET * 60) as s:
        data = b""
        while data.count(b"Hello World!") < 60:
            data += s.recv(600)
            time.sleep(0.5)
        time.sleep(2)
        assert ask(s).status == 200
    assert timeouts(khttpd) == {}


@modes("fast")
def test_time_out_without_memory_for_the_answer(load):
    """It is sent when there is some, and what was answered before still comes."""
    khttpd = load("khttpd", hooks=True, request_timeout=2)
    with client() as s:
        assert ask(s).status == 200
        s.sendall(b"GET")
        khttpd.wait("bytes_in", len(GET) + 3)
        khttpd.set("request_timeout", 30)  # for the answer: the header's time began before
        khttpd.set("hook_send_fails", 1)
        khttpd.wait("responses_4xx", 1)
        time.sleep(0.5)
        khttpd.set("hook_send_fails", 0)
        assert read(s).status == 408
        assert drain(s) == b""
    assert timeouts(khttpd) == {"header": 1}


@modes("fast")
def test_slow_reader_is_served(load):
    """Who reads in time is no such client."""
    khttpd = load("khttpd", request_timeout=3, keepalive_timeout=30)
    with shut(HTTP_PORT, GET * 60) as s:
        time.sleep(1)
        data = b""
        while data.count(b"Hello World!") < 60:
            data += s.recv(4096)
        time.sleep(4)
        assert ask(s).status == 200
    assert timeouts(khttpd) == {}


def has_gone(khttpd, least):
    """The bytes that were sent if they come to so many; it is counted a moment after the request."""
    end = time.monotonic() + 0.5
    while (sent := khttpd.stat("bytes_out")) < least and time.monotonic() < end:
        time.sleep(0.02)
    return sent if sent >= least else 0


@modes("fast")
def test_answer_that_found_room_at_last(load):
    """Once it has, the connection is idle like any other."""
    timeout = 12 if DEBUG else 3
    khttpd = load("khttpd", request_timeout=timeout, keepalive_timeout=60)
    with sysctl(ipv4__tcp_wmem="4096 4096 4096"), shut(HTTP_PORT) as s:
        s.sendall(GET)
        asked = 1
        while not (size := has_gone(khttpd, 1)):
            pass
        while has_gone(khttpd, asked * size):  # until one finds none, and nothing more is asked
            s.sendall(GET)
            asked += 1
            khttpd.wait("requests", asked)
        time.sleep(1)
        assert asked > 1
        receive(s, asked * size)
        time.sleep(timeout + 2)
        assert ask(s).status == 200
    assert timeouts(khttpd) == {}


@modes("fast")
def test_deadlines_apply_live(load):
    khttpd = load("khttpd")
    for name, value in (("keepalive_timeout", "60"), ("request_timeout", "10"), ("max_requests", "0"), ("max_header", "8192"),
                        ("max_headers", "100"), ("max_body", "1048576"), ("max_conns_per_ip", "0"), ("port", "8081"),
                        ("addr", "::"), ("backlog", "128"), ("bench", "0"), ("max_conns", "65536")):
        assert khttpd.get(name) == value
    with client() as s:
        khttpd.set("keepalive_timeout", 1)
        ask(s)
        assert drain(s) == b""
    khttpd.set("request_timeout", 1)
    with client() as s:
        s.sendall(b"GET")
        assert read(s).status == 408


@pytest.mark.parametrize("name,value", [("keepalive_timeout", "0"), ("keepalive_timeout", "-1"), ("request_timeout", "0"),
                                        ("max_header", "63"), ("max_header", "1048577"), ("max_headers", "0"),
                                        ("max_body", "2147483648"), ("max_conns_per_ip", "x"), ("max_requests", "4294967296")])
@modes("fast")
def test_bad_parameters(load, klog, name, value):
    with pytest.raises(OSError, match="Invalid argument"):
        load("khttpd", **{name: value})
    khttpd = load("khttpd")
    before = khttpd.get(name)
    klog.lines()
    with pytest.raises(OSError, match="Invalid argument"):
        khttpd.set(name, value)
    assert any(f"{name}={value}" in line for line in klog.lines())
    assert khttpd.get(name) == before


@modes("fast")
def test_limits_apply_live(load):
    khttpd = load("khttpd")
    with client() as s:
        assert ask(s, filled(5000)).status == 200
        khttpd.set("max_header", 1000)
        assert ask(s, filled(1000)).status == 200
        assert ask(s, filled(1001)).status == 431
    khttpd.set("max_header", MAX_HEADER)
    khttpd.set("max_headers", 2)
    with client() as s:
        assert ask(s, get(b"X: y")).status == 200
        assert ask(s, get(b"X: y", b"X: y")).status == 431
    khttpd.set("max_body", 4)
    with client() as s:
        assert ask(s, sized(b"4", b"abcd")).status == 405
        assert ask(s, sized(b"5", b"abcde")).status == 413
    assert [a.status for a in parse_all(exchange(chunked(b"2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n")))] == [405]
    assert [a.status for a in parse_all(exchange(chunked(b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n")))] == [413]
    khttpd.set("max_body", 0)
    assert [a.status for a in parse_all(exchange(sized(b"0")))] == [405]
    assert [a.status for a in parse_all(exchange(sized(b"1", b"a")))] == [413]


def test_error_reaches_a_client_that_goes_on_sending(khttpd):
    """It sends megabytes more before it reads: no reset takes the answer away."""
    more = bytes(scaled(4 << 20, 4))
    for data in (sized(b"100000000"), b"GARBAGE\r\n", get(b"Connection: close")):
        for _ in range(scaled(10, 5)):
            with client() as s:
                s.sendall(data)
                s.sendall(more)
                time.sleep(0.05)
                s.shutdown(socket.SHUT_WR)
                assert len(parse_all(drain(s))) == 1
    khttpd.wait("active", 0)
    assert khttpd.stat("errors") == 0


@modes("fast")
def test_linger_is_bounded(khttpd):
    """A client that neither closes nor stops sending is got rid of after some five seconds."""
    with client() as quiet, client() as busy:
        began = time.monotonic()
        for s in (quiet, busy):
            s.sendall(b"GARBAGE\r\n")
            assert read(s).status == 400
        busy.settimeout(0.2)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < began + 20:
                busy.send(b"x" * 1000)
                time.sleep(0.05)
        within(began, 4.5, 9)
        khttpd.wait("active", 0, seconds=10)
        within(began, 4.5, 12)
    stats = khttpd.stats()
    assert stats["timeouts"] == 0 and stats["closed"] == 2, stats


def refused(source, target="127.0.0.1", netns=None):
    """Whether a new connection from source is reset; or else the connection."""
    s = None
    try:
        s = client(target, source_address=(source, 0))
        ask(s)
        return s
    except (ConnectionError, AssertionError):
        return True


@pytest.mark.parametrize("addr", ["::", "127.0.0.1"])
@modes("fast")
def test_max_conns_per_ip(load, addr):
    """One more than allowed from an address is reset and counted; another address is served. By sockets of either family."""
    khttpd = load("khttpd", addr=addr, max_conns_per_ip=3)
    held = [refused("127.0.0.1") for _ in range(3)]
    assert True not in held
    assert refused("127.0.0.1") is True
    khttpd.wait("rejected", 1)
    other = refused("127.0.0.2")
    assert other is not True
    held.pop().close()
    khttpd.wait("active", 3)
    again = refused("127.0.0.1")
    assert again is not True
    assert refused("127.0.0.1") is True
    khttpd.set("max_conns_per_ip", 0)
    held += [refused("127.0.0.1") for _ in range(5)]
    assert True not in held
    khttpd.set("max_conns_per_ip", 4)  # those there stay, and count
    assert ask(held[0]).status == 200
    assert refused("127.0.0.1") is True
    assert khttpd.stat("rejected") == 3


@modes("fast")
def test_max_conns_per_ip_and_clients_one_after_the_other(load):
    """A place is free again once its client has gone, however soon the next one comes."""
    khttpd = load("khttpd", max_conns_per_ip=1)
    for i in range(scaled(200, 4)):
        with on_one_cpu(), client() as s:
            if i % 3 == 1:  # of each three one is closed by the server first
                ask(s)
            elif i % 3 == 2:  # and one goes by RST
                ask(s)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                assert ask(s, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").closes() and drain(s) == b""
    stats = khttpd.stats()
    assert stats["rejected"] == 0 and stats["accepted"] == i + 1, stats


@modes("fast")
def test_max_conns_per_ip_of_ipv6(load):
    """A /64 is one client."""
    with network_namespace("web") as web:
        ip(*(f"addr add 2001:db8:0:{address}/128 dev lo nodad" for address in ("1::1", "1::2", "2::1")), netns=web)
        khttpd = load("khttpd", netns=web, max_conns_per_ip=2)

        def hold(source):
            return in_netns(web, lambda: refused(source, "::1"))

        first = hold("2001:db8:0:1::1"), hold("2001:db8:0:1::2")
        assert True not in first
        assert hold("2001:db8:0:1::1") is True
        assert hold("2001:db8:0:1::2") is True
        second = hold("2001:db8:0:2::1")
        assert second is not True
        assert khttpd.stat("rejected") == 2
        for s in (*first, second):
            s.close()
        khttpd.wait("active", 0)


@modes("fast")
def test_peers_are_forgotten(khttpd):
    """Of 2,000 addresses nothing is left when their connections have gone."""
    before = slabs(["kmalloc-64"])
    for n in range(scaled(2000)):
        with client(source_address=(f"127.1.{n // 250}.{n % 250 + 1}", 0)) as s:
            ask(s)
    khttpd.wait("closed", scaled(2000))
    after = slabs(["kmalloc-64"])
    assert DEBUG or after["kmalloc-64"] - before["kmalloc-64"] < 500, (before, after)


@modes("fast")
def test_max_conns(load):
    khttpd = load("khttpd", max_conns=2)
    held = [client() for _ in range(2)]
    for s in held:
        assert ask(s).status == 200
    assert refused("127.0.0.1") is True
    khttpd.wait("rejected", 1)
    for s in held:
        s.close()
