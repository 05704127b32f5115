"""The commands with --isolated answer and verify as without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeformer_runtime.cli.app import app


def answered(*arguments: object) -> Any:
    """What a command prints as JSON."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", [("run", "hello", "turn the lights off"), ("verify",)], ids=lambda each: each[0])
def test_the_same_is_printed(tiny_onnx: Path, command: tuple[str, ...]) -> None:
    name, *inputs = command
    assert answered(name, tiny_onnx, *inputs, "--isolated") == answered(name, tiny_onnx, *inputs)


def test_a_bundle_is_measured_in_a_confined_process(tiny_onnx: Path) -> None:
    (row,) = answered("bench", tiny_onnx, "--isolated", "--rounds", 1)["reports"][0]["rows"]
    assert row["latency_ms"]["median"] > 0
