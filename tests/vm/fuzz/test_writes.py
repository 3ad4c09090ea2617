# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that whatever is written to the suite's files does what it says or nothing: random and mutated lines for
/proc/net/drop_tcp_sock, random values for each parameter and sysctl, at load and later. SEED says where chance begins, TIME how long."""

import contextlib
import errno
import os
import random
import re
import socket
import time
from pathlib import Path

import pytest
from lib import KO_DIR, MODULES, PORT, TOP, connections, insmod, loaded, rmmod, scaled, settings

pytestmark = pytest.mark.usefixtures("unloaded")

SEED = int(os.environ.get("SEED") or 1)
TIME = int(os.environ.get("TIME") or 0)
FILE = "/proc/net/drop_tcp_sock"
SEEDS = [b"192.0.2.1:80 192.0.2.2:4000\n", b"192.0.2.1:80\t192.0.2.2:4000 time-wait\n", b"2001:db8::1:80 2001:db8::2:81\n",
         b"[2001:db8::1]:80 [2001:db8::2]:81 established\n", b"tcp 0 0 192.0.2.7:22 192.0.2.9:55000 ESTABLISHED\n",
         b"ESTAB 0 0 192.0.2.7%eth0:22 192.0.2.9:55000\n", b"# a comment\n", b"\n", b"192.0.2.1:80 192.0.2.2:65536\r\n",
         b"[2001:db8::/32]:* [2001:db8::]/33:81 time-wait\n", b"2001:db8::/32:80 [::/0]:* connected\n", b"[fe80::/10]%lo:* [fe80::]/10:* established\n"]
# None may name the sockets which have to survive: of these bytes no pattern comes, and those above are of IPv6, both ends.
BYTES = bytes(b for b in range(256) if b not in b"*/")


def mutated(rng, line):
    line = bytearray(line)
    for _ in range(rng.choice((0, 1, 1, 3, 10))):
        at = rng.randrange(len(line) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            line[at:at] = bytes(rng.choices(BYTES, k=rng.choice((1, 2, 50, 600))))
        elif kind == 1:
            del line[at:at + rng.randrange(1, 5)]
        elif kind == 2:
            line[at:at] = line[at:at + 20]
        else:
            line[at:at] = rng.choice((b"4294967296", b"%", b"[", b"]", b":", b"::", b".", b" ", b"\n", b"\0", b"-1", b"listening"))
    return bytes(line)


# Ways to name the end of a connection that asked, by its own port, or the end that served it by both.
NAMED = ("{a} {b}", "{a}\t{b}", "  {a} {b} ESTABLISHED", "{a} {b} ESTAB", "{a} {b} established", "{a} {b} connected\r", "{b} {a}",
         "{b} {a} synchronized", "*:{port} *:*  established", "127.0.0.0/8:{port} {b}", "{a} *:*  connected", "*:* {a}", "[::ffff:127.0.0.1]:{port} {b}",
         "{a} 127.0.0.1/32:*", "0.0.0.0/0:{port} 0.0.0.0/0:*", "::ffff:127.0.0.1:{port} {b}", "*:{port} 127.0.0.1:*")
# And not to: other states, other ends, no pattern at all.
NOT_NAMED = ("{a} {b} time-wait", "{a} {b} bucket", "{a} {b} syn-sent", "{a} {b} listening", "{a} *:*", "*:{port} *:*", "{a} 127.0.0.2:*", "127.0.0.2:{port} {b}",
             "::/0:{port} ::/0:*", "{a} 10.0.0.0/8:*", "[::1]:{port} *:* connected", "{a}%lo {b}", "*:{port} *:* fin-wait-1",
             "ESTAB 0 0 {a} {b}", "tcp 0 0 {a} {b} ESTABLISHED")


def line_for(rng, forms, asked, listener):
    a, b = ("%s:%d" % address for address in (asked.getsockname(), listener))
    return f"\n{rng.choice(forms)}\n".format(a=a, b=b, port=asked.getsockname()[1]).encode()


def ended(s):
    """Whether a connection is, whose peer sends nothing."""
    try:
        s.sendall(b"x")
    except ConnectionError:
        return True
    return False


def test_drop_lines():
    """Who is not named survives, whatever else is said; who is named goes."""
    rng = random.Random(SEED)
    insmod(KO_DIR / "drop_tcp_sock.ko")
    # What earlier tests left, in TIME-WAIT for one, may have a port that is given again, and be named by it.
    Path(FILE).write_text("*:* *:*\n", encoding="ascii")
    rmmod("drop_tcp_sock")
    insmod(KO_DIR / "drop_tcp_sock.ko")
    end = time.monotonic() + TIME
    writes = refused = 0
    victims = scaled(200, 4, small=2)
    named = []
    with connections(10 + victims) as (asked, served, listener):
        while writes < scaled(3000, 10, small=3) or time.monotonic() < end:
            fd = os.open(FILE, os.O_WRONLY)
            try:
                for _ in range(rng.randrange(1, 5)):
                    text = b"".join(mutated(rng, rng.choice(SEEDS)) for _ in range(rng.choice((1, 2, 30))))
                    text = text[:rng.randrange(len(text) + 1)] if rng.random() < 0.3 else text
                    if rng.random() < 0.2:
                        text += line_for(rng, NOT_NAMED, rng.choice(asked[:10]), listener)
                    if len(named) < victims and rng.random() < 0.2:
                        named.append(line_for(rng, NAMED, asked[10 + len(named)], listener))
                        text += named[-1]
                    writes += 1
                    with contextlib.suppress(OSError):
                        refused += 1
                        assert os.write(fd, text) == len(text)
                        refused -= 1
            finally:
                os.close(fd)
        said = Path(FILE).read_bytes()
        assert re.fullmatch(rb"version 1\n(\w+ \d+\n)+last_malformed \"[ -~]*\"\n", said), said
        counts = {k: int(v) for k, v in re.findall(r"^(\w+) (\d+)$", said.decode(), re.M)}
        print(f"{writes} writes, {refused} refused; {counts}")
        left = [line for line, s in zip(named, asked[10:]) if not ended(s)]
        assert left == [] and counts["dropped"] == counts["dropped_established"] == len(named) > victims / 2, left
        assert 0 < counts["not_found"] <= counts["requested"] - len(named) and counts["malformed"] > 0
        assert 0 < refused < writes
        for a, b in zip(asked[:10], served):
            a.sendall(b"alive")
            assert b.recv(5) == b"alive"
        with open(FILE, "wb", buffering=0) as f:  # it still does what it is for
            f.write(("%s:%d %s:%d\n" % (*asked[0].getsockname(), *listener)).encode())
        with pytest.raises(ConnectionAbortedError):
            asked[0].send(b"x")


def values(rng):
    number = rng.choice((rng.randrange(300), rng.randrange(1 << 20), 2 ** rng.randrange(70) - rng.randrange(2), -rng.randrange(9)))
    return rng.choice((str(number), str(number), hex(max(number, 0)), f" {number} ", f"{number}\n", f"{number}x", "", " ", "\0", "9" * 5000,
                       "1 2", "0x", "+1", "1e3", "%n%s", "ä")).encode()


def documented(module):
    """The least and the largest value of each setting, by docs/."""
    rows = re.findall(r"^\| `(\w+)` \| [^|]*\| (\d+)-(\d+) \|", (TOP / "docs" / f"{module}.md").read_text(), re.M)
    return {name: (int(least), int(most)) for name, least, most in rows}


def at_bounds(rng, least, most):
    return str(rng.choice((least - 1, least, most, most + 1)))


@pytest.mark.parametrize("module", MODULES)
def test_settings(module):
    """A write is refused and changes nothing, or is what is read back. Taken is what docs/ says, and nothing else."""
    rng = random.Random(SEED)
    insmod(KO_DIR / f"{module}.ko")
    paths = settings(module)
    bounds = documented(module)
    assert bool(paths) == (module != "drop_tcp_sock")
    taken = refused = 0
    with reading(module) as drain:
        for path in paths:
            first = old = path.read_text()
            least, most = bounds[path.name]
            end = time.monotonic() + TIME / 8 / len(paths)
            n = 0
            while n < scaled(200, 10) or time.monotonic() < end:
                n += 1
                drain()
                value = rng.choice((values(rng), values(rng), at_bounds(rng, least, most).encode()))
                fd = os.open(path, os.O_WRONLY)
                try:
                    os.write(fd, value)
                    error = None
                    taken += 1
                except OSError as e:
                    error = e
                    refused += 1
                finally:
                    os.close(fd)
                new = path.read_text()
                word = value.split(b"\0")[0].split()[:1]
                if error or not word:
                    assert new == old, (path, value, old, new, error)
                else:
                    assert int(new) == int(word[0], 0) and least <= int(new) <= most, (path, value, old, new)
                if error and len(value) < 20 and value.isdigit() and least <= int(value) <= most:
                    assert error.errno == errno.ENOMEM and module == "tcpprobe" and int(value) >= 1 << 20, (path, value, error)
                assert re.fullmatch(r"\d+\n", new), (path, value, new)
                old = new
            path.write_text(first)
    print(f"{module}: {taken} values taken, {refused} refused")
    assert module == "drop_tcp_sock" or (taken and refused)


@contextlib.contextmanager
def reading(module):
    """Has tcpprobe's file open, so that its rings and tables are in use. Yields what reads all there is, so that it lets go of
    those that were replaced."""
    if module != "tcpprobe":
        yield lambda: None
        return
    fd = os.open("/proc/net/tcpprobe", os.O_RDONLY | os.O_NONBLOCK)

    def drain():
        with contextlib.suppress(BlockingIOError):
            while os.read(fd, 1 << 16):
                pass

    try:
        yield drain
    finally:
        os.close(fd)


LISTENABLE = ("::", "::1", "::ffff:127.0.0.1", "::127.0.0.1", "0:0:0:0:0:0:0:1", "0::0.0.0.1", "127.0.0.1", "127.255.0.255", "0.0.0.0", "192.0.2.1",
              "224.0.0.1", "255.255.255.255", "2001:db8::1", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "ff02::1", "fe80::1", "fe80::77%lo", "fe80::77%1", "fe80::77%9",
              "::1%lo")


def address(rng):
    """One that is sound, or nearly, or was."""
    text = rng.choice(LISTENABLE)
    if rng.random() < 0.2:
        text = socket.inet_ntop(*rng.choice(((socket.AF_INET, b"\x7f" + rng.randbytes(3)), (socket.AF_INET6, rng.randbytes(16)))))
    for _ in range(rng.choice((0, 1, 1, 2, 5))):
        at = rng.randrange(len(text) + 1)
        cut = at + rng.choice((0, 0, 1, 3))
        text = text[:at] + rng.choice(("", "0", "1", ":", "::", ".", "%", "f", "F", "g", "x", " ", "/", "[", "]", "-", "00", "256", "65536", "%lo", "\n", "é")) + text[cut:]
    return text


def listening(text, port):
    """What listening there comes to for a program: an errno, or 0, and then the address and port as /proc/net/tcp has them."""
    family, scope = socket.AF_INET, "0"
    try:
        socket.inet_pton(family, text)
    except OSError:
        family = socket.AF_INET6
        text, percent, scope = text.partition("%")
        try:
            packed = socket.inet_pton(family, text)
            if not percent:
                scope = "0"
            elif packed[0] != 0xfe or packed[1] & 0xc0 != 0x80 or len(scope) > 15:
                return errno.EINVAL, None
            elif not re.fullmatch(r"[1-9]\d*|0", scope):
                scope = str(socket.if_nametoindex(scope))
        except (OSError, UnicodeError):
            return errno.EINVAL, None
    with socket.socket(family) as s:
        try:
            s.bind((text, port) if family == socket.AF_INET else (text, port, 0, int(scope)))
        except OverflowError:  # a scope beyond 32 bits
            return errno.EINVAL, None
        except OSError as e:
            return e.errno, None
        s.listen()
        return 0, listeners(port)


def listeners(port):
    """Address and port of those that /proc/net/tcp and tcp6 have at a port."""
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")]


@pytest.mark.parametrize("module", ["kecho"])
def test_addresses(module):
    """addr= is where a program would listen that was told the same, and an error where it could not: the C library reads the
    text, and the kernel says what it makes of the address."""
    rng = random.Random(SEED)
    end = time.monotonic() + TIME / 8
    loads = 0
    refused = {}
    while loads + sum(refused.values()) < scaled(600, 6, small=2) or time.monotonic() < end:
        text = address(rng)
        wanted, where = listening(text, PORT)
        try:
            insmod(KO_DIR / f"{module}.ko", line=f'addr="{text}"')
        except OSError as e:
            refused[e.errno] = refused.get(e.errno, 0) + 1
            assert e.errno == wanted, (text, e, wanted)
            continue
        assert wanted == 0 and listeners(PORT) == where, (text, wanted, listeners(PORT), where)
        loads += 1
        rmmod(module)
    print(f"{module}: loaded {loads} times, refused {refused}")
    assert loads and refused[errno.EINVAL] and refused[errno.EADDRNOTAVAIL]


ADDRESSES = ("::", "0.0.0.0", "127.0.0.1", "::1", "::ffff:127.0.0.1", "192.0.2.1", "fe80::1%lo", "fe80::1%nowhere", "127.0.0.256", ":::",
             "localhost", "", "1" * 2000, "%n%s")


def parameters(module):
    return {path.name: path.read_text().rstrip("\n") for path in Path("/sys/module", module, "parameters").glob("*")}


def parameter(rng, name, default, bounds):
    """What is said of one at load: sound as often as not, or few loads would be of any use."""
    if name == "addr":
        return rng.choice(ADDRESSES)
    return rng.choice((default, str(rng.randrange(2)), str(rng.randrange(1, 4096)), values(rng).decode(), at_bounds(rng, *bounds[name])))


@pytest.mark.parametrize("module", MODULES)
def test_load_parameters(module):
    """A load is refused and leaves nothing behind, or each parameter is what was said of it last; and what it serves is served."""
    rng = random.Random(SEED)
    insmod(KO_DIR / f"{module}.ko")
    defaults = parameters(module)
    bounds = documented(module)
    rmmod(module)
    assert bool(defaults) == (module != "drop_tcp_sock")
    end = time.monotonic() + TIME / 8
    loads = refused = 0
    while loads + refused < (scaled(100, 5, small=3) if defaults else 1) or (defaults and time.monotonic() < end):
        names = rng.choices(sorted(defaults), k=rng.randrange(1, 5)) if defaults else []
        said = [(name, parameter(rng, name, defaults[name], bounds)) for name in names]
        line = " ".join(f'{name}="{value}"' for name, value in said)
        try:
            insmod(KO_DIR / f"{module}.ko", line=line)
        except OSError as e:
            refused += 1
            assert e.errno in (errno.EINVAL, errno.ENOSPC, errno.EADDRNOTAVAIL), (line, e)
            assert not loaded(module), line
            continue
        loads += 1
        have = parameters(module)
        assert have.keys() == defaults.keys()
        for name, value in dict(said if "\0" not in line else []).items():  # a 0 ends the line
            assert have[name] == value if name == "addr" else int(have[name]) == int(value, 0), (line, name, have[name])
            assert name == "addr" or bounds[name][0] <= int(have[name]) <= bounds[name][1], (line, name)
        if have.get("addr") in ("::", "0.0.0.0", "127.0.0.1"):
            socket.create_connection(("127.0.0.1", int(have["port"])), timeout=20).close()
        rmmod(module)
    print(f"{module}: loaded {loads} times, {refused} times refused")
    assert loads and bool(refused) == (module != "drop_tcp_sock")
    insmod(KO_DIR / f"{module}.ko")
    assert parameters(module) == defaults
