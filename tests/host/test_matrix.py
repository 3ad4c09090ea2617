# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that "make matrix" passes nothing that did not build without a warning, or was not run to its end."""

import importlib.machinery
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
KERNEL = os.environ.get("KERNEL") or "6.1"
CACHE = Path(os.environ.get("KNET_CACHE") or TOP / ".cache").resolve()


@pytest.fixture
def matrix():
    loader = importlib.machinery.SourceFileLoader("matrix", str(TOP / "tests" / "matrix"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("matrix", loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def run(matrix, monkeypatch, capsys):
    """The matrix with builds and pytest runs that come to what is given: by kernel, what is wrong with its build, or the
    outcomes of its tests and pytest's status."""
    def call(also=frozenset(), chosen=(), **kernels):
        def pytest_run(command, **_):
            outcomes, status = kernels[command[command.index("--kernel") + 1]]
            with open(command[command.index("--results") + 1], "w", encoding="utf-8") as f:
                f.writelines(json.dumps([f"vm/kecho/test_x.py::test_{n}", outcome, None]) + "\n" for n, outcome in enumerate(outcomes))
            return subprocess.CompletedProcess(command, status)

        monkeypatch.setattr(matrix, "build", lambda kernel, beside: (kernels[kernel], "") if isinstance(kernels[kernel], str) else (None, ""))
        monkeypatch.setattr(matrix.subprocess, "run", pytest_run)
        monkeypatch.setattr(matrix, "modules", lambda: {"kecho"} | also)
        bad = matrix.main([*kernels, *chosen])
        return bad, [line.split() for line in capsys.readouterr().out.split("KERNEL")[1].splitlines()[1:]]
    return call


def test_all_passed(run):
    assert run(a=(["passed"] * 3, 0), b=(["passed", "skipped"], 0)) == (False, [["a", "kecho", "3", "0", "0"], ["b", "kecho", "1", "0", "1"]])


def test_one_failed(run):
    assert run(a=(["passed", "failed"], 1), b=(["passed"], 0)) == (True, [["a", "kecho", "1", "1", "0"], ["b", "kecho", "1", "0", "0"]])


@pytest.mark.parametrize("status", [2, 3, -15])
def test_a_run_that_was_cut_short_is_no_pass(run, status):
    bad, rows = run(a=(["passed"] * 3, status), b=(["passed"], 0))
    assert bad and " ".join(rows[1]) == "a - the run ended before its tests" and rows[2][0] == "b"


def test_no_test_is_no_pass(run):
    bad, rows = run(a=([], 5))
    assert bad and " ".join(rows[0]) == "a - no test ran"


def test_a_module_without_tests_is_no_pass(run, matrix):
    assert matrix.modules() >= {"kecho", "tcpprobe"}
    bad, rows = run(also={"newone"}, a=(["passed"], 0))
    assert bad and [" ".join(row) for row in rows] == ["a kecho 1 0 0", "a newone no test ran"]
    assert run(also={"newone"}, chosen=["--smoke"], a=(["passed"], 0))[0]
    assert not run(also={"newone"}, chosen=["--", "-k", "kecho"], a=(["passed"], 0))[0]


@pytest.mark.parametrize("broken", ["a", "b"])
def test_a_kernel_that_does_not_build_does_not_hold_up_others(run, broken):
    bad, rows = run(**{name: "does not build" if name == broken else (["passed"], 0) for name in ("a", "b")})
    assert bad and {" ".join(row[:4]) for row in rows} == {f"{broken} - does not", f"{'b' if broken == 'a' else 'a'} kecho 1 0"}


NEVER_ENDS = """
import os, threading

def test_never_ends():
    open(os.environ["PIDS"], "w").write(f"{os.getppid()} {os.getpid()}\\n")
    threading.Event().wait()
"""
RUNS_IT = """
import sys
matrix = {"__name__": "matrix", "__file__": sys.argv[1]}
exec(open(sys.argv[1]).read(), matrix)
matrix["build"] = lambda kernel, beside: (None, "")
matrix["main"]([sys.argv[2], "--", "-p", "conftest", sys.argv[3]])
"""


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_who_ends_it_ends_its_tests(tmp_path, how):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(NEVER_ENDS)
    pids = tmp_path / "pids"
    with open(tmp_path / "said", "w", encoding="utf-8") as said:
        begun = subprocess.Popen([sys.executable, "-c", RUNS_IT, TOP / "tests" / "matrix", KERNEL, tmp_path / "tests" / "test_it.py"],
                                 stdout=said, stderr=subprocess.STDOUT,
                                 env={**{k: v for k, v in os.environ.items() if k != "TEST_REPORTS"}, "PIDS": str(pids), "PYTHONPATH": str(TOP / "tests")})
    until = time.monotonic() + 120
    while not (pids.exists() and pids.read_text().endswith("\n")):
        assert begun.poll() is None and time.monotonic() < until, (tmp_path / "said").read_text()
        time.sleep(0.1)
    begun.send_signal(getattr(signal, how))
    begun.wait()
    theirs = [int(pid) for pid in pids.read_text().split()]
    until = time.monotonic() + 60
    while left := [pid for pid in theirs if Path(f"/proc/{pid}").exists()]:
        if time.monotonic() > until:
            os.kill(left[0], signal.SIGTERM)
            pytest.fail("they went on")
        time.sleep(0.1)


def test_an_unknown_kernel():
    done = subprocess.run([TOP / "tests" / "matrix", "2.4"], text=True, capture_output=True, check=False, cwd=TOP)
    assert done.returncode == 1 and "2.4      -                cannot be had" in done.stdout
    assert "unknown kernel '2.4'" in done.stderr


KERNEL_DOC = "/**\n * nobody() - says nothing of its parameter\n */\nstatic inline int nobody(int undocumented) { return undocumented; }"


@pytest.mark.parametrize("added,said", [("static int nobody_uses_this;", "nobody_uses_this"), (KERNEL_DOC, "undocumented")])
def test_a_warning_stays_one(tmp_path, added, said):
    """Also when make is asked again, and where all has been built without asking; of the compiler's, and of kernel-doc."""
    subprocess.run(["git", "clone", "-q", TOP, tmp_path / "clone"], check=True)
    for path in (tmp_path / "clone").glob("*/Kbuild"):
        if path.parent.name != "kecho":
            shutil.rmtree(path.parent)
    with open(tmp_path / "clone" / "kecho" / "main.c", "a", encoding="utf-8") as f:
        f.write(f"\n{added}\n")

    def make(*options):
        return subprocess.run(["make", "-s", f"KERNEL={KERNEL}", *options, "modules"], text=True, capture_output=True, check=False,
                              cwd=tmp_path / "clone", env={**os.environ, "KNET_CACHE": str(CACHE)})

    assert make().returncode == 0
    for _ in range(2):
        done = make("WERROR=1")
        assert done.returncode and said in done.stderr, done.stderr
