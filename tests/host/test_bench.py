# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves of "make bench" what its tables rest on: one measurement that fails takes none of the others with it, a rival that
needs less is shown first, and what was refused is neither compared nor drawn."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
BENCH = TOP / "tests" / "bench"


@pytest.fixture
def tree(tmp_path):
    """A tree with the measurements and a vm/run that only notes what it was asked for, and fails for echo."""
    shutil.copytree(BENCH, tmp_path / "tests" / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "vm").mkdir()
    fake = tmp_path / "vm" / "run"
    fake.write_text('#!/bin/sh\necho "$*" >>asked\ncase $* in *echo.py) exit 1 ;; esac\n')
    fake.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("quick", ["", "1"])
def test_one_that_fails_leaves_the_others(tree, quick):
    done = subprocess.run([tree / "tests" / "bench" / "run"], check=False, text=True, capture_output=True, env={**os.environ, "QUICK": quick})
    asked = [re.search(r"-c (\w+) .*/(\w+)\.py$", line).groups() for line in (tree / "asked").read_text().splitlines()]
    names = sorted(path.stem for path in BENCH.glob("*.py") if path.stem != "lib")
    assert len(names) >= 5
    assert sorted(name for clock, name in asked if clock == "instructions") == names
    real = [name for clock, name in asked if clock != "instructions"]
    assert ("real", "probe") not in asked  # which sets kprobes: docs/vm.md
    assert real == ([] if quick else [name for name in names if name != "memory"])
    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if "not all that counts was measured" in line]
    assert len(told) == (1 if quick else 2) and all("echo" in line for line in told)


def report(tmp_path, name, rows, **env):
    """What a measurement makes of rows: its table, its figures, and what it returns."""
    program = f"import json, sys; import {name}; print(json.dumps({name}.report(json.load(sys.stdin))), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", f"import sys; sys.argv[0] = '{name}.py'; sys.path.insert(0, '{BENCH}'); {program}"], check=True,
                          text=True, capture_output=True, input=json.dumps(rows),
                          env={**os.environ, "OUT_DIR": str(tmp_path), "KO_DIR": "/nowhere", "VM_CLOCK": "instructions", **env})
    with open(tmp_path / f"{name}.csv", newline="", encoding="utf-8") as f:
        return (tmp_path / f"{name}.md").read_text(), list(csv.DictReader(f)), json.loads(done.stderr)


def test_echo_where_a_rival_wins_comes_first(tmp_path):
    def row(server, size, connections, cost, refused=""):
        return {"server": server, "bytes": size, "connections": connections, "refused": refused, **({} if refused else {"ns_per_message": [cost]})}

    rows = [row("kecho", 64, 1, 100), row("epoll", 64, 1, 150), row("sockmap", 64, 1, 130),
            row("kecho", 64, 32, 100), row("epoll", 64, 32, 90), row("sockmap", 64, 32, 0, "idle 3.0%"),
            row("kecho", 1 << 20, 2048, 0, "idle 14.1%"), row("epoll", 1 << 20, 2048, 7)]
    text, figures, refused = report(tmp_path, "echo", rows, SERVERS="kecho;epoll;sockmap", ONLY="64 B, 1;64 B, 32;1 MiB, 2048")
    lost, won = text.index("Where a rival needs less"), text.index("Where kecho needs less")
    assert lost < text.index("| 64 B | 32 | 100 | 90 | refused | 0.90 (epoll, of those not refused) | 1.2 |") < won
    assert lost < text.index("| 1 MiB | 2048 | refused | 7 |") < won < text.index("| 64 B | 1 | 100 | 150 | 130 | 1.30 (sockmap) | 1.35 |")
    assert "- sockmap, 64 B, 32 connections: idle 3.0%" in text and "no hardware was measured" in text
    assert refused == 1
    assert {(f["server"], f["connections"]) for f in figures if f["refused"]} == {("sockmap", "32"), ("kecho", "2048")}
    rows = [row("kecho", 64, 1, 0, "idle 1.0%")]
    assert report(tmp_path, "echo", rows, SERVERS="kecho", ONLY="64 B, 1")[2] == 1


