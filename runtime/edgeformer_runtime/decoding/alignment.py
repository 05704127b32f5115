"""When each token was said, from where in the sound the decoder looked (Radford et al. 2022's alignment heads)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.decoding.dtw import cheapest_path
from edgeformer_runtime.decoding.rows import Floats

MEDIAN_WIDTH = 7
"""Positions, of 20 ms: attention is noisy from one to the next."""


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
    heard = attention[:, :, :positions].astype(np.float64)
    heard /= np.maximum(heard.sum(axis=2, keepdims=True), np.finfo(np.float32).tiny)
    spread = heard.std(axis=0, keepdims=True)
    relative = (heard - heard.mean(axis=0, keepdims=True)) / np.where(spread > 0, spread, 1)
    gain = median_filter(relative).mean(axis=1)
    rows, columns = cheapest_path(-gain)
    begins = np.concatenate(([True], np.diff(rows) > 0))
    return columns[begins]


def median_filter(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The median of `MEDIAN_WIDTH` values around each along the last axis; the ends are mirrored.

    Values of less than half that width stay as they are.
    """
    margin = MEDIAN_WIDTH // 2
    if values.shape[-1] <= margin:
        return values
    padding = [(0, 0)] * (values.ndim - 1) + [(margin, margin)]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, padding, mode="reflect"), MEDIAN_WIDTH, axis=-1)
    return np.partition(windows, margin, axis=-1)[..., margin]
