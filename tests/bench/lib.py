# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""What the measurements share: where things are, the client, and how a table is written."""

import csv
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
OUT = Path(os.environ["OUT_DIR"])
KO_DIR = Path(os.environ["KO_DIR"])
QUICK = bool(os.environ.get("QUICK"))
INSTRUCTIONS = os.environ.get("VM_CLOCK") == "instructions"
IDLE_MAX = 0.005  # a row with a larger share of idle time is refused: see echo.py
TOOLS = Path("/dev/shm/tools")  # what is timed does not come over the wire from the host


def bring(*programs):
    """Copies programs, of userspace/ or of the system, to TOOLS."""
    TOOLS.mkdir(exist_ok=True)
    for program in programs:
        own = TOP / "userspace" / program
        shutil.copy(own if own.exists() else shutil.which(program), TOOLS)


def echo(port, connections, messages, size):
    """bench's own account of so many messages a connection, as JSON has it, and the share of idle time."""
    done = subprocess.run([TOOLS / "bench", "-c", str(connections), "-n", str(messages), "-s", str(size), "--lean",
                           "--json", "127.0.0.1", str(port)], check=True, text=True, capture_output=True)
    result = json.loads(done.stdout)
    return result, result["cpu_seconds"]["idle"] / result["seconds"]


def write(name, rows, table, about):
    """Writes NAME.csv and NAME.md, and prints the latter."""
    with open(OUT / f"{name}.csv", "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    unit = "1 ns = 1 instruction" if INSTRUCTIONS else "real time in ns, noisy"
    caption = (f"Linux {platform.release()}, {os.cpu_count()} CPU, {os.environ.get('QEMU', 'QEMU')}, {unit}; "
               f"commit {os.environ.get('COMMIT', '?')}; make bench BENCH={name}{' QUICK=1' if QUICK else ''}. "
               f"{about} No hardware was measured.")
    text = "\n".join(table) + f"\n\n{caption}\n"
    (OUT / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
