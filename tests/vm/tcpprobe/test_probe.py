# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves what /proc/net/tcpprobe tells of connections, that its accounting adds up, and that it lets go."""

import contextlib
import ctypes
import errno
import os
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from lib import DEBUG, HOOKS_DIR, KO_DIR, UNLOAD_MAX, busy_for_a_second, insmod, least, rmmod, scaled, sh, sysctl
from records import DONE, FILE, PURGE, RECV, SEND, SETUP, STAT, SYSCTL, TIMEOUT, Connection, Trace, few_missed, parse, payload, samples

# Kprobes are set and removed under traffic: see "CPUs in turns" in docs/vm.md.
pytestmark = pytest.mark.boot(clock="turns")


@pytest.mark.smoke
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_conversation(probe, host):
    """Set-up and done of both ends; every byte in send and in receive records; numbers relative and in order."""
    probe()
    with Trace() as trace:
        with Connection(host) as c:
            for _ in range(20):
                c.send(b"q" * 100)
                c.send(b"a" * 1000, back=True)
            client, server = c.local, c.port
        time.sleep(0.3)
        lines, lost = trace.lines()
    lines = [line for line in lines if {client, server} == {line.sport, line.dport}]
    assert lost == 0
    for sport, sent, received in ((client, 2000, 20000), (server, 20000, 2000)):
        mine = [line for line in lines if line.sport == sport]
        count = Counter(line.type for line in mine)
        assert count[SETUP] == 1 and count[DONE] == 1 and mine[-1].type == DONE and mine[-1].length == 65535
        assert {(line.saddr, line.daddr) for line in mine} == {(host, host)}
        base = 1 if sport == client else 0  # a client's SYN is seen, and is its first number
        for kind, size in (SEND, sent), (RECV, received):
            assert payload(mine, kind, again=max(line.retrans for line in lines)) == size
        last = [line for line in mine if line.type in (SEND, RECV)][-1]
        assert last.snd_una in (sent + base, sent + base + 1)
        assert max(line.seq + line.length for line in mine if line.type == SEND and line.length) == sent + base
        assert all(line.wqueue == line.write_seq - line.snd_una for line in mine)
        assert all(line.snd_una <= line.snd_nxt <= line.write_seq for line in mine if line.type == SEND)
    times = [line.time for line in lines]
    assert times == sorted(times) and times[0] >= 0
    assert samples()["taken"] == samples()["read"] and samples()["missed"] <= 2


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_fast_open(probe, host):
    """Of a connection that a SYN with data has made, each end's records tell every byte, what completes the handshake included."""
    probe()
    size = 100000  # more than a SYN takes
    with sysctl(ipv4__tcp_fastopen=0x607), Trace() as trace, contextlib.ExitStack() as stack:  # both ends, without a cookie
        listener = stack.enter_context(socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET))
        client = stack.enter_context(socket.socket(listener.family))
        sent = client.sendto(b"x" * size, socket.MSG_FASTOPEN, listener.getsockname()[:2])
        client.sendall(b"x" * (size - sent))
        served = stack.enter_context(listener.accept()[0])
        got = 0
        while got < size:
            got += len(served.recv(size))
        time.sleep(0.3)
        lines, lost = trace.lines()
        server, local = listener.getsockname()[1], client.getsockname()[1]
    assert lost == 0
    mine = [line for line in lines if line.sport == server]
    theirs = [line for line in lines if line.sport == local]
    assert [line.type for line in mine + theirs].count(SETUP) == 2 and {line.dport for line in mine} == {local}
    in_syn = next(line.length for line in theirs if line.type == SEND and line.flags & 2)
    assert 0 < in_syn < size  # or this is no Fast Open
    assert sum(line.length for line in theirs if line.type == SEND) == size
    assert sum(line.length for line in mine if line.type in (RECV, SETUP)) == size