def test_a_rival_that_does_not_start(tmp_path):
    """Its rows say why, the others' are measured, and it is told."""
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    program = f"""
import pathlib, sys
sys.argv[0] = 'echo.py'
sys.path.insert(0, '{BENCH}')
import lib, echo
lib.TOOLS = pathlib.Path('{tmp_path}')
echo.ECHO_SERVERS = [lib.EchoServer('kecho', '', 1, 'none'), lib.EchoServer('broken', '', 2, 'broken')]
echo.ECHO_SERVERS[0].serving = lib.contextlib.nullcontext
echo.bring = lambda *_: None
echo.measure = lambda server, size, connections: dict(server=server.name, bytes=size, connections=connections, refused='', ns_per_message=[7.0])
sys.exit(echo.main())
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, text=True, capture_output=True,
                          env={**os.environ, "OUT_DIR": str(tmp_path), "KO_DIR": "/nowhere", "VM_CLOCK": "real", "ONLY": "64 B, 1"})
    assert done.returncode == 1, done.stderr
    text = (tmp_path / "echo-real.md").read_text()
    assert "- broken, 64 B, 1 connections: ended with status 3 instead of serving" in text and "| 64 B | 1 | 7 | refused |" in text


def test_http_where_a_rival_wins_comes_first(tmp_path):
    def row(server, way, connections, cost, refused=""):
        return {"way": way, "connections": connections, "server": server, "requests_per_second": 1, "ns_per_request": cost, "least": cost,
                "most": cost, "idle_share": 0, "user": 1, "system": 2, "softirq": 3, "refused": refused}

    rows = [row("nginx", "kept alive", 1, 168), row("user-http-server", "kept alive", 1, 130), row("khttpd fastpath=1", "kept alive", 1, 100),
            row("khttpd fastpath=0", "kept alive", 1, 120),
            row("nginx", "16 pipelined", 1, 500), row("user-http-server", "16 pipelined", 1, 90), row("khttpd fastpath=1", "16 pipelined", 1, 100),
            row("khttpd fastpath=0", "16 pipelined", 1, 105, "idle 2.0%"),
            {"way": "kept alive", "connections": 32, "server": "nginx", "refused": "no answer"}]
    text, figures, refused = report(tmp_path, "http", rows, ONLY="kept alive, 1;16 pipelined, 1",
                                    SERVERS="nginx;user-http-server;khttpd fastpath=1;khttpd fastpath=0")
    lost, won = text.index("Where a rival needs less"), text.index("Where khttpd needs less")
    assert lost < text.index("| 16 pipelined | 1 | 100 | refused | 500 | 90 | 5.00 | 2 | 0.90 (user-http-server) |") < won
    assert won < text.index("| kept alive | 1 | 100 | 120 | 168 | 130 | 1.68 | 1.6 | 1.30 (user-http-server) |")
    assert refused == 2 and len(figures) == 9
    assert "- nginx, kept alive, 32 connections: no answer" in text  # a row that failed has no cost
    assert "- khttpd fastpath=0, 16 pipelined, 1 connections: idle 2.0%" in text


def test_probe_where_the_tracepoint_wins_comes_first(tmp_path):
    def row(what, more, records, wanted=""):
        return {"what": what, "per_round_trip": 1000 + more, "more": more, "records_per_round_trip": records, "per_record": more // (records or 1),
                "wanted": wanted, "least": 1000 + more, "most": 1000 + more}

    rows = [row("nothing loaded", 0, 0), row("recorded, not read", 400, 4, 900), row("recorded and read as text (0 lost)", 800, 4),
            row("tracepoint tcp:tcp_probe, of all, as nothing else is there, not read (11 fields, received only)", 300, 2),
            row("tracepoint tcp:tcp_probe, of all, as nothing else is there, read as text (0 lost)", 1600, 2)]
    text, figures, _ = report(tmp_path, "probe", rows)
    lost = text.index("- recorded, not read: a round trip gets 400 dearer, under the tracepoint 300: 0.75.")
    assert lost < text.index("| recorded, not read | 1,400 | 400 | 4 | 100 | 1.50 | <= 900 |") and text.count("a round trip gets") == 1
    assert "| recorded and read as text (0 lost) | 1,800 | 800 | 4 | 200 | 4.00 |  |" in text and figures[1]["least"] == "1400"


def test_drop_tells_what_was_wanted(tmp_path):
    """And of what cannot be timed, no ratio."""
    program = f"""
