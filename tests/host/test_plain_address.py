# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Proves what is asked of an address that the kernel has read, in user space. What addr= means: tests/vm/fuzz."""

from native import TOP, fuzz


def test_fuzz(tmp_path):
    """libFuzzer finds no address of the C library's that is refused, no other difference to what the rule says, and nothing
    that ASan or UBSan object to. FUZZ_SECONDS: how long."""
    fuzz(tmp_path, "address.c", "address", [f"-I{TOP}/common"], 5)
