# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that a call on one of our files which is kept for long by its caller's own memory holds up nobody else.

copy_to_user() and copy_from_user() wait here for a page that userfaultfd never gives, as they would for a file of a FUSE server
that does not answer."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lib import HTTP_PORT, KO_DIR, PORT, connect, drop_totals, insmod, ip, loaded, network_namespace, rmmod, sh

SECONDS = 60  # what waits for the caller does so for ever
FILES = {"kecho": "/proc/net/stat/kecho", "khttpd": "/proc/net/stat/khttpd", "drop_tcp_sock": "/proc/net/drop_tcp_sock"}
PORTS = {"kecho": PORT, "khttpd": HTTP_PORT}
# tcpprobe's are in the initial namespace alone.
PROBE = "/proc/net/stat/tcpprobe_plus"
# In the namespace that it is given, reads FILE, or writes to it, from a page that is never there; or sends that to a port.
KEPT = """
import ctypes, fcntl, mmap, os, socket, struct, sys
path, netns = sys.argv[1:]
libc = ctypes.CDLL(None)
home = os.open("/proc/self/ns/net", os.O_RDONLY)
if netns:
    with open("/run/netns/" + netns) as f:
        assert libc.setns(f.fileno(), 0) == 0
write = not path.startswith("/proc/net/stat")
if path.isdigit():
    file = socket.create_connection(("127.0.0.1", int(path))).detach()
else:
    file = os.open(path.replace("/proc/net", "/proc/thread-self/net"), os.O_WRONLY if write else os.O_RDONLY)
assert libc.setns(home, 0) == 0  # of the namespace it has but the file
page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
faults = libc.syscall(323, os.O_CLOEXEC)
assert faults >= 0
fcntl.ioctl(faults, 0xC018AA3F, struct.pack("QQQ", 0xAA, 0, 0))
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
fcntl.ioctl(faults, 0xC020AA00, bytearray(struct.pack("QQQQ", address, mmap.PAGESIZE, 1, 0)))
print("now", flush=True)
(os.writev if write else os.readv)(file, [memoryview(page)])
print("not kept", flush=True)
"""


@contextlib.contextmanager
def kept(path, netns=""):
    """Somebody who is in a call on the file, or who sends to the port."""
    with subprocess.Popen([sys.executable, "-c", KEPT, path, netns], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "now\n"
            until(lambda: "userfault" in where(process), "not in the call")
            yield process
        finally:
            process.kill()
            assert process.stdout.read() == ""


def where(process):
    """The functions of the kernel's that it waits in; 5.10 tells some by one of these files alone."""
    return "".join(Path(f"/proc/{process.pid}/{name}").read_text() for name in ("wchan", "stack") if Path(f"/proc/{process.pid}/{name}").exists())


def ended(process, holder=None):
    """Its status; who does not end in time is killed, behind who may hold him up."""
    try:
        return process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        if holder:
            holder.kill()
        process.kill()
        return "not ended"


def until(true, what):
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.1)


@pytest.mark.parametrize("module", FILES)
def test_other_namespaces_go(module):
    """The one that the file is in stays until the call is over, and goes then; those that come and go meanwhile are not held up."""
    with network_namespace("kept"), network_namespace("other"):
        for netns in ("kept", "other"):
            ip(f"link add {netns}0 type veth peer name eth0 netns {netns}")  # which goes with it
        insmod(KO_DIR / f"{module}.ko", netns="kept")
        try:
            with kept(FILES[module], "kept"):
                for netns in ("kept", "other"):
                    sh("ip", "netns", "del", netns)
                until(lambda: not there("other0"), "the other namespace does not go")
                assert there("kept0")
            until(lambda: not there("kept0"), "the namespace does not go")
        finally:
            rmmod(module)


def there(device):
    return sh("ip", "link", "show", device, check=False).returncode == 0


@pytest.mark.parametrize("module", [*FILES, "tcpprobe"])
def test_namespaces_are_made_while_unloading_waits(module):
    """Of the namespaces' own operations none waits for the caller: rmmod does, before. Nobody is served meanwhile."""
    insmod(KO_DIR / f"{module}.ko")
    port = PORTS.get(module)
    client = connect(port=port) if port else None
    with client or contextlib.nullcontext(), kept(FILES.get(module, PROBE)) as process, subprocess.Popen(["rmmod", module]) as unloading:
        until(lambda: "proc_" in where(unloading), "not waiting")
        try:
            if port:
                with pytest.raises(ConnectionRefusedError):
                    connect(port=port)
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
            with subprocess.Popen(["unshare", "-n", "true"]) as made:
                assert ended(made) == 0
            assert unloading.poll() is None
        finally:
            process.kill()
        assert ended(unloading) == 0
    assert not loaded(module)


def counted():
    """What drop_tcp_sock has, but for what is none."""
    return {name: value for name, value in drop_totals().items() if value and name != "version"}


def dropping():
    """Somebody who may be killed, and writes what he is sent to drop_tcp_sock."""
    return subprocess.Popen(["tee", FILES["drop_tcp_sock"]], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


@pytest.mark.parametrize("by", ["pair", "selector"])
def test_a_socket_that_its_owner_keeps_locked(unloaded, by):
    """As one who is in send() does: it is passed by, and neither who drops it, nor the next line, nor unloading waits for him."""
    insmod(KO_DIR / "drop_tcp_sock.ko")
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        server = "127.0.0.1:%d" % listener.getsockname()[1]
        clients = [stack.enter_context(socket.create_connection(listener.getsockname()))]
        stack.enter_context(listener.accept()[0])
        with kept(server.split(":")[1]) as holder:
            served, (_, port) = listener.accept()
            stack.enter_context(served)
            clients.append(stack.enter_context(socket.create_connection(listener.getsockname())))
            lines = [f"127.0.0.1:{port} {server}"] + [f"127.0.0.1:{client.getsockname()[1]} {server}" for client in clients]
            with dropping() as writer:
                writer.stdin.write("\n".join([*lines, ""]) if by == "pair" else f"127.0.0.1:* {server} established\n")
                writer.stdin.close()
                assert ended(writer, holder) == 0
            assert counted() == {"dropped": 2, "dropped_established": 2, **({"requested": 3, "not_found": 1} if by == "pair" else {"requested": 1})}
            for client in clients:
                with pytest.raises(ConnectionAbortedError):
                    client.recv(1)
            with subprocess.Popen(["rmmod", "drop_tcp_sock"]) as unloading:
                assert ended(unloading, holder) == 0
            served.settimeout(0.1)
            with pytest.raises(TimeoutError):
                served.recv(1)


def test_who_waits_for_a_locked_socket_can_be_killed(unloaded):
    insmod(KO_DIR / "drop_tcp_sock.ko")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with kept(str(port)) as holder, dropping() as writer:
            writer.stdin.write(f"127.0.0.1:* 127.0.0.1:{port} established\n" * 1000)
            writer.stdin.flush()
            until(lambda: "drop_sockets" in where(writer), "not dropping")
            writer.kill()
            assert ended(writer, holder) == -signal.SIGKILL
            assert counted().get("dropped", 0) == 0
