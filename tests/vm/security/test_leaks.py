# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that no byte of the kernel's memory leaves by the modules: nothing uninitialised or freed, no address.

The guest's allocators fill what they hand out and take back: with 0x5a what nobody has written yet, with 0x6b what was
freed. All that the modules send, show and log is searched for both, and for what looks like an address.
"""

import contextlib
import os
import random
import re
import socket
import struct
import threading
from pathlib import Path

import pytest
from lib import KO_DIR, PORT, KernelLog, connect, insmod, receive, receive_all, rmmod

pytestmark = pytest.mark.boot(append="slub_debug=P init_on_alloc=0 init_on_free=0")

MODULES = "kecho", "khttpd", "drop_tcp_sock", "tcpprobe"
FILES = ("/proc/net/drop_tcp_sock", "/proc/net/stat/kecho", "/proc/net/stat/khttpd", "/proc/net/stat/tcpprobe_plus")
# Text of the poison, and numbers of two, four and eight bytes of it.
POISON = [letter * 4 for letter in (b"Z", b"k")] + [str(int.from_bytes(bytes([b]) * n, "little")).encode()
                                                    for b in (0x5a, 0x6b) for n in (4, 8)] + [rb"\x5a\x5a", rb"\x6b\x6b"]
ADDRESS = re.compile(rb"ffff[89a-f][0-9a-f]{11}|\b184467[34]\d{14}\b")
REQUESTS = [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", b"nonsense\r\n", b"GET /" + b"a" * 9000, b"GET / HTTP/3.0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 9000, b"GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 300]


@pytest.fixture
def everything():
    assert Path("/sys/kernel/slab/kmalloc-64/poison").read_text() == "1\n"
    for module in MODULES:
        insmod(KO_DIR / f"{module}.ko")
    try:
        yield
    finally:
        for module in MODULES:
            rmmod(module)


class Wire:
    """All packets that the servers send over loopback, from the network header on."""

    def __init__(self):
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self.sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self.sock.settimeout(0.5)
        self.segments = []  # server's port, options, payload
        self.thread = threading.Thread(target=self.run)
        self.stop = False
        self.thread.start()

    def run(self):
        while True:
            try:
                packet, addr = self.sock.recvfrom(70000)
            except TimeoutError:
                if self.stop:
                    return
                continue
            if addr[2] != 4 or packet[9] != socket.IPPROTO_TCP:  # each is seen going out, and coming in
                continue
            tcp = packet[4 * (packet[0] & 15):]
            port = struct.unpack_from(">H", tcp)[0]
            head = 4 * (tcp[12] >> 4)
            if port in (PORT, 8081):
                self.segments.append((port, tcp[20:head], tcp[head:]))

    def end(self):
        self.stop = True
        self.thread.join()
        self.sock.close()
        return self.segments


def clean(rng, n):
    """Random bytes without those of the poison."""
    return bytes(rng.choices([b for b in range(256) if b not in b"Zk"], k=n))


def use_everything():
    """What a client, an operator and a researcher do, errors too. What they were shown."""
    rng = random.Random(1)
    shown = []
    fd = os.open("/proc/net/tcpprobe", os.O_RDONLY | os.O_NONBLOCK)
    for size in (1, 100, 3000, 200000):
        data = clean(rng, size)
        with connect() as s:
            sender = threading.Thread(target=s.sendall, args=(data,))
            sender.start()
            assert receive(s, size) == data
            sender.join()
    for request in REQUESTS:
        with connect(port=8081) as s:
            s.sendall(request)
            s.shutdown(socket.SHUT_WR)
            receive_all(s)
    for end in (b"", b"x", b"GET / HT"):  # ends without order
        for port in (PORT, 8081):
            with connect(port=port) as s:
                s.sendall(end)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for text in (b"1.2.3.4:5 1.2.3.4:6\n", b"\xff\0 nonsense\n", b"x" * 500 + b"\n", b"127.0.0.1:8081 *:* time-wait\n"):
        with contextlib.suppress(OSError), open("/proc/net/drop_tcp_sock", "wb", buffering=0) as f:
            f.write(text)
        shown.append(Path("/proc/net/drop_tcp_sock").read_bytes())
    with contextlib.suppress(BlockingIOError):
        while part := os.read(fd, 1 << 16):
            shown.append(part)
    shown += [Path(name).read_bytes() for name in FILES]
    os.close(fd)
    shown += [Path(name).read_bytes() for name in FILES]
    for module in MODULES:
        for folder in Path("/sys/module", module, "parameters"), Path(f"/proc/sys/net/{module}_plus"):
            shown += [path.read_bytes() for path in folder.glob("*")]
    return shown


def test_nothing_of_the_kernels_memory_leaves(everything):
    with KernelLog() as log:
        wire = Wire()
        shown = use_everything()
        segments = wire.end()
        shown += [line.encode() for line in log.lines()]
    assert len(shown) > 40 and sum(map(len, shown)) > 20000 and len(segments) > 50
    for text in shown:
        assert not any(poison in text for poison in POISON), text[-2000:]
        assert not ADDRESS.search(text), text[-2000:]
    for port, options, payload in segments:
        assert not any(poison in options + payload for poison in POISON), (port, options, payload)
        if port == 8081:
            assert re.fullmatch(rb"[ -~\r\n]*", payload), payload
