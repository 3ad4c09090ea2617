# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that memory which is not there is an error and nothing else: each allocation of a call fails in turn, when a
module is loaded, unloaded, written to, opened or given a namespace."""

import contextlib
import ctypes
import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faults import ALL, STEP, below, chances, every_nth, failing, only_of
from http_cases import get
from lib import (CLONE_NEWNET, HTTP_PORT, KO_DIR, LIBC, MODULES, PORT, Server, check, connect, connections, insmod, loaded, network_namespace, rmmod,
                 settings, slabs, statistics_file)

pytestmark = [pytest.mark.boot(faults=True, minutes=3), pytest.mark.usefixtures("unloaded")]

SYS_INIT_MODULE = 175
OWN = 80  # chances to fail, at most, in a module's own function for it
PORTS = {"kecho": PORT, "khttpd": HTTP_PORT}
# What a module that is not loaded has not: its file, its statistics, its threads, its slab cache, its sysctls.
TRACES = ["/proc/net/{}", "/proc/net/stat/{}", "/proc/net/stat/{}_plus", "/sys/kernel/slab/{}", "/sys/kernel/slab/{}_flow",
          "/sys/module/{}", "/proc/sys/net/{}_plus"]
SHORT = (errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN)
# TCP's own words for it: no socket, no room to bind it.
NO_LISTENER = (errno.ENFILE, errno.EADDRINUSE)


def each_module(test):
    return pytest.mark.parametrize("module", MODULES)(test)


def init_module(image, params=b""):
    check(LIBC.syscall(SYS_INIT_MODULE, image, ctypes.c_ulong(len(image)), params))


strangers = set()  # numbers of threads that have had another name: to ask each of them every time took half of a test's time


def traces(module):
    """What there is of a module."""
    names = [Path(trace.format(module)) for trace in TRACES]
    found = [str(name) for name in names if name.exists()]
    threads = {name for name in os.listdir("/proc") if name.isdigit()}
    strangers.intersection_update(threads)
    for pid in threads - strangers:
        with contextlib.suppress(OSError):
            name = Path("/proc", pid, "comm").read_text().rstrip()
            if name.startswith((f"{module}_io", f"{module}_accept")):
                found.append(f"a thread {name}")
            elif not name.startswith(("kthreadd", *MODULES)):  # the former is what a new one is called until it has its own name
                strangers.add(pid)
    if module in PORTS:
        with contextlib.suppress(ConnectionRefusedError):
            connect(port=PORTS[module]).close()
            found.append(f"a listener on port {PORTS[module]}")
    return sorted(found)


def own(found):
    """Without a slab cache's folder, which the kernel may leave out for want of memory."""
    return [name for name in found if not name.startswith("/sys/kernel/slab/")]


def workqueues():
    """How many there are, of anybody's: the kernel has a list of them, so that a forgotten one is no leak to kmemleak."""
    return slabs(["pool_workqueue"])["pool_workqueue"]


@each_module
@pytest.mark.parametrize("who", ["insmod", "the thread that starts threads"])
def test_load(module, who):
    """It is loaded, with all that it has, or an error says why not and there is nothing of it. Of two namespaces, so that there is
    something to undo when the second cannot be given its files."""
    with network_namespace("other"):
        load(module, who)


def load(module, who):
    image = (KO_DIR / f"{module}.ko").read_bytes()
    itself = who == "insmod"
    failed = succeeded = 0
    totals = []
    for _ in range(3):  # interrupts that come amid it add theirs, and the first load of a boot has more
        totals.append(chances(lambda: init_module(image)))
        whole = own(traces(module))
        rmmod(module)
    before = workqueues()
    last = min(totals)
    for _ in range(3):
        total = last
        if loaded(module):  # by the last of the loads before these
            rmmod(module)
        # The module's own allocations are among the last; "make faults" takes each of them in turn.
        for n, error in every_nth(lambda: init_module(image), step=STEP if itself else 1, task=None if itself else 2,
                                  dense=max(total - OWN, 1)):
            last = n
            if error:
                failed += 1
                assert error.errno in SHORT + (NO_LISTENER if module in PORTS else ()), (n, error)
                assert traces(module) == [], n
            else:
                succeeded += 1
                assert own(traces(module)) == whole, n
                rmmod(module)
        if not itself or last > total - OWN // 4:
            break  # else a load has fewer by now, and those at its end were stepped over
    print(f"{module}, {who}: of {total} chances {failed} faults were errors, {succeeded} were made up for")
    assert loaded(module)
    rmmod(module)
    assert traces(module) == []
    end = time.monotonic() + 20
    while workqueues() > before:
        assert time.monotonic() < end, (before, workqueues())
        time.sleep(0.1)
    assert len(whole) == {"kecho": 6, "khttpd": 6, "tcpprobe": 4, "drop_tcp_sock": 2}[module], whole  # two CPUs, a thread each
    if itself:
        assert failed > (10 if ALL else 3)  # of a third of them 10 to 19 were errors
    elif module in PORTS:
        assert failed


