# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""One pytest run for both sides: tests under tests/host run here, those under tests/vm in a VM.

Both are collected here, and each file is then run by a pytest of its own, some at a time: one under
tests/vm in a boot of its own, so that what one breaks harms no other. That pytest writes a report a
line to the file that TEST_REPORTS names, in the shared output directory, and this side reads them as
they come. A kernel report (vm/run's exit status 99), a guest that dies and a test that never reported
are failures.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from _pytest.reports import TestReport

# What this side compiles of the tests' sources the guests read, who could keep nothing.
sys.dont_write_bytecode = False
TOP = Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    group = parser.getgroup("vm")
    group.addoption("--kernel", default=os.environ.get("KERNEL") or "6.1", help="kernel to boot")
    group.addoption("--leaks", default=os.environ.get("LEAKS") or "all",
                    help="folders of tests/vm that kmemleak looks on in, of a kernel that has it; it makes up half of what that one takes")
    group.addoption("--results", help="file that a line of JSON a test is added to")
    group.addoption("--batches", type=int, help="how many guests run at a time")


def pytest_configure(config):
    config.addinivalue_line("markers", "smoke: one of the few tests a module for kernels that CI has less time for")
    config.addinivalue_line("markers", "boot(**kw): "
                            "boot options for this file: mib=, cpus=, clock=, faults=, append= (to the kernel's command line); minutes= it takes; "
                            "split= whether each mode gets a boot of its own; alone= whether the file gets one on a kernel where folders do")
    if os.environ.get("LOAD", "") not in ("", "full", "small"):
        raise pytest.UsageError(f"LOAD is full, as without it, or small, not '{os.environ['LOAD']}'")
    for folder in config.getoption("--leaks").split():
        if folder != "all" and not (TOP / "tests" / "vm" / folder).is_dir():
            raise pytest.UsageError(f"LEAKS names folders of tests/vm, or is 'all': there is no '{folder}'")
    if REPORTS:
        config.pluginmanager.register(Reporter(config), "vm-reporter")
    else:
        # Or a run that is terminated would leave its guests behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))


def pytest_ignore_collect(collection_path, config):
    """Tests of faults are for the kernel that has fault injection built in, and no test of the others."""
    if not REPORTS and collection_path == TOP / "tests" / "vm" / "faults" and config.option.kernel != "debug":
        return True
    return None


# --- the pytest that runs a batch ------------------------------------------------------------------


REPORTS = os.environ.get("TEST_REPORTS")  # set: this pytest runs one file for another

# What a test may be told: where chance begins, how long to try it (seconds), how many faults ("all").
PASSED = ("SEED", "TIME", "FAULTS", "LOAD")
# What all tests of a batch may then take longer, seconds.
TIME = 20 * int(os.environ.get("TIME") or 0) + 7200 * ("FAULTS" in os.environ)
# Seconds that a test may take before it has hung: several times what any does. On this side some measure, and on a kernel with
# detectors all is slow.
LIMIT = TIME + (600 if os.environ.get("VM_KERNEL", "debug") not in ("debug", "kcsan") else 1200)


@contextlib.contextmanager
def limited(seconds):
    """What hangs fails, if a signal ends what it waits for, and shows where; what comes after it is still run."""
    def late(*_):
        pytest.fail(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Reporter:
    """Writes the guest's reports for the host to read, and limits the time of each test."""

    def __init__(self, config):
        self.config = config
        self.file = open(REPORTS, "a", encoding="utf-8")

    def pytest_runtest_logreport(self, report):
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.file.write(json.dumps(data) + "\n")
        self.file.flush()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self):
        with limited(LIMIT):
            yield

    pytest_runtest_setup = pytest_runtest_teardown = pytest_runtest_call


# --- the pytest that was called -------------------------------------------------------------------


def is_vm_test(item):
    return (TOP / "tests" / "vm") in Path(str(item.fspath)).parents


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    if REPORTS or session.config.option.collectonly:
        return None
    if session.testsfailed and not session.config.option.continue_on_collection_errors:
        return None
    batches = {}
    for item in session.items:
        batches.setdefault(batch_of(item), []).append(item)
    batches = sorted(batches.values(), key=minutes, reverse=True)
    run_batches(session, together(batches, FEW_MINUTES_SLOW if is_slow(session.config) else FEW_MINUTES))
    return True


def is_slow(config):
    """Whether the kernel is one with detectors built in."""
    return config.getoption("--kernel") in ("debug", "kcsan")


def batch_of(item):
    """What runs together, in one boot: what a folder has of tests that boot alike.

    A boot and the start of Python in it cost what some tests do; a kernel with detectors built in takes half a
    minute. A file that takes minutes is alone, and so is where it says so each mode of it, so that there is always
    another to be run beside; with detectors, a folder's files that take many minutes have one. Where a few tests are chosen of
    every file (-m), all do that boot alike.
    """
    path = Path(str(item.fspath))
    options = boot_marker([item])
    if is_vm_test(item) and item.config.getoption("markexpr"):
        return ("", options.get("clock"))
    if is_vm_test(item) and is_slow(item.config):
        return (str(path if options.get("alone") else path.parent), options.get("minutes", 0) >= MANY_MINUTES)
    if is_vm_test(item) and "minutes" not in options:
        return (str(path.parent), *sorted(options.items()))
    mode = getattr(item, "callspec", None) and item.callspec.params.get("mode")
    return (str(path), mode if options.get("split") else None)


MANY_MINUTES = 5
FEW_MINUTES = 4
FEW_MINUTES_SLOW = 6  # where a boot and the start of Python take 40 s of a CPU's time


def together(batches, few):
    """Puts batches in the VM that boot alike together, as long as they take few minutes."""
    left = []
    for batch in batches:
        options = boots_like(batch)
        for other in left:
            if options is not None and boots_like(other) == options and minutes(batch) + minutes(other) <= few:
                other += batch
                break
        else:
            left.append(list(batch))
    return left


def boots_like(batch):
    """The options of a batch's boot, None of one that shares it with nobody."""
    options = {name: value for name, value in boot_marker(batch).items() if name != "minutes"}
    options["leaks"] = looks_for_leaks(batch)
    return options if is_vm_test(batch[0]) and not options.keys() & {"alone", "split"} else None


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report():
    """A file that is skipped as a whole is a failure: nobody would see that its tests are missing."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped as a whole: {report.longrepr}"


def judge_skip(report):
    """A skip for a reason that tests/skips.txt does not list is a failure."""
    if not report.skipped:
        return
    reasons = (TOP / "tests" / "skips.txt").read_text(encoding="utf-8").splitlines()
    if skip_reason(report) not in reasons:
        report.outcome = "failed"
        report.longrepr = f"skipped for a reason that tests/skips.txt does not list: {report.longrepr[2]}"


def skip_reason(report):
    """What pytest.skip() was given."""
    return report.longrepr[2].removeprefix("Skipped: ")


class Relay:
    """Hands the guest's reports to this side's pytest as they are written."""

    def __init__(self, session, items, path):
        self.session = session
        self.items = {i.nodeid: i for i in items}
        self.path = path
        self.offset = 0
        self.begun = set()
        self.ended = set()

    def poll(self):
        with open(self.path, "rb") as f:
            f.seek(self.offset)
            data = f.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.offset += len(whole)
        for line in whole.splitlines():
            self.log(self.session.config.hook.pytest_report_from_serializable(
                config=self.session.config, data=json.loads(line)))

    def log(self, report):
        if isinstance(report.longrepr, list):  # the place and reason of a skip, which JSON knows no tuples for
            report.longrepr = tuple(report.longrepr)
        judge_skip(report)
        self.record(report)
        hook = self.session.config.hook
        if report.nodeid not in self.begun:
            self.begun.add(report.nodeid)
            hook.pytest_runtest_logstart(nodeid=report.nodeid, location=report.location)
        hook.pytest_runtest_logreport(report=report)
        if report.when == "teardown":
            self.ended.add(report.nodeid)
            hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)

    def record(self, report):
        """Adds a test's outcome to --results, for tests/matrix."""
        path = self.session.config.getoption("--results")
        if path and (report.when == "call" or not report.passed):
            reason = skip_reason(report) if report.skipped else None
            with open(path, "a", encoding="utf-8") as f:
                f.write(json.dumps([report.nodeid, report.outcome, reason]) + "\n")

    def fail(self, nodeid, location, text):
        self.log(TestReport(nodeid, location, {}, "failed", text, "call"))
        self.log(TestReport(nodeid, location, {}, "passed", None, "teardown"))


def boot_marker(items):
    """The largest of what the items' files say of each option."""
    options = {}
    for marker in (item.get_closest_marker("boot") for item in items):
        for name, value in (marker.kwargs if marker else {}).items():
            options[name] = max(value, options.get(name, value))
    return options


def minutes(items):
    """The longest batches go first, so that none is left running alone at the end: what each file says it takes, or
    a second a test."""
    files = {}
    for item in items:
        files.setdefault(item.fspath, []).append(item)
    return sum(boot_marker(some).get("minutes", len(some) / 60) for some in files.values())


def looks_for_leaks(items):
    """Whether kmemleak, where the kernel has it, is on in the boot of these."""
    leaks = items[0].config.getoption("--leaks")
    return leaks == "all" or any(Path(str(i.fspath)).parent.name in leaks.split() for i in items)


def boot_options(items, config):
    """What vm/run is to be told. The time-out is for a guest that hangs: several times what any takes."""
    options = boot_marker(items)
    args = ["-k", config.getoption("--kernel"), "-t", str(TIME + (5400 if is_slow(config) else 3600))]
    if "mib" in options:
        args += ["-m", str(options["mib"])]
    if "cpus" in options:
        args += ["-n", str(options["cpus"])]
    if "clock" in options:
        args += ["-c", options["clock"]]
    if options.get("faults"):
        args.append("-f")
    return args


class Batch:
    """One pytest, in the VM if need be, that runs a batch of tests."""

    def __init__(self, session, items):
        self.config = session.config
        self.items = items
        out = TOP / "output" / "tests"
        out.mkdir(parents=True, exist_ok=True)
        self.shared = tempfile.TemporaryDirectory(dir=out)
        reports = Path(self.shared.name) / "reports"
        reports.touch()
        self.said = open(Path(self.shared.name) / "said", "w+", encoding="utf-8", errors="replace")
        self.relay = Relay(session, items, reports)
        run = []
        if is_vm_test(items[0]):
            run = [str(TOP / "vm" / "run"), "-o", self.shared.name, *boot_options(items, self.config), "--"]
        passed = [f"{name}={os.environ[name]}" for name in PASSED if name in os.environ]
        command = [*run, "env", f"TEST_REPORTS={reports}", *passed,
                   sys.executable, "-m", "pytest", "-q", "-c", str(TOP / "tests" / "pytest.ini"),
                   *[f"{i.fspath}::{i.nodeid.split('::', 1)[1]}" for i in items]]
        append = boot_marker(items).get("append", os.environ.get("VM_APPEND", ""))
        if not looks_for_leaks(items):
            append += " kmemleak=off"
        if is_slow(self.config):
            append += " thash_entries=4096"  # a quarter of what such a machine has: tests look through all of them often
        env = {**os.environ, "VM_APPEND": append}
        self.began = time.monotonic()
        self.process = subprocess.Popen(command, cwd=TOP, stdin=subprocess.DEVNULL, env=env,
                                        stdout=self.said, stderr=subprocess.STDOUT)

    def running(self):
        """Hands on what was reported so far; False once the run has ended."""
        before = cpu_seconds()
        ended = self.process.poll() is not None
        self.relay.poll()
        if ended:
            TIMES.append((cpu_seconds() - before, time.monotonic() - self.began, self.name()))
        return not ended

    def name(self):
        """What the times are shown under: the file or folder, and the mode if it is of one only."""
        paths = sorted({Path(str(i.fspath)).relative_to(TOP / "tests") for i in self.items})
        modes = {i.callspec.params.get("mode") if hasattr(i, "callspec") else None for i in self.items}
        path = paths[0] if len(paths) == 1 else os.path.commonpath(paths)
        return f"{path} {modes.pop() or ''}".strip() if len(modes) == 1 else str(path)

    def end(self, stopped):
        """Clears up; a test that has not reported, and a kernel that has, are failures."""
        if self.process.poll() is None:
            self.process.terminate()
        status = self.process.wait()
        self.said.seek(0)
        said = shown(self.said.read())
        self.said.close()
        self.shared.cleanup()
        if stopped:
            return
        for item in self.items:
            if item.nodeid not in self.relay.ended:
                self.relay.fail(item.nodeid, item.location,
                                f"the guest ended (status {status}) before this test did\n{said}")
        if status not in (0, 1):
            name = f"{self.items[0].nodeid.split('::')[0]}::end"
            self.relay.fail(name, self.items[0].location, f"status {status}\n{said}")


def shown(said):
    """What a run said, its end if that is long; but of a kernel's reports the first tells the cause."""
    at = said.find("vm/run: the guest's kernel")
    return said[at:at + 100000] if at >= 0 else said[-20000:]


GUEST_MAX = 3584  # MiB that the largest guest takes of this machine
TIMES = []  # of each batch that ended: CPU time, time, its name


def cpu_seconds():
    """What this process's children have used that it has waited for, theirs included: a guest's CPUs among them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def pytest_terminal_summary(terminalreporter):
    """Where the time goes; --durations has it by test."""
    if len(TIMES) > 1:
        terminalreporter.write_line(f"the costliest of {len(TIMES)} runs, of {sum(t[0] for t in TIMES):.0f} CPU seconds in all:")
        for cpu, took, name in sorted(TIMES, reverse=True)[:12]:
            terminalreporter.write_line(f"{cpu:6.0f} CPU s {took:6.0f} s  {name}")


def available():
    """MiB of memory that may be had."""
    return next(int(line.split()[1]) >> 10 for line in open("/proc/meminfo", encoding="ascii") if line.startswith("MemAvailable:"))


def run_batches(session, waiting):
    """Runs the batches, --batches at a time: as many as there are CPUs, and memory for. On a slow kernel four on two CPUs used
    a fifth more CPU time than two, and took no less: an emulated CPU that is to have a lock, or another's answer, often waits
    for one that is not running."""
    batches = session.config.getoption("--batches") or max(1, min(4, os.cpu_count() or 1, available() // GUEST_MAX))
    running = []
    stopped = False
    try:
        while (waiting or running) and not stopped:
            while waiting and len(running) < batches:
                running.append(Batch(session, waiting.pop(0)))
            for batch in [b for b in running if not b.running()]:
                running.remove(batch)
                batch.end(False)
            stopped = bool(session.shouldfail or session.shouldstop)
            time.sleep(0.2)
    finally:
        for batch in running:
            batch.end(True)
