# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves where kecho listens, in which namespace, and how each load that cannot work fails."""

import contextlib
import errno
import socket
import time

import pytest
from lib import PORT, bench, connect, ip, loaded, modes, network_namespace, receive, rmmod, sh, sysctl

pytestmark = modes("fast")


def speaks(host, port=PORT):
    try:
        with connect(host, port) as s:
            s.sendall(b"hello")
            return receive(s, 5) == b"hello"
    except ConnectionRefusedError:
        return False


@pytest.mark.parametrize("bindv6only", [0, 1])
def test_default_serves_both_families(load, bindv6only):
    with sysctl(ipv6__bindv6only=bindv6only):
        load("kecho")
        assert speaks("127.0.0.1") and speaks("::1") and speaks("127.9.9.9")


@pytest.mark.parametrize("addr,yes,no", [
    ("127.0.0.1", "127.0.0.1", "::1"),
    ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
    ("::1", "::1", "127.0.0.1"),
    ("0.0.0.0", "127.0.0.2", "::1"),
])
def test_addr(load, addr, yes, no):
    load("kecho", addr=addr)
    assert speaks(yes)
    assert not speaks(no)


def test_port(load):
    load("kecho", port=7)
    assert speaks("127.0.0.1", 7)
    assert not speaks("127.0.0.1", PORT)


def test_link_local_address_with_scope(load):
    ip("link add dum0 type dummy", "link set dum0 up", "addr add fe80::77/64 dev dum0 nodad")
    try:
        load("kecho", addr="fe80::77%dum0")
        scope = socket.if_nametoindex("dum0")
        with socket.socket(socket.AF_INET6) as s:
            s.settimeout(60)
            s.connect(("fe80::77", PORT, 0, scope))
            s.sendall(b"scoped")
            assert receive(s, 6) == b"scoped"
    finally:
        with contextlib.suppress(OSError):
            rmmod("kecho")
        ip("link del dum0")


def test_load_message(load, klog):
    """It says plainly that an open service listens, where, and how to close it to the network."""
    load("kecho", port=4242)
    said = [line for line in klog.lines() if "kecho: " in line and "4242" in line]
    assert len(said) == 1
    assert "without authentication" in said[0] and "addr=127.0.0.1" in said[0]


@pytest.mark.parametrize("params,number,value", [
    ({"port": 0}, errno.EINVAL, "0"),
    ({"port": 65536}, errno.EINVAL, "65536"),
    ({"port": -1}, errno.EINVAL, "-1"),
    ({"port": "http"}, errno.EINVAL, "http"),
    ({"port": 99999999999999999999}, errno.EINVAL, "99999999999999999999"),
    ({"backlog": 0}, errno.EINVAL, "0"),
    ({"backlog": 65536}, errno.EINVAL, "65536"),
    ({"bench": 2}, errno.EINVAL, "2"),
    ({"fastpath": 2}, errno.EINVAL, "2"),
    ({"max_conns": 0}, errno.EINVAL, "0"),
    ({"max_conns": 16777217}, errno.EINVAL, "16777217"),
    ({"idle_timeout": 31536001}, errno.EINVAL, "31536001"),
    ({"addr": "nonsense"}, errno.EINVAL, "nonsense"),
    ({"addr": "1.2.3"}, errno.EINVAL, "1.2.3"),
    ({"addr": "1.2.3.4x"}, errno.EINVAL, "1.2.3.4x"),
    ({"addr": "::1::"}, errno.EINVAL, "::1::"),
    # What would be passed by, and served to more than were meant.
    ({"addr": "127.0.0.1:8080"}, errno.EINVAL, "127.0.0.1:8080"),
    ({"addr": "1.2.3.4::x"}, errno.EINVAL, "1.2.3.4::x"),
    ({"addr": "127.0.0.01"}, errno.EINVAL, "127.0.0.01"),
    ({"addr": "::ffff:127.0.0.01"}, errno.EINVAL, "::ffff:127.0.0.01"),
    ({"addr": "2001:db8::00001"}, errno.EINVAL, "2001:db8::00001"),
    ({"addr": "127.0.0.1%lo"}, errno.EINVAL, "127.0.0.1%lo"),
    ({"addr": "::ffff:127.0.0.1:80"}, errno.EINVAL, "::ffff:127.0.0.1:80"),
    ({"addr": "::%lo"}, errno.EINVAL, "::%lo"),
    ({"addr": "::1%garbage"}, errno.EINVAL, "::1%garbage"),
    ({"addr": "::1%"}, errno.EINVAL, "::1%"),
    ({"addr": "fe80::1%0000000000000012"}, errno.EINVAL, "fe80::1%0000000000000012"),
    ({"addr": "[::1]"}, errno.EINVAL, "[::1]"),
    ({"addr": "fe80::1%nodev"}, errno.EINVAL, "fe80::1%nodev is neither an IPv4 nor an IPv6 address with the scope of an interface that is there"),
    ({"addr": "fe80::1"}, errno.EINVAL, "fe80::1"),  # of which interface it does not say
    ({"addr": "192.0.2.1"}, errno.EADDRNOTAVAIL, "192.0.2.1"),
    ({"addr": "2001:db8::1"}, errno.EADDRNOTAVAIL, "2001:db8::1"),
])
def test_load_errors(load, klog, params, number, value):
    """The errno says what kind of fault it is, and one line in the log names the value."""
    with pytest.raises(OSError) as failed:
        load("kecho", **params)
    assert failed.value.errno == number
    named = [line for line in klog.lines() if value in line and "kecho" in line]
    assert len([line for line in named if "invalid for parameter" not in line]) == 1, named
    assert not loaded("kecho")


