"""What a model computes on the way: the ranges of its activations for int8, and engines that tell each value.

A range is of all values that calibration inputs give, of most of them, or of the telling ones.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from edgeformer.doctor.examiner import Array, Observe, Tap
from edgeformer.models.family import ENTROPY, MIN_MAX, PERCENTILE
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.engines.checked import CheckedEngine

KEPT_PERCENT = 99.99
"""Of the values, by the method percentile; what is left is cut off at both ends alike."""
_BINS = 4096
_LEVELS = 128
"""Of one sign in int8."""
_STEP = 16
"""Bins from one threshold that is tried to the next."""


class ValueHistogram:
    """How often values occur, whatever their range turns out to be: it doubles, and pairs of bins become one."""

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS, np.int64)  # over [-reach, reach]
        self._reach = 0.0
        self._low = self._high = 0.0

    def add(self, values: NDArray[np.floating]) -> None:
        """Count values of any shape; those that are no numbers are left out."""
        flat = values.ravel()
        flat = flat[np.isfinite(flat)]
        if not flat.size:
            return
        # Zero is always within the range: int8 has to hold it exactly.
        self._low, self._high = min(self._low, float(flat.min())), max(self._high, float(flat.max()))
        self._grow(max(-self._low, self._high))
        if self._reach:
            self._counts += np.histogram(flat, _BINS, (-self._reach, self._reach))[0]

    def range(self, method: str) -> tuple[float, float]:
        """The smallest and largest value that int8 is to hold, by one of `edgeformer.convert.calibration.METHODS`."""
        if method == MIN_MAX or not self._reach:
            return self._low, self._high
        if method == PERCENTILE:
            return self._percentile()
        assert method == ENTROPY
        reach = self._telling_reach()
        return max(self._low, -reach), min(self._high, reach)

    def _grow(self, largest: float) -> None:
        if largest and not self._reach:
            self._reach = float(2.0 ** np.ceil(np.log2(largest)))
        while self._reach < largest:
            pairs = self._counts.reshape(-1, 2).sum(1)
            self._counts = np.zeros(_BINS, np.int64)
            self._counts[_BINS // 4 : -_BINS // 4] = pairs
            self._reach *= 2

    def _percentile(self) -> tuple[float, float]:
        edges = np.linspace(-self._reach, self._reach, _BINS + 1)
        shares = np.cumsum(self._counts) / self._counts.sum()
        cut = (1 - KEPT_PERCENT / 100) / 2
        first, last = int(np.searchsorted(shares, cut, "right")), int(np.searchsorted(shares, 1 - cut))
        low, high = max(self._low, float(edges[first])), min(self._high, float(edges[last + 1]))
        return min(low, 0.0), max(high, 0.0)

    def _telling_reach(self) -> float:
        """The threshold behind which cutting off loses least: Kullback-Leibler divergence of the magnitudes."""
        half = _BINS // 2
        magnitudes = (self._counts[half:] + self._counts[:half][::-1]).astype(np.float64)
        ends = range(_LEVELS, half + 1, _STEP)
        losses = [_divergence(magnitudes, end) for end in ends]
        return self._reach * ends[int(np.argmin(losses))] / half


def _divergence(magnitudes: NDArray[np.float64], end: int) -> float:
    """What `_LEVELS` levels over the first bins, the others cut off, say less than the bins do."""
    kept = magnitudes[:end].copy()
    levels = np.arange(end) * _LEVELS // end
    occurs = kept > 0
    sums, used = np.bincount(levels, kept, _LEVELS), np.bincount(levels, occurs, _LEVELS)
    spread = np.where(occurs, sums[levels] / np.maximum(used[levels], 1), 0.0)
    kept[-1] += magnitudes[end:].sum()
    # A bin that only what was cut off falls into has nothing to be told from.
    spread[-1] = spread[-1] or (1e-9 if kept[-1] else 0.0)
    found = kept > 0
    p, q = kept[found] / kept.sum(), spread[found] / spread.sum()
    return float((p * np.log(p / q)).sum())


# An engine that tells what it computes on the way: the base of every target's own.


class ObservedEngine(CheckedEngine):
    """A `CheckedEngine` whose programs' values are observed."""

    name = "observed"
    executed_by = "an observed engine"

    def __init__(self, programs: tuple[ProgramSpec, ...], tap: Tap, sizes: Collection[int] | None = None) -> None:
        """`tap` is given every floating-point value, or those with a number of elements that is among `sizes`."""
        super().__init__(programs)
        self.tap = tap
        self.sizes = sizes

    def wants(self, size: int) -> bool:
        """Whether values with so many elements are told."""
        return self.sizes is None or size in self.sizes


def numbers(observe: Observe) -> Tap:
    """A tap that tells the largest number of each value."""
    return lambda program, label, values: observe(program, label, largest_number(values))


def largest_number(values: Array) -> float:
    """The largest absolute number; infinity or NaN where there is one."""
    return float(np.abs(values).max()) if values.size else 0.0
