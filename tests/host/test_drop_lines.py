# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves the line parser of drop_tcp_sock in user space, under ASan and UBSan, against Python's ipaddress.

The VM's tests run the same code in the kernel; what differs there is who parses a bare address.
"""

import ipaddress
import random
import subprocess

import pytest
from native import SANITIZERS, TOP, build, fuzz

SOURCES = [f"-I{TOP}/common", f"-I{TOP}/drop_tcp_sock", TOP / "drop_tcp_sock/line.c", TOP / "userspace/lib/pure.c"]
STATES = {name: 1 << number for number, name in enumerate(
    ["established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait", "closed", "close-wait",
     "last-ack", "listening", "closing"], 1)}
CONNECTED = sum(STATES.values()) - STATES["closed"] - STATES["listening"]
DEFAULT = CONNECTED | STATES["listening"]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return build(tmp_path_factory.mktemp("unit") / "drop_lines", *SANITIZERS, TOP / "tests/unit/drop_lines.c", *SOURCES)


def read(program, data, *arguments):
    data = data.encode("latin-1") if isinstance(data, str) else data
    done = subprocess.run([program, *map(str, arguments)], input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("latin-1").split("\n")[:-1]


def end(address, port="0"):
    """What the program shows of ADDRESS[/PREFIX] and a port, by Python's reckoning."""
    if address == "*":
        return f"0/0/{'0' * 32} {port}"
    addr, _, prefix = address.partition("/")
    ip = ipaddress.ip_address(addr)
    bits = int(prefix) if prefix else ip.max_prefixlen
    if ip.version == 4:
        ip, bits = ipaddress.ip_address(f"::ffff:{ip}"), bits + 96
    family = 4 if ip.ipv4_mapped else 6
    return f"{family}/{bits}/{ip.packed.hex()} {port}"


GOOD = [
    ("127.0.0.1:36986 127.0.0.1:12345", "127.0.0.1", 36986, "127.0.0.1", 12345, DEFAULT, 0, "-", 1),
    ("[::1]:80 [::1]:81", "::1", 80, "::1", 81, DEFAULT, 0, "-", 1),
    ("::1:80 ::1:81", "::1", 80, "::1", 81, DEFAULT, 0, "-", 1),
    (":::80 :::*", "::", 80, "::", "*", DEFAULT, 0, "-", 0),
    ("0.0.0.0:22 0.0.0.0:*", "0.0.0.0", 22, "0.0.0.0", "*", DEFAULT, 0, "-", 0),
    ("10.0.100.0:22 10.20.30.0:*", "10.0.100.0", 22, "10.20.30.0", "*", DEFAULT, 0, "-", 0),
    ("[2001:0db8:00::000a]:22 [0000::]:*", "2001:db8::a", 22, "::", "*", DEFAULT, 0, "-", 0),
    ("0.0.0.0:22 0.0.0.0:* listening", "0.0.0.0", 22, "0.0.0.0", "*", STATES["listening"], 1, "-", 0),
    ("*:22 *:*", "*", 22, "*", "*", STATES["listening"], 0, "-", 0),
    ("*:22 *%lo:*", "*", 22, "*", "*", STATES["listening"], 0, "lo", 0),
    ("*:22 *:* LISTEN", "*", 22, "*", "*", STATES["listening"], 0, "-", 0),
    ("*:22 *:* Listening", "*", 22, "*", "*", STATES["listening"], 0, "-", 0),
    ("10.0.0.0/8:* *:443", "10.0.0.0/8", "*", "*", 443, DEFAULT, 0, "-", 0),
    ("[2001:db8::/32]:1 [2001:db8::]/33:2", "2001:db8::/32", 1, "2001:db8::/33", 2, DEFAULT, 0, "-", 0),
    ("2001:db8::/32:1 *:2", "2001:db8::/32", 1, "*", 2, DEFAULT, 0, "-", 0),
    ("fe80::1%eth0:80 fe80::2%eth0:81", "fe80::1", 80, "fe80::2", 81, DEFAULT, 0, "eth0", 1),
    ("[fe80::1%eth0]:80 [fe80::2]:81", "fe80::1", 80, "fe80::2", 81, DEFAULT, 0, "eth0", 1),
    ("[fe80::1]%eth0:80 [fe80::2]:81", "fe80::1", 80, "fe80::2", 81, DEFAULT, 0, "eth0", 1),
    ("*%lo:80 *:1", "*", 80, "*", 1, DEFAULT, 0, "lo", 0),
    ("[::ffff:1.2.3.4]:1 5.6.7.8:2", "1.2.3.4", 1, "5.6.7.8", 2, DEFAULT, 0, "-", 1),
    ("127.0.0.1:8005 :::*", "127.0.0.1", 8005, "0.0.0.0", "*", DEFAULT, 0, "-", 0),
    ("[::ffff:127.0.0.1]:8005 [::]:* listening", "127.0.0.1", 8005, "0.0.0.0", "*", STATES["listening"], 1, "-", 0),
    ("1.2.3.4:1 ::/0:*", None, 0, "", 0, 0, 0, "", 0),
    ("1.2.3.4:1 [::]:2", None, 0, "", 0, 0, 0, "", 0),
    ("1.2.3.4:1 [::1]:*", None, 0, "", 0, 0, 0, "", 0),
    ("[::]:* 1.2.3.4:1", None, 0, "", 0, 0, 0, "", 0),
    ("[::ffff:1.2.3.4/120]:1 *:2", "1.2.3.4/24", 1, "*", 2, DEFAULT, 0, "-", 0),
    ("1.2.3.4:65535 1.2.3.4:0", "1.2.3.4", 65535, "1.2.3.4", 0, DEFAULT, 0, "-", 0),
    ("1.2.3.4/0:1 ::/0:1", None, 0, "", 0, 0, 0, "", 0),
    ("*:* *:* connected", "*", "*", "*", "*", CONNECTED, 0, "-", 0),
    ("*:* *:* synchronized", "*", "*", "*", "*", CONNECTED - STATES["syn-sent"], 0, "-", 0),
    ("*:* *:* bucket", "*", "*", "*", "*", STATES["time-wait"] | STATES["syn-recv"], 0, "-", 0),
    ("*:* *:* FIN_WAIT2", "*", "*", "*", "*", STATES["fin-wait-2"], 0, "-", 0),
    ("*:* *:* ESTAB", "*", "*", "*", "*", STATES["established"], 0, "-", 0),
    ("*:* *:* unconn", "*", "*", "*", "*", STATES["closed"], 0, "-", 0),
    *((f"*:* *:* {name}", "*", "*", "*", "*", bit, int(name == "listening"), "-", 0) for name, bit in STATES.items()),
]


