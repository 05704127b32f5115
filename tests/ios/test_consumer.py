"""The Swift libraries as a package of another author has them, on Linux: a real model through ONNX Runtime."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny_bundle import make_onnx

from edgeformer_runtime import load
from ios_demo.tools.check import CONSUMER_PROGRAM, REPOSITORY, build_consumer
from ios_demo.tools.swift_root import SwiftRoot, open_root
from tools.debian import SetupError

pytestmark = [pytest.mark.ios, pytest.mark.slow]

TEXT = "turn the lights off"


@pytest.fixture(scope="module")
def root() -> SwiftRoot:
    """The root with the consumer, which `make ios` has built."""
    try:
        root = open_root(REPOSITORY)
    except SetupError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    if not (root.folder / CONSUMER_PROGRAM.removeprefix("/")).is_file():
        assert build_consumer(root) == ""
    return root


@pytest.fixture
def place(root: SwiftRoot) -> Iterator[Path]:
    """A folder in the root's /tmp."""
    folder = root.folder / "tmp" / f"consumer-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("any_length", [False, True])
def test_it_answers_as_the_python_runtime(root: SwiftRoot, place: Path, any_length: bool) -> None:
    bundle = make_onnx(place / "tiny.onnx.fp32", any_length=any_length)
    found = importlib.util.find_spec("onnxruntime")
    assert found is not None and found.origin is not None
    (library,) = (Path(found.origin).parent / "capi").glob("libonnxruntime.so.*")
    shutil.copy(library, place)
    inside = f"/tmp/{place.name}"
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


def test_a_missing_library_is_named(root: SwiftRoot, place: Path) -> None:
    bundle = make_onnx(place / "tiny.onnx.fp32")
    command = [CONSUMER_PROGRAM, f"/tmp/{place.name}/{bundle.name}", TEXT, "/tmp/none.so"]
    said = root.run(command, stdout=subprocess.PIPE)
    assert said.returncode != 0
    assert "ONNX Runtime cannot be loaded: /tmp/none.so" in said.stdout
