"""The addresses of tasks whose answer is one program's output: texts or an image in, labels or an embedding out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.bundle.specs import Classification
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.pipelines.results import ClassificationResult, EmbeddingResult, FillResult, ScoreResult
from edgeformer_runtime.pipelines.tokens import EntityResult, SpanResult
from edgeformer_runtime.preprocess.text import RawText
from edgeformer_runtime.serve.app import documents, file_body, respond
from edgeformer_runtime.serve.fallback import Foreign, ForeignAnswerError, Probability, ReadFallback
from edgeformer_runtime.serve.inputs import (
    JSON_TYPE,
    Answer,
    Inputs,
    Refusal,
    cost_of,
    first_problem,
    media_type,
    read_file,
)
from edgeformer_runtime.serve.metrics import ANSWER_PATH
from edgeformer_runtime.serve.service import RequestPlan, Service, answer_at_once
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

MAX_TOKEN_IDS = 1 << 16
"""In one input: far more than any bundle has positions."""
MAX_JSON_VALUES = 1 << 18
"""In one document: objects in Python take up to a hundred times the bytes of their JSON, and seconds to be made."""
SUM_TOLERANCE = 1e-3
"""How far a softmax's scores may be from a sum of one: they may have been rounded."""


# Texts, as JSON.


class Strict(BaseModel):
    """A document whose every key is known, and whose values are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TextInput(Strict):
    """One text, a text and its pair, or token ids in their place."""

    text: str | None = None
    pair: str | None = None
    token_ids: list[int] | None = Field(None, max_length=MAX_TOKEN_IDS, fail_fast=True)

    @model_validator(mode="after")
    def _one_of(self) -> TextInput:
        if (self.text is None) == (self.token_ids is None) or (self.pair is not None and self.text is None):
            raise ValueError('expected {"text"}, {"text", "pair"} or {"token_ids"}')
        return self

    def raw(self) -> RawText:
        """What a text pipeline takes."""
        if self.token_ids is not None:
            return self.token_ids
        return (self.text or "", self.pair) if self.pair is not None else (self.text or "")


class TextInputs(Strict):
    """Several texts, answered in this order by one answer."""

    inputs: list[TextInput] = Field(min_length=1, fail_fast=True)


class ClassifyQuery(BaseModel):
    """Options in the address of a classification."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    top: int | None = Field(None, ge=1, description="How many labels to give, best first; default: all.")


class ClassifyTextQuery(ClassifyQuery):
    """Options in the address of a classification of texts."""

    labels: list[Annotated[str, Field(min_length=1)]] | None = Field(
        None,
        min_length=1,
        max_length=MAX_ZERO_SHOT_LABELS,
        description="Labels to choose from, of a model of natural language inference; default: the bundle's.",
    )
    template: str = Field(DEFAULT_TEMPLATE, pattern=r"\{\}", description="A sentence with {} for each of the labels.")
    multi_label: bool = Field(False, description="Any number of the labels may hold.")

    def options(self) -> ZeroShotOptions | None:
        """Of the pipeline's calls."""
        if self.labels is None:
            return None
        return ZeroShotOptions(tuple(self.labels), self.template, self.multi_label)


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