@each_module
def test_unload(module):
    """It goes, whoever uses it, whatever there is no memory for; of tcpprobe's readers test_unload_unhooked.py tells."""
    path = KO_DIR / f"{module}.ko"
    faults = 0
    with contextlib.ExitStack() as stack:
        def prepare():
            stack.close()
            insmod(path)
            if module in PORTS:
                held = stack.enter_context(connect(port=PORTS[module]))
                held.sendall(ASKED[module][0])
                assert held.recv(16) == ASKED[module][1][:16]
            elif module != "tcpprobe":
                stack.enter_context(open(f"/proc/net/{module}", "rb"))

        for n, error in every_nth(lambda: rmmod(module), prepare=prepare):
            assert error is None, (n, error)
            stack.close()
            assert traces(module) == [], n
            faults += 1
    print(f"{module}: {faults} faults")
    assert faults
    assert traces(module) == []


@each_module
def test_new_namespace(module):
    """A network namespace is made, with the module's files, or not made."""
    insmod(KO_DIR / f"{module}.ko")

    def unshare():
        check(LIBC.unshare(CLONE_NEWNET))

    def there():
        for kind, step in (("the module's", 1), ("all", 40 * STEP)):
            faults = 0
            with below(module) if "module" in kind else contextlib.nullcontext():
                for n, error in every_nth(unshare, step):
                    faults += 1
                    # The rest of the kernel has other words for it too, EEXIST was among them.
                    assert error is None or error.errno in SHORT or kind == "all", (kind, n, error)
            assert faults or ("module" in kind and module != "drop_tcp_sock")  # the only one to have something in each
            if module == "drop_tcp_sock":
                assert Path("/proc/thread-self/net/drop_tcp_sock").exists()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(there).result()
    if module in PORTS:
        connect(port=PORTS[module]).close()


ASKED = {"kecho": (b"?", b"?"), "khttpd": (get(), b"HTTP/1.1 200 OK\r\n")}


def acceptor(module):
    """The number of the thread in which a server accepts."""
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if comm.read_text() == f"{module}_accept\n":
                return int(comm.parent.name)
    raise AssertionError(f"{module} has no such thread")


@pytest.mark.parametrize("module", PORTS)
def test_accept(module):
    """A client for whose connection there is no memory is reset, or served when there is some; and so is the next."""
    insmod(KO_DIR / f"{module}.ko")
    asked, answer = ASKED[module]

    def visit():
        with connect(port=PORTS[module]) as s:
            s.sendall(asked)
            assert s.recv(1 << 16).startswith(answer)

    reset = late = 0
    for n, error in every_nth(visit, task=acceptor(module)):
        assert error is None or error.errno == errno.ECONNRESET, (n, error)
        reset += error is not None
        late += error is None
        visit()
    print(f"{module}: {reset} faults were resets, {late} were made up for")
    assert late
    with only_of(module), failing(module, 100, kinds=("failslab",)) as faults:
        for _ in range(3):
            with pytest.raises(ConnectionResetError):
                visit()
        assert faults() == 3
    visit()
    end = time.monotonic() + 20
    while (stats := Server(module).stats())["active"]:
        assert time.monotonic() < end, stats
        time.sleep(0.1)
    assert stats["accepted"] == stats["closed"] and stats["errors"] > 0, stats


def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    try:
        assert os.write(fd, text) == len(text)
    finally:
        os.close(fd)


