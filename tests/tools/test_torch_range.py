"""The versions of torch that are converted with are those that the packages admit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import torch_range


def test_the_ends_of_the_range_are_what_is_tested() -> None:
    oldest, newest = torch_range.VERSIONS
    assert torch_range.admits(None, oldest) and torch_range.admits(None, newest)
    assert not torch_range.admits(None, "2.10.0") and not torch_range.admits(None, "2.15.0")


def test_executorch_takes_none_that_is_older_than_what_it_was_built_with() -> None:
    assert [torch_range.admits("executorch", version) for version in ("2.13.0", *torch_range.VERSIONS)] == [
        True, False, True,
    ]  # fmt: skip
    assert all(torch_range.admits("onnx", version) for version in torch_range.VERSIONS)


def test_a_conversion_that_fails_is_named_and_the_next_target_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "2.11.0" / "torch").mkdir(parents=True)
    monkeypatch.setattr(torch_range, "FOLDER", tmp_path)
    monkeypatch.setattr(torch_range, "convert_beside", lambda _, target: "no" if target == "litert" else "")
    assert torch_range.main(["2.11.0"]) == 1
    found = dict(line.split(None, 3)[2:] for line in capsys.readouterr().out.splitlines())
    assert found == {"litert": "no", "coreml": "ok", "executorch": "not admitted by this extra", "onnx": "ok"}