def test_lines_that_nobody_read_to_their_end_are_discarded(probe):
    """Of a reader that closes, whatever is left in its buffer: what is counted as read are the whole lines that somebody has."""
    probe()
    with Trace() as other:
        fd = os.open(FILE, os.O_RDONLY)
        try:
            with Connection() as c:
                for _ in range(20):
                    c.send(b"q" * 100)
            time.sleep(0.3)
            said = b"".join(os.read(fd, size) for size in (100, 900, 7))
        finally:
            os.close(fd)
        lines = said[:said.rindex(b"\n") + 1].splitlines() + other.text().encode().splitlines()
        counted = samples()
        assert counted["read"] == sum(line[:1] != b"#" for line in lines)
        assert counted["discarded"] > 0 and counted["taken"] == counted["read"] + counted["lost"] + counted["discarded"]


def test_the_flags_of_a_syn(probe):
    """ECE and CWR of RFC 3168; and AE where the kernel negotiates AccECN (RFC 9768), which takes a third digit."""
    accurate = int(os.uname().release.split(".")[0]) >= 7
    probe()
    with sysctl(ipv4__tcp_ecn=3 if accurate else 1), Trace() as trace:
        with Connection() as c:
            c.send(b"x")
        time.sleep(0.3)
        lines, _ = trace.lines()
    assert {line.flags for line in lines if line.sport == c.local and line.flags & 2 and line.type == SEND} == {0x1c2 if accurate else 0xc2}


def test_variables_are_those_of_tcp_info(probe):
    """An idle connection's last record, beside what the kernel tells its owner."""
    probe()
    with Trace() as trace, Connection() as c:
        for _ in range(200):
            c.send(b"x" * 3000)
            c.send(b"y", back=True)
        time.sleep(0.3)
        lines, _ = trace.lines()
        # What the last that arrived has changed shows in the record after it: send one more, which changes nothing yet.
        info = c.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        c.client.sendall(b"z")
        time.sleep(0.3)
        more, _ = trace.lines()
        sent = [line for line in more if line.sport == c.local and line.type == SEND][-1]
    words = struct.unpack_from("=8B24I", info)
    tcpi = dict(zip(("rto", "ato", "snd_mss", "rcv_mss", "unacked", "sacked", "lost", "retrans", "fackets", "lds", "las",
                     "ldr", "lar", "pmtu", "rcv_ssthresh", "rtt", "rttvar", "snd_ssthresh", "snd_cwnd", "advmss", "reordering", "rcv_rtt", "rcv_space",
                     "total_retrans"), words[8:]))
    assert lines
    assert sent.snd_cwnd == tcpi["snd_cwnd"] and sent.retrans == tcpi["total_retrans"] and sent.ca_state == words[1]
    assert sent.srtt >> 3 == tcpi["rtt"] and sent.mdev >> 2 == tcpi["rttvar"]
    assert abs(sent.rto * 1000 - tcpi["rto"]) <= 4000  # a jiffy
    assert min(sent.ssthresh, 2147483647) == min(tcpi["snd_ssthresh"], 2147483647)


@pytest.mark.parametrize("how", ["fin", "rst", "unread", "not accepted", "server first"])
def test_every_end_is_told(probe, how):
    """One done record a socket, whoever closes and however."""
    probe()
    with Trace() as trace:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        local = client.getsockname()[1]
        served = None if how == "not accepted" else listener.accept()[0]
        if how == "rst":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "unread":
            served.sendall(b"never read")
            time.sleep(0.1)
        first, second = (served, client) if how == "server first" else (client, served)
        first.close()
        time.sleep(0.1)
        if second:
            second.close()
        listener.close()
        time.sleep(0.5)
        lines, _ = trace.lines()
    for sport in (local, port):
        mine = [line.type for line in lines if line.sport == sport and line.dport in (local, port)]
        assert mine.count(SETUP) == 1 and mine.count(DONE) == 1, (sport, mine)


