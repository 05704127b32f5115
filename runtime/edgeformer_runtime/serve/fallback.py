"""A bigger model elsewhere, asked where the device is not sure. Only then does an input leave the device."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgeformer_runtime.bundle.manifest import Classification, Manifest
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.serve.inputs import JSON_TYPE, Answer, ClassificationAnswer, TranscriptAnswer
from edgeformer_runtime.serve.options import FallbackOptions
from edgeformer_runtime.serve.refusals import first_problem

FROM_DEVICE = "X-EdgeFormer-Fallback"
"""A request with this header comes from a device in doubt: who gets it does not ask anybody else."""

MAX_ANSWER_BYTES = 4 << 20
MAX_CONNECTIONS = 16

AnyAnswer = TypeVar("AnyAnswer", bound=Answer)


class FallbackError(Exception):
    """The fallback gave no answer that can be used; one line says why."""


class Fallback:
    """Asks a service that takes this one's requests."""

    def __init__(self, options: FallbackOptions, manifest: Manifest) -> None:
        """Connections are made when they are needed. `close` ends them.

        Args:
            options: whom to ask.
            manifest: of the bundle in whose place the fallback answers.
        """
        self.options = options
        self.manifest = manifest
        self._client = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=MAX_CONNECTIONS), timeout=options.timeout_s, follow_redirects=False
        )

    def doubts(self, answer: Answer) -> bool:
        """Whether an answer of the device is too unsure."""
        return answer.confidence is not None and answer.confidence < self.options.below

    async def ask(self, device: AnyAnswer, body: bytes, content_type: str, query: str) -> AnyAnswer:
        """The fallback's answer to a request.

        Args:
            device: the device's own answer, whose confidence and statistics stay.
            body: the request's body.
            content_type: of the body.
            query: of the request, as "top=3".

        Raises:
            FallbackError: it cannot be reached, takes too long, or its answer is none to this task.
        """
        try:
            document = await asyncio.wait_for(self._post(body, content_type, query), self.options.timeout_s)
            found = read_answer(device, document, self.manifest)
        except (asyncio.TimeoutError, httpx.TimeoutException):  # noqa: UP041  (another class in Python 3.10)
            raise FallbackError(f"no answer within {self.options.timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise FallbackError(f"{type(error).__name__}: {error}".removesuffix(": ")) from None
        except ForeignAnswerError as error:
            raise FallbackError(f"its answer is another than expected: {error}") from None
        return device.model_copy(update=found | {"answered_by": "fallback", "fallback_error": None})

    async def _post(self, body: bytes, content_type: str, query: str) -> bytes:
        # A compressed answer could have any size once it is read.
        headers = {"Content-Type": content_type, FROM_DEVICE: "1", "Accept-Encoding": "identity"}
        url = httpx.URL(self.options.url).copy_merge_params(httpx.QueryParams(query))
        async with self._client.stream("POST", url, content=body, headers=headers) as response:
            if response.status_code != httpx.codes.OK:
                raise FallbackError(f"it answered with the status {response.status_code}")
            kind = response.headers.get("content-type", "")
            if kind.partition(";")[0].strip().lower() != JSON_TYPE:
                raise FallbackError(f"its answer has the content type {shorten(kind, 60)}, expected {JSON_TYPE}")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise FallbackError("its answer is compressed, expected it as it is")
            document = bytearray()
            async for chunk in response.aiter_raw():
                document += chunk
                if len(document) > MAX_ANSWER_BYTES:
                    raise FallbackError(f"its answer has more than {MAX_ANSWER_BYTES} bytes")
            return bytes(document)

    async def close(self) -> None:
        """End the connections."""
        await self._client.aclose()


# Answers of a fallback, which are believed only if the bundle itself could have given them.


SUM_TOLERANCE = 1e-3
"""How far a softmax's scores may be from a sum of one: they may have been rounded."""
DURATION_TOLERANCE_S = 1.0
"""How far two decoders may disagree about how long a sound is, of which formats with frames state an estimate."""


class ForeignAnswerError(ValueError):
    """An answer that the bundle could not have given; one line says why."""


class _Foreign(BaseModel):
    """A document of finite numbers whose values are not converted; what else it holds is not taken over."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True)


_Probability = Annotated[float, Field(ge=0, le=1)]
_Seconds = Annotated[float, Field(ge=0)]


class _Scores(_Foreign):
    labels: list[str] = Field(min_length=1)
    scores: list[_Probability]
    truncated: bool = False


class _Word(_Foreign):
    start: _Seconds
    end: _Seconds
    text: str
    probability: _Probability


class _Segment(_Foreign):
    start: _Seconds
    end: _Seconds
    text: str
    words: list[_Word] = []
    mean_log_probability: Annotated[float, Field(le=0)] | None = None
    no_speech_probability: _Probability | None = None
    compression_ratio: _Seconds | None = None
    temperature: _Seconds | None = None
    tokens: list[Annotated[int, Field(ge=0, lt=1 << 31)]] = []
    doubtful: bool = False


class _Transcript(_Foreign):
    text: str
    language: Annotated[str, Field(pattern="^[a-z]{2,8}$")] | None = None
    duration: _Seconds | None = None
    segments: list[_Segment] = []


def read_answer(device: Answer, document: bytes, manifest: Manifest) -> dict[str, Any]:
    """What a fallback's document has in place of the device's answer.

    Raises:
        ForeignAnswerError: the bundle could not have given it.
    """
    try:
        if isinstance(device, ClassificationAnswer):
            return _scores(_Scores.model_validate_json(document), device, manifest)
        if isinstance(device, TranscriptAnswer):
            return _transcript(_Transcript.model_validate_json(document), device)
    except ValidationError as error:
        raise ForeignAnswerError(first_problem(error)) from None
    raise ForeignAnswerError("the task has no fallback")


def _scores(found: _Scores, device: ClassificationAnswer, manifest: Manifest) -> dict[str, Any]:
    head = manifest.postprocessing
    if not isinstance(head, Classification):
        raise ForeignAnswerError("labels: the bundle has none")
    if len(found.scores) != len(found.labels):
        raise ForeignAnswerError(f"scores: expected one for each of {len(found.labels)} labels")
    if len(set(found.labels)) != len(found.labels) or not set(found.labels) <= set(head.labels):
        raise ForeignAnswerError("labels: expected each of the bundle's at most once, and no others")
    if sorted(found.scores, reverse=True) != found.scores:
        raise ForeignAnswerError("scores: expected the best one first")
    total, is_whole = sum(found.scores), len(found.labels) == len(head.labels)
    if head.activation == "softmax" and (total > 1 + SUM_TOLERANCE or (is_whole and total < 1 - SUM_TOLERANCE)):
        raise ForeignAnswerError(f"scores: expected a sum of 1, found {total:g}")
    shown = len(device.labels)  # as many as were asked for, although the fallback may not know that option
    return {"labels": found.labels[:shown], "scores": found.scores[:shown], "truncated": found.truncated}


def _transcript(found: _Transcript, device: TranscriptAnswer) -> dict[str, Any]:
    length = device.duration if device.duration is not None else found.duration
    latest = float("inf") if length is None else length + DURATION_TOLERANCE_S
    if found.duration is not None and length is not None and abs(found.duration - length) > DURATION_TOLERANCE_S:
        raise ForeignAnswerError(f"duration: expected {length:g} s, found {found.duration:g}")
    _check_times("segments", found.segments, latest)
    for segment in found.segments:
        _check_times("words", segment.words, latest)
    return found.model_dump(exclude={"segments"}) | {
        "segments": [segment.model_dump(exclude_unset=True) for segment in found.segments]
    }


def _check_times(what: str, timed: Sequence[_Word | _Segment], latest: float) -> None:
    before = 0.0
    for item in timed:
        if not before <= item.start <= item.end <= latest:
            raise ForeignAnswerError(f"{what}: expected rising times of at most {latest:g} s")
        before = item.start