@pytest.mark.parametrize("kind", ["pairs", "pattern"])
def test_drop_lines(kind):
    """A write that fails has done part of it at most; the same lines again do what was left."""
    path = "/proc/net/drop_tcp_sock"
    insmod(KO_DIR / "drop_tcp_sock.ko")
    text = faults = errors = 0
    stack = contextlib.ExitStack()

    def prepare():
        nonlocal text, asked
        stack.close()
        asked, _, (addr, port) = stack.enter_context(connections(8))
        if kind == "pairs":
            lines = ["%s:%d %s:%d" % (*s.getsockname(), addr, port) for s in asked]
        else:
            lines = [f"127.0.0.0/8:* {addr}:{port}"]
        text = "".join(f"{line}\n" for line in ["nonsense", *lines, "1.2.3.4:x 1.2.3.4:1"]).encode()

    asked = []
    with below("drop_tcp_sock"), stack:
        for n, error in every_nth(lambda: write(path, text), prepare=prepare):
            faults += 1
            errors += error is not None
            assert error is None or error.errno in SHORT, (n, error)
            if error:
                write(path, text)
            for s in asked:
                with pytest.raises(ConnectionAbortedError):
                    s.send(b"x")
    print(f"{faults} faults, {errors} errors")
    assert faults >= 2 and Path(path).read_text().startswith("version 1\n")


def test_drop_read():
    insmod(KO_DIR / "drop_tcp_sock.ko")
    write("/proc/net/drop_tcp_sock", b"1.2.3.4:5 1.2.3.4:6\n")
    check_reading(Path("/proc/net/drop_tcp_sock"))


def check_reading(path):
    """With one allocation after the other failing it fails, or says all."""
    texts = []
    whole = path.read_text()
    faults = 0
    for n, error in every_nth(lambda: texts.append(path.read_text())):
        faults += 1
        assert error is None or error.errno in SHORT, (n, error)
    assert faults > 2 and set(texts) == {whole}


@each_module
def test_settings(module):
    """Each parameter and sysctl is set, or keeps its value and the write fails."""
    insmod(KO_DIR / f"{module}.ko")
    faults = 0
    fd = None

    def prepare():
        write(path, old.encode())
        with contextlib.suppress(BlockingIOError):
            while fd and os.read(fd, 1 << 16):
                pass

    with contextlib.ExitStack() as stack:
        stack.enter_context(below(module))
        if module == "tcpprobe":
            # Its rings and tables are in use; a reader lets go of those that were replaced.
            fd = os.open("/proc/net/tcpprobe", os.O_RDONLY | os.O_NONBLOCK)
            stack.callback(os.close, fd)
        for path in settings(module):
            old = path.read_text().strip()
            if not old.isdigit():
                continue
            new = str(int(old) * 2 if old not in "01" else 1 - int(old))
            with contextlib.suppress(OSError):  # out of its bounds
                write(path, new.encode())
                new = path.read_text().strip()
            write(path, old.encode())
            for n, error in every_nth(lambda: write(path, new.encode()), prepare=prepare):
                faults += 1
                assert path.read_text().strip() == (old if error else new), (path, n, error)
                assert error is None or error.errno in SHORT, (path, n, error)
            write(path, old.encode())
    print(f"{module}: {faults} faults")
    assert bool(settings(module)) == (module != "drop_tcp_sock")
    assert faults or module != "tcpprobe"


def test_open_tcpprobe():
    """Without memory for its rings nobody gets the file, and no hook stays behind."""
    stat = Path("/proc/net/stat/tcpprobe_plus")
    insmod(KO_DIR / "tcpprobe.ko")

    fd = None

    def open_it():
        nonlocal fd
        fd = os.open("/proc/net/tcpprobe", os.O_RDONLY)

    def close_it():
        nonlocal fd
        if fd is not None:
            os.close(fd)
            fd = None

    errors = 0
    for n, error in every_nth(open_it, step=STEP, prepare=close_it):
        close_it()
        errors += error is not None
        assert error is None or error.errno in SHORT, (n, error)
        assert " armed " not in stat.read_text(), (n, error)
    close_it()
    assert errors > 0


@each_module
def test_statistics(module):
    """Reading them fails or tells all."""
    insmod(KO_DIR / f"{module}.ko")
    check_reading(statistics_file(module))
