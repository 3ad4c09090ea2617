# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Each test says how many allocations it made fail."""

import faults
import pytest


@pytest.fixture(autouse=True)
def say_how_many():
    before = faults.injected
    yield
    print(f"{faults.injected - before} faults injected")
