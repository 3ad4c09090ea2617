# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves who may, and what happens when namespaces and the module itself go."""

import array
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from lib import KO_DIR, UNLOAD_MAX, insmod, loaded, network_namespace, rmmod, scaled, sh
from sockets import FILE, Pair, gained, key_of, line_of, time_wait, time_waits, totals, wait_for, write

NOBODY = 65534


def as_nobody(function):
    """Runs it in a child without privileges; what it returned, or the errno it raised."""
    r, w = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(r)
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            said = str(function())
        except OSError as err:
            said = errno.errorcode[err.errno]
        os.write(w, said.encode())
        os._exit(0)
    os.close(w)
    said = os.read(r, 1000).decode()
    os.close(r)
    os.waitpid(pid, 0)
    return said


@pytest.mark.parametrize("who", ["a process of the same user", "a process of another user", "the kernel, which nobody can reach"])
def test_who_closes_it_last(who):
    """The end of the file carries out a last line without newline, unless who is kept for as long as that takes never asked for it."""
    with Pair() as pair:
        fd = os.open(FILE, os.O_WRONLY)
        os.write(fd, line_of(key_of(pair.client)).encode())
        r, w = os.pipe()
        ends = socket.socketpair()
        pid = os.fork()
        if not pid:
            os.close(w)
            if "same" not in who:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os.read(r, 1)  # until nobody else has any of them
            os._exit(0)
        if "kernel" in who:  # in a queue that only what is in it refers to
            ends[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd, ends[1].fileno()]))])
        os.close(fd)
        for end in ends:
            end.close()
        os.close(r)
        os.close(w)
        os.waitpid(pid, 0)
        if "same" in who:
            assert gained() == {"requested": 1, "dropped": 1, "dropped_established": 1}
            return
        wait_for(lambda: totals()["malformed"])
        assert gained() == {"malformed": 1}
        pair.client.sendall(b"alive")
        assert pair.served.recv(5) == b"alive"


def test_mode():
    status = FILE.stat()
    assert status.st_mode & 0o7777 == 0o600 and (status.st_uid, status.st_gid) == (0, 0)


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_nobody_may_not_open(flags):
    assert as_nobody(lambda: os.open(FILE, flags)) == "EACCES"


def test_the_mode_is_not_all_that_protects_it():
    """Also if somebody makes it writable: it takes CAP_NET_ADMIN."""
    FILE.chmod(0o666)
    assert as_nobody(lambda: os.open(FILE, os.O_WRONLY)) == "EPERM"
    assert as_nobody(lambda: os.open(FILE, os.O_RDONLY)) == "EPERM"


def test_root_without_the_capability():
    done = sh("capsh", "--drop=cap_net_admin", "--", "-c", f"echo '1.1.1.1:1 1.1.1.1:1' >{FILE}", check=False)
    assert done.returncode and "Operation not permitted" in done.stderr
    assert totals()["requested"] == 0


def test_opened_by_root_written_by_nobody():
    """The opener's right counts: the descriptor was handed on in his name."""
    key = time_wait()
    fd = os.open(FILE, os.O_WRONLY)
    assert as_nobody(lambda: os.write(fd, line_of(key).encode() + b"\n")) == str(len(line_of(key)) + 1)
    os.close(fd)
    assert totals()["dropped_time_wait"] == 1


def test_root_of_a_user_namespace():
    """There root is nobody to our sockets, but master of those in a network namespace of its own."""
    with Pair() as pair:
        line = line_of(key_of(pair.client))
        done = sh("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "-Ur",
                  "bash", "-c", f"echo {line} >{FILE}", check=False)
        assert done.returncode and "Permission denied" in done.stderr
        # The kernel takes a file's owner from the user namespace, which must know its root by then.
        done = sh("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "unshare", "-Ur",
                  "unshare", "-n", "bash", "-c", f"echo {line} >{FILE} && cat {FILE}", check=False)
        assert done.returncode == 0, done.stderr
        inner = totals(done.stdout)
        assert (inner["requested"], inner["not_found"]) == (1, 1)
        assert totals()["requested"] == 0
        pair.client.sendall(b"!")
        assert pair.served.recv(1) == b"!"


# --- together ---


def test_two_writers_and_traffic(survivors):
    """Each socket is counted once, though both writers name all of them, while readers read."""
    count = scaled(100, 2)
    keys = time_waits(count)
    data = "".join(line_of(k) + "\n" for k in keys).encode()
    stop = threading.Event()
    wrong = []

    def reader():
        while not stop.is_set():
            seen = totals()
            if sum(v for k, v in seen.items() if k.startswith("dropped_")) != seen["dropped"]:
                wrong.append(seen)
            if seen["dropped"] + seen["not_found"] != seen["requested"]:
                wrong.append(seen)

    def traffic():
        with Pair() as pair:
            while not stop.is_set():
                pair.client.sendall(bytes(10000))
                got = 0
                while got < 10000:
                    got += len(pair.served.recv(10000))

    others = [threading.Thread(target=f) for f in (reader, traffic)]
    code = f"import os,sys; d=sys.stdin.buffer.read(); f=os.open('{FILE}',1); sys.stdin.close(); os.write(f,d)"
    writers = [subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE) for _ in range(2)]
    for thread in others:
        thread.start()
    for w in writers:
        w.stdin.write(data)
    for w in writers:
        w.stdin.close()
    assert [w.wait() for w in writers] == [0, 0]
    stop.set()
    for thread in others:
        thread.join()
    assert not wrong
    assert gained() == {"requested": 2 * count, "dropped": count, "not_found": count,
                                               "dropped_time_wait": count}


# --- the end ---


