# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that a connection which a BPF program has taken for a sockmap, before it was accepted, is refused: its sk_user_data is the
map's, and its functions are."""

import contextlib
import ctypes
import os
import socket
import struct
import time
from pathlib import Path

import pytest
from lib import DEBUG, HTTP_PORT, LIBC, PORT, check, connect, modes

SYS_BPF = 321
MAP_CREATE, PROG_LOAD, PROG_ATTACH, PROG_DETACH = 0, 5, 8, 9
SOCKHASH, SOCK_OPS_TYPE, SOCK_OPS_ATTACH = 18, 13, 3
PASSIVE_ESTABLISHED = 5
SOCK_HASH_UPDATE = 70  # bpf_sock_hash_update()


def bpf(command, attributes):
    data = ctypes.create_string_buffer(attributes + bytes(128 - len(attributes)), 128)
    return check(LIBC.syscall(SYS_BPF, command, data, 128))


def instruction(code, dst=0, src=0, off=0, imm=0):
    return struct.pack("=BBhi", code, src << 4 | dst, off, imm)


def program(map_fd):
    """At each connection that somebody else has opened: bpf_sock_hash_update(ctx, map, &remote_port, BPF_ANY)."""
    return b"".join((
        instruction(0xbf, 6, 1),  # r6 = ctx
        instruction(0x61, 2, 1, 0),  # r2 = ctx->op
        instruction(0x55, 2, 0, 9, PASSIVE_ESTABLISHED),  # if it is not that: behind the call
        instruction(0x61, 2, 6, 64),  # r2 = ctx->remote_port
        instruction(0x63, 10, 2, -4),  # the key
        instruction(0xbf, 1, 6),
        instruction(0x18, 2, 1, 0, map_fd) + instruction(0),
        instruction(0xbf, 3, 10) + instruction(0x07, 3, 0, 0, -4),
        instruction(0xb7, 4),
        instruction(0x85, imm=SOCK_HASH_UPDATE),
        instruction(0xb7, 0, 0, 0, 1) + instruction(0x95)))


@pytest.fixture
def taken():
    """While this is there a program takes every connection that comes."""
    root = Path("/run/cgroup-of-test")
    root.mkdir(exist_ok=True)
    if DEBUG:
        pytest.skip("this kernel has no BPF")
    check(LIBC.mount(b"none", os.fsencode(root), b"cgroup2", ctypes.c_ulong(0), None))
    licence, log = ctypes.create_string_buffer(b"GPL"), ctypes.create_string_buffer(65536)
    with contextlib.ExitStack() as stack:
        stack.callback(LIBC.umount2, os.fsencode(root), 2)
        map_fd = bpf(MAP_CREATE, struct.pack("=IIII", SOCKHASH, 4, 4, 1024))
        stack.callback(os.close, map_fd)
        code = program(map_fd)
        text = ctypes.create_string_buffer(code, len(code))
        try:
            fd = bpf(PROG_LOAD, struct.pack("=IIQQIIQ", SOCK_OPS_TYPE, len(code) // 8, ctypes.addressof(text), ctypes.addressof(licence), 1, len(log),
                                            ctypes.addressof(log)))
        except OSError:
            print(log.value.decode())
            raise
        stack.callback(os.close, fd)
        where = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, where)
        attached = struct.pack("=III", where, fd, SOCK_OPS_ATTACH)
        bpf(PROG_ATTACH, attached)
        stack.callback(bpf, PROG_DETACH, attached)
        yield


@pytest.mark.parametrize("module,port", [("kecho", PORT), ("khttpd", HTTP_PORT)])
@modes("fast")
def test_taken_by_a_sockmap(load, taken, module, port):
    server = load(module)
    for _ in range(20):
        with pytest.raises(ConnectionError), connect(port=port, timeout=10) as s:
            while True:
                s.sendall(b"x")
                assert s.recv(100) == b""
    server.wait("errors", 20)
    server.wait("active", 0)


@modes("fast")
def test_reset_before_it_is_accepted(load, taken):
    """The listener's functions, which it has inherited, find somebody else's where they look for the server."""
    server = load("kecho", hooks=True, hook_accept_fails=2)  # each of which holds the queue up for a while
    for _ in range(20):
        with contextlib.suppress(ConnectionError), connect() as s:  # or kecho's reset comes first
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    time.sleep(1)
    server.wait("active", 0)
    assert server.stat("errors") > 0  # its own faults, and those that it came upon
