# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves what an idle connection costs: little more than in user space, and no thread."""

import signal
import subprocess
import time

import pytest
from lib import BENCH, DEBUG, TOP, available_memory, bench, modes, rmmod, scaled, sysctl, threads

pytestmark = pytest.mark.boot(mib=3072, minutes=5)
COUNT = scaled(10000, 50)


def available():
    """The same once it has settled: sockets are torn down, and freed by RCU, long after close()."""
    if DEBUG:  # a minute each, for nothing: see below
        return 0
    end = time.monotonic() + 60
    last = [0]
    while len(last) < 4 or max(last[-4:]) - min(last[-4:]) > 200 << 10:
        assert time.monotonic() < end, last
        time.sleep(0.3)
        last.append(available_memory())
    return last[-1]


def memory_per_connection(port):
    """Bytes of the machine's memory that each of 10,000 connections costs which echoed once."""
    bench("-c", scaled(200), "-n", scaled(20, 5), "127.0.0.1", port)
    before = available()
    with subprocess.Popen([BENCH, "-c", str(COUNT), "-n", "1", "--hold", "127.0.0.1", str(port)],
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert "holding" in client.stderr.readline()
        used = before - available()
        client.send_signal(signal.SIGTERM)
        assert client.wait() == 0
    return used / COUNT


@modes("fast", "worker")
def test_memory_of_idle_connections(load):
    """10,000 idle connections cost at most 512 bytes each beyond user space's, and no thread."""
    server = subprocess.Popen([TOP / "userspace" / "user-echo-server", "-p", "12346"])
    try:
        with sysctl(ipv4__tcp_max_tw_buckets=0):  # or old ones go while new ones are counted
            load("kecho", backlog=1024)
            before = threads()
            kernel, user = memory_per_connection(12345), memory_per_connection(12346)
            assert threads() - before < max(20, COUNT / 100)
            rmmod("kecho")
    finally:
        server.terminate()
        server.wait()
    if DEBUG:
        pytest.skip("a debug kernel's sockets cost what its detectors add")
    assert user > 1000  # or nothing was measured
    assert kernel <= user + 512, (kernel, user)
    print(f"memory per idle connection: kecho {kernel:.0f} B, user-echo-server {user:.0f} B")