def test_retransmissions_and_timeouts(probe):
    """A path that swallows everything: time-outs in a row, the same data again, and the kernel's own count of it."""
    probe()
    with Connection() as c:
        def timeouts_counted():
            names, values = [line.split()[1:] for line in Path("/proc/net/netstat").read_text().splitlines()
                             if line.startswith("TcpExt:")]
            return int(dict(zip(names, values))["TCPTimeouts"])

        before = timeouts_counted()
        with Trace() as trace:
            sh("tc", "qdisc", "add", "dev", "lo", "root", "netem", "loss", "100%")
            try:
                c.client.sendall(b"lost")
                after, lines, end = 0, [], time.monotonic() + 60
                while after < before + 3 or after != timeouts_counted():  # one came while the records were read
                    assert time.monotonic() < end
                    time.sleep(0.1)
                    after = timeouts_counted()
                    lines += trace.lines()[0]
            finally:
                sh("tc", "qdisc", "del", "dev", "lo", "root")
        mine = [line for line in lines if line.sport == c.local]
        timeouts = [line for line in mine if line.type == TIMEOUT]
        assert after - before == len(timeouts) >= 2
        assert [line.rto_num for line in timeouts] == list(range(len(timeouts)))
        assert sum(line.length == 4 for line in mine if line.type == SEND) >= 3
        assert mine[-1].retrans >= 2 and mine[-1].ca_state == 4  # TCP_CA_Loss


@pytest.mark.smoke
def test_lost_records_are_told(probe):
    """Rings too small and nobody reading: what is missing is marked in the stream, and all adds up."""
    probe(bufsize=16)
    with Trace() as trace, Connection() as c:
        for _ in range(300):
            c.send(b"x")
        time.sleep(0.2)
        lines, lost = trace.lines()
        c.send(b"x")
        time.sleep(0.2)
        more, later = trace.lines()
        seen = samples()
        assert lost > 200 and later == 0 and more
        assert len(lines) + len(more) == seen["read"] and lost == seen["lost"]
        assert seen["taken"] == seen["read"] + seen["lost"] and seen["discarded"] == 0


def test_lost_records_are_told_in_their_place(unloaded):
    """A ring that was empty when a reader looked for what it had lost, and is full, and has lost some, when he looks for records:
    those come first."""
    insmod(HOOKS_DIR / "tcpprobe.ko", bufsize=16)
    here = os.sched_getaffinity(0)
    with Trace() as trace, Connection() as c:
        trace.text()
        os.sched_setaffinity(0, {0})
        reader = threading.Thread(target=lambda: said.append(trace.text()))
        said = []
        Path("/sys/module/tcpprobe/parameters/hook_missing_ms").write_text("5000")
        reader.start()
        stack = Path(f"/proc/self/task/{reader.native_id}/stack")
        while "msleep" not in stack.read_text():
            time.sleep(0.01)
        for _ in range(30):
            c.send(b"x")
        asleep = "msleep" in stack.read_text()
        Path("/sys/module/tcpprobe/parameters/hook_missing_ms").write_text("0")
        reader.join()
        os.sched_setaffinity(0, here)
        records, lost = said[0].split("# lost ")
        assert asleep and records.count("\n") == 16 and int(lost.split()[0]) > 10


def test_unread_records_are_counted(probe):
    probe()
    with Trace(), Connection() as c:
        c.send(b"x" * 10)
        time.sleep(0.2)
        taken = samples()["taken"]
        assert taken > 5
    seen = samples()
    assert seen["taken"] == seen["discarded"] + seen["read"] and seen["discarded"] >= taken


def test_nothing_is_hooked_while_closed(probe):
    probe()
    assert STAT.read_text().count("not armed: nobody has the file open") == 6
    with Connection() as c:
        c.send(b"x" * 1000)
    assert samples()["taken"] == 0
    with Trace():
        assert STAT.read_text().count(" armed missed ") == 6
    assert STAT.read_text().count("not armed: nobody has the file open") == 6
    for _ in range(scaled(30, 6)):  # and it may be opened again
        with Trace() as trace, Connection() as c:
            c.send(b"x")
            assert trace.lines()[0]


def test_port(probe):
    """Either end counts; it applies at once."""
    probe(port=9)
    with Connection() as one, Connection() as other, Trace() as trace:
        one.send(b"x")
        assert trace.lines() == ([], 0)
        (SYSCTL / "port").write_text(str(one.port))
        one.send(b"x")
        other.send(b"x")
        time.sleep(0.1)
        lines, _ = trace.lines()
        assert lines and all(one.port in (line.sport, line.dport) for line in lines)
        assert {line.sport for line in lines} == {one.port, one.local}


