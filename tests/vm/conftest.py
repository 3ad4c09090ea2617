# SPDX-License-Identifier: GPL-2.0-only OR MIT
"""Fixtures of the tests in the VM."""

import pytest
from lib import HOOKS_DIR, MODES, KernelLog, Server, insmod, loaded, rmmod, unload_all


class Loader:
    """Loads modules in the mode under test, and unloads them after the test."""

    def __init__(self, mode):
        self.mode = mode
        self.folder, self.params = MODES[mode]
        self.names = []

    def __call__(self, name="kecho", netns=None, hooks=False, **params):
        folder = HOOKS_DIR if hooks else self.folder
        self.names.append(name)
        insmod(folder / f"{name}.ko", netns=netns, **{**self.params, **params})
        return Server(name, netns)

    def unload(self):
        for name in self.names:
            if loaded(name):
                rmmod(name)


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture
def load(mode):
    loader = Loader(mode)
    yield loader
    loader.unload()


@pytest.fixture
def kecho(load):
    return load("kecho")


@pytest.fixture
def unloaded():
    """Whatever modules a test leaves go."""
    yield
    unload_all()


@pytest.fixture
def klog():
    with KernelLog() as log:
        yield log
