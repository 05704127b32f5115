"""Small bundles of every target, valid ones and ones with the mask that breaks devices; each made once per run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeformer.attention import kernels
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer_runtime.bundle.manifest import MANIFEST_NAME, parse
from tests.checkpoint_factory import save_mobilebert
from tests.conftest import MakeOnce
from tests.runtime.tiny_bundle import seal

TARGETS = ("litert", "onnx", "executorch", "coreml")
NAME = "tiny"
HUGE_MASK = -1e9

Corrupt = Callable[[Path], None]


def convert_to_all(source: Path, out: Path) -> None:
    options = ConvertOptions(str(source), out, targets=TARGETS, precisions=("fp32",), seq_lens=(16,), name=NAME)
    rows = convert(options)
    assert all(row.ok for row in rows), [row.problems for row in rows]


def by_target(folder: Path) -> dict[str, Path]:
    return {target: folder / f"{NAME}.{target}.fp32" for target in TARGETS}


@pytest.fixture(scope="session")
def checkpoint(make_once: MakeOnce) -> Path:
    labels = ("lights", "weather", "greeting")
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}
    folder = make_once(
        "doctor-source",
        lambda folder: save_mobilebert(folder / NAME, normalization_type="layer_norm", num_hidden_layers=1, **names),
    )
    return folder / NAME


@pytest.fixture(scope="session")
def bundles(checkpoint: Path, make_once: MakeOnce) -> dict[str, Path]:
    """A bundle at fp32 by target."""
    return by_target(make_once("doctor-bundles", lambda folder: convert_to_all(checkpoint, folder)))


@pytest.fixture(scope="session")
def masked(checkpoint: Path, make_once: MakeOnce) -> dict[str, Path]:
    """The same, but hidden positions get -1e9 added to their scores, as the public implementations do it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "MASK_VALUE", HUGE_MASK)
        return by_target(make_once("doctor-masked", lambda folder: convert_to_all(checkpoint, folder)))


@pytest.fixture
def corrupted(tmp_path: Path) -> Callable[[Path, Corrupt], Path]:
    """Copies a bundle, lets a function change the copy's files, and makes the manifest's hashes agree again."""

    def corrupt(source: Path, change: Corrupt) -> Path:
        folder = tmp_path / source.name
        shutil.copytree(source, folder)
        change(folder)
        seal(folder, parse((folder / MANIFEST_NAME).read_bytes()))
        return folder

    return corrupt


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest's JSON."""
    path = folder / MANIFEST_NAME
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