def test_port_makes_room(probe):
    """Who asks for a port when others' flows fill the table gets it at once, and no line of the others', not even of their purge."""
    probe(maxflows=4)
    with Trace() as trace, contextlib.ExitStack() as stack:
        others = [stack.enter_context(Connection()) for _ in range(3)]
        for c in others:
            c.send(b"x")
        assert "Flows: active 4 " in STAT.read_text()
        SYSCTL.joinpath("purgetime").write_text("1\n")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            SYSCTL.joinpath("port").write_text(f"{port}\n")
            assert "Flows: active 0 " in STAT.read_text()
            trace.text()
            with socket.create_connection(("127.0.0.1", port)), listener.accept()[0]:
                for c in others:
                    c.send(b"x")
                lines, end = [], time.monotonic() + 20
                while PURGE not in {line.type for line in lines} and time.monotonic() < end:
                    time.sleep(0.5)
                    lines += trace.lines()[0]
            lines += trace.lines()[0]
        assert {SETUP, PURGE} <= {line.type for line in lines}
        assert all(port in (line.sport, line.dport) for line in lines)


def test_a_read_of_any_size_ends(probe):
    """However fast records come, and however much is asked for."""
    probe(bufsize=1 << 16)
    stop = threading.Event()

    def traffic():
        with Connection() as c:
            while not stop.is_set():
                c.send(b"x")

    thread = threading.Thread(target=traffic)
    with Trace() as trace:
        thread.start()
        try:
            while samples()["taken"] < scaled(10000):  # more than a mebibyte of lines
                time.sleep(0.1)
            began = time.monotonic()
            most = len(os.read(trace.fd, 64 << 20))
            took = time.monotonic() - began
        finally:
            stop.set()
            thread.join()
    print(f"{most} bytes, {took:.1f} s")
    assert 0 < most <= 1 << 20 and took < (120 if DEBUG else 20)


def test_statistics_under_traffic(probe):
    """Read while both CPUs count: no counter goes back, and in the end the CPUs' add up to the total."""
    def counters():
        return {line.split(":")[0]: [int(n) for n in re.findall(r"\d+", line.split(":", 1)[1])]
                for line in STAT.read_text().splitlines() if line.startswith(("Total", "Samples", "cpu0", "cpu1"))}

    probe(bufsize=16)  # some are lost
    stop = threading.Event()

    def traffic():
        while not stop.is_set():
            with Connection() as c:
                for _ in range(20):
                    c.send(b"x")

    threads = [threading.Thread(target=traffic) for _ in range(2)]
    with Trace():
        for thread in threads:
            thread.start()
        try:
            before = after = counters()
            end = time.monotonic() + (60 if os.environ.get("VM_KERNEL") == "kcsan" else 5)  # it watches one access in 4,000
            while time.monotonic() < end or after["Total"][0] < 200:
                after = counters()
                assert all(a >= b for name in before for a, b in zip(after[name], before[name])), (before, after)
                before = after
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        after = counters()
    assert [a + b for a, b in zip(after["cpu0"], after["cpu1"])][:8] == after["Total"][:8]
    assert after["Samples"][0] > 100 and after["Samples"][2] > 0 and all(after[name][0] for name in ("cpu0", "cpu1"))


def test_full_0_is_by_flow(probe):
    """Two flows with windows of different size do not make each other look changed."""
    probe(full=0)
    with Trace() as trace, Connection() as one, Connection() as other:
        for _ in range(50):
            one.send(b"x" * 20000)
        trace.lines()
        for _ in range(50):
            one.send(b"x")
            other.send(b"x")
        time.sleep(0.2)
        lines, _ = trace.lines()
    last = {}
    for line in lines:
        if line.type in (RECV, SEND):
            assert last.get(line.sport) != line.snd_cwnd, line
            last[line.sport] = line.snd_cwnd
    assert len(lines) < 100


