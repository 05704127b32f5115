"""Those of the runtime's own tests that run in the emulated Pi."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tools.code_key import REPOSITORY
from tools.pi.emulated_pi import EmulatedPi

TESTS = ("tests/runtime", "tests/golden")
"""Relative to the repository."""

LONGEST_TEST_S = 180
"""The longest takes some ten seconds on a quiet machine."""

LONGEST_RUN_S = 2400
"""They take four minutes alone, and three times as long beside other work."""
ATTEMPTS = 2
HUNG = "Timeout (0:03:00)!"
"""What Python's faulthandler prints before the stack of each thread."""
SHOWN_CHARACTERS = 4000

LEFT_OUT = {
    "tests/runtime/decoding": "compares with torch",
    "tests/runtime/preprocess/test_log_mel.py": "compares with transformers; tests/golden holds its values",
    "tests/runtime/serve": "loads a server, which an emulator slows down beyond its limits",
    "tests/runtime/bench": "measures",
    "tests/runtime/bundle/test_fuzz_bundles.py": "a thousand cases of code that has nothing of the machine in it",
    "tests/runtime/bundle/test_fuzz_formats.py": "likewise",
    "tests/runtime/model_files/test_fuzz_model_files.py": "likewise",
    "tests/runtime/preprocess/test_long_words.py": "likewise, of megabytes; test_tokenizer_border.py has short ones",
    "tests/runtime/test_hostile_bundles.py": "likewise, and in processes that are confined",
    "tests/runtime/isolation": "confines processes by system calls that the emulator does not have",
    "tests/runtime/test_thin_install.py": "installs, which happens here in another way",
    "tests/runtime/cli/test_runtime_cli.py": "starts dozens of processes, each of which takes seconds in emulation",
    "tests/runtime/cli/test_run_lines.py": "likewise",
    "tests/runtime/test_standard_streams.py": "likewise",
    "tests/runtime/cli/test_listen.py": "starts scripts in the place of a microphone, which the emulator cannot",
    "tests/runtime/engines/test_executorch_shim.py": "starts a compiler, which the emulator cannot; see shims.py",
    "tests/golden/test_golden_files.py": "makes the files anew, with torch and transformers",
    "tests/golden/test_decoding_golden.py": "compares with torch",
    "tests/golden/test_text_golden.py": "compares with torch",
}
"""What is not run there, and why."""


def run_tests(pi: EmulatedPi, tiny_litert: Path) -> subprocess.CompletedProcess[str]:
    """Run them on the installed wheel.

    Args:
        pi: with the runtime installed.
        tiny_litert: the LiteRT bundle of the runtime's tests, which takes torch to make.
    """
    left_out = [f"--ignore={REPOSITORY / path}" for path in LEFT_OUT]
    options = ["--rootdir", str(REPOSITORY), "-q", "-p", "no:cacheprovider", "-m", "not slow", *left_out]
    # A test that emulation leaves hanging names itself and ends the run.
    options += ["-o", f"faulthandler_timeout={LONGEST_TEST_S}", "-o", "faulthandler_exit_on_timeout=true"]
    tests = [REPOSITORY / path for path in TESTS]
    for _ in range(ATTEMPTS):
        done = pi.run("-m", "pytest", *options, *tests, within_s=LONGEST_RUN_S, EDGEFORMER_TINY_LITERT=str(tiny_litert))
        # qemu's user emulation now and then leaves a process of several threads waiting: that says nothing of the code.
        if done.returncode >= 0 and HUNG not in done.stdout:
            break
        print(f"a test hung in emulation:\n{done.stdout[-SHOWN_CHARACTERS:]}", flush=True)
    return done
