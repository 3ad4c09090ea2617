# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Fixtures of the fuzzers."""

import pytest
from lib import DEBUG, ip, sh


@pytest.fixture(scope="module")
def device():
    """A TUN device whose peers speak only by the program."""
    sh("modprobe", "tun", check=not DEBUG)
    ip("tuntap add wire0 mode tun", "addr add 10.7.0.1/16 dev wire0", "addr add fd07::1/64 dev wire0 nodad",
       "link set wire0 up mtu 9000 txqueuelen 5000")
    yield "wire0"
    ip("link del wire0")
