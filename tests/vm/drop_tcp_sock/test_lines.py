# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves what may be written, in which pieces, and what the writer is told."""

import errno
import os
import random
import socket
import threading
import time

import pytest
from lib import meminfo, scaled, sh
from sockets import FILE, Pair, gained, key_of, line_of, time_wait, time_waits, totals, wait_for, walk, write


def fails(data):
    with pytest.raises(OSError) as err:
        write(data)
    return err.value.errno


# --- what the original's README says to type ---

SUDO = "command -v sudo >/dev/null || sudo() { \"$@\"; }\n"
ECHO = 'echo "127.0.0.1:36986 127.0.0.1:12345" | sudo tee /proc/net/drop_tcp_sock'
PIPE = """netstat -n | grep WAIT | grep 12345 | awk '{print $4" "$5}' | sudo tee /proc/net/drop_tcp_sock"""


@pytest.mark.smoke
def test_readme_echo():
    """The first of the original's two commands, word for word."""
    with socket.create_server(("127.0.0.1", 12345)) as listener, socket.socket() as s:
        s.bind(("127.0.0.1", 36986))
        s.connect(("127.0.0.1", 12345))
        served = listener.accept()[0]
        before = totals()
        done = sh("bash", "-c", SUDO + ECHO)
        assert done.stdout == "127.0.0.1:36986 127.0.0.1:12345\n"
        assert gained(before) == {"requested": 1, "dropped": 1, "dropped_established": 1}
        with pytest.raises(ConnectionAbortedError):
            s.recv(1)
        served.close()


def many_time_wait(host, count, port=12345):
    with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
        for _ in range(count):
            with socket.create_connection((host, port)) as c:
                served = s.accept()[0]
                c.close()
                assert served.recv(1) == b""  # or both would send their FINs first, and wait
                served.close()
    wait_for(lambda: sum(e.state == "time_wait" and e.remote_port == port for e in walk()) == count)


@pytest.mark.smoke
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_readme_netstat(host):
    """The second, with 50 sockets in TIME-WAIT."""
    many_time_wait(host, 50)
    before = totals()
    sh("bash", "-c", SUDO + PIPE)
    assert gained(before) == {"requested": 50, "dropped": 50, "dropped_time_wait": 50}
    assert not any(e.remote_port == 12345 for e in walk())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_ss(host):
    """A listener on that port is among what ss prints, and stays."""
    with Pair(host) as pair:
        before = totals()
        sh("bash", "-c", f"ss -tan | grep -w {pair.port} | awk '{{print $4,$5}}' >{FILE}")
        after = gained(before)
        assert after["requested"] == 3 and after["skipped_listener"] == 1
        assert after["dropped"] == 1 or after["dropped"] == 2  # the peer goes by the RST, or by its own line
        assert after["dropped"] + after.get("not_found", 0) == 2


def test_ss_whole():
    """Everything that ss lists, headers included: no listener is taken down, also with its state as third word."""
    with Pair() as a, Pair("::1") as b:
        mine = {a.port, b.port}
        for columns in ("$4,$5", "$4,$5,$1"):
            lines = [line for line in sh("bash", "-c", f"ss -tan | awk '{{print {columns}}}'").stdout.splitlines()
                     if any(f":{p}" in line for p in mine) or "Local" in line]
            write("\n".join(lines) + "\n")
        assert {e.state for e in walk() if e.local_port in mine} == {"listening"}
        assert totals()["malformed"] == 2 and totals()["skipped_listener"] >= 4


@pytest.mark.smoke
def test_ss_of_a_listener_on_all_addresses():
    """ss prints it as "*:PORT *:*", which is no pattern for the connections to it."""
    with Pair("::1", listener_host="::") as six, Pair("127.0.0.1", listener_host="::") as four:
        for pair in (six, four):
            lines = [" ".join(line.split()[3:5]) for line in sh("ss", "-Htln").stdout.splitlines()
                     if f":{pair.port} " in line]
            assert lines == [f"*:{pair.port} *:*"]
            before = totals()
            write(lines[0] + "\n")
            assert gained(before) == {"requested": 1, "skipped_listener": 1}
            pair.client.sendall(b"!")
            assert pair.served.recv(1) == b"!"
            before = totals()
            write(lines[0] + " connected\n")
            assert gained(before)["dropped_established"] in (1, 2)  # clients too where the ports are theirs
            with pytest.raises(ConnectionAbortedError):
                pair.served.recv(1)


