# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that a socket in whatever state is dropped when it is named, and no other."""

import contextlib
import errno
import json
import select
import socket
import threading
import time

import pytest
from lib import TCPDROP, black_hole, in_netns, ip, network_namespace, packet, receive, sh
from sockets import (Pair, at_port, gained, key_of, line_of, time_wait, totals, wait_for, wait_state,
                     walk, write)

HOSTS = ["127.0.0.1", "::1"]
SO_BINDTOIFINDEX = 62


def drops(key, state):
    """Names one socket, which must be dropped as one of that state, and be gone. Returns what else is, too: that is
    for the survivors to judge where it was in TIME-WAIT, which an earlier test's socket may have left by itself."""
    before, sockets = totals(), walk()
    write(line_of(key) + "\n")
    assert gained(before) == {"requested": 1, "dropped": 1, f"dropped_{state}": 1}
    gone = sockets - walk()
    assert (*key[:4], state) in gone
    return {e for e in gone if e.state != "time_wait" or e[:4] == key[:4]}


@pytest.mark.smoke
@pytest.mark.parametrize("host", HOSTS)
def test_time_wait(host):
    key = time_wait(host)
    assert len(drops(key, "time_wait")) == 1


@pytest.mark.smoke
@pytest.mark.parametrize("host", HOSTS)
def test_established(host):
    """The peer gets a RST; the owner is told that the connection was aborted."""
    with Pair(host) as pair:
        drops(key_of(pair.client), "established")
        with pytest.raises(ConnectionAbortedError):
            pair.client.recv(1)
        with pytest.raises(ConnectionResetError):
            pair.served.recv(1)


def test_established_not_accepted():
    """A connection that waits in the accept queue: its peer gets a RST, and who accepts it is told."""
    with Pair(accept=False) as pair:
        local, remote = key_of(pair.client)[:2], key_of(pair.client)[2:]
        drops((*remote, *local), "established")
        with pytest.raises(ConnectionResetError):
            pair.client.recv(1)
        accepted, peer = pair.listener.accept()
        with accepted:
            assert peer == pair.client.getsockname()
            with pytest.raises(ConnectionAbortedError):
                accepted.recv(1)
            assert accepted.recv(1) == b""


def test_syn_sent():
    """connect() waits for an answer that never comes, and wakes."""
    with black_hole(), socket.socket() as s:
        s.bind(("10.9.9.1", 0))
        result = []
        waiter = threading.Thread(target=lambda: result.append(s.connect_ex(("198.51.100.7", 80))))
        waiter.start()
        key = ("10.9.9.1", wait_for(lambda: s.getsockname()[1]), "198.51.100.7", 80)
        wait_state(key, "syn_sent")
        drops(key, "syn_sent")
        waiter.join(20)
        assert result == [errno.ECONNABORTED]


@pytest.mark.parametrize("listen_on", ["10.9.9.1", "::"])
def test_syn_recv(listen_on):
    """A request, which is no full socket yet; the listener is not harmed."""
    with black_hole(), socket.socket(socket.AF_INET6 if listen_on == "::" else socket.AF_INET) as listener:
        listener.bind((listen_on, 0))
        listener.listen(16)
        port = listener.getsockname()[1]
        packet("198.51.100.7", 5555, "10.9.9.1", port, seq=1000, flags="S")
        entry = wait_for(lambda: next((e for e in at_port(port) if e.state == "syn_recv"), None))
        assert entry.remote_port == 5555
        assert len(drops(entry, "syn_recv")) == 1
        assert {e.state for e in at_port(port)} == {"listening"}
        with socket.create_connection(("10.9.9.1", port), timeout=10):
            pass


def test_fin_wait_2_with_owner():
    with Pair() as pair:
        pair.client.shutdown(socket.SHUT_WR)
        wait_state(pair.client, "fin_wait_2")
        drops(key_of(pair.client), "fin_wait_2")
        with pytest.raises(ConnectionAbortedError):
            pair.client.recv(1)
        assert pair.served.recv(1) == b""  # its FIN came before the RST


def test_fin_wait_2_without_owner():
    """An orphan: kept as a TIME-WAIT socket that is listed as FIN-WAIT-2."""
    with Pair() as pair:
        key = key_of(pair.client)
        pair.client.close()
        wait_state(key, "fin_wait_2")
        drops(key, "fin_wait_2")


