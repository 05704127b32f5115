"""The answers of pipelines, what they offer and cost, and how those of one program are made of its output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import numpy as np

from edgeformer_runtime.bundle import strict_json
from edgeformer_runtime.bundle.specs import Classification, Embedding, Score
from edgeformer_runtime.engines import Tensor
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.tasks.programs import ZeroShotOptions, entailment_of

if TYPE_CHECKING:
    from typing import Self  # from Python 3.11 on

    from numpy.typing import NDArray


class Cost(Protocol):
    """What every answer says of its cost; a frozen dataclass of numbers."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def total_ms(self) -> float:
        """Wall clock of all."""

    @property
    def peak_rss_bytes(self) -> int:
        """The whole process's largest resident memory so far."""


class Result(Protocol):
    """What the answers of every task offer; a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def truncated(self) -> bool:
        """The input was too long and lost its end."""

    @property
    def statistics(self) -> Cost | None:
        """What the answer cost; None where it was not measured."""

    def to_json(self) -> dict[str, Any]:
        """All but the statistics as JSON values."""

    def to_frame(self) -> tuple[dict[str, Any], bytes]:
        """The answer as a helper process sends it: JSON values and bytes."""

    @classmethod
    def from_frame(cls, header: dict[str, Any], body: bytes, head: Any) -> Result:
        """The answer that a helper process sent, if a bundle with this postprocessing could have given it.

        Raises:
            BundleError, KeyError, TypeError, ValueError, AttributeError: it could not.
        """


class ProgramResult(Result, Protocol):
    """An answer that is the output of one program."""

    def expected_json(self) -> dict[str, Any]:
        """What vectors store of the answer besides the program's outputs."""


def header_of(result: Any) -> tuple[dict[str, Any], bytes]:
    """`Result.to_frame` of answers that are JSON values."""
    return {"result": strict_json.to_data(result)}, b""


class JsonResult:
    """What answers share that are JSON values: the frame in which a helper process sends them, and its checks."""

    def to_json(self) -> dict[str, Any]:
        """The answer as JSON."""
        raise NotImplementedError

    def expected_json(self) -> dict[str, Any]:
        """What vectors store of the answer besides the program's outputs: all of it."""
        return self.to_json()

    def to_frame(self) -> tuple[dict[str, Any], bytes]:
        """See `Result.to_frame`."""
        return header_of(self)

    @classmethod
    def from_frame(cls, header: dict[str, Any], body: bytes, head: Any) -> Self:  # noqa: ARG003
        """See `Result.from_frame`."""
        result = strict_json.from_data(cls, header["result"], "answer")
        result.check(head)
        return result

    def check(self, head: Any) -> None:
        """Refuse what no answer under the manifest's postprocessing can be.

        Raises:
            ValueError: it says what is wrong.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Statistics:
    """What one answer cost; `peak_rss_bytes` is the whole process's largest resident memory so far."""

    preprocess_ms: float
    run_ms: float
    postprocess_ms: float
    peak_rss_bytes: int

    @property
    def total_ms(self) -> float:
        """The sum of the stages."""
        return self.preprocess_ms + self.run_ms + self.postprocess_ms


@dataclass(frozen=True)
class ClassificationResult(JsonResult):
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

    def check(self, head: Classification) -> None:
        """See `JsonResult.check`: the manifest's labels, each with a probability."""
        if sorted(self.labels) != sorted(head.labels) or len(self.scores) != len(self.labels):
            raise ValueError("its labels are not the manifest's")
        if not all(math.isfinite(score) and 0 <= score <= 1 for score in self.scores):
            raise ValueError("a score is none")


@dataclass(frozen=True)
class ScoreResult(JsonResult):
    """One number.

    Attributes:
        score: of the text, or of the pair.
        truncated: the input was too long and lost its end.
        statistics: what the answer cost; None where it was not measured.
    """

    score: float
    truncated: bool = False
    statistics: Statistics | None = None

    def to_json(self) -> dict[str, Any]:
        """{"score": number}."""
        return {"score": self.score}

    def expected_json(self) -> dict[str, Any]:
        """What vectors store of the answer besides the program's outputs: nothing, it is computed from the output."""
        return {}

    def check(self, head: Score) -> None:
        """See `JsonResult.check`: a number, of a sigmoid from 0 to 1."""
        if not math.isfinite(self.score) or (head.activation == "sigmoid" and not 0 <= self.score <= 1):
            raise ValueError("its score is none")


@dataclass(frozen=True)
class Fill:
    """A token for a mask.

    Attributes:
        token: its id.
        text: what it writes by itself; ## and the like before a token that continues a word stay.
        score: its probability among all tokens.
        mask: the number of the mask in the text, from 0 on.
    """

    token: int
    text: str
    score: float
    mask: int = 0


@dataclass(frozen=True)
class FillResult(JsonResult):
    """Tokens for the masks of a text.

    Attributes:
        fills: of each mask its best ones, best first; masks in the order of the text.
        truncated: the input was too long and lost its end.
        statistics: what the answer cost; None where it was not measured.
    """

    fills: tuple[Fill, ...]
    truncated: bool = False
    statistics: Statistics | None = None

    @property
    def masks(self) -> int:
        """How many masks the text has."""
        return max((fill.mask for fill in self.fills), default=-1) + 1

    def to_json(self) -> dict[str, Any]:
        """{"fills": [{"token", "text", "score"}]}, of a text with several masks each with "mask", too."""
        left_out = () if self.masks > 1 else ("mask",)
        return {
            "fills": [{key: each for key, each in vars(fill).items() if key not in left_out} for fill in self.fills]
        }

    def check(self, head: Any) -> None:  # noqa: ARG002
        """See `JsonResult.check`: ids of tokens, and probabilities."""
        if not all(fill.token >= 0 and fill.mask >= 0 and 0 <= fill.score <= 1 for fill in self.fills):
            raise ValueError("a fill is none")


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

    def to_frame(self) -> tuple[dict[str, Any], bytes]:
        """See `Result.to_frame`."""
        header = {"truncated": self.truncated, "statistics": strict_json.to_data(self.statistics)}
        return header, np.ascontiguousarray(self.vector, np.float32).tobytes()

    @classmethod
    def from_frame(cls, header: dict[str, Any], body: bytes, head: Embedding) -> EmbeddingResult:
        """See `Result.from_frame`: it has as many finite numbers as the manifest says."""
        vector = np.frombuffer(body, np.float32).copy()
        truncated = header["truncated"]
        if vector.shape != (head.dim,) or not np.isfinite(vector).all() or not isinstance(truncated, bool):
            raise ValueError(f"expected {head.dim} finite numbers, found {vector.shape}")
        return cls(vector, truncated, strict_json.from_data(Statistics, header["statistics"], "answer"))


# From a program's only output to an answer: what the tasks of all kinds of input share.


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
    return cast("NDArray[np.float64]", exponents / exponents.sum())


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Independent probabilities (N,), without overflow at any finite logits (N,)."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small))


ACTIVATIONS = {"softmax": softmax, "sigmoid": sigmoid}


def finite_row(outputs: Mapping[str, Tensor]) -> Tensor:
    """The first output's only row.

    Raises:
        EngineError: it holds NaN or infinity.
    """
    (name, output), *_ = outputs.items()
    return cast(Tensor, finite(output, name)[0])


def finite(output: Tensor, name: str) -> Tensor:
    """An output, by its name for messages.

    Raises:
        EngineError: it holds NaN or infinity.
    """
    if not np.isfinite(output).all():
        raise EngineError(
            f"the model's output {name!r} holds NaN or infinity: run verify, or convert at a higher precision"
        )
    return output
