"""Where a module's layers are, what can be removed from them, and what they compute on the way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from edgeformer.attention import APPROXIMATE_KERNELS, AttentionKernel
from edgeformer.models.units import AttentionModule, StackedLayer, UnitGroup
from edgeformer_runtime.errors import InputError

_NUMBERED = re.compile(r"(?P<stack>.+)\.(?P<number>\d+)")


@dataclass(frozen=True)
class Stack:
    """Layers that run one after the other: `<name>.<number>`."""

    name: str
    layers: tuple[StackedLayer, ...]

    def layer_name(self, number: int) -> str:
        """A layer's name in the module."""
        return f"{self.name}.{number}"


def stacks(module: nn.Module) -> tuple[Stack, ...]:
    """The stacks of layers in a module, in the order in which they run."""
    found: dict[str, list[StackedLayer]] = {}
    for name, part in module.named_modules():
        if isinstance(part, StackedLayer):
            match = _NUMBERED.fullmatch(name)
            assert match is not None  # each family keeps its layers in a list
            found.setdefault(match["stack"], []).append(part)
    return tuple(Stack(name, tuple(layers)) for name, layers in found.items())


def unit_groups(module: nn.Module) -> tuple[UnitGroup, ...]:
    """Everything in a module that can be removed unit by unit, layer by layer."""
    return tuple(
        group
        for stack in stacks(module)
        for number, layer in enumerate(stack.layers)
        for group in layer.unit_groups(stack.layer_name(number))
    )


@contextmanager
def hooked_outputs(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Inside the block, each forward leaves the layers' outputs in the list, in the order of the layers."""
    outputs: list[Tensor] = [cast(Tensor, None)] * len(layers)

    def keep(number: int, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        outputs[number] = output

    handles = [layer.register_forward_hook(partial(keep, number)) for number, layer in enumerate(layers)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


class MapRecorder:
    """An attention kernel that keeps its maps, in front of the one that computes."""

    def __init__(self, kernel: AttentionKernel) -> None:
        self.kernel = kernel
        self.scores: Tensor | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        """See `AttentionKernel`; `scores` become (B, H, T, S) before the softmax."""
        scores = (q * scale) @ k.transpose(2, 3)
        self.scores = scores if bias is None else scores + bias
        return self.kernel(q, k, v, bias, scale)


def record_maps(layer: nn.Module) -> tuple[MapRecorder, ...]:
    """Put a recorder in front of every attention of a layer; they stay there.

    Raises:
        InputError: an approximate attention, which has no map.
    """
    recorders = []
    for part in layer.modules():
        if isinstance(part, AttentionModule):
            if part.attention in APPROXIMATE_KERNELS.values():
                raise InputError("loss: approximate attention has no maps to compare: leave attention out")
            recorder = MapRecorder(part.attention)
            part.attention = recorder
            recorders.append(recorder)
    return tuple(recorders)


def map_layers(
    students: Sequence[Stack], teachers: Sequence[Stack], layer_map: str | tuple[tuple[int, int], ...]
) -> list[tuple[nn.Module, nn.Module]]:
    """Which layer of the teacher teaches which of the student's, in pairs (student, teacher).

    Args:
        students, teachers: their stacks. Pairs count through all of a model's layers.
        layer_map: "uniform", or pairs of numbers.

    Raises:
        InputError: a number beyond the layers, or stacks that cannot be matched.
    """
    if not isinstance(layer_map, str):
        own, theirs = ([layer for stack in each for layer in stack.layers] for each in (students, teachers))
        for student, teacher in layer_map:
            if not (0 <= student < len(own) and 0 <= teacher < len(theirs)):
                raise InputError(
                    f"layer_map: there is no pair [{student}, {teacher}]: the student has {len(own)} layers and the "
                    f"teacher {len(theirs)}, counted from 0"
                )
        return [(own[student], theirs[teacher]) for student, teacher in layer_map]
    if len(students) != len(teachers):
        raise InputError(
            f"layer_map: the student has {len(students)} stages and the teacher {len(teachers)}: state pairs of layers"
        )
    return [
        (student.layers[number], teacher.layers[source])
        for student, teacher in zip(students, teachers, strict=True)
        for number, source in enumerate(uniform(len(student.layers), len(teacher.layers)))
    ]


def uniform(count: int, of: int) -> list[int]:
    """For each of `count` layers the one of `of` that stands at its place, the last for the last."""
    return [max(0, round((number + 1) * of / count) - 1) for number in range(count)]


Skipped = Callable[[], None]


def skip(layer: nn.Module) -> Skipped:
    """Make a layer give its input as its output; the result undoes it."""
    handle = layer.register_forward_hook(lambda _module, inputs, _output: inputs[0])
    return handle.remove
