"""From a program's only output to an answer: what the tasks of all kinds of input share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.bundle.manifest import Classification, Score
from edgeformer_runtime.engines.base import Tensor
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.pipelines.results import ClassificationResult, EmbeddingResult, ScoreResult
from edgeformer_runtime.tasks.programs import ZeroShotOptions, entailment_of


def classify(outputs: Mapping[str, Tensor], head: Classification, truncated: bool = False) -> ClassificationResult:
    """Labels and probabilities, best first; equal scores keep the bundle's order.

    Args:
        outputs: the only output: logits (1, number of labels).
        head: the manifest's postprocessing.
        truncated: for the result.

    Raises:
        EngineError: the logits hold NaN or infinity.
    """
    logits = finite_row(outputs).astype(np.float64)  # (number of labels,)
    scores = ACTIVATIONS[head.activation](logits)
    order = np.argsort(-scores, kind="stable")
    return ClassificationResult(
        labels=tuple(head.labels[index] for index in order),
        scores=tuple(float(scores[index]) for index in order),
        truncated=truncated,
    )


def zero_shot(
    logits: NDArray[np.float64], head: Classification, options: ZeroShotOptions, truncated: bool = False
) -> ClassificationResult:
    """The labels of a call, best first; equal scores keep the call's order.

    Args:
        logits: (N, L) of each label's hypothesis, of a model of natural language inference.
        head: the manifest's postprocessing, with its L labels.
        options: of the call, with its N labels.
        truncated: for the result.

    Raises:
        InputError: no label of the bundle says that a hypothesis follows.
    """
    entailment = entailment_of(head)
    if options.multi_label or len(options.labels) == 1:
        contradiction = -1 if entailment == 0 else 0
        scores = np.array([softmax(row[[contradiction, entailment]])[1] for row in logits])
    else:
        scores = softmax(logits[:, entailment])
    order = np.argsort(-scores, kind="stable")
    return ClassificationResult(
        tuple(options.labels[index] for index in order), tuple(float(scores[index]) for index in order), truncated
    )


def score_of(outputs: Mapping[str, Tensor], head: Score, truncated: bool = False) -> ScoreResult:
    """The only output (1, 1) as a score.

    Raises:
        EngineError: it holds NaN or infinity.
    """
    value = finite_row(outputs).astype(np.float64)
    return ScoreResult(float((sigmoid(value) if head.activation == "sigmoid" else value)[0]), truncated)


def embed(outputs: Mapping[str, Tensor], truncated: bool = False) -> EmbeddingResult:
    """The only output (1, D) as a vector.

    Raises:
        EngineError: it holds NaN or infinity.
    """
    return EmbeddingResult(finite_row(outputs).astype(np.float32), truncated=truncated)


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (N,) that sum to one, without overflow at any finite logits (N,)."""
    exponents = np.exp(logits - logits.max())
    return cast(NDArray[np.float64], exponents / exponents.sum())


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Independent probabilities (N,), without overflow at any finite logits (N,)."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


ACTIVATIONS = {"softmax": softmax, "sigmoid": sigmoid}


def finite_row(outputs: Mapping[str, Tensor]) -> Tensor:
    """The only output's only row.

    Raises:
        EngineError: it holds NaN or infinity.
    """
    (name, output), *_ = outputs.items()
    if not np.isfinite(output).all():
        raise EngineError(
            f"the model's output {name!r} holds NaN or infinity: run verify, or convert at a higher precision"
        )
    return cast(Tensor, output[0])
