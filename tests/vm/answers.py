# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""A client that reads answers to the byte and takes nothing on trust."""

import contextlib
import re
import socket

from lib import DEBUG, HTTP_PORT, connect

HELLO = b"Hello World!"
SLACK = 20 if DEBUG else 2
REASONS = {100: "Continue", 200: "OK", 400: "Bad Request", 405: "Method Not Allowed", 408: "Request Timeout", 413: "Content Too Large", 414: "URI Too Long",
           417: "Expectation Failed", 431: "Request Header Fields Too Large", 501: "Not Implemented", 505: "HTTP Version Not Supported"}  # RFC 9110
DATE = r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) \d{4} \d\d:\d\d:\d\d GMT"


def client(host="127.0.0.1", **kw):
    s = connect(host, HTTP_PORT, **kw)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


class Answer:
    """One answer: the status, its fields and its body, and what of the input followed."""

    def __init__(self, status, fields, body, rest):
        self.status, self.fields, self.body, self.rest = status, fields, body, rest

    def closes(self):
        return self.fields.get("connection") == "close"


def parse(data, head=False):
    """The first answer in data; None if it is not complete. head: it answers a HEAD."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    assert data[:end].isascii(), data
    line, *lines = data[:end].decode("ascii").split("\r\n")
    status = re.fullmatch(r"HTTP/1\.1 (\d{3}) [ -~]+", line)
    assert status, line
    assert line == f"HTTP/1.1 {status[1]} {REASONS[int(status[1])]}"
    status = int(status[1])
    fields = {}
    for text in lines:
        field = re.fullmatch(r"([A-Za-z-]+): ([ -~]+)", text)
        assert field, text
        assert field[1].lower() not in fields, text
        fields[field[1].lower()] = field[2]
    rest = data[end + 4:]
    if status < 200:
        assert not fields
        return Answer(status, fields, b"", rest)
    assert re.fullmatch(r"\d+", fields.get("content-length", "")), fields
    length = int(fields["content-length"])
    assert re.fullmatch(DATE, fields.get("date", "")), fields
    assert fields.get("server") == "khttpd", fields
    if head:
        length = 0
    if len(rest) < length:
        return None
    return Answer(status, fields, rest[:length], rest[length:])


def parse_all(data, heads=()):
    """Every answer in data, which is to hold nothing else; heads: the numbers of those to a HEAD."""
    answers = []
    while data:
        answer = parse(data, head=len(answers) in heads)
        assert answer, data
        answers.append(answer)
        data = answer.rest
    return answers


def ask(sock, data=b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", head=False):
    """Sends a request and reads its answer; nothing may follow that."""
    sock.sendall(data)
    return read(sock, head)


def read(sock, head=False):
    data = b""
    while (answer := parse(data, head)) is None:
        part = sock.recv(1 << 16)
        assert part, f"closed after {data!r}"
        data += part
    assert not answer.rest, answer.rest
    return answer


def drain(sock):
    """Everything until the server's FIN; a reset is an error."""
    data = b""
    while part := sock.recv(1 << 20):
        data += part
    return data


def exchange(*pieces, host="127.0.0.1"):
    """What comes back for these bytes, each piece in a segment of its own, and then FIN."""
    with client(host) as s:
        for piece in pieces:
            if piece:
                s.sendall(piece)
        with contextlib.suppress(OSError):  # the server may have closed already
            s.shutdown(socket.SHUT_WR)
        return drain(s)
