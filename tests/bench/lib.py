# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""What the measurements share: where things are, the servers, the client, and how a table is written."""

import atexit
import contextlib
import csv
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
OUT = Path(os.environ["OUT_DIR"])
KO_DIR = Path(os.environ["KO_DIR"])
PEERS_DIR = Path(f"{KO_DIR}+hooks")  # with the tests' own modules, and so with the peer that is one
QUICK = bool(os.environ.get("QUICK"))
INSTRUCTIONS = os.environ.get("VM_CLOCK") == "instructions"
NATIVE = bool(os.environ.get("NATIVE"))  # on hardware, as far as can be known: "make bench-native"
RPS = os.environ.get("RPS", "")  # a mask of CPUs, to which loopback's packets are steered
if RPS:
    Path("/sys/class/net/lo/queues/rx-0/rps_cpus").write_text(RPS)
# What the files are called: after the measurement, and its clock if that is not the instruction clock.
NAME = Path(sys.argv[0]).stem + ("" if INSTRUCTIONS else "-real") + ("-rps" if RPS else "")
IDLE_MAX = 0.005  # a row with a larger share of idle time is refused: see echo.py
REPEATS = 1 if INSTRUCTIONS else 5  # real time is noise
# What is timed does not come over the wire from the host. In /dev/shm of a machine with other users somebody might have been there.
TOOLS = Path(tempfile.mkdtemp(dir="/dev/shm", prefix="knet-tools.") if NATIVE else "/dev/shm/tools")
if NATIVE:
    atexit.register(shutil.rmtree, TOOLS, ignore_errors=True)


class NoServer(RuntimeError):
    """A server that does not come to serve, and why."""


def bring(*programs):
    """Copies programs, of userspace/ or of the system, to TOOLS."""
    TOOLS.mkdir(exist_ok=True)
    for program in programs:
        own = next((p for p in (TOP / "userspace" / program, TOP / "build" / "peers" / program) if p.exists()), None)
        shutil.copy(own or shutil.which(program), TOOLS)


def pinned(who):
    """What a command begins with so that it runs where PIN says, "CPU of the server, CPU of the client"."""
    cpus = os.environ.get("PIN", "").split()
    return ["taskset", "-c", cpus[("server", "client").index(who)]] if cpus else []


def idle_seconds():
    """How long the one CPU has idled since the boot: to the nanosecond where the kernel tells it, which Linux 7 does not, else in
    ticks of 10 ms."""
    told = re.findall(r"\.idle_sleeptime *: (\d+) nsecs", Path("/proc/timer_list").read_text())
    return sum(map(int, told)) / 1e9 if told else int(Path("/proc/stat").read_text().split()[4]) / os.sysconf("SC_CLK_TCK")


class EchoServer:
    """One that is measured.

    name: in the tables; about: its settings, for the reader; port: its own; program, options; or module, params.
    connects: a row of nothing else but a connection for each message is to be had of it.
    """

    def __init__(self, name, about, port, program=None, module=None, options=(), connects=False, **params):
        self.name = name
        self.about = about
        self.port = port
        self.program = program
        self.module = module
        self.options = options
        self.connects = connects
        self.params = params
        self.ours = module == "kecho"

    @contextlib.contextmanager
    def serving(self):
        """While this is open it serves; yields its process, or None."""
        if self.program:
            with subprocess.Popen([*pinned("server"), TOOLS / self.program, "-p", str(self.port), "-b", str(BACKLOG), *self.options]) as process:
                try:
                    self.wait(process)
                    yield process
                finally:
                    process.terminate()
        else:
            folder = KO_DIR if self.ours else PEERS_DIR
            params = {"port": self.port, "backlog": BACKLOG, **self.params}
            done = subprocess.run(["insmod", folder / f"{self.module}.ko", *[f"{k}={v}" for k, v in params.items()]], check=False, text=True,
                                  stderr=subprocess.PIPE)
            if done.returncode:
                raise NoServer(f"does not load: {done.stderr.strip()}")
            try:
                self.wait()
                yield None
            finally:
                subprocess.run(["rmmod", self.module], check=True)

    def wait(self, process=None):
        """Until it answers."""
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 10) as s:
                s.sendall(b"?")
                if s.recv(1) == b"?":
                    return
            if process and process.poll() is not None:
                raise NoServer(f"ended with status {process.returncode} instead of serving")
            if time.monotonic() > end:
                raise NoServer("does not answer")
            time.sleep(0.05)


