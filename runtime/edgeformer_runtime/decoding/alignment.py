"""When each token was said, from where in the sound the decoder looked (Radford et al. 2022's alignment heads)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.decoding.dtw import cheapest_path
from edgeformer_runtime.decoding.rows import Floats

MEDIAN_WIDTH = 7
"""Positions, of 20 ms: attention is noisy from one to the next."""

# Comparisons that bring the median of 7 values to place 3 (Devillard 1998, "Fast median search"): far cheaper on whole
# arrays than to sort each window.
_MEDIAN_COMPARISONS = (
    (0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4), (1, 3), (3, 4),
)  # fmt: skip


def token_positions(attention: Floats, positions: int) -> NDArray[np.intp]:
    """The position of the sound at which each token begins.

    Each head's attention is taken relative to what it gives a position on average over the tokens, smoothed, and the
    mean over heads is the gain of the path that dynamic time warping looks for.

    Args:
        attention: (N, A, T) float32, of the A alignment heads when the decoder said each of N tokens.
        positions: how many of T hold sound that is to be aligned, at least 1.

    Returns:
        (N,) positions that never fall, the first one 0.
    """
    gain = np.zeros((attention.shape[0], positions), np.float32)
    for head in range(attention.shape[1]):  # one at a time stays in the processor's cache
        gain += _gain_of(attention[:, head, :positions])
    rows, columns = cheapest_path(-gain.astype(np.float64))
    begins = np.concatenate(([True], np.diff(rows) > 0))
    return columns[begins]


def median_filter(values: Floats) -> Floats:
    """The median of `MEDIAN_WIDTH` values around each along the last axis; the ends are mirrored.

    Values of less than half that width stay as they are.
    """
    margin, width = MEDIAN_WIDTH // 2, values.shape[-1]
    if width <= margin:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(margin, margin)], mode="reflect")
    shifted = [padded[..., offset : offset + width] for offset in range(MEDIAN_WIDTH)]
    for first, second in _MEDIAN_COMPARISONS:
        low = np.minimum(shifted[first], shifted[second])
        shifted[first], shifted[second] = low, np.maximum(shifted[first], shifted[second])
    return shifted[margin]


def _gain_of(attention: Floats) -> Floats:
    """One head's attention (N, T), relative to the mean over the tokens and smoothed."""
    heard = attention / np.maximum(attention.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    spread = heard.std(axis=0)
    return median_filter((heard - heard.mean(axis=0)) / np.where(spread > 0, spread, np.float32(1)))
