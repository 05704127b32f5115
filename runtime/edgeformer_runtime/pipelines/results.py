"""The answers of pipelines, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.errors import InputError


@dataclass(frozen=True)
class Statistics:
    """What one answer cost; `peak_rss_bytes` is the whole process's largest resident memory so far."""

    preprocess_ms: float
    run_ms: float
    postprocess_ms: float
    peak_rss_bytes: int


@dataclass(frozen=True)
class ClassificationResult:
    """Labels with their scores, best first.

    Attributes:
        labels: every label of the bundle, or the best of them after `top`.
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

    def top(self, k: int) -> ClassificationResult:
        """The same answer with its `k` best labels, or all where there are fewer.

        Raises:
            InputError: `k` is below 1.
        """
        if k < 1:
            raise InputError(f"top: expected at least 1 label, found {k}")
        return replace(self, labels=self.labels[:k], scores=self.scores[:k])

    def to_json(self) -> dict[str, Any]:
        """{"labels": [...], "scores": [...]}, best first."""
        return {"labels": list(self.labels), "scores": list(self.scores)}

    def expected_json(self) -> dict[str, Any]:
        """What vectors store of the answer besides the program's outputs: the labels and scores."""
        return self.to_json()


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

    def expected_json(self) -> dict[str, Any]:
        """What vectors store of the answer besides the program's outputs: nothing, it is the output."""
        return {}