def test_nothing_is_carried_out_of_a_refused_write():
    """A line cut short by the end of a write that was refused is not a line: the writer may give up there."""
    with Pair() as pair:
        key = key_of(pair.client)
        fd = os.open(FILE, os.O_WRONLY)
        with pytest.raises(OSError) as err:
            os.write(fd, b"State Recv-Q\n" + line_of(key).encode())
        assert err.value.errno == errno.EINVAL
        os.close(fd)
        assert gained() == {"malformed": 2}
        pair.client.sendall(b"!")
        assert pair.served.recv(1) == b"!"


# --- pieces ---


def test_split_at_every_byte():
    """A line in two writes to one open file, split anywhere; before the newline and after it too."""
    key = time_wait()
    length = len(line_of(key)) + 1
    for at in range(length + 1):
        key = time_wait()
        line = (line_of(key) + "\n").encode().rjust(length)
        before = totals()
        fd = os.open(FILE, os.O_WRONLY)
        for part in (line[:at], line[at:]):
            assert os.write(fd, part) == len(part)
        os.close(fd)
        assert gained(before) == {"requested": 1, "dropped": 1, "dropped_time_wait": 1}, at


def test_byte_by_byte_many_lines():
    keys = time_waits(20)
    fd = os.open(FILE, os.O_WRONLY)
    for byte in "".join(line_of(k) + "\n" for k in keys).encode():
        os.write(fd, bytes([byte]))
    os.close(fd)
    assert totals()["dropped_time_wait"] == 20


def test_no_last_newline():
    """Carried out when the file is closed, not before."""
    key = time_wait()
    fd = os.open(FILE, os.O_WRONLY)
    os.write(fd, line_of(key).encode())
    assert totals()["requested"] == 0
    os.close(fd)
    assert totals()["dropped_time_wait"] == 1


@pytest.mark.parametrize("change", [
    lambda line: line + "\r\n", lambda line: "  " + line.replace(" ", " \t ") + "\t \n",
    lambda line: "\n\r\n" + line + "\n\n", lambda line: line + "\r", lambda line: line + " Time_Wait\n",
    lambda line: line + " bucket\r\n",
])
def test_white_space_and_words(change):
    write(change(line_of(time_wait())))
    assert gained() == {"requested": 1, "dropped": 1, "dropped_time_wait": 1}


def test_blank_lines_ask_for_nothing():
    write("\n \n\t\n\r\n")
    assert gained() == {}


# --- selectors ---


@pytest.mark.parametrize("line,found", [
    ("*:* 127.0.0.1:{}", True), ("127.0.0.1:* 127.0.0.1:{} time-wait", True), ("*:* *:{} time-wait", True),
    ("127.0.0.0/8:* 127.0.0.0/8:{}", True), ("127.0.0.0/9:* 127.1.2.3/8:{}", True), ("0.0.0.0/0:* *:{}", True),
    ("127.0.0.1/32:* *:{}", True), ("127.64.0.0/9:* *:{}", True), ("[::ffff:127.0.0.0]/104:* *:{}", True), ("[::ffff:127.0.0.0/104]:* *:{}", True),
    ("*:* 127.0.0.2:{}", False), ("128.0.0.0/8:* *:{}", False), ("127.128.0.0/9:* *:{}", False),
    ("*:* *:{} established", False), ("[::]/0:* *:{}", False), ("::/0:* *:{}", False), ("[::1]:* *:{}", False),
    ("*%lo:* *:{}", False), ("*:9 *:{}", False),
])
def test_selectors(line, found):
    key = time_wait()
    write(line.format(key[3]) + "\n")
    expected = {"requested": 1, "dropped": 1, "dropped_time_wait": 1} if found else {"requested": 1, "not_found": 1}
    assert gained() == expected


def test_everything_of_a_port():
    """One line, a thousand sockets."""
    count = scaled(1000, 5)
    many_time_wait("127.0.0.1", count)
    write("*:* 127.0.0.1:12345 time-wait\n")
    assert gained() == {"requested": 1, "dropped": count, "dropped_time_wait": count}


# --- nonsense ---

