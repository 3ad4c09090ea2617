# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that kecho and khttpd have not become dearer beside their first rivals: how many times their instructions
these need, against what tests/ratios.json has recorded, and in no case below what it says is the least. The instruction clock
repeats to a percent."""

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
KERNEL = os.environ.get("KERNEL") or "6.1"
RECORDED = json.loads((TOP / "tests" / "ratios.json").read_text())
LOSS = 0.03  # that is allowed
SERVERS = {"echo": ("epoll", "kecho"), "http": ("nginx", "khttpd fastpath=1")}


def key(row):
    if "way" in row:
        return f"{row['way']}, {row['connections']}"
    if not row["bytes"].isdigit():  # a connection for each message
        return f"{row['bytes']}, {row['connections']}"
    size = int(row["bytes"])
    return f"{size} B, {row['connections']}" if size < 1 << 20 else f"{size >> 20} MiB, {row['connections']}"


@pytest.mark.parametrize("what", SERVERS)
def test_ratio_to_the_first_rival(what, tmp_path):
    if KERNEL not in RECORDED:
        pytest.skip("no ratios are recorded for this kernel")
    recorded = RECORDED[KERNEL][what]
    rival, ours = SERVERS[what]
    done = subprocess.run([TOP / "tests" / "bench" / "run", what], check=False, text=True, stdout=subprocess.PIPE,
                          env={**os.environ, "QUICK": "1", "SERVERS": f"{rival};{ours}", "ONLY": ";".join(recorded), "BENCH_OUT": str(tmp_path)})
    assert done.returncode == 0, done.stdout
    with open(tmp_path / f"{what}.csv", newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert not any(row.get("refused") for row in rows), rows
    cost = {(key(row), row["server"]): int(row.get("ns_per_message") or row["ns_per_request"]) for row in rows}
    ratios = {name: cost[name, rival] / cost[name, ours] for name in recorded}
    print({name: round(ratio, 3) for name, ratio in ratios.items()})
    least = RECORDED["least"].get(what, {})
    bounds = {name: max(recorded[name] * (1 - LOSS), least.get(name, 0)) for name in recorded}
    worse = {name: (round(ratio, 3), recorded[name], round(bounds[name], 3)) for name, ratio in ratios.items() if ratio < bounds[name]}
    assert not worse, f"now, as recorded, and the least that passes: {worse}"
