"""Check: no weight is NaN or infinite."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgeformer.doctor.examination import Examination
from edgeformer.doctor.finding import Finding, error, fine
from edgeformer.doctor.model_view import Value

CHECK = "weights"


def check_weights(examination: Examination) -> Iterable[Finding]:
    """Constants of floating-point types with NaN in them; infinities of masks are the mask check's."""
    checked = 0
    for program in examination.view.programs:
        for value in program.constants():
            if not value.is_float:
                continue
            checked += 1
            if _is_spoiled(value):
                return [
                    error(
                        CHECK,
                        f"{program.name}: the weight {value.label} {value.shape} holds NaN",
                        "every answer that it takes part in is NaN",
                        "repair the checkpoint and convert it again",
                    )
                ]
    return [fine(CHECK, f"none of {checked} floating-point constants holds NaN")]


def _is_spoiled(value: Value) -> bool:
    assert value.constant is not None
    numbers = value.constant()
    return numbers.dtype.kind == "f" and bool(np.isnan(numbers).any())
