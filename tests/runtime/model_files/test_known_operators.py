"""BUNDLE.md lists the operators that readers know, and the readers know those."""

from __future__ import annotations

import re
from importlib import resources

from edgeformer_runtime.model_files.coreml_file import OPERATORS
from edgeformer_runtime.model_files.executorch_operators import kernels
from edgeformer_runtime.model_files.litert_file import NAMES, OPTIONS
from edgeformer_runtime.model_files.litert_shapes import RULES as LITERT
from edgeformer_runtime.model_files.onnx_shapes import RULES as ONNX

KNOWN = {
    "litert": set(LITERT),
    "onnx": {*ONNX, "Constant"},
    "executorch": {*kernels(), "XnnpackBackend"},
    "coreml": set(OPERATORS),
}


def test_bundle_md_lists_them() -> None:
    text = resources.files("edgeformer_runtime").joinpath("BUNDLE.md").read_text(encoding="utf-8")
    table = text.partition("### Known operators")[2]
    for target, known in KNOWN.items():
        row = re.search(rf"^\| `{target}` \| (.*) \|$", table, re.MULTILINE)
        assert row is not None
        assert set(row[1].split(", ")) == known


def test_every_operator_of_litert_has_its_number() -> None:
    assert set(NAMES.values()) == set(LITERT)
    assert set(OPTIONS) <= set(LITERT)
