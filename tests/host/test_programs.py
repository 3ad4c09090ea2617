# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that bench notices whatever an echo server does wrong, and that the baseline is sound."""

import contextlib
import csv
import json
import random
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
BENCH = TOP / "userspace" / "bench"


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
    done = bench("-c", 3, "-n", 5, "--timeout", 1, "--json", port=server.port)
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
])
def test_bad_usage(args, says):
    done = subprocess.run([BENCH, *args], text=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert says in done.stderr


@pytest.fixture
def baseline():
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    server = subprocess.Popen([TOP / "userspace" / "user-echo-server", "-a", "127.0.0.1", "-p", str(port)])
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            time.sleep(0.05)
    yield port
    assert server.poll() is None
    server.terminate()
    server.wait()


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
