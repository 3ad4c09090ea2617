# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that the clients people use get along with khttpd, that attackers do not keep them out, and that it can be
unloaded at any moment."""

import csv
import http.client
import itertools
import json
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from answers import HELLO, ask, client, read
from http_cases import get
from lib import (DEBUG, HTSTRESS, MODES, UNLOAD_MAX, Server, connected, insmod, ip, lossy_link, modes, network_namespace,
                 rmmod, scaled, sh, slabs, threads)

# Its cache is to be seen under its own name, whatever its size.
pytestmark = pytest.mark.boot(minutes=8, append="slab_nomerge")
URL = "http://127.0.0.1:8081/"


def adds_up(khttpd):
    """Every request has one answer, or its client left amid its body, when all is quiet."""
    khttpd.wait("active", 0)
    stats = khttpd.stats()
    assert stats["accepted"] == stats["closed"]
    assert stats["requests"] == sum(stats[name] for name in ("responses_2xx", "responses_4xx", "responses_5xx", "requests_aborted")), stats
    return stats


@modes("fast")
def test_a_name_with_several_addresses(load):
    """htstress takes the one that is served, "localhost" may be ::1 first and the server not there; or is told which."""
    load("khttpd", addr="127.0.0.1")
    hosts = Path("/etc/hosts")
    before = hosts.read_text()
    # Of the third nobody says that there is none.
    ip("link add silent type dummy", "link set silent up", "addr add 2001:db8::1/64 dev silent nodad",
       "neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev silent nud permanent")
    hosts.write_text("::1 twice\n127.0.0.1 twice\n2001:db8::2 silent\n127.0.0.1 silent\n")
    try:
        results = [json.loads(sh(HTSTRESS, "-n", 6, "-k", *family, "--json", "http://twice:8081/", check=False).stdout)
                   for family in ([], ["-4"], ["-6"])]
        began = time.monotonic()
        results.append(json.loads(sh(HTSTRESS, "-n", 6, "-k", "--json", "http://silent:8081/", check=False, timeout=60).stdout))
        assert 2.5 < time.monotonic() - began < 30
    finally:
        ip("link del silent")
        hosts.write_text(before)
    assert [result["good"] for result in results] == [6, 6, 0, 6], results
    assert results[2]["errors"]["connect"] == 6, results[2]


@modes("fast")
def test_htstress_and_a_zone(load):
    """An address of a link's needs one; the server is not told of it, who would have to refuse it (RFC 6874)."""
    load("khttpd")
    ip("link add zone type dummy", "addr add fe80::77/64 dev zone nodad", "link set zone up")
    try:
        results = [json.loads(sh(HTSTRESS, "-n", 6, "-k", "--json", f"http://[fe80::77{percent}zone]:8081/", check=False).stdout)
                   for percent in ("%", "%25")]
    finally:
        ip("link del zone")
    assert [(result["good"], result["bad"]) for result in results] == [(6, 0)] * 2, results


@modes("fast")
def test_curl(khttpd):
    done = sh("curl", "-sS", "-g", "-i", URL, "http://[::1]:8081/x?y=%20", "http://localhost:8081/")
    assert done.stdout.count("HTTP/1.1 200 OK") == 3 and done.stdout.count("Hello World!") == 3
    assert sh("curl", "-sS", "-w", "%{http_code} %{num_connects}", "-o", "/dev/null", "-d", "a" * 100000, URL).stdout == "405 1"
    assert sh("curl", "-sS", "-w", "%{http_code}", "-o", "/dev/null", "-H", "Transfer-Encoding: chunked", "-d", "abc", URL).stdout == "405"
    assert sh("curl", "-sS", "-0", "-w", "%{http_code}", "-o", "/dev/null", URL).stdout == "200"
    assert "200 OK" in sh("curl", "-sSI", URL).stdout
    # Above 1 MiB curl announces its body by Expect, and is told before it sends it.
    big = sh("curl", "-sS", "--expect100-timeout", "60", "-w", " %{http_code} %{size_upload}", "-H", "Expect: 100-continue",
             "--data-binary", "@/dev/stdin", URL, input="x" * (2 << 20)).stdout
    assert big.split()[-2:] == ["413", "0"]
    assert sh("curl", "-sS", "-w", " %{http_code}", "-H", "Expect:", "--data-binary", "@/dev/stdin", URL,
              input="x" * (2 << 20)).stdout.endswith(" 413")
    adds_up(khttpd)


