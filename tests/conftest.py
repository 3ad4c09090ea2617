# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""One pytest run for both sides: tests under tests/host run here, those under tests/vm in a VM.

The VM's tests are collected here, file by file; each file gets a boot of its own, so that what
one breaks harms no other. In the guest, pytest runs the same tests and writes a report a line to
the file that TEST_REPORTS names, in the shared output directory, which this side reads as they come. A kernel
report (vm/run's exit status 99), a guest that dies and a test that never reported are failures.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from _pytest.reports import TestReport

TOP = Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    group = parser.getgroup("vm")
    group.addoption("--kernel", default=os.environ.get("KERNEL") or "6.1", help="kernel to boot")
    group.addoption("--vm-timeout", type=int, default=1800, help="seconds a file's tests may take")


def pytest_configure(config):
    config.addinivalue_line("markers", "boot(**kw): boot options for this file: mib=, cpus=")
    if REPORTS:
        config.pluginmanager.register(Reporter(config), "vm-reporter")


# --- guest ---------------------------------------------------------------------------------------


REPORTS = os.environ.get("TEST_REPORTS")  # set: this is the guest


class Reporter:
    """Writes the guest's reports for the host to read."""

    def __init__(self, config):
        self.config = config
        self.file = open(REPORTS, "a", encoding="utf-8")

    def pytest_runtest_logreport(self, report):
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.file.write(json.dumps(data) + "\n")
        self.file.flush()


# --- host ----------------------------------------------------------------------------------------


def is_vm_test(item):
    return (TOP / "tests" / "vm") in Path(str(item.fspath)).parents


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session):
    if REPORTS or session.config.option.collectonly:
        return None
    if session.testsfailed and not session.config.option.continue_on_collection_errors:
        return None
    here = [i for i in session.items if not is_vm_test(i)]
    files = {}
    for item in session.items:
        if is_vm_test(item):
            files.setdefault(str(item.fspath), []).append(item)
    for n, item in enumerate(here):
        following = here[n + 1] if n + 1 < len(here) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail or session.shouldstop:
            return True
    for items in files.values():
        run_in_vm(session, items)
        if session.shouldfail or session.shouldstop:
            return True
    return True


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
        hook = self.session.config.hook
        if report.nodeid not in self.begun:
            self.begun.add(report.nodeid)
            hook.pytest_runtest_logstart(nodeid=report.nodeid, location=report.location)
        hook.pytest_runtest_logreport(report=report)
        if report.when == "teardown":
            self.ended.add(report.nodeid)
            hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)

    def fail(self, nodeid, location, text):
        self.log(TestReport(nodeid, location, {}, "failed", text, "call"))
        self.log(TestReport(nodeid, location, {}, "passed", None, "teardown"))


def boot_options(items):
    options = {}
    marker = items[0].get_closest_marker("boot")
    if marker:
        options = marker.kwargs
    args = []
    if "mib" in options:
        args += ["-m", str(options["mib"])]
    if "cpus" in options:
        args += ["-n", str(options["cpus"])]
    return args


def run_in_vm(session, items):
    config = session.config
    out = TOP / "output" / "tests"
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as shared:
        reports = Path(shared) / "reports"
        reports.touch()
        errors = open(Path(shared) / "said", "w+", encoding="utf-8", errors="replace")
        command = [str(TOP / "vm" / "run"), "-k", config.getoption("--kernel"),
                   "-t", str(config.getoption("--vm-timeout")), "-o", shared,
                   *boot_options(items), "--", "env", f"TEST_REPORTS={reports}",
                   sys.executable, "-m", "pytest", "-q", "-c", str(TOP / "tests" / "pytest.ini"),
                   *[f"{i.fspath}::{i.nodeid.split('::', 1)[1]}" for i in items]]
        relay = Relay(session, items, reports)
        guest = subprocess.Popen(command, cwd=TOP, stdin=subprocess.DEVNULL,
                                 stdout=errors, stderr=subprocess.STDOUT)
        try:
            while guest.poll() is None:
                relay.poll()
                if session.shouldfail or session.shouldstop:
                    break
                time.sleep(0.2)
        finally:
            if guest.poll() is None:
                guest.terminate()
            guest.wait()
        relay.poll()
        errors.seek(0)
        said = errors.read()[-20000:]
        errors.close()
    stopped = session.shouldfail or session.shouldstop
    for item in items:
        if item.nodeid not in relay.ended and not stopped:
            relay.fail(item.nodeid, item.location,
                       f"the guest ended (vm/run: status {guest.returncode}) before this test did\n{said}")
    if guest.returncode not in (0, 1) and not stopped:
        name = f"{items[0].nodeid.split('::')[0]}::guest"
        relay.fail(name, items[0].location, f"vm/run: status {guest.returncode}\n{said}")
