# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves which request gets which answer, to the byte, in whatever pieces it comes."""

import contextlib
import fcntl
import functools
import random
import re
import socket
import struct
import time
from email.utils import parsedate_to_datetime

import pytest
from answers import HELLO, ask, client, drain, exchange, parse, parse_all, read
from http_cases import CASES, chunked, get, sized, targeted
from lib import DEBUG, HTTP_PORT, Capture, least, modes, scaled, sysctl

SIOCOUTQ = 0x5411
CLOCK_REALTIME_COARSE = 5  # <linux/time.h>
GET = get()
HEAD = get(line=b"HEAD / HTTP/1.1")
OPTIONS = get(line=b"OPTIONS * HTTP/1.1")
ALLOW = "GET, HEAD, OPTIONS"


def final(data, head=False):
    """The last answer in what came back; before it there may be a 100."""
    answer = parse(data, head)
    assert answer, data
    while answer.status == 100:
        answer = parse(answer.rest, head)
    assert not answer.rest, answer.rest
    return answer


def is_last(request):
    """Whether a sound request ends its connection: RFC 9112, 9.3; 9110, 9.3.6."""
    line, *fields = request.lstrip(b"\r\n").partition(b"\r\n\r\n")[0].split(b"\r\n")
    said = b",".join(value for name, _, value in (field.partition(b":") for field in fields) if name.lower() == b"connection")
    tokens = {token.strip(b" \t").lower() for token in said.split(b",")}
    return line.startswith(b"CONNECT ") or b"close" in tokens or (line.endswith(b"HTTP/1.0") and b"keep-alive" not in tokens)


def check_answer(data, request, status):
    head = request.lstrip(b"\r\n").startswith(b"HEAD ")
    answer = final(data, head)
    assert answer.status == status
    assert answer.closes() == (status not in (200, 405) or is_last(request))
    assert ("allow" in answer.fields) == (status == 405 or (status == 200 and request.startswith(b"OPTIONS")))
    if request.startswith(b"OPTIONS"):
        assert answer.fields["allow"] == ALLOW and answer.body == b"" if status == 200 else True
    elif status == 200 and not head:
        assert answer.body == HELLO and answer.fields["content-type"] == "text/plain"
    elif not head:
        assert re.fullmatch(rb"%d [A-Z][ -~]+\n" % status, answer.body)


@pytest.mark.smoke
@modes("fast", "worker")
def test_table(khttpd):
    """Each case of the table gets its status, readable to the last byte, and an answer of its own length."""
    wrong = []
    for name, data, status in CASES:
        try:
            check_answer(exchange(data), data, status)
        except (AssertionError, OSError, KeyError) as e:
            wrong.append(f"{name}: {e!r}"[:300])
    assert not wrong, wrong
    stats = khttpd.stats()
    assert stats["requests"] == len(CASES)
    assert stats["responses_2xx"] == sum(s == 200 for _, _, s in CASES)
    assert stats["responses_4xx"] == sum(400 <= s < 500 for _, _, s in CASES)
    assert stats["responses_5xx"] == sum(s >= 500 for _, _, s in CASES)
    assert stats["parse_errors"] == sum(s not in (200, 405) for _, _, s in CASES)
    assert stats["errors"] == 0


@modes("fast")
def test_cuts(khttpd):
    """In two segments, cut anywhere, the same answer comes: here at some offsets of each case."""
    rng = random.Random(1)
    for name, data, status in CASES:
        if len(data) > 3000:
            continue
        for _ in range(scaled(4, 4)):
            at = rng.randint(0, len(data))
            try:
                check_answer(exchange(data[:at], data[at:]), data, status)
            except (AssertionError, OSError) as e:
                pytest.fail(f"{name} cut at {at}: {e!r}")


def test_every_cut(khttpd):
    """Several requests in a row at every offset, and byte by byte."""
    data = GET + sized(b"3", b"abc") + chunked(b"1;e\r\na\r\n0\r\nX: y\r\n\r\n") + HEAD + b"\r\n" + OPTIONS
    want = [200, 405, 405, 200, 200]
    for at in range(0, len(data), 17 if DEBUG else 1):
        answers = parse_all(exchange(data[:at], data[at:]), heads=[3])
        assert [a.status for a in answers] == want, at
    assert [a.status for a in parse_all(exchange(*[data[i:i + 1] for i in range(len(data))]), heads=[3])] == want


