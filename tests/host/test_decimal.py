# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves common/decimal.h under ASan and UBSan, against Python's numbers."""

import random
import subprocess

from native import SANITIZERS, TOP, build


def test_decimal(tmp_path):
    """Every length of a number, its edges, and whatever comes."""
    program = build(tmp_path / "decimal", *SANITIZERS, f"-I{TOP}/common", TOP / "tests/unit/decimal.c")
    rng = random.Random(1)
    values = [v for n in range(20) for v in (10**n - 1, 10**n, 10**n + 1)] + list(range(1100))
    values += [(1 << n) + d for n in range(1, 64) for d in (-1, 0, 1)] + [(1 << 64) - 1]
    values += [rng.getrandbits(rng.randint(1, 64)) for _ in range(20000)]
    done = subprocess.run([program], input=" ".join(map(str, values)), text=True, capture_output=True, check=True)
    assert done.stdout.splitlines() == [f"{v} {v % 10**9:09d}" for v in values]
