"""The addresses of tasks whose answer is one program's output: texts or an image in, labels or an embedding out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.bundle.specs import Classification
from edgeformer_runtime.pipelines.results import ClassificationResult, EmbeddingResult, FillResult, ScoreResult
from edgeformer_runtime.pipelines.tokens import EntityResult, SpanResult
from edgeformer_runtime.serve.app import documents, file_body, respond
from edgeformer_runtime.serve.fallback import Foreign, ForeignAnswerError, Probability, ReadFallback
from edgeformer_runtime.serve.inputs import (
    JSON_TYPE,
    TEXT_BODY,
    Answer,
    Inputs,
    Refusal,
    cost_of,
    media_type,
    read_file,
    read_texts,
)
from edgeformer_runtime.serve.metrics import ANSWER_PATH
from edgeformer_runtime.serve.service import RequestPlan, Service, answer_at_once
from edgeformer_runtime.tasks.image_text import PHOTO_TEMPLATE, ImageTextOptions
from edgeformer_runtime.tasks.programs import DEFAULT_TEMPLATE, MAX_ZERO_SHOT_LABELS, ZeroShotOptions
from edgeformer_runtime.tasks.tokens import (
    DEFAULT_FILLS,
    MAX_ANSWERS,
    MAX_FILLS,
    MAX_TARGETS,
    EntityOptions,
    FillOptions,
    SpanOptions,
)
from edgeformer_runtime.tasks.vision import DetectionOptions

if TYPE_CHECKING:
    from edgeformer_runtime.pipelines.vision import DetectionResult, SegmentationResult

SUM_TOLERANCE = 1e-3
"""How far a softmax's scores may be from a sum of one: they may have been rounded."""


# Options in addresses.


CallLabels = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_ZERO_SHOT_LABELS)]
"""Of one call, in place of a bundle's own."""


class ClassifyQuery(BaseModel):
    """Options in the address of a classification."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    top: int | None = Field(None, ge=1, description="How many labels to give, best first; default: all.")


class ClassifyTextQuery(ClassifyQuery):
    """Options in the address of a classification of texts."""

    labels: CallLabels | None = Field(
        None, description="Labels to choose from, of a model of natural language inference; default: the bundle's."
    )
    template: str = Field(DEFAULT_TEMPLATE, pattern=r"\{\}", description="A sentence with {} for each of the labels.")
    multi_label: bool = Field(False, description="Any number of the labels may hold.")

    def options(self) -> ZeroShotOptions | None:
        """Of the pipeline's calls."""
        if self.labels is None:
            return None
        return ZeroShotOptions(tuple(self.labels), self.template, self.multi_label)


class CompareQuery(ClassifyQuery):
    """Options in the address of an image beside texts."""

    labels: CallLabels | None = Field(None, description="To choose from; may come several times.")
    template: str = Field(PHOTO_TEMPLATE, pattern=r"\{\}", description="A sentence with {} for each of the labels.")
    query: str | None = Field(None, min_length=1, description="A text to score the image by, in place of labels.")

    def options(self) -> ImageTextOptions | None:
        """Of the pipeline's calls."""
        if self.labels is None and self.query is None:
            return None
        return ImageTextOptions(None if self.labels is None else tuple(self.labels), self.template, self.query)


class QuestionQuery(BaseModel):
    """Options in the address of a question."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    top: int = Field(1, ge=1, le=MAX_ANSWERS, description="How many answers to give, best first.")
    unanswerable: bool = Field(False, description="An answer may be that the text has none: an empty one.")


class EntityQuery(BaseModel):
    """Options in the address of entities."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    aggregation: Literal["none", "simple", "first", "average", "max"] | None = Field(
        None, description="How tokens become entities; default: as the bundle says."
    )


class FillQuery(BaseModel):
    """Options in the address of masked tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    top: int = Field(DEFAULT_FILLS, ge=1, le=MAX_FILLS, description="How many tokens for each mask, best first.")
    targets: list[str] | None = Field(
        None,
        min_length=1,
        max_length=MAX_TARGETS,
        description="The only words that are wanted; may come several times.",
    )


class DetectQuery(BaseModel):
    """Options in the address of objects."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    top: int | None = Field(None, ge=1, description="How many objects to give, best first; default: all.")
    threshold: float | None = Field(
        None, ge=0, le=1, description="What an object's score is above; default: as the bundle says."
    )


class SegmentQuery(BaseModel):
    """Options in the address of segments."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    top: int | None = Field(None, ge=1, description="How many segments to give, the largest; default: all.")


class EmbedQuery(BaseModel):
    """An embedding and a score take no options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# Answers.


class ClassificationAnswer(Answer):
    """Labels and their probabilities, best first; `truncated`: the device saw a part of the input only."""

    labels: list[str]
    scores: list[float]
    truncated: bool = False


class ScoreAnswer(Answer):
    """A score; `truncated`: the device saw a part of the input only."""

    score: float
    truncated: bool = False


class EmbeddingAnswer(Answer):
    """An embedding; `truncated`: the device saw a part of the input only."""

    embedding: list[float]
    truncated: bool = False


