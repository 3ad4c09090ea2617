# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves what read_data.py makes of a recorded log. That it reads the probe is tested in tests/vm/tcpprobe/test_reading.py."""

import contextlib
import csv
import errno
import fcntl
import importlib.util
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
import textwrap
import threading
import time
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
READ_DATA = TOP / "userspace" / "read_data.py"
RECV, SEND, TIMEOUT, SETUP, DONE, PURGE = range(6)


def record(kind, t, sport=5000, dport=80, saddr="10.0.0.1", daddr="10.0.0.2", length=0, flags=0x10, **values):
    """A line; fields that are not given have values that tell them apart."""
    fields = {"seq": 1, "ack": 2, "ca_state": 0, "snd_nxt": 100, "snd_una": 40, "write_seq": 150, "wqueue": 110,
              "snd_cwnd": 10, "ssthresh": 2147483647, "snd_wnd": 65535, "srtt": 160000, "mdev": 4002, "rttvar": 8001,
              "rto": 204, "packets_out": 3, "lost_out": 0, "sacked_out": 1, "retrans_out": 0, "retrans": 0,
              "frto_counter": 0, "rto_num": 0, "sk_pacing_rate": 123456}
    assert not values.keys() - fields.keys()
    fields.update(values)
    return (f"{kind} {t:.9f} {saddr} {sport} {daddr} {dport} {length} {flags:#x} "
            + " ".join(str(v) for v in fields.values()))


def read_data(folder, lines, *args, status=0):
    """Runs it on a log of these lines."""
    (folder / "log").write_text("".join(line + "\n" for line in lines) if isinstance(lines, list) else lines)
    done = subprocess.run([READ_DATA, "--follow", "log", *args], cwd=folder, text=True, capture_output=True, check=False)
    assert done.returncode == status, done.stderr
    return done


def summary(folder):
    with open(folder / "output" / "summary.csv", newline="", encoding="ascii") as f:
        return list(csv.DictReader(f))


def test_csv_of_a_flow(tmp_path):
    """RFC 4180: CR LF behind every row, the header too, which names units; values are in those."""
    read_data(tmp_path, [record(SETUP, 0.5), record(SEND, 1, length=1448), record(DONE, 2, length=65535, sk_pacing_rate=(1 << 64) - 1)])
    (path,) = tmp_path.glob("output/flow-*.csv")
    assert path.name == "flow-0001_10.0.0.1_5000_10.0.0.2_80.csv"
    data = path.read_bytes()
    assert data.count(b"\r\n") == data.count(b"\n") == 4 and data.endswith(b"\r\n")
    rows = list(csv.DictReader(data.decode().splitlines()))
    assert [row["type"] for row in rows] == ["setup", "send", "done"]
    assert rows[1]["time (s)"] == "1.000000000" and rows[1]["length (B)"] == "1448"
    assert (rows[1]["srtt (us)"], rows[1]["mdev (us)"], rows[1]["rttvar (us)"]) == ("20000", "1000.5", "2000.25")
    assert (rows[1]["rto (ms)"], rows[1]["snd_cwnd (segments)"], rows[1]["sk_pacing_rate (B/s)"]) == ("204", "10", "123456")
    assert (rows[1]["snd_nxt (B)"], rows[1]["snd_una (B)"], rows[1]["wqueue (B)"]) == ("100", "40", "110")
    assert rows[2]["sk_pacing_rate (B/s)"] == ""  # not paced
    assert (rows[1]["packets_out (segments)"], rows[1]["sacked_out (segments)"]) == ("3", "1")


