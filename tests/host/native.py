# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Programs of C under ASan and UBSan, and libFuzzer on them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def build(out, *arguments, compiler="gcc"):
    subprocess.run([compiler, "-g", "-O1", "-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", *arguments, "-o", out],
                   check=True)
    return out


def fuzz(folder, target, corpus, sources, seconds, inputs=()):
    """Runs a target of tests/fuzz from what tests/fuzz/corpus keeps for it, and from inputs, for FUZZ_SECONDS or so many,
    with chance from SEED on; all files in folder."""
    start = folder / "corpus"
    shutil.copytree(TOP / "tests/fuzz/corpus" / corpus, start)
    for n, data in enumerate(inputs):
        (start / f"input-{n}").write_bytes(data)
    program = build(folder / "fuzz", "-fsanitize=fuzzer", *SANITIZERS, TOP / "tests/fuzz" / target, *sources, compiler="clang")
    seconds = os.environ.get("FUZZ_SECONDS") or seconds
    done = subprocess.run([program, f"-max_total_time={seconds}", "-max_len=10000", f"-seed={os.environ.get('SEED') or 1}",
                           f"-artifact_prefix={folder}/", start], capture_output=True, text=True, check=False)
    found = [f"{f.name}: {f.read_bytes()!r}" for pattern in ("crash-*", "oom-*", "timeout-*", "leak-*") for f in folder.glob(pattern)]
    assert done.returncode == 0, (found, done.stderr[-3000:])
    runs = re.search(r"Done (\d{4,}) runs", done.stderr)
    assert runs, done.stderr[-500:]
    print(f"{target}: {runs[1]} executions in {seconds} s")
