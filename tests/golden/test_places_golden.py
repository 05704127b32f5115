"""The runtime's places of tokens and answers against tests/golden/places.json."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgeformer_runtime.bundle.manifest import ProgramSpec, TensorSpec, TextPreprocessing
from edgeformer_runtime.preprocess.text import TextEncoder
from edgeformer_runtime.tasks.programs import ZeroShotOptions
from edgeformer_runtime.tasks.tokens import EntityOptions, FillOptions, SpanOptions
from tests.golden.golden_files import FOLDER
from tests.golden.tiny_bundles import ENTITIES, FILLS, INFERENCE, SPANS, formula_pipeline

GOLDEN = json.loads((FOLDER / "places.json").read_text(encoding="utf-8"))
WORDS = json.loads((FOLDER / "wordpiece.json").read_text(encoding="utf-8"))


def cases(kind: str) -> list[dict[str, Any]]:
    return [case for case in GOLDEN["cases"] if case["kind"] == kind]


def test_places_of_tokens() -> None:
    encoders: dict[str, TextEncoder] = {}
    program = ProgramSpec("all", "m", "main", (TensorSpec("input_ids", "int32", (1, 4096)),), ())
    for case in cases("tokens"):
        of = WORDS["cases"][case["of"]]
        name = of["tokenizer"]
        if name not in encoders:
            spec = TextPreprocessing("tokenizer.json", 0)
            encoders[name] = TextEncoder(spec, WORDS["tokenizers"][name], [program], windowed=True)
        (window,) = encoders[name].windows(of["text"], of["pair"], 0)
        places = window.places
        assert places is not None
        assert places.offsets[:, 0].tolist() == case["starts"]
        assert places.offsets[:, 1].tolist() == case["ends"]
        assert places.texts.tolist() == case["texts"]
        assert places.continues.astype(int).tolist() == case["continues"]
        keys = list(zip(places.texts.tolist(), places.words.tolist(), strict=True))
        assert [int(index == 0 or keys[index - 1] != key) for index, key in enumerate(keys)] == case["begins"]


def test_answers() -> None:
    pipeline = formula_pipeline(FOLDER / SPANS)
    for case in cases("spans"):
        raw = case["question"], case["context"]
        assert [window.program for window in pipeline.windows(raw)] == case["windows"]
        found = pipeline.run(raw, SpanOptions(case["top"], case["unanswerable"], case["max_answer_tokens"])).answers
        assert [(each.start, each.end) for each in found] == [(start, end) for start, end, _ in case["answers"]]
        assert [each.score for each in found] == pytest.approx([score for *_, score in case["answers"]], abs=1e-8)


def test_entities() -> None:
    pipeline = formula_pipeline(FOLDER / ENTITIES)
    for case in cases("entities"):
        found = pipeline.run(case["text"], EntityOptions(case["aggregation"])).entities
        assert [[each.start, each.end, each.label] for each in found] == [each[:3] for each in case["entities"]]
        assert [each.score for each in found] == pytest.approx([each[3] for each in case["entities"]], abs=1e-8)


def test_fills() -> None:
    pipeline = formula_pipeline(FOLDER / FILLS)
    for case in cases("fills"):
        targets = None if case["targets"] is None else tuple(case["targets"])
        found = pipeline.run(case["text"], FillOptions(case["top"], targets))
        assert found.truncated == case["truncated"]
        assert [[each.token, each.text, each.mask] for each in found.fills] == [each[:3] for each in case["fills"]]
        assert [each.score for each in found.fills] == pytest.approx([each[3] for each in case["fills"]], abs=1e-8)


def test_labels_of_a_call() -> None:
    pipeline = formula_pipeline(FOLDER / INFERENCE)
    for case in cases("labels"):
        found = pipeline.run(
            case["text"], ZeroShotOptions(tuple(case["labels"]), case["template"], case["multi_label"])
        )
        assert found.truncated == case["truncated"]
        assert list(found.labels) == [label for label, _ in case["found"]]
        assert found.scores == pytest.approx([score for _, score in case["found"]], abs=1e-8)