def test_probetime(probe):
    probe(probetime=100)
    with Trace() as trace, Connection() as c:
        began = time.monotonic()
        while time.monotonic() < began + 2:
            c.send(b"x")
            time.sleep(0.005)
        lines, _ = trace.lines()
        took = time.monotonic() - began
    times = [line.time for line in lines if line.sport == c.local and line.type in (SEND, RECV)]
    assert 3 <= len(times) <= 2 + 10 * took
    assert all(b - a >= 0.0999 for a, b in zip(times, times[1:]))


def test_purgetime(probe):
    """An idle flow is told to be forgotten, and is taken on anew when it wakes."""
    probe(purgetime=1)
    with Trace() as trace, Connection() as c:
        c.send(b"x")
        time.sleep(3.5)
        lines, _ = trace.lines()
        purged = [line for line in lines if line.type == PURGE]
        assert {line.sport for line in purged} == {c.local, c.port} and len(purged) == 2
        assert "Flows: active 0 " in STAT.read_text()
        c.send(b"x")
        assert trace.lines()[0]
        assert "Flows: active 2 " in STAT.read_text()


def test_purgetime_of_0_forgets_nobody(probe):
    """And no timer runs for it, also if it was set while the file is read: a CPU's time is what it was."""
    probe(purgetime=1)
    usual = min(busy_for_a_second() for _ in range(3))  # to read the clocks costs a debug kernel a third of a CPU
    with Trace() as trace, Connection() as c:
        c.send(b"x")
        SYSCTL.joinpath("purgetime").write_text("0\n")
        time.sleep(2)  # the timer that was set before has come
        least(busy_for_a_second, usual + 0.3, tries=10)  # one that runs on and on takes a whole CPU
        assert not any(line.type == PURGE for line in trace.lines()[0])
        assert "Flows: active 2 " in STAT.read_text()


def test_maxflows(probe):
    """More flows than allowed are skipped and counted."""
    probe(maxflows=4)
    with Trace() as trace, contextlib.ExitStack() as stack:
        conns = [stack.enter_context(Connection()) for _ in range(6)]
        for c in conns:
            c.send(b"x")
        time.sleep(0.1)
        lines, _ = trace.lines()
        assert "Flows: active 4 " in STAT.read_text()
        total = next(line for line in STAT.read_text().splitlines() if line.startswith("Total:"))
        assert int(total.split("conn_drop:")[1].split()[0]) > 0
        assert len({line.sport for line in lines if line.type == SETUP}) == 4
        for c in conns[2:]:  # of the first two both ends are flows
            c.close()
        time.sleep(0.3)
        assert "Flows: active 4 " in STAT.read_text()
        assert not [line for line in trace.lines()[0] if line.type == DONE]


@pytest.mark.parametrize("name,good,bad", [
    ("bufsize", (16, 4194304), (15, 4194305)), ("readnum", (1, 1048576), (0, 1048577)), ("debug", (0, 2), (-1, 3)),
    ("full", (0, 1), (-1, 2)), ("hashsize", (0, 1000), (-1, 16777217)), ("maxflows", (1, 100000), (0, 16777217)),
    ("port", (0, 65535), (-1, 65536)), ("probetime", (0, 3600000), (-1, 3600001)),
    ("purgetime", (0, 31536000), (-1, 31536001)),
])
def test_bounds(probe, name, good, bad):
    """By sysctl and at load, EINVAL outside."""
    probe()
    before = (SYSCTL / name).read_text()
    for value in (*bad, "x"):
        with pytest.raises(OSError) as err:
            (SYSCTL / name).write_text(str(value))
        assert err.value.errno == errno.EINVAL
    assert (SYSCTL / name).read_text() == before
    for value in good:
        (SYSCTL / name).write_text(str(value))
        assert int((SYSCTL / name).read_text()) == value
    rmmod("tcpprobe")
    for value in bad:
        done = sh("insmod", KO_DIR / "tcpprobe.ko", f"{name}={value}", check=False)
        assert done.returncode and "Invalid parameters" in done.stderr
    probe(**{name: good[0]})
    assert int((SYSCTL / name).read_text()) == good[0]


