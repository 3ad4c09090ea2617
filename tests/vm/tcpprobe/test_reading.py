# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that read_data.py reads the probe to its end, whichever way that comes, and reload_module.sh."""

import csv
import os
import pty
import re
import signal
import socket
import subprocess
import time

import pytest
from lib import KO_DIR, TOP, insmod, rmmod, scaled, sh
from records import STAT, SYSCTL, samples

pytestmark = pytest.mark.boot(clock="turns")

READ_DATA = TOP / "userspace" / "read_data.py"
RELOAD = TOP / "tcpprobe" / "reload_module.sh"


@pytest.fixture(name="probe")
def with_room(probe):
    probe(bufsize=1 << 14)


def reading(folder, *args, **kw):
    """Starts it, and returns once the hooks are armed."""
    process = subprocess.Popen([READ_DATA, *args], cwd=folder, text=True, stdout=subprocess.PIPE,
                               **{"stderr": subprocess.PIPE, **kw})
    end = time.monotonic() + 60
    while " armed missed" not in STAT.read_text():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    return process


def traffic(rounds):
    with socket.create_server(("127.0.0.1", 0)) as listener, \
         socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as served:
        for _ in range(rounds):
            client.sendall(b"q" * 100)
            served.recv(100)
            served.sendall(b"a" * 200)
            client.recv(200)
        return client.getsockname()[1], listener.getsockname()[1]


def summary(folder):
    with open(folder / "output" / "summary.csv", newline="", encoding="ascii") as f:
        return list(csv.DictReader(f))


@pytest.mark.smoke
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_everything_is_in_the_files(probe, tmp_path, how):
    """Every sample taken is a record, in the raw log, in the flows' files and in the summary."""
    process = reading(tmp_path, "--rotate", "20K")
    rounds = scaled(400, 8)
    client, server = traffic(rounds)
    time.sleep(0.5)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    counted = samples()
    logs = sorted((tmp_path / "output").glob("tcpprobe-*.log"))
    raw = b"".join(log.read_bytes() for log in logs)
    lines = [line for line in raw.decode().splitlines() if not line.startswith("#")]
    assert len(logs) > 1 and all(log.stat().st_size <= 20 << 10 for log in logs)
    assert len(lines) == counted["read"] == counted["taken"] - counted["lost"] - counted["discarded"]
    flows = summary(tmp_path)
    assert sum(int(flow["records"]) for flow in flows) == len(lines)
    ours = {flow["local"]: flow for flow in flows
            if {flow["local"], flow["remote"]} == {f"127.0.0.1:{client}", f"127.0.0.1:{server}"}}
    assert (ours[f"127.0.0.1:{client}"]["sent (B)"], ours[f"127.0.0.1:{client}"]["received (B)"]) == (
        str(100 * rounds), str(200 * rounds))
    for flow in flows:
        rows = (tmp_path / "output" / flow["file"]).read_bytes()
        assert rows.count(b"\r\n") == int(flow["records"]) + 1 and rows.endswith(b"\r\n")
    assert "Samples: taken" in (tmp_path / "output" / "statistics.txt").read_text()
    assert " armed missed" in (tmp_path / "output" / "statistics.txt").read_text()
    assert f"{len(lines):,} records" in out


def test_the_log_can_be_worked_on_again(probe, tmp_path):
    process = reading(tmp_path)
    traffic(20)
    time.sleep(0.5)
    process.terminate()
    process.communicate(timeout=60)
    first = summary(tmp_path)
    sh(READ_DATA, "--follow", "output/tcpprobe-0001.log", "-o", "again", cwd=tmp_path)
    assert (tmp_path / "again" / "summary.csv").read_text() == (tmp_path / "output" / "summary.csv").read_text()
    assert first


def test_only_so_many_raw_logs_are_kept(probe, tmp_path):
    process = reading(tmp_path, "--rotate", "4K", "--keep", "2")
    traffic(200)
    time.sleep(0.5)
    process.terminate()
    process.communicate(timeout=60)
    names = sorted(p.name for p in (tmp_path / "output").glob("tcpprobe-*.log"))
    assert len(names) == 2 and int(names[-1][9:13]) > 5
    assert sum(int(flow["records"]) for flow in summary(tmp_path)) == samples()["read"]


def test_unloaded_while_it_reads(probe, tmp_path):
    process = reading(tmp_path)
    traffic(20)
    end = time.monotonic() + 60
    while (counted := samples())["read"] < counted["taken"]:
        assert time.monotonic() < end, counted
        time.sleep(0.05)
    rmmod("tcpprobe")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "unloaded" in err and "Traceback" not in err
    assert len(summary(tmp_path)) >= 2


def test_duration(probe, tmp_path):
    process = reading(tmp_path, "--duration", "1")
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_progress_on_a_terminal(probe, tmp_path):
    leader, follower = pty.openpty()
    process = reading(tmp_path, stderr=follower)
    traffic(20)
    time.sleep(2)
    process.terminate()
    process.communicate(timeout=60)
    os.close(follower)
    said = os.read(leader, 1 << 16).decode()
    os.close(leader)
    assert re.search(r"\r +\d+\.\d s  [1-9][\d,]* records  \d+ flows  0 lost", said), said


def test_what_is_wrong_is_said(tmp_path):
    done = sh(READ_DATA, cwd=tmp_path, check=False)
    assert done.returncode == 2 and "reload_module.sh" in done.stderr
    insmod(KO_DIR / "tcpprobe.ko")
    try:
        tmp_path.chmod(0o777)
        done = sh("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", READ_DATA, "-o", "/dev/shm/out",
                  check=False)
        assert done.returncode == 2 and "/proc/net/tcpprobe" in done.stderr and "CAP_NET_ADMIN" in done.stderr
    finally:
        rmmod("tcpprobe")
    assert not list(tmp_path.iterdir())


@pytest.mark.smoke
def test_reload_module():
    try:
        for args, port in ((["0"], 0), (["4242", "bufsize=100"], 4242)):
            done = sh("bash", RELOAD, *args)
            assert (SYSCTL / "port").read_text().strip() == str(port)
            assert "read_data.py" in done.stdout
        assert (SYSCTL / "bufsize").read_text().strip() == "100"
        for bad in ([], ["65536"], ["-1"], ["http"], ["1", "bufsize"], ["1", "a=b;c"]):
            done = sh("bash", RELOAD, *bad, check=False)
            assert done.returncode == 2 and (not bad or bad[-1] in done.stderr)
        assert (SYSCTL / "port").read_text().strip() == "4242"
    finally:
        rmmod("tcpprobe")
