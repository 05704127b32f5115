"""Mutated model files: the readers take them or refuse them in one line; no hang, no other exception."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from mutations import MODEL_CHANGES

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import Manifest, ProgramSpec
from edgeformer_runtime.model_files import Broken

MUTATIONS = int(os.environ.get("EDGEFORMER_FUZZ", "1000")) // 2
"""Of each format; see test_fuzz_bundles.py."""

HANG_SECONDS = 5.0
CHANGES = (*MODEL_CHANGES["lies"], *MODEL_CHANGES["corrupted"])

Check = Callable[[bytes], object]


def fuzz(good: bytes, check: Check) -> Counter[str]:
    """How the checks of a file's mutations ended."""
    check(good)
    ends: Counter[str] = Counter()
    for seed in range(MUTATIONS):
        generator = random.Random(seed)
        files = {"model": good}
        for _ in range(generator.choice((1, 1, 2, 4))):
            generator.choice(CHANGES)(files, "model", generator)
        start = time.monotonic()
        try:
            check(files["model"])
            ends["taken"] += 1
        except Broken as error:
            assert "\n" not in str(error), f"seed {seed}"
            ends["refused"] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        assert time.monotonic() - start < HANG_SECONDS, f"seed {seed}"
    return ends


def opened(bundle: Path) -> tuple[Manifest, bytes, list[ProgramSpec]]:
    """The manifest, its first model file, and that file's programs."""
    with Bundle.open(bundle) as content:
        manifest = content.manifest
        file = manifest.programs[0].file
        return manifest, content.read_bytes(file), [each for each in manifest.programs if each.file == file]


def test_onnx(tiny_onnx: Path) -> None:
    from edgeformer_runtime.model_files.onnx_file import check_onnx

    manifest, good, programs = opened(tiny_onnx)
    sizes = {name: entry.size for name, entry in manifest.files.items()}
    ends = fuzz(good, lambda data: check_onnx(memoryview(data), sizes, programs))
    assert ends["refused"] > MUTATIONS / 2


@pytest.mark.litert
def test_litert(tiny_litert: Path) -> None:
    from edgeformer_runtime.model_files.litert_file import check_litert

    _, good, programs = opened(tiny_litert)
    ends = fuzz(good, lambda data: check_litert(memoryview(data), programs))
    assert ends["refused"] > MUTATIONS / 2


@pytest.mark.executorch
@pytest.mark.slow
def test_executorch(tiny_executorch: Path) -> None:
    from edgeformer_runtime.model_files.executorch_file import check_executorch

    _, good, programs = opened(tiny_executorch)
    ends = fuzz(good, lambda data: check_executorch(memoryview(data), programs))
    assert ends["refused"] > MUTATIONS / 2


@pytest.mark.coreml
def test_coreml() -> None:
    pytest.importorskip("coremltools")
    from model_files.test_coreml_file import FILES, ITEMS, MODEL_FILE, PROGRAM, WEIGHTS_FILE, make_model, make_weights

    from edgeformer_runtime.model_files.coreml_file import MANIFEST_FILE, check_coreml

    content = {
        MANIFEST_FILE: json.dumps({"itemInfoEntries": ITEMS}).encode(),
        MODEL_FILE: make_model().SerializeToString(),
        WEIGHTS_FILE: make_weights(),
    }

    def check(name: str, data: bytes) -> object:
        files = {**content, name: data}
        return check_coreml(FILES, lambda each: memoryview(files[each]), [PROGRAM])

    for name, data in content.items():
        ends = fuzz(data, lambda corrupted, name=name: check(name, corrupted))
        assert ends["refused"] > MUTATIONS / 4