def test_sizes_change_under_traffic(probe):
    """New rings and tables while records come and go: none is lost, no flow forgotten."""
    probe(bufsize=65536)
    stop = threading.Event()

    def traffic():
        with Connection() as c:
            while not stop.is_set():
                c.send(b"x")

    threads = [threading.Thread(target=traffic) for _ in range(2)]
    texts = []  # read all the time and looked at afterwards, or the rings would overflow meanwhile
    with Trace() as trace:
        for thread in threads:
            thread.start()
        for n in range(scaled(8, 2)):
            for name, value in ("bufsize", 65536 << (n % 2)), ("hashsize", (0, 32, 1000, 50)[n % 4]):
                for tries in range(10, 0, -1):
                    try:
                        (SYSCTL / name).write_text(str(value))
                        break
                    except OSError as e:  # this thread came late, and there are records in too many rings that were replaced
                        assert e.errno == errno.EBUSY and tries > 1, e
                        texts.append(trace.text(seconds=1))
            texts.append(trace.text(seconds=0.2))
        stop.set()
        for thread in threads:
            thread.join()
        time.sleep(0.2)
        texts.append(trace.text())
        lines = "".join(texts).splitlines()
        count = sum(not line.startswith("#") for line in lines)
        seen = samples()
        assert not [line for line in lines if line.startswith("# lost")] and seen["lost"] == 0
        assert count > 100 and seen["missed"] <= few_missed(count)
        assert count == seen["read"] == seen["taken"]
        fresh = int(STAT.read_text().split("Total: hash_stat:")[1].split()[2])
        assert fresh == 4


def test_sizes_that_do_not_fit(probe):
    """Rings may not take what memory there is, nor pile up unread; a change refused changes nothing."""
    probe()
    with Trace():
        with pytest.raises(OSError) as err:
            (SYSCTL / "bufsize").write_text("4194304")
        assert err.value.errno == errno.ENOMEM and (SYSCTL / "bufsize").read_text() == "4096\n"
        for size in (16, 32, 64, 128):
            (SYSCTL / "bufsize").write_text(str(size))
        with pytest.raises(OSError) as err:
            (SYSCTL / "bufsize").write_text("256")
        assert err.value.errno == errno.EBUSY and (SYSCTL / "bufsize").read_text() == "128\n"
        with Connection() as c:
            c.send(b"x")
    with Trace() as trace:
        (SYSCTL / "bufsize").write_text("256")
        with Connection() as c:
            c.send(b"x")
        time.sleep(0.2)
        assert trace.lines()[0]
    (SYSCTL / "bufsize").write_text("4194304")
    with pytest.raises(OSError) as err:
        Trace()
    assert err.value.errno == errno.ENOMEM


def wait_armed():
    """Until a reader that was started has the file open."""
    end = time.monotonic() + 20
    while "nobody has" in STAT.read_text():
        assert time.monotonic() < end
        time.sleep(0.05)


# --- reading ---


def test_pieces(probe):
    """Reads of a byte give the same lines."""
    probe()
    with Trace() as trace, Connection() as c:
        c.send(b"x")
        time.sleep(0.1)
        lines, _ = parse(trace.text(1))
        assert len(lines) == samples()["read"] > 5


def test_blocking_read_and_poll(probe):
    """A read waits for readnum records, or takes fewer after a while; poll tells when there are some."""
    probe(readnum=1000)
    with Connection() as c, Trace() as trace:
        poll = select.poll()
        poll.register(trace.fd, select.POLLIN)
        assert poll.poll(300) == []
        with pytest.raises(BlockingIOError):
            os.read(trace.fd, 100)
        c.send(b"x")
        assert poll.poll(5000)
        os.set_blocking(trace.fd, True)
        began = time.monotonic()
        assert parse(os.read(trace.fd, 1 << 16).decode())[0]
        assert time.monotonic() - began < 5
        began = time.monotonic()
        timer = threading.Timer(0.5, c.send, [b"x"])
        timer.start()
        assert os.read(trace.fd, 1 << 16)
        assert time.monotonic() - began > 0.4
        timer.join()


