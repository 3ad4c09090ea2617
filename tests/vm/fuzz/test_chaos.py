# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that the modules can be loaded, unloaded, moved between namespaces, configured and used in any order, at any
moment of the others' lives. SEED says where chance begins, TIME for how many seconds to go on."""

import contextlib
import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest
from lib import BENCH, DEBUG, HOOKS_DIR, HTSTRESS, HTTP_PORT, KO_DIR, MODULES, drop_totals, insmod, ip, rmmod, settings, sh, unload_all, wrong_bytes

# Kprobes come and go under traffic: see "CPUs in turns" in docs/vm.md.
pytestmark = pytest.mark.boot(clock="turns")

SEED = int(os.environ.get("SEED") or 1)
SECONDS = int(os.environ.get("TIME") or 0) or 30
NAMESPACES = None, "one", "two"
PLACES = None, None, None, "one", "two"  # where most are most of the time, or clients would find nobody
PACE = 0.05  # of each, so that those who only look leave the others their time
# Reads until it is killed; the first bytes it shows.
READER = "import os, sys\nwith open('/proc/net/tcpprobe', 'rb', buffering=0) as f:\n    while data := f.read(int(sys.argv[1])):\n        os.write(1, data[:1])"

NEEDED = "load", "unload", "traffic", "drop", "probe", "renew_namespace", "configure"  # what has to succeed at least once
# How each may fail, as what it needs comes and goes under it: it is not there, or there already, or just coming or going.
MAY = {"load": {errno.EEXIST, errno.EADDRINUSE, errno.ENOENT, errno.EBUSY, errno.EINVAL}, "unload": {errno.ENOENT, errno.EAGAIN, errno.EBUSY},
       "drop": {errno.ENOENT, errno.EIO, errno.EINVAL}, "probe": {errno.ENOENT}, "configure": {errno.ENOENT, errno.EINVAL, errno.ENODEV, errno.EIO},
       "read_statistics": {errno.ENOENT, errno.EIO}}


class Chaos:
    def __init__(self):
        self.end = time.monotonic() + SECONDS
        self.done = {}
        self.wrong = []

    def missing(self):
        return [name for name in NEEDED if not self.done.get(name)]

    def act(self, seed, actions):
        """One of the actions after the other, by chance, until time is over and each was done. What is not there just
        now is no error."""
        rng = random.Random(seed)
        while (time.monotonic() < self.end or (self.missing() and time.monotonic() < self.end + 300)) and not self.wrong:
            late = [action for action in actions if time.monotonic() > self.end and action.__name__ in self.missing()]
            action = rng.choice(late or actions)
            name = action.__name__
            try:
                if action(rng) is False:
                    name += ", in vain"
            except OSError as e:
                if e.errno not in MAY.get(name, ()):
                    self.wrong.append(traceback.format_exc())
                    return
                name += f": {errno.errorcode[e.errno]}"
            except Exception:  # pylint: disable=broad-exception-caught
                self.wrong.append(traceback.format_exc())
                return
            self.done[name] = self.done.get(name, 0) + 1
            # Where something has yet to succeed once, those who did their part leave it be for a while.
            time.sleep(PACE if late or time.monotonic() < self.end else 10)


def load(rng):
    module = rng.choice(MODULES)
    params = {}
    if module in ("kecho", "khttpd"):
        params = {"bench": rng.randrange(2), "fastpath": rng.randrange(2), "max_conns": rng.choice((3, 1000))}
    elif module == "tcpprobe":
        params = {"bufsize": rng.choice((16, 4096)), "maxflows": rng.choice((2, 1000))}
    insmod(rng.choice((KO_DIR, HOOKS_DIR)) / f"{module}.ko", netns=rng.choice(PLACES), **params)


def unload(rng):
    """At once or after a while, or nobody would ever be served."""
    time.sleep(rng.choice((0, 0.1, 1, 2)))
    rmmod(rng.choice(MODULES))


def renew_namespace(rng):
    name = rng.choice(NAMESPACES[1:])
    sh("ip", "netns", "del", name, check=False)
    sh("ip", "netns", "add", name)
    ip("link set lo up", netns=name)


def traffic(rng):
    """Clients, some of which are killed in the middle. In vain if none was served in full; but what came was right."""
    few = rng.choice((1, 1, 10))
    command = rng.choice(([BENCH, "-c", 20, "-n", 30 * few], [BENCH, "-c", 20, "-n", few, "--reconnect", "-s", 5000],
                          [HTSTRESS, "-n", 200 * few, "-c", 20, f"http://127.0.0.1:{HTTP_PORT}/"],
                          [HTSTRESS, "-n", 200 * few, "-c", 20, "-k", "-P", 8, f"http://127.0.0.1:{HTTP_PORT}/"]))
    where = rng.choice(PLACES)
    prefix = ["ip", "netns", "exec", where] if where else []
    with subprocess.Popen([*prefix, *map(str, command), "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(rng.choice((0.1, 2, 40 if DEBUG else 5)))
        client.send_signal(signal.SIGKILL)
        said = client.stdout.read()
    assert not said or wrong_bytes(said) == 0, said
    return client.returncode == 0


def dropped():
    return drop_totals()["dropped"]


def drop(rng):
    """In vain if there was nothing to drop."""
    before = dropped()
    with open("/proc/net/drop_tcp_sock", "wb", buffering=0) as f:
        f.write(rng.choice((b"127.0.0.1:12345 127.0.0.0/8:*\n", b"127.0.0.0/8:* 127.0.0.1:12345\n", b"127.0.0.0/8:8081 *:* time-wait\n",
                            b"nonsense\n")))
    return dropped() != before


def probe(rng):
    """In vain if nothing was read."""
    with subprocess.Popen([sys.executable, "-S", "-c", READER, str(rng.choice((1, 70, 65536)))], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as reader:
        with contextlib.suppress(subprocess.TimeoutExpired):
            reader.wait(rng.choice((0.3, 2, 20 if DEBUG else 2)))
        reader.send_signal(signal.SIGKILL)
        return bool(reader.stdout.read())


def configure(rng):
    path = rng.choice([path for path in settings(rng.choice(MODULES)) if "timeout" not in path.name] or [None])
    if path:
        path.write_text(str(rng.choice((0, 1, 2, 100, 5000))))
    return bool(path)


def read_statistics(rng):
    for path in Path("/proc/net/stat").iterdir():
        if path.name.startswith(MODULES):
            path.read_text()


def test_chaos():
    chaos = Chaos()
    threads = [threading.Thread(target=chaos.act, args=(SEED * 100 + n, actions)) for n, actions in enumerate((
        [load, load, load, unload], [load, load, unload], [renew_namespace, configure, configure], [traffic], [traffic], [drop, read_statistics],
        [probe]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS + 600)
    assert not any(thread.is_alive() for thread in threads), "somebody hangs"
    assert not chaos.wrong, chaos.wrong
    unload_all()
    for name in NAMESPACES[1:]:
        sh("ip", "netns", "del", name, check=False)
    print(chaos.done)
    assert chaos.missing() == []
    # All of it goes again, and comes again.
    for module in MODULES:
        insmod(KO_DIR / f"{module}.ko")
    sh(BENCH, "-c", 10, "-n", 20)
    unload_all()
