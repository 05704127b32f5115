"""Check: what is added to attention scores to hide positions stays far inside float16."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from edgeformer.doctor.examination import Examination
from edgeformer.doctor.examiner import (
    ELEMENTWISE,
    LAYOUT,
    SOFTMAX,
    Finding,
    Node,
    Partitioning,
    Program,
    Severity,
    Support,
    Value,
    error,
    fine,
    info,
    plain_name,
    warning,
)

MASK = "mask"

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
        return [fine(MASK, f"no constant beyond float16 on the way to {softmaxes} softmaxes")]
    number = max(worst, key=abs)
    precise = examination.bundle.manifest.precision == "fp32"
    return [
        Finding(
            MASK,
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


OPERATORS = "operators"


def check_operators(examination: Examination) -> Iterable[Finding]:
    """Operators that the stated runtime lacks, or of which that is not known."""
    runtime = f"{examination.examiner.runtime_name} {examination.runtime}"
    lacking = [each for each in examination.support if each.supported is False]
    unknown = [each for each in examination.support if each.supported is None]
    if lacking:
        yield error(
            OPERATORS,
            f"{runtime} lacks {_names(lacking)}",
            "the runtime refuses the whole model when the app opens it",
            "ship a newer runtime with the app, or convert again for the one that it has",
        )
    if unknown:
        yield warning(
            OPERATORS,
            f"whether {runtime} has {_names(unknown)} is not known",
            "the runtime refuses the whole model if it lacks one of them",
            "open the bundle with that runtime before you ship it",
        )
    if not lacking and not unknown:
        yield fine(OPERATORS, f"{runtime} has all {len(examination.support)} of them")


def _names(support: Sequence[Support]) -> str:
    """Operators with their versions and what has them."""
    return ", ".join(
        each.operator.name
        + ("" if each.operator.version is None else f" version {each.operator.version}")
        + (f" (since {each.needs})" if each.needs and each.supported is False else "")
        for each in support
    )


# Check: what the programs compute on the recorded vectors fits into float16.


FLOAT16 = "float16"

# An input that the vectors do not have may reach four times as far.
NEAR = LARGEST_HALF / 4


def check_overflow(examination: Examination) -> Iterable[Finding]:
    """Values beyond float16, or near its end, where a device may compute in it."""
    manifest = examination.bundle.manifest
    ranges = examination.ranges
    in_half = examination.examiner.computes_in_half(manifest.precision)
    if ranges.hidden:
        return [
            info(
                FLOAT16,
                f"not checked: a delegate of {manifest.target} does not show what it computes",
                "a value beyond 65504 becomes infinity where it computes in float16" if in_half else "",
                "run doctor on the same checkpoint's onnx or litert bundle: its values are the same" if in_half else "",
            )
        ]
    if not examination.cases:
        return [
            warning(
                FLOAT16,
                "not checked: the bundle has no recorded vectors",
                "whether values leave float16's range cannot be known without inputs",
                "convert the checkpoint again: conversion records vectors",
            )
        ]
    found = [(peak[1], program, peak[0]) for program in ranges.largest if (peak := ranges.peak(program)) is not None]
    if not found:
        return [_failed(ranges.failure or "no value was seen")]
    number, program, label = max(found, key=lambda each: np.inf if np.isnan(each[0]) else each[0])
    what = f"{program}: {label} reaches {number:.4g} on the recorded vectors"
    if not number <= LARGEST_HALF:
        if in_half or not np.isfinite(number):
            return [
                error(
                    FLOAT16,
                    what,
                    f"float16 ends at {LARGEST_HALF:.0f}, and at {manifest.precision} a device computes in it: the"
                    " answer becomes infinity or NaN",
                    "convert at fp32, or for a target that computes in float32",
                )
            ]
        return [
            warning(
                FLOAT16,
                what,
                f"float16 ends at {LARGEST_HALF:.0f}: GPUs and NPUs, which compute in it, would give infinity or NaN",
                "keep this bundle on the CPU, and do not convert the checkpoint to fp16 for Core ML or ExecuTorch",
            )
        ]
    if ranges.failure is not None:
        return [_failed(ranges.failure)]
    if number > NEAR:
        return [
            warning(
                FLOAT16,
                what,
                f"that is more than a quarter of float16's {LARGEST_HALF:.0f}: another input may go beyond it where a"
                " device computes in float16",
                "evaluate on your own data (edgeformer eval) before you ship it at fp16 or on a GPU",
            )
        ]
    return [fine(FLOAT16, f"{what}; float16 ends at {LARGEST_HALF:.0f}")]


def _failed(failure: str) -> Finding:
    return error(
        FLOAT16,
        f"the programs cannot run on the recorded vectors: {failure}",
        "they will not run on a device either",
        "convert the checkpoint again",
    )


# Check: the delegate gets the model in few partitions.


PARTITIONS = "partitions"
# Plain conversions of transformers with a delegate that lacks an operator of theirs come out at 49 and more.
MANY_PIECES = 30
NAMED_OPERATORS = 4


def check_partitions(examination: Examination) -> Iterable[Finding]:
    """Programs that are cut into many partitions, and what is predicted to fall back."""
    if not examination.partitions:
        return [fine(PARTITIONS, "the CPU runs every operator: there is no delegate to divide the programs for")]
    worst = max(examination.partitions, key=lambda found: found.pieces)
    if not worst.measured:
        return [_predicted(max(examination.partitions, key=lambda found: sum(found.outside.values())))]
    if worst.pieces > MANY_PIECES:
        return [
            warning(
                PARTITIONS,
                f"{worst.program}: {worst.delegate} gets {worst.pieces} partitions, outside are {_most(worst.outside)}",
                "at each border tensors are copied and threads wait",
                "use another attention kernel (--attention) or precision: see the operators that are outside",
            )
        ]
    if worst.pieces > 1:
        return [
            info(
                PARTITIONS,
                f"{worst.delegate} gets {worst.pieces} partitions of {worst.program}, "
                f"outside are {_most(worst.outside)}",
            )
        ]
    left_out = [found.program for found in examination.partitions if not found.pieces]
    if left_out:
        return [
            info(
                PARTITIONS,
                f"{worst.delegate} takes nothing of {', '.join(left_out)}: its operators are too few or others",
            )
        ]
    rest = f", but for {_most(worst.outside)}" if worst.outside else ""
    return [fine(PARTITIONS, f"{worst.delegate} gets each program in one partition{rest}")]


def _predicted(found: Partitioning) -> Finding:
    if not found.outside:
        return fine(PARTITIONS, f"nothing keeps the {found.delegate} from all of it (predicted)")
    if not found.pieces:
        return info(
            PARTITIONS,
            f"predicted: the {found.delegate} takes nothing of {found.program}, CPU or GPU run it",
            "it computes in float16, and this bundle in float32",
            "convert to fp16 or less for it",
        )
    return info(
        PARTITIONS,
        f"predicted: the {found.delegate} leaves {sum(found.outside.values())} operators of {found.program} to CPU or"
        f" GPU: {_most(found.outside)}",
        "it computes in float16 on tensors of up to four axes; Apple does not publish what else decides",
    )


def _most(outside: Counter[str]) -> str:
    named = ", ".join(f"{name} {count}" for name, count in outside.most_common(NAMED_OPERATORS))
    return named + (", ..." if len(outside) > NAMED_OPERATORS else "")


# Check: every value that a program reads is made somewhere, and the file has the operators that the manifest lists.


PROCESSORS = "processors"


def check_processors(examination: Examination) -> Iterable[Finding]:
    """What products of int8 numbers cost on an x86 CPU without instructions for them (VNNI: most from 2019 on)."""
    recipe, cost = examination.bundle.manifest.recipe, examination.examiner.without_vnni
    multiplies = recipe.activations == "int8" or recipe.name.startswith("dynamic_")
    if cost is not None and multiplies:
        yield info(PROCESSORS, f"on an x86 CPU without VNNI {cost}")


STRUCTURE = "structure"
AGAIN = "convert the checkpoint again, or fetch the bundle from where it was published"


def check_structure(examination: Examination) -> Iterable[Finding]:
    """Operators that were dropped or added after conversion."""
    found = [*_missing(examination), *_counts(examination)]
    if found:
        return found
    operators = sum(examination.bundle.manifest.operators.values())
    return [
        fine(STRUCTURE, f"{operators} operators, as many of each as the manifest lists, and every value has a source")
    ]


def _missing(examination: Examination) -> Iterator[Finding]:
    for program in examination.view.programs:
        for reader, label in _unmade(program):
            yield error(
                STRUCTURE,
                f"{program.name}: {reader} reads {label}, which no operator before it makes",
                "the file lacks an operator: no runtime opens it, or it answers with what its memory happens to hold",
                AGAIN,
            )


def _unmade(program: Program) -> Iterator[tuple[str, str]]:
    """Who reads what nobody makes; each value once."""
    made = {*program.inputs, *(key for key, value in program.values.items() if value.constant is not None)}
    reported: set[str] = set()
    readers = [(node.label, node.inputs, node.outputs) for node in program.nodes]
    for label, inputs, outputs in [*readers, ("the caller", program.outputs, ())]:
        for key in inputs:
            if key not in made and key not in reported:
                reported.add(key)
                yield label, program.values[key].label if key in program.values else key
        made.update(outputs)


def _counts(examination: Examination) -> Iterator[Finding]:
    listed = Counter(examination.bundle.manifest.operators)
    present: Counter[str] = Counter()
    for operator in examination.view.operators:
        present[operator.name] += operator.count
    for name in sorted(listed | present):
        if listed[name] != present[name]:
            yield error(
                STRUCTURE,
                f"the manifest lists {name} {listed[name]} times, the model's files have it {present[name]} times",
                "the model is not the one that was converted and verified: an operator was dropped or added since",
                AGAIN,
            )
