# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that bench and htstress notice whatever a server does wrong, and that the baselines are sound."""

import contextlib
import csv
import itertools
import json
import os
import pty
import random
import re
import resource
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
BENCH = TOP / "userspace" / "bench"
HTSTRESS = TOP / "userspace" / "htstress"


@pytest.fixture(scope="module", autouse=True)
def built():
    subprocess.run(["make", "-s", "-C", TOP / "userspace"], check=True)


class Faulty(threading.Thread):
    """A server that answers each message by a function of it."""

    def __init__(self, answer):
        super().__init__(daemon=True)
        self.answer = answer
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                sock = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        with sock, contextlib.suppress(ConnectionError):
            while data := sock.recv(65536):
                answer = self.answer(data)
                if answer is None:
                    return
                sock.sendall(answer)


def wait_for(port):
    """Until somebody listens there."""
    end = time.monotonic() + 20
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        assert time.monotonic() < end
        time.sleep(0.05)


def bench(*args, port):
    return subprocess.run([BENCH, *map(str, args), "127.0.0.1", str(port)], text=True,
                          capture_output=True, check=False, timeout=60)


def errors(done):
    return json.loads(done.stdout)["errors"]


@pytest.mark.parametrize("answer,kind", [
    (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "wrong_bytes"),
    (lambda data: data + b"x", "wrong_bytes"),
    (lambda data: data[::-1], "wrong_bytes"),
    (lambda data: data[:10] + bytes(512 - 10), "wrong_bytes"),
    (lambda data: None, "closed_early"),
    (lambda data: data[:-1], "unanswered"),
])
def test_a_faulty_server_is_found_out(answer, kind):
    server = Faulty(answer)
    done = bench("-c", 3, "-n", 5, *(["--timeout", 1] if kind == "unanswered" else []), "--json", port=server.port)
    assert done.returncode == 1
    assert errors(done)[kind] == 3, done.stdout


def test_a_mixed_up_server_is_found_out():
    """Right bytes on the wrong connection are wrong bytes."""
    last = [b""]

    def swap(data):
        last[0], answer = data, last[0] or data
        return answer

    done = bench("-c", 2, "-n", 5, "--json", "--timeout", 2, port=Faulty(swap).port)
    assert done.returncode == 1 and errors(done)["wrong_bytes"] > 0


def test_a_dead_server_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    done = bench("-c", 10, "-n", 1, "--json", port=port)
    assert done.returncode == 1
    assert errors(done)["connect"] == 10
    assert "refused" in errors(done)["first"]


def test_all_byte_values_are_sent():
    seen = set()

    def note(data):
        seen.update(data)
        return data

    assert bench("-c", 1, "-n", 40, port=Faulty(note).port).returncode == 0
    assert len(seen) == 256


@pytest.mark.parametrize("args,says", [
    (["-c", "0"], "'0'"),
    (["-c", "many"], "'many'"),
    (["-s", "-1"], "'-1'"),
    (["-d", "soon"], "'soon'"),
    (["-n", "1", "-d", "1"], "-n and -d"),
    (["-c", "999999"], "999999"),
    (["nowhere.invalid"], "nowhere.invalid"),
    (["a", "b", "c"], "'c'"),
    (["-d", "2000000"], "up to 1000000, not '2000000'"),
    (["--burst", "-n", "5"], "-n: with --burst"),
    (["--burst", "-d", "1"], "-d: with --burst"),
    (["--burst", "--reconnect"], "--burst and --reconnect"),
    (["--reconnect", "--burst"], "--burst and --reconnect"),
    (["--burst", "--hold"], "--hold: with --burst"),
    (["--reconnect", "--hold"], "--hold: with --reconnect"),
    (["-4", "-6"], "-4 and -6"),
    (["-6", "127.0.0.1"], "127.0.0.1"),
])
def test_bad_usage(args, says):
    done = subprocess.run([BENCH, *args], text=True, capture_output=True, check=False, timeout=60)
    assert done.returncode == 2
    assert says in done.stderr