def test_summary(tmp_path):
    """Against figures worked out by hand."""
    done = read_data(tmp_path, [
        record(SETUP, 1, seq=2, snd_nxt=1),
        record(SEND, 1.5, length=1000, seq=1, snd_cwnd=10, srtt=80000),
        record(SEND, 1.6, length=1000, seq=1001, snd_cwnd=20, srtt=160000),
        record(TIMEOUT, 2, snd_cwnd=1, lost_out=2, srtt=160000),
        record(SEND, 2.1, length=1000, seq=1, snd_cwnd=1, lost_out=2, retrans=1, srtt=160000),
        record(RECV, 2.2, length=500, seq=2, snd_cwnd=2, lost_out=1, retrans=2, srtt=400000),
        record(RECV, 2.3, length=500, seq=502, snd_cwnd=30, lost_out=3, retrans=2, srtt=400000),
        "# lost 5",
        record(DONE, 4, length=65535, ack=1002, snd_cwnd=30, lost_out=0, retrans=2, srtt=400000)])
    (flow,) = summary(tmp_path)
    assert (flow["local"], flow["remote"]) == ("10.0.0.1:5000", "10.0.0.2:80")
    assert float(flow["duration (s)"]) == 3
    assert (flow["sent (B)"], flow["received (B)"]) == ("2000", "1000")
    assert (flow["retransmitted (segments)"], flow["timeouts"], flow["lost (segments)"]) == ("2", "1", "4")
    assert [float(flow[f"srtt {w} (us)"]) for w in ("min", "median", "max")] == [10000, 20000, 50000]
    assert [float(flow[f"cwnd {w} (segments)"]) for w in ("min", "median", "max")] == [1, 10, 30]
    assert "8 records of 1 flows, 5 lost" in done.stdout


def test_median_is_exact_to_three_digits(tmp_path):
    read_data(tmp_path, [record(RECV, n, srtt=8 * (100000 + 7 * n), snd_cwnd=n + 1) for n in range(999)])
    (flow,) = summary(tmp_path)
    assert flow["cwnd median (segments)"] == "500"
    assert abs(float(flow["srtt median (us)"]) / (100000 + 7 * 499) - 1) < 0.005
    assert float(flow["srtt max (us)"]) == 100000 + 7 * 998


@pytest.mark.parametrize("second", [
    [record(SEND, 3, flags=2)], [record(SETUP, 3)], [record(RECV, 3)]], ids=["syn", "setup", "anything"])
def test_ports_used_again_are_another_flow(tmp_path, second):
    read_data(tmp_path, [record(SETUP, 1), record(DONE, 2), *second])
    assert [flow["records"] for flow in summary(tmp_path)] == ["2", "1"]
    assert len(list(tmp_path.glob("output/flow-*.csv"))) == 2


def test_a_lost_end_does_not_join_flows(tmp_path):
    """The record of a connection's end may be among the lost; the next one's SYN still tells."""
    read_data(tmp_path, [record(SEND, 0.9, flags=2), record(SETUP, 1), record(RECV, 2), "# lost 1",
                         record(SEND, 3, flags=2), record(SETUP, 3.1)])
    assert [flow["records"] for flow in summary(tmp_path)] == ["3", "2"]


def test_a_flow_joined_late_ends_at_the_next_syn(tmp_path):
    """Its end was lost; it was not seen to begin either."""
    read_data(tmp_path, [record(RECV, 1), record(SEND, 2, length=10), record(SEND, 3, flags=2, seq=0), record(SEND, 3.5, flags=2, seq=0),
                         record(SETUP, 4, flags=0x12)])
    assert [flow["records"] for flow in summary(tmp_path)] == ["2", "3"]


def test_a_purge_is_not_when_it_ended(tmp_path):
    read_data(tmp_path, [record(SETUP, 1), record(SEND, 2, length=10), record(PURGE, 302)])
    assert [flow["duration (s)"] for flow in summary(tmp_path)] == ["1.0"]


def test_a_purged_flow_has_no_values(tmp_path):
    read_data(tmp_path, [record(SETUP, 1), record(PURGE, 400, snd_cwnd=0, srtt=0)])
    (flow,) = summary(tmp_path)
    assert flow["cwnd min (segments)"] == "10"


