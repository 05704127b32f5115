"""The rows of a decoder's cache that a hypothesis sees, as an additive attention mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SEEN = np.float32(0)
HIDDEN = np.float32(-1000)
"""Finite and far inside float16; exp of it is 0 for every spread of scores below 900."""


def hidden_rows(rows: int) -> Floats:
    """A mask (L,) float32 that hides every row."""
    return np.full(rows, HIDDEN, np.float32)


def free_rows(masks: list[Floats]) -> list[int]:
    """The rows that no mask (L,) sees, in order: what was written there is no longer needed."""
    hidden = masks[0] < 0
    for mask in masks[1:]:
        hidden &= mask < 0
    return [int(row) for row in np.flatnonzero(hidden)]