# One of each status, short where the limits are, so that every byte of it may be the last of a segment.
SMALL = {"max_header": 100, "max_headers": 4, "max_body": 10}
SHORT = [(get(), 200), (get(b"Connection: close"), 200), (sized(b"3", b"abc"), 405), (b"GET /\r\n", 400), (get(b"A : b"), 400),
         (sized(b"11"), 413), (chunked(b"b\r\n"), 413), (targeted(b"/" * 100), 414), (get(b"Expect: x"), 417),
         (get(b"X: " + b"y" * 90), 431), (get(*[b"X:"] * 4), 431), (get(line=b"FOO / HTTP/1.1"), 501),
         (chunked(b"", b"X: y").replace(b"chunked", b"gzip, chunked"), 501), (get(line=b"GET / HTTP/2.0"), 505)]


@modes("fast")
def test_every_status_cut_at_every_offset(load):
    khttpd = load("khttpd", **SMALL)
    for data, status in SHORT:
        for at in range(0, len(data), 17 if DEBUG else 1):
            try:
                check_answer(exchange(data[:at], data[at:]), data, status)
            except (AssertionError, OSError) as e:
                pytest.fail(f"{data!r} cut at {at}: {e!r}")
    assert khttpd.stat("errors") == 0


@pytest.mark.parametrize("left_by", ["fin", "reset"])
def test_a_client_that_leaves_amid_a_body(khttpd, left_by):
    """There is nobody to answer: it is counted as what it is, and the sums are right."""
    for n, body in enumerate((sized(b"5", b"ab"), chunked(b"3\r\na"), chunked(b"0\r\nX: y"))):
        with client() as s:
            assert ask(s).status == 200
            s.sendall(body)
            khttpd.wait("requests", 2 * n + 2)
            if left_by == "reset":
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with client() as s:  # in the head: no request yet
        s.sendall(GET[:20])
    khttpd.wait("closed", 4)
    stats = khttpd.stats()
    assert (stats["requests"], stats["requests_aborted"], stats["responses_2xx"], stats["responses_4xx"]) == (6, 3, 3, 0)
    assert stats["bytes_in"] == 3 * len(GET) + sum(map(len, (sized(b"5", b"ab"), chunked(b"3\r\na"), chunked(b"0\r\nX: y")))) + 20


def test_pipelined(khttpd):
    """A thousand requests of all kinds in a row: as many answers, in order, each of its own length."""
    rng = random.Random(2)
    kinds = [(GET, 200, False), (HEAD, 200, True), (OPTIONS, 200, False), (sized(b"5", b"hello"), 405, False),
             (chunked(b"3\r\nabc\r\n0\r\n\r\n"), 405, False), (get(b"X: " + b"y" * 500), 200, False)]
    chosen = [rng.choice(kinds) for _ in range(1000)]
    with client() as s:
        s.sendall(b"".join(k[0] for k in chosen))
        s.shutdown(socket.SHUT_WR)
        answers = parse_all(drain(s), heads={i for i, k in enumerate(chosen) if k[2]})
    assert [a.status for a in answers] == [k[1] for k in chosen]
    assert khttpd.stat("requests") == 1000


