# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that tcpprobe, unloaded under a reader, does no harm where the kernel could not take a hook back: whoever unloads it waits
for the next boot, as its memory has to stay. In a boot of its own, where no module can be loaded after that."""

import os
import socket
import subprocess
import sys
import time

import pytest
from faults import allow_all
from lib import KO_DIR, insmod, loaded, rmmod

pytestmark = pytest.mark.boot(faults=True, alone=True)

# Unloads it, with a fault at so manieth chance.
UNLOAD = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
with open("/proc/thread-self/fail-nth", "w") as f:
    f.write(sys.argv[1])
    f.flush()
    libc.syscall(176, b"tcpprobe", 0o4000)
    f.seek(0)
    f.write("0")
"""
MOST = 200  # chances that unloading has, at the most


def talk():
    """A connection over loopback, which hits every hook."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client, \
         listener.accept()[0] as served:
        client.sendall(b"x")
        assert served.recv(1) == b"x"


def test_who_unloads_it_waits(klog):
    allow_all()
    said = []
    for n in range(1, MOST):
        if not loaded("tcpprobe"):
            insmod(KO_DIR / "tcpprobe.ko")
        reader = os.open("/proc/net/tcpprobe", os.O_RDONLY)
        unloading = subprocess.Popen([sys.executable, "-S", "-c", UNLOAD, str(n)])  # pylint: disable=consider-using-with
        end = time.monotonic() + 60
        while unloading.poll() is None and time.monotonic() < end:
            said += klog.lines()
            if any("until the next boot" in line for line in said):
                print(f"chance {n}")
                time.sleep(2)
                assert unloading.poll() is None
                for _ in range(20):
                    talk()
                return  # nobody can end that process
            time.sleep(0.1)
        assert unloading.poll() is not None, "it hangs, and does not say why"
        os.close(reader)
        talk()
    if loaded("tcpprobe"):
        rmmod("tcpprobe")
    pytest.fail("every hook was taken back")
