"""What every converter refuses before it spends minutes: the checks that do not depend on the target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from edgeformer.convert.precision import Precision
from edgeformer.convert.target import Target
from edgeformer.models.program import DTYPES, Program


def common_problems(
    target: Target, precisions: Sequence[str], modules: Sequence[str], programs: Sequence[Program], precision: Precision
) -> list[str]:
    """What no target could lower, one sentence each; empty when there is nothing to refuse.

    Args:
        target: the converter's; the extra that installs its tools has its format's name.
        precisions: the names of the precisions that the converter realises.
        modules: the import names of the tools that it needs.
        programs: what is to be lowered.
        precision: the weight format that was asked for.
    """
    problems = []
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        problems.append(
            f"{target.name} needs {', '.join(missing)}, not installed here: "
            f'run `pip install "edgeformer[{target.format.name}]"`'
        )
    unknown = target.precision_problem(precision.name, precisions)
    if unknown is not None:
        problems.append(unknown)
    elif precision.name == "static-int8" and not all(program.calibration for program in programs):
        problems.append("static-int8 needs calibration: give --calibration, a folder of images or a table of texts")
    if not programs:
        problems.append(f"{target.name} needs at least one program, found none")
    names = [program.name for program in programs]
    problems += [
        f"two programs are named {name!r}: names must differ" for name in sorted(set(names)) if names.count(name) > 1
    ]
    for program in programs:
        problems += _interface_problems(target.name, program)
    largest = torch.finfo(torch.float16 if precision.recipe.weights == "float16" else torch.float32).max
    for name, tensor in _unique_tensors(programs):
        problems += _tensor_problems(name, tensor, largest)
    return problems


def plan_problems(
    target: Target, programs: Sequence[Program], formats: Mapping[type[nn.Module], Sequence[str]]
) -> list[str]:
    """Layers of a plan that have a format which the target lacks, one sentence for each kind of them.

    Args:
        target: the converter's.
        programs: with or without plans.
        formats: what the target can do with each kind of layer.
    """
    refused: dict[tuple[type[nn.Module], str], list[str]] = {}
    for program in programs:
        for name, format in program.layer_formats.items():
            kind = type(program.module.get_submodule(name))
            if format not in formats[kind]:
                refused.setdefault((kind, format), []).append(name)
    return [
        f"{target.name} has no {format} for {kind.__name__} "
        f"({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}): take one of {', '.join(formats[kind])}"
        for (kind, format), names in refused.items()
    ]


def _interface_problems(target: str, program: Program) -> Iterator[str]:
    if not program.name.isidentifier():
        yield f"program name {program.name!r} is no identifier, which an entry in a model file has to be"
    for spec in (*program.inputs, *program.outputs):
        if spec.dtype not in DTYPES:
            known = ", ".join(DTYPES)
            yield f"{target} passes no {spec.dtype} ({program.name}.{spec.name}): expected one of {known}"
        if any(size < 1 for size in spec.shape):
            yield f"{program.name}.{spec.name} has shape {spec.shape}: every size must be static and positive"


def _unique_tensors(programs: Sequence[Program]) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of all the programs, those that programs share once."""
    seen: set[int] = set()
    for program in programs:
        for name, tensor in (*program.module.named_parameters(), *program.module.named_buffers()):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield name, tensor


def _tensor_problems(name: str, tensor: Tensor, largest: float) -> Iterator[str]:
    if tensor.is_floating_point() and tensor.dtype != torch.float32:
        yield f"parameter {name} is {str(tensor.dtype).removeprefix('torch.')}: convert it to float32 before lowering"
    # litert-torch writes wrong constants for such tensors without a word; no tool gains anything from them.
    if not tensor.is_contiguous():
        yield f"parameter {name} is not contiguous: call .contiguous() on it before lowering"
    if not tensor.is_floating_point() or not tensor.numel():
        return
    if not bool(torch.isfinite(tensor).all()):
        yield f"parameter {name} holds NaN or infinity: repair the checkpoint"
    elif float(tensor.detach().abs().max()) > largest:
        yield f"parameter {name} holds values beyond float16's {largest:.0f}: choose another precision"
