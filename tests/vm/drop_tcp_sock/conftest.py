# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Every test begins with the module loaded, and ends with its control sockets unharmed."""

import pytest
from lib import KO_DIR, insmod, loaded, rmmod
from sockets import Survivors


@pytest.fixture(autouse=True)
def drop():
    insmod(KO_DIR / "drop_tcp_sock.ko")
    yield
    if loaded("drop_tcp_sock"):
        rmmod("drop_tcp_sock")


@pytest.fixture(autouse=True)
def survivors(drop):
    control = Survivors()
    yield control
    control.check()
    control.close()
