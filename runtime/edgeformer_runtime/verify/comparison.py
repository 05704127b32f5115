"""Compares a result with its reference, tensor by tensor, and keeps the worst."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgeformer_runtime.engines.base import Tensor

SMALL = 0.1
"""Of an output's scale: a reference whose values are all below has no direction that a format could keep."""


@dataclass(frozen=True)
class Comparison:
    """One case's result against its reference; None: not comparable (another shape, NaN, or no result at all).

    `reason` is what the engine said where it gave no result, or what is known to be wrong. `sample` is the raw input.
    """

    max_abs: float | None
    cosine: float | None
    tolerance: float
    ok: bool
    reason: str | None = None
    sample: str | None = None

    def badness(self) -> tuple[bool, float]:
        """A key that is largest for the worst comparison."""
        if self.max_abs is None:
            return True, np.inf
        if self.tolerance == 0:
            return not self.ok, np.inf if self.max_abs else 0.0
        return not self.ok, self.max_abs / self.tolerance


def compare(found: Tensor, reference: Tensor, tolerance: float) -> Comparison:
    """Compare two tensors of any shape; NaN, infinity or another shape are not comparable and not ok."""
    if found.shape != reference.shape or not np.isfinite(found).all():
        return Comparison(None, None, tolerance, ok=False)
    a = found.astype(np.float64).ravel()
    b = reference.astype(np.float64).ravel()
    max_abs = float(np.abs(a - b).max(initial=0.0))
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(np.clip(a @ b / norms, -1, 1)) if norms else None
    return Comparison(max_abs, cosine, tolerance, max_abs <= tolerance)


def largest(tensor: Tensor) -> float:
    """The largest absolute value."""
    return float(np.abs(tensor).max(initial=0.0))


def scales(outputs: Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
    """For each output's name its largest absolute value over all cases: what a tolerance is a fraction of.

    Buckets of one model share it. An input without meaning may have logits near 0, of which no format keeps a fraction.
    """
    found: dict[str, float] = {}
    for tensors in outputs:
        for name, tensor in tensors.items():
            found[name] = max(found.get(name, 0.0), largest(tensor))
    return found


def compare_scaled(found: Tensor, reference: Tensor, tolerance: float, scale: float) -> Comparison:
    """`compare` within a fraction of the output's scale; beside a small reference a cosine says nothing: None."""
    comparison = compare(found, reference, tolerance * scale)
    return replace(comparison, cosine=None) if largest(reference) < SMALL * scale else comparison


def worst_of(comparisons: Sequence[Comparison]) -> Comparison:
    """The worst comparison, with the smallest cosine of all of them."""
    worst = max(comparisons, key=Comparison.badness)
    cosines = [found.cosine for found in comparisons if found.cosine is not None]
    return replace(worst, cosine=min(cosines, default=None))