BAD = [
    "garbage", "127.0.0.1:1", "127.0.0.1:1 127.0.0.1:2 established 4", "127.0.0.1 127.0.0.1:2", "127.0.0.1: 1.1.1.1:1",
    "127.0.0.1:65536 127.0.0.1:1", "127.0.0.1:99999999999999999999 127.0.0.1:1", "127.0.0.1:-1 127.0.0.1:1",
    "127.0.0.1:+1 127.0.0.1:1", "127.0.0.1:0x10 127.0.0.1:1", "127.0.0.1:http 127.0.0.1:1", "127.0.0:1 127.0.0.1:1",
    "127.0.0.1.1:1 127.0.0.1:1", "256.0.0.1:1 127.0.0.1:1", "127.0.0.1:1 ::1:1", "[::1:1 [::1]:1", "[::1]1:1 [::1]:1",
    "[::1]:1 [::g]:1", "[1.2.3.4]:1 *:1", "[*]:1 *:1", "[*%lo]:1 *:1", "[1:2:3:4:5:6:7:8:9]:1 *:1", ":1 *:1", "[]:1 *:1", "127.0.0.1/33:1 *:1", "::1/129:1 *:1",
    "127.0.0.1/:1 *:1", "127.0.0.1/8/8:1 *:1", "*/8:1 *:1", "::ffff:1.2.3.4/90:1 *:1", "127.0.0.1%:1 *:1",
    "127.0.0.1%sixteencharacter:1 *:1", "127.0.0.1%lo:1 127.0.0.1%eth0:1", "*:* *:* nonsense", "*:* *:* -",
    "*:* *:* establishedestablished", "*:* *:* close" + 24 * "-" + "wait", "127.0.0.1:1\x00 127.0.0.1:1", "127.0.0.1\x00:1 127.0.0.1:1",
    "\x00", "\xff\xfe", "127.0.0.1:1 127.0.0.1:1 \x00", " " * 257,
    # What the kernel's in4_pton() and in6_pton() take, and inet_aton() reads as octal or nobody else takes.
    "127.0.0.01:1 *:1", "127.0.0.001:1 *:1", "0177.0.0.1:1 *:1", "00.0.0.0:1 *:1", "[::ffff:127.0.0.01]:1 *:1", "[00001::1]:1 *:1",
    "[::00000001]:1 *:1", "000000000000127.0.0.1:1 *:1",
]


@pytest.mark.parametrize("line", BAD, ids=range(len(BAD)))
def test_malformed(line, klog):
    assert fails(line.encode("latin-1") + b"\n") == errno.EINVAL
    assert gained() == {"malformed": 1}
    said = klog.lines()
    assert len(said) == 1 and "line 1 is malformed" in said[0]


def test_last_malformed_is_escaped(klog):
    assert fails(b'one\n"two\\\x00\x01\xff\x1b[31m\n') == errno.EINVAL
    escaped = r'\x22two\x5c\x00\x01\xff\x1b[31m'
    assert totals()["last_malformed"] == f'"{escaped}"'
    assert escaped in klog.lines()[1].replace(r"\x5c", "\\")  # which the log itself escapes once more


def test_longest_line():
    """256 bytes are a line, 257 are not, unless the last one is a carriage return."""
    lines = [line_of(key) for key in time_waits(3)]
    write(lines[0].ljust(256) + "\n")
    write(lines[1].ljust(256) + "\r\n")
    assert totals()["dropped"] == 2
    for n, end in enumerate(("\n", "\r\n", "\r\r\n")):
        assert fails(lines[2].ljust(257 - (end == "\r\r\n")) + end) == errno.EINVAL
        assert totals()["malformed"] == n + 1
    with FILE.open("w") as f:
        f.write(lines[2].ljust(256) + "\r")
        f.flush()
        f.write("\n")
    assert totals()["dropped"] == 3


