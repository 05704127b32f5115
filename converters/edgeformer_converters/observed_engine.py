"""An engine that tells what it computes on the way: the base of every target's own."""

from __future__ import annotations

import numpy as np

from edgeformer.doctor.examiner import Observe
from edgeformer.doctor.model_view import Array
from edgeformer_runtime.engines.checked import CheckedEngine
from edgeformer_runtime.manifest import ProgramSpec


class ObservedEngine(CheckedEngine):
    """A `CheckedEngine` whose programs' values are observed."""

    name = "observed"
    executed_by = "an observed engine"

    def __init__(self, programs: tuple[ProgramSpec, ...], observe: Observe) -> None:
        """`observe` is told of every floating-point value."""
        super().__init__(programs)
        self.observe = observe


def largest_number(values: Array) -> float:
    """The largest absolute number; infinity or NaN where there is one."""
    return float(np.abs(values).max()) if values.size else 0.0
