"""The Swift libraries as a package of another author has them, on Linux: a real model through ONNX Runtime."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeformer_runtime import load
from ios_demo.tools.check import CONSUMER_PROGRAM, build_consumer
from ios_demo.tools.swift_root import SwiftRoot
from tests.runtime.tiny_bundle import make_onnx

pytestmark = [pytest.mark.ios, pytest.mark.slow]

TEXT = "turn the lights off"


@pytest.fixture(scope="module")
def root(swift_root: SwiftRoot) -> SwiftRoot:
    """The root with the consumer, which `make ios` has built."""
    if not (swift_root.folder / CONSUMER_PROGRAM.removeprefix("/")).is_file():
        assert build_consumer(swift_root) == ""
    return swift_root


@pytest.mark.parametrize("any_length", [False, True])
def test_it_answers_as_the_python_runtime(root: SwiftRoot, scratch: Path, any_length: bool) -> None:
    bundle = make_onnx(scratch / "tiny.onnx.fp32", any_length=any_length)
    found = importlib.util.find_spec("onnxruntime")
    assert found is not None and found.origin is not None
    (library,) = (Path(found.origin).parent / "capi").glob("libonnxruntime.so.*")
    shutil.copy(library, scratch)
    inside = f"/tmp/{scratch.name}"
    command = [CONSUMER_PROGRAM, f"{inside}/{bundle.name}", TEXT, f"{inside}/{library.name}"]
    said = root.run(command, stdout=subprocess.PIPE)
    assert said.returncode == 0, said.stdout
    answer, executed_by = said.stdout.splitlines()
    label, score, verified = answer.split()
    with load(bundle) as model:
        expected = model(TEXT)
    assert (label, verified) == (expected.label, "true")
    assert float(score) == pytest.approx(expected.score, abs=1e-6)
    assert executed_by.startswith("onnxruntime 1.")


def test_a_missing_library_is_named(root: SwiftRoot, scratch: Path) -> None:
    bundle = make_onnx(scratch / "tiny.onnx.fp32")
    command = [CONSUMER_PROGRAM, f"/tmp/{scratch.name}/{bundle.name}", TEXT, "/tmp/none.so"]
    said = root.run(command, stdout=subprocess.PIPE)
    assert said.returncode != 0
    assert "ONNX Runtime cannot be loaded: /tmp/none.so" in said.stdout