import sys
sys.argv[0] = 'drop.py'
sys.path.insert(0, '{BENCH}')
import drop
drop.report({{('pairs, one write', 10000): [4000.0], ('ss -nK state time-wait', 10000): [36000.0], ('pairs, one write', 1000): [4100.0]}})
"""
    subprocess.run([sys.executable, "-c", program], check=True, text=True, capture_output=True,
                   env={**os.environ, "OUT_DIR": str(tmp_path), "KO_DIR": "/nowhere", "VM_CLOCK": "instructions"})
    text = (tmp_path / "drop.md").read_text()
    assert "| pairs, one write | 10000 | 4,000 | <= 4,500 | 9.0 | >= 150 |  |" in text
    assert "| pairs, one write | 1000 | 4,100 | <= 4,500 |  |  |  |" in text


@pytest.mark.parametrize("name", ["echo", "drop"])
def test_captions_say_where_it_was_measured(tmp_path, name):
    """Kernel, emulator, processor, commit and command, as the guest is told them."""
    origin = dict(line.split("=", 1) for line in subprocess.run([BENCH / "run", "--origin"], check=True, text=True,
                                                                capture_output=True).stdout.splitlines())
    assert origin.keys() == {"QEMU", "HOST_CPU", "COMMIT"} and all(origin.values()) and "QEMU" in origin["QEMU"]
    program = f"import sys; sys.argv[0] = '{name}.py'; sys.path.insert(0, '{BENCH}'); import lib; lib.write([{{'a': 1}}], ['a table'], 'about it.')"
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True,
                   env={**os.environ, **origin, "OUT_DIR": str(tmp_path), "KO_DIR": "/nowhere", "VM_CLOCK": "instructions",
                        "BENCH_COMMAND": f"make bench BENCH={name}"})
    caption = (tmp_path / f"{name}.caption").read_text()
    for part in (*origin.values(), os.uname().release, "1 ns = 1 instruction", f"make bench BENCH={name}"):
        assert part in caption
    assert caption in (tmp_path / f"{name}.md").read_text()


def test_native(tmp_path):
    """What "make bench-native" does, on the machine that a guest is: one file with the machine, how it was pinned, and the table."""
    command = "tests/bench/run --native http >&2 && cat output/native/results.md && ! grep -q '^k' /proc/modules"
    done = subprocess.run([TOP / "vm" / "run", "-k", os.environ.get("KERNEL") or "6.1", "-m", "2048", "--", "env", "QUICK=1",
                           "SERVERS=user-http-server;khttpd fastpath=1", "ONLY=16 pipelined, 32", "sh", "-c", command],
                          check=False, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "loading modules into the kernel that runs here" in done.stderr
    release = re.match(r"# Linux (\S+) x86_64, \d{4}-\d\d-\d\d$", done.stdout.splitlines()[0])[1]
    for part in ("Architecture: ", "Model name: ", "Memory: ", "net.ipv4.tcp_mem, in pages: ", "CPUs of the server's program and of the client: 1 0;", f"Linux {release}, 2 CPU, no emulator",
                 'make bench-native BENCH=http SERVERS="user-http-server;khttpd fastpath=1" ONLY="16 pipelined, 32" QUICK=1', "real time, noisy"):
        assert part in done.stdout, done.stdout
    # Median, least and most of each of the two.
    assert re.search(r"^\| 16 pipelined \| 32 \|( [\d,]+ \([\d,]+-[\d,]+\) \|){2} ", done.stdout, re.M), done.stdout


@pytest.mark.parametrize("value,clock", [("2", "real"), ("1; reboot", None)])
def test_packet_steering_is_of_real_time(tree, value, clock):
    done = subprocess.run([tree / "tests" / "bench" / "run", "http"], check=False, text=True, capture_output=True, env={**os.environ, "RPS": value})
    if clock is None:
        assert done.returncode == 2 and repr(value) in done.stderr and not (tree / "asked").exists()
        return
    (asked,) = (tree / "asked").read_text().splitlines()
    assert done.returncode == 0 and f"-c {clock} " in asked and f" RPS={value} " in asked and "RPS=2" in asked.partition("BENCH_COMMAND")[2]


@pytest.mark.parametrize("plot", ["echo.gp", "http.gp"])
def test_refused_rows_leave_a_gap(tmp_path, plot):
    """In what a picture is drawn from each server has as many places as the others, and the refused one is none."""
    servers = ("kecho", "epoll") if plot == "echo.gp" else ("nginx", "khttpd fastpath=1")
    file = tmp_path / "a.csv"
    if plot == "echo.gp":
        lines = ["server,bytes,connections,refused,ns_per_message"]
        lines += [f"{server},64,{n},{'idle 3%' if (server, n) == ('epoll', 32) else ''},7" for server in servers for n in (1, 32, 256)]
    else:
        lines = ["way,connections,server,requests_per_second,ns_per_request,refused"]
        lines += [f"kept alive,{n},{server},1,7000,{'idle 3%' if (server, n) == ('nginx', 32) else ''}" for server in servers for n in (1, 32, 256)]
    file.write_text("\n".join(lines) + "\n")
    text = (TOP / "plots" / plot).read_text()
    function = re.search(r"^(rows|cost)\((\w+)\) = (sprintf.*?[^\\])$", text, re.M | re.S)
    given = "name(i) = word(\"%s\", i)\n" % " ".join(servers) if plot == "echo.gp" else ""
    call = "rows(%d)" if plot == "echo.gp" else "cost('%s')"
    found = []
    for number, server in enumerate(servers, 1):
        asked = call % (number if plot == "echo.gp" else server)
        script = f"csv = '{file}'\n{given}{function[0]}\nprint system(substr({asked}, 3, strlen({asked})))\n"
        done = subprocess.run(["gnuplot"], input=script, text=True, capture_output=True, check=True)
        found.append([line.rpartition(",")[2] for line in done.stderr.splitlines() if line])
    assert [len(values) for values in found] == [3, 3], found
    gap = 1 if plot == "echo.gp" else 0
    assert found[gap][1] == "NaN" and "NaN" not in found[1 - gap]


def test_http_columns_go_by_name(tmp_path):
    """A table whose first row was refused has them in another order."""
    file = tmp_path / "http.csv"
    file.write_text("way,connections,server,refused,requests_per_second,ns_per_request\r\n"
                    "kept alive,1,nginx,no answer,,\r\nkept alive,1,khttpd fastpath=1,,9,7000\r\n", newline="")
    subprocess.run(["gnuplot", "-e", f"csv='{file}'; out='{tmp_path}/a.png'", TOP / "plots" / "http.gp"], check=True)
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_a_table_that_cannot_be_drawn_leaves_the_others(tmp_path):
    """And no half of a picture; a caption's backquotes are not run."""
    shutil.copytree(TOP / "plots", tmp_path / "plots")
    bench = tmp_path / "output" / "bench"
    bench.mkdir(parents=True)
    (bench / "http.csv").write_text("way,connections,server,refused\n")
    (bench / "drop.csv").write_text("how,sockets,ns_each\n")
    (bench / "memory.csv").write_text("server,all,slab,stacks,page tables,TCP pages,RSS\nkecho,9,1,2,1,2,3\n")
    (bench / "memory.caption").write_text("made by `touch ran`\n")
    done = subprocess.run([tmp_path / "plots" / "draw"], cwd=tmp_path, check=False, text=True, capture_output=True)
    assert done.returncode == 1 and done.stdout == "output/bench/memory.png\n", done
    assert "could not draw output/bench/http.png" in done.stderr and "could not draw output/bench/drop.png" in done.stderr
    assert sorted(p.name for p in tmp_path.rglob("*.png")) == ["memory.png"] and not list(tmp_path.rglob("ran"))


