"""Finds each block's output among all values that another implementation of the model computes on its way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.engines.base import Tensor

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """The value that is closest to a block's output.

    Attributes:
        distance: the L2 norm of the difference, as a fraction of the norm of the block's output.
        max_abs: the largest absolute difference.
        cosine: of the two.
        place: the value's number among all.
    """

    distance: float
    max_abs: float
    cosine: float
    place: int


def match_blocks(blocks: Mapping[str, Tensor], values: Sequence[Tensor], tolerance: float) -> dict[str, Match | None]:
    """Match in order: a block's output is looked for behind that of the block before.

    Formats lay tensors out in their own ways, and converters change and fuse operators, so a value is the block's
    output if its numbers are, in whatever order of the axes. Only a match within the tolerance moves the search on.

    Args:
        blocks: the reference's outputs by name, in the order of execution.
        values: what the other implementation computes, in the order of execution.
        tolerance: the largest `distance` of a match that is one.

    Returns:
        The closest value for each block; None: there is none of its size, or none that is finite.
    """
    found: dict[str, Match | None] = {}
    begin = 0
    for name, reference in blocks.items():
        closest = _closest(reference, values, begin)
        found[name] = closest
        if closest is not None and closest.distance <= tolerance:
            begin = closest.place + 1
    return found


def _closest(reference: Tensor, values: Sequence[Tensor], begin: int) -> Match | None:
    layouts = list(_layouts(reference))
    norm = float(np.linalg.norm(layouts[0])) or 1.0
    best: Match | None = None
    for place in range(begin, len(values)):
        if values[place].size != reference.size:
            continue
        value = values[place].astype(np.float64).ravel()
        own = float(np.linalg.norm(value))
        # No order of the axes brings two tensors closer than their norms are.
        if not np.isfinite(own) or (best is not None and abs(own - norm) / norm >= best.distance):
            continue
        for layout in layouts:
            distance = float(np.linalg.norm(value - layout)) / norm
            if best is None or distance < best.distance:
                cosine = float(np.clip(value @ layout / (own * norm), -1, 1)) if own else 0.0
                best = Match(distance, float(np.abs(value - layout).max()), cosine, place)
    return best


def _layouts(reference: Tensor) -> Iterator[Floats]:
    """The numbers of a tensor in each order of its axes; axes of size 1 change nothing."""
    squeezed = reference.astype(np.float64).squeeze()
    for order in itertools.permutations(range(squeezed.ndim)):
        yield squeezed.transpose(order).ravel()
