"""The service's answers as documents: what the pipeline found, how sure it is, and who says so."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, Literal

from pydantic import BaseModel

from edgeformer_runtime.pipelines.results import ClassificationResult, EmbeddingResult
from edgeformer_runtime.pipelines.transcript import Transcript

Result = ClassificationResult | EmbeddingResult | Transcript


class Answer(BaseModel):
    """What all answers say.

    Attributes:
        answered_by: the device, or the service that it asks in doubt.
        confidence: the device's, 0 to 1, whoever answered; None where the task has none.
        fallback_error: why the device's answer stands although it is doubtful.
        statistics: what the device's answer cost.
    """

    answered_by: Literal["device", "fallback"] = "device"
    confidence: float | None = None
    fallback_error: str | None = None
    statistics: dict[str, float] | None = None


class ClassificationAnswer(Answer):
    """Labels and their probabilities, best first; `truncated`: the device saw a part of the input only."""

    labels: list[str]
    scores: list[float]
    truncated: bool = False


class EmbeddingAnswer(Answer):
    """An embedding; `truncated`: the device saw a part of the input only."""

    embedding: list[float]
    truncated: bool = False


class TranscriptAnswer(Answer):
    """A transcript: its text, language, length in seconds, and segments as `edgeformer-runtime run --json` has them."""

    text: str
    language: str | None = None
    duration: float | None = None
    segments: list[dict[str, Any]] = []


class Answers(BaseModel):
    """The answers of a request with several inputs, in their order."""

    answers: list[ClassificationAnswer | EmbeddingAnswer]


def device_answer(result: Result, top: int | None = None) -> Answer:
    """A pipeline's result as an answer of the device, with its `top` best labels, None: all."""
    statistics = None if result.statistics is None else asdict(result.statistics)
    if isinstance(result, Transcript):
        return TranscriptAnswer(confidence=_transcript_confidence(result), statistics=statistics, **result.to_json())
    if isinstance(result, EmbeddingResult):
        return EmbeddingAnswer(truncated=result.truncated, statistics=statistics, **result.to_json())
    shown = result if top is None else result.top(top)
    return ClassificationAnswer(
        confidence=result.score, truncated=result.truncated, statistics=statistics, **shown.to_json()
    )


def _transcript_confidence(transcript: Transcript) -> float:
    """The least sure segment's: the geometric mean of its tokens' probabilities. Silence is certain."""
    return min((math.exp(segment.mean_log_probability) for segment in transcript.segments), default=1.0)
