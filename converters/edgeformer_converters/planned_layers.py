"""Finds the layers of a plan in a lowered model, by their weights.

Tools rename, transpose and fuse; numbers survive. LiteRT's converter multiplies attention's factor into the projection
of queries, and Core ML halves its constants: so a weight counts as found where it is a multiple of the layer's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeformer.convert.layer_plan import quantizable_layers
from edgeformer.models.program import Program
from edgeformer_runtime.errors import InputError

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