def test_bad_line_among_good_ones(klog):
    """1,000 are dropped, before it and after it; one is counted and logged."""
    count = scaled(1000, 5)
    many_time_wait("127.0.0.1", count)
    lines = [line_of(e) for e in walk() if e.remote_port == 12345 and e.state == "time_wait"]
    assert len(lines) == count
    lines.insert(count // 2, "2001:db8:1234:5678:9 nonsense")
    write("\n".join(lines) + "\n")
    assert gained() == {
        "requested": count, "dropped": count, "dropped_time_wait": count, "malformed": 1}
    said = klog.lines()
    assert len(said) == 1 and f"line {count // 2 + 1} is malformed" in said[0]


def test_einval_only_as_long_as_nothing_was_right():
    fd = os.open(FILE, os.O_WRONLY)
    with pytest.raises(OSError) as err:
        os.write(fd, b"bad\n")
    assert err.value.errno == errno.EINVAL
    assert os.write(fd, b"half of a ") == 10  # completes no line
    with pytest.raises(OSError):
        os.write(fd, b"line\n")
    assert os.write(fd, b"1.1.1.1:1 1.1.1.1:1\n") == 20
    assert os.write(fd, b"bad again\n") == 10
    os.close(fd)
    assert gained() == {"requested": 1, "not_found": 1, "malformed": 3}


GARBAGE = {
    "random": lambda: random.Random(1).randbytes(1 << 20),
    "NUL": lambda: bytes(1 << 20) + b"\n",
    "no newline": lambda: b"x" * (1 << 20),
    "short lines": lambda: b"\0\n" * (1 << 19),
    "digits": lambda: (b"9" * 250 + b":" + b"9" * 250 + b"\n") * 2000,
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage(kind, klog):
    """EINVAL if a line was completed; nothing dropped; the log is not flooded."""
    data = GARBAGE[kind]()
    began = time.monotonic()
    if b"\n" in data:
        assert fails(data) == errno.EINVAL
    else:
        assert write(data) == len(data)
    after = totals()
    blank = sum(not line.strip(b" \t\r") and len(line.removesuffix(b"\r")) <= 256 for line in data.split(b"\n")[:-1])
    rest = 1 if data.split(b"\n")[-1] else 0
    assert after["malformed"] == data.count(b"\n") - blank + rest and after["requested"] == 0
    # Ten lines in five seconds is what the kernel's rate limit lets through.
    assert len(klog.lines()) <= 15 + 2 * (time.monotonic() - began)


def test_ten_megabyte_line():
    """Kept in constant memory, refused at its end, and the line after it is carried out."""
    key = time_wait()
    lowest, done = [meminfo("MemAvailable")], threading.Event()

    def sample():
        while not done.wait(0.02):
            lowest[0] = min(lowest[0], meminfo("MemAvailable"))

    data = b"1" * (10 << 20)
    before = meminfo("MemAvailable")
    sampler = threading.Thread(target=sample)
    sampler.start()
    fd = os.open(FILE, os.O_WRONLY)
    assert os.write(fd, data) == len(data)
    with pytest.raises(OSError) as err:
        os.write(fd, b"\n")
    assert err.value.errno == errno.EINVAL
    os.write(fd, line_of(key).encode() + b"\n")
    os.close(fd)
    done.set()
    sampler.join()
    assert gained() == {
        "requested": 1, "dropped": 1, "dropped_time_wait": 1, "malformed": 1}
    assert totals()["last_malformed"] == f'"{"1" * 256}"'
    assert before - lowest[0] < 8 << 20  # the rest of the machine takes some


def test_bad_address_of_the_buffer():
    """A write from memory that is not there fails with EFAULT, and the file goes on working."""
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(FILE, os.O_WRONLY)
    assert libc.write(fd, ctypes.c_void_p(8), ctypes.c_size_t(100)) == -1
    assert ctypes.get_errno() == errno.EFAULT
    os.write(fd, line_of(time_wait()).encode() + b"\n")
    os.close(fd)
    assert totals()["dropped"] == 1


def test_reading_in_pieces_gives_the_same():
    text = FILE.read_bytes()
    fd = os.open(FILE, os.O_RDONLY)
    assert b"".join(iter(lambda: os.read(fd, 7), b"")) == text
    os.lseek(fd, 0, os.SEEK_SET)
    assert os.read(fd, 1 << 16) == text
    os.close(fd)


def test_open_for_reading_and_writing_shows_its_own_counts():
    write("1.1.1.1:1 1.1.1.1:1\n")
    fd = os.open(FILE, os.O_RDWR)
    os.write(fd, line_of(time_wait()).encode() + b"\n")
    own = totals(os.pread(fd, 1 << 16, 0).decode())
    os.close(fd)
    assert own["requested"] == 2 and own["not_found"] == 1
    assert (own["file_requested"], own["file_dropped"], own["file_dropped_time_wait"], own["file_not_found"]) == (1, 1, 1, 0)


def test_key_of_is_what_the_kernel_lists():
    with Pair() as pair:
        assert (*key_of(pair.client), "established") in walk()