def test_wrk(khttpd):
    done = sh("wrk", "-t1", "-c", scaled(50, 5), "-d", "2", "--timeout", "20", URL)
    assert "Socket errors" not in done.stdout and "Non-2xx" not in done.stdout, done.stdout
    requests = int(re.search(r"(\d+) requests in", done.stdout)[1])
    khttpd.wait("active", 0)
    # wrk ends amid requests: those it has not counted were answered too.
    assert 0 < requests <= khttpd.stat("requests") <= requests + 50


@pytest.mark.parametrize("keep", [[], ["-k"]])
def test_ab(khttpd, keep):
    count = scaled(2000)
    done = sh("ab", "-q", "-n", count, "-c", "10", *keep, URL)
    assert re.search(rf"Complete requests: +{count}\n", done.stdout) and re.search(r"Failed requests: +0\n", done.stdout), done.stdout
    assert "Non-2xx" not in done.stdout
    if keep:
        assert re.search(rf"Keep-Alive requests: +{count}\n", done.stdout), done.stdout
    accepted = adds_up(khttpd)["accepted"]
    assert accepted == 10 if keep else count <= accepted <= count + 10  # ab may open some more than it uses


def test_h2load(khttpd):
    done = sh("h2load", "--h1", "-n", scaled(2000), "-c", "10", "-m", "8", URL)
    assert f"{scaled(2000)} succeeded, 0 failed" in done.stdout, done.stdout
    adds_up(khttpd)


@modes("fast")
def test_http_client(khttpd):
    connection = http.client.HTTPConnection("127.0.0.1", 8081, timeout=20)
    for method, body, status in (("GET", None, 200), ("HEAD", None, 200), ("OPTIONS", None, 200), ("POST", b"x" * 1000, 405),
                                 ("PUT", iter([b"a", b"b"]), 405), ("GET", b"y" * 100, 200)):
        connection.request(method, "/", body=body, encode_chunked=isinstance(body, type(iter([]))),
                           headers={"Transfer-Encoding": "chunked"} if isinstance(body, type(iter([]))) else {})
        answer = connection.getresponse()
        assert answer.status == status
        text = answer.read()
        assert len(text) == int(answer.headers["Content-Length"]) or method == "HEAD"
    connection.close()
    assert adds_up(khttpd)["accepted"] == 1


@modes("fast")
def test_nc(khttpd):
    done = subprocess.run(["nc", "-N", "127.0.0.1", "8081"], input=b"GET / HTTP/1.0\r\n\r\n", capture_output=True, check=True)
    assert done.stdout.endswith(b"\r\n\r\n" + HELLO)


@modes("fast", "worker")
@pytest.mark.parametrize("args,connections", [
    pytest.param(["-c", "10"], None, marks=pytest.mark.smoke), (["-k", "-c", "10"], 10), (["-k", "-P", "16", "-c", "4"], 4), (["-0", "-c", "4"], None),
    (["-0", "-k", "-c", "4"], 4), (["-k", "-c", "10", "-t", "2"], 10)])
def test_htstress(khttpd, args, connections):
    count = scaled(5000, 100)
    done = sh(HTSTRESS, "-n", count, "--json", *args, URL)
    result = json.loads(done.stdout)
    assert result["good"] == count and result["bad"] == 0
    stats = adds_up(khttpd)
    assert stats["requests"] == stats["responses_2xx"] == count
    assert stats["accepted"] == (connections or count)
    assert stats["errors"] == 0
    asked = f"GET / HTTP/1.{int('-0' not in args)}\r\nHost: 127.0.0.1:8081\r\n"
    asked += "Connection: keep-alive\r\n" * ("-0" in args) if "-k" in args else "Connection: close\r\n" * ("-0" not in args)
    assert stats["bytes_in"] == count * len(asked + "\r\n") and stats["bytes_out"] == result["bytes"]


