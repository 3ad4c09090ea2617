# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Every overload leaves both servers as they were."""

import time

import pytest
from overload import kernel_memory, serve_all


@pytest.fixture
def servers(load, klog):
    """Both, whatever else happens: they say nothing, and in the end they hold nobody and what they took."""
    both = load("kecho", idle_timeout=5), load("khttpd", keepalive_timeout=5, request_timeout=5)
    klog.lines()
    serve_all()
    for server in both:
        server.wait("active", 0)
    before = kernel_memory()
    yield both
    for server in both:
        server.wait("active", 0, seconds=60)
        stats = server.stats()
        assert stats["accepted"] == stats["closed"], stats
    serve_all()
    end = time.monotonic() + 60
    while (more := kernel_memory() - before) > 4 << 20:
        assert time.monotonic() < end, f"{more} bytes more than before"
        time.sleep(1)
    assert [line for line in klog.lines() if line.startswith(("kecho", "khttpd"))] == []
