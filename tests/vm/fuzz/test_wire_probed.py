# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that tcpprobe stands what tests/wire does to a server's connections: each sample is read, lost or discarded, flows come and
go within maxflows, and the server answers as it does unwatched."""

import threading
import time

import pytest
from lib import KO_DIR, insmod, modes, rmmod
from records import DONE, FIELDS, RECV, SEND, SETUP, Trace, samples
from wire import CASES, PARAMS, TIME, run

# Kprobes are set and removed under traffic: see "CPUs in turns" in docs/vm.md.
pytestmark = pytest.mark.boot(clock="turns")


class Watcher(Trace):
    """Reads in a thread of its own every so many seconds, and counts: to keep each record takes an emulated CPU too long. One that
    is late does not begin before records are lost."""

    def __init__(self, rest, late):
        super().__init__()
        self.late = late
        self.records = self.lost = 0
        self.types = set()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(rest,))
        self.thread.start()

    def run(self, rest):
        while not self.ended.wait(rest):
            if not self.late or samples()["lost"]:
                self.read()
        self.read()

    def read(self):
        """What there is; each line has to be a record, or to say how many are lost."""
        for line in self.text().splitlines():
            if line.startswith("# lost "):
                self.lost += int(line.split()[2])
                continue
            assert line.count(" ") == len(FIELDS) - 1, line
            self.records += 1
            self.types.add(int(line[0]))

    def __exit__(self, *exc):
        self.ended.set()
        self.thread.join()
        super().__exit__(*exc)


@pytest.mark.parametrize("maxflows", [20, 100000])
@pytest.mark.parametrize("module", PARAMS)
@modes("fast")
def test_wire_probed(load, klog, device, module, maxflows):
    server = load(module, hooks=True, backlog=1024, **PARAMS[module])
    few = maxflows == 20
    insmod(KO_DIR / "tcpprobe.ko", maxflows=maxflows, purgetime=1, bufsize=64 if few else 1 << 16, port=PARAMS[module]["port"])
    try:
        with Watcher(0.2 if few else 0.02, late=few) as watcher:
            klog.lines()  # what they say when they are loaded, and first used
            end = time.monotonic() + TIME / 8
            first = 0
            while not first or time.monotonic() < end:
                assert run(device, module, first)["failures"] == 0
                first += CASES
            server.wait("active", 0, seconds=120)
        counted = samples()
        print(module, maxflows, first, counted, watcher.records, watcher.lost, sorted(watcher.types))
        assert counted["taken"] == counted["read"] + counted["lost"] + counted["discarded"]
        assert watcher.lost <= counted["lost"] and watcher.records == counted["read"]
        if few:
            assert watcher.records and counted["lost"]
        else:
            assert watcher.records > CASES and {RECV, SEND, SETUP, DONE} <= watcher.types
        assert [line for line in klog.lines() if line.startswith((module, "tcpprobe"))] == []
    finally:
        rmmod("tcpprobe")
