# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves the parts of the server core that an echo does not use, by the test module kline."""

import select
import socket
import time
from pathlib import Path

import pytest
from lib import DEBUG, UNLOAD_MAX, connect, receive, receive_all, rmmod, scaled

PORT = 12399


@pytest.fixture
def kline(load):
    return load("kline", hooks=True)


def talk(text):
    s = connect(port=PORT)
    s.sendall(text)
    return s


@pytest.mark.smoke
def test_two_cpus():
    """What the tests of races count on, on every kernel."""
    assert Path("/sys/devices/system/cpu/online").read_text() == "0-1\n"


@pytest.mark.smoke
def test_several_sends_for_one_request(kline):
    with talk(b"say hello\nsay you\n") as s:
        assert receive(s, 14) == b"<hello>\n<you>\n"


def test_input_kept_between_calls(kline):
    """A request in pieces of one byte, and at every split in two."""
    request = b"say a rather long request\n"
    with connect(port=PORT) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request:
            s.sendall(bytes([byte]))
            time.sleep(0.002)
        assert receive(s, 24) == b"<a rather long request>\n"
        for at in range(1, len(request)):
            s.sendall(request[:at])
            time.sleep(0.002)
            s.sendall(request[at:])
            assert receive(s, 24) == b"<a rather long request>\n"


def test_answer_larger_than_any_buffer(kline):
    """32 MiB for a reader that starts late (4 under a debug kernel); what follows comes behind it, in order."""
    size = scaled(32 << 20, 8)
    with talk(b"fill %d\nsay after\n" % size) as s:
        time.sleep(0.5)
        data = receive(s, size)
        assert data == (b"abcdefghijklmnopqrstuvwxyz" * (size // 26 + 1))[:size]
        assert receive(s, 8) == b"<after>\n"


def test_memory_short_in_the_middle_of_an_answer(kline):
    kline.set("hook_send_fails", 5)
    with talk(b"fill 40000\nsay done\n") as s:
        data = receive(s, 40000)
        assert data == (b"abcdefghijklmnopqrstuvwxyz" * 2000)[:40000]
    kline.set("hook_send_fails", 0)


@pytest.mark.smoke
def test_sleep_in_process_context(kline):
    """One that sleeps holds up neither others nor what it was sent meanwhile."""
    ms = 10000 if DEBUG else 3000
    began = time.monotonic()
    with talk(b"sleep %d\nsay after\n" % ms) as sleeper, connect(port=PORT) as other:
        sleeper.sendall(b"say more\n")
        other.sendall(b"say hi\n")
        assert receive(other, 5) == b"<hi>\n"
        assert not select.select([sleeper], [], [], 0)[0]  # it sleeps on
        assert receive(sleeper, 6) == b"slept\n"
        assert time.monotonic() - began >= ms / 1000
        assert receive(sleeper, 15) == b"<after>\n<more>\n"


def test_unload_while_asleep(kline, klog):
    socks = [talk(b"sleep 700\n") for _ in range(50)]
    kline.wait("bytes_in", 50 * len(b"sleep 700\n"))
    began = time.monotonic()
    rmmod("kline")
    assert time.monotonic() - began < 5 * UNLOAD_MAX
    assert sum("close was called 50 times" in line for line in klog.lines()) == 1
    for s in socks:
        s.close()


def test_client_gone_while_asleep(kline):
    for _ in range(20):
        talk(b"sleep 300\n").close()
    kline.wait("closed", 20)


@pytest.mark.smoke
def test_deadline(kline):
    """The protocol is told which phase took too long, and may answer before the end."""
    with talk(b"deadline 1 42\n") as s, talk(b"deadline 1 7\n") as busy:
        began = time.monotonic()
        busy.sendall(b"deadline 5 7\n")
        for _ in range(70):
            busy.sendall(b"deadline 5 8\n")  # set anew in time, it never passes
            time.sleep(0.1)
        assert receive_all(s) == b"expired 42\n"
        assert kline.stat("timeouts") == 1
        assert receive_all(busy) == b"expired 8\n"
        assert time.monotonic() - began < 60
    kline.wait("timeouts", 2)
    kline.wait("active", 0)


def test_deadline_taken_back(kline):
    with talk(b"deadline 1 1\ndeadline 0 0\n") as s:
        time.sleep(2.5)
        s.sendall(b"say still here\n")
        assert receive(s, 13) == b"<still here>\n"


@pytest.mark.smoke
def test_end_by_the_server(kline):
    """An end in order: what was answered arrives, then FIN; later requests are not looked at."""
    with talk(b"say last\nbye\n") as s:
        assert receive_all(s) == b"<last>\n"
    kline.wait("active", 0)
    assert kline.stat("errors") == 0


def test_protocol_error_is_a_reset(kline):
    with talk(b"nonsense\n") as s, pytest.raises(ConnectionResetError):
        receive_all(s)
    kline.wait("errors", 1)
    kline.wait("active", 0)


def test_eof_is_the_protocols(kline):
    """At FIN the protocol may still answer, and sees what it kept."""
    with talk(b"say x\nunfin") as s:
        s.shutdown(socket.SHUT_WR)
        assert receive_all(s) == b"<x>\neof after 5\n"


def test_eof_waits_for_the_answer(kline):
    """FIN with an answer still to be sent, and with a sleep under way: both come first."""
    with talk(b"fill 8000000\n") as s:
        s.shutdown(socket.SHUT_WR)
        time.sleep(0.3)
        assert len(receive_all(s)) == 8000000 + len(b"eof after 0\n")
    with talk(b"sleep 300\nsay z\n") as s:
        s.shutdown(socket.SHUT_WR)
        assert receive_all(s) == b"slept\n<z>\neof after 0\n"


def test_warnings_are_seen():
    """A kernel without CONFIG_BUG says nothing where it should warn: then no run on it would prove much."""
    assert " report_bug\n" in Path("/proc/kallsyms").read_text(encoding="ascii")
