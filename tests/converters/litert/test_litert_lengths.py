"""Programs that are alike: two are traced, and the others' graphs answer as torch does, or all are traced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_text import SmallTextClassifier, reference, text_inputs, text_programs
from torch import Tensor, nn

from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer.models.family import Program
from edgeformer_converters.litert import converter
from edgeformer_converters.litert.converter import LiteRTConverter, to_trace
from edgeformer_runtime import load
from edgeformer_runtime.bundle.manifest import TensorSpec
from tests.checkpoint_factory import save_mobilebert

LENGTHS = (8, 16, 24, 32)


class Longer(nn.Module):
    """Says something else about the longest texts, so that their graph is not the others'."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor]:
        """As the inner one."""
        (logits,) = self.inner(input_ids, attention_mask, token_type_ids)
        return (torch.tanh(logits) if input_ids.shape[1] == LENGTHS[-1] else logits,)


def alike_programs(module: nn.Module) -> tuple[Program, ...]:
    return tuple(replace(program, alike="seq") for program in text_programs(module, LENGTHS))


def test_only_the_two_longest_are_traced() -> None:
    programs = alike_programs(SmallTextClassifier())
    assert to_trace(programs) == programs[-2:]
    assert to_trace(programs[:2]) == programs[:2]
    fixed = text_programs(SmallTextClassifier(), LENGTHS)
    assert to_trace(fixed) == fixed


def test_of_two_sizes_both_have_to_differ() -> None:
    """As in a speech decoder: the slots of its cache are as many for the shortest lengths, and for the longest."""
    sizes = {"a": (128, 100), "b": (128, 200), "c": (160, 300), "d": (192, 400), "e": (192, 500)}
    programs = tuple(
        Program(
            name,
            nn.Identity(),
            (TensorSpec("mask", "float32", (slots,)), TensorSpec("keys", "float32", (64 * positions,))),
            (),
            alike="step",
        )
        for name, (slots, positions) in sizes.items()
    )
    assert [program.name for program in to_trace(programs)] == ["c", "e"]
    assert to_trace(programs[:2]) == programs[:2]
    assert to_trace((*programs[:2], programs[-1])) == programs[1:2] + programs[-1:]


@pytest.mark.slow
@pytest.mark.parametrize(("wrapped", "traced"), [(False, [2]), (True, [2, 4])])
def test_every_length_answers_as_torch_does(
    wrapped: bool, traced: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai_edge_litert.interpreter import Interpreter

    counted = []
    export = converter._export

    def count(programs: Sequence[Program], path: Path) -> None:
        counted.append(len(programs))
        export(programs, path)

    monkeypatch.setattr(converter, "_export", count)
    torch.manual_seed(0)
    inner = SmallTextClassifier().eval()
    programs = alike_programs(Longer(inner).eval() if wrapped else inner)
    lowered = LiteRTConverter().lower_fp32(programs, tmp_path)
    assert counted == traced
    interpreter = Interpreter(str(tmp_path / "model.tflite"), num_threads=1)
    assert list(interpreter.get_signature_list()) == [program.name for program in programs] == list(lowered.entries)
    for program in programs:
        inputs = text_inputs(program, seed=program.inputs[0].shape[1])
        (found,) = interpreter.get_signature_runner(program.name)(**inputs).values()
        assert np.abs(found - reference(program, inputs)).max() < 1e-6


@pytest.mark.slow
def test_a_list_is_answered_in_rows_as_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save_mobilebert(tmp_path / "small")
    options = ConvertOptions(str(source), tmp_path / "out", ("litert",), seq_lens=(8, 32))
    texts = ["turn the lights off", "hello", "the lights", "", "on", "what is the weather", "hello hello"] * 3
    for row in convert(options):
        assert row.ok, row.problems
        with load(row.path) as pipeline:
            runs: list[str] = []
            run = pipeline.engine.run

            def counted(name: str, inputs: Any, run: Any = run, runs: list[str] = runs) -> Any:
                runs.append(name)
                return run(name, inputs)

            monkeypatch.setattr(pipeline.engine, "run", counted)
            together = pipeline(texts)
            assert runs.count("packed") > 1
            for text, found in zip(texts, together, strict=True):
                alone = pipeline.run(text)
                assert found.labels == alone.labels
                assert found.scores == pytest.approx(alone.scores, abs=1e-5)
    with load(row.path, isolated=True) as isolated:
        assert [each.scores for each in isolated(texts)] == [found.scores for found in together]