@pytest.mark.parametrize("table,variable,value", [("echo", "SERVERS", "kehco"), ("http", "SERVERS", "kecho"), ("echo", "ONLY", "64, 1"),
                                                  ("http", "ONLY", "kept, 1"), ("memory", "SERVERS", "nobody"),
                                                  ("memory", "SERVERS", "epoll -D")])
def test_names_of_nothing(tmp_path, table, variable, value):
    """No empty table over the one that is there, and no success."""
    done = subprocess.run([sys.executable, BENCH / f"{table}.py"], check=False, text=True, capture_output=True,
                          env={**os.environ, "OUT_DIR": str(tmp_path), "KO_DIR": "/nowhere", "VM_CLOCK": "real", variable: value})
    assert done.returncode == 2 and f"{variable}: no '{value}'" in done.stderr and not list(tmp_path.iterdir()), done


def test_servers_without_any_of_the_rows(tmp_path):
    """Who is measured by connections only has nothing to show of kept ones: that is told, and what is there stays."""
    old = tmp_path / "echo-real-latency-epoll.csv"
    old.write_text("")
    done = subprocess.run([sys.executable, BENCH / "echo.py"], check=False, text=True, capture_output=True,
                          env={**os.environ, "OUT_DIR": str(tmp_path), "KO_DIR": "/nowhere", "VM_CLOCK": "real", "SERVERS": "epoll -D", "ONLY": "64 B, 32"})
    assert done.returncode == 2 and "of epoll -D there is no row but 'connect, 64 B, close'" in done.stderr, done
    assert list(tmp_path.iterdir()) == [old]


