# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""What overload is judged by, and how it is made: a pinger, clients that take nothing, a flood of SYNs."""

import contextlib
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from http_cases import get
from lib import BENCH, DEBUG, HTSTRESS, HTTP_PORT, PORT, TOP, ip, meminfo, receive, scaled, sh, shrink_slabs, untold_pages

GET = get()
URL = f"http://127.0.0.1:{HTTP_PORT}/"
PING_PORT = 7007
SECONDS = 5  # that an overload lasts, and
ENOUGH = 10  # pings
# Asks another service of the machine for a byte, on a connection of its own, every 20 ms until its input ends.
PINGER = """
import select, socket, struct, sys, time
while not select.select([sys.stdin], [], [], 0.02)[0]:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 60) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.settimeout(60)
        s.sendall(b"?")
        assert s.recv(1) == b"?"
    print(time.monotonic() - began, flush=True)
"""
# Writes frames, which it is given ready, to a device as fast as it can; says how many.
FLOODER = """
import signal, socket, sys
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
    s.bind((sys.argv[1], 0))
    size = int(sys.argv[2])
    data = sys.stdin.buffer.read()
    frames = [data[at:at + size] for at in range(0, len(data), size)]
    sent = 0
    while not stop:
        for frame in frames:
            try:
                s.send(frame)
                sent += 1
            except OSError:
                pass
print(sent)
"""


class Others:
    """Another service of the machine's, a program, and who asks it: connect, a byte, its echo."""

    def __init__(self, what, stack):
        self.what = what
        self.end = None
        self.server = stack.enter_context(subprocess.Popen([TOP / "userspace" / "user-echo-server", "-p", str(PING_PORT)]))
        stack.callback(self.server.terminate)
        while not sh("ss", "-Htln", "sport", "=", f":{PING_PORT}").stdout:
            assert self.server.poll() is None, "the other service did not start"
            time.sleep(0.05)
        self.said = stack.enter_context(tempfile.TemporaryFile("r"))
        self.pinger = stack.enter_context(subprocess.Popen([sys.executable, "-S", "-c", PINGER, str(PING_PORT)], stdin=subprocess.PIPE,
                                                           stdout=self.said))
        stack.callback(self.pinger.stdin.close)
        while not self.took():  # before anything else asks for the machine's memory or time
            assert self.pinger.poll() is None, "another service was not served"
            time.sleep(0.05)

    def took(self):
        """Seconds that each has taken so far, the shortest first."""
        return sorted(map(float, os.pread(self.said.fileno(), 1 << 20, 0).splitlines()))

    def go_on(self):
        """True until the overload has lasted its time, which begins with the first call, and there are answers enough to judge
        by, or none comes any more."""
        self.end = self.end or time.monotonic() + SECONDS
        return time.monotonic() < self.end or (len(self.took()) < ENOUGH and self.pinger.poll() is None)

    def judge(self):
        """They were served, and soon."""
        self.pinger.stdin.close()
        assert self.pinger.wait() == 0, "another service was not served"
        took = self.took()
        median, late, most = statistics.median(took), took[len(took) * 95 // 100], took[-1]
        print(f"{self.what}: {len(took)} pings, median {median * 1e3:.1f} ms, 95th percentile {late * 1e3:.1f} ms, at most {most * 1e3:.0f} ms")
        assert len(took) >= ENOUGH and median < (2 if DEBUG else 0.1) and late < (10 if DEBUG else 3)
        assert most < (50 if DEBUG else 20)  # the machine did not stand still; three lost SYNs take seven seconds


def netstat(name):
    """A counter of /proc/net/netstat."""
    names, values = (line.split() for line in Path("/proc/net/netstat").read_text().splitlines()[:2])
    return int(values[names.index(name)])


@contextlib.contextmanager
def others_are_served(what):
    """While this is open somebody else is served; yields Others."""
    with contextlib.ExitStack() as stack:
        others = Others(what, stack)
        yield others
        others.judge()


def serve_all():
    """Both servers answer, in full."""
    sh(BENCH, "-c", 20, "-n", scaled(60))
    sh(HTSTRESS, "-n", scaled(1000), "-c", 20, URL)


def kernel_memory():
    """Bytes that the kernel cannot take back, and pages of no account, as those that sockets' data is in. Not where KASAN keeps
    what was freed: there kmemleak looks."""
    if DEBUG:
        return 0
    shrink_slabs()
    return meminfo("SUnreclaim") + untold_pages()


def tcp_limit():
    """Bytes beyond which TCP gives its sockets no more memory."""
    return int(Path("/proc/sys/net/ipv4/tcp_mem").read_text().split()[2]) * 4096


def swallow(held, count, port, data):
    """So many clients that send until nobody takes any more, and read nothing, until held is left. Bytes that were
    taken."""
    socks = []
    taken = 0
    for _ in range(count):
        s = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.setblocking(False)
        socks.append(s)
    for s in socks:
        at = 0
        with contextlib.suppress(OSError):
            while True:
                sent = s.send(data[at:])
                taken += sent
                at = (at + sent) % len(data)
    return taken


def exchange(s, port):
    """A client's message, which no other's is like, or request, and the whole of what answers it."""
    if port == PORT:
        own = b"%05d" % s.getsockname()[1]
        s.sendall(own)
        assert receive(s, 5) == own
        return
    s.sendall(GET)
    answer = b""
    while not answer.endswith(b"Hello World!"):
        part = s.recv(4096)
        assert part, answer
        answer += part
    assert answer.startswith(b"HTTP/1.1 200 "), answer


def served(port, count=20):
    """So many new clients are, one after the other."""
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", port), timeout=60) as s:
            exchange(s, port)


def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total ^ 0xffff


def syn(rng, source, ports):
    """A SYN from an address to 10.6.0.1, as an IPv4 packet."""
    addresses = socket.inet_aton(source) + socket.inet_aton("10.6.0.1")
    tcp = struct.pack(">HHIIBBHHH4s", rng.randrange(1024, 65536), rng.choice(ports), rng.getrandbits(32), 0, 6 << 4, 2, 64240, 0, 0,
                      b"\2\4\5\xb4")
    tcp = tcp[:16] + struct.pack(">H", checksum(addresses + struct.pack(">HH", 6, len(tcp)) + tcp)) + tcp[18:]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), rng.getrandbits(16), 0x4000, 64, 6, 0) + addresses
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + tcp


