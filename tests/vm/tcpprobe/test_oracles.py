# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves the probe's records against others' accounts of the same traffic: nstat's counters, a packet capture,
the kernel's own tracepoint, ss, and arithmetic across the wrap of sequence numbers."""

import contextlib
import ctypes
import fcntl
import re
import socket
import struct
import subprocess
import termios
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from lib import (BENCH, DEBUG, HOOKS_DIR, KO_DIR, PACKET_OUTGOING, PACKET_STATISTICS, SOL_PACKET, Capture, in_netns, insmod, ip,
                 network_namespace, rmmod, scaled, sh)
from records import DONE, PURGE, RECV, SEND, SETUP, STAT, TIMEOUT, Trace, few_missed, parse, payload, samples

pytestmark = pytest.mark.boot(clock="turns", minutes=5)

PORT = 5201


@pytest.fixture
def link():
    """Two namespaces on a link without segmentation offload, so that a record is a packet."""
    with network_namespace("near"), network_namespace("far"):
        ip("link add n0 netns near type veth peer name f0 netns far")
        for ns, dev, addr in (("near", "n0", "10.9.0.1/24"), ("far", "f0", "10.9.0.2/24")):
            sh("ethtool", "-K", dev, "tso", "off", "gso", "off", "gro", "off", "lro", "off", netns=ns)
            ip(f"addr add {addr} dev {dev}", f"link set {dev} gso_max_segs 1 up", netns=ns)
        with in_netns("far", lambda: socket.create_server(("10.9.0.2", PORT))) as listener:
            thread = threading.Thread(target=swallow, args=(listener,))
            thread.start()
            try:
                yield
            finally:
                listener.shutdown(socket.SHUT_RDWR)  # ends accept()
                thread.join()


def swallow(listener):
    """Takes what each client sends, one after the other."""
    with contextlib.suppress(OSError):
        while True:
            with listener.accept()[0] as s:
                while s.recv(1 << 16):
                    pass


@pytest.fixture
def load_kecho():
    """A server in another namespace."""
    yield lambda netns: insmod(KO_DIR / "kecho.ko", netns=netns)
    rmmod("kecho")


def netstat(netns, *names):
    """Counters of /proc/net/snmp and netstat, as nstat prints them."""
    text = in_netns(netns, lambda: "".join(Path(f"/proc/thread-self/net/{f}").read_text() for f in ("snmp", "netstat")))
    lines = [line.split() for line in text.splitlines()]
    values = {}
    for keys, row in zip(lines[::2], lines[1::2]):
        values.update((keys[0][:-1] + key, int(value)) for key, value in zip(keys[1:], row[1:]))
    return [values[name] for name in names]


def transfer(congestion, count):
    """So many bytes from near to far. It closes when all is acknowledged: the tracepoint does not see what arrives later."""
    with in_netns("near", socket.socket) as s:
        s.settimeout(300)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
        s.connect(("10.9.0.2", PORT))
        s.sendall(bytes(count))
        while struct.unpack("i", fcntl.ioctl(s, termios.TIOCOUTQ, bytes(4)))[0]:
            time.sleep(0.01)
        time.sleep(0.1)  # what was sent again in vain arrives before the connection ends
        s.shutdown(socket.SHUT_WR)
        s.recv(1)


@contextlib.contextmanager
def draining(trace):
    """Reads all the time, so that no ring overflows; yields the text's parts."""
    parts = []
    stop = threading.Event()

    def run():
        while not stop.is_set():
            parts.append(trace.text())
            time.sleep(0.02)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield parts
    finally:
        time.sleep(0.5)
        stop.set()
        thread.join()
        parts.append(trace.text())


def test_congestion_control_is_left_alone(probe, link):
    """Nothing is written to the memory in which BBR and others keep their state: one that has filled it with a pattern
    looks at each ACK, with losses and time-outs."""
    def looks():
        return int(Path("/sys/module/kcanary/parameters/looks").read_text())

    insmod(HOOKS_DIR / "kcanary.ko")
    try:
        probe(port=PORT)
        sh("tc", "qdisc", "add", "dev", "n0", "root", "netem", "limit", "10000", "loss", "5%", netns="near")
        with Trace() as trace, draining(trace) as parts:
            for _ in range(20):  # how many segments one ACK covers is the machine's affair
                transfer("kcanary", scaled(200_000, 2))
                if looks() > 20:
                    break
        lines, _ = parse_all(parts)
        assert {SEND, RECV, DONE} <= {line.type for line in lines if line.saddr == "10.9.0.1"}
        assert looks() > 20
    finally:
        rmmod("kcanary")


@pytest.mark.parametrize("congestion,netem", [
    ("cubic", "delay 10ms loss 3%"), ("reno", "delay 5ms loss 2%"), ("bbr", "delay 10ms loss 2%"),
    ("cubic", "delay 10ms reorder 20% 50%")])
def test_counts_are_nstats_and_a_captures(probe, link, congestion, netem):
    """A record a packet sent, by a capture before the loss; retransmissions and time-outs as the kernel counts them."""
    if "bbr" in congestion:
        sh("modprobe", "tcp_bbr", check=not DEBUG)
    probe(port=PORT, bufsize=1 << 16)
    sh("tc", "qdisc", "add", "dev", "n0", "root", "netem", "limit", "10000", *netem.split(), netns="near")
    names = ("TcpRetransSegs", "TcpExtTCPTimeouts", "TcpOutSegs", "TcpInSegs", "TcpExtTCPBacklogCoalesce")
    before = netstat("near", *names)
    merged_far = netstat("far", names[-1])[0]
    with Trace() as trace, draining(trace) as parts, Capture("far", "f0") as capture:
        transfer(congestion, scaled(2_000_000, 3))
    retransmitted, timeouts, sent, received, merged = (b - a for a, b in zip(before, netstat("near", *names)))
    merged_far = netstat("far", names[-1])[0] - merged_far
    lines, lost = parse_all(parts)
    near = [line for line in lines if line.saddr == "10.9.0.1"]
    far = [line for line in lines if line.saddr == "10.9.0.2"]
    assert lost == 0
    missed = samples()["missed"]  # hits that the kernel dropped: an interrupt within a handler
    assert missed <= few_missed(len(lines))
    assert sum(line.type == TIMEOUT for line in near) == timeouts
    assert near[-1].type == DONE and near[-1].retrans == retransmitted
    if "loss" in netem:
        assert retransmitted > 0 and max(line.lost_out for line in near) > 0
    assert max(line.sacked_out for line in near) > 0
    # What comes to TIME-WAIT, a FIN sent again or an answer to a duplicate, and its answer have no socket any more.
    late = sum(line.type == SEND and line.time >= near[-1].time for line in far)
    # OutSegs leaves out what is sent again.
    assert 0 <= sent + retransmitted - sum(line.type == SEND for line in near) <= 3 + late + missed
    setups = [sum(line.type == SETUP for line in end) for end in (near, far)]
    assert max(setups) <= 1 and 2 - missed <= sum(setups)
    # What the far end sent, and what came through to it: the device's own account.
    assert 0 <= sum(s.sent for s in capture.segments) - sum(line.type == SEND for line in far) <= 3 + missed
    arrived = [len(s.payload) for s in capture.segments if not s.sent]
    # What arrives while the socket's owner works may be merged by TCP before it is looked at.
    assert 0 <= len(arrived) - sum(line.type == RECV for line in far) - merged_far <= 4 + missed
    assert 0 <= sum(arrived) - sum(line.length for line in far if line.type in (RECV, SETUP)) <= 1448 * missed
    assert 0 <= received - sum(line.type == RECV for line in near) - merged <= 2 + late + missed


def parse_all(parts):
    return parse("".join(parts))


SO_ATTACH_FILTER = 26


class Count:
    """How many TCP packets a capture sees go out of a namespace's loopback device, or come in: a filter's account,
    so that nobody has to read as fast as they come."""

    def __init__(self, netns, out):
        self.sock = in_netns(netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)))
        program = [(0x30, 0, 0, 0xfffff004),  # ldb type of packet
                   (0x15, 0 if out else 3, 3 if out else 0, PACKET_OUTGOING),
                   (0x30, 0, 0, 9),  # ldb protocol
                   (0x15, 0, 1, socket.IPPROTO_TCP),
                   (0x06, 0, 0, 1),  # ret: one byte of it
                   (0x06, 0, 0, 0)]
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *i) for i in program))
        self.sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(code)))
        self.value()

    def value(self):
        """Since the last time; whether or not there was room to keep them."""
        return struct.unpack("II", self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[0]


def test_a_million_events_on_two_cpus(probe, load_kecho):
    """Two CPUs' worth of traffic, read as it comes: lines by type are what nstat and a capture count; nothing is lost,
    and what is missing is what the kernel says it missed."""
    messages = scaled(32000, 80, small=8)
    connections = 8
    with network_namespace("busy"):
        load_kecho("busy")
        probe(port=12345, bufsize=1 << 17)
        names = ("TcpOutSegs", "TcpInSegs", "TcpRetransSegs", "TcpExtTCPTimeouts")
        outgoing, incoming = Count("busy", True), Count("busy", False)
        before = netstat("busy", *names)
        lines, kept, last = Counter(), [], {}
        with Trace() as trace:
            command = ["ip", "netns", "exec", "busy", BENCH, "--lean", "-t", "2", "-c", connections, "-n", messages]
            with subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL) as traffic:
                ended = False
                while not ended:
                    ended = traffic.poll() is not None  # what came until then is read once more
                    text = "\n" + trace.text(seconds=1)
                    lines.update({kind: text.count(f"\n{kind} ") for kind in (RECV, SEND, TIMEOUT, SETUP, DONE, PURGE)})
                    lines["all"] += text.count("\n") - 1
                    if sum(map(len, kept)) < 1 << 24:  # to look at all would take more time than there is
                        kept.append(text)
            assert traffic.returncode == 0
            seen = samples()
        sent, received, again, timeouts = (b - a for a, b in zip(before, netstat("busy", *names)))
        captured = outgoing.value(), incoming.value()
    missed = seen["missed"]
    assert seen["lost"] == 0 and seen["taken"] == seen["read"] == lines["all"]
    assert sum(lines[kind] for kind in (RECV, SEND, TIMEOUT, SETUP, DONE)) == lines["all"] >= 4 * connections * messages - missed
    assert missed <= lines["all"] / 100
    for seconds, nanoseconds, *ports in re.findall(r"\n\d (\d+)\.(\d+) \S+ (\d+) \S+ (\d+)", "".join(kept)):
        now = int(seconds + nanoseconds)
        assert now >= last.get(tuple(ports), 0), ports  # each end of a connection in order, whichever CPUs it was on
        last[tuple(ports)] = now
    # A SYN-ACK is sent, and the ACK of it received, by what is no socket yet; so is what TIME-WAIT answers.
    few = 4 * connections
    assert 0 <= sent + again - lines[SEND] <= few + missed
    assert abs(received - lines[RECV]) <= few + missed
    assert abs(captured[0] - sent - again) <= few and abs(captured[1] - received) <= few
    assert 2 * connections - missed <= lines[SETUP] <= 2 * connections
    assert 2 * connections - missed <= lines[DONE] <= 2 * connections
    assert timeouts - missed <= lines[TIMEOUT] <= timeouts  # none, unless the machine stood still


@contextlib.contextmanager
def tracepoint():
    """Lines of the kernel's tcp:tcp_probe."""
    tracing = Path("/sys/kernel/tracing")
    event = tracing / "events/tcp/tcp_probe"
    (tracing / "buffer_size_kb").write_text("16384")
    (tracing / "trace").write_text("")
    (event / "filter").write_text(f"sport == {PORT} || dport == {PORT}")
    (event / "enable").write_text("1")
    found = []
    try:
        yield found
    finally:
        (event / "enable").write_text("0")
        (event / "filter").write_text("0")
        for line in (tracing / "trace").read_text().splitlines():
            if "tcp_probe:" in line:
                found.append({key: value for key, value in re.findall(r"(\w+)=(\S+)", line)})


def test_beside_the_tracepoint(probe, link):
    """Each segment that arrives on an established connection: the same values at the same moment."""
    if not Path("/sys/kernel/tracing/events/tcp/tcp_probe").exists():
        pytest.skip("this kernel has no tcp:tcp_probe")
    probe(port=PORT, bufsize=1 << 16)
    sh("tc", "qdisc", "add", "dev", "n0", "root", "netem", "limit", "10000", "delay", "5ms", "loss", "2%", netns="near")
    with Trace() as trace, draining(trace) as parts:
        with tracepoint() as theirs:
            transfer("cubic", scaled(600_000, 2))
    lines = parse_all(parts)[0]
    near = [line for line in lines if line.saddr == "10.9.0.1"]
    closed = min((line.time for line in near if line.type == SEND and line.flags & 1), default=float("inf"))
    ours = [line for line in near if line.type == RECV and line.time < closed]  # later ones are not in the tracepoint
    theirs = [t for t in theirs if t["src"].startswith("10.9.0.1:")]
    assert len(ours) > 5  # how many segments one ACK covers is the machine's affair
    base = int(theirs[0]["snd_una"], 0) - ours[0].snd_una

    def absolute(value):
        return (value + base) % (1 << 32)

    wanted = [tuple(int(t[name], 0) for name in ("snd_nxt", "snd_una", "snd_cwnd", "ssthresh", "snd_wnd", "srtt", "data_len"))
              for t in theirs]
    skipped = 0
    for n, line in enumerate(ours):
        # It prints tcp_current_ssthresh(), which but in CWR and Recovery is three quarters of cwnd at least.
        ssthresh = line.ssthresh
        if line.ca_state not in (2, 3):
            ssthresh = max(ssthresh, (line.snd_cwnd >> 1) + (line.snd_cwnd >> 2))
        found = (absolute(line.snd_nxt), absolute(line.snd_una), line.snd_cwnd, ssthresh, line.snd_wnd,
                 line.srtt >> 3, line.length)
        while wanted and wanted[0] != found:
            skipped += 1
            del wanted[0]
        assert wanted, (line, len(ours), n)
        del wanted[0]
    assert skipped <= samples()["missed"] <= few_missed(len(lines))


def test_beside_ss(probe):
    """An idle connection after much traffic: what ss -tinm says of it is what its last records said."""
    probe()
    with socket.create_server(("127.0.0.1", PORT)) as listener, Trace() as trace, \
         socket.create_connection(("127.0.0.1", PORT)) as client, listener.accept()[0] as served:
        for _ in range(100):
            client.sendall(b"x" * 5000)
            left = 5000
            while left:
                left -= len(served.recv(left))
            served.sendall(b"y")
            client.recv(1)
        time.sleep(0.5)
        port = client.getsockname()[1]
        text = sh("ss", "-Htinm", "sport", "=", f":{port}").stdout
        lines, _ = parse_all([trace.text()])
        last = [line for line in lines if line.sport == port][-1]
    assert f"cwnd:{last.snd_cwnd} " in text
    retransmitted = re.search(r"retrans:\d+/(\d+)", text)
    assert int(retransmitted[1] if retransmitted else 0) == last.retrans
    # The last record is of a segment being sent or received: what came of it is not in there yet.
    rtt, rttvar = map(float, re.search(r" rtt:([\d.]+)/([\d.]+)", text).groups())
    assert abs(last.srtt / 8 - 1000 * rtt) <= 0.4 * max(1000 * rtt, last.srtt / 8)
    assert abs(last.mdev / 4 - 1000 * rttvar) <= 1 + 0.6 * max(1000 * rttvar, last.mdev / 4)  # ss knows whole us
    assert abs(last.rto - float(re.search(r" rto:([\d.]+)", text)[1])) <= 20
    ssthresh = re.search(r" ssthresh:(\d+)", text)
    assert (int(ssthresh[1]) if ssthresh else 0x7fffffff) == last.ssthresh


def tcp_info(s):
    """What TCP_INFO says of a socket, and SIOCOUTQ of its queue, by the names of a record."""
    info = s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 232)
    words = struct.unpack("24I", info[8:104])
    return {"ca_state": info[1], "rto_num": info[2], "rto": words[0] // 1000, "packets_out": words[4], "sacked_out": words[5],
            "lost_out": words[6], "retrans_out": words[7], "srtt": words[15], "mdev": words[16], "ssthresh": words[17],
            "snd_cwnd": words[18], "retrans": words[23], "sk_pacing_rate": struct.unpack("Q", info[104:112])[0],
            "snd_wnd": struct.unpack("I", info[228:232])[0],
            "wqueue": struct.unpack("i", fcntl.ioctl(s, termios.TIOCOUTQ, bytes(4)))[0]}


@pytest.mark.parametrize("frto", [0, 2])
def test_beside_tcp_info(probe, link, frto):
    """Some segments are lost, then all: what a time-out's record says is what TCP_INFO said just before it, and F-RTO is on where
    it may be. write_seq is all that was written."""
    probe(port=PORT)
    sh("sysctl", "-qw", f"net.ipv4.tcp_frto={frto}", netns="near")
    seen = []
    with Trace() as trace, in_netns("near", socket.socket) as s:
        s.connect(("10.9.0.2", PORT))
        s.sendall(bytes(100_000))
        while struct.unpack("i", fcntl.ioctl(s, termios.TIOCOUTQ, bytes(4)))[0]:
            time.sleep(0.01)
        sh("tc", "qdisc", "add", "dev", "n0", "root", "netem", "limit", "10000", "loss", "40%", netns="near")
        s.sendall(bytes(20_000))
        time.sleep(0.05)
        sh("tc", "qdisc", "change", "dev", "n0", "root", "netem", "limit", "10000", "loss", "100%", netns="near")
        s.setblocking(False)
        written = 120_000 + s.send(bytes(100_000))
        end = time.monotonic() + 60
        while (len(seen) < 4 or seen[-1]["retrans"] < seen[0]["retrans"] + 4) and time.monotonic() < end:
            seen.append(tcp_info(s))
            time.sleep(0.02)
        lines, lost = parse_all([trace.text()])
        sh("tc", "qdisc", "del", "dev", "n0", "root", netns="near")
    assert lost == 0
    timeouts = [line for line in lines if line.type == TIMEOUT and line.saddr == "10.9.0.1" and line.write_seq == written + 1]  # a SYN is one
    assert len(timeouts) >= 4
    compared = 0
    for line in timeouts[1:]:
        before = [info for info in seen if info["retrans"] == line.retrans]
        if not before:  # it came between two looks
            continue
        info = before[-1]
        found = {name: getattr(line, name) for name in info}
        assert abs(found.pop("srtt") - 8 * info.pop("srtt")) < 8 and abs(found.pop("mdev") - 4 * info.pop("mdev")) < 4
        assert found == info
        if line.rto_num > 1:  # the first may come amid a recovery, in which it is not tried
            assert line.frto_counter == (1 if frto else 0)
        assert line.write_seq == line.snd_una + line.wqueue == written + 1
        compared += 1
    assert compared >= 3 and info["packets_out"] and info["lost_out"] and info["rto_num"] and info["ca_state"] == 4


TCP_REPAIR, TCP_REPAIR_QUEUE, TCP_QUEUE_SEQ, TCP_REPAIR_OPTIONS, TCP_REPAIR_WINDOW = 19, 20, 21, 22, 29


def test_sequence_numbers_wrap(probe):
    """A connection 50,000 bytes before 2^32 in both directions: relative numbers go on across it."""
    near_wrap = (1 << 32) - 50000
    ends = []
    for port in (7001, 7002):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        for queue in (1, 2):  # received, sent
            s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_QUEUE, queue)
            s.setsockopt(socket.IPPROTO_TCP, TCP_QUEUE_SEQ, struct.pack("I", near_wrap))
        ends.append(s)
    probe()
    with Trace() as trace:
        ends[0].connect(("127.0.0.1", 7002))
        ends[1].connect(("127.0.0.1", 7001))
        for s in ends:
            # No SYN told of it: the peer's window, which else would seem older than sequence number 0, and its scale.
            window = struct.pack("5I", near_wrap, 65535, 65535, 65535, near_wrap)  # snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup
            s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_WINDOW, window)
            s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR_OPTIONS, struct.pack("2I", 3, 7 | 7 << 16))
            s.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 0)
        for _ in range(60):
            for a, b in (ends, ends[::-1]):
                a.sendall(b"w" * 1000)
                left = 1000
                while left:
                    left -= len(b.recv(left))
        time.sleep(0.3)
        lines, lost = parse_all([trace.text()])
    for s in ends:
        s.close()
    assert lost == 0
    for port in (7001, 7002):
        mine = [line for line in lines if line.sport == port and line.type in (SEND, RECV)]
        for kind in (SEND, RECV):
            assert max(line.seq + line.length for line in mine if line.type == kind and line.length) in (60000, 60001)
        assert max(line.snd_nxt for line in mine) in (60000, 60001)
        assert all(line.wqueue <= 10000 and line.ack <= 60001 for line in mine)
        una = [line.snd_una for line in mine]
        assert una == sorted(una)


@pytest.mark.parametrize("pauses", [[0.1] * 19, [scaled(130, 10), 0]], ids=["seconds", "minutes"])
def test_half_closed(probe, pauses):
    """One side has closed, the other goes on sending, at once or after minutes: everything is still seen, to the end."""
    probe()
    with Trace() as trace:
        with socket.create_server(("127.0.0.1", PORT)) as listener, \
             socket.create_connection(("127.0.0.1", PORT)) as client, listener.accept()[0] as served:
            client.shutdown(socket.SHUT_WR)
            assert served.recv(1) == b""
            for pause in [0, *pauses]:
                time.sleep(pause)
                served.sendall(b"z" * 500)
                left = 500
                while left:
                    left -= len(client.recv(left))
            port = client.getsockname()[1]
        time.sleep(0.5)
        lines = [line for line in parse_all([trace.text()])[0] if port in (line.sport, line.dport)]
    mine = [line for line in lines if line.sport == port]
    assert payload(mine, RECV, again=max(line.retrans for line in lines)) == 500 * (1 + len(pauses))
    assert sum(line.type == SETUP for line in mine) == 1 and not any(line.type == PURGE for line in mine)
    assert sum(line.type == DONE for line in mine) == 1 and mine[-1].type == DONE


def test_a_users_awk(probe, tmp_path):
    """The documentation's line of awk, on the file itself."""
    probe()
    log = tmp_path / "log"

    def summed():
        return sh("awk", "$1 == 1 && $6 == %d { bytes += $7 } END { print bytes }" % PORT, log).stdout.strip()

    with open(log, "wb") as f, subprocess.Popen(["cat", "/proc/net/tcpprobe"], stdout=f) as cat:
        while " armed missed" not in STAT.read_text():
            time.sleep(0.05)
        with socket.create_server(("127.0.0.1", PORT)) as listener, \
             socket.create_connection(("127.0.0.1", PORT)) as client, listener.accept()[0] as served:
            for _ in range(30):
                client.sendall(b"x" * 10)
                served.recv(10)
        end = time.monotonic() + 60
        while summed() != "300" and time.monotonic() < end:
            time.sleep(0.1)
        cat.kill()
    assert summed() == "300"


def test_loaded_and_unloaded_100_times_under_iperf3(probe):
    """And read meanwhile; the transfer does not notice."""
    server = subprocess.Popen(["iperf3", "-s", "-1", "-p", str(PORT)], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not sh("ss", "-Htln", "sport", "=", f":{PORT}").stdout:
        assert server.poll() is None and time.monotonic() < end
        time.sleep(0.1)
    client = subprocess.Popen(["iperf3", "-c", "127.0.0.1", "-p", str(PORT), "-t", "1000"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    try:
        for _ in range(scaled(100, small=5)):
            probe()
            with Trace() as trace:
                time.sleep(0.05)
                trace.text()
            rmmod("tcpprobe")
        assert client.poll() is None and server.poll() is None
    finally:
        for process in (client, server):
            process.kill()
            process.wait()
