#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""tests/soak/soak.py SECONDS OUT: all modules under mixed traffic for so long, in the guest; memory has to stay flat.

kecho and khttpd serve throughout, over IPv4 and IPv6, connections kept and not, some of them killed; tcpprobe is read by
one reader after the other; TIME-WAIT sockets and connections are dropped; namespaces with a kecho of their own come and
go, for which the other kecho makes way now and then; the other modules are unloaded and loaded in turn. Samples of
memory, sockets and threads go to OUT/samples.csv, a line a second or as often as the machine gets to it. Fails if a
median of the last quarter is above that of the second by more than is allowed below, or if anybody could not do its part.
"""

import contextlib
import csv
import itertools
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "vm"))
from lib import (BENCH, HTSTRESS, HTTP_PORT, KO_DIR, MODULES, PORT, insmod, loaded, meminfo, network_namespace, rmmod,  # noqa: E402
                 sh, shrink_slabs, sockstat, threads, unload_all, untold_pages)

# What is sampled, and how much more of it there may be at the end: bytes, or a number. TIME-WAIT is no leak: it is bounded by
# tcp_max_tw_buckets and goes by itself. Of the sockets in use up to 160 are those of the traffic itself, which comes and goes.
LIMITS = {"unreclaimable": 8 << 20, "kernel_stack": 1 << 20, "vmalloc": 4 << 20, "percpu": 1 << 20, "pages": 16 << 20, "sockets": 200,
          "orphans": 20, "socket_pages": 2000, "socket_objects": 400, "socket_inodes": 400, "threads": 12, "conns": 100}


LEAST = 8  # samples to judge by
SOCKET_CACHES = ("TCP", "TCPv6", "sock_inode_cache")


def sample():
    shrink_slabs(SOCKET_CACHES)  # else what CPUs and KASAN's quarantine keep of them counts too
    return {"unreclaimable": meminfo("SUnreclaim"), "kernel_stack": meminfo("KernelStack"), "vmalloc": meminfo("VmallocUsed"),
            "percpu": meminfo("Percpu"), "pages": untold_pages(), "available": meminfo("MemAvailable"), "sockets": sockstat("inuse"),
            "orphans": sockstat("orphan"), "time_wait": sockstat("tw"), "socket_pages": sockstat("mem"),
            "socket_objects": objects("TCP") + objects("TCPv6"), "socket_inodes": objects("sock_inode_cache"),
            "threads": threads(), "conns": conns()}


def objects(cache):
    """In use of a slab cache. Not by slabinfo, which waits for caches that go."""
    path = Path("/sys/kernel/slab", cache, "objects")
    return int(path.read_text().split()[0]) if path.exists() else 0


def conns():
    """Connections that the servers hold."""
    total = 0
    for name in ("kecho", "khttpd"):
        with contextlib.suppress(OSError):  # not loaded, or, EIO, just going
            pairs = dict(line.split() for line in Path(f"/proc/net/stat/{name}").read_text().splitlines())
            total += int(pairs["active"])
    return total


class Soak:
    def __init__(self, seconds):
        self.end = time.monotonic() + seconds
        self.over = False
        self.wrong = []
        self.done = {}
        # Who holds a module's may unload it; but tcpprobe, which goes under whoever reads it.
        self.locks = {module: threading.Lock() if module != "tcpprobe" else contextlib.nullcontext() for module in MODULES}
        self.others = itertools.cycle(module for module in MODULES if module != "kecho")

    def repeat(self, action, seed):
        rng = random.Random(seed)
        try:
            while not self.over and not self.wrong:
                action(rng)
                self.done[action.__name__] = self.done.get(action.__name__, 0) + 1
        except subprocess.CalledProcessError as e:
            self.wrong.append(f"{e}\n{e.stdout}{e.stderr}{sh('ss', '-tinom', f'( sport = :{PORT} or dport = :{PORT} )').stdout}")
        except Exception:  # pylint: disable=broad-exception-caught
            self.wrong.append(traceback.format_exc())

    def echo(self, rng):
        with self.locks["kecho"]:
            host = rng.choice(("127.0.0.1", "::1"))
            command = rng.choice((["-c", 30, "-n", 200], ["-c", 30, "-n", 20, "--reconnect"], ["-c", 4, "-n", 10, "-s", 200000]))
            sh(BENCH, *command, host, PORT)

    def http(self, rng):
        with self.locks["khttpd"]:
            kind = rng.choice(([], ["-k"], ["-k", "-P", 16]))
            host = rng.choice(("127.0.0.1", "[::1]"))
            sh(HTSTRESS, "-n", 1000, "-c", rng.choice((1, 30)), *kind, f"http://{host}:{HTTP_PORT}/")

    def killed(self, rng):
        command = rng.choice(([BENCH, "-c", 20], [BENCH, "-c", 20, "--reconnect"], [HTSTRESS, "-c", 20, "-k", f"http://127.0.0.1:{HTTP_PORT}/"]))
        with subprocess.Popen([*map(str, command), "-d", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
            time.sleep(rng.random())
            client.send_signal(signal.SIGKILL)

    def trace(self, rng):
        with subprocess.Popen(["cat", "/proc/net/tcpprobe"], stdout=subprocess.DEVNULL) as reader:
            time.sleep(2 * rng.random())
            reader.send_signal(signal.SIGKILL)

    def drop(self, rng):
        time.sleep(0.5)
        with self.locks["drop_tcp_sock"], open("/proc/net/drop_tcp_sock", "wb", buffering=0) as f:
            f.write(b"*:* *:8081 time-wait\n*:8081 *:* time-wait\n*:12345 *:* time-wait\n*:* *:12345 time-wait\n")

    def move(self, rng):
        """kecho makes way for one in a namespace, and comes back."""
        time.sleep(3)
        with self.locks["kecho"]:
            rmmod("kecho")
            with network_namespace("soak"):
                insmod(KO_DIR / "kecho.ko", netns="soak", bench=rng.randrange(2))
                sh(BENCH, "-c", 10, "-n", 20, netns="soak")
                if rng.random() < 0.5:  # or it outlives its namespace
                    rmmod("kecho")
            if loaded("kecho"):
                rmmod("kecho")
            insmod(KO_DIR / "kecho.ko", bench=rng.randrange(2))

    def renew(self, _):
        """One of the others goes, whoever uses it, and comes back."""
        time.sleep(2)
        module = next(self.others)
        with self.locks[module]:
            rmmod(module)
            insmod(KO_DIR / f"{module}.ko")

    def sample(self, out):
        with open(out / "samples.csv", "w", newline="", encoding="utf-8") as f:
            writer = csv.DictWriter(f, ["seconds", *sample()])
            writer.writeheader()
            began = time.monotonic()
            for n in itertools.count(1):
                if n % 10 == 0:
                    shrink_slabs()  # what is kept for later is no leak
                row = {"seconds": round(time.monotonic() - began, 1), **sample()}
                writer.writerow(row)
                f.flush()
                yield row
                # A host that is busy makes a sample last a minute.
                if (time.monotonic() > self.end and n >= LEAST) or self.wrong:
                    return
                time.sleep(1)


def judge(rows):
    """What grew."""
    if len(rows) < LEAST:
        return [f"only {len(rows)} samples"]
    wrong = []
    quarter = len(rows) // 4
    for name, most in LIMITS.items():
        early = statistics.median(row[name] for row in rows[quarter:2 * quarter])
        # Of few samples one may be of a peak; a leak is in all of them.
        late = (statistics.median if quarter > 4 else min)(row[name] for row in rows[3 * quarter:])
        print(f"{name}: {early:.0f} -> {late:.0f}")
        if late - early > most:
            wrong.append(f"{name} grew from {early:.0f} to {late:.0f}")
    return wrong


def caption(out, rows):
    """What the picture says of where it is from; of the host, what "make soak" knows."""
    host = ", ".join(os.environ[name] for name in ("QEMU", "HOST_CPU") if name in os.environ)
    (out / "soak.caption").write_text(f"Linux {platform.release()}, {os.cpu_count()} CPUs, {host}; commit {os.environ.get('COMMIT', '?')}; "
                                      f"{len(rows)} samples; {os.environ.get('BENCH_COMMAND', ' '.join(sys.argv))}.\n", encoding="utf-8")


def main(seconds, out):
    for module in MODULES:
        insmod(KO_DIR / f"{module}.ko")
    soak = Soak(seconds)
    actions = (soak.echo, soak.http, soak.killed, soak.trace, soak.drop, soak.move, soak.renew)
    running = [threading.Thread(target=soak.repeat, args=(action, n)) for n, action in enumerate(actions)]
    for thread in running:
        thread.start()
    try:
        rows = list(soak.sample(out))
    finally:
        soak.over = True
    for thread in running:
        thread.join()
    caption(out, rows)
    print(f"{seconds} s, {len(rows)} samples: {soak.done}")
    wrong = soak.wrong + judge(rows)
    wrong += [f"{action.__name__} was not done" for action in actions if not soak.done.get(action.__name__)]
    unload_all()
    print(*wrong, sep="\n", file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
