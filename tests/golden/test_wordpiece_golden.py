"""The runtime's text preprocessing against tests/golden/wordpiece.json."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeformer_runtime.bundle.manifest import ProgramSpec, TensorSpec, TextPreprocessing
from edgeformer_runtime.preprocess.text import TextEncoder
from tests.golden.golden_files import FOLDER

GOLDEN = json.loads((FOLDER / "wordpiece.json").read_text(encoding="utf-8"))
NAMES = ("input_ids", "attention_mask", "token_type_ids")


@pytest.mark.parametrize("name", GOLDEN["tokenizers"])
def test_ids_and_types(name: str) -> None:
    encoders: dict[int, TextEncoder] = {}
    for case in (case for case in GOLDEN["cases"] if case["tokenizer"] == name):
        size = case["max"]
        if size not in encoders:
            encoders[size] = _encoder(GOLDEN["tokenizers"][name], size)
        _check(encoders[size], case)


def _encoder(text: str, size: int) -> TextEncoder:
    if not text.startswith("{"):
        text = (FOLDER.parents[1] / text).read_text(encoding="utf-8")
    inputs = tuple(TensorSpec(name, "int32", (1, size)) for name in NAMES)
    return TextEncoder(TextPreprocessing("tokenizer.json", 0), text, [ProgramSpec("all", "m", "main", inputs, ())])


def _check(encoder: TextEncoder, case: dict[str, Any]) -> None:
    found = encoder.encode(case["text"] if case["pair"] is None else (case["text"], case["pair"]))
    count = len(case["ids"])
    assert found.inputs["input_ids"][0, :count].tolist() == case["ids"]
    assert found.inputs["token_type_ids"][0, :count].tolist() == case["types"]
    assert found.inputs["attention_mask"].sum() == count
    assert found.truncated == case["truncated"]
