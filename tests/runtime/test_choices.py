"""What a wrong name is answered with."""

from __future__ import annotations

import pytest

from edgeformer_runtime.errors import InputError
from edgeformer_runtime.registry import check_choice, did_you_mean

TARGETS = ("litert", "coreml", "onnx")
ALIASES = {"tflite": ("litert",), "int8": ("dynamic-int8", "static-int8")}


@pytest.mark.parametrize(
    ("value", "question"),
    [
        ("LiteRT", "did you mean litert? "),
        ("lite-rt", "did you mean litert? "),
        ("tflite", "did you mean litert? "),
        ("TF-Lite", "did you mean litert? "),
        ("tflte", "did you mean litert? "),
        ("onix", "did you mean onnx? "),
        ("tpu", ""),
        ("", ""),
        ("int8", ""),  # an alias of what is no choice here
    ],
)
def test_what_was_meant(value: str, question: str) -> None:
    assert did_you_mean(value, TARGETS, ALIASES) == question


def test_the_message_asks_and_lists() -> None:
    check_choice("onnx", TARGETS, "target", ALIASES)
    with pytest.raises(InputError) as caught:
        check_choice("Onnx", TARGETS, "target", ALIASES)
    assert str(caught.value) == "unknown target 'Onnx': did you mean onnx? expected one of litert, coreml, onnx"
    with pytest.raises(InputError, match="did you mean dynamic-int8 or static-int8"):
        check_choice("int-8", ("fp32", "dynamic-int8", "static-int8"), "precision", ALIASES)