def test_close_wait():
    with Pair() as pair:
        pair.served.close()
        wait_state(pair.client, "close_wait")
        drops(key_of(pair.client), "close_wait")
        pair.client.close()


def test_fin_wait_1_without_owner():
    """An orphan that cannot get rid of its data. The peer learns of it by the RST."""
    with Pair() as pair:
        key = key_of(pair.client)
        pair.stuff(pair.client)
        pair.client.close()
        wait_state(key, "fin_wait_1")
        drops(key, "fin_wait_1")


def test_last_ack_without_owner():
    with Pair() as pair:
        key = key_of(pair.client)
        pair.stuff(pair.client)
        pair.served.shutdown(socket.SHUT_WR)
        wait_state(pair.client, "close_wait")
        pair.client.close()
        wait_state(key, "last_ack")
        drops(key, "last_ack")


def test_closing():
    with Pair() as pair:
        pair.stuff(pair.client)
        pair.client.shutdown(socket.SHUT_WR)
        pair.served.shutdown(socket.SHUT_WR)
        wait_state(pair.client, "closing")
        drops(key_of(pair.client), "closing")


# --- listeners ---


@pytest.mark.parametrize("host,line", [
    ("127.0.0.1", "127.0.0.1:{} 0.0.0.0:* listening"), ("127.0.0.1", "127.0.0.1:{} *:* listening"),
    ("0.0.0.0", "0.0.0.0:{} 0.0.0.0:* listening"), ("0.0.0.0", "*:{} *:* listening"),
    ("::1", "[::1]:{} [::]:* listening"), ("::1", "::1:{} :::* listening"), ("::", ":::{} :::* listening"),
    ("::", "*:{} *:* listening"),
])
def test_listener_by_the_word(host, line):
    with Pair(host) as pair:
        before = totals()
        write(line.format(pair.port) + "\n")
        assert gained(before) == {"requested": 1, "dropped": 1, "dropped_listening": 1}
        assert {e.state for e in at_port(pair.port)} == {"established"}
        pair.client.sendall(b"on")
        assert receive(pair.served, 2) == b"on"


@pytest.mark.parametrize("line", [
    "0.0.0.0:{} 0.0.0.0:*", "*:{} *:*", "*:{} 0.0.0.0:*", "0.0.0.0:{} *:*", "0.0.0.0:{} 0.0.0.0:* LISTEN",
    "0.0.0.0:{} 0.0.0.0:* listen", "0.0.0.0:{} 0.0.0.0:* LISTENING", "0.0.0.0:{} 0.0.0.0:0",
])
def test_listener_survives_without_the_word(line):
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        before = totals()
        write(line.format(port) + "\n")
        assert gained(before) == {"requested": 1, "skipped_listener": 1}
        assert {e.state for e in at_port(port)} == {"listening"}