def data_segments(sock):
    """Segments with data that came: tcpi_data_segs_in."""
    return struct.unpack_from("=I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192), 152)[0]


def read_hellos(sock, count):
    data = b""
    while data.count(HELLO) < count:
        part = sock.recv(1 << 16)
        assert part, f"closed after {data.count(HELLO)} of {count}"
        data += part


def test_pipelined_answers_share_segments(khttpd):
    with client() as s:
        s.sendall(GET)
        assert read(s).status == 200
        before = data_segments(s)
        s.sendall(GET * 16)
        read_hellos(s, 16)
        assert data_segments(s) == before + 1


def test_more_answers_than_are_collected_share_segments(khttpd):
    """400 answers are several times what is collected before it is sent: TCP is told that more follows."""
    with client() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        s.sendall(GET)
        assert read(s).status == 200
        before = data_segments(s)
        s.sendall(GET * 400)
        read_hellos(s, 400)
        assert data_segments(s) <= before + 4


def seconds_to_be_answered(requests, rest):
    with client() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        began = time.monotonic()
        s.sendall(GET * requests + rest)
        read_hellos(s, requests)
        return time.monotonic() - began


@modes("fast", "worker")
def test_part_of_a_request_holds_no_answer_back(khttpd):
    """However many answers are collected before they are sent: none waits for the answer to a request that is not all
    there, which TCP would end after 200 ms."""
    usual = min(seconds_to_be_answered(50, GET[:20]) for _ in range(5))
    for n in range(50, 70):
        least(functools.partial(seconds_to_be_answered, n, GET[:20]), usual + 0.15, tries=15)


def test_pipelined_without_reading(load):
    """More requests and answers than any buffer holds: the server stops reading, and goes on when the client does.
    Every answer comes, in order."""
    count = 16000
    khttpd = load("khttpd", request_timeout=600)
    with sysctl(ipv4__tcp_rmem="4096 65536 65536", ipv4__tcp_wmem="4096 65536 65536"), client() as s:
        s.setblocking(False)
        data = memoryview((GET * 99 + HEAD) * (count // 100))
        sent = stalled = 0
        while sent < len(data) and stalled < 20:
            try:
                sent += s.send(data[sent:])
                stalled = 0
            except BlockingIOError:
                stalled += 1
                time.sleep(0.02)
        assert stalled == 20, "the server takes requests without end from a client that does not read"
        received = bytearray()
        while received.count(b"\r\n\r\n") < count:
            with contextlib.suppress(BlockingIOError):
                sent += s.send(data[sent:])
            try:
                received += s.recv(1 << 20)
            except BlockingIOError:
                time.sleep(0.001)
    answers = bytes(received).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert len(answers) == count
    assert [n for n, a in enumerate(answers) if not a.endswith(HELLO)] == list(range(99, count, 100))
    assert khttpd.stat("timeouts") == 0


@pytest.mark.parametrize("request_,keeps,says", [
    (GET, True, None), (get(b"Connection: close"), False, "close"), (get(b"Connection: x, CLOSE"), False, "close"),
    (get(line=b"GET / HTTP/1.0"), False, "close"), (get(b"Connection: keep-alive", line=b"GET / HTTP/1.0"), True, "keep-alive"),
    (get(b"Connection: keep-alive"), True, None), (get(line=b"GET / HTTP/1.2"), True, None),
    (get(b"Connection: close", line=b"HEAD / HTTP/1.1"), False, "close"),
    (get(line=b"CONNECT a:443 HTTP/1.1"), False, "close"), (get(b"Connection: keep-alive", line=b"CONNECT a:443 HTTP/1.1"), False, "close")])
@modes("fast")
def test_keep_alive(khttpd, request_, keeps, says):
    head = request_.startswith(b"HEAD")
    with client() as s:
        answer = ask(s, request_, head)
        assert answer.status == (405 if request_.startswith(b"CONNECT") else 200) and answer.fields.get("connection") == says
        if keeps:
            assert ask(s, request_, head).status == 200
        else:
            assert drain(s) == b""


def test_requests_behind_the_last(khttpd):
    """What follows a request that closes is not answered, and does not cost its answer, be it there
    already or on its way."""
    for _ in range(scaled(50, 5)):
        for pieces in ((get(b"Connection: close") + GET * 20,), (get(b"Connection: close"), GET * 20, GET * 20)):
            assert [a.status for a in parse_all(exchange(*pieces))] == [200]
    khttpd.set("max_requests", 2)
    for _ in range(scaled(50, 5)):
        data = exchange(GET * 2, GET * 20, GET * 20)
        assert [a.status for a in parse_all(data)] == [200, 200]


@modes("fast")
def test_max_requests(load):
    khttpd = load("khttpd", max_requests=3)
    with client() as s:
        assert [ask(s).closes() for _ in range(3)] == [False, False, True]
        assert drain(s) == b""
    khttpd.set("max_requests", 0)
    with client() as s:
        assert not any(ask(s).closes() for _ in range(10))


def test_expect(khttpd):
    """100 comes before the body, the answer after it; who may not send a body is told at once."""
    with client() as s:
        s.sendall(get(b"Expect: 100-continue", b"Content-Length: 5"))
        assert s.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(b"hello")
        assert read(s).status == 200
        s.sendall(get(b"Expect: 100-continue", b"Transfer-Encoding: chunked"))
        assert s.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert ask(s, b"3\r\nabc\r\n0\r\n\r\n").status == 200
        assert ask(s, get(b"Expect: 100-continue")).status == 200
        answer = ask(s, get(b"Expect: 100-continue", b"Content-Length: 5", line=b"POST / HTTP/1.1"))
        assert answer.status == 405 and answer.closes()
        assert drain(s) == b""
    with client() as s:  # nobody in HTTP/1.0 knows of 100
        s.sendall(get(b"Expect: 100-continue", b"Content-Length: 1", line=b"GET / HTTP/1.0"))
        assert ask(s, b"x").status == 200
    stats = khttpd.stats()
    assert (stats["responses_1xx"], stats["responses_2xx"], stats["responses_4xx"]) == (2, 4, 1)


@modes("fast")
def test_date(khttpd):
    """The second of the answer, anew each second; by the clock of the last tick, which may be behind the other."""
    with client() as s:
        dates = set()
        for _ in range(12):
            before = int(time.clock_gettime(CLOCK_REALTIME_COARSE))
            date = parsedate_to_datetime(ask(s).fields["date"]).timestamp()
            assert before <= date <= time.time()
            dates.add(date)
            time.sleep(0.25)
    assert len(dates) >= 3


@modes("fast")
def test_head_has_no_body(khttpd):
    """But the fields that a GET's answer has, of errors too."""
    with client() as s:
        get_fields, head_fields = ask(s, GET).fields, ask(s, HEAD, head=True).fields
        get_fields.pop("date"), head_fields.pop("date")
        assert get_fields == head_fields
    for bad in (b"HEAD / HTTP/1.1\r\n\r\n", get(b"X\x00", line=b"HEAD / HTTP/1.1")):
        answer = final(exchange(bad), head=True)
        assert answer.status == 400 and int(answer.fields["content-length"]) > 0


@modes("fast")
def test_nothing_of_the_request_in_the_answer(khttpd):
    secret = b"S3cr3tS3cr3t"
    for data in (get(b"X: " + secret, line=b"GET /" + secret + b" HTTP/1.1"), get(line=secret + b" / HTTP/1.1"),
                 get(b"X: " + secret + b"\x00"), get(b"Host: " + secret)):
        assert secret not in exchange(data)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_half_closed(khttpd, host):
    """A client that has sent its FIN gets its answer all the same; one in mid-request gets FIN."""
    assert [a.status for a in parse_all(exchange(GET * 3, host=host))] == [200] * 3
    assert exchange(GET[:20], host=host) == b""
    assert exchange(host=host) == b""
    khttpd.wait("active", 0)
    assert khttpd.stat("errors") == 0


@modes("fast")
@pytest.mark.parametrize("every", [2, 3])
def test_memory_short_for_answers(load, every):
    """Sends that find no memory: what is left is sent later, before the FIN where it is the last."""
    khttpd = load("khttpd", hooks=True, hook_send_fails=every)
    last = get(b"Connection: close")
    for data, statuses in ((last, [200]), (b"GARBAGE\r\n", [400]), (GET * 100 + last, [200] * 101), (GET * 10, [200] * 10)):
        for _ in range(10):
            assert [a.status for a in parse_all(exchange(data))] == statuses
    khttpd.wait("closed", 40)
    assert khttpd.stat("errors") == 0


def test_input_that_cannot_be_read(load):
    """As it lies in a device's memory: who sent it is reset, and nobody else."""
    khttpd = load("khttpd", hooks=True)
    with client() as other:
        assert ask(other).status == 200
        khttpd.set("hook_unreadable", 1)
        with client() as s, pytest.raises(ConnectionResetError):
            s.sendall(GET)
            s.recv(1)
        khttpd.wait("errors", 1)
        khttpd.set("hook_unreadable", 0)
        assert ask(other).status == 200
    khttpd.wait("closed", 2)


@modes("fast")
def test_last_answer_and_fin_share_a_segment(khttpd):
    with Capture() as capture:
        exchange(get(b"Connection: close"))
        exchange(GET * 20 + get(b"Connection: close"))
        exchange(b"GARBAGE\r\n")
    fins = [len(s.payload) for s in capture.segments if s.sent and s.port == HTTP_PORT and s.flags & 1]
    assert len(fins) >= 3 and all(fins), fins


@modes("fast", "worker")
def test_answer_acknowledges_the_request(khttpd):
    """From the first request on, even one that is there before its connection is accepted: no ACK goes ahead of the answer.
    One may follow it, for the client's FIN."""
    with Capture() as capture:
        for _ in range(20):
            exchange(get(b"Connection: close"))
    ours = [s for s in capture.segments if s.sent and s.port == HTTP_PORT]
    assert sum(len(s.payload) > 0 for s in ours) >= 20
    bare = [s for s in ours if not s.payload and not s.flags & 7]
    assert len(bare) < 30, len(bare)


def seconds_to_be_acknowledged(sock, data):
    began = time.monotonic()
    sock.sendall(data)
    while fcntl.ioctl(sock, SIOCOUTQ, b"....") != bytes(4):
        assert time.monotonic() < began + 20
    return time.monotonic() - began


@modes("fast", "worker")
@pytest.mark.parametrize("requests", [0, 5])
def test_part_of_a_request_is_acknowledged_at_once(khttpd, requests):
    """A client may hold its next part back until then (Nagle's algorithm): it is not to wait for a delayed ACK, 40 ms."""
    times = []
    while len(times) < 10 or (min(times) >= 0.03 and len(times) < 50):
        with client() as s:
            for _ in range(requests):
                assert ask(s).status == 200
            times.append(seconds_to_be_acknowledged(s, GET[:20]))
            s.sendall(GET[20:])
            assert read(s).status == 200
    assert min(times) < 0.03, times
