# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Every overload leaves both servers as they were."""

import time

import pytest
from lib import DEBUG
from overload import kernel_memory, serve_all


@pytest.fixture
def servers(load, klog):
    """Both, whatever else happens: they say nothing, and in the end they hold nobody and what they took."""
    patience = 20 if DEBUG else 5  # a client that waits for a CPU is none that has gone
    both = load("kecho", idle_timeout=patience), load("khttpd", keepalive_timeout=patience, request_timeout=patience)
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
