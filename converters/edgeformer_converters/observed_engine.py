"""An engine that tells what it computes on the way: the base of every target's own."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from edgeformer.doctor.examiner import Observe, Tap
from edgeformer.doctor.model_view import Array
from edgeformer_runtime.bundle.manifest import ProgramSpec
from edgeformer_runtime.engines.checked import CheckedEngine


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