class EmbedQuery(BaseModel):
    """An embedding and a score take no options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_texts(body: bytes, content_type: str, max_inputs: int) -> Inputs[RawText]:
    """Texts from JSON.

    Raises:
        Refusal: 400 no JSON, 413 too many inputs, 415 another content type, 422 another document than expected.
    """
    if media_type(content_type) != JSON_TYPE:
        raise Refusal(415, f"expected Content-Type: {JSON_TYPE}, found {content_type or 'none'}")
    if _has_many_values(body):
        raise Refusal(413, f"expected at most {MAX_JSON_VALUES} values in JSON, found more")
    try:
        document: Any = from_json(body)
    except ValueError as error:
        raise Refusal(400, f"expected JSON: {error}") from None
    several = isinstance(document, dict) and "inputs" in document
    _check_keys(document, TextInputs if several else TextInput)
    found = document["inputs"] if several else []
    if isinstance(found, list) and len(found) > max_inputs:  # before each of them is looked at
        raise Refusal(413, f"expected at most {max_inputs} inputs at once, found {len(found)}")
    for item in found if isinstance(found, list) else ():
        _check_keys(item, TextInput)
    try:
        texts = TextInputs.model_validate(document).inputs if several else [TextInput.model_validate(document)]
    except ValidationError as error:
        raise Refusal(422, first_problem(error)) from None

    def single_body(index: int) -> bytes:
        return texts[index].model_dump_json(exclude_none=True).encode()

    return Inputs(tuple(text.raw() for text in texts), several, single_body, JSON_TYPE)


def _has_many_values(document: bytes) -> bool:
    """Whether a document has more values than are taken, found without making them."""
    if _count_values(document) < MAX_JSON_VALUES:
        return False
    plain = document.replace(rb"\\", b"").replace(rb"\"", b"")
    if plain.count(b'"') > 4 * MAX_JSON_VALUES:
        return True
    outside = b"".join(plain.split(b'"')[::2])  # texts may have any number of commas
    return _count_values(outside) >= MAX_JSON_VALUES


def _count_values(document: bytes) -> int:
    return document.count(b",") + document.count(b"[") + document.count(b"{")


def _check_keys(document: Any, kind: type[Strict]) -> None:
    """Refuse the first unknown key: the model would list all of them.

    Raises:
        Refusal: 422, there is one.
    """
    unknown = (
        next((key for key in document if key not in kind.model_fields), None) if isinstance(document, dict) else None
    )
    if unknown is not None:
        raise Refusal(422, f"{shorten(unknown)[1:-1]}: expected none but {', '.join(kind.model_fields)}")


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


TEXT_BODY = {
    JSON_TYPE: {
        "schema": {
            "anyOf": [
                TextInput.model_json_schema(),
                {
                    "type": "object",
                    "required": ["inputs"],
                    "additionalProperties": False,
                    "properties": {"inputs": {"type": "array", "minItems": 1, "items": TextInput.model_json_schema()}},
                },
            ]
        }
    }
}


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

        def to_answer(result: ScoreResult) -> ScoreAnswer:
            return ScoreAnswer(truncated=result.truncated, statistics=cost_of(result), **result.to_json())

        return await respond(service, request, RequestPlan(read, answer_at_once, to_answer))


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


def add_image_classification(app: FastAPI, service: Service) -> None:
    """Let an application classify images."""

    @app.post(ANSWER_PATH, summary="Classify an image", **documents(ClassificationAnswer, file_body("image")))
    async def answer(request: Request, query: Annotated[ClassifyQuery, Query()]) -> Response:
        read = partial(read_file, kind="image")
        return await respond(service, request, RequestPlan(read, answer_at_once, *_labels(query.top)))


def add_audio_classification(app: FastAPI, service: Service) -> None:
    """Let an application classify recordings."""

    @app.post(ANSWER_PATH, summary="Classify a recording", **documents(ClassificationAnswer, file_body("audio")))
    async def answer(request: Request, query: Annotated[ClassifyQuery, Query()]) -> Response:
        read = partial(read_file, kind="audio")
        return await respond(service, request, RequestPlan(read, answer_at_once, *_labels(query.top)))


def add_image_embedding(app: FastAPI, service: Service) -> None:
    """Let an application embed images."""

    @app.post(ANSWER_PATH, summary="Embed an image", **documents(EmbeddingAnswer, file_body("image")))
    async def answer(request: Request, query: Annotated[EmbedQuery, Query()]) -> Response:  # noqa: ARG001
        read = partial(read_file, kind="image")
        return await respond(service, request, RequestPlan(read, answer_at_once, _embedding))