def test_a_native_table_in_its_namespace(tmp_path):
    """"make bench-native" measures in a network namespace, where some of /proc/sys/net is not to be seen."""
    program = f"""
import sys
sys.argv[0] = 'echo.py'
sys.path.insert(0, '{BENCH}')
import echo
echo.report([dict(server='kecho', bytes=64, connections=1, refused='', ns_per_message=[7.0])])
"""
    subprocess.run(["unshare", "-rn", sys.executable, "-c", program], check=True,
                   env={**os.environ, "OUT_DIR": str(tmp_path), "KO_DIR": "/nowhere", "VM_CLOCK": "", "NATIVE": "1", "ONLY": "64 B, 1"})
    assert "| 64 B | 1 | 7 |" in (tmp_path / "echo-real.md").read_text()


def test_a_server_that_says_nothing(tmp_path):
    """Or resets whoever comes: it is not measured, and the others' rows stay."""
    program = f"""
import sys
sys.argv[0] = 'echo.py'
sys.path.insert(0, '{BENCH}')
import lib, socket
lib.socket.create_connection = lambda *_: (_ for _ in ()).throw(%s)
lib.time.monotonic = iter(range(0, 10000, 20)).__next__
try:
    lib.EchoServer('silent', '', 1, 'x').wait()
except lib.NoServer as why:
    print(why)
"""
    for what in "TimeoutError()", "ConnectionResetError()":
        done = subprocess.run([sys.executable, "-c", program % what], check=True, text=True, capture_output=True,
                              env={**os.environ, "OUT_DIR": str(tmp_path), "KO_DIR": "/nowhere", "VM_CLOCK": "real"})
        assert done.stdout == "does not answer\n"


def drawn(tmp_path, lines, columns):
    """The texts in the picture that plots/bars.gp makes of a table."""
    (tmp_path / "a.csv").write_text("\r\n".join(lines) + "\r\n", newline="")  # as Python's csv writes them
    how = f"csv='{tmp_path}/a.csv'; out='{tmp_path}/a.svg'; term='svg'; title='a title'; unit='a unit'; caption='a caption'; {columns}"
    done = subprocess.run(["gnuplot", "-e", how, TOP / "plots" / "bars.gp"], check=True, text=True, capture_output=True)
    assert done.stderr == ""
    return [text.strip() for text in re.findall(r">([^<>\n]+)<", (tmp_path / "a.svg").read_text())]


def test_bars(tmp_path):
    """Each row has its name, commas and all, and its value; a row that has none of a column is left out where that is asked for."""
    texts = drawn(tmp_path, ["how,sockets,ns_each", '"pairs, one write",1000,3641', '"pairs, one write",100000,999', "ss -K,10000,1037477"],
                  "names='how sockets'; parts='ns_each'")
    assert {"a title", "a unit", "a caption", "pairs, one write, 1,000", "pairs, one write, 100,000", "ss -K, 10,000"} <= set(texts)
    assert [texts.count(value) for value in ("3,641", "999", "1,037,477")] == [1, 1, 1], texts
    texts = drawn(tmp_path, ["server,all,slab,page tables", "kecho,7840,7828,9", "threads,35952,15458,20501"], "names='server'; parts='slab \"page tables\"'")
    assert {"slab", "page tables", "kecho", "threads", "7,837", "35,959"} <= set(texts), texts  # the sum of the parts
    texts = drawn(tmp_path, ["what,cost,records,each", "nothing,30000,0,0", '"recorded, read",33000,4.0,850'], "names='what'; parts='each'; some='records'")
    assert {"recorded, read", "850"} <= set(texts) and "nothing" not in texts, texts


def test_no_picture_of_latencies_that_were_not_measured(tmp_path):
    """As where some rows are left out."""
    shutil.copytree(TOP / "plots", tmp_path / "plots")
    bench = tmp_path / "output" / "bench"
    bench.mkdir(parents=True)
    (bench / "echo.csv").write_text("server,bytes,connections,refused,ns_per_message\nkecho,64,1,,7\nkecho,64,32,,8\n")
    for latencies in "", "latency_us,count\n500,1\n600,9\n":
        if latencies:
            (bench / "echo-latency-kecho.csv").write_text(latencies)
        done = subprocess.run([tmp_path / "plots" / "draw"], check=True, text=True, capture_output=True)
        assert sorted(Path(name).name for name in done.stdout.split()) == ["echo.png"] + ["latency.png"] * bool(latencies) + ["throughput.png"]
        assert (bench / "latency.png").exists() == bool(latencies)


@pytest.mark.parametrize("columns", ["names='who'; parts='ns'", "names='how what'; parts='ns'", "names='how'; parts='n'", "names='how'; parts='ns x'",
                                     "names='how'; parts='ns'; some='y'"])
def test_bars_of_no_such_column(tmp_path, columns):
    with pytest.raises(subprocess.CalledProcessError):
        drawn(tmp_path, ["how,ns", "a,1", "b,2"], columns)
