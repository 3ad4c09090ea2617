# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""The kernel's fault injection: the nth chance of a task to fail, and a share of those below a module's functions."""

import contextlib
import itertools
import os
import threading
from pathlib import Path

DEBUGFS = Path("/sys/kernel/debug")
KINDS = ("failslab", "fail_page_alloc")
# "make faults" takes every chance of the longest calls, a run of all tests a few.
ALL = os.environ.get("FAULTS") == "all"
STEP = 1 if ALL else 30
injected = 0  # faults, of all tests so far
NTH_MAX = 20000  # no call has so many chances to fail: one that never ends is a fault of its own


def configure(kind, **values):
    for key, value in values.items():
        (DEBUGFS / kind / key.replace("_", "-")).write_text(f"{value}\n")


def allow_all():
    """GFP_KERNEL, single pages: by default they do not fail."""
    for kind in KINDS:
        configure(kind, ignore_gfp_wait="N", verbose=0)
    configure("fail_page_alloc", min_order=0, ignore_gfp_highmem="N")


@contextlib.contextmanager
def nth_of(task):
    """A function that sets which chance of a task, a thread's number, is to fail; 0 for none. It returns how many were
    left of the last: 0 once it was had."""
    allow_all()
    fd = os.open(f"/proc/{task}/fail-nth", os.O_RDWR)

    def nth(n):
        left = int(os.pread(fd, 32, 0))
        os.pwrite(fd, b"%d" % n, 0)
        return left

    try:
        yield nth
    finally:
        os.pwrite(fd, b"0", 0)
        os.close(fd)


def chances(call):
    """How many there are in call() for the calling thread to fail."""
    with nth_of(threading.get_native_id()) as nth:
        nth(NTH_MAX)
        call()
        return NTH_MAX - nth(0)


def every_nth(call, step=1, task=None, prepare=None, dense=NTH_MAX):
    """Runs call() again and again with its first, second, ... chance to fail made to fail, until there are no more;
    prepare() before each, without a fault. Yields each one's number and what call() raised: an OSError, or None.
    step: only every so manieth, up to the one that dense tells; each from there on, or where not all are wanted every third."""
    global injected  # pylint: disable=global-statement
    with nth_of(task or threading.get_native_id()) as nth:
        for n in itertools.chain(range(1, dense, step), range(dense, NTH_MAX, 1 if ALL or dense == NTH_MAX else 3)):
            error = None
            if prepare:
                prepare()
            nth(n)
            try:
                call()
            except OSError as e:
                error = e
            if nth(0):
                assert error is None, f"without a fault: {error}"
                return
            injected += 1
            yield n, error
    raise AssertionError(f"more than {NTH_MAX} chances to fail")


def filters(start, end, depth):
    """Which functions have to be among the callers of what may fail."""
    for kind in KINDS:
        configure(kind, require_start=hex(start), require_end=hex(end), stacktrace_depth=depth)


@contextlib.contextmanager
def below(module):
    """Only what is called by a module's functions may fail."""
    start, size = next((int(w[5], 16), int(w[1])) for w in map(str.split, Path("/proc/modules").read_text().splitlines())
                       if w[0] == module)
    filters(start, start + size, 32)
    try:
        yield
    finally:
        filters(0, (1 << 64) - 1, 0)


@contextlib.contextmanager
def only_of(cache):
    """Of slab caches only this one may fail: not those of the kernel's detectors, whose number of chances is another each time."""
    mark = Path("/sys/kernel/slab", cache, "failslab")
    mark.write_text("1")
    configure("failslab", cache_filter="Y")
    try:
        yield
    finally:
        configure("failslab", cache_filter="N")
        mark.write_text("0")


@contextlib.contextmanager
def failing(module, percent, most=1 << 30, kinds=KINDS):
    """Lets a share of the allocations fail that are made below a module's functions, so many at most: in softirqs and
    workers too. Yields a function that says how many did so far."""
    global injected  # pylint: disable=global-statement

    def had():
        return sum(most - int((DEBUGFS / kind / "times").read_text()) for kind in kinds)

    with below(module):
        allow_all()
        for kind in kinds:
            configure(kind, interval=1, times=most, space=0, probability=percent)
        try:
            yield had
        finally:
            injected += had()
            for kind in kinds:
                configure(kind, probability=0)
