# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves that what overloads the servers does not overload a probe that looks on."""

import re

import pytest
from lib import BENCH, HTSTRESS, HTTP_PORT, KO_DIR, PORT, insmod, modes, network_namespace, rmmod, scaled, sh, sysctl
from overload import URL, syn_flood
from records import STAT, Trace, samples

# Kprobes are set and removed where segments come: see "CPUs in turns" in docs/vm.md. Alone, or all of the folder had turns.
pytestmark = pytest.mark.boot(clock="turns", alone=True)


@modes("fast")
@pytest.mark.usefixtures("servers")
def test_syn_flood():
    """Under a probe that nobody reads: who comes besides is served; a SYN makes no flow, and others no more than there may be."""
    insmod(KO_DIR / "tcpprobe.ko", maxflows=5)
    with sysctl(ipv4__tcp_synack_retries=1), network_namespace("attacker"), Trace() as trace:
        with syn_flood("attacker", (PORT, HTTP_PORT)) as sent:
            sh(BENCH, "-c", 20, "-n", scaled(40), "--reconnect")
            sh(HTSTRESS, "-n", scaled(800), "-c", 20, URL)
            told = STAT.read_text()
        lines, lost = trace.lines()
    counted = samples()
    rmmod("tcpprobe")
    print(f"{sent[0]} SYNs; {counted}")
    assert sent[0] > scaled(2000)
    assert int(re.search(r"^Flows: active (\d+)", told)[1]) <= 5 and int(re.search(r"^Total: .* conn_drop: +(\d+) ", told, re.M)[1])
    assert lines and counted["read"] + counted["lost"] >= len(lines) + lost, counted
    assert counted["taken"] == counted["read"] + counted["lost"] + counted["discarded"], counted
    assert not [line for line in lines if "10.66." in line.saddr + line.daddr]
