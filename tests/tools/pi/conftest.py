"""The emulated Pi, where `make pi` has made it."""

from __future__ import annotations

import os

import pytest

from tools import debian
from tools.pi.emulated_pi import EMULATED_PI, RECIPE, EmulatedPi


@pytest.fixture(scope="session")
def pi() -> EmulatedPi:
    """The root in the cache. CI must have it."""
    folder = debian.cache_folder() / EMULATED_PI
    if not debian.is_current(folder, RECIPE):
        absent = "no emulated Raspberry Pi: make pi"
        pytest.fail(absent) if os.environ.get("CI") else pytest.skip(absent)
    return EmulatedPi(folder)
