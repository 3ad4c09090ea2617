# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that the servers answer a peer that breaks every rule of TCP's with what it asked for, or not at all.

tests/wire is that peer. SEED says where chance begins, TIME for how many seconds to go on; a failure names the case."""

import json
import os
import subprocess
import time

import pytest
from lib import DEBUG, HTTP_PORT, MODES, PORT, TOP, ip, scaled, sh

WIRE = TOP / "build" / "tests" / "wire"
SEED = int(os.environ.get("SEED") or 1)
TIME = int(os.environ.get("TIME") or 0)
CASES = scaled(2000, 16)  # of a run, one of which is made when TIME is not given


@pytest.fixture(scope="module")
def device():
    """A TUN device whose peers speak only by the program."""
    sh("modprobe", "tun", check=not DEBUG)
    ip("tuntap add wire0 mode tun", "addr add 10.7.0.1/16 dev wire0", "addr add fd07::1/64 dev wire0 nodad",
       "link set wire0 up mtu 9000 txqueuelen 5000")
    yield "wire0"
    ip("link del wire0")


@pytest.mark.parametrize("module", ["kecho", "khttpd"])
def test_wire(load, klog, device, module, mode):
    params = {"kecho": {"port": PORT, "idle_timeout": 10},
              "khttpd": {"port": HTTP_PORT, "keepalive_timeout": 10, "request_timeout": 10}}[module]
    server = load(module, hooks=True, backlog=1024, **params)
    klog.lines()  # what it says when it is loaded
    end = time.monotonic() + TIME / len(MODES)
    first = 0
    sums = {}
    while not first or time.monotonic() < end:
        done = subprocess.run([WIRE, "-s", str(SEED), "-f", str(first), "-n", str(CASES), device,
                               "echo" if module == "kecho" else "http", str(params["port"])],
                              capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        for name, value in json.loads(done.stdout).items():
            sums[name] = sums.get(name, 0) + value
        first += CASES
    print(module, mode, sums)
    assert sums["cases"] == first and sums["failures"] == 0 and sums["bad_sums"] == 0
    # "early" wants more to send than a segment: one case in sixty of HTTP's.
    assert all(sums[name] > 0 for name in sums if name not in ("seed", "failures", "bad_sums", "answers", "early" if first < 1000 else ""))
    if module == "khttpd":
        assert sums["answers"] > sums["cases"]
    else:
        assert int(server.get("hook_shared_bytes")) > 0  # some went back as the pages they came in
    server.wait("active", 0, seconds=120)
    stats = server.stats()
    assert stats["accepted"] == stats["closed"] and stats["rejected"] == 0
    assert [line for line in klog.lines() if line.startswith(module)] == []
