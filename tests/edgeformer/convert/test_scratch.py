"""Export tools write their temporary files beside the output, and a disk without room is refused before they start."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from edgeformer.convert.bundle_writer import check_space, scratch_in
from edgeformer.models.family import Program
from edgeformer_runtime.delivery import work_folder
from edgeformer_runtime.errors import InputError


def full(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free_bytes))


def test_temporary_files_go_beside_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with work_folder(tmp_path / "out", create=True) as work, scratch_in(work):
        assert Path(tempfile.mkdtemp()).is_relative_to(tmp_path / "out")
        made = subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip()
        assert Path(made).is_relative_to(tmp_path / "out"), "tools in other languages, too"
    assert os.environ["TMPDIR"] == str(tmp_path / "nowhere") and tempfile.tempdir is None
    assert not list(tmp_path.iterdir())


def test_a_failure_on_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Core ML's writer calls it an unknown error."""
    expected = pytest.raises(InputError, match=rf"no space left in {tmp_path}: make room")
    with expected, work_folder(tmp_path) as work, scratch_in(work):
        full(monkeypatch, 4096)
        raise RuntimeError("[MIL FileWriter]: Unknown error occurred while writing data to the file.")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="something else"), work_folder(tmp_path) as work, scratch_in(work):
        raise RuntimeError("something else")


def test_too_little_space_is_refused_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Program("main", torch.nn.Linear(1024, 1024), (), ())  # 4.2 MB
    with work_folder(tmp_path) as work:
        check_space(work, [program, program], 4)
        full(monkeypatch, 20 << 20)
        with pytest.raises(InputError, match=rf"not enough space in {tmp_path}: 32 MiB are needed, 20 MiB are free"):
            check_space(work, [program], 4)
