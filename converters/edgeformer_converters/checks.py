"""What every converter refuses before it spends minutes: the checks that do not depend on the target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeformer.convert.layer_plan import quantizable_layers
from edgeformer.convert.target import Converter, Lowered, Precision, Target
from edgeformer.models.family import DTYPES, Program
from edgeformer_runtime.errors import InputError


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
        problems.append(
            "static-int8 needs calibration: give --calibration, a folder of images or audio, or a table of texts"
        )
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


__all__ = ["Converter", "Lowered"]


# Finds the layers of a plan in a lowered model, by their weights.
#
# Tools rename, transpose and fuse; numbers survive. LiteRT's converter multiplies attention's factor into the
# projection of queries, and Core ML halves its constants: so a weight counts as found where it is a multiple of the
# layer's.


HALF_TOLERANCE = 1e-3
"""Relative to the largest weight: half precision rounds by 5e-4 of each."""
_SAMPLES = 64


@dataclass(frozen=True)
class PlannedLayer:
    """A layer's name in a program's module, the format that it is to have, and its weight (O, I)."""

    name: str
    format: str
    weight: NDArray[np.float32]


class PlannedLayers:
    """The layers of some programs, those that programs share once, to be found one by one."""

    def __init__(self, programs: Sequence[Program]) -> None:
        """Raises InputError where two formats are asked for one weight, or for two that cannot be told apart."""
        self._layers: dict[tuple[int, ...], list[PlannedLayer]] = {}
        self._found: set[int] = set()
        for layer in _layers_of(programs):
            alike = self._alike(layer.weight, layer.weight.shape)
            if alike is None:
                self._layers.setdefault(layer.weight.shape, []).append(layer)
            elif alike.format != layer.format:
                raise InputError(
                    f"layer plan: {alike.name} and {layer.name} have the same weights and the formats {alike.format} "
                    f"and {layer.format}: give both the same format"
                )

    def find(self, values: NDArray[np.generic], transposed: bool = False) -> PlannedLayer | None:
        """The layer whose weight these are, up to a factor; None if it is no layer's.

        Args:
            values: (O, I), or kernels of 1 x 1 in whatever place; where transposed (I, O).
            transposed: whether inputs come first.
        """
        rows = values.reshape([size for size in values.shape if size != 1] or [1]) if values.ndim > 2 else values
        if rows.ndim != 2:
            return None
        rows = rows.T if transposed else rows
        layer = self._alike(rows, rows.shape)
        if layer is not None:
            self._found.add(id(layer))
        return layer

    def require_all(self, target: str) -> None:
        """Refuse a lowered model in which a layer has not been found.

        Raises:
            InputError: names the layers.
        """
        missing = [layer.name for layers in self._layers.values() for layer in layers if id(layer) not in self._found]
        if missing:
            raise InputError(
                f"{target}: the lowered model does not have the weights of {', '.join(missing[:3])}"
                f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}: no format can be given to them; "
                "take another attention kernel, or a precision for the whole model"
            )

    def _alike(self, values: NDArray[np.generic], shape: tuple[int, ...]) -> PlannedLayer | None:
        candidates = self._layers.get(shape, [])
        return next((layer for layer in candidates if _is_multiple(values, layer.weight)), None)


def _layers_of(programs: Iterable[Program]) -> Iterator[PlannedLayer]:
    for program in programs:
        for name, layer in quantizable_layers(program.module).items():
            weight = layer.weight.detach().numpy()
            yield PlannedLayer(name, program.layer_formats[name], weight.reshape(weight.shape[0], weight.shape[1]))


def _is_multiple(values: NDArray[np.generic], weight: NDArray[np.float32]) -> bool:
    """Whether all values are the weights times one number, within half precision. Few numbers tell nearly always."""
    flat, expected = values.reshape(-1), weight.reshape(-1)
    step = max(1, flat.size // _SAMPLES)
    return all(_proportional(flat[each], expected[each]) for each in (slice(None, None, step), slice(None)))


def _proportional(values: NDArray[np.generic], expected: NDArray[np.float32]) -> bool:
    wide = values.astype(np.float64)
    largest = int(np.abs(expected).argmax())
    if expected[largest] == 0:
        return not wide.any()
    factor = wide[largest] / expected[largest]
    return bool(factor) and bool((np.abs(wide / factor - expected) <= HALF_TOLERANCE * abs(expected[largest])).all())
