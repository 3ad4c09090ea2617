# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that vm/run does what it says: whose output, which status, what counts as a failure."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import conftest
import pytest
from _pytest.reports import TestReport

pytestmark = pytest.mark.boot(minutes=5)

TOP = Path(__file__).resolve().parents[2]
KERNEL = os.environ.get("KERNEL") or "6.1"
CACHE = Path(os.environ.get("KNET_CACHE") or TOP / ".cache").resolve()


def vm(*command, options=("-n", "1"), env=None, cwd=TOP, out=None, top=TOP):
    """With one CPU, with which an emulated guest boots in two thirds of the time, unless the options are other ones."""
    args = [top / "vm" / "run", "-k", KERNEL, "-o", str(out or TOP / "output" / "tests"), *options,
            "--", *command]
    return subprocess.run([str(a) for a in args], text=True, capture_output=True, cwd=cwd,
                          env={**os.environ, **(env or {})}, check=False, timeout=300)


def test_output_and_status(tmp_path):
    """The command's output and nothing else, its errors apart, its status; the kernel's log where it is to be kept."""
    done = vm("sh", "-c", "echo out; echo err >&2; echo more > /dev/stdout; id -u; pwd; exit 42", env={"VM_KEEP_LOG": str(tmp_path / "kept")})
    assert "Linux version" in (tmp_path / "kept.log").read_text(encoding="utf-8", errors="replace") and (tmp_path / "kept.console").exists()
    assert done.stdout == f"out\nmore\n0\n{TOP}\n"
    assert done.stderr == "err\n"
    assert done.returncode == 42


def test_false_and_a_child_in_the_background():
    """Who is left behind does not hold the guest up."""
    began = time.monotonic()
    done = vm("sh", "-c", "sleep 1000 & echo done; exec false")
    assert (done.stdout, done.returncode) == ("done\n", 1)
    assert time.monotonic() - began < 280


def test_arguments_arrive_unchanged_and_output_of_any_size():
    """With one CPU and some memory, as they were asked for."""
    words = ["a b", "$HOME", "'", '"', "*", "", "\\", "-x"]
    done = vm("sh", "-c", 'nproc; free -m | awk "/Mem/ { print \\$2 }"; printf "%s\\n" "$@"; seq 200000', "sh", *words, options=["-n", "1", "-m", "700"])
    cpus, mib, *rest = done.stdout.split("\n")[:-1]
    assert rest == words + [str(n) for n in range(1, 200001)]
    assert cpus == "1" and 500 < int(mib) < 700


def test_panic_fails_and_is_shown():
    done = vm("sh", "-c", "echo before; sleep 1; echo c > /proc/sysrq-trigger; sleep 60")
    assert done.returncode == 99
    assert "sysrq triggered crash" in done.stderr and "Kernel panic" in done.stderr and " task:" not in done.stderr
    assert "before" in done.stdout