def test_epoll_that_asks_later(probe):
    """A descriptor that epoll has for nothing, and from some moment on for records."""
    probe()
    with Connection() as c, Trace() as trace, select.epoll() as epoll:
        epoll.register(trace.fd, 0)
        epoll.modify(trace.fd, select.EPOLLIN)
        assert epoll.poll(0.3) == []
        timer = threading.Timer(0.5, c.send, [b"x"])
        timer.start()
        assert epoll.poll(20) == [(trace.fd, select.EPOLLIN)]
        timer.join()


def test_two_readers_share(probe):
    probe()
    with Trace() as one, Trace() as two, Connection() as c:
        c.send(b"x" * 10)
        first = one.lines()[0]
        c.send(b"x" * 10)
        second = two.lines()[0]
        assert first and second and len(first) + len(second) == samples()["read"]
        total = next(line for line in STAT.read_text().splitlines() if line.startswith("Total:"))
        assert int(total.split("err:")[1].split()[0]) == 1


def test_a_connection_whose_predecessor_was_not_seen_to_end(probe):
    """With the same addresses and ports, and as it happens in the same memory: it begins at 0 all the same."""
    probe()
    with Trace() as trace, socket.create_server(("127.0.0.1", 0)) as listener:
        port, used = listener.getsockname()[1], None
        for _ in range(20):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.bind(("127.0.0.1", used or 0))
            client.connect(("127.0.0.1", port))
            used = client.getsockname()[1]
            with client, listener.accept()[0] as served:  # freed in the other order than made, so that each has its memory again
                client.sendall(b"x" * 1000)
                assert len(served.recv(1000, socket.MSG_WAITALL)) == 1000
                (SYSCTL / "port").write_text("9")
                for s in (client, served):
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            (SYSCTL / "port").write_text("0")
        lines = [line for line in trace.lines()[0] if line.sport == used or line.dport == used]
    assert sum(line.type == SETUP for line in lines) == 40  # both ends
    assert {line.seq for line in lines if line.type == SEND and line.flags & 2} == {0}
    assert max(line.snd_nxt for line in lines) <= 1001, lines