BACKLOG = 4096
ECHO_SERVERS = [
    EchoServer("kecho", "fastpath=1", 12345, module="kecho"),
    EchoServer("kecho worker", "fastpath=0 bench=0", 12345, module="kecho", fastpath=0),
    EchoServer("kecho worker bench=1", "fastpath=0 bench=1", 12345, module="kecho", fastpath=0, bench=1),
    EchoServer("epoll", "userspace/user-echo-server: one thread, edge-triggered, 64 KiB buffer, 256 events a wait", 12346,
               "user-echo-server"),
    EchoServer("io_uring", "one thread, single issuer, deferred task work, multishot accept, multishot receive, "
               "4,096 provided buffers of 64 KiB, all touched before, a send for all that came at once", 12349, "uring-echo-server"),
    EchoServer("epoll -D", "epoll with TCP_DEFER_ACCEPT", 12351, "user-echo-server", options=["-D"], connects=True),
    EchoServer("io_uring -D", "io_uring with TCP_DEFER_ACCEPT", 12352, "uring-echo-server", options=["-D"], connects=True),
    EchoServer("io_uring -D -f", "io_uring -D with direct descriptors (Linux 6.1 closes those up to a second later)", 12354, "uring-echo-server",
               options=["-D", "-f"], connects=True),
    EchoServer("splice", "one thread, edge-triggered epoll, splice(2) through a pipe of 1 MiB", 12353, "splice-echo-server"),
    EchoServer("sockmap", "BPF stream verdict on a sockhash, redirected to the socket itself", 12348, "sockmap-echo-server"),
    EchoServer("threads", "a thread a connection, blocking, 64 KiB buffer", 12347, "thread-echo-server"),
    EchoServer("kthreads", "a kernel thread a connection, blocking, 64 KiB buffer", 12350, module="kthread_echo"),
]


def named(variable, things, name):
    """Those that an environment variable names, by what name() says of them, a semicolon between; all, where it is not set. Names may
    be another table's; but where all are, this one would be a table of nothing."""
    if variable not in os.environ:
        return things
    wanted = os.environ[variable].split(";")
    unknown = [word for word in wanted if word not in map(name, things)]
    if unknown:
        print(f"{NAME}: {variable}: no '{unknown[0]}' here, but: {'; '.join(map(name, things))}", file=sys.stderr)
    if len(unknown) == len(wanted):
        sys.exit(2)
    return [thing for thing in things if name(thing) in wanted]


if NAME.startswith("memory"):  # the others hold what kecho holds, or what they do by their other names
    ECHO_SERVERS = [server for server in ECHO_SERVERS if not server.connects and not server.name.startswith("kecho worker")]
if NAME.startswith(("echo", "memory")):
    ECHO_SERVERS = named("SERVERS", ECHO_SERVERS, lambda server: server.name)


NGINX = f"""
worker_processes 1;
worker_rlimit_nofile 65536;
error_log /dev/null;
pid {TOOLS}/nginx.pid;
""" + """
events { worker_connections 8192; }
http {
	access_log off;
	keepalive_requests 1000000000;
	server {
		listen 127.0.0.1:8080 backlog=1024;
		listen 127.0.0.1:8083 backlog=1024 deferred;
		location / { default_type text/plain; return 200 "Hello World!"; }
	}
}
"""

