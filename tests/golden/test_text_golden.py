"""The runtime's text preprocessing and the zoo's answers against tests/golden/text.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from edgeformer.attention import KERNELS
from edgeformer.checkpoints.checkpoint import load_module, open_checkpoint
from edgeformer.checkpoints.source_index import TorchEngine
from edgeformer.models.family import ProgramOptions
from edgeformer.tasks.text import CLASSIFICATION
from edgeformer_runtime.preprocess.text import TextEncoder

GOLDEN = json.loads((Path(__file__).parent / "text.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def reference() -> tuple[TextEncoder, TorchEngine, tuple[str, ...]]:
    checkpoint = open_checkpoint(Path(GOLDEN["model"]).name)
    module, _ = load_module(checkpoint, KERNELS["dense"])
    programs = checkpoint.family.programs(module, checkpoint.config, ProgramOptions(seq_lens=(GOLDEN["seq_len"],)))
    spec = CLASSIFICATION.spec(checkpoint, programs, ProgramOptions())
    return (
        TextEncoder(spec.preprocessing, checkpoint.tokenizer_json, programs),
        TorchEngine(programs),
        checkpoint.labels,
    )


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: repr(case["text"][:20]))
def test_ids_and_scores_equal_the_reference(
    case: dict[str, Any], reference: tuple[TextEncoder, TorchEngine, tuple[str, ...]]
) -> None:
    encoder, engine, labels = reference
    encoded = encoder.encode(case["text"] if case["pair"] is None else (case["text"], case["pair"]))
    count = len(case["input_ids"])
    assert encoded.inputs["input_ids"][0, :count].tolist() == case["input_ids"]
    assert encoded.inputs["token_type_ids"][0, :count].tolist() == case["token_type_ids"]
    assert encoded.inputs["attention_mask"][0].tolist() == [1] * count + [0] * (GOLDEN["seq_len"] - count)
    logits = engine.run(encoded.program, encoded.inputs)["logits"][0]
    scores = dict(zip(labels, torch.from_numpy(logits).softmax(-1).tolist(), strict=True))
    assert [scores[label] for label in case["labels"]] == pytest.approx(case["scores"], abs=1e-4)
