# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that tcpprobe stands what tests/wire does to a server's connections: each sample is read, lost or discarded, flows come and
go within maxflows, and the server answers as it does unwatched."""

import contextlib
import os
import threading
import time

import pytest
from lib import KO_DIR, insmod, modes, rmmod, samples
from wire import CASES, PARAMS, TIME, run

# Kprobes are set and removed under traffic: see "CPUs in turns" in docs/vm.md.
pytestmark = pytest.mark.boot(clock="turns")

FIELDS = 30


class Watcher:
    """Has tcpprobe's file open, and reads it in a thread of its own every so many seconds."""

    def __init__(self, rest):
        self.fd = os.open("/proc/net/tcpprobe", os.O_RDONLY | os.O_NONBLOCK)
        self.rest = b""
        self.records = 0
        self.lost = 0
        self.types = set()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(rest,))
        self.thread.start()

    def run(self, rest):
        while not self.ended.wait(rest):
            self.read()
        self.read()

    def end(self):
        self.ended.set()
        self.thread.join()
        os.close(self.fd)

    def read(self):
        """What there is; each line has to be a record, or to say how many are lost."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.fd, 1 << 20):
                *lines, self.rest = (self.rest + data).split(b"\n")
                for line in lines:
                    if line.startswith(b"# lost "):
                        self.lost += int(line.split()[2])
                        continue
                    words = line.split(b" ")
                    assert len(words) == FIELDS, line
                    self.records += 1
                    self.types.add(int(words[0]))


@pytest.mark.parametrize("maxflows", [20, 100000])
@pytest.mark.parametrize("module", PARAMS)
@modes("fast")
def test_wire_probed(load, klog, device, module, maxflows):
    server = load(module, hooks=True, backlog=1024, **PARAMS[module])
    few = maxflows == 20
    insmod(KO_DIR / "tcpprobe.ko", maxflows=maxflows, purgetime=1, bufsize=64 if few else 1 << 16, port=PARAMS[module]["port"])
    try:
        watcher = Watcher(0.2 if few else 0.02)
        try:
            klog.lines()  # what they say when they are loaded, and first used
            end = time.monotonic() + TIME / 8
            first = 0
            while not first or time.monotonic() < end:
                assert run(device, module, first)["failures"] == 0
                first += CASES
            server.wait("active", 0, seconds=120)
        finally:
            watcher.end()
        counted = samples()
        print(module, maxflows, first, counted, watcher.records, watcher.lost, sorted(watcher.types))
        assert counted["taken"] == counted["read"] + counted["lost"] + counted["discarded"]
        assert watcher.lost <= counted["lost"] and watcher.records == counted["read"]
        assert watcher.records > CASES and {0, 1, 3, 4} <= watcher.types
        assert counted["lost"] > 0 or not few
        assert [line for line in klog.lines() if line.startswith((module, "tcpprobe"))] == []
    finally:
        rmmod("tcpprobe")