@contextlib.contextmanager
def nginx():
    """While this is open it serves on port 8080, and with TCP_DEFER_ACCEPT on 8083; yields its worker's number. Its program is
    vm/setup's."""
    shutil.copy(TOP / "build" / "nginx" / "usr" / "sbin" / "nginx", TOOLS)
    for folder in ("/var/lib/nginx", "/var/log/nginx"):
        os.makedirs(folder, exist_ok=True)
    (TOOLS / "nginx.conf").write_text(NGINX)
    command = [*pinned("server"), TOOLS / "nginx", "-c", TOOLS / "nginx.conf"]
    subprocess.run(command, check=True)
    try:
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError, IndexError):
                master = int((TOOLS / "nginx.pid").read_text())
                worker = int(Path(f"/proc/{master}/task/{master}/children").read_text().split()[0])
                break
            assert time.monotonic() < end, "nginx has no worker"
            time.sleep(0.05)
        yield worker
    finally:
        subprocess.run([*command, "-s", "stop"], check=True)


@contextlib.contextmanager
def baseline():
    """The same of user-http-server, on port 8082."""
    with subprocess.Popen([*pinned("server"), TOOLS / "user-http-server", "-D"]) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


@contextlib.contextmanager
def khttpd():
    """The same of khttpd, on port 8081; it has no process."""
    subprocess.run(["insmod", KO_DIR / "khttpd.ko", "backlog=1024"], check=True)
    try:
        yield None
    finally:
        subprocess.run(["rmmod", "khttpd"], check=True)


def no_time_waits():
    """Ends what is in TIME-WAIT, so that none of one server's go while the next is measured; where "ss -K" cannot, waits."""
    subprocess.run(["ss", "-HKt", "state", "time-wait"], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 70
    while int(re.search(r"^TCP: .* tw (\d+)", Path("/proc/net/sockstat").read_text(), re.M)[1]) and time.monotonic() < end:
        time.sleep(0.1)


def spread(values, form="{:.0f}"):
    """Median, least and most of several, as the tables show them; one alone as it is."""
    if len(values) == 1:
        return form.format(values[0])
    return f"{form} ({form}-{form})".format(statistics.median(values), min(values), max(values))


def cpu_split(spent):
    """Shares of user, system and softirq time, in percent, from what bench or htstress say."""
    busy = spent["user"] + spent["system"] + spent["softirq"]
    return {k: round(100 * spent[k] / busy, 1) if busy else 0 for k in ("user", "system", "softirq")}


def echo(port, connections, messages, size, *options):
    """bench's own account of so many messages a connection, as JSON has it, and the share of idle time."""
    done = subprocess.run([*pinned("client"), TOOLS / "bench", "-c", str(connections), "-n", str(messages), "-s", str(size), "--json",
                           *(options or ["--lean"]), "127.0.0.1", str(port)], check=False, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no reason told"])[-1])
    result = json.loads(done.stdout)
    return result, result["cpu_seconds"]["idle"] / result["seconds"]


def write(rows, table, about, timed=True):
    """Writes NAME.csv and NAME.md, and prints the latter."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    with open(OUT / f"{NAME}.csv", "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, keys)
        writer.writeheader()
        writer.writerows(rows)
    unit = "1 ns = 1 instruction" if INSTRUCTIONS else "real time, noisy"
    caption = (f"Linux {platform.release()}, {os.cpu_count()} CPU, {os.environ.get('QEMU', 'no QEMU')}{', ' + unit if timed else ''}; {os.environ.get('HOST_CPU', '')}; "
               f"commit {os.environ.get('COMMIT', '?')}; {os.environ.get('BENCH_COMMAND', '?')}.")
    if INSTRUCTIONS and timed:
        about += " Fewer instructions is all this says: no hardware was measured."
    text = "\n".join(table) + f"\n\n{about}\n\n{caption}\n"
    (OUT / f"{NAME}.md").write_text(text, encoding="utf-8")
    (OUT / f"{NAME}.caption").write_text(caption + "\n", encoding="utf-8")
    print(text)
