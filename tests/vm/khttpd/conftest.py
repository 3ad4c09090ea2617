# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Fixtures of khttpd's tests."""

import pytest


@pytest.fixture
def khttpd(load):
    return load("khttpd")