@pytest.mark.parametrize("host,line", [
    ("0.0.0.0", "127.0.0.1:{} 127.0.0.1:9"), ("0.0.0.0", "0.0.0.0:{} 127.0.0.1:9"),
    ("::", "127.0.0.1:{} 127.0.0.1:9"), ("::1", "[::1]:{} [::1]:9"), ("127.0.0.1", "127.0.0.1:{} 127.0.0.1:9 listening"),
    ("127.0.0.1", "127.0.0.1:{} 0.0.0.0:* time-wait"),
])
def test_listener_survives_a_stale_pair(host, line):
    """The pair is gone; whoever listens at its port is not taken for it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.bind((host, 0))
        listener.listen()
        port = listener.getsockname()[1]
        before = totals()
        write(line.format(port) + "\n")
        assert gained(before) == {"requested": 1, "not_found": 1}
        assert {e.state for e in at_port(port)} == {"listening"}


MPTCP = 262


def mptcp_socket():
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM, MPTCP)
    except OSError:
        pytest.skip("this kernel has no MPTCP")


def test_mptcp_listener_is_left_alone():
    """The kernel forbids it: its owner would be left with a socket that listens no more and does not know."""
    with mptcp_socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        before = totals()
        write(f"127.0.0.1:{port} 0.0.0.0:* listening\n")
        assert gained(before) == {"requested": 1, "not_found": 1}
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            listener.accept()[0].close()


def test_more_that_may_not_be_dropped_than_are_held_at_a_time():
    """They hide nobody behind them: listeners of MPTCP between two of TCP, on one port."""
    port = 0
    with contextlib.ExitStack() as stack:
        for make in (socket.socket, *[mptcp_socket] * 70, socket.socket):
            listener = stack.enter_context(make())
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen()
            port = listener.getsockname()[1]
        before = totals()
        write(f"127.0.0.1:{port} 0.0.0.0:* listening\n")
        assert gained(before) == {"requested": 1, "dropped": 2, "dropped_listening": 2}


# --- owners ---


def test_owner_blocked_in_recv():
    with Pair() as pair:
        result = []

        def receiver():
            try:
                pair.client.recv(1)
            except OSError as err:
                result.append(err.errno)

        thread = threading.Thread(target=receiver)
        thread.start()
        time.sleep(0.3)
        drops(key_of(pair.client), "established")
        thread.join(20)
        assert result == [errno.ECONNABORTED]


def test_owner_blocked_in_epoll_wait():
    with Pair() as pair, select.epoll() as poll:
        poll.register(pair.client, select.EPOLLIN)
        result = []
        thread = threading.Thread(target=lambda: result.extend(poll.poll(20)))
        thread.start()
        time.sleep(0.3)
        drops(key_of(pair.client), "established")
        thread.join(20)
        assert result[0][1] & select.EPOLLERR  # TCP wakes its owner for the error, and closes then
        assert poll.poll(20)[0][1] & (select.EPOLLERR | select.EPOLLHUP) == select.EPOLLERR | select.EPOLLHUP
        assert pair.client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNABORTED


def test_both_ends_on_loopback():
    """The end whose local address comes first is dropped; the other sees what a peer sees."""
    with Pair() as pair:
        local, remote = key_of(pair.client)[:2], key_of(pair.client)[2:]
        drops((*remote, *local), "established")
        with pytest.raises(ConnectionAbortedError):
            pair.served.recv(1)
        with pytest.raises(ConnectionResetError):
            pair.client.recv(1)


# --- interfaces and namespaces ---


@contextlib.contextmanager
def wire(left, right):
    """Two namespaces, joined by a veth pair of the same name on both sides."""
    with network_namespace(left), network_namespace(right):
        ip(f"link add wire netns {left} type veth peer name wire netns {right}")
        for ns, last in ((left, 1), (right, 2)):
            ip("link set wire addrgenmode none", f"addr add 10.7.7.{last}/24 dev wire", f"addr add fe80::{last}/64 dev wire nodad",
               "link set wire up", netns=ns)
        yield


@pytest.fixture(scope="module")
def link():
    with wire("left", "right"):
        yield


def end_of_wire(ns, host, bound):
    """A socket in a namespace, bound to its end of the wire or not, and the address that a host has there."""
    def make():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        s = socket.socket(family)
        s.settimeout(20)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if bound:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"wire")
        return s, socket.getaddrinfo(host + ("%wire" if ":" in host else ""), 7000, family, socket.SOCK_STREAM)[0][4]
    return in_netns(ns, make)


@pytest.mark.parametrize("host,mine,bind", [("10.7.7.2", "10.7.7.1", "bind"), ("10.7.7.2", "10.7.7.1", ""),
                                            ("fe80::2", "fe80::1", "")])
@pytest.mark.parametrize("name", ["", "%wire", "%lo", "%nosuch"])
def test_bound_to_a_device(link, host, mine, bind, name):
    """An interface in the line must be the socket's; without one any will do."""
    listener, address = end_of_wire("right", host, bind)
    client, _ = end_of_wire("left", host, bind)
    with listener, client:
        listener.bind(address)
        listener.listen()
        client.connect(address)
        with listener.accept()[0] as served:
            left = (f"[{mine}]" if ":" in mine else mine) + f"{name}:{client.getsockname()[1]}"
            right = f"[{host}]:7000" if ":" in host else f"{host}:7000"
            done = sh(TCPDROP, "-v", "--netns", "left", left, right, check=False)
            # One that is bound to no interface is not the one on "wire".
            found = name == "" or (name == "%wire" and (bind == "bind" or ":" in host))
            assert done.returncode == (0 if found else 1), done
            assert done.stdout == f"{left} {right}: " + ("dropped established\n" if found else "not found\n")
            if found:
                with pytest.raises(ConnectionAbortedError):
                    client.recv(1)
                with pytest.raises(ConnectionResetError):
                    served.recv(1)
            else:
                client.sendall(b"alive")
                assert receive(served, 5) == b"alive"


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("host,mine,bind", [("10.7.7.2", "10.7.7.1", "bind"), ("fe80::2", "fe80::1", "")])
def test_bound_to_a_device_that_is_gone(host, mine, bind, named):
    """A socket lives on without its interface, and is found by its addresses as before; by whatever name ss has for the interface, too."""
    with wire("this", "other"), contextlib.ExitStack() as stack:
        listener, address = end_of_wire("other", host, bind)
        client, _ = end_of_wire("this", host, bind)
        for s in (listener, client):
            stack.enter_context(s)
        listener.bind(address)
        listener.listen()
        client.connect(address)
        stack.enter_context(listener.accept()[0])
        ifindex = json.loads(sh("ip", "-j", "link", "show", "wire", netns="this").stdout)[0]["ifindex"]
        ip("link del wire", netns="this")
        names = (f"%if{ifindex}", f"%{ifindex}") if named else ("",)
        ends = [((f"[{mine}]" if ":" in mine else mine) + f"{name}:{client.getsockname()[1]}", f"[{host}]:7000" if ":" in host else f"{host}:7000")
                for name in names]
        for ours, theirs in ends:
            assert sh(TCPDROP, "-n", "--netns", "this", ours, theirs).stdout.startswith("would drop ")
        done = sh(TCPDROP, "-v", "--netns", "this", *ends[0])
        assert done.stdout == f"{' '.join(ends[0])}: dropped established\n"
        with pytest.raises(ConnectionAbortedError):
            client.recv(1)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_bound_to_a_device_that_never_was(host, named):
    """SO_BINDTOIFINDEX takes any number, from anybody, also of an open connection: it is found by its addresses all the same."""
    with contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(Pair(host, listener_host="::" if "ffff" in host else None)) for _ in range(20)]
        for n, pair in enumerate(pairs):
            write("192.0.2.1:1 192.0.2.2:2\n")  # of which the module may learn what there is
            before = totals()
            key = key_of(pair.client)
            pair.client.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, 9000 + n)
            ours, theirs = line_of(key).split()
            address, _, port = ours.rpartition(":")
            if named:
                address = f"[{address.strip('[]')}%if{9000 + n}]" if ":" in address else f"{address}%if{9000 + n}"
            write(f"{address}:{port} {theirs}\n")
            assert gained(before) == {"requested": 1, "dropped": 1, "dropped_established": 1}
            with pytest.raises(ConnectionAbortedError):
                pair.client.recv(1)


