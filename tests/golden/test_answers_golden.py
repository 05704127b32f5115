"""The runtime's heads and its tokens as text against heads.json and byte_level.json."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from edgeformer_runtime.bundle.manifest import Classification
from edgeformer_runtime.decoding.tokenizer import SpeechTokenizer
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.pipelines.results import classify, zero_shot
from edgeformer_runtime.tasks.programs import ZeroShotOptions
from tests.golden.golden_files import FOLDER

HEADS = json.loads((FOLDER / "heads.json").read_text(encoding="utf-8"))["cases"]
ZERO_SHOT = json.loads((FOLDER / "zero_shot.json").read_text(encoding="utf-8"))["cases"]
BYTE_LEVEL = json.loads((FOLDER / "byte_level.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", HEADS, ids=range(len(HEADS)))
def test_scores(case: dict[str, Any]) -> None:
    logits = np.array([[float(value) for value in case["logits"]]], np.float32)
    labels = tuple(map(str, range(logits.shape[1])))
    head = Classification(labels, case["activation"])
    if case["error"] is not None:
        with pytest.raises(EngineError):
            classify({"logits": logits}, head)
        return
    found = classify({"logits": logits}, head)
    assert [int(label) for label in found.labels] == case["order"]
    assert found.scores == pytest.approx(case["scores"], abs=1e-9)


@pytest.mark.parametrize("case", ZERO_SHOT, ids=range(len(ZERO_SHOT)))
def test_labels_of_a_call(case: dict[str, Any]) -> None:
    logits = np.array(case["logits"], np.float32).astype(np.float64)
    head = Classification(tuple(case["labels"]), "softmax")
    options = ZeroShotOptions(tuple(map(str, range(len(logits)))), multi_label=case["multi_label"])
    found = zero_shot(logits, head, options)
    assert [int(label) for label in found.labels] == case["order"]
    assert found.scores == pytest.approx(case["scores"], abs=1e-6)  # of float32 logits


def test_text_of_tokens() -> None:
    tokenizer = SpeechTokenizer(BYTE_LEVEL["tokenizer"], BYTE_LEVEL["end"])
    for case in BYTE_LEVEL["cases"]:
        assert tokenizer.text(case["ids"]) == case["text"]
