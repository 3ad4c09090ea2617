# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that what a segment costs grows with the number of pieces that a peer cuts it into, not with its square."""

import fcntl
import os
import socket
import struct
import time
from pathlib import Path

import pytest
from lib import DEBUG, HTTP_PORT, PORT, ip, modes, scaled, sh

pytestmark = pytest.mark.boot(clock="instructions", alone=True)

US, PEER = "10.9.0.1", "10.9.0.2"
TUNSETIFF, IFF_TUN_NO_PI = 0x400454CA, 0x1001
SYN, ACK, PSH = 2, 16, 8


def checksum(data):
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packet(body, number, offset=0, more=False):
    """An IPv4 packet of TCP's, or a fragment of one; OFFSET in bytes."""
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), number, offset // 8 | more << 13, 64, 6, 0, socket.inet_aton(PEER),
                         socket.inet_aton(US))
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def segment(ports, seq, ack, flags, data=b"", options=b""):
    header = struct.pack("!HHIIBBHHH", *ports, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, (20 + len(options)) // 4 << 4, flags, 65535, 0, 0) + options
    pseudo = socket.inet_aton(PEER) + socket.inet_aton(US) + struct.pack("!HH", 6, len(header) + len(data))
    return header[:16] + struct.pack("!H", checksum(pseudo + header + data)) + header[18:] + data


class Peer:
    """A TCP client on a TUN device, as far as it takes to send a segment."""

    def __init__(self, port):
        self.tun = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(self.tun, TUNSETIFF, struct.pack("16sH", b"tun9", IFF_TUN_NO_PI))
        ip(f"addr add {US}/24 dev tun9", "link set tun9 up txqueuelen 10000")
        self.ports = (0, port)

    def close(self):
        os.close(self.tun)

    def connect(self, port):
        self.ports = (port, self.ports[1])
        os.write(self.tun, packet(segment(self.ports, 999, 0, SYN, options=struct.pack("!BBHBBBB", 2, 4, 1460, 1, 3, 3, 7)), 1))
        while True:
            got = os.read(self.tun, 65535)
            if got[0] == 0x45 and got[9] == 6 and got[33] == SYN | ACK and got[22:24] == struct.pack("!H", port):
                break
        self.ack = struct.unpack("!I", got[24:28])[0] + 1
        os.write(self.tun, packet(segment(self.ports, 1000, self.ack, ACK), 2))

    def send(self, data):
        """One segment in fragments of 8 bytes. What the machine does with it, ns: with the last of them all is at hand."""
        body = segment(self.ports, 1000, self.ack, ACK | PSH, data)
        parts = [packet(body[n:n + 8], 3, n, n + 8 < len(body)) for n in range(0, len(body), 8)]
        for part in parts[:-1]:
            os.write(self.tun, part)
        began = time.monotonic_ns()
        os.write(self.tun, parts[-1])
        return time.monotonic_ns() - began


@pytest.fixture
def peer():
    sh("modprobe", "tun", check=not DEBUG)
    Path("/proc/sys/net/ipv4/ipfrag_high_thresh").write_text(str(64 << 20))
    peers = []

    def make(port):
        peers.append(Peer(port))
        return peers[0]

    yield make
    for made in peers:
        made.close()


@modes("fast")  # in which the write that is timed does all of it
@pytest.mark.parametrize("module", ["kecho", "khttpd"])
def test_many_pieces(load, peer, module, mode):
    server = load(module)
    peer = peer({"kecho": PORT, "khttpd": HTTP_PORT}[module])
    most = scaled(4000, 4)
    cost = {}
    for n in (most // 4, most // 4, most):  # the first meets code that has yet to be translated, files to be read
        before = server.stat("bytes_in")
        peer.connect(20000 + len(cost) + n)
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (8 * n)
        data = bytes(8 * n) if module == "kecho" else head + bytes(8 * n)
        cost[n] = peer.send(data)  # 4,000 pieces: 4 ms; 76 where each is looked for from the beginning
        server.wait("bytes_in", before + len(data))
    print(module, cost)
    assert cost[most] < 7 * cost[most // 4], cost
