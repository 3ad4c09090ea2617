# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""The probe's file and statistics as Python has them, and connections to watch."""

import contextlib
import os
import socket
import time
from collections import namedtuple
from pathlib import Path

from lib import DEBUG

FILE = Path("/proc/net/tcpprobe")
STAT = Path("/proc/net/stat/tcpprobe_plus")
SYSCTL = Path("/proc/sys/net/tcpprobe_plus")
FIELDS = ("type time saddr sport daddr dport length flags seq ack ca_state snd_nxt snd_una write_seq wqueue snd_cwnd "
          "ssthresh snd_wnd srtt mdev rttvar rto packets_out lost_out sacked_out retrans_out retrans frto_counter "
          "rto_num sk_pacing_rate").split()
Line = namedtuple("Line", FIELDS)
RECV, SEND, TIMEOUT, SETUP, DONE, PURGE = range(6)


def parse(text):
    """Lines, and how many records the markers say are missing."""
    lines, lost = [], 0
    for line in text.splitlines():
        if line.startswith("# lost "):
            lost += int(line.split()[2])
            continue
        words = line.split(" ")
        assert len(words) == len(FIELDS), line
        lines.append(Line(*[w if f in ("saddr", "daddr") else float(w) if f == "time" else int(w, 0)
                            for f, w in zip(FIELDS, words)]))
    return lines, lost


def samples():
    """The Samples line: taken, read, lost, missed, discarded."""
    words = next(line for line in STAT.read_text().splitlines() if line.startswith("Samples:")).split()[1:]
    return dict(zip(words[::2], map(int, words[1::2])))


def few_missed(hits):
    """How many may be missed of so many. One in fifty is usual; more where what waited for a CPU of the host's comes within a handler, or
    KCSAN holds handlers up, to watch."""
    return 2 + hits / (5 if DEBUG else 10)


def payload(lines, kind, again):
    """The bytes that records of a kind tell. A machine that stands still sends segments again: they are told again, so many at most, and
    count once."""
    segments = [(line.seq, line.length) for line in lines if line.type == kind and line.length]
    assert len(segments) - len(set(segments)) <= again, segments
    return sum(length for _, length in set(segments))


class Trace:
    """Keeps the file open, and reads it when asked."""

    def __init__(self, flags=0):
        self.fd = os.open(FILE, os.O_RDONLY | os.O_NONBLOCK | flags)
        self.rest = b""

    def text(self, size=1 << 16, seconds=60):
        """What there is; under traffic, which never lets it come to an end, for so many seconds."""
        end = time.monotonic() + seconds
        parts = [self.rest]
        with contextlib.suppress(BlockingIOError):
            while time.monotonic() < end and (part := os.read(self.fd, size)):
                parts.append(part)
        data = b"".join(parts)
        cut = data.rfind(b"\n") + 1
        self.rest = data[cut:]
        return data[:cut].decode()

    def lines(self, seconds=60):
        return parse(self.text(seconds=seconds))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        os.close(self.fd)


class Connection:
    """Both ends of a connection, by default over IPv4 on loopback."""

    def __init__(self, host="127.0.0.1"):
        self.listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.port = self.listener.getsockname()[1]
        self.client = socket.create_connection((host, self.port))
        self.served = self.listener.accept()[0]
        self.local = self.client.getsockname()[1]

    def send(self, data, back=False):
        a, b = (self.served, self.client) if back else (self.client, self.served)
        a.sendall(data)
        got = 0
        while got < len(data):
            got += len(b.recv(1 << 20))

    def close(self):
        self.client.close()
        self.served.close()
        self.listener.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
