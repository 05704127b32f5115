"""What an extra brings is imported when it is needed, and its absence says what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import load_optional

WITHOUT_TYPER = """
import sys
sys.modules["typer"] = None
from edgeformer_runtime.cli.entry import main
main()
"""


def test_a_missing_package_names_its_extra() -> None:
    assert load_optional("json:dumps", "a test", "speech")([1]) == "[1]"
    message = r"resampling needs the package no_such_package: pip install 'edgeformer-runtime\[speech\]'"
    with pytest.raises(InputError, match=message):
        load_optional("no_such_package:thing", "resampling", "speech")


def test_without_the_command_lines_packages_the_command_says_so() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TYPER], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: the command line needs the package typer: pip install 'edgeformer-runtime[cli]'\n"
