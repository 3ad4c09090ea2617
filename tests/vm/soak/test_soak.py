# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""A short soak; "make soak" makes long ones."""

import subprocess
import sys

import pytest
from lib import DEBUG, TOP

pytestmark = pytest.mark.boot(clock="turns", minutes=2)  # kprobes come and go under traffic


def test_soak(tmp_path):
    done = subprocess.run([sys.executable, TOP / "tests" / "soak" / "soak.py", str(45 if DEBUG else 40), tmp_path],
                          capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "samples.csv").read_text(encoding="utf-8").count("\n") > 4