def test_another_namespace_is_untouched():
    """The same addresses and ports exist in two namespaces; each file reaches its own."""
    with network_namespace("other"), Pair() as pair:
        key = key_of(pair.client)
        done = sh(TCPDROP, "-v", "--netns", "other", *line_of(key).split(), check=False)
        assert done.returncode == 1 and done.stdout.endswith("not found\n")
        sh(TCPDROP, "--netns", "other", "-a", check=False)
        sh(TCPDROP, "--netns", "other", "-s", "listening", check=False)
        assert wait_state(key, "established")
        text = sh("cat", "/proc/net/drop_tcp_sock", netns="other").stdout
        assert totals(text)["not_found"] == 3 and totals()["requested"] == 0


@pytest.mark.parametrize("client_host", ["127.0.0.1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("spelling", ["127.0.0.1", "[::ffff:127.0.0.1]", "::ffff:127.0.0.1", "[::ffff:7f00:1]"])
@pytest.mark.parametrize("end", ["client", "served"])
def test_ipv4_mapped(client_host, spelling, end):
    """IPv4 connections of IPv6 sockets, by either spelling."""
    with Pair(client_host, listener_host="::") as pair:
        sock = getattr(pair, end)
        key = key_of(sock)
        before = totals()
        write(f"{spelling}:{key[1]} {spelling}:{key[3]}\n")
        assert gained(before) == {"requested": 1, "dropped": 1, "dropped_established": 1}
        with pytest.raises(ConnectionAbortedError):
            sock.recv(1)
