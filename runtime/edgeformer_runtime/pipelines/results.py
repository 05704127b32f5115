"""The answers of pipelines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.pipelines.base import Statistics


@dataclass(frozen=True)
class ClassificationResult:
    """All labels with their scores, best first.

    Attributes:
        labels: every label of the bundle.
        scores: each label's probability, in the order of `labels`.
        truncated: the input was too long and lost its end.
        statistics: what the answer cost; None where it was not measured.
    """

    labels: tuple[str, ...]
    scores: tuple[float, ...]
    truncated: bool = False
    statistics: Statistics | None = None

    @property
    def label(self) -> str:
        """The best label."""
        return self.labels[0]

    @property
    def score(self) -> float:
        """The best label's score."""
        return self.scores[0]

    def to_json(self) -> dict[str, Any]:
        """{"labels": [...], "scores": [...]}, best first."""
        return {"labels": list(self.labels), "scores": list(self.scores)}


@dataclass(frozen=True, eq=False)
class EmbeddingResult:
    """An embedding.

    Attributes:
        vector: (D,) float32.
        truncated: the input was too long and lost its end.
        statistics: what the answer cost; None where it was not measured.
    """

    vector: NDArray[np.float32]
    truncated: bool = False
    statistics: Statistics | None = None

    def to_json(self) -> dict[str, Any]:
        """{"embedding": [...]}."""
        return {"embedding": [float(value) for value in self.vector]}