@modes("fast")
def test_htstress_tells(khttpd, tmp_path):
    """The original's words, a table, a distribution; IPv6 and names; bad answers; a server that closes in between."""
    text = sh(HTSTRESS, "-n", "100", "-c", "2", "http://localhost:8081/a?b").stdout
    assert re.search(r"requests: +100\ngood requests: 100 \[100%\]\nbad requests: +0 \[0%\]\nsocket errors: 0 \[0%\]\n"
                     r"seconds: +[\d.]+\nrequests/sec: +[\d.]+\n", text), text
    assert "latency" in text
    row = next(csv.DictReader(sh(HTSTRESS, "-n", "10", "-k", "--csv", "--label", "a,b", "--hist", tmp_path / "h", "[::1]:8081")
                              .stdout.splitlines()))
    assert row["label"] == "a,b" and row["good"] == "10"
    assert (tmp_path / "h").read_text().count("\n") > 1
    khttpd.set("max_requests", 7)
    result = json.loads(sh(HTSTRESS, "-n", "100", "-k", "-c", "2", "--json", URL).stdout)
    assert result["good"] == 100 and not any(v for k, v in result["errors"].items() if k != "first")
    khttpd.set("max_requests", 0)
    done = sh(HTSTRESS, "-n", "10", "-k", "--json", "http://127.0.0.1:8081/%zz", check=False)
    result = json.loads(done.stdout)
    assert done.returncode == 1 and result["bad"] == 10 and result["good"] == 0


@modes("fast")
def test_5000_connections(khttpd):
    count = scaled(5000)
    rmmod("khttpd")
    insmod(MODES["fast"][0] / "khttpd.ko", backlog=1024)
    result = json.loads(sh(HTSTRESS, "-n", 4 * count, "-k", "-c", count, "--json", URL).stdout)
    assert result["good"] == 4 * count
    stats = adds_up(Server("khttpd"))
    assert stats["accepted"] == count and stats["requests"] == 4 * count


def test_killed_clients(khttpd):
    """Clients that die in mid-request leave nothing behind."""
    watched = ["TCP", "TCPv6", "khttpd", "sock_inode_cache"]
    before = slabs(watched)
    assert list(before) == watched
    for n in range(scaled(10, 5, small=5)):
        victims = [subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for args in
                   (["wrk", "-t1", "-c30", "-d60", URL], [HTSTRESS, "-c30", "-n100000000", URL],
                    [HTSTRESS, "-c30", "-k", "-P32", "-n100000000", URL])]
        seen = khttpd.stat("requests")
        end = time.monotonic() + 60
        while khttpd.stat("requests") < seen + 1000 // (20 if DEBUG else 1):
            assert time.monotonic() < end
            time.sleep(0.02)
        for victim in victims:
            victim.send_signal(signal.SIGKILL)
            victim.wait()
    khttpd.wait("active", 0, seconds=60)
    end = time.monotonic() + 30
    while more := {name: count - before[name] for name, count in slabs(watched).items() if count > before[name] + 64}:
        assert time.monotonic() < end, more
        time.sleep(1)  # RCU frees them