@pytest.mark.parametrize("how,deaths,end,status", [("real", 1, "panic=0", 0), ("real", 3, "", 99), ("turns", 1, "", 99)])
def test_a_kernel_that_dies_young_is_booted_again(tmp_path, how, deaths, end, status):
    """Where CPUs have a thread each, as the emulator's race kills it there; twice, and not in silence; also if it stays, dead."""
    emulator = tmp_path / "qemu-system-x86_64"
    emulator.write_text(f"""#!{sys.executable}
import os, sys
with open({str(tmp_path / "boots")!r}, "a+") as boots:
    boots.write("boot\\n")
    boots.seek(0)
    if len(boots.readlines()) <= {deaths}:
        sys.argv[sys.argv.index("-append") + 1] += " rdinit=/none {end}"
os.execv({shutil.which("qemu-system-x86_64")!r}, sys.argv)
""", encoding="ascii")
    emulator.chmod(0o755)
    began = time.monotonic()
    done = vm("echo", "alive", options=["-c", how], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert time.monotonic() - began < 150
    again = 0 if how == "turns" else min(deaths, 2)
    assert done.stderr.count("died before anything was run in it, and is booted again") == again
    assert done.stderr.count("  | ") >= again and "Kernel panic" in done.stderr
    assert (done.stdout, done.returncode) == ("" if status else "alive\n", status)


REPORTS = [
    "WARNING: CPU: 0 PID: 1 at net/core/sock.c:1 sock_fault+0x1/0x2",
    "WARNING: possible circular locking dependency detected",
    "WARNING: suspicious RCU usage",
    "BUG: KASAN: use-after-free in ksrv_pump+0x1/0x2",
    "BUG: sleeping function called from invalid context at mm/slab.h:1",
    "INFO: task kworker/0:1:9 blocked for more than 120 seconds.",
    "watchdog: BUG: soft lockup - CPU#0 stuck for 26s!",
    "UBSAN: array-index-out-of-bounds in common/ksrv_pump.c:1:1",
    "general protection fault, probably for non-canonical address",
    "refcount_t: underflow; use-after-free.",
    "list_del corruption. prev->next should be 1, but was 2",
    "IPv4: Attempt to release TCP socket in state 1 00000000deadbeef",
    "[ BUG: Invalid wait context ]",
    "sysfs: cannot create duplicate filename '/module/kecho'",
    "kobject: kobject_add_internal failed for kecho with -EEXIST, don't try to register things with the same name in the same directory.",
    "softirq: huh, entered softirq 3 NET_RX 00000000deadbeef with preempt_count 00000101, exited with 00000100?",
]


def instead(folder, **programs):
    """A PATH by which those scripts are found before anything else."""
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize("some,awk", [(REPORTS[:6], "awk"), (REPORTS[6:11], "busybox awk"), (REPORTS[11:], "awk")], ids=["first", "second", "third"])
def test_reports_fail_a_command_that_succeeded(tmp_path, some, awk):
    """Each kind of report, here put into the log by hand, fails the run and is shown: some in a boot, far apart. Whichever awk
    the machine has: they differ in what they make of a backslash."""
    awk = shutil.which(awk) or awk
    assert_reported(some, env=instead(tmp_path, awk=f'exec {awk} "$@"'))


def assert_reported(lines, **kw):
    filler = "for i in $(seq 70); do echo '<4>nothing' > /dev/kmsg; done"
    done = vm("sh", "-c", "; ".join(f'echo "<4>{line}" > /dev/kmsg; {filler}' for line in lines), **kw)
    assert done.returncode == 99
    for line in lines:
        assert line in done.stderr


def test_reports_count_where_faults_are_injected():
    """Without the call trace behind them, which counts for nothing there: those of which no line is one of the usual words."""
    assert_reported(REPORTS[-6:], options=["-f", "-n", "1"])


def test_a_log_that_cannot_be_searched(tmp_path):
    done = vm("true", env=instead(tmp_path, awk="exit 1"))
    assert done.returncode == 125 and "could not be searched" in done.stderr


def test_missing_memory_is_no_report_where_it_is_meant():
    """With -f neither a call trace without a headline counts, nor a warning that is known; the rest does."""
    cut, trace = "------------[ cut here ]------------", "Call Trace:"
    known = "WARNING: kernel/kprobes.c:1203 at __disarm_kprobe_ftrace+0x17a/0x200, CPU#1: python3/90"

    def say(*lines):
        return ("sh", "-c", "; ".join(f'echo "<4>{line}" > /dev/kmsg' for line in lines))

    assert vm(*say(cut, known, trace), options=["-f", "-n", "1"]).returncode == 0
    done = vm(*say(cut, known, trace, REPORTS[0]), options=["-f", "-n", "1"])
    assert done.returncode == 99 and REPORTS[0] in done.stderr and "__disarm" not in done.stderr
    filler = ["nothing"] * 70
    done = vm(*say(trace, *filler, known))
    assert done.returncode == 99 and trace in done.stderr and "__disarm" in done.stderr


def race(where):
    """A report of KCSAN, as commands that put it into the log."""
    lines = ["=" * 60, f"BUG: KCSAN: data-race in {where}", "", "read to 0xffff888003f9a3c0 of 4 bytes by task 1 on cpu 0:",
             " fill+0x71/0x100 [kline]", "=" * 60]
    return "; ".join(f'echo "<4>{line}" > /dev/kmsg' for line in lines)


def test_what_is_no_report():
    """Core TCP has harmless races, also when a module is further up the stack; and words in the middle of a line are talk."""
    done = vm("sh", "-c", race("ktime_get / timekeeping_update") +
              '; echo "<4>TCP: Possible SYN flooding. WARNING: not at the start" > /dev/kmsg')
    assert (done.returncode, done.stderr) == (0, "")


def test_only_races_of_modules_count():
    """After a harmless one, reports still count."""
    done = vm("sh", "-c", race("ktime_get / timekeeping_update") + "; " + race("ktime_get / ksrv_pump [kecho]"))
    assert done.returncode == 99 and "ksrv_pump [kecho]" in done.stderr and "timekeeping" not in done.stderr


@pytest.mark.parametrize("how,says", [("warn", "a warning on request"), ("oops", "BUG: kernel NULL")])
def test_real_faults_are_seen(how, says):
    """A WARN that hurts nothing, and an oops, which ends the guest, by a module that does so on request."""
    done = vm("sh", "-c", f"insmod $KO_DIR+hooks/kfault.ko how={how}; echo alive")
    assert done.returncode == 99
    assert ("alive" in done.stdout) == (how == "warn")
    assert says in done.stderr and "kfault_init" in done.stderr


def test_a_cpu_that_is_stuck_ends_the_guest():
    """Nobody waits for the time-out once the kernel has noticed that a CPU makes no progress."""
    done = vm("sh", "-c", "echo 4 >/proc/sys/kernel/watchdog_thresh; insmod $KO_DIR+hooks/kfault.ko how=spin", options=["-t", "250"])
    assert done.returncode == 99, done.stderr
    assert "kfault_init" in done.stderr


def test_time_out_ends_the_guest(tmp_path):
    """And shows where every CPU and every task was, which is no report of the kernel's own."""
    began = time.monotonic()
    # Of each of its reads so much that it is hardly ever anywhere else. One for each CPU, as the first to panic keeps the other
    # from telling where it is.
    busy = "dd if=/dev/zero of=/dev/null bs=64M 2>/dev/null"
    done = vm("sh", "-c", f"{busy} & {busy} & sleep 1000", options=["-t", "15"], out=tmp_path)
    assert done.returncode == 124
    assert "ended after 15 s" in done.stderr
    missing = [word for word in ("task:sleep", "hrtimer_nanosleep", "read_zero") if word not in done.stderr]
    assert not missing, (missing, done.stderr)
    assert "kthreadd" not in done.stderr and "reported" not in done.stderr
    assert time.monotonic() - began < 280
    assert qemus(tmp_path) == ""


def test_hung_guest_is_ended(tmp_path):
    """Every CPU in the kernel with interrupts off: nobody in the guest can act any more."""
    done = vm("sh", "-c", "insmod $KO_DIR+hooks/kfault.ko how=hang", options=["-t", "8"], out=tmp_path)
    assert done.returncode in (99, 124)
    assert qemus(tmp_path) == ""


def qemus(out):
    """The guests that share the directory out; others may run beside this test."""
    done = subprocess.run(["pgrep", "-f", f"qemu-system.*path={out},"], text=True, capture_output=True,
                          check=False)
    return done.stdout


def test_files(tmp_path):
    """The host's files are there and stay as they are; only the output directory is written."""
    mark = tmp_path / "mark"
    mark.write_text("host\n")
    out = tmp_path / "out"
    done = vm("sh", "-c", "cat mark; echo guest > mark; cat mark; echo kept > $OUT_DIR/new; "
              "cat /work-does-not-exist 2>/dev/null; ls $KO_DIR/kecho.ko", cwd=tmp_path, out=out)
    assert done.stdout == f"host\nguest\n{TOP}/build/{KERNEL}/kecho.ko\n", done.stderr
    assert mark.read_text() == "host\n"
    assert (out / "new").read_text() == "kept\n"


@pytest.mark.parametrize("options,says", [
    (["-c", "instructions", "-n", "2"], "-n 2"),
    (["-c", "fast"], "'fast'"),
    (["-n", "0"], "'0'"),
    (["-m", "lots"], "'lots'"),
    (["-t", "-5"], "'-5'"),
    (["-k", "2.4"], "'2.4'"),
    (["-p", "12"], "'12'"),
    (["-z"], "-z"),
    (["-o", "/proc/nowhere"], "'/proc/nowhere'"),
])
def test_bad_usage(options, says):
    done = vm("true", options=options)
    assert done.returncode == 125
    assert says in done.stderr
    assert done.stdout == ""


def test_a_directory_that_the_guest_does_not_see():
    done = vm("true", cwd="/dev/shm")
    assert done.returncode == 125 and "/dev/shm" in done.stderr


COUNT = """
import time
def work():
    x = 0
    for i in range(100000):
        x += i * i
    return x
took = []
for n in range(3):
    began = time.monotonic_ns()
    work()
    took.append(time.monotonic_ns() - began)
print(min(took))
"""


def test_instruction_clock_is_repeatable():
    """The same work takes the same guest time to half a percent, whatever this machine does."""
    took = [int(vm("env", "PYTHONHASHSEED=0", "setarch", "-R", "/usr/bin/python3", "-c", COUNT,
                   options=["-c", "instructions"]).stdout) for _ in range(2)]
    assert abs(took[0] - took[1]) < 0.005 * took[0], took
    assert took[0] > 3_000_000  # 100,000 rounds of an interpreter cannot be fewer instructions


@pytest.mark.parametrize("clock,threads", [("turns", "single"), ("real", "multi")])
def test_cpus_in_turns(tmp_path, clock, threads):
    """With -c turns two CPUs share one thread of QEMU, so that none runs text that another has half patched."""
    spy = tmp_path / "qemu-system-x86_64"
    spy.write_text(f'#!/bin/sh\nfor word; do echo "$word"; done >>{tmp_path}/words\nexec {shutil.which(spy.name)} "$@"\n')
    spy.chmod(0o755)
    done = vm("sh", "-c", "echo $VM_CLOCK; nproc", options=["-c", clock], env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert done.stdout == f"{clock}\n2\n"
    assert f"tcg,thread={threads}" in (tmp_path / "words").read_text().split()


def test_a_cache_that_is_named_relatively():
    """apt takes relative names for those of another place."""
    done = subprocess.run([TOP / "vm" / "kernel", "show", KERNEL], text=True, capture_output=True, check=True, cwd=TOP / "vm",
                          env={**os.environ, "KNET_CACHE": os.path.relpath(CACHE, TOP / "vm")})
    assert f"image={CACHE}/kernels/{KERNEL}/" in done.stdout


def planned(top, env, *options):
    """What make would run to build the modules."""
    return subprocess.run(["make", "-n", "-C", top, f"KERNEL={KERNEL}", *options, "modules"], text=True, capture_output=True, check=True,
                          env={**os.environ, **env}).stdout


def test_modules_are_rebuilt_when_older_than_their_sources(tmp_path):
    """Or than the kernel's options; what has gone is not kept; and an initramfs that fails is not either. In a copy of the sources, of one module's, since other guests read this tree's modules."""
    sources = subprocess.run(["git", "-C", TOP, "ls-files"], text=True, capture_output=True, check=True)
    others = [path.parent.name for path in TOP.glob("*/Kbuild") if path.parent.name != "kecho"]
    for name in sources.stdout.split():
        if name.split("/")[0] in others:
            continue
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TOP / name, tmp_path / name)
    cache = {"KNET_CACHE": str(CACHE)}
    module = tmp_path / "build" / KERNEL / "kecho.ko"
    assert vm("true", top=tmp_path, env=cache).returncode == 0
    before = module.stat().st_mtime
    assert " modules" not in planned(tmp_path, cache)
    (tmp_path / "kecho" / "echo.c").touch()
    (module.parent / "gone").mkdir()
    (module.parent / "gone" / "gone.ko").touch()
    (module.parent / "gone.ko").symlink_to("gone/gone.ko")
    assert vm("true", top=tmp_path, env=cache).returncode == 0
    assert module.stat().st_mtime > before
    assert not (module.parent / "gone").exists() and not (module.parent / "gone.ko").is_symlink()
    (tmp_path / "common" / "newone.h").touch()
    assert " modules" in planned(tmp_path, cache)
    (tmp_path / "common" / "newone.h").unlink()
    assert " modules" not in planned(tmp_path, cache)
    (module.parent / ".files").write_text("Kbuild common/gone.h")
    assert " modules" in planned(tmp_path, cache)
    shown = subprocess.run([TOP / "vm" / "kernel", "show", KERNEL], text=True, capture_output=True, check=True).stdout
    headers = re.search("^headers=(.*)", shown, re.M)[1]
    assert " modules" in planned(tmp_path, cache, "-W", f"{headers}/include/generated/autoconf.h")
    assert " modules" in planned(tmp_path, cache, "-W", next(name for up in ("..", "../../..") if os.path.exists(name := f"{headers}/{up}/release")))

    initramfs = CACHE / "initramfs" / f"{KERNEL}.cpio"
    before = initramfs.stat().st_mtime
    (tmp_path / "vm" / "init").touch()
    (tmp_path / "bin").mkdir()
    done = vm("true", top=tmp_path, env={**cache, **instead(tmp_path / "bin", busybox='[ "$1" != cpio ] || exit 1\nexec /bin/busybox "$@"')})
    assert done.returncode == 125 and f"initramfs of kernel {KERNEL}" in done.stderr
    assert initramfs.stat().st_mtime == before


def test_without_ipv6():
    """addr=:: falls back to IPv4 on a machine whose IPv6 is off."""
    done = vm("sh", "-c", "insmod $KO_DIR/kecho.ko && echo hello | nc -N 127.0.0.1 12345",
              env={"VM_APPEND": "ipv6.disable=1"})
    assert (done.stdout, done.returncode) == ("hello\n", 0), done.stderr


def test_without_root():
    """Whoever runs it is root in the guest, and nowhere else."""
    as_nobody = ["runuser", "-u", "nobody", "--"] if os.geteuid() == 0 else []
    if subprocess.run([*as_nobody, "test", "-r", TOP / "vm" / "run"], check=False).returncode:
        pytest.skip("nobody but its owner may read this tree")
    with tempfile.TemporaryDirectory() as out:
        os.chmod(out, 0o777)
        done = subprocess.run([*as_nobody, TOP / "vm" / "run", "-k", KERNEL, "-o", out, "--", "sh", "-c",
                               "id -u; insmod $KO_DIR/kecho.ko && echo hello | nc -N 127.0.0.1 12345; echo me > $OUT_DIR/file"],
                              text=True, capture_output=True, check=False, timeout=300, cwd="/")
        assert (done.stdout, done.returncode) == ("0\nhello\n", 0), done.stderr
        assert Path(out, "file").owner() == ("nobody" if as_nobody else Path(out).owner())


def test_kernel_list_and_unknown():
    listed = subprocess.run([TOP / "vm" / "kernel", "list"], text=True, capture_output=True, check=True)
    assert re.search(rf"^{re.escape(KERNEL)} +{re.escape(KERNEL)}\.\S+", listed.stdout, re.M)
    done = subprocess.run([TOP / "vm" / "kernel", "get", "2.4"], text=True, capture_output=True,
                          check=False)
    assert done.returncode and "'2.4'" in done.stderr


def test_make_without_headers_names_the_package():
    done = subprocess.run(["make", "-C", TOP, "modules", "KDIR=/nonexistent"], text=True,
                          capture_output=True, check=False)
    assert done.returncode and "/nonexistent" in done.stderr and "linux-headers-" in done.stderr


@pytest.mark.parametrize("version, refused", [((5, 9, 255), True), ((5, 10, 0), False), ((7, 3, 4), False),
                                              ((8, 0, 0), True)])
def test_kernels_outside_the_range_are_refused_at_build_time(tmp_path, version, refused):
    code = version[0] << 16 | version[1] << 8 | version[2]
    (tmp_path / "version.h").write_text(f"#define LINUX_VERSION_CODE {code}\n"
                                        "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n"
                                        "#define IS_ENABLED(option) 1\n")
    source = (TOP / "common" / "compat.h").read_text()
    lines = [line for line in source.splitlines() if not line.startswith("#include")]
    (tmp_path / "compat.h").write_text("\n".join(['#include "version.h"', *lines]))
    done = subprocess.run(["gcc", "-E", tmp_path / "compat.h"], text=True, capture_output=True, check=False)
    assert bool(done.returncode) == refused
    if refused:
        assert "5.10" in done.stderr and "7.x" in done.stderr


def test_broken_download_is_thrown_away(tmp_path):
    """What a download leaves behind that was cut short is not taken for a kernel, nor kept."""
    apt = tmp_path / "apt-get"
    apt.write_text('#!/bin/sh\ncase "$*" in\n*" download "*) echo half > linux-image.deb; exit 100 ;;\nesac\n'
                   'exec /usr/bin/apt-get "$@"\n')
    apt.chmod(0o755)
    cache = tmp_path / "cache"
    env = {**os.environ, "KNET_CACHE": str(cache), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([TOP / "vm" / "kernel", "get", "6.1"], text=True, capture_output=True, check=False,
                          env=env)
    assert done.returncode == 1 and "the download failed" in done.stderr
    assert not list(cache.glob("kernels/6.1/*"))
    assert not list(cache.rglob("linux-image*"))
    shown = subprocess.run([TOP / "vm" / "kernel", "show", "6.1"], text=True, capture_output=True, check=False,
                           env=env)
    assert shown.returncode == 1 and "vm/kernel get 6.1" in shown.stderr


class Item:
    """As much of a test as says in which boot it is run."""

    leaks = ""

    def __init__(self, path, **boot):
        self.fspath = TOP / "tests" / path
        self.boot = pytest.mark.boot(**boot).mark
        self.config = self

    def get_closest_marker(self, _):
        return self.boot

    def getoption(self, name):
        assert name == "--leaks"
        return self.leaks


@pytest.mark.parametrize("few,leaks,boots", [(4, "", "ae bg c di f h"), (5, "", "ab c di eg f h"), (4, "e", "ag b c di e f h"),
                                             (4, "all", "ae bg c di f h")])
def test_small_batches_share_a_boot(monkeypatch, few, leaks, boots):
    """Those that boot alike, while they take few minutes; none is lost, and kmemleak looks on where it is to."""
    monkeypatch.setattr(Item, "leaks", leaks)
    batches = [[Item("vm/a/test_a.py", minutes=3)], [Item("vm/b/test_b.py", minutes=2)], [Item("host/test_c.py", minutes=1)],
               [Item("vm/d/test_d.py", mib=256, minutes=1)], [Item("vm/e/test_e.py", minutes=1)], [Item("vm/f/test_f.py", minutes=1, alone=True)],
               [Item("vm/g/test_g.py", minutes=1)], [Item("host/test_h.py", minutes=1)], [Item("vm/i/test_i.py", mib=256, minutes=1)]]
    names = ["".join(item.fspath.stem[-1] for item in batch) for batch in conftest.together(batches, few)]
    assert names == boots.split()


HANGS = """
import subprocess, threading, pytest

@pytest.fixture
def never(): threading.Event().wait()

@pytest.fixture
def never_ends():
    yield
    threading.Event().wait()

def test_child(): subprocess.run(["sleep", "1000"])
def test_setup(never): pass
def test_teardown(never_ends): pass
def test_in_time(): pass
"""


def test_a_test_that_hangs_fails(tmp_path):
    """In whatever part of it, where it hangs; and those behind it are run."""
    (tmp_path / "test_hangs.py").write_text(HANGS)
    (tmp_path / "soon.py").write_text("import conftest\nconftest.LIMIT = 2\n")
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "conftest", "-p", "soon", "-c", TOP / "tests" / "pytest.ini", tmp_path / "test_hangs.py"],
                          text=True, capture_output=True, check=False, timeout=120,
                          env={**os.environ, "PYTHONPATH": f"{TOP / 'tests'}:{tmp_path}", "TEST_REPORTS": str(tmp_path / "reports")})
    assert "1 failed, 2 passed, 2 errors" in done.stdout, done.stdout
    assert done.stdout.count("Failed: not done after 2 s") >= 3 and 'subprocess.run(["sleep", "1000"])' in done.stdout


