"""How the same bundle's outputs differ between this machine and the emulated Pi, and how much they may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeformer_runtime.engines import Tensor

TOLERANCES: Mapping[str, float] = {"fp32": 1e-5, "dynamic-int8": 2e-2, "static-int8": 5e-2}
"""By precision: the largest absolute difference as a fraction of an output's largest absolute value. Another processor
adds floats in another order. int8 rounds activations, where a float's last bit can move a whole level; static int8's
levels are farther apart. Where a static-int8 model computes nothing in floats, nothing may differ: see `exact`."""


@dataclass(frozen=True)
class Comparison:
    """A bundle's outputs on two machines.

    Attributes:
        bundle: its name.
        precision: which decides the tolerance.
        outputs: how many were compared.
        worst: which of them differs the most.
        difference: its largest absolute difference over its largest absolute value here; infinite where an output is
            missing, of another shape or dtype, or not finite.
        tolerance: what the difference may be.
    """

    bundle: str
    precision: str
    outputs: int
    worst: str
    difference: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the machines agree."""
        return self.difference <= self.tolerance

    def to_json(self) -> dict[str, Any]:
        """JSON values; an infinite difference is null."""
        finite = self.difference if np.isfinite(self.difference) else None
        return asdict(self) | {"difference": finite, "ok": self.ok}


def compare(
    bundle: str, precision: str, here: Mapping[str, Tensor], there: Mapping[str, Tensor], *, exact: bool = False
) -> Comparison:
    """Compare outputs by name; `exact`: not one bit may differ."""
    differences = {name: _difference(here.get(name), there.get(name)) for name in sorted({*here, *there})}
    tolerance = 0.0 if exact else TOLERANCES[precision]
    worst = max(differences, key=differences.__getitem__)
    return Comparison(bundle, precision, len(differences), worst, differences[worst], tolerance)


def compare_files(bundle: str, precision: str, here: Path, there: Path, *, exact: bool = False) -> Comparison:
    """Compare what `outputs.py` wrote on two machines; see `compare`."""
    with np.load(here, allow_pickle=False) as first, np.load(there, allow_pickle=False) as second:
        return compare(bundle, precision, dict(first), dict(second), exact=exact)


def _difference(here: Tensor | None, there: Tensor | None) -> float:
    if here is None or there is None or here.shape != there.shape or here.dtype != there.dtype:
        return np.inf
    if not (np.isfinite(here).all() and np.isfinite(there).all()):
        return np.inf
    largest = float(np.abs(here).max(initial=0.0))
    difference = float(np.abs(here.astype(np.float64) - there.astype(np.float64)).max(initial=0.0))
    return difference / largest if largest else difference
