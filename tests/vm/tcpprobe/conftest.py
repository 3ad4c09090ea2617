# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Every test ends with the module unloaded."""

import pytest
from lib import KO_DIR, insmod, loaded, rmmod


@pytest.fixture
def probe():
    """Loads it; by default it records every port."""
    def load(**params):
        insmod(KO_DIR / "tcpprobe.ko", **params)
    yield load
    if loaded("tcpprobe"):
        rmmod("tcpprobe")