def run_pytest(folder, *options, **env):
    return subprocess.run([sys.executable, "-m", "pytest", "-p", "conftest", "-c", TOP / "tests" / "pytest.ini", *options, folder],
                          text=True, capture_output=True, check=False, timeout=120, env={**os.environ, "PYTHONPATH": str(TOP / "tests"), **env})


def test_a_file_that_skips_itself_fails(tmp_path):
    (tmp_path / "test_itself.py").write_text('import pytest\npytest.skip("this kernel has no MPTCP", allow_module_level=True)\n')
    done = run_pytest(tmp_path)
    assert done.returncode and "skipped as a whole" in done.stdout and "test_itself.py" in done.stdout


def test_folders_for_kmemleak_are_there(tmp_path):
    """Or it would look on nowhere."""
    done = run_pytest(tmp_path, "--leaks", "core tests/vm/faults")
    assert done.returncode == 4 and "'tests/vm/faults'" in done.stderr


def test_loads_are_full_or_small(tmp_path):
    """And no test can be handed what it does not know."""
    (tmp_path / "test_itself.py").write_text("def test_nothing():\n    pass\n")
    assert run_pytest(tmp_path, LOAD="small").returncode == 0
    done = run_pytest(tmp_path, LOAD="tiny")
    assert done.returncode == 4 and "'tiny'" in done.stderr
    counted = "import lib; print(lib.scaled(1000, 10, small=5), lib.scaled(1000, 10))"
    for kernel, load, counts in ("6.1", "", "1000 1000"), ("6.1", "full", "1000 1000"), ("6.1", "small", "200 1000"), ("debug", "small", "100 100"):
        done = subprocess.run([sys.executable, "-c", counted], text=True, capture_output=True, check=True,
                              env={**os.environ, "PYTHONPATH": str(TOP / "tests" / "vm"), "VM_KERNEL": kernel, "LOAD": load})
        assert done.stdout.split() == counts.split(), (kernel, load)


def test_the_first_report_is_shown_whole():
    said = "x" * 50000 + "vm/run: the guest's kernel (1) reported:\n  | BUG: the cause\n" + "  | and more\n" * 4000
    assert conftest.shown(said).startswith("vm/run: the guest's kernel") and "BUG: the cause" in conftest.shown(said)
    assert conftest.shown("y" * 30000 + "end").endswith("end")


def test_a_skip_needs_a_listed_reason():
    listed = (TOP / "tests" / "skips.txt").read_text().splitlines()[1]
    for reason, outcome in ((listed, "skipped"), ("I do not feel like it", "failed")):
        report = TestReport("vm/x", ("x", 0, "x"), {}, "skipped", ("x", 0, f"Skipped: {reason}"), "call")
        conftest.judge_skip(report)
        assert report.outcome == outcome
