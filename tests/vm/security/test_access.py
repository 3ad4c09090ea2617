# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves the table of docs/security.md: what of the modules' files somebody without privileges can open."""

import subprocess
import sys
from pathlib import Path

import pytest
from lib import KO_DIR, insmod, rmmod

MODULES = "kecho", "khttpd", "drop_tcp_sock", "tcpprobe"
READABLE = "/proc/net/stat/kecho", "/proc/net/stat/khttpd", "/proc/net/stat/tcpprobe_plus"
CLOSED = "/proc/net/drop_tcp_sock", "/proc/net/tcpprobe"
# Opens the file that it is told of; says why it could not.
OPENER = "import os,sys\ntry:\n os.open(sys.argv[1], getattr(os, sys.argv[2]))\nexcept OSError as e:\n print(e.strerror)"
NOBODY = "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"
WHO = {"nobody": NOBODY, "root of nobody's user namespace": (*NOBODY, "unshare", "-Ur"),
       "root of a user namespace": ("unshare", "-Ur"),
       "nobody with a network namespace": (*NOBODY, "unshare", "-Ur", "unshare", "-n")}  # its owner's root is to be known by then


@pytest.fixture(scope="module")
def everything():
    for module in MODULES:
        insmod(KO_DIR / f"{module}.ko")
    yield [path for module in MODULES for folder in (Path("/sys/module", module, "parameters"), Path(f"/proc/sys/net/{module}_plus"))
           for path in sorted(folder.glob("*"))]
    for module in MODULES:
        rmmod(module)


def opened(who, path, flags):
    done = subprocess.run([*WHO[who], sys.executable, "-S", "-c", OPENER, path, flags], text=True, capture_output=True, check=True)
    return done.stdout.strip() or "opened"


@pytest.mark.parametrize("who", WHO)
def test_files(everything, who):
    refused = "Permission denied", "Operation not permitted"
    own = "network" in who
    for path in READABLE:
        assert opened(who, path, "O_RDONLY") == ("No such file or directory" if own else "opened"), path
        if who != "root of a user namespace":  # who may override modes of files of the users it knows, root's
            assert opened(who, path, "O_WRONLY") != "opened", path
    for path in CLOSED:
        for flags in ("O_RDONLY", "O_WRONLY", "O_RDWR"):
            said = opened(who, path, flags)
            if own:  # of its own sockets it may dispose; what others send is none of its business
                assert said == ("opened" if "drop" in path else "No such file or directory"), (path, said)
            else:
                assert said in refused, (path, flags, said)


@pytest.mark.parametrize("who", ["nobody", "root of nobody's user namespace"])
def test_settings(everything, who):
    assert len(everything) > 30
    for path in everything:
        assert opened(who, path, "O_RDONLY") == "opened", path
        assert opened(who, path, "O_WRONLY") == "Permission denied", path