def test_files_that_threads_take_count():
    """One more each than the connections: else the client's own want of them would look like the server's."""
    for threads, status in (("60", 2), ("1", 1)):
        done = subprocess.run(["sh", "-c", 'ulimit -n 650; exec "$0" "$@"', BENCH, "-c", "600", "-t", threads, "-n", "1", "127.0.0.1", "1"], text=True,
                              capture_output=True, check=False)
        assert done.returncode == status and ("ulimit -n" in done.stderr) == (status == 2), done
        assert "Too many open files" not in done.stdout


def test_one_that_hangs_takes_no_time_of_the_others():
    """The rate is that of those who were answered, while they were."""
    number = itertools.count()
    silent = set()

    class OneSilent(Faulty):
        def serve(self, sock):
            if next(number) == 2:
                silent.add(sock)
                return
            super().serve(sock)

    for how, most in ((["-n", 2000], 4), (["-d", 1], 1.5)):
        number = itertools.count()
        done = bench("-c", 4, *how, "--timeout", 6, "--json", port=OneSilent(lambda data: data).port)
        result = json.loads(done.stdout)
        assert done.returncode == 1 and result["errors"]["unanswered"] == 1 and result["errors"]["first"] == "no answer in time"
        assert 0 < result["seconds"] < most, result


def test_connects_that_hang_take_no_time():
    """They are given up before the first message: no time has passed for those, and none is negative."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # its queue is full
            done = bench("-c", 2, "-n", 1, "--timeout", 2, "--json", port=port)
    result = json.loads(done.stdout)
    assert done.returncode == 1 and result["errors"]["unanswered"] == 2 and 0 < result["seconds"] < 5, result


def test_nothing_to_hold():
    """Where no connection is open nobody waits for the end of what is held."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    done = bench("-c", 2, "-n", 1, "--hold", port=port)
    assert done.returncode == 1 and "nothing to hold" in done.stderr


