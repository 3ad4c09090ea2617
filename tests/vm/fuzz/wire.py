# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""What the tests with tests/wire share: its runs, and the servers it is let loose on."""

import json
import os
import subprocess

from lib import HTTP_PORT, PORT, TOP, scaled

PROGRAM = TOP / "build" / "tests" / "wire"
SEED = int(os.environ.get("SEED") or 1)
TIME = int(os.environ.get("TIME") or 0)
CASES = scaled(2000, 16)  # of a run, one of which is made when TIME is not given
PARAMS = {"kecho": {"port": PORT, "idle_timeout": 10}, "khttpd": {"port": HTTP_PORT, "keepalive_timeout": 10, "request_timeout": 10}}


def run(device, module, first):
    """Cases from number first on, none of which may fail; what the program counted."""
    done = subprocess.run([PROGRAM, "-s", str(SEED), "-f", str(first), "-n", str(CASES), device, "echo" if module == "kecho" else "http",
                           str(PARAMS[module]["port"])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