def test_both_families(tmp_path):
    read_data(tmp_path, [record(RECV, 1, saddr="2001:db8::1", daddr="fe80::2"), record(RECV, 2)])
    assert {f.name for f in tmp_path.glob("output/flow-*.csv")} == {
        "flow-0001_2001-db8--1_5000_fe80--2_80.csv", "flow-0002_10.0.0.1_5000_10.0.0.2_80.csv"}
    assert summary(tmp_path)[0]["local"] == "[2001:db8::1]:5000"


def test_more_than_four_gigabytes(tmp_path):
    """Sequence numbers wrap; also right at the start, and with what comes out of order."""
    step = 1 << 28
    numbers = [(1 + n * step) % (1 << 32) for n in range(40)]
    numbers[3], numbers[4] = numbers[4], numbers[3]
    read_data(tmp_path, [record(SEND, n, length=step, seq=number, snd_nxt=number) for n, number in enumerate(numbers)])
    assert summary(tmp_path)[0]["sent (B)"] == str(40 * step)


def test_what_was_not_sampled_is_counted(tmp_path):
    """With full=0 or probetime few segments have a record; what the others acknowledge and follow tells of the rest."""
    read_data(tmp_path, [record(SEND, 0, flags=2, seq=0, ack=0, snd_nxt=0, srtt=0), record(SETUP, 1, flags=0x12, seq=0, ack=1, snd_nxt=1),
                         record(SEND, 2, length=1000, seq=500001, ack=1, snd_nxt=500001),
                         record(RECV, 3, length=1000, seq=3001, ack=600001, snd_nxt=700001),
                         record(DONE, 4, length=65535, seq=1000001, ack=20001, snd_nxt=1000001)])
    (flow,) = summary(tmp_path)
    assert (flow["sent (B)"], flow["received (B)"]) == ("1000000", "20000")
    assert (flow["duration (s)"], flow["records"]) == ("4.0", "5")


@pytest.mark.parametrize("received,lines", [
    (1000000, [record(SETUP, 1, flags=0x12, seq=0, ack=1, snd_nxt=1)]),
    (1000001, [record(SETUP, 1, seq=0, ack=1, snd_nxt=1)]),
    (10000, [record(SETUP, 1, flags=0, seq=0, ack=990001, snd_nxt=1)]),
    (20000, [record(SEND, 1, seq=1, ack=980001, snd_nxt=1)]),
    (1000000, [record(SETUP, 0.5, flags=0x12, seq=0, ack=1, snd_nxt=1), record(SEND, 1, seq=1, ack=500001, snd_nxt=1)]),
], ids=["client", "server", "restored", "joined late", "sampled late"])
def test_where_the_peer_begins(tmp_path, received, lines):
    """With full=0 a connection that only receives may have no more than its beginning and its end sampled."""
    read_data(tmp_path, [*lines, record(DONE, 4, length=65535, ack=1000001, snd_nxt=1)])
    assert [flow["received (B)"] for flow in summary(tmp_path)] == [str(received)]


def test_a_lost_syn_is_no_byte(tmp_path):
    """While a client has no answer its time-outs expect nothing of the peer: 0 is not where that begins."""
    read_data(tmp_path, [record(SEND, 0, flags=2, seq=0, ack=0, snd_nxt=0), record(TIMEOUT, 1, flags=0, seq=0, ack=0, snd_nxt=1),
                         record(SEND, 1, flags=2, seq=0, ack=0, snd_nxt=1), record(SETUP, 2, flags=0x12, seq=0, ack=1, snd_nxt=1),
                         record(RECV, 3, length=1000, seq=1, ack=1, snd_nxt=1), record(DONE, 4, length=65535, seq=1, ack=1001, snd_nxt=1)])
    assert [flow["received (B)"] for flow in summary(tmp_path)] == ["1000"]