class Place(BaseModel):
    """Characters of the text that was given, from `start` to before `end`; an empty answer: there is none."""

    text: str
    start: int
    end: int
    score: float


class EntityPlace(Place):
    """An entity."""

    label: str


class SpanAnswer(Answer):
    """Answers to a question, best first."""

    answers: list[Place]


class EntityAnswer(Answer):
    """Entities, in the order of the text."""

    entities: list[EntityPlace]


class FilledToken(BaseModel):
    """A token for a mask; `mask` is the number of the mask, in texts with several."""

    token: int
    text: str
    score: float
    mask: int | None = None


class FillAnswer(Answer):
    """Tokens for the masks of a text, best first; `truncated`: the device saw a part of the text only."""

    fills: list[FilledToken]
    truncated: bool = False


class FoundObject(BaseModel):
    """An object; `box` is left, top, right and bottom in pixels of the image that was given."""

    label: str
    score: float
    box: list[float]


class DetectionAnswer(Answer):
    """Objects, best first."""

    objects: list[FoundObject]


class RunLengths(BaseModel):
    """Pixels of a label as COCO has them: rows and columns of the image, and runs down its columns, others first."""

    size: list[int]
    counts: list[int]


class FoundSegment(BaseModel):
    """A label's pixels, and their share of the image's."""

    label: str
    share: float
    mask: RunLengths


class SegmentationAnswer(Answer):
    """What is where in an image, in the order of the labels."""

    segments: list[FoundSegment]


class Answers(BaseModel):
    """The answers of a request with several inputs, in their order."""

    answers: list[ClassificationAnswer | ScoreAnswer | EmbeddingAnswer | SpanAnswer | EntityAnswer | FillAnswer]


def _labels(top: int | None) -> tuple[Callable[[ClassificationResult], Answer], ReadFallback]:
    """How results become answers with their `top` best labels, None: all; and how a fallback's answers are read."""

    def answer(result: ClassificationResult) -> ClassificationAnswer:
        shown = result if top is None else result.top(top)
        return ClassificationAnswer(
            confidence=result.score, truncated=result.truncated, statistics=cost_of(result), **shown.to_json()
        )

    return answer, _read_scores


def _embedding(result: EmbeddingResult) -> EmbeddingAnswer:
    return EmbeddingAnswer(truncated=result.truncated, statistics=cost_of(result), **result.to_json())


def _score(result: ScoreResult) -> ScoreAnswer:
    return ScoreAnswer(truncated=result.truncated, statistics=cost_of(result), **result.to_json())


class _Scores(Foreign):
    labels: list[str] = Field(min_length=1)
    scores: list[Probability]
    truncated: bool = False


def _read_scores(document: bytes, device: ClassificationAnswer, manifest: Manifest) -> dict[str, Any]:
    found, head = _Scores.model_validate_json(document), manifest.postprocessing
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


# The addresses.


def add_text_classification(app: FastAPI, service: Service) -> None:
    """Let an application classify texts."""

    @app.post(ANSWER_PATH, summary="Classify texts", **documents(ClassificationAnswer | Answers, TEXT_BODY))
    async def answer(request: Request, query: Annotated[ClassifyTextQuery, Query()]) -> Response:
        read = partial(read_texts, max_inputs=service.options.max_inputs)
        options = query.options()
        to_answer, read_fallback = _labels(query.top)
        work = partial(answer_at_once, options=options)
        # A bigger model elsewhere was trained for the bundle's labels.
        plan = RequestPlan(read, work, to_answer, read_fallback if options is None else None)
        return await respond(service, request, plan)


def add_text_embedding(app: FastAPI, service: Service) -> None:
    """Let an application embed texts."""

    @app.post(ANSWER_PATH, summary="Embed texts", **documents(EmbeddingAnswer | Answers, TEXT_BODY))
    async def answer(request: Request, query: Annotated[EmbedQuery, Query()]) -> Response:  # noqa: ARG001
        read = partial(read_texts, max_inputs=service.options.max_inputs)
        return await respond(service, request, RequestPlan(read, answer_at_once, _embedding))


def add_text_scoring(app: FastAPI, service: Service) -> None:
    """Let an application score texts."""

    @app.post(ANSWER_PATH, summary="Score texts", **documents(ScoreAnswer | Answers, TEXT_BODY))
    async def answer(request: Request, query: Annotated[EmbedQuery, Query()]) -> Response:  # noqa: ARG001
        read = partial(read_texts, max_inputs=service.options.max_inputs)
        return await respond(service, request, RequestPlan(read, answer_at_once, _score))


def add_question_answering(app: FastAPI, service: Service) -> None:
    """Let an application answer questions about texts."""

    @app.post(ANSWER_PATH, summary="Answer questions about texts", **documents(SpanAnswer | Answers, TEXT_BODY))
    async def answer(request: Request, query: Annotated[QuestionQuery, Query()]) -> Response:
        read = partial(read_texts, max_inputs=service.options.max_inputs)
        work = partial(answer_at_once, options=SpanOptions(query.top, query.unanswerable))

        def to_answer(result: SpanResult) -> SpanAnswer:
            return SpanAnswer(statistics=cost_of(result), **result.to_json())

        return await respond(service, request, RequestPlan(read, work, to_answer))


