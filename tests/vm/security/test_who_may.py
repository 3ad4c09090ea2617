# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves the table of docs/security.md: what of the modules' files somebody without privileges can open."""

import os
import subprocess
import sys

import pytest
from lib import KO_DIR, MODULES, insmod, settings, unload_all

READABLE = "/proc/net/stat/kecho", "/proc/net/stat/khttpd", "/proc/net/stat/tcpprobe_plus"
CLOSED = "/proc/net/drop_tcp_sock", "/proc/net/tcpprobe"
MODES = {**dict.fromkeys(READABLE, 0o444), "/proc/net/drop_tcp_sock": 0o600, "/proc/net/tcpprobe": 0o400}
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


def test_owners_and_modes(everything):
    """Each is root's. Nobody else may write to any, nor read the two that tell or end what others' connections do."""
    for path, mode in MODES.items():
        found = os.stat(path)
        assert (found.st_uid, found.st_gid, oct(found.st_mode & 0o7777)) == (0, 0, oct(mode)), path
    for path in everything:
        found = path.stat()
        assert (found.st_uid, found.st_gid) == (0, 0) and found.st_mode & 0o7777 in (0o444, 0o644), (path, oct(found.st_mode))


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


WRITER = """
import os
fd = os.open("/proc/net/drop_tcp_sock", os.O_RDWR)
for _ in range(20):
    try:
        os.write(fd, b"what nobody has to say")
        os.write(fd, bytes([10]))
    except OSError as e:
        print(e.strerror)
print(os.pread(fd, 4096, 0).decode())
"""


def test_nobody_writes_to_the_log(everything, klog):
    """Who has a namespace of his own may write lines that are wrong there; they are counted, and he is told."""
    done = subprocess.run([*WHO["nobody with a network namespace"], sys.executable, "-S", "-c", WRITER], text=True,
                          capture_output=True, check=True)
    assert done.stdout.count("Invalid argument") == 20 and "malformed 20" in done.stdout, done.stdout
    assert not [line for line in klog.lines() if "nobody" in line or "malformed" in line]


@pytest.mark.parametrize("who", ["nobody", "root of nobody's user namespace"])
def test_settings(everything, who):
    assert len(everything) > 30
    assert set(opened(who, everything, "O_RDONLY")) == {"opened"}
    assert set(opened(who, everything, "O_WRONLY")) == {"Permission denied"}
