# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that the servers answer a peer that breaks every rule of TCP's with what it asked for, or not at all.

tests/wire is that peer. SEED says where chance begins, TIME for how many seconds to go on; a failure names the case."""

import time

import pytest
from lib import MODES
from wire import CASES, PARAMS, TIME, run

# Two CPUs at a time, also where those of the other fuzzers take turns.
pytestmark = pytest.mark.boot(alone=True)


@pytest.mark.parametrize("module", PARAMS)
def test_wire(load, klog, device, module, mode):
    server = load(module, hooks=True, backlog=1024, **PARAMS[module])
    klog.lines()  # what it says when it is loaded
    end = time.monotonic() + TIME / len(MODES)
    first = 0
    sums = {}
    while not first or time.monotonic() < end:
        for name, value in run(device, module, first).items():
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