def add_token_classification(app: FastAPI, service: Service) -> None:
    """Let an application find entities in texts."""

    @app.post(ANSWER_PATH, summary="Find entities in texts", **documents(EntityAnswer | Answers, TEXT_BODY))
    async def answer(request: Request, query: Annotated[EntityQuery, Query()]) -> Response:
        read = partial(read_texts, max_inputs=service.options.max_inputs)
        work = partial(answer_at_once, options=EntityOptions(query.aggregation))

        def to_answer(result: EntityResult) -> EntityAnswer:
            return EntityAnswer(statistics=cost_of(result), **result.to_json())

        return await respond(service, request, RequestPlan(read, work, to_answer))


def add_fill_mask(app: FastAPI, service: Service) -> None:
    """Let an application predict masked tokens."""

    @app.post(ANSWER_PATH, summary="Predict masked tokens", **documents(FillAnswer | Answers, TEXT_BODY))
    async def answer(request: Request, query: Annotated[FillQuery, Query()]) -> Response:
        read = partial(read_texts, max_inputs=service.options.max_inputs)
        targets = None if query.targets is None else tuple(query.targets)
        work = partial(answer_at_once, options=FillOptions(query.top, targets))

        def to_answer(result: FillResult) -> FillAnswer:
            return FillAnswer(truncated=result.truncated, statistics=cost_of(result), **result.to_json())

        return await respond(service, request, RequestPlan(read, work, to_answer))


def add_image_classification(app: FastAPI, service: Service, kind: str = "image") -> None:
    """Let an application classify images, or files of another kind."""

    @app.post(ANSWER_PATH, summary=f"Classify a file: {kind}", **documents(ClassificationAnswer, file_body(kind)))
    async def answer(request: Request, query: Annotated[ClassifyQuery, Query()]) -> Response:
        read = partial(read_file, kind=kind)
        return await respond(service, request, RequestPlan(read, answer_at_once, *_labels(query.top)))


def add_image_embedding(app: FastAPI, service: Service) -> None:
    """Let an application embed images."""

    @app.post(ANSWER_PATH, summary="Embed an image", **documents(EmbeddingAnswer, file_body("image")))
    async def answer(request: Request, query: Annotated[EmbedQuery, Query()]) -> Response:  # noqa: ARG001
        read = partial(read_file, kind="image")
        return await respond(service, request, RequestPlan(read, answer_at_once, _embedding))


def add_object_detection(app: FastAPI, service: Service) -> None:
    """Let an application find objects in images."""

    @app.post(ANSWER_PATH, summary="Find objects in an image", **documents(DetectionAnswer, file_body("image")))
    async def answer(request: Request, query: Annotated[DetectQuery, Query()]) -> Response:
        read = partial(read_file, kind="image")
        work = partial(answer_at_once, options=DetectionOptions(query.threshold))

        def to_answer(result: DetectionResult) -> DetectionAnswer:
            shown = result if query.top is None else result.top(query.top)
            return DetectionAnswer(statistics=cost_of(result), **shown.to_json())

        return await respond(service, request, RequestPlan(read, work, to_answer))


def add_image_segmentation(app: FastAPI, service: Service) -> None:
    """Let an application give each pixel of an image a label."""

    @app.post(ANSWER_PATH, summary="Segment an image", **documents(SegmentationAnswer, file_body("image")))
    async def answer(request: Request, query: Annotated[SegmentQuery, Query()]) -> Response:
        read = partial(read_file, kind="image")

        def to_answer(result: SegmentationResult) -> SegmentationAnswer:
            shown = result if query.top is None else result.top(query.top)
            return SegmentationAnswer(statistics=cost_of(result), **shown.to_json())

        return await respond(service, request, RequestPlan(read, answer_at_once, to_answer))


def add_image_text(app: FastAPI, service: Service) -> None:
    """Let an application embed images and texts, and compare them."""

    def read(body: bytes, content_type: str) -> Inputs[Any]:
        if media_type(content_type) != JSON_TYPE:
            return read_file(body, content_type, kind="image")
        found: Inputs[Any] = read_texts(body, content_type, service.options.max_inputs)
        if not all(isinstance(raw, str) for raw in found.raws):
            raise Refusal(422, 'expected {"text"}, without pair and token_ids')
        return replace(found, raws=tuple({"text": raw} for raw in found.raws))

    @app.post(
        ANSWER_PATH,
        summary="Compare an image with texts, or embed either",
        **documents(ClassificationAnswer | ScoreAnswer | EmbeddingAnswer | Answers, file_body("image") | TEXT_BODY),
    )
    async def answer(request: Request, query: Annotated[CompareQuery, Query()]) -> Response:
        labels, _ = _labels(query.top)
        kinds: dict[type, Any] = {ClassificationResult: labels, EmbeddingResult: _embedding, ScoreResult: _score}
        work = partial(answer_at_once, options=query.options())
        return await respond(service, request, RequestPlan(read, work, lambda result: kinds[type(result)](result)))
