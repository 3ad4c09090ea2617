#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Measures khttpd against nginx and user-http-server in one boot, by the same clients: wrk for connections that are
kept, htstress for those that are not and for pipelined requests. See echo.py about the clock."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from lib import IDLE_MAX, INSTRUCTIONS, KO_DIR, QUICK, REPEATS, TOOLS, TOP, bring, pinned, spread, wanted_rows, write

NGINX = """
worker_processes 1;
error_log /dev/null;
pid /dev/shm/tools/nginx.pid;
events { worker_connections 8192; }
http {
	access_log off;
	keepalive_requests 1000000000;
	server {
		listen 127.0.0.1:8080 backlog=1024;
		location / { default_type text/plain; return 200 "Hello World!"; }
	}
}
"""
# server: name, port, khttpd's parameters to set first
SERVERS = [("nginx", 8080, {}), ("user-http-server", 8082, {}), ("khttpd fastpath=1", 8081, {"fastpath": 1}),
           ("khttpd fastpath=0", 8081, {"fastpath": 0})]
if "SERVERS" in os.environ:  # only some, by name, a semicolon between
    SERVERS = [s for s in SERVERS if s[0] in os.environ["SERVERS"].split(";")]
# way, connections, requests or seconds, what khttpd's ratio to nginx is to reach
ROWS = [("kept alive", 1, 2, 1.6), ("kept alive", 32, 2, 1.4), ("kept alive", 256, 2, 1.3),
        ("a connection each", 1, 10000, 1.5), ("a connection each", 32, 10000, 1.5),
        ("16 pipelined", 1, 80000, 2), ("16 pipelined", 32, 80000, 2)]
ROWS = wanted_rows(ROWS, lambda row: f"{row[0]}, {row[1]}")


def idle_seconds():
    """Of all CPUs, since the boot."""
    return int(Path("/proc/stat").read_text().split()[4]) / 100


def htstress(port, *args):
    """Its report; all of the requests have to be answered well."""
    done = subprocess.run([*pinned("client"), TOOLS / "htstress", *map(str, args), "--lean", "--json", f"http://127.0.0.1:{port}/"], check=True,
                          text=True, capture_output=True).stdout
    result = json.loads(done)
    assert result["bad"] == 0, result
    return result


def measure(way, connections, amount, port):
    """Requests a second, and the share of idle time."""
    if way == "kept alive":
        with subprocess.Popen([*pinned("client"), TOOLS / "wrk", "-t1", "-c", str(connections), "-d", str(amount), f"http://127.0.0.1:{port}/"],
                              text=True, stdout=subprocess.PIPE) as client:
            # Its start and its end wait for files; what it reports is of the time between.
            time.sleep(amount / 4)
            began, idle = time.monotonic(), idle_seconds()
            time.sleep(amount / 2)
            idle = (idle_seconds() - idle) / (time.monotonic() - began)
            done = client.communicate()[0]
        assert "Socket errors" not in done and "Non-2xx" not in done, done
        return float(re.search(r"Requests/sec: +([\d.]+)", done)[1]), idle
    result = htstress(port, "-n", amount, "-c", connections, *(["-k", "-P", "16"] if "pipelined" in way else []))
    return result["requests_per_second"], result["cpu_seconds"]["idle"] / result["seconds"]


def main():
    bring("htstress", "wrk", "user-http-server")
    shutil.copy(TOP / "build" / "nginx" / "usr" / "sbin" / "nginx", TOOLS)  # vm/setup's
    for folder in ("/var/lib/nginx", "/var/log/nginx"):
        os.makedirs(folder, exist_ok=True)
    (TOOLS / "nginx.conf").write_text(NGINX)
    subprocess.run([*pinned("server"), TOOLS / "nginx", "-c", TOOLS / "nginx.conf"], check=True)
    baseline = subprocess.Popen([*pinned("server"), TOOLS / "user-http-server"])
    subprocess.run(["insmod", KO_DIR / "khttpd.ko", "backlog=1024"], check=True)
    time.sleep(0.5)
    rows = []
    for way, connections, amount, wanted in ROWS:
        if QUICK:
            amount = amount // 4 if amount > 10 else 1
        for name, port, params in SERVERS:
            for key, value in params.items():
                Path("/sys/module/khttpd/parameters", key).write_text(f"{value}\n")
            if way == "kept alive":
                htstress(port, "-n", 2000, "-c", connections, "-k")  # warm; wrk runs for a second at least
            else:
                measure(way, connections, amount // 10, port)
            for _ in range(3):  # a client that starts late idles
                results = [measure(way, connections, amount, port) for _ in range(REPEATS)]
                idle = results[0][1]
                if not INSTRUCTIONS or idle <= IDLE_MAX:
                    break
            costs = sorted(1e9 / rate for rate, _ in results)
            rows.append({"way": way, "connections": connections, "server": name, "requests_per_second": round(1e9 / costs[len(costs) // 2], 1),
                         "ns_per_request": round(costs[len(costs) // 2]), "least": round(costs[0]), "most": round(costs[-1]),
                         "idle_share": round(idle, 5), "wanted": wanted if name == "khttpd fastpath=1" else ""})
            print(f"  {name}, {way}, {connections} connections: {spread(costs)} ns a request", file=sys.stderr)
    subprocess.run([TOOLS / "nginx", "-c", TOOLS / "nginx.conf", "-s", "stop"], check=True)
    baseline.terminate()
    return report(rows)


def report(rows):
    """Writes the table; how many rows were refused."""
    unit = "instructions" if INSTRUCTIONS else "ns"
    lines = [f"| requests | connections | server | requests/s | {unit}/request | nginx / it | wanted |",
             "|---|---:|---|---:|---:|---:|---:|"]
    refused = 0
    for row in rows:
        base = next(r for r in rows if r["way"] == row["way"] and r["connections"] == row["connections"] and r["server"] == SERVERS[0][0])
        what = f"| {row['way']} | {row['connections']} | {row['server']} |"
        if INSTRUCTIONS and row["idle_share"] > IDLE_MAX:
            lines.append(f"{what} refused: idle {row['idle_share']:.2%} | | | |")
            refused += 1
            continue
        ratio = base["ns_per_request"] / row["ns_per_request"]
        cost = f"{row['ns_per_request']}" + ("" if INSTRUCTIONS else f" ({row['least']}-{row['most']})")
        lines.append(f"{what} {row['requests_per_second']:.0f} | {cost} | {ratio:.3f} | {row['wanted']} |")
    write(rows, lines, "nginx 1.22 with one worker, no access log, and 'return 200'; wrk -t1 for connections that are kept, "
          "else htstress --lean. Client, server and network stack together." +
          ("" if INSTRUCTIONS else " Real time, median (least-most) of five, noisy."))
    return refused


if __name__ == "__main__":
    sys.exit(main() != 0)
