"""The runtime's manifest reader against tests/golden/manifests.json."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeformer_runtime.bundle.manifest import parse
from edgeformer_runtime.errors import BundleError
from tests.golden.golden_files import FOLDER
from tests.golden.make_manifests import apply

CASES = json.loads((FOLDER / "manifests.json").read_text(encoding="utf-8"))["cases"]
TEXTS = {case["name"]: case["text"] for case in CASES if "text" in case}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_manifest(case: dict[str, Any]) -> None:
    text = apply(case, TEXTS)
    if case["error"] is None:
        manifest = parse(text)
        assert [program.name for program in manifest.programs] == case["facts"]["programs"]
        assert sorted(manifest.files) == case["facts"]["files"]
        return
    with pytest.raises(BundleError):
        parse(text)