def test_unload_under_load_50_times(mode):
    """rmmod under wrk returns within a second, but where the host is busy elsewhere."""
    folder, params = MODES[mode]
    took = []
    for n in range(scaled(10 if mode == "owned" else 50, 15, small=5) or 1):
        insmod(folder / "khttpd.ko", bench=n % 2, **params)
        with subprocess.Popen(["wrk", "-t1", "-c50", "-d60", URL], stdout=subprocess.DEVNULL) as load:
            server = Server("khttpd")
            end = time.monotonic() + 60
            while server.stat("requests") < scaled(200, 2):
                assert time.monotonic() < end, server.stats()
                time.sleep(0.02)
            began = time.monotonic()
            rmmod("khttpd")
            took.append(time.monotonic() - began)
            load.kill()
    took.sort()
    assert took[(len(took) - 1) // 2] < UNLOAD_MAX and took[-1] < 10 * UNLOAD_MAX, took
    assert connected(8081) == ""


def test_unload_with_idle_connections(mode):
    """And with connections idle, in mid-request, in mid-body, lingering and not reading."""
    folder, params = MODES[mode]
    insmod(folder / "khttpd.ko", backlog=1024, **params)
    held = []
    for n in range(scaled(500, 5)):
        s = client()
        held.append(s)
        match n % 5:
            case 0:
                assert ask(s).status == 200
            case 1:
                s.sendall(b"GET / HT")
            case 2:
                s.sendall(get(b"Content-Length: 5"))
            case 3:
                s.sendall(b"GARBAGE\r\n")
                assert read(s).status == 400
            case 4:
                s.sendall(get() * 200)
    began = time.monotonic()
    rmmod("khttpd")
    assert time.monotonic() - began < (3 * UNLOAD_MAX if DEBUG else 4.5)  # those that linger would stay for five seconds, the others longer
    for s in held:
        s.close()
    assert connected(8081) == ""


# -k: so many answers that the least receive buffer there is does not hold them.
@pytest.mark.parametrize("attack,deadline", [(["-H"], "header"), (["-B"], "body"), (["-R"], None),
                                             (["-X", "-w", "10", "-y", "20", "-n", "5", "-z", "5", "-k", "10"], "response")],
                         ids=["headers", "body", "range", "read"])
@modes("fast")
def test_slowhttptest(load, attack, deadline, tmp_path):
    """Under each of its attacks a well-behaved client is served, and all attackers are gone in the end."""
    khttpd = load("khttpd", backlog=1024, request_timeout=5)
    with subprocess.Popen(["slowhttptest", *attack, "-c", str(scaled(400, 5)), "-i", "2", "-r", "200", "-l", "40" if deadline else "12",
                           "-u", URL, "-p", "3"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path) as attacker:
        time.sleep(2)
        slowest = 0
        while attacker.poll() is None:
            began = time.monotonic()
            with client() as s:
                assert ask(s).status == 200
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.1)
    assert slowest < (20 if DEBUG else 5), slowest  # two SYNs that are lost take three seconds
    khttpd.wait("active", 0, seconds=30)
    stats = khttpd.stats()
    assert adds_up(khttpd)["accepted"] >= scaled(400, 5)
    # Whoever sends or reads slowly has been shown the door, by the deadline that is for it: each, where all began in time.
    slow = scaled(400, 5) if deadline else 0
    assert stats.get(f"timeouts_{deadline}", 0) == stats["timeouts"], stats
    assert slow * (0.5 if DEBUG else 0.95) <= stats["timeouts"] <= slow, stats


@modes("fast")
def test_memory_of_an_idle_connection(khttpd):
    """At most 512 bytes of the module's, no thread, and no buffer."""
    if not DEBUG:
        size = next(int(line.split()[3]) for line in Path("/proc/slabinfo").read_text().splitlines() if line.startswith("khttpd "))
        assert 0 < size <= 512 - 64, size  # 64: an address that no other connection has
    count = scaled(500, 50)
    names = [f"kmalloc-{n}" for n in ("32", "64", "96", "128", "192", "256", "512", "1k", "2k", "4k", "8k")]
    with socket.create_server(("127.0.0.1", 0), backlog=count) as plain:  # what as many connections of nobody's module cost
        before = slabs(names)
        pairs = [(socket.create_connection(plain.getsockname()), plain.accept()[0]) for _ in range(count)]
        usual = {name: now - before[name] for name, now in slabs(names).items()}
        for s in itertools.chain(*pairs):
            s.close()
    before = threads()
    small = slabs(names)
    held = [client() for _ in range(count)]
    for s in held:
        assert ask(s).status == 200
    grown = {name: now - small[name] - usual[name] for name, now in slabs(names).items()}
    print(usual, grown)
    assert DEBUG or (len(grown) > 5 and all(n < len(held) / 2 for n in grown.values())), (grown, usual)
    assert threads() - before < 20
    for s in held:
        s.close()


@pytest.mark.smoke
@modes("fast")
def test_namespace(load):
    """It serves the namespace of its insmod, and goes with it."""
    with network_namespace("web") as web:
        khttpd = load("khttpd", netns=web)
        assert "200 OK" in sh("curl", "-sSi", URL, netns=web).stdout
        assert sh("curl", "-sS", URL, check=False).returncode == 7
        assert khttpd.stat("requests") == 1
    end = time.monotonic() + 20
    while connected(8081):
        assert time.monotonic() < end


@modes("fast")
def test_ends_survive_loss(load):
    """The last answer and the FIN behind it arrive though segments are lost, and lost again for longer than a client may
    take by default."""
    with network_namespace("a") as a, network_namespace("b") as b:
        lossy_link(a, b, "10%")
        load("khttpd", netns=a, request_timeout=600)
        count = scaled(100, 5)
        for kind in (["-n", count, "-c", "20"], ["-n", count, "-c", "20", "-k"]):
            result = json.loads(sh(HTSTRESS, *kind, "--timeout", "120", "--json", "http://10.8.0.1:8081/", netns=b).stdout)
            assert result["good"] == count
        wrong = "http://10.8.0.1:8081/%zz"
        result = json.loads(sh(HTSTRESS, "-n", scaled(50, 2), "-c", "20", "--timeout", "120", "--json", wrong, netns=b, check=False).stdout)
        assert result["bad"] == scaled(50, 2) and not result["errors"]["first"], result