def test_readers_that_wait_share(probe):
    """Several wait for the same records: whoever comes too late waits on, and is not told that there are none."""
    probe(readnum=1)
    readers = [subprocess.Popen(["cat", FILE], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(6)]
    try:
        with Connection() as c:
            end = time.monotonic() + 8
            while (time.monotonic() < end or samples()["read"] <= 100 and time.monotonic() < end + 60) and \
                  all(r.poll() is None for r in readers):
                c.send(b"x")
                time.sleep(0.001)
        assert [r.poll() for r in readers] == [None] * 6, [r.stderr.read() for r in readers if r.poll() is not None]
        assert samples()["read"] > 100
    finally:
        for r in readers:
            r.terminate()
            r.communicate()


def test_an_open_takes_nothing_from_who_is_there(probe):
    """That of one who comes later; the records until then are still to be read."""
    probe()
    with Trace() as one, Connection() as c:
        c.send(b"x" * 10)
        with Trace():
            lines, _ = one.lines()
            assert len(lines) == samples()["read"] > 5 and SETUP in {line.type for line in lines}


def test_bad_buffer(probe):
    probe()
    with Trace() as trace, Connection() as c:
        c.send(b"x")
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.read(trace.fd, ctypes.c_void_p(8), ctypes.c_size_t(100)) == -1
        assert ctypes.get_errno() == errno.EFAULT
        lines, _ = trace.lines()
        assert len(lines) == samples()["read"] > 5


def test_nobody_may_read(probe):
    probe()
    assert FILE.stat().st_mode & 0o7777 == 0o400
    FILE.chmod(0o444)
    done = sh("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat", FILE, check=False)
    assert done.returncode and "Operation not permitted" in done.stderr
    assert "not armed" in STAT.read_text()


@pytest.mark.smoke
def test_rmmod_with_a_blocked_reader(probe):
    probe()
    reader = subprocess.Popen(["cat", FILE], stdout=subprocess.DEVNULL)
    wait_armed()
    began = time.monotonic()
    rmmod("tcpprobe")
    assert time.monotonic() - began < 5 * UNLOAD_MAX  # the reader would block for ever
    reader.wait(timeout=20)


POLLER = """
import os, select, sys, time
fd = os.open("/proc/net/tcpprobe", os.O_RDONLY | os.O_NONBLOCK)
print("open", flush=True)
if sys.argv[1] == "poll":
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    found = poll.poll(200000)
elif sys.argv[1] == "poll for nothing":
    poll = select.poll()
    poll.register(fd, 0)
    found = poll.poll(200000)
elif sys.argv[1] == "select":
    found = select.select([fd], [], [], 200)[0]
elif sys.argv[1] == "select for exceptions":
    found = select.select([sys.stdin], [], [fd], 200)[2]  # by a line, when the module is gone
else:
    poll = select.epoll()
    poll.register(fd, select.EPOLLIN if sys.argv[1] == "epoll" else 0)
    found = poll.poll(200)
print("woken" if found else "not woken", flush=True)
sys.stdin.read()  # the module is gone: now let go of what was waited on
if sys.argv[1].startswith("epoll"):
    poll.close()
os.close(fd)
print("closed")
"""


@pytest.mark.smoke
@pytest.mark.parametrize("how", ["poll", "select", "epoll", "poll for nothing", "epoll for nothing", "select for exceptions"])
def test_rmmod_with_a_poller(probe, how):
    """Who waits for the file is woken, unless it waits for what never comes, and holds on to no memory that was freed."""
    probe(port=9)
    with subprocess.Popen([sys.executable, "-S", "-c", POLLER, how], text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as poller:
        assert poller.stdout.readline() == "open\n"
        time.sleep(2 if DEBUG else 0.5)
        began = time.monotonic()
        rmmod("tcpprobe")
        assert time.monotonic() - began < 5 * UNLOAD_MAX  # all of them would wait for longer
        if "exceptions" in how:
            poller.stdin.write("\n")
            poller.stdin.flush()
        assert poller.stdout.readline() == ("not woken\n" if "exceptions" in how else "woken\n")
        probe(port=9)  # what memory it had is somebody else's now
        poller.stdin.close()
        assert poller.stdout.readline() == "closed\n"
        assert poller.wait() == 0


def test_a_killed_reader_disarms(probe):
    probe()
    reader = subprocess.Popen(["cat", FILE], stdout=subprocess.DEVNULL)
    wait_armed()
    reader.send_signal(signal.SIGKILL)
    reader.wait()
    assert STAT.read_text().count("nobody has") == 6


def test_rmmod_when_a_purge_is_due(probe):
    """What forgets idle flows, each second, has ended before the flows and the rings are gone that it looks through and writes to."""
    for n in range(6):
        probe(purgetime=1, hashsize=65536)
        with Trace(), Connection() as c:
            c.send(b"x")
            time.sleep(2 - 0.05 + 0.02 * n)
            rmmod("tcpprobe")


def test_rmmod_under_traffic(probe):
    """Loaded, read and unloaded again and again while two connections are busy."""
    code = ("import socket,sys\nl = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(l.getsockname())\n"
            "s = l.accept()[0]\nwhile True: c.sendall(b'x'); s.recv(1)\n")
    busy = [subprocess.Popen([sys.executable, "-S", "-c", code]) for _ in range(2)]
    try:
        for _ in range(scaled(20, 7)):
            probe()
            reader = subprocess.Popen(["cat", FILE], stdout=subprocess.DEVNULL)
            time.sleep(0.5 if DEBUG else 0.1)
            rmmod("tcpprobe")
            reader.wait(timeout=20)
        assert all(b.poll() is None for b in busy)
    finally:
        for b in busy:
            b.kill()
            b.wait()


def test_debug_levels(probe, klog):
    probe(debug=2)
    with Trace(), Connection() as c:
        c.send(b"x")
    said = "".join(klog.lines())
    assert "hook at tcp_set_state: armed" in said and "new flow" in said and "sample type" in said