def test_a_fin_is_no_byte(tmp_path):
    read_data(tmp_path, [record(SETUP, 1, seq=0, ack=0, snd_nxt=0), record(RECV, 2, length=700, seq=0, ack=0, snd_nxt=0),
                         record(SEND, 3, length=300, seq=0, ack=700, snd_nxt=0), record(RECV, 4, flags=0x11, seq=700, ack=300, snd_nxt=300),
                         record(SEND, 5, flags=0x11, seq=300, ack=701, snd_nxt=300), record(RECV, 6, seq=701, ack=301, snd_nxt=301),
                         record(DONE, 7, length=65535, seq=301, ack=701, snd_nxt=301)])
    (flow,) = summary(tmp_path)
    assert (flow["sent (B)"], flow["received (B)"]) == ("300", "700")


@pytest.mark.parametrize("stray", [0x70000000, 0x3000000, 0xf0000000])
def test_a_stray_segment_is_nobodys(tmp_path, stray):
    """Samples are taken before TCP looks at sequence numbers: whoever guesses the ports may send any."""
    read_data(tmp_path, [record(SETUP, 1, seq=0, ack=0, snd_nxt=0), record(RECV, 2, length=700, seq=0, ack=0, snd_nxt=0),
                         record(SEND, 2.1, ack=700, seq=0, snd_nxt=0), record(RECV, 3, length=1, seq=stray, ack=0, snd_nxt=0),
                         record(RECV, 4, length=300, seq=700, ack=0, snd_nxt=0), record(SEND, 5, ack=1000, seq=0, snd_nxt=0),
                         record(DONE, 7, length=65535, seq=0, ack=1000, snd_nxt=0)])
    assert summary(tmp_path)[0]["received (B)"] == "1000"


def test_json(tmp_path):
    """A line an object, with the fields as they are in the log."""
    done = read_data(tmp_path, [record(SEND, 1.25, length=7, flags=0x18), "# lost 3"], "--json")
    (line,) = done.stdout.splitlines()
    values = json.loads(line)
    assert len(values) == 30
    assert (values["type"], values["time"], values["saddr"], values["flags"], values["srtt"]) == (
        1, 1.25, "10.0.0.1", 24, 160000)
    assert "3 lost" in done.stderr


def test_tcp_probe_columns(tmp_path):
    """Old scripts plot 1:7, and look for address:port in 2 and 3. It knew received segments only."""
    done = read_data(tmp_path, [record(SEND, 1), record(RECV, 2.5, length=99, snd_cwnd=42, ssthresh=17, snd_wnd=9999)],
                     "--format=tcp_probe")
    (line,) = done.stdout.splitlines()
    assert line.split() == ["2.500000000", "10.0.0.1:5000", "10.0.0.2:80", "99", "0x64", "0x28", "42", "17", "9999",
                            "20000"]


def test_nothing_is_overwritten(tmp_path):
    """What is in the way is moved aside, however often, and even within a second."""
    for n in range(4):
        read_data(tmp_path, [record(RECV, 1 + n)])
        (tmp_path / "output" / "mine").write_text(str(n))
    assert sorted((d / "mine").read_text() for d in tmp_path.glob("archive/output-*")) == ["0", "1", "2"]
    assert not (tmp_path / "archive" / "output").exists()


def test_output_on_a_file_system_of_its_own(tmp_path):
    """As in "make shell": it cannot be moved, nor what is in it go to another one."""
    (tmp_path / "log").write_text(record(RECV, 1) + "\n")
    (tmp_path / "output").mkdir()
    script = f"mount -t tmpfs none output && {READ_DATA} --follow log && {READ_DATA} --follow log && {READ_DATA} --follow log && find output -type f"
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    files = [line for line in done.stdout.splitlines() if line.startswith("output/")]
    assert sum(line.endswith("/summary.csv") for line in files) == 3 and "output/summary.csv" in files, files
    assert sum(line.startswith("output/archive/output-") and line.endswith("/summary.csv") for line in files) == 2, files


@pytest.mark.parametrize("flags,seq", [(0x10, 1), (0x2, 0)], ids=["ack", "syn"])
def test_data_of_fast_open_is_sent(tmp_path, flags, seq):
    read_data(tmp_path, [record(SEND, 1, length=100, seq=seq, flags=flags), record(SEND, 2, length=50, seq=101)])
    assert summary(tmp_path)[0]["sent (B)"] == "150"