@pytest.mark.parametrize("program", ["bench", "htstress", "tcpdrop", "user-echo-server", "user-http-server"])
def test_help_that_cannot_be_written(program):
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([TOP / "userspace" / program, "-h"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1 and "cannot write" in done.stderr


def test_a_state_of_no_letters():
    done = subprocess.run([TOP / "userspace" / "tcpdrop", "-l", "-s", ""], text=True, capture_output=True, check=False)
    assert done.returncode == 2 and "'' is not a state" in done.stderr


def test_the_splice_peer(tmp_path):
    """It outlives a client that goes with answers unread, and answers what comes in more pieces than its pipe has places."""
    program = tmp_path / "splice"
    lib = TOP / "userspace" / "lib"
    subprocess.run(["gcc", "-D_GNU_SOURCE", f"-I{lib}", TOP / "tests/peers/splice-echo-server.c", lib / "server.c", lib / "util.c", "-o", program], check=True)
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    server = subprocess.Popen([program, "-p", str(port)])
    try:
        wait_for(port)
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", port)) as s:
                for _ in range(20):
                    with contextlib.suppress(ConnectionError):
                        s.sendall(b"y" * 20000)
        assert server.poll() is None
        pair = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(2)]
        for s in pair:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            s.sendall(b"x")
            assert s.recv(1) == b"x"
        os.kill(server.pid, signal.SIGSTOP)
        for _ in range(1000):  # in turns, so that they do not come to lie side by side in memory
            for s in pair:
                s.sendall(b"z" * 20)
        os.kill(server.pid, signal.SIGCONT)
        for s in pair:
            left = 20000
            while left:
                got = len(s.recv(left))
                assert got
                left -= got
    finally:
        server.kill()
        server.wait()


def test_all_are_released_at_once():
    """Also where threads share them unevenly: no connect waits for another's."""
    def under_way():
        return sum(line.split()[2].endswith(f":{port:04X}") and line.split()[3] == "02" for line in Path("/proc/net/tcp").read_text().splitlines()[1:])

    with socket.socket() as listener, contextlib.ExitStack() as held:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        held.enter_context(socket.create_connection(("127.0.0.1", port)))  # its queue is full: whoever comes waits
        client = subprocess.Popen([BENCH, "--burst", "-c", "7", "-t", "4", "--timeout", "20", "127.0.0.1", str(port)], stdout=subprocess.DEVNULL)
        held.callback(client.wait)
        held.callback(client.kill)
        end = time.monotonic() + 10
        while under_way() < 7:
            assert time.monotonic() < end, under_way()
            time.sleep(0.05)


def test_a_baseline_without_files_rests(tmp_path):
    """It takes no CPU while it can accept nobody, and accepts again when it can."""
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    server = subprocess.Popen(["sh", "-c", f"ulimit -n 20; exec {TOP}/userspace/user-echo-server -a 127.0.0.1 -p {port}"])
    try:
        wait_for(port)
        clients = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(30)]
        clients[0].sendall(b"a")
        assert clients[0].recv(1) == b"a"
        time.sleep(0.2)

        def ticks():
            return sum(map(int, Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))

        before = ticks()
        time.sleep(1)
        assert ticks() - before < 0.2 * os.sysconf("SC_CLK_TCK")
        for s in clients[:15]:
            s.close()
        clients[29].sendall(b"z")
        assert clients[29].recv(1) == b"z"
        for s in clients:
            s.close()
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def baseline():
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    server = subprocess.Popen([TOP / "userspace" / "user-echo-server", "-a", "127.0.0.1", "-p", str(port)], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    yield port
    assert server.poll() is None
    server.terminate()
    assert server.communicate()[0] == b""  # a baseline that prints what it does is measured at its printing


@pytest.mark.parametrize("args", [
    ["-c", 50, "-n", 100], ["-c", 50, "-n", 100, "--lean"], ["-c", 10, "-n", 3, "-s", 3000000],
    ["-c", 50, "-n", 5, "--reconnect"], ["-c", 200, "--burst"], ["-c", 20, "-d", 0.5],
    ["-c", 20, "-n", 50, "-t", 4],
])
def test_baseline_and_bench_agree(baseline, args):
    done = bench(*args, "--json", port=baseline)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    assert result["messages"] * result["size"] == result["bytes"] > 0
    if "-n" in args:
        assert result["messages"] == args[args.index("-c") + 1] * args[args.index("-n") + 1]
    if "--lean" not in args:
        latency = result["latency_ns"]
        assert latency["count"] == result["messages"]
        assert 0 < latency["min"] <= latency["p50"] <= latency["p99.9"] <= latency["max"]


def test_baseline_half_close(baseline):
    """A slow reader gets all that it sent, then FIN."""
    data = random.Random(1).randbytes(8 << 20)
    with socket.create_connection(("127.0.0.1", baseline)) as s:
        sender = threading.Thread(target=lambda: [s.sendall(data), s.shutdown(socket.SHUT_WR)])
        sender.start()
        time.sleep(0.5)
        got = b"".join(iter(lambda: s.recv(1 << 16), b""))
        sender.join()
    assert got == data


def test_csv_and_histogram(baseline, tmp_path):
    hist = tmp_path / "hist.csv"
    done = bench("-c", 4, "-n", 25, "--csv", "--label", 'a "b", c', "--hist", hist, port=baseline)
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert len(rows) == 1 and rows[0]["label"] == 'a "b", c' and rows[0]["messages"] == "100"
    buckets = list(csv.DictReader(hist.read_text().splitlines()))
    assert sum(int(b["count"]) for b in buckets) == 100
    assert float(buckets[-1]["share"]) == 1


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def htstress(*args, port):
    return subprocess.run([HTSTRESS, *map(str, args), f"http://127.0.0.1:{port}/"], text=True, capture_output=True, check=False,
                          timeout=60)


@pytest.mark.parametrize("answer", [
    OK, b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\ncontent-length:2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2 \t\r\n\r\nok", b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nTrailer: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked \t\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 50 + OK, b"HTTP/1.1 200 OK\r\nConnection: closed\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nConnection: x, Keep-Alive\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 5000 + b"\r\nContent-Length: 0\r\n\r\n",
    *[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nok\r\n0\r\n\r\n" for size in (b"0" * 20 + b"2", b"2 ;a=b", b"2 \t")],
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"0" * 16 + b"2\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nConnection: x\r\nContent-Length: 0\r\n\r\n"])
def test_htstress_reads_answers(answer):
    done = htstress("-n", 6, "-c", 2, "-k", "--json", port=Faulty(lambda data: answer * data.count(b"\r\n\r\n")).port)
    result = json.loads(done.stdout)
    assert done.returncode == 0 and result["good"] == 6 and result["bad"] == 0, done.stdout
    done = htstress("-n", 6, "-c", 2, "-k", "-P", 3, "--json", port=Faulty(lambda data: answer * data.count(b"\r\n\r\n")).port)
    assert done.returncode == 0 and json.loads(done.stdout)["good"] == 6, done.stdout


@pytest.mark.parametrize("answer,kind", [
    (OK + b"x", "wrong_bytes"), (OK * 2, "wrong_bytes"), (OK[:-1], "unanswered"), (b"hello\r\n\r\n", "wrong_bytes"),
    (b"HTTP/1.1 200 OK\r\n\r\nok", "wrong_bytes"), (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "wrong_bytes"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "wrong_bytes"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nok\r\n0\r\n\r\n", "wrong_bytes"),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", "wrong_bytes"), (None, "closed_early"),
    *[(b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\nok" % n, "wrong_bytes") for n in (b"+2", b"-1", b"0x2", b"2 2", b"")],
    *[(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\nok\r\n0\r\n\r\n" % n, "wrong_bytes") for n in (b"+2", b"-1", b"0x2", b"")],
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n", "wrong_bytes"),
    *[(line + b"\r\nContent-Length: 0\r\n\r\n", "wrong_bytes") for line in (
        b"HTTP/1.1 2000 OK", b"HTTP/1.1 200OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 099 OK", b"HTTP/1.  1 200 OK", b"HTTP/1.99 200 OK",
        b"HTTP/1.a 200 OK", b"HTTP/2.0 200 OK", b"HTTP/1.1  200 OK", b"http/1.1 200 OK")],
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000\r\n\r\nok", "wrong_bytes"),
    (b"HTTP/1.1 102 Processing\r\n\r\n" * 200, "wrong_bytes"),
    *[(line + b"\r\n\r\n2\r\nok\r\n0\r\n\r\n", "wrong_bytes") for line in (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked")],
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", "wrong_bytes"),
    *[(b"HTTP/1.1 200 OK\r\n%s\r\nContent-Length: 2\r\n\r\nok" % line, "wrong_bytes") for line in (
        b"Date", b":x", b"Date : x", b"A: b\r\n c: d", b" A: b", b"x" * 2000 + b": y")],
    (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "wrong_bytes"), (OK.replace(b"\r\n\r\n", b"\r\n\n"), "wrong_bytes"),
    (b"HTTP/1.1 200 OK\r\nConnection: " + b"x," * 600 + b"close\r\nContent-Length: 0\r\n\r\n", "wrong_bytes")])
def test_a_faulty_http_server_is_found_out(answer, kind):
    """Each of its answers costs a request, and the rest are asked on a new connection."""
    patience = ["--timeout", 1] if kind == "unanswered" else []
    done = htstress("-n", 6, "-c", 2, "-k", *patience, "--json", port=Faulty(lambda data: answer).port)
    result = json.loads(done.stdout)
    assert done.returncode == 1 and result["good"] == 0
    assert result["errors"][kind] == (2 if kind == "unanswered" else 6), done.stdout


class Belated(Faulty):
    """Sends more a moment after its first answer; its second comes a second later, on whichever connection."""

    def __init__(self, answer):
        self.number = itertools.count()
        super().__init__(answer)

    def serve(self, sock):
        with sock, contextlib.suppress(ConnectionError):
            data = sock.recv(65536)
            first = next(self.number) == 0
            time.sleep(0 if first else 1)
            sock.sendall(self.answer(data))
            if first:
                time.sleep(0.1)
                sock.sendall(b"more")
            sock.recv(1)


def test_what_comes_behind_the_last_answer_is_found():
    """While others are still under way; it costs the answer that it came behind."""
    result = json.loads(htstress("-n", 2, "-c", 2, "-k", "--json", port=Belated(lambda data: OK).port).stdout)
    assert (result["good"], result["errors"]["wrong_bytes"]) == (1, 1) and "more came" in result["errors"]["first"]
    result = json.loads(bench("-c", 2, "-n", 1, "--json", port=Belated(lambda data: data).port).stdout)
    assert (result["messages"], result["errors"]["wrong_bytes"]) == (1, 1)


@pytest.mark.parametrize("answer", [
    *[OK.replace(b"200 OK", b"%d x" % status) for status in (300, 301, 404, 503, 999)], b"HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\n"])
def test_bad_answers_are_counted(answer):
    done = htstress("-n", 6, "-c", 2, "-k", "--json", port=Faulty(lambda data: answer).port)
    result = json.loads(done.stdout)
    assert done.returncode == 1 and (result["good"], result["bad"]) == (0, 6)
    assert not result["errors"]["first"]
    assert result["requests_per_second"] == pytest.approx(6 / result["seconds"], rel=1e-3)


class Once(Faulty):
    """Closes behind each answer."""

    def serve(self, sock):
        with sock, contextlib.suppress(ConnectionError):
            if data := sock.recv(65536):
                sock.sendall(self.answer(data))


@pytest.mark.parametrize("answer", [
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.0 200 OK\r\nConnection: x\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"])
def test_last_answers_are_known(answer):
    """By what they say, or by their version."""
    done = htstress("-n", 6, "-c", 2, "-k", "--json", port=Once(lambda data: answer).port)
    assert done.returncode == 0 and json.loads(done.stdout)["good"] == 6, done.stdout


def test_percentages_of_a_hundred_are_of_all():
    number = itertools.count()
    done = htstress("-n", 1000, "-k", port=Faulty(lambda data: OK.replace(b"200", b"404") if next(number) == 500 else OK).port)
    assert "good requests: 999 [99%]" in done.stdout and "bad requests:  1 [0%]" in done.stdout, done.stdout


def test_latency_is_that_of_the_answers():
    """Not of the connects; in each form of output."""
    port = Faulty(lambda data: time.sleep(0.03) or OK).port
    result = json.loads(htstress("-n", 20, "-k", "--json", port=port).stdout)
    assert result["latency_ns"]["count"] == 20 and result["connect_ns"]["count"] == 1
    assert result["latency_ns"]["min"] >= 30e6 > result["connect_ns"]["max"]
    text = htstress("-n", 20, "-k", port=port).stdout
    assert float(re.search(r"^latency +min ([0-9.]+) ", text, re.M)[1]) >= 30e3, text
    row = next(csv.DictReader(htstress("-n", 20, "-k", "--csv", port=port).stdout.splitlines()))
    assert float(row["latency_p50_ns"]) >= 30e6 > float(row["connect_p50_ns"]), row


def test_socket_errors_in_csv():
    done = htstress("-n", 40, "-c", 2, "-k", "--csv", port=Resetting(3).port)
    row = next(csv.DictReader(done.stdout.splitlines()))
    assert (row["good"], row["bad"], row["socket_errors"]) == ("30", "0", "10")


def test_error_kinds_in_csv():
    """Each by itself, as in JSON."""
    for answer, kind in ((OK, None), (b"GARBAGE\r\n", "wrong_bytes"), (None, "closed_early")):
        server = Faulty(lambda data, answer=answer: answer)
        row = next(csv.DictReader(htstress("-n", 3, "-k", "--csv", port=server.port).stdout.splitlines()))
        errors = {name: int(row[name]) for name in ("connect_failed", "broken", "closed_early", "wrong_bytes", "unanswered")}
        assert sum(errors.values()) == int(row["socket_errors"]) == errors.get(kind, 0) == (3 if kind else 0), row


def test_what_was_not_measured(baseline):
    """Is null in JSON and empty in CSV, no latency of 0."""
    for program, more, port in ((htstress, ["-k"], Faulty(lambda data: OK).port), (bench, [], baseline)):
        result = json.loads(program("-n", 3, "--lean", "--json", *more, port=port).stdout)
        assert result["latency_ns"] is None, result
        row = next(csv.DictReader(program("-n", 3, "--lean", "--csv", *more, port=port).stdout.splitlines()))
        assert row["latency_p50_ns"] == "" and row["unanswered"] == "0", row
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    for program in htstress, bench:
        assert re.search(r"^latency +not measured$", program("-n", 2, port=port).stdout, re.M)


def test_percentiles(baseline, tmp_path):
    """So many of the values, or more, are no larger, and fewer than so many are smaller."""
    number = itertools.count()
    port = Faulty(lambda data: time.sleep(0.3 if next(number) % 600 == 300 else 0) or OK).port
    result = json.loads(htstress("-n", 600, "-k", "--json", port=port).stdout)["latency_ns"]
    assert result["p99.9"] >= 300e6 > result["p99"], result  # one of 600 is more than a thousandth
    program = tmp_path / "hist"
    (tmp_path / "hist.c").write_text('#include <stdlib.h>\n#include <stdio.h>\n#include "hist.h"\nint main(int argc, char **argv)\n{\n\tstatic struct hist h;\n'
                                     '\tfor (int i = 1; i < argc; i++)\n\t\thist_add(&h, atoi(argv[i]));\n\thist_json(&h, stdout);\n}\n')
    subprocess.run(["gcc", f"-I{TOP}/userspace/lib", tmp_path / "hist.c", TOP / "userspace/lib/hist.c", "-o", program], check=True)
    for values in ([7], [1, 2], [10] * 5 + [50], list(range(1, 65)), [3] * 99 + [9], [3] * 999 + [9], [3] * 1001 + [9]):
        said = json.loads(subprocess.run([program, *map(str, values)], check=True, capture_output=True, text=True).stdout)
        for name, share in (("p50", 500), ("p90", 900), ("p99", 990), ("p99.9", 999)):
            rank = max(1, -(-len(values) * share // 1000))
            assert said[name] == sorted(values)[rank - 1], (name, values, said)


@pytest.mark.parametrize("program,more", [(HTSTRESS, ["-k"]), (BENCH, [])])
def test_a_result_that_cannot_be_written(baseline, program, more):
    """Is no success; whatever was measured, nobody has it."""
    port = baseline if program == BENCH else Faulty(lambda data: OK).port
    with open("/dev/full", "w", encoding="ascii") as full:
        address = ["127.0.0.1", str(port)] if program == BENCH else [f"127.0.0.1:{port}"]
        done = subprocess.run([program, "-n", "3", *more, "--json", *address], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2 and "cannot be written" in done.stderr


def test_label_that_is_not_utf8(baseline):
    done = subprocess.run([HTSTRESS, "--label", b"\xff", "localhost"], capture_output=True, check=False)
    assert done.returncode == 2 and b"--label" in done.stderr and b"UTF-8" in done.stderr
    done = bench("-n", 1, "--json", "--label", "Größe", port=baseline)
    assert json.loads(done.stdout)["label"] == "Größe"


def test_progress_on_a_terminal():
    """Is shown, and gone at the end; elsewhere nobody sees any."""
    leader, follower = pty.openpty()
    command = [HTSTRESS, "-n", "20", "-k", f"http://127.0.0.1:{Faulty(lambda data: time.sleep(0.03) or OK).port}/"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=follower, timeout=60)
    shown = ""
    while not shown.endswith("\r\033[K") and select.select([leader], [], [], 10)[0]:  # a terminal hands on what it has bit by bit
        shown += os.read(leader, 1 << 16).decode()
    os.close(follower)
    os.close(leader)
    assert re.search(r"\r +[0-9.]+ s  [1-9]\d* answers ", shown) and shown.endswith("\r\033[K"), shown
    assert subprocess.run(command, check=True, capture_output=True, timeout=60).stderr == b""


class Dripping(Faulty):
    """Its answer comes by a byte now and then."""

    def serve(self, sock):
        with sock, contextlib.suppress(ConnectionError):
            sock.recv(65536)
            for byte in OK.replace(b"2\r", b"9999\r") + b"x" * 9999:
                sock.sendall(bytes([byte]))
                time.sleep(0.1)


def test_a_drip_does_not_go_on_for_ever():
    """What is under way when the time is over is waited for as long as --timeout says."""
    done = htstress("-d", 1, "-k", "--timeout", 2, "--json", port=Dripping(None).port)
    result = json.loads(done.stdout)
    assert done.returncode == 1 and result["errors"]["unanswered"] == 1 and 2.5 < result["seconds"] < 15, done.stdout


def test_without_keepalive_the_server_has_to_close():
    done = htstress("-n", 2, "-c", 2, "--timeout", 1, "--json", port=Faulty(lambda data: OK).port)
    assert done.returncode == 1 and json.loads(done.stdout)["errors"]["unanswered"] == 2


class Closing(Faulty):
    """Answers so many requests of a connection, the last with "Connection: close" if it is to say so, then after a
    while closes; and begins each connection late, by a function of its number."""

    def __init__(self, most, says=True, after=0.0, late=lambda n: 0):
        self.most, self.says, self.after, self.late, self.served = most, says, after, late, 0
        super().__init__(None)

    def serve(self, sock):
        self.served += 1
        with sock, contextlib.suppress(ConnectionError):
            time.sleep(self.late(self.served))
            left = self.most
            while left and (data := sock.recv(65536)):
                asked = min(left, data.count(b"\r\n\r\n"))
                left -= asked
                last = OK if left or not self.says else OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
                sock.sendall(OK * (asked - 1) + last)
            time.sleep(self.after)


@pytest.mark.parametrize("depth", [1, 3, 16])
def test_a_server_may_close_in_the_middle_of_what_was_asked(depth):
    """It said so: what it did not answer is asked again, on a new connection, and nothing is lost."""
    server = Closing(7)
    done = htstress("-n", 100, "-c", 2, "-k", "-P", depth, "--json", port=server.port)
    result = json.loads(done.stdout)
    assert done.returncode == 0 and result["good"] == 100, done.stdout
    assert server.served == 16  # fifty requests for each, seven a connection


def test_a_server_that_does_not_say_so_may_not():
    done = htstress("-n", 100, "-c", 2, "-k", "-P", 16, "--json", port=Closing(7, says=False).port)
    assert done.returncode == 1 and json.loads(done.stdout)["errors"]["closed_early"] > 0


def test_a_connection_that_is_done_costs_nothing():
    """One is done and closed by the server, the other's answer takes two seconds: nobody spins."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime + resource.getrusage(resource.RUSAGE_CHILDREN).ru_stime
    done = htstress("-n", 2, "-c", 2, "-k", "--json", port=Closing(1, says=False, late=lambda n: 2 * (n == 2)).port)
    after = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime + resource.getrusage(resource.RUSAGE_CHILDREN).ru_stime
    assert done.returncode == 0 and json.loads(done.stdout)["good"] == 2, done.stdout
    assert after - before < 0.5


@pytest.mark.parametrize("args", [["-k"], [], ["-k", "-P", "4"]])
def test_connects_that_fail_cost_a_request_each(args):
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    done = htstress("-n", 100, "-c", 10, *args, "--json", port=port)
    assert done.returncode == 1 and json.loads(done.stdout)["errors"]["connect"] == 100, done.stdout


def test_connects_that_fail_at_once():
    """Of an address that nobody may connect to the system says so without asking: that is no reason to wait."""
    done = subprocess.run([HTSTRESS, "-n", "5", "--json", "http://255.255.255.255/"], text=True, capture_output=True,
                          check=False, timeout=20)
    assert done.returncode == 1 and json.loads(done.stdout)["errors"]["connect"] == 5, done.stdout


def test_connections_that_end_before_all_are_made():
    """Each is made again, and all requests are accounted for."""
    server = Closing(0)
    done = htstress("-n", 1000, "-c", 200, "-k", "--timeout", 10, "--json", port=server.port)
    result = json.loads(done.stdout)["errors"]
    assert done.returncode == 1
    assert result["unanswered"] == 0 and result["closed_early"] + result["broken"] + result["connect"] == 1000, done.stdout


class Resetting(Faulty):
    """Answers so many requests of a connection, begins to answer the next, and resets."""

    def __init__(self, most):
        self.most = most
        self.asked = 0
        super().__init__(None)

    def serve(self, sock):
        with sock, contextlib.suppress(ConnectionError):
            left = self.most
            while data := sock.recv(65536):
                asked = data.count(b"\r\n\r\n")
                self.asked += asked
                sock.sendall(OK * min(left, asked) + OK[:10] * (asked > left))
                if asked > left:
                    break
                left -= asked
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize("args", [["-k"], [], ["-k", "-P", "4"], ["-k", "-P", "16"]])
def test_connections_that_are_reset_cost_what_was_sent_together(args):
    """Each request is an error, and none of them is sent twice: not even those whose answers came before the reset."""
    server = Resetting(3 if "16" in args else 0)
    done = htstress("-n", 160, "-c", 1, *args, "--json", port=server.port)
    result = json.loads(done.stdout)
    assert done.returncode == 1 and result["good"] == 0
    assert result["errors"]["broken"] == server.asked == 160 and "reset" in result["errors"]["first"], done.stdout


def test_what_was_answered_before_a_reset_is_good():
    done = htstress("-n", 40, "-c", 2, "-k", "--json", port=Resetting(3).port)
    result = json.loads(done.stdout)
    assert done.returncode == 1 and (result["good"], result["errors"]["broken"]) == (30, 10), done.stdout


@pytest.mark.parametrize("args", [["-k"], [], ["-k", "-P", "4"]])
def test_duration_of_htstress(args):
    """It goes on for as long as was said, and what is then under way is no error."""
    server = Faulty(lambda data: OK * data.count(b"\r\n\r\n")) if args else Closing(1)
    done = htstress("-d", 1, "-c", 3, *args, "--json", port=server.port)
    result = json.loads(done.stdout)
    assert done.returncode == 0 and result["good"] > 3 and result["bad"] == 0, done.stdout
    assert 1 <= result["seconds"] < 3 and not result["errors"]["first"], done.stdout


@pytest.mark.parametrize("args,host", [
    ([], "127.0.0.1:PORT"), (["--host", "example.org"], "example.org"), (["--host", "[::1]:99"], "[::1]:99"), (["-4"], "127.0.0.1:PORT")])
def test_host_field_of_htstress(args, host):
    """It is the URL's host and port, as RFC 9112 section 3.2 wants it, or what was said."""
    asked = []
    server = Faulty(lambda data: asked.append(data) or OK)
    assert htstress("-n", 1, "-k", *args, port=server.port).returncode == 0
    assert asked == [f"GET / HTTP/1.1\r\nHost: {host.replace('PORT', str(server.port))}\r\n\r\n".encode()]


def test_a_fragment_is_not_asked_for():
    asked = []
    port = Faulty(lambda data: asked.append(data) or OK).port
    for url in (f"127.0.0.1:{port}/x?y#z/", f"127.0.0.1:{port}#z"):
        subprocess.run([HTSTRESS, "-n", "1", "-k", f"http://{url}"], check=True, capture_output=True, timeout=60)
    assert [data.split(b" ")[1] for data in asked] == [b"/x?y", b"/"]


@pytest.mark.parametrize("family,address", [("-4", "[::1]"), ("-6", "127.0.0.1")])
def test_an_address_of_the_other_family(family, address):
    done = subprocess.run([HTSTRESS, "-n", "1", family, f"http://{address}:1/"], text=True, capture_output=True, check=False)
    assert done.returncode == 2 and address.strip("[]") in done.stderr, done.stderr


@pytest.mark.parametrize("args,says", [
    (["-n", "0", "a"], "'0'"), (["-P", "2", "a"], "-P needs -k"), (["-n", "1", "-d", "1", "a"], "-n and -d"), ([], "URL"),
    (["-n", " -5", "a"], "' -5'"), (["-n", " 5", "a"], "' 5'"), (["-n", "+5", "a"], "'+5'"), (["--lean", "--hist", "f", "127.0.0.1:1"], "--hist"),
    (["a", "b"], "'b'"), (["https://a/"], "https://a/"), (["ftp://a/"], "only http://"), (["ftp://a:80/"], "only http://"), (["http://"], "http://"), (["http://a:/"], "http://a:/"),
    (["[::1"], "[::1"), (["http://[::1]x/"], "[::1]x"), (["http://nowhere.invalid/"], "nowhere.invalid"), (["--hold", "a"], "--hold"),
    *[([f"http://127.0.0.1:{port}/"], f"'{port}'") for port in ("0", "65536", "99999", "http", "-1", "8O")]])
def test_bad_usage_of_htstress(args, says):
    done = subprocess.run([HTSTRESS, *args], text=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr
