# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""What the tests in the VM share: modules, their statistics, the kernel's log, namespaces."""

import contextlib
import ctypes
import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

KO_DIR = Path(os.environ.get("KO_DIR", "/nonexistent"))
HOOKS_DIR = KO_DIR.with_name(KO_DIR.name + "+hooks")  # built with the test hooks
TOP = Path(__file__).resolve().parents[2]
MODULES = tuple(sorted(path.parent.name for path in TOP.glob("*/Kbuild")))
BENCH = TOP / "userspace" / "bench"
HTSTRESS = TOP / "userspace" / "htstress"
TCPDROP = TOP / "userspace" / "tcpdrop"
PORT, HTTP_PORT = 12345, 8081
LIBC = ctypes.CDLL(None, use_errno=True)
SYS_DELETE_MODULE, SYS_FINIT_MODULE, CLONE_NEWNET = 176, 313, 1 << 30
SO_RCVBUFFORCE, SOL_PACKET, PACKET_STATISTICS, PACKET_OUTGOING = 33, 263, 6, 4
# A kernel built to find bugs is slow: the same tests run on it with smaller loads.
DEBUG = os.environ.get("VM_KERNEL") in ("debug", "kcsan")
# Seconds within which rmmod returns, whatever the clients do.
UNLOAD_MAX = 20 if DEBUG else 1

# How a server can come to its data: see docs/architecture.md. "owned" is a build with test hooks,
# in which every third data_ready sees the socket owned by a process.
MODES = {
    "fast": (KO_DIR, {}),
    "worker": (KO_DIR, {"fastpath": 0}),
    "owned": (HOOKS_DIR, {"hook_owned": 3}),
}


def modes(*names):
    """Runs a test in these modes alone: what a mode changes is how a connection is pumped, and what does not
    depend on that is tested in one."""
    return pytest.mark.parametrize("mode", names, indirect=True)


def scaled(count, by=20, small=1):
    """How many of something a test should make: count; under a debug kernel a by-th of it; with LOAD=small a small-th on the
    others."""
    if DEBUG:
        return count // by
    return count // small if os.environ.get("LOAD") == "small" else count


def least(measure, limit, tries=5):
    """Of so many measurements one has to be below limit: a busy host is slow now and then, a bug each time."""
    took = []
    while not took or (min(took) >= limit and len(took) < tries):
        took.append(measure())
    assert min(took) < limit, took


def busy_for_a_second():
    """Seconds of system and softirq time in one second."""
    before = cpu_seconds()
    time.sleep(1)
    return cpu_seconds() - before


def cpu_seconds():
    """System and softirq time of the machine so far."""
    fields = open("/proc/stat", encoding="ascii").readline().split()
    return (int(fields[3]) + int(fields[7])) / os.sysconf("SC_CLK_TCK")


def thread_seconds(module):
    """Seconds of CPU time that a server's threads have had so far."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            name, _, rest = path.read_text().partition("(")[2].rpartition(")")
            ticks += int(rest.split()[12]) if name.startswith(f"{module}_") else 0
    return ticks / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def on_one_cpu():
    """Whoever asks from here, and so whoever answers in the receive path; and what is sent first comes first."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def sh(*args, check=True, netns=None, **kw):
    """Runs a command, without a shell; its output is text."""
    if netns and args[0] in ("ip", "tc"):  # they can go there by themselves
        args = (args[0], "-n", netns, *args[1:])
    elif netns:
        args = ("ip", "netns", "exec", netns, *args)
    return subprocess.run([str(a) for a in args], check=check, text=True, capture_output=True, **kw)


def ip(*commands, netns=None):
    """Commands of ip's, by one of it: each takes longer to start than to run."""
    return sh("ip", "-batch", "-", input="".join(f"{command}\n" for command in commands), netns=netns)


def in_netns(netns, call):
    """call()'s value, as a thread in the network namespace netns sees it."""
    if not netns:
        return call()

    def there():
        with open(f"/run/netns/{netns}", "rb") as f:
            check(LIBC.setns(f.fileno(), CLONE_NEWNET))
        return call()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(there).result()


def check(result):
    """What a function of libc returned, unless it failed."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


# Loading and unloading go without the commands, which take longer to start than the module does.


def insmod(path, netns=None, line="", **params):
    """line: parameters as they are written, where those of a dictionary will not do."""
    line = " ".join([line, *(f"{k}={v}" for k, v in params.items())])
    with open(path, "rb") as f:
        in_netns(netns, lambda: check(LIBC.syscall(SYS_FINIT_MODULE, f.fileno(), line.encode(), 0)))


def rmmod(name):
    check(LIBC.syscall(SYS_DELETE_MODULE, name.encode(), os.O_NONBLOCK))


def loaded(name):
    return Path("/sys/module", name).exists()


def unload_all():
    """Whatever there is of the suite's."""
    for module in MODULES:
        if loaded(module):
            rmmod(module)


def settings(module, writable=True):
    """The files by which a module is configured, its parameters and its sysctls."""
    folders = Path("/sys/module", module, "parameters"), Path(f"/proc/sys/net/{module}_plus")
    return [path for folder in folders if folder.exists() for path in sorted(folder.iterdir())
            if path.stat().st_mode & 0o200 or not writable]


def statistics_file(module):
    """The file with a module's counters."""
    return next(path for path in (Path("/proc/net/stat", module), Path(f"/proc/net/stat/{module}_plus"), Path("/proc/net", module))
                if path.exists())


class KernelLog:
    """The kernel's log lines from the time this is made, but for those that tell of a host which stood still."""

    STOOD_STILL = re.compile("hrtimer: interrupt took|clocksource: |sched: RT throttling")

    def __init__(self):
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)

    def lines(self):
        found = []
        while True:
            try:
                line = os.read(self.fd, 8192).decode("utf-8", "replace").split(";", 1)[1]
            except BlockingIOError:
                return found
            except BrokenPipeError:  # overwritten before it was read
                continue
            if not self.STOOD_STILL.match(line):
                found.append(line)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        os.close(self.fd)


class Server:
    """A loaded module that serves TCP."""

    def __init__(self, name, netns=None):
        self.name = name
        self.netns = netns

    def stats(self):
        text = in_netns(self.netns, Path(f"/proc/thread-self/net/stat/{self.name}").read_text)
        pairs = [line.split() for line in text.splitlines()]
        assert pairs[0] == ["version", "1"], text
        return {name: int(value) for name, value in pairs}

    def stat(self, name):
        return self.stats()[name]

    def wait(self, name, value, seconds=30):
        """Waits for a counter to have a value; the last seen goes into the failure."""
        end = time.monotonic() + seconds
        while True:
            seen = self.stat(name)
            if seen == value:
                return
            assert time.monotonic() < end, f"{name} is {seen}, not {value}: {self.stats()}"
            time.sleep(0.02)

    def set(self, param, value):
        # One write, which Python's buffered files would repeat after a failure.
        fd = os.open(f"/sys/module/{self.name}/parameters/{param}", os.O_WRONLY)
        try:
            os.write(fd, f"{value}\n".encode())
        finally:
            os.close(fd)

    def get(self, param):
        return Path("/sys/module", self.name, "parameters", param).read_text().strip()


def connect(host="127.0.0.1", port=PORT, timeout=60, **kw):
    return socket.create_connection((host, port), timeout=timeout, **kw)


def shut(port, data=b""):
    """A client that has sent data, and whose window is shut before it has all that may come back: it takes 2 KiB."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    s.settimeout(60)
    s.connect(("127.0.0.1", port))
    s.sendall(data)
    return s


@contextlib.contextmanager
def black_hole():
    """A device that swallows all, with 10.9.9.1 on it and 198.51.100.0/24 behind it."""
    ip("link add hole type dummy", "addr add 10.9.9.1/24 dev hole", "link set hole up", "route add 198.51.100.0/24 dev hole")
    try:
        yield
    finally:
        ip("link del hole")


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def packet(source, sport, dest, dport, *, seq, ack=0, flags, data=b""):
    """Sends a TCP segment, of an even number of bytes, from an address that need not be ours; flags of "S" and "A"."""
    bits = 2 * ("S" in flags) | 16 * ("A" in flags)
    pseudo = socket.inet_aton(source) + socket.inet_aton(dest) + struct.pack("!HH", 6, 20 + len(data))
    tcp = struct.pack("!HHIIBBHHH", sport, dport, seq, ack & 0xffffffff, 5 << 4, bits, 64240, 0, 0) + data
    tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 1, 0, 64, 6, 0, socket.inet_aton(source),
                     socket.inet_aton(dest))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(ip + tcp, (dest, 0))


@contextlib.contextmanager
def connections(count):
    """So many, over loopback: those who asked; those who served, each in its peer's place, as they may come in another order;
    where the listener is."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=count))
        asked = [stack.enter_context(connect(*listener.getsockname(), timeout=60)) for _ in range(count)]
        accepted = [stack.enter_context(listener.accept()[0]) for _ in asked]
        for s in accepted:
            s.settimeout(60)
        by_peer = {s.getpeername(): s for s in accepted}
        yield asked, [by_peer[s.getsockname()] for s in asked], listener.getsockname()


def forever(command, out=subprocess.DEVNULL):
    """Runs a command anew whenever it ends, in a process group of its own."""
    return subprocess.Popen(["sh", "-c", 'while :; do "$@" 2>/dev/null || sleep 0.1; done', "sh", *map(str, command)],
                            stdout=out, start_new_session=True)


def receive(sock, n):
    """Exactly n bytes."""
    parts = []
    while n:
        part = sock.recv(min(n, 1 << 20))
        assert part, f"closed with {n} bytes to come"
        parts.append(part)
        n -= len(part)
    return b"".join(parts)


def alive(sock):
    """Whether an echo server answers there."""
    sock.sendall(b"?")
    return receive(sock, 1) == b"?"


def receive_all(sock):
    """Everything up to the peer's FIN."""
    parts = []
    while part := sock.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


class Capture:
    """TCP segments that a device of a namespace's carries while this is open, in .segments; on IPv6 those without extension
    headers. On loopback each is seen twice, as sent and as received. Closing waits until no more come."""

    Segment = namedtuple("Segment", "sent port flags options payload")  # sent: by this device; port: the source's

    def __init__(self, netns=None, dev="lo"):
        self.sock = in_netns(netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)))
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.sock.settimeout(0.5)
        self.dev = dev
        self.segments = []
        self.stop = False
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while True:
            try:
                packet, addr = self.sock.recvfrom(70000)
            except TimeoutError:
                if self.stop:
                    return
                continue
            tcp = addr[0] == self.dev and self.tcp(packet)
            if not tcp:
                continue
            head = 4 * (tcp[12] >> 4)
            self.segments.append(self.Segment(addr[2] == PACKET_OUTGOING, struct.unpack_from(">H", tcp)[0], tcp[13],
                                              tcp[20:head], tcp[head:]))

    @staticmethod
    def tcp(packet):
        """What an IP packet carries of TCP, if it does."""
        version, protocol = packet[0] >> 4, socket.IPPROTO_TCP
        if version == 4 and packet[9] == protocol:
            return packet[4 * (packet[0] & 15):struct.unpack_from(">H", packet, 2)[0]]
        if version == 6 and packet[6] == protocol:
            return packet[40:40 + struct.unpack_from(">H", packet, 4)[0]]
        return b""

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop = True
        self.thread.join()
        dropped = struct.unpack("II", self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]
        self.sock.close()
        assert dropped == 0


def bench(*args, check=True, netns=None, **kw):
    return sh(BENCH, *args, check=check, netns=netns, **kw)


def wrong_bytes(said):
    """What bench or htstress --json says of bytes that were not those that had to come."""
    return json.loads(said)["errors"]["wrong_bytes"]


MS_BIND, MS_REC, MS_SHARED, MNT_DETACH = 0x1000, 0x4000, 1 << 20, 2
SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def mount(source, target, flags):
    check(LIBC.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(flags), None))


@contextlib.contextmanager
def network_namespace(name):
    """A namespace that ip knows by this name, made as ip does, two of whose commands take longer to start than all tests need
    of it. Its loopback device is up."""
    folder = Path("/run/netns")
    folder.mkdir(exist_ok=True)
    # Where "ip netns exec" runs a command this goes as well.
    try:
        mount("", folder, MS_SHARED | MS_REC)
    except OSError:  # EINVAL: it is not a mount point yet
        mount(folder, folder, MS_BIND | MS_REC)
        mount("", folder, MS_SHARED | MS_REC)
    path = folder / name

    def make():
        check(LIBC.unshare(CLONE_NEWNET))
        path.touch(exist_ok=False)
        mount("/proc/thread-self/ns/net", path, MS_BIND)
        with socket.socket() as s:
            fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(make).result()
    try:
        yield name
    finally:
        if path.exists():  # unless the test has deleted it
            check(LIBC.umount2(os.fsencode(path), MNT_DETACH))
            path.unlink()


def lossy_link(near, far, loss):
    """Joins two namespaces by a link, "wire", 10.8.0.1 at the near end and 10.8.0.2 at the far one, which loses packets
    both ways. Neither end asks for the other's address first: ARP gives up after three tries."""
    ends = (near, "10.8.0.1", "02:00:00:00:00:01"), (far, "10.8.0.2", "02:00:00:00:00:02")
    ip(f"link add wire address {ends[0][2]} netns {near} type veth peer name wire address {ends[1][2]} netns {far}")
    for (ns, own, _), (_, address, mac) in zip(ends, ends[::-1]):
        ip(f"addr add {own}/24 dev wire", "link set wire up", f"neigh add {address} lladdr {mac} dev wire nud permanent", netns=ns)
        sh("tc", "qdisc", "add", "dev", "wire", "root", "netem", "loss", loss, "limit", "100000", netns=ns)


@contextlib.contextmanager
def sysctl(**values):
    """Sets /proc/sys/net values, names with "." as "__", and puts the old ones back."""
    old = {}
    for name, value in values.items():
        path = Path("/proc/sys/net", *name.split("__"))
        old[path] = path.read_text()
        path.write_text(str(value))
    try:
        yield
    finally:
        for path, value in old.items():
            path.write_text(value)


def connected(port, netns=None):
    """What ss lists of the sockets at a local port, but for those in TIME-WAIT."""
    return sh("ss", "-Htan", "state", "connected", "exclude", "time-wait", "sport", "=", f":{port}",
              netns=netns).stdout


def shrink_slabs(names=("*",)):
    """Gives back what slab caches keep for later, KASAN's quarantine of freed objects included."""
    for name in names:
        for shrink in Path("/sys/kernel/slab").glob(f"{name}/shrink"):
            with contextlib.suppress(OSError):
                shrink.write_text("1")


def slabs(names):
    """Active objects of those slab caches that this kernel has."""
    shrink_slabs(names)
    active = {}
    for line in Path("/proc/slabinfo").read_text().splitlines()[2:]:
        fields = line.split()
        active[fields[0]] = int(fields[1])
    return {name: active[name] for name in names if name in active}


def threads():
    """Threads of the kernel's and everybody's."""
    return int(Path("/proc/loadavg").read_text().split()[3].split("/")[1])


def drop_totals():
    """The numbers that /proc/net/drop_tcp_sock has, by name."""
    return {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", Path("/proc/net/drop_tcp_sock").read_text(), re.M)}


def meminfo(name):
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def available_memory():
    """MemAvailable when nothing is cached: page cache, and slabs without an object in use."""
    Path("/proc/sys/vm/drop_caches").write_text("3")
    shrink_slabs()
    return meminfo("MemAvailable") + pages_at_cpus()


def pages_at_cpus():
    """Bytes of free pages that the CPUs keep in lists of their own, not counted as free: up to 20 MB."""
    counts = re.findall(r"^ +count: +(\d+)$", Path("/proc/zoneinfo").read_text(), re.M)
    assert counts
    return sum(map(int, counts)) * os.sysconf("SC_PAGE_SIZE")


def untold_pages():
    """Bytes in use of which the kernel keeps no account: pages that were allocated as such, as those of sockets' data are."""
    known = ("MemFree", "Buffers", "Cached", "SwapCached", "Slab", "AnonPages", "PageTables", "VmallocUsed", "Percpu")
    return meminfo("MemTotal") - sum(map(meminfo, known)) - pages_at_cpus()


def socket_memory(port):
    """Bytes that the sockets at a local port hold: received, to send, and set aside.

    Asks sock_diag itself: ss takes longer than the tenth of a second between two samples.
    """
    total = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as s:
        for family in (socket.AF_INET, socket.AF_INET6):
            request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 1 << 6, 0, 0xffffffff)
            request += bytes(48)
            header = struct.pack("=IHHII", 16 + len(request), 20, 0x301, 1, 0)
            s.send(header + request)
            done = False
            while not done:
                data = s.recv(1 << 16)
                while data:
                    length, kind = struct.unpack_from("=IH", data)
                    if kind == 3:
                        done = True
                    elif kind == 20 and struct.unpack_from(">H", data, 20)[0] == port:
                        total += skmem(data[16 + 72:length])
                    data = data[(length + 3) & ~3:]
    return total


def skmem(attributes):
    """INET_DIAG_SKMEMINFO's rmem_alloc, wmem_alloc, fwd_alloc and wmem_queued, added up."""
    while attributes:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind == 7:
            values = struct.unpack_from("=7I", attributes, 4)
            return values[0] + values[2] + values[4] + values[5]
        attributes = attributes[(length + 3) & ~3:]
    return 0


def sockstat(name, netns=None):
    """A figure of the TCP line of /proc/net/sockstat."""
    text = in_netns(netns, Path("/proc/thread-self/net/sockstat").read_text)
    words = next(line for line in text.splitlines() if line.startswith("TCP:")).split()
    return int(words[words.index(name) + 1])