def test_port_in_use(load, klog):
    with socket.create_server(("127.0.0.1", PORT)):
        with pytest.raises(OSError) as failed:
            load("kecho", addr="127.0.0.1")
    assert failed.value.errno == errno.EADDRINUSE
    assert sum("12345" in line and "in use" in line for line in klog.lines()) == 1
    load("kecho", addr="127.0.0.1")
    assert speaks("127.0.0.1")


def test_another_namespace(load):
    """Loaded in a namespace, it serves there, and is not seen from outside."""
    with network_namespace("ns1"):
        kecho = load("kecho", netns="ns1")
        assert not speaks("127.0.0.1")
        assert sh("cat", "/proc/net/stat/kecho", check=False).returncode
        bench("-c", 20, "-n", 20, netns="ns1")
        bench("-c", 20, "-n", 20, "-6", netns="ns1")
        kecho.wait("closed", 40)
        rmmod("kecho")


@pytest.mark.parametrize("clients_inside", [False, True])
def test_namespace_deleted_under_clients(load, klog, clients_inside):
    """The namespace goes while clients are busy: the server stops, nothing is left of it."""
    with network_namespace("ns1"):
        ip("link add v0 type veth peer name v1 netns ns1", "addr add 10.9.0.1/24 dev v0", "link set v0 up")
        try:
            ip("addr add 10.9.0.2/24 dev v1", "link set v1 up", netns="ns1")
            load("kecho", netns="ns1")
            socks = [connect("10.9.0.2") for _ in range(100)]
            for s in socks:
                s.sendall(b"z" * 10000)
            if clients_inside:
                sh("ip", "netns", "exec", "ns1", "sh", "-c",
                   "nc 127.0.0.1 12345 </dev/zero >/dev/null & sleep 0.5; kill $!")
            sh("ip", "netns", "del", "ns1")
            wait_for_end(klog)
            for s in socks:
                s.close()
        finally:
            sh("ip", "link", "del", "v0", check=False)
    assert loaded("kecho")
    rmmod("kecho")
    load("kecho")
    assert speaks("127.0.0.1")


def wait_for_end(klog):
    """The namespace's workers run after 'ip netns del' has returned."""
    end = time.monotonic() + 120
    while not any("kecho: no longer listening" in line for line in klog.lines()):
        assert time.monotonic() < end, "the server did not stop with its namespace"
        time.sleep(0.02)
