"""Answers that are places in a text are those of transformers' pipelines, place by place, on texts of many scripts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec, TextPreprocessing
from edgeformer_runtime.bundle.specs import TensorSpec
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines import open_pipeline
from edgeformer_runtime.pipelines.tokens import EntityFinder, QuestionAnswerer
from edgeformer_runtime.tasks.tokens import EntityOptions, SpanExtraction, SpanOptions, TokenLabels
from tests.runtime.pipelines import token_cases as cases
from tests.runtime.tiny_bundle import manifest, seal

NEAR = 1e-4


class FormulaEngine:
    """The formula of the recorded answers, as a model."""

    name = "formula"
    executed_by = "numpy"
    not_covered = None

    def __init__(self, width: int) -> None:
        self.width = width
        self.runs = 0

    def run(self, program: str, inputs: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        self.runs += 1
        return {"logits": cases.logits(inputs["input_ids"][0], self.width)[None]}

    def close(self) -> None:
        pass


def open_tokens(folder: Path, task: str, cased: bool, lengths: tuple[int, ...], head: Any) -> Any:
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"model")
    tokenizer = cases.tokenizer(cased)
    tokenizer.save(str(folder / "tokenizer.json"))
    width = 2 if task == "question-answering" else len(cases.LABELS)
    programs = tuple(
        ProgramSpec(
            f"seq_{length}",
            "model.bin",
            f"seq_{length}",
            tuple(TensorSpec(name, "int32", (1, length)) for name in ("input_ids", "attention_mask")),
            (TensorSpec("logits", "float32", (1, length, width)),),
        )
        for length in lengths
    )
    spec = TextPreprocessing("tokenizer.json", 0, tokenizer.get_vocab_size())
    seal(folder, replace(manifest(), task=task, programs=programs, preprocessing=spec, postprocessing=head))
    return open_pipeline(Bundle.open(folder), FormulaEngine(width))


def stride(length: int) -> int:
    return min(length // 2, 128)


def recorded(what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((cases.RECORDED / f"{what}.json").read_text())["cases"]
    return found


@pytest.mark.parametrize("case", recorded("spans"), ids=lambda case: f"{case['length']}-{case['cased']}")
def test_answers_are_transformers_own(case: dict[str, Any], tmp_path: Path) -> None:
    length = case["length"]
    pipeline: QuestionAnswerer = open_tokens(
        tmp_path / "b", "question-answering", case["cased"], (length,), SpanExtraction(stride(length), 15)
    )
    expected = iter(case["found"])
    for text in cases.texts_for(length):
        for question in cases.QUESTIONS:
            for way in cases.WAYS:
                unanswerable = way.get("handle_impossible_answer", False)
                options = SpanOptions(way["top_k"], unanswerable, way.get("max_answer_len"))
                # transformers fills up with spans of probability 0 where there are too few.
                wanted = [each for each in next(expected) if each[2] > 0]
                found = pipeline.run((question, text), options).answers
                assert [(each.start, each.end) for each in found] == [(each[0], each[1]) for each in wanted], text
                assert [each.score for each in found] == pytest.approx([each[2] for each in wanted], abs=NEAR)
                assert all(each.text == text[each.start : each.end] for each in found)


@pytest.mark.parametrize("case", recorded("entities"), ids=lambda case: f"{case['length']}-{case['cased']}")
def test_entities_are_transformers_own(case: dict[str, Any], tmp_path: Path) -> None:
    length = case["length"]
    head = TokenLabels(cases.LABELS, ("O",), "simple", stride(length))
    pipeline: EntityFinder = open_tokens(tmp_path / "b", "token-classification", case["cased"], (length,), head)
    expected = iter(case["found"])
    for text in cases.TEXTS[:-1]:
        for aggregation in cases.AGGREGATIONS:
            wanted = next(expected)
            found = pipeline.run(text, EntityOptions(aggregation)).entities
            if aggregation == "none":
                # transformers reads no windows here, and we do: what it read is the same.
                reach = pipeline.windows(text)[0].places.offsets[-2, 1]
                wanted, found = ([e for e in wanted if e[1] <= reach], [e for e in found if e.end <= reach])
            assert [(e.start, e.end, e.label) for e in found] == [(e[0], e[1], e[2]) for e in wanted], text
            assert [each.score for each in found] == pytest.approx([each[3] for each in wanted], abs=NEAR)


def test_a_short_text_goes_into_the_shortest_program(tmp_path: Path) -> None:
    pipeline = open_tokens(tmp_path / "b", "question-answering", False, (48, 384), SpanExtraction(128, 15))
    assert [each.program for each in pipeline.windows(("who?", "Basel"))] == ["seq_48"]
    whole = pipeline.windows(("who?", cases.TEXTS[-1]))
    assert {each.program for each in whole[:-1]} == {"seq_384"} and len(whole) > 10
    shared = whole[0].places.offsets[-129], whole[1].places.offsets[4]
    assert np.array_equal(*shared)


def test_what_cannot_be_asked_is_refused_in_a_line(tmp_path: Path) -> None:
    pipeline = open_tokens(tmp_path / "b", "question-answering", False, (48,), SpanExtraction(24, 15))
    for raw, message in (
        ("a text alone", "expected a question and its context"),
        ([1, 2, 3], "expected a question and its context"),
        (("", "context"), "expected a question, found an empty text"),
        (("who?", ""), "expected a context, found an empty text"),
        (("who " * 60, "Basel"), "tokens stand in every window"),
        (("who?", "a" * 200_001), "expected at most 200000"),
        (("who?", "half \ud83d"), "not valid Unicode"),
    ):
        with pytest.raises(InputError, match=message):
            pipeline.run(raw)
    with pytest.raises(InputError, match="expected 1 to 100 answers"):
        SpanOptions(top=0)
    with pytest.raises(InputError, match="unknown aggregation 'best'"):
        EntityOptions("best")
    finder = open_tokens(tmp_path / "c", "token-classification", False, (48,), TokenLabels(cases.LABELS, (), "max", 24))
    with pytest.raises(InputError, match="expected one text"):
        finder.run(("one", "two"))
    assert finder.run("").entities == ()


def test_a_context_of_spaces_has_no_answer(tmp_path: Path) -> None:
    pipeline = open_tokens(tmp_path / "b", "question-answering", False, (48,), SpanExtraction(24, 15))
    assert pipeline.run(("who?", " \t ")).answers == ()
    assert [each.text for each in pipeline.run(("who?", " "), SpanOptions(unanswerable=True)).answers] == [""]
