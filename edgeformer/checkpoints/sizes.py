"""Compares what a config states with what the weight files can hold, before anything of that size is built."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from edgeformer.models.family import Family
from edgeformer.models.layer_widths import LAYER_WIDTH_KEYS
from edgeformer_runtime.errors import InputError

_LIMITS = {"num_labels": 100_000, "num_classes": 100_000, "input_size": 4096}
"""Of a bundle's manifest, which would be too late to learn of them."""
_LAYERS = ("num_hidden_layers", "n_layers", "encoder_layers", "decoder_layers", "num_feedforward_networks", "depths")
MAX_LAYERS = 1000
MAX_WINDOW = 64
"""Of TinyViT's attention, whose table of offsets grows with the fourth power of it."""
MAX_STUDENT_RATIO = 8
"""How many times its teacher's weights a new student's may be: a MobileBERT has more than the smallest BERTs."""
ALWAYS_BUILT = 4 << 20
"""Values that are few enough to be built, for the loader to say which tensors are missing."""


def check_sizes(family: Family, raw: Mapping[str, Any], files: tuple[Path, ...]) -> None:
    """Refuse a config that states more than its weights can be.

    Args:
        family: the checkpoint's.
        raw: config.json. What is no number there is left to the family's own parser.
        files: the weight files. A value takes a byte there at least.

    Raises:
        InputError: names the fields, what they come to, and what is there.
    """
    there = sum(path.stat().st_size for path in files)
    _check(family, raw, max(there, ALWAYS_BUILT), "config.json", f"the weight files have {there} bytes")


def check_student(family: Family, raw: Mapping[str, Any], teacher_values: int) -> None:
    """Refuse a new student of far more weights than its teacher.

    Args:
        family: the student's.
        raw: its config.json.
        teacher_values: how many values the teacher's weights are.

    Raises:
        InputError: names the fields, what they come to, and what the teacher has.
    """
    most = max(MAX_STUDENT_RATIO * teacher_values, ALWAYS_BUILT)
    _check(
        family,
        raw,
        most,
        "student",
        f"the teacher has {teacher_values} weights: expected {MAX_STUDENT_RATIO} times as many",
    )


def _check(family: Family, raw: Mapping[str, Any], values: int, where: str, there: str) -> None:
    labels = raw.get("id2label")
    if isinstance(labels, Mapping | list) and len(labels) > _LIMITS["num_labels"]:
        raise InputError(f"{where}: id2label has {len(labels)} labels: expected {_LIMITS['num_labels']} at most")
    for field, number in (*((key, raw[key]) for key in raw if _is_count(raw[key])), *_vision_counts(raw)):
        limit = _LIMITS.get(field, MAX_LAYERS if field in _LAYERS else None)
        if field == "window_sizes":
            limit = MAX_WINDOW
        if limit is not None and number > limit:
            raise InputError(f"{where}: {field} is {_short(number)}: expected {limit} at most")
    # Pruned layers have fewer neurons and heads than the fields say.
    pruned = any(raw.get(key) for key in LAYER_WIDTH_KEYS)
    for fields in family.sizes.get(str(raw.get("model_type")), ()):
        numbers = {field: raw[field] for field in fields if _is_count(raw.get(field))}
        if not (pruned and len(fields) == 3):
            product = math.prod(numbers.get(field, 1) for field in fields)
            _compare(f"{where}: {' * '.join(numbers)}", product, values, there)
    arguments = raw.get("model_args")
    if isinstance(arguments, Mapping):
        depths, widths = arguments.get("depths"), arguments.get("embed_dims")
        if isinstance(depths, list) and isinstance(widths, list) and all(map(_is_count, (*depths, *widths))):
            total = sum(depth * width * width for depth, width in zip(depths, widths, strict=False))
            _compare(f"{where}: depths * embed_dims * embed_dims", total, values, there)


def _compare(what: str, stated: int, limit: int, there: str) -> None:
    if stated > limit:
        raise InputError(f"{what} comes to {_short(stated)}, and {there}")


def _short(number: int) -> str:
    """A number of thousands of digits is not written out, which Python refuses."""
    return str(number) if number < 1 << 80 else "over 2^80"


def _vision_counts(raw: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """The numbers of a config in timm's layout, with the field that holds them."""
    for key in ("model_args", "pretrained_cfg"):
        inner = raw.get(key)
        for where, value in inner.items() if isinstance(inner, Mapping) else ():
            for number in value if isinstance(value, list) else [value]:
                if _is_count(number):
                    yield where, number


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
