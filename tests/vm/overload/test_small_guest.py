# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that the servers live on in a small machine whose memory others use: clients may wait or be reset, and when
there is memory again all is as before. And that nobody asks for more than there is. What they do without any, tests/vm/faults
proves."""

import contextlib
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lib import BENCH, DEBUG, HTSTRESS, HTTP_PORT, KO_DIR, PORT, insmod, meminfo, modes, rmmod, scaled, settings, sh, wrong_bytes
from overload import GET, URL, netstat, others_are_served, swallow, tcp_limit

# The kernel says, with a trace, when it has not a page for an interrupt; that is meant here.
pytestmark = pytest.mark.boot(mib=256, faults=True, alone=True, minutes=2)

# Takes memory until so many bytes are left, until its input ends.
HOG = """
import mmap, sys
held = []
def left():
    return next(int(line.split()[1]) << 10 for line in open("/proc/meminfo") if line.startswith("MemAvailable"))
while left() > int(sys.argv[1]):
    held.append(mmap.mmap(-1, 1 << 20))
    held[-1].write(b"x" * (1 << 20))
print("ready", flush=True)
sys.stdin.read()
print(len(held))
"""


@modes("fast", "worker")
def test_no_memory(servers):
    leave = 2 * tcp_limit() + ((32 if DEBUG else 12) << 20)  # less, and the kernel kills somebody
    pressures, killed = netstat("TCPMemoryPressures"), vmstat("oom_kill")
    with others_are_served("no memory") as others, contextlib.ExitStack() as held, \
         subprocess.Popen([sys.executable, "-S", "-c", HOG, str(leave)], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as hog:
        assert hog.stdout.readline() == "ready\n"
        taken, crowds, served, left = 0, 0, [], 1 << 60
        limit = time.monotonic() + 60
        while others.go_on() or not served and time.monotonic() < limit:
            if crowds < 4:  # beyond its limits TCP still lets each have a little: some 4 MiB a crowd
                crowds += 1
                with contextlib.suppress(OSError):
                    taken += swallow(held, 20, PORT, b"x" * 65536)
                    taken += swallow(held, 20, HTTP_PORT, GET * 2000)
            for command in [BENCH, "-c", 20, "-n", scaled(100), "--timeout", 60], [HTSTRESS, "-n", scaled(400), "-c", 20, URL]:
                try:
                    done = sh(*command, "--json", check=False)
                except OSError as e:  # there is none to start it
                    assert e.errno == errno.ENOMEM, e
                    continue
                assert wrong_bytes(done.stdout) == 0, done.stdout
                if done.returncode == 0:
                    served.append(Path(command[0]).name)
                left = min(left, meminfo("MemAvailable"))
        said = hog.communicate()[0]
    pressures = netstat("TCPMemoryPressures") - pressures
    print(f"{said.strip()} MiB held by a process, {taken >> 20} MiB taken by sockets, {left >> 20} MiB left; TCP short of memory {pressures} times; "
          f"served: {served}; {[server.stats() for server in servers]}")
    assert taken > 5 << 20 and pressures and served and vmstat("oom_kill") == killed


@pytest.mark.parametrize("name", ["bufsize", "hashsize"])
def test_tables_that_do_not_fit(unloaded, name):
    """Of tcpprobe: what would take more than half of the memory is refused, by a change or when it is opened, and no process
    is killed for it."""
    insmod(KO_DIR / "tcpprobe.ko")
    killed = vmstat("oom_kill")
    path = next(path for path in settings("tcpprobe") if path.name == name)
    before, most = path.read_text(), 1 << (22 if name == "bufsize" else 24)
    fd = os.open("/proc/net/tcpprobe", os.O_RDONLY)
    try:
        with pytest.raises(OSError) as err:
            path.write_text(str(most))
        assert err.value.errno == errno.ENOMEM and path.read_text() == before
    finally:
        os.close(fd)
    path.write_text(str(most))  # nobody has it open
    with pytest.raises(OSError) as err:
        os.open("/proc/net/tcpprobe", os.O_RDONLY)
    assert err.value.errno == errno.ENOMEM
    path.write_text(before)
    os.close(os.open("/proc/net/tcpprobe", os.O_RDONLY))
    rmmod("tcpprobe")
    assert vmstat("oom_kill") == killed


def vmstat(name):
    """A counter of the kernel's."""
    return next(int(line.split()[1]) for line in Path("/proc/vmstat").read_text().splitlines() if line.startswith(name + " "))
