"""Checks a program's inputs once for all engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.manifest import ProgramSpec


def programs_by_name(programs: Sequence[ProgramSpec]) -> dict[str, ProgramSpec]:
    """A manifest's programs under their names."""
    return {program.name: program for program in programs}


def check_inputs(programs: Mapping[str, ProgramSpec], name: str, inputs: Mapping[str, Tensor]) -> ProgramSpec:
    """The program of that name, if the inputs are exactly what it declares.

    Raises:
        InputError: an unknown program, or an input that is missing, superfluous or of another dtype or shape.
    """
    program = programs.get(name)
    if program is None:
        raise InputError(f"unknown program {name!r}: expected one of {', '.join(programs)}")
    declared = [spec.name for spec in program.inputs]
    if set(inputs) != set(declared):
        raise InputError(f"{name}: expected the inputs {', '.join(declared)}, found {', '.join(sorted(inputs))}")
    for spec in program.inputs:
        tensor = inputs[spec.name]
        if not isinstance(tensor, np.ndarray):
            raise InputError(f"{name}: {spec.name}: expected a numpy array, found {type(tensor).__name__}")
        if str(tensor.dtype) != spec.dtype or tensor.shape != spec.shape:
            raise InputError(
                f"{name}: {spec.name}: expected {spec.dtype} {spec.shape}, found {tensor.dtype} {tensor.shape}"
            )
    return program


def check_outputs(program: ProgramSpec, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs in the manifest's order, if the model gave what the manifest declares.

    Raises:
        EngineError: the model and the manifest disagree.
    """
    for spec in program.outputs:
        found = outputs.get(spec.name)
        if found is None or str(found.dtype) != spec.dtype or found.shape != spec.shape:
            shown = "nothing" if found is None else f"{found.dtype} {found.shape}"
            raise EngineError(
                f"{program.name}: the manifest declares the output {spec.name} as {spec.dtype} {spec.shape},"
                f" the model gave {shown}: convert the bundle again"
            )
    return {spec.name: outputs[spec.name] for spec in program.outputs}
