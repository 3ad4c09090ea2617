# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that no byte of the kernel's memory leaves by the modules: nothing uninitialised or freed, no address.

The guest's allocators fill what they hand out and take back: with 0x5a what nobody has written yet, with 0x6b what was
freed, with 0xaa a whole page that nobody has; and the modules are built so that their stacks are filled with 0xfe. All that the modules send, show and log is searched for both, and for what looks like an address.
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
from lib import HOOKS_DIR, HTTP_PORT, MODULES, PORT, Capture, KernelLog, connect, insmod, receive, receive_all, settings, statistics_file

pytestmark = pytest.mark.boot(append="slub_debug=P page_poison=1 init_on_alloc=0 init_on_free=0")

# Text of the poison, and numbers of four and eight bytes of it.
LETTERS = b"Zk\xaa\xfe"
POISON = [bytes([b] * 4) for b in LETTERS] + [str(int.from_bytes(bytes([b] * n), "little")).encode() for b in LETTERS for n in (4, 8)] + \
         [b"\\x%02x" % b * 2 for b in LETTERS]
ADDRESS = re.compile(rb"ffff[89a-f][0-9a-f]{11}|\b184467[34]\d{14}\b")
REQUESTS = [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", b"nonsense\r\n", b"GET /" + b"a" * 9000, b"GET / HTTP/3.0\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"b" * 9000, b"GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 300]


@pytest.fixture
def everything(unloaded):
    assert Path("/sys/kernel/slab/kmalloc-64/poison").read_text() == "1\n"
    assert " page_poison=1 " in Path("/proc/cmdline").read_text()
    for module in MODULES:
        insmod(HOOKS_DIR / f"{module}.ko")


def clean(rng, n):
    """Random bytes without those of the poison."""
    return bytes(rng.choices([b for b in range(256) if b not in LETTERS], k=n))


def be_served(rng, host):
    """What clients do, errors and ends without order too."""
    for size in (1, 100, 3000, 200000):
        data = clean(rng, size)
        with connect(host) as s:
            sender = threading.Thread(target=s.sendall, args=(data,))
            sender.start()
            assert receive(s, size) == data
            sender.join()
    for request in REQUESTS:
        with connect(host, HTTP_PORT) as s:
            s.sendall(request)
            s.shutdown(socket.SHUT_WR)
            receive_all(s)
    for end in (b"", b"x", b"GET / HT"):
        for port in (PORT, HTTP_PORT):
            with connect(host, port) as s:
                s.sendall(end)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def use_everything():
    """What clients, an operator and a researcher do, errors too. What they were shown."""
    rng = random.Random(1)
    shown = []
    fd = os.open("/proc/net/tcpprobe", os.O_RDONLY | os.O_NONBLOCK)
    for host in ("127.0.0.1", "::1"):
        be_served(rng, host)
    for text in (b"1.2.3.4:5 1.2.3.4:6\n", b"\xff\0 nonsense\n", b"x" * 500 + b"\n", b"127.0.0.1:8081 *:* time-wait\n"):
        with contextlib.suppress(OSError), open("/proc/net/drop_tcp_sock", "wb", buffering=0) as f:
            f.write(text)
        shown.append(Path("/proc/net/drop_tcp_sock").read_bytes())
    with contextlib.suppress(BlockingIOError):
        while part := os.read(fd, 1 << 16):
            shown.append(part)
    for n in range(2):  # while the probe is read, and after
        for module in MODULES:
            shown += [path.read_bytes() for path in [statistics_file(module), *settings(module, writable=False)]]
        if n == 0:
            os.close(fd)
    return shown


def test_nothing_of_the_kernels_memory_leaves(everything):
    with KernelLog() as log:
        with Capture() as capture:
            shown = use_everything()
        shown += [line.encode() for line in log.lines()]
    segments = [s for s in capture.segments if s.sent and s.port in (PORT, HTTP_PORT)]
    assert len(shown) > 80 and sum(map(len, shown)) > 20000 and len(segments) > 100
    for text in shown:
        assert not any(poison in text for poison in POISON), text[-2000:]
        assert not ADDRESS.search(text), text[-2000:]
    for s in segments:
        assert not any(poison in s.options + s.payload for poison in POISON), s
        if s.port == HTTP_PORT:
            assert re.fullmatch(rb"[ -~\r\n]*", s.payload), s