HOLDER = f"""
import os, ctypes
libc = ctypes.CDLL(None)
here, there = os.open('/proc/self/ns/net', 0), os.open('/run/netns/gone', 0)
libc.setns(there, 0x40000000)
os.close(there)
fd = os.open('{FILE}', os.O_RDWR)
libc.setns(here, 0x40000000)
print('open', flush=True)
input()
os.write(fd, b'1.1.1.1:1 1.1.1.1:1' + bytes([10]) + b'1.1.1.1:1 2.2.2.2:2')
print(os.pread(fd, 5000, 0).count(b'not_found 1'), flush=True)
"""


def test_namespace_goes_while_the_file_is_open():
    """The open file keeps it, works, and lets it go: the far end of a wire into it is gone then."""
    sh("ip", "netns", "add", "gone")
    sh("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", "gone")
    holder = subprocess.Popen([sys.executable, "-S", "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "open\n"
    sh("ip", "netns", "del", "gone")
    time.sleep(1)
    assert Path("/sys/class/net/near").exists()
    assert holder.communicate("\n", timeout=60)[0] == "2\n"  # the namespace's, and the file's own
    assert holder.returncode == 0
    wait_for(lambda: not Path("/sys/class/net/near").exists(), 60)


def test_namespaces_come_and_go():
    for _ in range(scaled(8, 2)):
        with network_namespace("brief"):
            sh("bash", "-c", f"echo '*:* *:*' >{FILE}", netns="brief")
    assert totals()["requested"] == 0


def test_rmmod_with_the_file_open():
    fd = os.open(FILE, os.O_RDWR)
    os.write(fd, b"1.1.1.1:1 1.1.1.1")
    rmmod("drop_tcp_sock")
    for call in (lambda: os.write(fd, b":1\n"), lambda: os.pread(fd, 10, 0)):
        with pytest.raises(OSError) as err:
            call()
        assert err.value.errno == errno.EIO
    os.close(fd)
    assert not FILE.exists()


@pytest.mark.parametrize("line", [b"1.1.1.1:1 1.1.1.1:1\n", b"*:* 9.9.9.9:9\n"])
def test_rmmod_in_the_middle_of_a_write(line):
    """Long writes, of which one is carried out and one waits for its turn: rmmod does not wait for them."""
    code = (f"import os; d = {line!r} * 400000; f = os.open('{FILE}', 1); print('go', flush=True)\n"
            "try: print(os.write(f, d) < len(d))\n"
            "except OSError as err: print(err.errno)")
    for _ in range(scaled(3, 2)):
        if not loaded("drop_tcp_sock"):
            insmod(KO_DIR / "drop_tcp_sock.ko")
        writers = [subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert all(w.stdout.readline() == "go\n" for w in writers)
        wait_for(lambda: totals()["requested"])
        began = time.monotonic()
        rmmod("drop_tcp_sock")
        # The writes go on for half a minute otherwise; a machine that is busy elsewhere takes its time.
        assert time.monotonic() - began < 5 * UNLOAD_MAX
        assert {w.communicate(timeout=60)[0] for w in writers} <= {"True\n", f"{errno.EIO}\n"}


def test_a_write_can_be_interrupted():
    """A signal ends a long write after a line: what was done is told, and the rest may be written again."""
    line = b"*:* 9.9.9.9:9\n"
    code = (f"import os, signal; d = {line!r} * 4000000; f = os.open('{FILE}', 1)\n"
            "signal.signal(signal.SIGUSR1, lambda *_: None); print('go', flush=True)\n"
            "print(os.write(f, d))")
    writer = subprocess.Popen([sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, text=True)
    writer.stdout.readline()
    wait_for(lambda: totals()["requested"] > 10)
    writer.send_signal(signal.SIGUSR1)
    written = int(writer.communicate(timeout=60)[0])
    assert 0 < written < len(line) * 4000000
    assert written == totals()["requested"] * len(line)


UFFD_CODE = """
import ctypes, fcntl, mmap, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
uffd = libc.syscall(323, 0)
assert uffd >= 0, os.strerror(ctypes.get_errno())
fcntl.ioctl(uffd, 0xc018aa3f, bytearray(struct.pack("QQQ", 0xaa, 0, 0)))
libc.mmap.restype = ctypes.c_void_p
page = libc.mmap(None, ctypes.c_size_t(4096), 3, 0x22, -1, 0)
fcntl.ioctl(uffd, 0xc020aa00, bytearray(struct.pack("QQQQ", page, 4096, 1, 0)))
print("go", flush=True)
libc.write(os.open("/proc/net/drop_tcp_sock", 1), ctypes.c_void_p(page), ctypes.c_size_t(4096))
"""


def test_rmmod_with_a_writer_blocked():
    """One that waits for its own memory, for good: rmmod waits for it, and is done once it is killed."""
    writer = subprocess.Popen([sys.executable, "-S", "-c", UFFD_CODE], stdout=subprocess.PIPE, text=True)
    if writer.stdout.readline() != "go\n":
        writer.wait()
        pytest.skip("this kernel has no userfaultfd")
    wait_for(lambda: "handle_userfault" in Path(f"/proc/{writer.pid}/stack").read_text())
    remover = subprocess.Popen(["rmmod", "drop_tcp_sock"])
    time.sleep(1)
    assert writer.poll() is None and remover.poll() is None
    writer.kill()
    assert remover.wait(timeout=60) == 0
    writer.wait()


def test_load_and_unload():
    for _ in range(scaled(20, 4)):
        rmmod("drop_tcp_sock")
        insmod(KO_DIR / "drop_tcp_sock.ko")
    write(line_of(time_wait()) + "\n")
    assert totals()["dropped"] == 1
