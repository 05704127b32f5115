"""What converters refuse early, and the sentences they refuse it with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_text import SmallTextClassifier, text_programs

from edgeformer.convert.target import PRECISIONS, TARGETS
from edgeformer.models.family import Program
from edgeformer_converters.checks import common_problems

FP32 = PRECISIONS["fp32"]


def problems(programs: tuple[Program, ...], precision: str = "fp32", modules: tuple[str, ...] = ()) -> list[str]:
    known = PRECISIONS.get(precision, replace(FP32, name=precision))
    return common_problems(TARGETS["litert"], ("fp32", "fp16"), modules, programs, known)


def test_a_good_program_has_no_problem(programs: tuple[Program, ...]) -> None:
    assert problems(programs) == []


def test_unknown_precision_lists_the_valid_ones(programs: tuple[Program, ...]) -> None:
    assert problems(programs, "int3") == ["litert has no precision 'int3': expected one of fp32, fp16"]


def test_missing_tool_names_the_extra(programs: tuple[Program, ...]) -> None:
    (problem,) = problems(programs, modules=("no_such_tool",))
    assert problem == 'litert needs no_such_tool, not installed here: run `pip install "edgeformer[litert]"`'


def test_unsupported_dtype_lists_the_valid_ones(programs: tuple[Program, ...]) -> None:
    first = programs[0]
    wrong = replace(first, inputs=(replace(first.inputs[0], dtype="int64"), *first.inputs[1:]))
    assert problems((wrong,)) == [
        "litert passes no int64 (classify_16.input_ids): expected one of float32, int32",
    ]


def test_two_programs_of_one_name(programs: tuple[Program, ...]) -> None:
    assert problems((programs[0], programs[0])) == ["two programs are named 'classify_16': names must differ"]


def test_no_program() -> None:
    assert problems(()) == ["litert needs at least one program, found none"]


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (torch.zeros(32, 64).T, "is not contiguous"),
        (torch.zeros(64, 32, dtype=torch.float16), "is float16"),
        (torch.full((64, 32), torch.nan), "holds NaN or infinity"),
    ],
)
def test_a_parameter_that_would_be_exported_wrongly(weight: torch.Tensor, words: str) -> None:
    module = SmallTextClassifier().eval()
    module.tokens.weight = torch.nn.Parameter(weight)
    (problem,) = problems(text_programs(module, (16, 32)))
    assert problem.startswith(f"parameter tokens.weight {words}")


def test_a_weight_beyond_float16_is_refused_in_half_precision_only() -> None:
    module = SmallTextClassifier().eval()
    with torch.no_grad():
        module.up.bias[3] = 70_000.0
    programs = text_programs(module, (16,))
    assert problems(programs) == []
    assert problems(programs, "fp16") == [
        "parameter up.bias holds values beyond float16's 65504: choose another precision"
    ]
