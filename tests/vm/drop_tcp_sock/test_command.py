# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves the command tcpdrop; its man page is docs/tcpdrop.8."""

import subprocess
import sys
from pathlib import Path

import pytest
from lib import TCPDROP, network_namespace, rmmod, sh
from sockets import Pair, key_of, line_of, listen, time_wait, time_waits, totals, wait_for, walk


def tcpdrop(*args, **kw):
    done = sh(TCPDROP, *args, check=False, **kw)
    return done.returncode, done.stdout, done.stderr


def test_two_words():
    key = time_wait()
    assert tcpdrop(*line_of(key).split()) == (0, "", "")
    assert tcpdrop(*line_of(key).split()) == (1, "", "")
    assert totals()["dropped_time_wait"] == 1


def test_four_words():
    """As FreeBSD's command."""
    key = time_wait("::1")
    assert tcpdrop("-v", *key) == (0, f"::1:{key[1]} ::1:{key[3]}: dropped time-wait\n", "")


def test_verbose():
    key = time_wait()
    line = line_of(key)
    code, out, err = tcpdrop("-v", "-", input=f"{line}\n{line}\nnonsense\n*:* *:9 time-wait\n")
    assert code == 2
    assert out == f"{line}: dropped time-wait\n{line}: not found\nnonsense: malformed\n*:* *:9 time-wait: not found\n"
    assert err == 'tcpdrop: line 3: no remote address: "nonsense"\n'


def test_a_closed_stream_is_no_place_for_the_file():
    """Else what is told of each line would be written into it, as lines."""
    done = sh("sh", "-c", f"exec {TCPDROP} -v 127.0.0.1:1 127.0.0.1:2 >&-", check=False)
    assert done.returncode == 2 and "standard output" in done.stderr, done
    counts = totals()
    assert counts["not_found"] == 1 and counts["malformed"] == 0


def test_standard_input_in_bulk():
    keys = time_waits(100)
    text = "".join(line_of(k) + "\n" for k in keys)
    assert tcpdrop("-", input=text) == (0, "", "")
    assert totals()["dropped_time_wait"] == 100
    assert tcpdrop("-", input=text[:-1])[0] == 1
    assert tcpdrop("-", input="") == (0, "", "")


def test_listeners():
    with Pair() as pair:
        line = f"*:{pair.port} *:*"
        pair.client.close()
        pair.served.close()
        assert tcpdrop("-v", *line.split(), "close-wait")[0] == 1
        code, out, _ = tcpdrop("-v", f"127.0.0.1:{pair.port}", "*:*", "LISTEN")
        assert (code, out) == (1, f"127.0.0.1:{pair.port} *:* LISTEN: skipped 1 listening\n")
        code, out, _ = tcpdrop("-v", f"127.0.0.1:{pair.port}", "*:*", "listening")
        assert (code, out) == (0, f"127.0.0.1:{pair.port} *:* listening: dropped listening\n")


@pytest.mark.parametrize("words", ["127.0.0.1:{} 127.0.0.1:*", "127.0.0.1:{} *:*", "127.0.0.1:{} *:* listening",
                                   "127.0.0.1:{} 0.0.0.0/0:*", "*:9 *:*", "*%nosuch:9 *:9"])
def test_dry_run_says_what_the_real_one_does(words):
    with Pair() as pair:
        words = words.format(pair.port).split()
        dry, out, _ = tcpdrop("-n", "-v", *words)
        code, really, _ = tcpdrop("-v", *words)
        assert dry == code
        said = [[word in text for word in (" skipped ", " not found", "drop")] for text in (out, really)]
        assert said[0] == said[1], (out, really)


def test_one_family_of_standard_input():
    four, six = time_wait(), time_wait("::1")
    code, out, err = tcpdrop("-6", "-v", "-", input=f"{line_of(four)}\n{line_of(six)}\n")
    assert (code, out, err) == (0, f"{line_of(six)}: dropped time-wait\n", "")
    assert tcpdrop("-4", "-v", *line_of(four).split())[0] == 0


def test_a_family_does_not_make_a_listeners_line_a_pattern():
    """With -4 or -6 "*:*" still means listeners, as ss lists them: the connections at that port stay."""
    for option, host, any_ in ("-4", "127.0.0.1", "0.0.0.0/0"), ("-6", "::1", "[::]/0"):
        with Pair(host) as pair:
            for words in ("-",), (f"*:{pair.port}", "*:*"):
                assert tcpdrop(option, "-v", *words, input=f"*:{pair.port} *:*\n") == (
                    1, f"{any_}:{pair.port} {any_}:* listen: skipped 1 listening\n", "")
            assert {e.state for e in walk() if e.local_port == pair.port} == {"listening", "established"}
            assert tcpdrop(option, "-v", f"*:{pair.port}", "*:*", "connected")[1].endswith("dropped established\n")
            assert {e.state for e in walk() if e.local_port == pair.port} == {"listening"}


