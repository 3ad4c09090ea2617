# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves khttpd's request parser in user space: a table, every cut of every input, a fuzzer, and another parser.

ASan and UBSan watch; each piece of input has a buffer of its own.
"""

import os
import random
import re
import subprocess

import pytest
from http_cases import CASES, chunked, get, sized, targeted
from native import SANITIZERS, TOP, build, fuzz

SOURCES = [f"-I{TOP}/common", f"-I{TOP}/khttpd", *sorted((TOP / "khttpd").glob("http*.c"))]


@pytest.fixture(scope="module")
def parser(tmp_path_factory):
    return build(tmp_path_factory.mktemp("unit") / "http_requests", *SANITIZERS, TOP / "tests/unit/http_requests.c", *SOURCES)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unit")
    llhttp = TOP / "build/llhttp/usr/share"  # vm/setup's
    include = f"-I{llhttp}/include/llhttp"
    library = build(folder / "llhttp.o", "-r", "-w", include, *sorted((llhttp / "llhttp").glob("*.c")))
    return build(folder / "http_oracle", include, TOP / "tests/unit/http_oracle.c", library)


def show(program, cases, *arguments):
    """A line for each case."""
    data = b"".join(b"%d\n%s" % (len(case), case) for case in cases)
    done = subprocess.run([program, *map(str, arguments)], input=data, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, (done.stdout[-500:], done.stderr.decode()[-3000:])
    return done.stdout.decode().splitlines()


def test_table(parser):
    """Each case comes to its status, or to one whole request."""
    wrong = []
    for (name, data, status), line in zip(CASES, show(parser, [data for _, data, _ in CASES]), strict=True):
        if status in (200, 405):
            right = re.fullmatch(rf"[A-Z]+/\d/(keep|close)@{len(data)} idle", line)
        else:
            right = re.fullmatch(rf"!{status}@\d+", line)
        if not right:
            wrong.append(f"{name}: {line} instead of {status}")
    assert not wrong


def test_every_cut(parser):
    """Cut in two at every offset, and into bytes, every case gives what it gives whole."""
    show(parser, [data for _, data, _ in CASES if len(data) < 3000], "splits")
    show(parser, [get() + sized(b"3", b"abc") + chunked(b"1\r\na\r\n0\r\nX: y\r\n\r\n") + get()], "splits")


@pytest.mark.parametrize("minor", [b"2", b"9"])
def test_a_later_minor_version_is_served_as_1_1(parser, minor):
    """Whatever frames a request, and whatever is wrong with one: all is as in HTTP/1.1 (RFC 9110, 2.5)."""
    cases = [data for _, data, _ in CASES if data.partition(b"\r\n")[0].endswith(b" HTTP/1.1")]
    later = [data.replace(b" HTTP/1.1\r\n", b" HTTP/1." + minor + b"\r\n", 1) for data in cases]
    assert len(cases) > 200
    for data, first, second in zip(cases, show(parser, cases), show(parser, later), strict=True):
        assert second == re.sub(r"/1/", f"/{minor.decode()}/", first, count=1), data


def test_exact_limits(parser):
    """So many bytes of a body, in one chunk too, and so many fields of a trailer, and not one more."""
    cases = [sized(b"100", b"x" * 100), sized(b"101", b"x" * 101)]
    cases += [chunked(b"%x\r\n" % n + b"x" * n + b"\r\n0\r\n\r\n") for n in (100, 101)]
    cases += [chunked(b"0\r\n" + b"T: u\r\n" * n + b"\r\n") for n in (20, 21)]
    assert [line.split("@")[0] for line in show(parser, cases, 1000, 20, 100)] == ["POST/1/keep", "!413"] * 2 + ["POST/1/keep", "!431"]


def test_cut_limits(parser):
    """At the limits as well, where a cut falls before, on and behind the byte that is too many: those that only long
    cases of the table reach, here with small limits."""
    cases = [get(b"X: " + b"y" * n) for n in range(70)] + [chunked(b"1;" + b"e" * n + b"\r\nx\r\n0\r\nT: " + b"u" * n + b"\r\n\r\n")
                                                             for n in range(100)]
    cases += [targeted(b"/" * n) for n in range(60, 100)] + [get(*[b"X:"] * n) for n in range(8)]
    cases += [sized(b"%d" % n, b"x" * n) for n in range(95, 105)] + [chunked(b"%x\r\n" % n + b"x" * n + b"\r\n0\r\n\r\n") for n in range(95, 105)]
    for fields in (3, 100):
        lines = show(parser, cases, "splits", 90, fields, 100)
        seen = {re.sub("@.*", "", line.split()[0]) for line in lines}
        assert seen >= {"GET/1/keep", "!414", "!431", "!413", "POST/1/keep"}, seen


@pytest.mark.parametrize("line,fields,keeps", [
    ("1.1", "", True), ("1.1", "Connection: close", False), ("1.1", "connection: Keep-Alive, CLOSE", False),
    ("1.1", "Connection: x, y", True), ("1.1", "Connection: x\r\nConnection: close", False),
    ("1.1", "Connection: close\r\nConnection: keep-alive", False), ("1.0", "Connection: keep-alive\r\nConnection: x", True),
    ("1.0", "Connection: keep-alive\r\nConnection: close", False), ("1.2", "", True),
    ("1.0", "", False), ("1.0", "Connection: keep-alive", True), ("1.0", "Connection: KEEP-alive", True),
    ("1.0", "Connection: keep-alive, close", False), ("1.0", "Connection: keep-alives", False), ("1.1", "Connection: clos", True),
    ("1.0", "Proxy-Connection: keep-alive", False), ("1.1", "X: close", True)])
def test_keep(parser, line, fields, keeps):
    data = f"GET / HTTP/{line}\r\nHost: a\r\n{fields}\r\n".replace("\r\n\r\n", "\r\n").encode() + b"\r\n"
    assert show(parser, [data])[0].split("@")[0] == f"GET/{line[-1]}/{'keep' if keeps else 'close'}"


def test_connect_closes(parser):
    """What follows a CONNECT may be meant for somebody else: it is the last request, whatever Connection says."""
    for fields in (), (b"Connection: keep-alive",):
        assert show(parser, [get(*fields, line=b"CONNECT a:443 HTTP/1.1") + get()])[0].startswith("CONNECT/1/close@")


def test_chunk_extension_at_the_limit(parser):
    """So many bytes, the CR behind them included, and not one more."""
    cases = [chunked(b"1;" + b"e" * n + b"\r\nx\r\n0\r\n\r\n") for n in (89, 90)]
    assert [line.split("@")[0] for line in show(parser, cases, 90, 100, 100)] == ["POST/1/keep", "!413"]


def test_unfinished(parser):
    """Where a stream that ends too early stands."""
    data = chunked(b"3\r\nabc\r\n0\r\nT: u\r\n\r\n")
    head = data.index(b"\r\n\r\n") + 4
    lines = show(parser, [data[:n] for n in range(len(data) + 1)])
    assert lines[0] == "idle"
    assert set(lines[1:head]) == {"more"}
    assert set(lines[head:-1]) == {"body"}
    assert lines[-1] == f"POST/1/keep@{len(data)} idle"
    assert show(parser, [b"\r", b"\r\n", b"\r\nG"]) == ["more", "idle", "more"]


def test_where_bodies_begin(parser):
    """It is told once of each request that has one, behind its head, wherever that is cut: an Expect is answered then."""
    cases = [get(), sized(b"0"), sized(b"3", b"abc"), chunked(b"1\r\na\r\n2\r\nbc\r\n0\r\nT: u\r\n\r\n"), chunked(b"0\r\n\r\n"),
             get(b"Expect: 100-continue", b"Content-Length: 3", line=b"POST / HTTP/1.1") + b"abc"]
    lines = show(parser, cases, "heads", "splits")
    heads = [data.index(b"\r\n\r\n") + 4 for data in cases]
    assert [re.findall(r"\+@(\d+)", line) for line in lines] == [[], []] + [[str(head)] for head in heads[2:]], lines


def test_pipelined(parser):
    """Nothing of a request is left over for the next."""
    rng = random.Random(1)
    good = [data for _, data, status in CASES if status in (200, 405) and len(data) < 3000]
    alone = dict(zip(good, show(parser, good), strict=True))
    streams = [[rng.choice(good) for _ in range(rng.randint(2, 8))] for _ in range(2000)]
    for several, line in zip(streams, show(parser, [b"".join(several) for several in streams]), strict=True):
        offset = 0
        for one, shown in zip(several, line.split(), strict=False):
            offset += len(one)
            assert shown == re.sub("@.*", f"@{offset}", alone[one].split()[0])
        assert len(line.split()) == len(several) + 1


# What the other parser refuses and this one takes, on purpose; each with its reason.
ACCEPTED = {
    rb"\r\n[0-9a-fA-F]+[ \t]*;[^\r]*=[ \t]*\"": "the value of a chunk extension may be a quoted string, of any text: RFC 9112, 7.1.1",
    rb"(?i)\n0+(;[^\r\n]*)?\r\n([^\r\n]+\r\n)*(Content-Length|Connection|Transfer-Encoding)": "a trailer field frames nothing: RFC 9110, 6.5.1",
}

PIECES = [b"GET", b"POST", b"HEAD", b"CONNECT", b"OPTIONS", b" ", b"  ", b"/", b"*", b"http://", b"a", b":80", b"[::1]", b"HTTP/1.1",
          b"HTTP/1.0", b"HTTP/1.2", b"\r\n", b"\r", b"\n", b"\r\n\r\n", b":", b": ", b"Host", b"Host: a\r\n", b"Content-Length",
          b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding", b"chunked", b"Connection: close\r\n",
          b"Connection: keep-alive\r\n", b"Upgrade: x\r\n", b"Connection: upgrade\r\n", b"Expect: 100-continue\r\n", b"3\r\nabc\r\n",
          b"0\r\n\r\n", b"abc", b"0", b"1", b";", b"=", b",", b'"', b"\\", b"%41", b"%", b"?", b"#", b"\t", b"\x00", b"\x0b", b"\x7f",
          b"\x80", b"\xff", b"Keep-Alive: 5\r\n", b"HTTP/", b"-", b"X: y\r\n", b"\r\n X", b"Trailer: x\r\n", b"5;a=b\r\nhello\r\n"]


def mutate(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randint(0, len(data))
        match rng.randint(0, 5):
            case 0:
                data[at:at] = rng.choice(PIECES)
            case 1:
                data[at:at + rng.randint(1, 6)] = b""
            case 2:
                data[at:at + 1] = bytes([rng.randrange(256)])
            case 3:
                data[at:at + rng.randint(1, 20)] = rng.choice(PIECES)
            case 4:
                other = rng.randint(0, len(data))
                data[at:at] = data[other:other + rng.randint(1, 40)]
            case 5:
                data += rng.choice([d for _, d, _ in CASES if len(d) < 3000])
    return bytes(data)


def taken_otherwise(case, mine, other):
    """The bytes of the first request that one took which is not the same to the other, as far as that one goes on; None if there
    is none."""
    theirs = other.split()
    begin = 0
    for n, request in enumerate(r for r in mine.split() if "@" in r and r[0] != "!"):
        if request.startswith("CONNECT"):  # to the other, what follows its head is no longer HTTP
            break
        end = int(request.split("@")[1])
        if n >= len(theirs) or theirs[n] != request:
            return case[begin:end]
        if "/close@" in request:
            break
        begin = end
    return None


def for_llhttp(case):
    """What the other parser, which refuses both, gets instead, of the same length: a minor version that is not known is served as the
    highest that is (RFC 9110, 2.5), and a tab may stand around a value where a space may (RFC 9110, 5.6.3)."""
    case = re.sub(rb" HTTP/1\.[2-9]\r\n", b" HTTP/1.1\r\n", case)
    return re.sub(rb"(?i)\n(Content-Length|Transfer-Encoding|Connection):[^\r\n]*", lambda line: line[0].replace(b"\t", b" "), case)


def test_differential(parser, oracle):
    """Whatever this parser takes for a request, llhttp takes for the same one, as strict as it is: of the same
    length, method and version, and kept alive alike."""
    rng = random.Random(int(os.environ.get("SEED", "1")))
    seeds = [data for _, data, _ in CASES if len(data) < 3000]
    good = [data for _, data, status in CASES if status in (200, 405) and len(data) < 1000]
    cases = seeds + [mutate(rng, rng.choice(seeds if n % 4 == 0 else good)) for n in range(60000)]
    cases += [b"".join(rng.choice(PIECES) for _ in range(rng.randint(3, 25))) for _ in range(20000)]
    mine = [re.sub(r"([A-Z]/)[2-9](/\w+@)", r"\g<1>1\2", line) for line in show(parser, cases)]
    theirs = show(oracle, [for_llhttp(case) for case in cases])
    taken = sum("@" in line and line[0] != "!" for line in mine)
    excused = dict.fromkeys(ACCEPTED, 0)
    wrong = []
    for case, a, b in zip(cases, mine, theirs, strict=True):
        request = taken_otherwise(case, a, b)
        excuse = request and next((pattern for pattern in ACCEPTED if re.search(pattern, request)), None)
        if excuse:
            excused[excuse] += 1
        elif request:
            wrong.append((request, a, b))
    assert taken > 5000, "too few of the inputs are requests for this to tell anything"
    assert not wrong, f"{len(wrong)} of {len(cases)}: {wrong[:10]}"
    assert all(excused.values()), f"an excuse that nothing needs: {excused}"


def test_fuzz(tmp_path):
    """libFuzzer finds no input, from the table's cases on, that makes a difference when it is cut, or that ASan or
    UBSan object to. FUZZ_SECONDS: how long, a minute by default."""
    short = [data for _, data, _ in CASES if len(data) < 3000]
    fuzz(tmp_path, "http_parser.c", "http", SOURCES, 60,
         [b"\0\0" + data for data in short] + [bytes([1 + 2 * (n % 9), n % 256]) + data for n, data in enumerate(short)])
