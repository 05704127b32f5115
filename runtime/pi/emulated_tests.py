"""Those of the runtime's own tests that run in the emulated Pi."""

from __future__ import annotations

from build_tools.code_key import REPOSITORY
from runtime.pi.emulated_pi import EmulatedPi

TESTS = ("tests/runtime", "tests/golden")
"""Relative to the repository."""

LEFT_OUT = {
    "tests/runtime/decoding": "compares with torch; tests/golden holds the same decoding as recorded values",
    "tests/runtime/preprocess/test_log_mel.py": "compares with transformers; tests/golden holds its values",
    "tests/runtime/serve": "loads a server, which an emulator slows down beyond its limits",
    "tests/runtime/bench": "measures",
    "tests/runtime/test_fuzz_bundles.py": "a thousand cases of code that has nothing of the machine in it",
    "tests/runtime/test_fuzz_formats.py": "likewise",
    "tests/runtime/test_thin_install.py": "installs, which happens here in another way",
    "tests/runtime/test_runtime_cli.py": "starts dozens of processes, each of which takes seconds in emulation",
    "tests/golden/test_golden_files.py": "makes the files anew, with torch and transformers",
}
"""What is not run there, and why. Tests of bundles that torch makes skip themselves, as on any machine without it."""


def run_tests(pi: EmulatedPi) -> bool:
    """Run them on the installed wheel; whether all pass."""
    ignored = [f"--ignore={path}" for path in LEFT_OUT]
    options = ["-q", "-p", "no:cacheprovider", "-m", "not slow", *ignored]
    return pi.run(["-m", "pytest", *options, *TESTS], REPOSITORY).returncode == 0
