# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that a hook which the kernel could not take back for want of memory does no harm. Such a hook stays until
the next boot, so this comes last."""

import contextlib
import errno
import os
import socket
import time
from pathlib import Path

import pytest
from faults import every_nth
from lib import KO_DIR, insmod, rmmod

pytestmark = pytest.mark.boot(faults=True)

FILE = "/proc/net/tcpprobe"
STAT = Path("/proc/net/stat/tcpprobe_plus")


def users():
    """Who keeps the module from being unloaded."""
    return int(Path("/sys/module/tcpprobe/refcnt").read_text())


def types_of_a_conversation():
    """The kinds of records that a connection over loopback makes."""
    fd = os.open(FILE, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener, \
             socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as served:
            client.sendall(b"x")
            served.recv(1)
        seen, end = set(), time.monotonic() + 20
        while not {"0", "1", "3", "4"} <= seen and time.monotonic() < end:  # the end is told where softirqs run, maybe later
            with contextlib.suppress(BlockingIOError):
                seen |= {line.split()[0] for line in os.read(fd, 1 << 16).decode().splitlines()}
            time.sleep(0.01)
        return seen - {"2"}  # a machine that stood still
    finally:
        os.close(fd)


def test_hooks_that_stay():
    insmod(KO_DIR / "tcpprobe.ko", readnum=1)
    fd = None

    def prepare():
        nonlocal fd
        fd = os.open(FILE, os.O_RDONLY)

    stuck = 0
    wanted = types_of_a_conversation()
    assert {"0", "1", "3", "4"} <= wanted
    for n, error in every_nth(lambda: os.close(fd), prepare=prepare):
        assert error is None, (n, error)
        assert STAT.read_text().count("nobody has") == 6, n
        if users() > stuck:
            stuck = users()
            if stuck == 6:
                break
            assert types_of_a_conversation() == wanted, STAT.read_text()
            with socket.create_server(("127.0.0.1", 0)) as listener:  # hits what has stayed
                socket.create_connection(listener.getsockname()).close()
    print(f"{stuck} hooks stayed")
    assert stuck == 6
    with pytest.raises(OSError) as e:  # nobody has the kernel call them now
        os.open(FILE, os.O_RDONLY)
    assert e.value.errno == errno.EBUSY
    with pytest.raises(BlockingIOError):
        rmmod("tcpprobe")
