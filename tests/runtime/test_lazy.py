"""What an extra brings is imported when it is needed, its absence says what to install, and the README's lines run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeformer_runtime import load
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import load_optional
from tests.docs.documents import snippet

WITHOUT_TYPER = """
import sys
sys.modules["typer"] = None
from edgeformer_runtime.cli import main
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


def test_the_lines_of_the_readme_answer(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_onnx, tmp_path / "my-model.litert.dynamic-int8")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet("python"), "README.md", "exec"), {})
    with load(tiny_onnx) as model:
        expected = model("turn the lights off")
    assert capsys.readouterr().out == f"{expected.label} {expected.score}\n"