@contextlib.contextmanager
def syn_flood(netns, ports, kinds=5000):
    """SYNs of so many kinds, each from an address of its own or nearly so behind a namespace, again and again; nobody
    answers. Yields a list that in the end has their number."""
    mac, theirs = "02:00:00:00:00:01", "02:00:00:00:00:02"
    ip(f"link add flood address {mac} type veth peer name flood address {theirs} netns {netns}",
       "addr add 10.6.0.1/24 dev flood", "link set flood up")
    try:
        ip("addr add 10.6.0.2/24 dev flood", "link set flood up", netns=netns)
        ip(f"neigh add 10.6.0.2 lladdr {theirs} dev flood nud permanent", "route add 10.66.0.0/16 via 10.6.0.2 dev flood")
        rng = random.Random(1)
        ethernet = bytes.fromhex((mac + theirs).replace(":", "")) + b"\x08\0"
        frames = [ethernet + syn(rng, f"10.66.{rng.randrange(256)}.{rng.randrange(256)}", ports) for _ in range(kinds)]
        sent = []
        with subprocess.Popen(["ip", "netns", "exec", netns, sys.executable, "-S", "-c", FLOODER, "flood", str(len(frames[0]))],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE) as flooder:
            flooder.stdin.write(b"".join(frames))
            flooder.stdin.close()
            flooder.stdin = None
            try:
                yield sent
            finally:
                flooder.terminate()
                said = flooder.communicate()[0]
        sent.append(int(said))
    finally:
        ip("link del flood")