@pytest.mark.parametrize("flags,seq", [(0x10, 1), (0x12, 0)], ids=["ack", "syn"])
def test_data_that_completes_a_handshake_is_received(tmp_path, flags, seq):
    """It is sampled once, as the set-up."""
    read_data(tmp_path, [record(SETUP, 1, length=100, seq=seq, flags=flags), record(RECV, 2, length=50, seq=101)])
    assert summary(tmp_path)[0]["received (B)"] == "150"


def test_many_flows_need_few_descriptors(tmp_path):
    lines = [record(RECV, n, sport=1 + n % 3000) for n in range(9000)]
    (tmp_path / "log").write_text("\n".join(lines) + "\n")
    subprocess.run(["sh", "-c", f"ulimit -n 64; exec {READ_DATA} --follow log"], cwd=tmp_path, check=True,
                   capture_output=True)
    flows = summary(tmp_path)
    assert len(flows) == 3000 and {flow["records"] for flow in flows} == {"3"}
    assert all(len((tmp_path / "output" / flow["file"]).read_text().splitlines()) == 4 for flow in flows[:50])


@pytest.mark.parametrize("bad,why", [
    ("garbage", "1 fields, not 30"), (record(RECV, 1) + " 7", "31 fields"), (record(9, 1), "type 9"),
    (record(RECV, 1).replace("0x10", "0xzz"), "flags is '0xzz'"), ("# lost many", "many"), ("\0\xff" * 100, "fields"),
    (record(RECV, 1, saddr="\";system('id>pwned');\""), "saddr is '\";system("), (record(RECV, 1, daddr="10.0.0/2"), "daddr is '10.0.0/2'"),
    (record(RECV, 1, daddr="10.0.0.\xb2"), "daddr is"), (record(RECV, 1, srtt=10 ** 400), "srtt is '1000"),
    (record(RECV, 1, snd_cwnd=-1), "snd_cwnd is '-1'"), (record(RECV, 1).replace("1.0", "nan", 1), "time is 'nan"),
    (record(RECV, 1, rto="1_0"), "rto is '1_0'"), (record(RECV, 1, rto="010"), "010")])
def test_bad_lines(tmp_path, bad, why):
    """They are counted, the first is shown with its number, and nothing around them is lost. What they say becomes the name of no
    file, and no command."""
    done = read_data(tmp_path, [record(RECV, 1), bad, record(RECV, 2), bad], "--plot", status=1)
    assert "line 2 is no record" in done.stderr and why in done.stderr
    assert "2 lines were no records" in done.stderr
    assert [row["records"] for row in summary(tmp_path)] == ["2"]
    assert not list(tmp_path.rglob("pwned"))


def test_a_log_that_was_cut_off(tmp_path):
    """Anywhere in its last line, within the last number and before the newline too."""
    text = record(RECV, 1) + "\n" + record(RECV, 2) + "\n"
    read_data(tmp_path, text)
    assert summary(tmp_path)[0]["records"] == "2"
    for cut in (1, 2, 3, 6, 7, 8, 60):
        done = read_data(tmp_path, text[:-cut], status=1)
        assert "line 2 is no record" in done.stderr
        assert summary(tmp_path)[0]["records"] == "1"


def test_lines_end_by_newline_alone(tmp_path):
    """As all that the probe writes; a carriage return before it may have come on the way. No other character begins a line."""
    text = record(RECV, 1) + "\r\n" + "".join(f"# {c}{record(RECV, 2)}\n" for c in "\v\f\x1c\x1d\x1e\x85\r")
    read_data(tmp_path, text)
    assert summary(tmp_path)[0]["records"] == "1"


