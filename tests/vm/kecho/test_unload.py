# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that the module can be unloaded at any moment."""

import subprocess
import time

import pytest
from lib import BENCH, MODES, UNLOAD_MAX, Server, connected, insmod, modes, rmmod, scaled

pytestmark = pytest.mark.boot(minutes=7)


@pytest.mark.parametrize("mode,bench_param", [("fast", 0), ("worker", 0), ("worker", 1), ("owned", 0)], indirect=["mode"])
def test_unload_under_load_50_times(mode, bench_param):
    """rmmod amid the traffic of 100 busy clients returns within a second, as a rule: a busy host can hold up some;
    clients see the end.

    50 times with the fast path on and off, and bound to CPUs, which only workers can be; 10 with the test hook, which is no setting of a user's.
    """
    folder, params = MODES[mode]
    module = folder / "kecho.ko"
    took = []
    clients = scaled(100, 5)
    for n in range(scaled(10 if mode == "owned" else 50, 10, small=5)):
        insmod(module, bench=bench_param, **params)
        client = subprocess.Popen([BENCH, "-c", str(clients), "-n", "100000000", "-s", "2000", "--lean"],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        server = Server("kecho")
        end = time.monotonic() + 60
        while server.stat("bytes_in") < clients * 2000 * (1 + n % 3):
            assert time.monotonic() < end, server.stats()
            time.sleep(0.02)  # the CPU is the clients'
        began = time.monotonic()
        rmmod("kecho")
        took.append(time.monotonic() - began)
        said = client.communicate(timeout=60)[0]
        assert client.returncode == 1 and "errors:" in said
    took.sort()
    assert took[(len(took) - 1) // 2] < UNLOAD_MAX and took[-1] < 10 * UNLOAD_MAX, took
    assert connected(12345) == ""


@modes("fast", "worker")
def test_unload_while_clients_connect(mode):
    """rmmod amid connections that come and go, 20 times."""
    folder, params = MODES[mode]
    for _ in range(scaled(20, 10, small=4)):
        insmod(folder / "kecho.ko", **params)
        client = subprocess.Popen([BENCH, "-c", "50", "-n", "100000000", "--reconnect", "--lean"],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        server = Server("kecho")
        while server.stat("accepted") < 200:
            assert client.poll() is None
            time.sleep(0.02)
        rmmod("kecho")
        client.communicate(timeout=60)
        assert client.returncode == 1
