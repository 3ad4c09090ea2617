# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves the table of docs/security.md: what of the modules' files somebody without privileges can open."""

import os
import re
import subprocess
import sys
from pathlib import Path

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
ADMIN = (*NOBODY, "--inh-caps=+net_admin", "--ambient-caps=+net_admin")
WHO = {"nobody": NOBODY, "root of nobody's user namespace": (*NOBODY, "unshare", "-Ur"),
       "root of a user namespace": ("unshare", "-Ur"),
       "nobody with a network namespace": (*NOBODY, "unshare", "-Ur", "unshare", "-n")}  # its owner's root is to be known by then


OTHERS = re.compile(r"/proc/(?:\d+|self|thread-self)(?:/|$)|/proc/irq/")


def files():
    """All there is under /proc, but of processes and interrupts, which come and go by themselves."""
    found = set()
    for folder, folders, names in os.walk("/proc"):
        folders[:] = [name for name in folders if not OTHERS.match(f"{folder}/{name}/")]
        found |= {f"{folder}/{name}" for name in names}
    real = os.path.realpath("/proc/net")
    found |= {f"/proc/net/{path.relative_to(real)}" for path in Path(real).rglob("*") if path.is_file()}
    return found


@pytest.fixture(scope="module")
def everything():
    before = files()
    for module in MODULES:
        insmod(KO_DIR / f"{module}.ko")
    paths = [path for module in MODULES for path in settings(module, writable=False)]
    new = files() - before
    assert new == {*MODES, *(str(path) for path in paths if str(path).startswith("/proc/"))}, "a file that no test here knows"
    yield paths
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
    """What comes of opening each path, by one of WHO or behind another command."""
    done = subprocess.run([*WHO.get(who, who), sys.executable, "-S", "-c", OPENER], input="".join(f"{path} {flags}\n" for path in paths),
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


def test_settings_are_their_owners(everything):
    """By their modes, as all of the kernel's in /proc/sys and /sys: whoever is uid 0 of the machine's may set them, though he has no
    capability there; a container whose root is another uid may not."""
    writable = [path for path in everything if path.stat().st_mode & 0o200]
    assert len(writable) > 10
    assert set(opened("root of a user namespace", writable, "O_WRONLY")) == {"opened"}
    assert set(opened("root of a user namespace", ["/proc/sys/net/core/somaxconn"], "O_WRONLY")) == {"opened"}


def test_network_administrator(everything):
    """Who is nobody but for CAP_NET_ADMIN may set sysctls, as any of the network's, and nothing else that nobody may not."""
    sysctls = [path for path in everything if str(path).startswith("/proc/sys/net/")]
    parameters = [path for path in everything if path.stat().st_mode & 0o200 and path not in sysctls]
    assert len(sysctls) > 8 and len(parameters) > 5
    assert set(opened(ADMIN, sysctls, "O_WRONLY")) == {"opened"}
    assert set(opened(ADMIN, parameters, "O_WRONLY")) == {"Permission denied"}
    assert set(opened(ADMIN, CLOSED, "O_RDONLY")) == {"Permission denied"}  # by their modes, root's
