# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""I/O workers: a thread a CPU, which CPUs that come and go do not strand."""

import contextlib
import os
import threading
from pathlib import Path

import pytest
from lib import KO_DIR, PORT, Server, bench, connect, insmod, modes, receive, rmmod

CPU1 = Path("/sys/devices/system/cpu/cpu1/online")


def workers(name):
    """Thread id of each I/O worker, by the CPU in its name."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            comm = path.read_text().strip()
            if comm.startswith(f"{name}_io/"):
                found[int(comm.rpartition("/")[2])] = int(path.parent.name)
    return found


@contextlib.contextmanager
def offline():
    """CPU 1 switched off."""
    CPU1.write_text("0")
    try:
        yield
    finally:
        CPU1.write_text("1")


@pytest.mark.parametrize("bound", [0, 1])
@modes("worker")
def test_a_worker_a_cpu(load, bound):
    """They are there from load to unload, and stay on their CPU if bench=1 says so."""
    load("kecho", bench=bound)
    found = workers("kecho")
    assert sorted(found) == sorted(os.sched_getaffinity(0))
    for cpu, pid in found.items():
        assert (os.sched_getaffinity(pid) == {cpu}) == bool(bound)
    bench("-c", 50, "-n", 20)
    assert workers("kecho") == found
    rmmod("kecho")
    assert not workers("kecho")


@pytest.mark.smoke
@pytest.mark.parametrize("bound", [0, 1])
@modes("worker")
def test_a_cpu_goes_and_comes(load, bound):
    """Under load: connections that its worker served are served on, on a CPU less and again on both."""
    load("kecho", bench=bound)
    stop = threading.Event()
    failed = []

    def traffic():
        while not stop.is_set():
            try:
                bench("-c", 20, "-n", 50)
            except Exception as err:  # pylint: disable=broad-except # shown below, whatever it is
                failed.append(err)
                return

    thread = threading.Thread(target=traffic)
    with connect(port=PORT) as s:
        thread.start()
        for _ in range(3):
            with offline():
                s.sendall(b"one CPU")
                assert receive(s, 7) == b"one CPU"
            s.sendall(b"two CPUs")
            assert receive(s, 8) == b"two CPUs"
        stop.set()
        thread.join()
    assert not failed


@pytest.mark.smoke
@pytest.mark.parametrize("bound", [0, 1])
def test_a_cpu_that_was_not_there_at_load(bound):
    """Another's worker does what it finds ready."""
    with offline():
        insmod(KO_DIR / "kecho.ko", fastpath=0, bench=bound)
    try:
        assert list(workers("kecho")) == [0]
        os.sched_setaffinity(0, {1})  # so that it is CPU 1 that receives
        with connect(port=PORT) as s:
            for n in range(100):
                s.sendall(b"%08d" % n)
                assert receive(s, 8) == b"%08d" % n
        assert Server("kecho", None).stat("fastpath_bytes") == 0
    finally:
        os.sched_setaffinity(0, {0, 1})
        rmmod("kecho")
