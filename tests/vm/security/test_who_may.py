# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves the table of docs/security.md: what of the modules' files somebody without privileges can open."""

import subprocess
import sys

import pytest
from lib import KO_DIR, MODULES, insmod, settings, unload_all

READABLE = "/proc/net/stat/kecho", "/proc/net/stat/khttpd", "/proc/net/stat/tcpprobe_plus"
CLOSED = "/proc/net/drop_tcp_sock", "/proc/net/tcpprobe"
# Opens files as it is told on standard input, one after the other, and says what came of it.
OPENER = """
import os, sys
for line in sys.stdin.read().splitlines():
    path, flags = line.split()
    try:
        os.close(os.open(path, getattr(os, flags)))
        print("opened")
    except OSError as e:
        print(e.strerror)
"""
NOBODY = "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"
WHO = {"nobody": NOBODY, "root of nobody's user namespace": (*NOBODY, "unshare", "-Ur"),
       "root of a user namespace": ("unshare", "-Ur"),
       "nobody with a network namespace": (*NOBODY, "unshare", "-Ur", "unshare", "-n")}  # its owner's root is to be known by then


@pytest.fixture(scope="module")
def everything():
    for module in MODULES:
        insmod(KO_DIR / f"{module}.ko")
    yield [path for module in MODULES for path in settings(module, writable=False)]
    unload_all()


def opened(who, paths, flags):
    """What comes of opening each path."""
    done = subprocess.run([*WHO[who], sys.executable, "-S", "-c", OPENER], input="".join(f"{path} {flags}\n" for path in paths),
                          text=True, capture_output=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("who", WHO)
def test_files(everything, who):
    own = "network" in who
    assert set(opened(who, READABLE, "O_RDONLY")) == {"No such file or directory" if own else "opened"}
    if who != "root of a user namespace":  # who may override modes of files of the users it knows, root's
        assert "opened" not in opened(who, READABLE, "O_WRONLY")
    for flags in ("O_RDONLY", "O_WRONLY", "O_RDWR"):
        said = opened(who, CLOSED, flags)
        if own:  # of its own sockets it may dispose; what others send is none of its business
            assert said == ["opened", "No such file or directory"]
        else:
            assert len(said) == 2 and set(said) <= {"Permission denied", "Operation not permitted"}, (flags, said)


@pytest.mark.parametrize("who", ["nobody", "root of nobody's user namespace"])
def test_settings(everything, who):
    assert len(everything) > 30
    assert set(opened(who, everything, "O_RDONLY")) == {"opened"}
    assert set(opened(who, everything, "O_WRONLY")) == {"Permission denied"}
