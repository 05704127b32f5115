"""Model files that break a rule are refused, and sound ones are not: as Kotlin and Swift read them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import FileEntry, ProgramSpec
from edgeformer_runtime.bundle.signature import SignatureState
from edgeformer_runtime.bundle.specs import TensorSpec
from edgeformer_runtime.errors import BundleError
from edgeformer_runtime.model_files import check_model_files
from tests.golden import tiny_manifests as tiny
from tests.golden.golden_files import FOLDER

CASES = json.loads((FOLDER / "hostile_models.json").read_text(encoding="utf-8"))["cases"]


def _bundle(case: dict[str, Any], folder: Path) -> Bundle:
    """A bundle of the case's files, as if it had been opened: its manifest is no classifier's."""
    for name, data in case["files"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(base64.b64decode(data))
    stated = case["program"]
    tensors = [(TensorSpec(name, "float32", tuple(stated[name])),) for name in "xy"]
    manifest = tiny.text()
    values = {
        "target": case["target"],
        "programs": (ProgramSpec("main", stated["file"], stated["entry"], *tensors),),
        "operators": case["operators"],
        "files": {name: FileEntry("0" * 64, (folder / name).stat().st_size) for name in case["files"]},
    }
    for key, value in values.items():
        object.__setattr__(manifest, key, value)
    return Bundle(folder, manifest, SignatureState(False, None))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_model_file(case: dict[str, Any], tmp_path: Path) -> None:
    bundle = _bundle(case, tmp_path)
    if case["error"] is None:
        check_model_files(bundle)
        return
    with pytest.raises(BundleError) as error:
        check_model_files(bundle)
    assert "\n" not in str(error.value)
