"""Many texts at once: rows of several answer as one run for each does, in the order of the texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.manifest import ProgramSpec, TensorSpec
from edgeformer_runtime.cli.run import RunOptions
from edgeformer_runtime.cli.text_files import Columns, answer_lines, read_texts
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.pipelines import open_program_pipeline
from edgeformer_runtime.pipelines.program import Prepared, ProgramPipeline, row_inputs, rows_of
from tests.runtime.tiny_bundle import LABELS, SEQ_LENS, TABLE, TinyEngine, make_without_model, manifest, seal

LENGTH, COUNT = SEQ_LENS[-1], 4
NEAR = 1e-6
TEXTS = ["turn the lights off!", "", "hello", "the lights", "hello " * 40, "on", "off the lights", "turn on!", "hello"]


class PackingEngine(TinyEngine):
    """The reference for rows, too."""

    def __init__(self, embeds: bool = False, poison: str | None = None) -> None:
        super().__init__(embeds)
        self.programs = {"packed": None}
        self.width = TABLE.shape[1] if embeds else len(LABELS)
        self.runs: list[str] = []
        self.poison = poison

    def run(self, program: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self.runs.append(program)
        if program != "packed":
            return super().run(program, inputs)
        if self.poison == "engine":
            raise EngineError("broken")
        rows = []
        for mask in inputs["texts"][0]:
            (where,) = mask.nonzero()
            assert inputs["position_ids"][0, where].tolist() == list(range(len(where)))
            ids = inputs["input_ids"][:, where]
            alone = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            rows.append(super().run(program, alone)["output"] if len(where) else np.zeros((1, self.width), np.float32))
        output = np.concatenate(rows)
        return {"output": np.full_like(output, np.nan) if self.poison == "nan" else output}


def packed(width: int) -> ProgramSpec:
    row = tuple(TensorSpec(name, "int32", (1, LENGTH)) for name in ("input_ids", "position_ids"))
    texts = TensorSpec("texts", "float32", (1, COUNT, LENGTH))
    return ProgramSpec(
        "packed", "model.bin", "packed", (*row, texts), (TensorSpec("output", "float32", (COUNT, width)),)
    )


def make(folder: Path, task: str = "text-classification") -> Path:
    make_without_model(folder, task)
    width = len(LABELS) if task == "text-classification" else TABLE.shape[1]
    seal(folder, replace(manifest(task=task), packed=packed(width)))
    return folder


def open_packed(folder: Path, engine: Any, task: str = "text-classification") -> ProgramPipeline[Any, Any]:
    return open_program_pipeline(Bundle.open(make(folder, task)), engine)


def test_labels_are_those_of_one_by_one(tmp_path: Path) -> None:
    engine = PackingEngine()
    pipeline = open_packed(tmp_path / "bundle", engine)
    together = pipeline(TEXTS)
    shared = engine.runs.count("packed")
    assert shared
    assert len(engine.runs) < len(TEXTS)
    for text, found in zip(TEXTS, together, strict=True):
        alone = pipeline.run(text)
        assert found.labels == alone.labels
        assert found.scores == pytest.approx(alone.scores, abs=NEAR)
        assert found.truncated == alone.truncated
        assert found.statistics is not None


def test_embeddings_of_texts_pairs_and_ids_are_those_of_one_by_one(tmp_path: Path) -> None:
    engine = PackingEngine(embeds=True)
    pipeline = open_packed(tmp_path / "bundle", engine, "text-embedding")
    raws = [*TEXTS, ("hello", "turn the lights on"), [2, 9, 3]] * 3
    together = pipeline(raws)
    assert engine.runs.count("packed") > 1
    for raw, found in zip(raws, together, strict=True):
        assert np.abs(found.vector - pipeline.run(raw).vector).max() < NEAR


def test_few_texts_run_alone(tmp_path: Path) -> None:
    engine = PackingEngine()
    open_packed(tmp_path / "bundle", engine)(["hello"])
    assert engine.runs == [f"seq_{SEQ_LENS[0]}"]


def test_an_engine_without_the_program_runs_texts_alone(tmp_path: Path) -> None:
    together = open_packed(tmp_path / "bundle", TinyEngine())(TEXTS)
    assert len(together) == len(TEXTS)


def test_the_first_wrong_input_is_named(tmp_path: Path) -> None:
    pipeline = open_packed(tmp_path / "bundle", PackingEngine())
    with pytest.raises(InputError, match=r"^input 9 of 11: token id 99 is out of range"):
        pipeline([*TEXTS, [2, 99], [3, 98]])


@pytest.mark.parametrize("poison", ["nan", "engine"])
def test_texts_of_a_row_that_fails_run_alone(tmp_path: Path, poison: str) -> None:
    pipeline = open_packed(tmp_path / "bundle", PackingEngine(poison=poison))
    assert [each.labels for each in pipeline(TEXTS)] == [pipeline.run(text).labels for text in TEXTS]


def test_rows_are_full_and_every_text_is_in_one_at_most() -> None:
    def window(tokens: int) -> Prepared:
        bucket = next(length for length in SEQ_LENS if length >= tokens)
        mask = np.zeros((1, bucket), np.int32)
        mask[0, :tokens] = 1
        return Prepared(f"seq_{bucket}", {"input_ids": mask * 7, "attention_mask": mask}, truncated=False)

    windows = [window(tokens) for tokens in (8, 3, 16, 5, 8, 2, 2, 2, 7, 9)]
    rows = list(rows_of(windows, packed(3)))
    texts = [number for row in rows for number in row.texts]
    assert len(texts) == len(set(texts))
    for row in rows:
        inputs = row_inputs(row, windows, packed(3))
        used = inputs["texts"][0].sum(axis=0)
        assert used.max() == 1
        assert used.sum() <= LENGTH
        assert ((inputs["input_ids"][0] == 7) == (used == 1)).all()
        assert len(row.texts) <= COUNT


def test_lines_of_a_file_keep_their_order_and_their_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "texts.jsonl"
    lines = [json.dumps(text) for text in TEXTS]
    file.write_text("\n".join([*lines[:3], "[3]", *lines[3:]]) + "\n", encoding="utf-8")
    engine = PackingEngine()
    pipeline = open_packed(tmp_path / "bundle", engine)
    with pytest.raises(InputError, match="1 of 10 lines could not be answered, first line 4"):
        answer_lines(pipeline, read_texts(file, Columns()), RunOptions(file=str(file), top=1))
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["line"] for each in shown] == list(range(1, len(TEXTS) + 2))
    assert "error" in shown[3]
    assert [each["input"] for each in shown if "input" in each] == TEXTS
    assert "packed" in engine.runs
