"""Text pipelines: classification and embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from edgeformer_runtime.bundle import Bundle
from edgeformer_runtime.engines.base import Engine, Tensor
from edgeformer_runtime.errors import BundleError, EngineError
from edgeformer_runtime.manifest import Classification
from edgeformer_runtime.pipelines.base import Pipeline, Prepared, Statistics
from edgeformer_runtime.pipelines.results import ClassificationResult, EmbeddingResult
from edgeformer_runtime.preprocess.text import RawText, TextEncoder

Result = TypeVar("Result", ClassificationResult, EmbeddingResult)


class TextPipeline(Pipeline[RawText, Result]):
    """What text pipelines share: the encoder, and what one input looks like."""

    def __init__(self, bundle: Bundle, engine: Engine, owned: bool = False) -> None:
        """Use `edgeformer_runtime.load`."""
        super().__init__(bundle, engine, owned)
        spec = bundle.manifest.preprocessing
        self._encoder = TextEncoder(spec, _tokenizer_json(bundle), bundle.manifest.programs)

    def prepare(self, raw: RawText) -> Prepared:
        """Encode a text, a pair of texts or token ids in the smallest bucket that fits."""
        encoded = self._encoder.encode(raw)
        return Prepared(encoded.program, encoded.inputs, encoded.truncated)

    def with_statistics(self, result: Result, statistics: Statistics) -> Result:
        """The same answer with what it cost."""
        return replace(result, statistics=statistics)

    def is_batch(self, raw: Any) -> bool:
        """A list of anything but integers is a batch; a tuple of two texts is a pair."""
        return isinstance(raw, list) and not (raw and all(isinstance(item, (int, np.integer)) for item in raw))

    def raw_from_json(self, stored: Mapping[str, Any]) -> RawText:
        """{"text", "pair"?} or {"token_ids"}."""
        if "token_ids" in stored:
            return [int(token) for token in stored["token_ids"]]
        return (stored["text"], stored["pair"]) if "pair" in stored else cast(str, stored["text"])


class TextClassifier(TextPipeline[ClassificationResult]):
    """Scores every label of the bundle for a text."""

    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> ClassificationResult:
        """Labels and probabilities, best first; equal scores keep the bundle's order."""
        head = cast(Classification, self.bundle.manifest.postprocessing)
        logits = _only_row(outputs).astype(np.float64)  # (number of labels,)
        scores = ACTIVATIONS[head.activation](logits)
        order = np.argsort(-scores, kind="stable")
        return ClassificationResult(
            labels=tuple(head.labels[index] for index in order),
            scores=tuple(float(scores[index]) for index in order),
            truncated=prepared.truncated,
        )

    def expected_json(self, result: ClassificationResult) -> dict[str, Any]:
        """The labels and scores."""
        return result.to_json()


class TextEmbedder(TextPipeline[EmbeddingResult]):
    """Gives a text's embedding."""

    def answer(self, outputs: Mapping[str, Tensor], prepared: Prepared) -> EmbeddingResult:
        """The program's output as a vector."""
        return EmbeddingResult(_only_row(outputs).astype(np.float32), truncated=prepared.truncated)

    def expected_json(self, result: EmbeddingResult) -> dict[str, Any]:  # noqa: ARG002
        """Nothing: the answer is the program's output."""
        return {}


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (N,) that sum to one, without overflow at any finite logits (N,)."""
    exponents = np.exp(logits - logits.max())
    return cast(NDArray[np.float64], exponents / exponents.sum())


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Independent probabilities (N,), without overflow at any finite logits (N,)."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


ACTIVATIONS = {"softmax": softmax, "sigmoid": sigmoid}


def _only_row(outputs: Mapping[str, Tensor]) -> Tensor:
    """The only output's only row, finite."""
    (name, output), *_ = outputs.items()
    if not np.isfinite(output).all():
        raise EngineError(
            f"the model's output {name!r} holds NaN or infinity: run verify, or convert at a higher precision"
        )
    return cast(Tensor, output[0])


def _tokenizer_json(bundle: Bundle) -> str | None:
    name = bundle.manifest.preprocessing.tokenizer
    if name is None:
        return None
    try:
        return bundle.read_bytes(name).decode("utf-8")
    except UnicodeDecodeError:
        raise BundleError(f"{name}: expected UTF-8 text") from None