@pytest.mark.parametrize("good", GOOD, ids=lambda g: g[0])
def test_good(program, good):
    line, local, lport, remote, rport, states, listeners, ifname, pair = good
    if local is None:
        assert read(program, line) == [f'! an IPv4 and an IPv6 address: "{line}"']
        return
    assert read(program, line + "\n") == [
        f"{end(local, lport)} {end(remote, rport)} {states:03x} {listeners} {ifname} {pair}"]


def bad_lines():
    """The table of the test in the VM."""
    text = (TOP / "tests/vm/drop_tcp_sock/test_lines.py").read_text(encoding="utf-8")
    space = {}
    exec(text[text.index("BAD = ["):text.index("]\n\n\n@pytest.mark.parametrize(\"line\", BAD") + 1], space)  # pylint: disable=exec-used
    return space["BAD"]


@pytest.mark.parametrize("number", range(len(bad_lines())))
def test_bad(program, number):
    said = read(program, bad_lines()[number] + "\n")
    assert len(said) == 1 and said[0].startswith("! ") and not said[0].startswith("! :")


def test_any_split_gives_the_same(program):
    """Lines good, bad, blank and long, cut at every place and into pieces of every size."""
    data = "\n".join([GOOD[0][0], "", "bad", GOOD[11][0] + "\r", " " * 300, "x" * 256, "x" * 257, GOOD[3][0]])
    whole = read(program, data)
    assert len(whole) == 8
    said = read(program, data, "splits")
    for size in range(1, len(data) + 1):
        for how in ("cut in two", "cut into pieces"):
            assert said[:9] == [*whole, how], size
            del said[:9]
    assert not said


def random_line(rng):
    """A line and what must be read from it; or something near a line, and None."""
    def address():
        version = rng.choice((4, 6))
        if version == 4:
            return str(ipaddress.IPv4Address(rng.getrandbits(32)))
        value = rng.getrandbits(128) & rng.choice((2 ** 128 - 1, 0xffff, 2 ** 127, 0xffff << 64))
        text = ipaddress.IPv6Address(value)
        return rng.choice((text.compressed, text.exploded))

    ends, shown = [], []
    for _ in range(2):
        addr, port = address(), rng.choice((rng.randrange(65536), "*"))
        ends.append(f"[{addr}]:{port}" if ":" in addr and rng.random() < 0.5 else f"{addr}:{port}")
        shown.append(end(addr, port))
    line = " ".join(ends)
    if shown[0][0] == "4" and shown[1] == end("::", "*"):  # as a listener on an IPv4-mapped address is listed
        shown[1] = end("0.0.0.0", "*")
    return line, (" ".join(shown) if shown[0][0] == shown[1][0] else None)


def test_random_lines(program):
    rng = random.Random(4)
    cases = [random_line(rng) for _ in range(5000)]
    said = read(program, "\n".join(line for line, _ in cases), 1000)
    for (line, shown), got in zip(cases, said, strict=True):
        if shown is None:
            assert got == f'! an IPv4 and an IPv6 address: "{line}"'
        else:
            assert got.startswith(f"{shown} {DEFAULT:03x} 0 - "), line


def test_mutated_lines(program):
    """Nothing that ASan or UBSan would report, and an answer to every line."""
    rng = random.Random(5)
    lines = []
    for _ in range(20000):
        line = bytearray(rng.choice(GOOD)[0].encode())
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(line) + 1)
            line[at:at + rng.randrange(3)] = bytes(rng.choice(b"[]:*%/. 0129afx-\x00\xff") for _ in range(rng.randrange(3)))
        lines.append(bytes(line).replace(b"\n", b""))
    said = read(program, b"\n".join(lines) + b"\n", 333)
    assert len(said) == len(lines)


def test_fuzz(tmp_path):
    """libFuzzer finds no lines that a cut changes, or that ASan or UBSan object to. FUZZ_SECONDS: how long."""
    fuzz(tmp_path, "drop_lines.c", "drop_lines", SOURCES, 20)