def test_no_newline_for_long(tmp_path):
    """As at the end of a log after a power cut: neither time nor memory grow with it."""
    (tmp_path / "log").write_bytes(record(RECV, 1).encode() + b"\n" + bytes(100 << 20) + b"\n" + record(RECV, 2).encode() + b"\n")
    began = time.monotonic()
    done = subprocess.run(["sh", "-c", f"ulimit -v 400000; exec {READ_DATA} --follow log"], cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 1 and "line 2 is no record" in done.stderr and "1 lines were no records" in done.stderr, done.stderr
    assert summary(tmp_path)[0]["records"] == "2"
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("args", [[], ["--duration", "1"]], ids=["signal", "duration"])
def test_a_silent_writer_does_not_hold_it_up(tmp_path, args):
    """Nor is the half of a line that it has written taken for one."""
    with subprocess.Popen([READ_DATA, "--follow", "-", *args], cwd=tmp_path, text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
        reader.stdin.write(record(RECV, 1) + "\n" + record(RECV, 2)[:-3])
        reader.stdin.flush()
        end = time.monotonic() + 60
        while not list(tmp_path.glob("output")) or fcntl.ioctl(reader.stdin, termios.FIONREAD, bytes(4)) != bytes(4):
            assert time.monotonic() < end
            time.sleep(0.05)
        if not args:
            reader.send_signal(signal.SIGTERM)
        assert reader.wait(timeout=60) == 0, reader.stderr.read()
        assert "1 records of 1 flows" in reader.stdout.read()


def test_what_is_read_live_ends_with_a_whole_line(tmp_path):
    """Stopped amid more than there is time to read: the line that was begun is read to its end, and no other is begun."""
    os.mkfifo(tmp_path / "probe")
    spec = importlib.util.spec_from_file_location("read_data", READ_DATA)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    reading = module.Source(tmp_path / "probe", False, 0.1)
    lines = "".join(record(RECV, n) + "\n" for n in range(1, 5000)).encode()

    def write():
        with open(tmp_path / "probe", "wb", buffering=0) as fifo, contextlib.suppress(BrokenPipeError):
            for at in itertools.count(0, 1001):
                fifo.write((lines + lines)[at % len(lines):][:1001])

    threading.Thread(target=write, daemon=True).start()
    said = b"".join(reading.chunks(None))
    os.close(reading.fd)
    assert said.startswith(lines[:1000]) and len(said) > 1 << 16
    assert said.endswith(b"\n") and reading.rest == b""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_complete_files(tmp_path, how):
    with subprocess.Popen([READ_DATA, "--follow", "-"], cwd=tmp_path, text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as reader:
        reader.stdin.write("".join(record(RECV, n) + "\n" for n in range(20000)))
        reader.stdin.flush()
        end = time.monotonic() + 60
        # All is read, and what it holds back in memory is bounded.
        while fcntl.ioctl(reader.stdin, termios.FIONREAD, bytes(4)) != bytes(4) or \
                sum(path.stat().st_size for path in tmp_path.glob("output/flow-*.csv")) <= 1 << 20:
            assert time.monotonic() < end
            time.sleep(0.05)
        reader.send_signal(how)
        time.sleep(0.2)
        reader.stdin.close()
        assert "20,000 records of 1 flows" in reader.stdout.read()
        assert reader.wait() == 0
    assert summary(tmp_path)[0]["records"] == "20000"


def test_plots(tmp_path):
    """Of one flow and of 25, of which 20 are drawn; IPv6 and a lone record too."""
    if not shutil.which("gnuplot"):
        pytest.fail("gnuplot is missing: run vm/setup")
    lines = [record(RECV, n / 10, sport=port, snd_cwnd=n + 1, retrans=n // 10, sk_pacing_rate=(1 << 64) - 1 if n < 3 else n)
             for port in range(25) for n in range(40 - port)]
    lines += [record(TIMEOUT, 3, sport=1), record(RECV, 1, saddr="::1", daddr="::1"), record(RECV, 2, saddr="::1", daddr="::1")]
    for args, width in (([], 4), (["--plot-flows=1", "--caption", 'a "caption" \\ of two; words'], 1)):
        done = read_data(tmp_path, lines, "--plot", "-o", "it's \"so\" far", *args)
        assert all("moved the old" in line for line in done.stderr.splitlines()), done.stderr
        sizes = set()
        for name in ("cwnd", "rtt", "flight", "pacing"):
            png = (tmp_path / "it's \"so\" far" / f"{name}.png").read_bytes()
            assert png[:8] == b"\x89PNG\r\n\x1a\n"
            sizes.add(int.from_bytes(png[16:20], "big"))
        assert len(sizes) == 1 and (sizes.pop() > 1500) == (width == 4)


@pytest.mark.parametrize("args,why", [
    (["--follow", "nowhere"], "nowhere is not there"), (["--duration", "-1"], "-1"), (["--rotate", "0"], "'0'"),
    (["--rotate", "ten"], "'ten'"), (["--keep", "-3"], "-3"), (["--plot-flows", "0"], "'0'"), (["--plot-flows", "401"], "'401'"), (["--format", "xml"], "'xml'")])
def test_bad_usage(tmp_path, args, why):
    done = subprocess.run([READ_DATA, *args], cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 2 and why in done.stderr and not list(tmp_path.iterdir())


def test_a_fault_in_the_reading_thread_ends_it(tmp_path):
    """Nobody waits for a thread that is dead."""
    (tmp_path / "log").write_text(record(RECV, 1) + "\n")
    code = (f"import os, runpy, sys; os.read = lambda *_: 1 // 0; sys.argv = [{str(READ_DATA)!r}, '--follow', 'log']; "
            "runpy.run_path(sys.argv[0], run_name='__main__')")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True, check=False, timeout=60)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


def limited(folder, lines, *args, blocks=8, to="/dev/null"):
    """It may write files of so many KiB, and shows what it shows in one."""
    (folder / "log").write_text("".join(line + "\n" for line in lines))
    return subprocess.run(["bash", "-c", f"ulimit -f {blocks}; trap '' XFSZ; exec {sys.executable} {READ_DATA} --follow log {' '.join(args)} >{to}"],
                          cwd=folder, text=True, capture_output=True, check=False)


def test_a_full_disk_is_told(tmp_path):
    """And by which file; what is for others is in them, and so is the summary."""
    many = [record(RECV, n) for n in range(2000)]
    done = limited(tmp_path, [record(RECV, 1, sport=4999), *many, record(RECV, 2001, sport=5001)])
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "flow-0002_10.0.0.1_5000_10.0.0.2_80.csv: File too large" in done.stderr
    sizes = {path.name[5:9]: path.stat().st_size for path in tmp_path.glob("output/flow-*.csv")}
    assert sizes.keys() - {"0002"} == {"0001", "0003"} and sizes["0001"] and sizes["0003"] and not sizes.get("0002")
    assert [flow["records"] for flow in summary(tmp_path)] == ["1", "2000", "1"]


@pytest.mark.parametrize("args", [(), ("--json",), ("--format=tcp_probe",)], ids=str)
@pytest.mark.parametrize("count", [1, 2000])
def test_nowhere_to_show_it(tmp_path, args, count):
    """What was read is in the files all the same."""
    done = limited(tmp_path, [record(RECV, n) for n in range(count)], *args, blocks="unlimited", to="/dev/full")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "read_data.py: standard output: No space left on device")
    assert len(summary(tmp_path)) == 1 and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


@pytest.mark.parametrize("lost", ["-5", "1_0", "x", "", " 5", "5 6"])
def test_no_number_of_lost_records(tmp_path, lost):
    done = read_data(tmp_path, [record(RECV, 1), f"# lost {lost}", "# lost 5"], status=1)
    assert "line 2 is no record, what is lost has no number" in done.stderr and "1 records of 1 flows, 5 lost" in done.stdout


def test_what_could_not_be_written_is_not_written_twice(tmp_path, monkeypatch):
    """The disk is full for one of three files, part of whose rows are there, and then has room again."""
    spec = importlib.util.spec_from_file_location("read_data", READ_DATA)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    flows = module.FlowFiles(tmp_path)
    full = []

    class Disk(io.StringIO):
        def __init__(self, path, *args, **kw):
            super().__init__()
            self.path = path

        def close(self):
            data = self.getvalue()
            if full and "5001" in self.path.name:
                data, fails = data[:30], True
            else:
                fails = False
            with self.path.open("a", newline="", encoding="ascii") as f:
                f.write(data)
            super().close()
            if fails:
                raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(module, "open", Disk, raising=False)
    for second in (1, 2, 3):
        for port in (5000, 5001, 5002):
            flows.add(module.parse(record(SEND, second, sport=port)))
        full[:] = [second] if second == 2 else []
        if full:
            with pytest.raises(OSError):
                flows.flush()
        else:
            flows.flush()
    for path in tmp_path.glob("flow-*.csv"):
        assert [row["time (s)"] for row in csv.DictReader(path.read_text().splitlines())] == ["1.000000000", "2.000000000", "3.000000000"], path
    assert len(list(tmp_path.glob("flow-*.csv"))) == 3


def test_a_caption_is_not_run(tmp_path):
    """Gnuplot would run what stands between backquotes."""
    read_data(tmp_path, [record(SEND, n) for n in range(3)], "--plot", "--caption", "made by `touch ran` \\ it's \"so\"")
    assert (tmp_path / "output" / "cwnd.png").stat().st_size > 1000
    assert not list(tmp_path.rglob("ran"))


def test_flows_without_a_pace_or_a_round_trip_are_drawn(tmp_path):
    """As one that nobody answers."""
    never = {"sk_pacing_rate": (1 << 64) - 1, "srtt": 0, "rto": 0}
    lines = [record(SEND, n, sport=port, **never) for n in range(3) for port in (1, 2)]
    lines += [record(SEND, n, sport=3, sk_pacing_rate=1000) for n in range(3)]
    for chosen in lines, lines[:6]:
        read_data(tmp_path, chosen, "--plot")
        for picture in "cwnd", "rtt", "flight", "pacing":
            assert (tmp_path / "output" / f"{picture}.png").stat().st_size > 1000


def test_pictures_of_a_log_that_was_cut_off(tmp_path):
    """One line that is no record is told, and the rest drawn."""
    read_data(tmp_path, "\n".join(record(SEND, n) for n in range(3)) + "\n1 2.0 10.0", "--plot", status=1)
    assert (tmp_path / "output" / "cwnd.png").exists()


def test_nowhere_to_print(tmp_path):
    (tmp_path / "log").write_text(record(SEND, 1) + "\n")
    done = subprocess.run(["sh", "-c", f"exec {READ_DATA} --follow log >&-"], cwd=tmp_path, text=True, capture_output=True, check=False)
    assert done.returncode == 2 and "standard output is closed" in done.stderr


def test_the_lines_of_the_manual(tmp_path):
    """What docs/tcpprobe.md says of awk and Python, run as it stands there, on a log of one flow."""
    text = (TOP / "docs" / "tcpprobe.md").read_text(encoding="utf-8").split("## In five lines")[1].split("\n## ")[0]
    awk, python, _ = re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)
    log = [record(SETUP, 0.5, dport=5201), record(RECV, 1, dport=5201, snd_cwnd=10), record(SEND, 2, dport=5201, snd_cwnd=20),
           record(SEND, 3, dport=5202, snd_cwnd=30)]
    read_data(tmp_path, log)
    folder = tmp_path / "output"
    raw = folder / "tcpprobe-0001.log"
    if not raw.exists():
        raw.write_text("".join(line + "\n" for line in log))
    said = subprocess.run(awk.strip(), shell=True, cwd=folder, text=True, capture_output=True, check=True).stdout
    assert said == "1.000000000 10\n2.000000000 20\n"
    (folder / "flow-0001_10.0.0.1_5000_10.0.0.2_5201.csv").rename(folder / "flow-0001_....csv")
    said = subprocess.run([sys.executable, "-c", textwrap.dedent(python)], cwd=folder, text=True, capture_output=True, check=True).stdout
    assert said == "0.500000000 10\n1.000000000 10\n2.000000000 20\n"
