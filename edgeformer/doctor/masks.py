"""Check: what is added to attention scores to hide positions stays far inside float16."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from edgeformer.doctor.examination import Examination
from edgeformer.doctor.finding import Finding, Severity, fine
from edgeformer.doctor.model_view import Node, Program, Value
from edgeformer.doctor.operator_names import ELEMENTWISE, LAYOUT, SOFTMAX, plain_name

CHECK = "mask"
LARGEST_HALF = float(np.finfo(np.float16).max)

ATTENTION = {"scaleddotproductattention", "attention", "multiheadattention"}
# What a mask passes on its way from a constant to the softmax: it is scaled, combined, cast and laid out.
PASSES_MASKS = {
    *ELEMENTWISE, *LAYOUT, "transpose", "permute", "expand", "broadcastto", "tile", "cast", "convert", "dequantize",
    "dequantizelinear", "slice", "stridedslice", "slicebyindex", "concat", "concatenation", "todimorder", "maskedfill",
    "gather", "pack", "stack", "constantpad", "pad",
}  # fmt: skip


def check_masks(examination: Examination) -> Iterable[Finding]:
    """Constants beyond float16 among what is added to attention scores."""
    worst: dict[float, tuple[str, str]] = {}
    softmaxes = 0
    for program in examination.view.programs:
        softmaxes += sum(plain_name(node.operator) in SOFTMAX | ATTENTION for node in program.nodes)
        for label, number in _extremes(program):
            worst.setdefault(number, (program.name, label))
    if not worst:
        return [fine(CHECK, f"no constant beyond float16 on the way to {softmaxes} softmaxes")]
    number = max(worst, key=abs)
    precise = examination.bundle.manifest.precision == "fp32"
    return [
        Finding(
            CHECK,
            Severity.WARNING if precise else Severity.ERROR,
            f"{worst[number][0]}: the constant {worst[number][1]} is {number:g} and is added to attention scores",
            f"float16 ends at {LARGEST_HALF:.0f}: there it is minus infinity, a row of padding becomes NaN, and int8"
            " spends its range on it",
            "mask with -1000: it hides as well for scores up to 900 apart",
        )
    ]


def _extremes(program: Program) -> Iterator[tuple[str, float]]:
    """The floating-point constants beyond float16 that reach a softmax without a product of matrices between."""
    for key in _masks(program):
        value = program.values[key]
        number = _furthest(value)
        if number is not None and not abs(number) <= LARGEST_HALF:
            yield value.label, number


def _masks(program: Program) -> set[str]:
    """Keys of the constants that reach a softmax."""
    found: set[str] = set()
    seen: set[str] = set()
    wanted = [key for node in program.nodes for key in _score_operands(node)]
    while wanted:
        key = wanted.pop()
        if key in seen or key not in program.values:
            continue
        seen.add(key)
        if program.values[key].constant is not None:
            found.add(key)
        elif key in program.producers and plain_name(program.producers[key].operator) in PASSES_MASKS:
            wanted += program.producers[key].inputs
    return found


def _score_operands(node: Node) -> tuple[str, ...]:
    """What a softmax reads; of a whole attention the operands behind query, key and value."""
    plain = plain_name(node.operator)
    if plain in SOFTMAX:
        return node.inputs[:1]
    return node.inputs[3:] if plain in ATTENTION else ()


def _furthest(value: Value) -> float | None:
    """The constant's number that is furthest from zero; None: it is no floating-point constant."""
    assert value.constant is not None
    numbers = value.constant()
    if numbers.dtype.kind != "f" or not numbers.size:
        return None
    return float(numbers.ravel()[np.argmax(np.abs(numbers))])
