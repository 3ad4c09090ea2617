# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that the modules can be loaded, unloaded, moved between namespaces, configured and used in any order, at any
moment of the others' lives. SEED says where chance begins, TIME for how many seconds to go on."""

import contextlib
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
from lib import BENCH, HOOKS_DIR, HTSTRESS, HTTP_PORT, KO_DIR, MODULES, insmod, ip, rmmod, settings, sh, unload_all

# Kprobes come and go under traffic: see "CPUs in turns" in docs/vm.md.
pytestmark = pytest.mark.boot(clock="turns")

SEED = int(os.environ.get("SEED") or 1)
SECONDS = int(os.environ.get("TIME") or 0) or 30
NAMESPACES = None, "one", "two"
READER = "import sys\nwith open('/proc/net/tcpprobe', 'rb', buffering=0) as f:\n    while f.read(int(sys.argv[1])):\n        pass"

NEEDED = "load", "unload", "traffic", "drop", "probe", "renew_namespace", "configure"  # what has to succeed at least once


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
            try:
                action(rng)
                name = action.__name__
            except (OSError, subprocess.CalledProcessError) as e:
                name = f"{action.__name__}: {type(e).__name__}"
            except Exception:  # pylint: disable=broad-exception-caught
                self.wrong.append(traceback.format_exc())
                return
            self.done[name] = self.done.get(name, 0) + 1


def load(rng):
    module = rng.choice(MODULES)
    params = {}
    if module in ("kecho", "khttpd"):
        params = {"bench": rng.randrange(2), "fastpath": rng.randrange(2), "max_conns": rng.choice((3, 1000))}
    elif module == "tcpprobe":
        params = {"bufsize": rng.choice((16, 4096)), "maxflows": rng.choice((2, 1000))}
    insmod(rng.choice((KO_DIR, HOOKS_DIR)) / f"{module}.ko", netns=rng.choice(NAMESPACES), **params)


def unload(rng):
    rmmod(rng.choice(MODULES))


def renew_namespace(rng):
    name = rng.choice(NAMESPACES[1:])
    sh("ip", "netns", "del", name, check=False)
    sh("ip", "netns", "add", name)
    ip("link set lo up", netns=name)


def traffic(rng):
    """Clients, some of which are killed in the middle."""
    command = rng.choice(([BENCH, "-c", 20, "-n", 300], [BENCH, "-c", 20, "-n", 10, "--reconnect", "-s", 5000],
                          [HTSTRESS, "-n", 2000, "-c", 20, f"http://127.0.0.1:{HTTP_PORT}/"],
                          [HTSTRESS, "-n", 2000, "-c", 20, "-k", "-P", 8, f"http://127.0.0.1:{HTTP_PORT}/"]))
    where = rng.choice(NAMESPACES)
    prefix = ["ip", "netns", "exec", where] if where else []
    with subprocess.Popen([*prefix, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        with contextlib.suppress(subprocess.TimeoutExpired):
            client.wait(rng.choice((0.1, 0.5, 3)))
        client.send_signal(signal.SIGKILL)


def drop(rng):
    with open("/proc/net/drop_tcp_sock", "wb", buffering=0) as f:
        f.write(rng.choice((b"127.0.0.1:12345 127.0.0.0/8:*\n", b"127.0.0.0/8:* 127.0.0.1:12345\n", b"127.0.0.0/8:8081 *:* time-wait\n",
                            b"nonsense\n")))


def probe(rng):
    with subprocess.Popen([sys.executable, "-S", "-c", READER, str(rng.choice((1, 70, 65536)))], stderr=subprocess.DEVNULL) as reader:
        with contextlib.suppress(subprocess.TimeoutExpired):
            reader.wait(rng.choice((0.3, 2)))
        reader.send_signal(signal.SIGKILL)


def configure(rng):
    path = rng.choice([path for path in settings(rng.choice(MODULES)) if "timeout" not in path.name] or [None])
    if path:
        path.write_text(str(rng.choice((0, 1, 2, 100, 5000))))


def read_statistics(rng):
    for path in Path("/proc/net/stat").iterdir():
        if path.name.startswith(MODULES):
            path.read_text()


def test_chaos():
    chaos = Chaos()
    threads = [threading.Thread(target=chaos.act, args=(SEED * 100 + n, actions)) for n, actions in enumerate((
        [load, load, unload], [load, unload], [renew_namespace, configure, configure], [traffic], [traffic], [drop, read_statistics],
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
