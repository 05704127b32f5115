"""Check: what the programs compute on the recorded vectors fits into float16."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgeformer.doctor.examination import Examination
from edgeformer.doctor.finding import Finding, error, fine, info, warning

CHECK = "float16"
LARGEST_HALF = float(np.finfo(np.float16).max)
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
                CHECK,
                f"not checked: a delegate of {manifest.target} does not show what it computes",
                "a value beyond 65504 becomes infinity where it computes in float16" if in_half else "",
                "run doctor on the same checkpoint's onnx or litert bundle: its values are the same" if in_half else "",
            )
        ]
    if not examination.cases:
        return [
            warning(
                CHECK,
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
                    CHECK,
                    what,
                    f"float16 ends at {LARGEST_HALF:.0f}, and at {manifest.precision} a device computes in it: the"
                    " answer becomes infinity or NaN",
                    "convert at fp32, or for a target that computes in float32",
                )
            ]
        return [
            warning(
                CHECK,
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
                CHECK,
                what,
                f"that is more than a quarter of float16's {LARGEST_HALF:.0f}: another input may go beyond it where a"
                " device computes in float16",
                "evaluate on your own data (edgeformer eval) before you ship it at fp16 or on a GPU",
            )
        ]
    return [fine(CHECK, f"{what}; float16 ends at {LARGEST_HALF:.0f}")]


def _failed(failure: str) -> Finding:
    return error(
        CHECK,
        f"the programs cannot run on the recorded vectors: {failure}",
        "they will not run on a device either",
        "convert the checkpoint again",
    )
