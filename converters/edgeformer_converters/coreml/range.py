"""What float16 cannot hold of a program, found by running it: published MobileBERT's hidden states pass 1e7."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from edgeformer.models.program import Program
from edgeformer_converters.base import Lowered
from edgeformer_converters.mil.interpreter import MilInterpreter
from edgeformer_converters.mil.program import Function, read_program

LARGEST_TRUSTED = float(torch.finfo(torch.float16).max) / 4
"""Other inputs reach more than the ones that were looked at."""


def values_beyond_half(programs: Sequence[Program], fp32: Lowered) -> frozenset[str]:
    """The names of the values that calibration inputs drive beyond a quarter of float16's range.

    Args:
        programs: those without calibration inputs are left out.
        fp32: their packages, in which coremltools' names are those that it has before it turns to half precision.
    """
    names: set[str] = set()
    for program in programs:
        if program.calibration:
            file, entry = fp32.entries[program.name]
            names |= _beyond(program, read_program(fp32.folder / file)[entry])
    return frozenset(names)


def _beyond(program: Program, function: Function) -> set[str]:
    floats = [each.name for operation in function.operations for each in operation.outputs if each.dtype == "FLOAT32"]
    interpreter = MilInterpreter(replace(function, outputs=tuple(dict.fromkeys((*function.outputs, *floats)))))
    found: set[str] = set()
    for inputs in program.calibration:
        given = {spec.name: value.numpy() for spec, value in zip(program.inputs, inputs, strict=True)}
        values = interpreter.run(given)
        found |= {name for name in floats if values[name].size and not np.abs(values[name]).max() <= LARGEST_TRUSTED}
    return found


def fits_half(wide: frozenset[str], operation: Any) -> bool:
    """Whether an operation of coremltools neither reads nor makes any of the values named `wide`."""
    operands: list[Any] = list(operation.outputs)
    for operand in operation.inputs.values():
        operands += operand if isinstance(operand, list | tuple) else [operand]
    return not any(value.name in wide for value in operands if value is not None)