def test_a_listener_on_a_mapped_address():
    """As Java's are: a socket of IPv6 without one of IPv6's addresses, which ss and netstat list with one for its remote end."""
    with listen("::ffff:127.0.0.1") as listener:
        port = listener.getsockname()[1]
        lines = [f"127.0.0.1:{port} :::*", f"[::ffff:127.0.0.1]:{port} [::]:*", f"127.0.0.1:{port} 0.0.0.0:*"]
        assert tcpdrop("-v", "-", input="\n".join(lines)) == (
            1, "".join(f"{line}: skipped 1 listening\n" for line in lines), "")
        listed = [line for line in tcpdrop("-l", "-s", "listening")[1].splitlines() if f":{port} " in line]
        assert len(listed) == 1
        for line in (*listed, *(f"{line} listening" for line in lines)):
            assert tcpdrop("-n", *line.split()) == (0, f"would drop {listed[0]}\n", ""), line
        assert tcpdrop(*listed[0].split()) == (0, "", "")
        assert not {e for e in walk() if e.local_port == port}


def test_lines_are_carried_out_as_they_come():
    key = time_wait()
    with subprocess.Popen([TCPDROP, "-"], stdin=subprocess.PIPE, text=True) as command:
        command.stdin.write(line_of(key) + "\n")
        command.stdin.flush()
        wait_for(lambda: totals()["dropped"] == 1)
        command.stdin.close()
        assert command.wait() == 0


def test_list_feeds_back(survivors):
    """What -l prints is what there is, and is read by the command and by the file."""
    with Pair() as pair, Pair("127.0.0.1", listener_host="::") as mapped:
        before = walk()
        listed = set(tcpdrop("-l")[1].splitlines())
        # An earlier test's socket may leave TIME-WAIT meanwhile.
        low, high = (sum(e.state != "listening" for e in entries) for entries in (walk(), before))
        assert low <= len(listed) <= high
        for sock in (pair.client, mapped.served):
            key = key_of(sock)
            assert any(line.split()[0].endswith(f":{key[1]}") and line.endswith(" established") for line in listed)
        mine = [line for line in listed if f":{pair.port}" in line or f":{mapped.port}" in line]
        assert len(mine) == 4
        assert tcpdrop("-n", "-", input="\n".join(mine)) == (
            0, "".join(f"would drop {line}\n" for line in mine), "")
        assert totals()["requested"] == 0
        code, out, _ = tcpdrop("-v", "-", input="\n".join(mine))
        assert all("dropped established" in line or "not found" in line for line in out.splitlines()) and code == 1
        assert {e.state for e in walk() if e.local_port in (pair.port, mapped.port)} == {"listening"}


def test_by_state_and_family():
    """In a namespace of their own, where nothing must survive."""
    with network_namespace("cmd"):
        code = ("import sys; sys.path[:0] = %r\nfrom sockets import *\n"
                "k4, k6 = time_wait(), time_wait('::1')\n"
                "p = Pair(); import subprocess\n"
                "def run(*a): d = subprocess.run([%r, *a], capture_output=True, text=True); return d.returncode, d.stdout\n"
                "states = lambda: sorted((':' in e.local, e.state) for e in walk('thread-self'))\n"
                "print(run('-6', '-v', '-s', 'time-wait')); print(states())\n"
                "print(run('-4', '-s', 'time-wait', '-s', 'close-wait')); print(states())\n"
                "print(run('-a')); print(states())\n"
                "print(run('-s', 'listening')); print(states())\n")
        here = Path(__file__).resolve().parent
        out = sh(sys.executable, "-c", code % ([str(here), str(here.parent)], str(TCPDROP)), netns="cmd").stdout.splitlines()
    four = [(False, "established"), (False, "established"), (False, "listening")]
    assert out[0] == "(0, '[::]/0:* [::]/0:* time-wait: dropped time-wait\\n')"
    assert eval(out[1]) == sorted([*four, (False, "time_wait")])
    assert out[2] == "(1, '')"  # none in CLOSE-WAIT
    assert eval(out[3]) == four
    assert out[4] == "(0, '')"
    assert eval(out[5]) == [(False, "listening")]
    assert out[6:] == ["(0, '')", "[]"]


@pytest.mark.parametrize("args,says", [
    ([], "usage:"), (["1.1.1.1:1"], "usage:"), (["a", "b", "c", "d", "e"], "usage:"), (["-x"], "usage:"),
    (["-4", "-6", "-a"], "exclude"), (["-a", "-s", "time-wait"], "time-wait"), (["-a", "1.1.1.1:1", "2.2.2.2:2"], "usage:"),
    (["-s", "sleeping"], "sleeping"), (["1.1.1.1:x", "2.2.2.2:2"], "not a port"), (["-6", "1.1.1.1:1", "*:*"], "-6"),
    (["-4", "[::1]:1", "*:*"], "-4"), (["--netns", "nosuch", "-a"], "nosuch"),
    (["1.1.1.1:1", "2.2.2.2:2", "x" * 300], "256"),
])
def test_bad_usage(args, says):
    code, out, err = tcpdrop(*args)
    assert code == 2 and says in err and out == ""
    assert totals()["requested"] == 0


def test_without_permission():
    done = sh("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", TCPDROP, "-a", check=False)
    assert done.returncode == 2 and "Permission denied" in done.stderr


def test_without_the_module():
    rmmod("drop_tcp_sock")
    code, _, err = tcpdrop("-a")
    assert code == 2 and "load the module" in err
