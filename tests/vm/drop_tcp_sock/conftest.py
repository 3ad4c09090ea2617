# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Every test begins with the module loaded, and ends with its control sockets unharmed."""

import pytest
from lib import KO_DIR, insmod, loaded, rmmod, sysctl
from sockets import Survivors


@pytest.fixture(autouse=True)
def drop():
    insmod(KO_DIR / "drop_tcp_sock.ko")
    yield
    if loaded("drop_tcp_sock"):
        rmmod("drop_tcp_sock")


@pytest.fixture(autouse=True)
def nobody_else_ends_time_wait():
    """A machine that stands still for 0.2 s makes TCP send a FIN again. The TIME-WAIT socket acknowledges it, to a socket
    that has gone, whose RST then ends the TIME-WAIT socket (RFC 1337). Nor may a new connection take over an old one's port,
    nor connect() take the README's port for its own."""
    with sysctl(ipv4__tcp_rfc1337=1, ipv4__tcp_tw_reuse=0, ipv4__ip_local_reserved_ports=36986):
        yield


@pytest.fixture(autouse=True)
def survivors(drop, nobody_else_ends_time_wait):
    control = Survivors()
    yield control
    control.check()
    control.close()
