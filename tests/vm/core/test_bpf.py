# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves what becomes of connections that BPF programs come upon first: one that was taken for a sockmap before it was accepted is
refused, as its sk_user_data is the map's, and its functions are; one whose options a program sets amid TCP's work is served."""

import contextlib
import ctypes
import os
import resource
import socket
import struct
import threading
import time
from pathlib import Path

import pytest
from lib import HTTP_PORT, LIBC, PORT, check, connect, modes, receive_all

SYS_BPF = 321
MAP_CREATE, PROG_LOAD, PROG_ATTACH, PROG_DETACH = 0, 5, 8, 9
SOCKHASH, SOCK_OPS_TYPE, SOCK_OPS_ATTACH = 18, 13, 3
PASSIVE_ESTABLISHED = 5
SETSOCKOPT, CB_FLAGS_SET, SOCK_HASH_UPDATE = 49, 59, 70
EVERY_CALLBACK = 0x7f


def bpf(command, attributes):
    data = ctypes.create_string_buffer(attributes + bytes(128 - len(attributes)), 128)
    return check(LIBC.syscall(SYS_BPF, command, data, 128))


def instruction(code, dst=0, src=0, off=0, imm=0):
    return struct.pack("=BBhi", code, src << 4 | dst, off, imm)


def taking(map_fd):
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


def setting():
    """Each time that TCP asks: bpf_setsockopt(ctx, SOL_SOCKET, SO_RCVLOWAT, &1, 4); and it is to ask as often as it can."""
    return b"".join((
        instruction(0xbf, 6, 1),  # r6 = ctx
        instruction(0x62, 10, 0, -4, 1),
        instruction(0xb7, 2, imm=socket.SOL_SOCKET) + instruction(0xb7, 3, imm=socket.SO_RCVLOWAT),
        instruction(0xbf, 4, 10) + instruction(0x07, 4, imm=-4),
        instruction(0xb7, 5, imm=4),
        instruction(0x85, imm=SETSOCKOPT),
        instruction(0x61, 2, 6, 0),  # r2 = ctx->op
        instruction(0x55, 2, 0, 3, PASSIVE_ESTABLISHED),  # if it is not that: behind the call
        instruction(0xbf, 1, 6) + instruction(0xb7, 2, imm=EVERY_CALLBACK),
        instruction(0x85, imm=CB_FLAGS_SET),
        instruction(0xb7, 0, 0, 0, 1) + instruction(0x95)))


@contextlib.contextmanager
def attached(make):
    """While this is there a program of make(a map)'s is asked about every connection."""
    root = Path("/run/cgroup-of-test")
    root.mkdir(exist_ok=True)
    check(LIBC.mount(b"none", os.fsencode(root), b"cgroup2", ctypes.c_ulong(0), None))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))  # which up to 5.10 bounds maps
    licence, log = ctypes.create_string_buffer(b"GPL"), ctypes.create_string_buffer(65536)
    with contextlib.ExitStack() as stack:
        stack.callback(LIBC.umount2, os.fsencode(root), 2)
        map_fd = bpf(MAP_CREATE, struct.pack("=IIII", SOCKHASH, 4, 4, 1024))
        stack.callback(os.close, map_fd)
        code = make(map_fd)
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
        attributes = struct.pack("=III", where, fd, SOCK_OPS_ATTACH)
        bpf(PROG_ATTACH, attributes)
        stack.callback(bpf, PROG_DETACH, attributes)
        yield


@pytest.fixture
def taken():
    with attached(taking):
        yield


def send_all(s, data):
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)


@modes("fast", "worker")
def test_options_set_amid_everything(load):
    """TCP answers a change of SO_RCVLOWAT by data_ready, also where a program makes it while a segment is sent, or a state changes."""
    with attached(lambda _: setting()):
        server = load("kecho")
        data = os.urandom(1 << 20)
        for _ in range(10):
            with connect() as s:
                sender = threading.Thread(target=send_all, args=(s, data))
                sender.start()
                assert receive_all(s) == data
                sender.join()
        server.wait("active", 0)
        stats = server.stats()
        assert stats["bytes_in"] == stats["bytes_out"] == 10 * len(data) and stats["errors"] == 0, stats


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
