"""Those of the runtime's own tests that run in the emulated Pi."""

from __future__ import annotations

from build_tools.code_key import REPOSITORY
from runtime.pi.emulated_pi import EmulatedPi

TESTS = ("tests/runtime",)
"""Relative to the repository."""


def run_tests(pi: EmulatedPi) -> bool:
    """Run them on the installed wheel; whether all pass."""
    options = ["-q", "-p", "no:cacheprovider", "-m", "not slow"]
    return pi.run(["-m", "pytest", *options, *TESTS], REPOSITORY).returncode == 0
