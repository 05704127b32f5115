"""The addresses of generated text: prompts answered as JSON, and OpenAI's completions and chats, with their events.

OpenAI's form is the one that its clients and most other servers of language models speak. What of it has no meaning
here is refused by its name. A text that is asked for with `stream` comes in server-sent events (WHATWG HTML, 9.2), each
a part of the text as it is written.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import JSONResponse, StreamingResponse

from edgeformer_runtime.decoding.options import MAX_STOPS, GenerateOptions
from edgeformer_runtime.pipelines import IsCancelled, Pipeline
from edgeformer_runtime.pipelines.generation import FULL, LENGTH, GenerationResult, RawPrompt, TextGenerator
from edgeformer_runtime.pipelines.results import Result
from edgeformer_runtime.serve.app import documents, respond
from edgeformer_runtime.serve.inputs import (
    JSON_TYPE,
    MAX_TOKEN_IDS,
    TEXT_BODY,
    Answer,
    Inputs,
    Refusal,
    Strict,
    check_keys,
    cost_of,
    describe,
    first_problem,
    read_json,
    read_texts,
)
from edgeformer_runtime.serve.metrics import ANSWER_PATH, CHAT_PATH, COMPLETIONS_PATH
from edgeformer_runtime.serve.service import RequestPlan, Service
from edgeformer_runtime.serve.workers import Workers

MODELS_PATH = "/v1/models"
EVENTS_TYPE = "text/event-stream"
DEFAULT_COMPLETION_TOKENS = 16
"""As OpenAI's; a chat goes on until the model ends it, or the cache is full."""
MAX_MESSAGES = 4096


class GenerateQuery(BaseModel):
    """Options in the address of a text; see `GenerateOptions`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    max_tokens: int = Field(64, ge=1, le=1 << 16, description="The longest text, in tokens.")
    temperature: float = Field(0.0, ge=0, le=100, description="Above 0, tokens are drawn.")
    top_k: int = Field(0, ge=0, le=1 << 24, description="Draw among so many of the likeliest tokens; 0: all.")
    top_p: float = Field(1.0, gt=0, le=1, description="Draw among the likeliest tokens of this probability.")
    repetition_penalty: float = Field(1.0, gt=0, le=100, description="Above 1, what was said becomes less likely.")
    stop: list[str] = Field([], max_length=16, description="The text ends before one of these; may come several times.")
    seed: int = Field(0, ge=0, description="Of what is drawn.")
    special_tokens: bool = Field(False, description="Special tokens written out in the prompt are no plain text.")
    chat: bool = Field(False, description="Each prompt is what a user says: the model's chat template surrounds it.")
    suggest: int = Field(0, ge=0, le=100, description="In place of a text, so many of the likeliest next words.")

    def options(self) -> GenerateOptions:
        """What a text generator takes.

        Raises:
            InputError: an option has a value that none takes.
        """
        return GenerateOptions(**{**vars(self), "stop": tuple(self.stop)})


class SuggestedWord(BaseModel):
    """A word that may come next, and its probability."""

    word: str
    probability: float


class GenerationAnswer(Answer):
    """The text that follows a prompt, or the likeliest next words."""

    text: str | None = None
    tokens: list[int] | None = None
    finish_reason: str | None = None
    suggestions: list[SuggestedWord] | None = None


def add_text_generation(app: FastAPI, service: Service) -> None:
    """Let an application go on with prompts."""

    @app.post(ANSWER_PATH, summary="Go on with prompts", **documents(GenerationAnswer, TEXT_BODY))
    async def answer(request: Request, query: Annotated[GenerateQuery, Query()]) -> Response:
        read = partial(read_texts, max_inputs=service.options.max_inputs)
        work = partial(_generate, options=query.options())

        def to_answer(result: GenerationResult) -> GenerationAnswer:
            return GenerationAnswer(statistics=cost_of(result), **result.to_json())

        return await respond(service, request, RequestPlan(read, work, to_answer))

    add_openai(app, service)


async def _generate(workers: Workers, inputs: Inputs[Any], options: GenerateOptions) -> list[Result]:
    """One worker answers all prompts of a request; it gives up between two tokens."""

    def run_all(pipeline: Pipeline[Any, Any], is_cancelled: IsCancelled) -> list[Result]:
        return [_run(pipeline, raw, options, is_cancelled) for raw in inputs.raws]

    return await workers.run(run_all)


def _run(
    pipeline: Pipeline[Any, Any],
    raw: RawPrompt,
    options: GenerateOptions,
    is_cancelled: IsCancelled,
    on_text: Callable[[str], None] | None = None,
) -> GenerationResult:
    if isinstance(pipeline, TextGenerator):
        return pipeline.run(raw, options, is_cancelled=is_cancelled, on_text=on_text)
    pipe: Any = pipeline  # in a process of its own, which is ended instead
    found: GenerationResult = pipe.run(raw, options, on_text=on_text)
    return found


# OpenAI's form.


class StreamOptions(Strict):
    """What comes with the events."""

    include_usage: bool | None = None


class AskedText(Strict):
    """What completions and chats have in common; what has one value alone is here for clients that always send it."""

    model: str
    max_tokens: int | None = Field(None, ge=1, le=1 << 16)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=0, lt=1 << 63)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    presence_penalty: float | None = Field(None, ge=0, le=0)
    frequency_penalty: float | None = Field(None, ge=0, le=0)
    user: str | None = None
    top_k: int | None = Field(None, ge=0, le=1 << 24)
    repetition_penalty: float | None = Field(None, gt=0, le=100)

    default_tokens: ClassVar[int | None]
    """None: as many as the cache has room for."""

    @property
    def prompts(self) -> list[RawPrompt]:
        """One for each choice of the answer."""
        raise NotImplementedError

    def options(self, room: int) -> GenerateOptions:
        """What a text generator takes, `room` tokens at most. Where nothing is said, a token is drawn, as OpenAI does.

        Raises:
            InputError: an option has a value that none takes.
        """
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return GenerateOptions(
            max_tokens=self.max_tokens or self.default_tokens or room,
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=self.top_k or 0,
            repetition_penalty=self.repetition_penalty or 1.0,
            stop=tuple(stop[: MAX_STOPS + 1]),
            seed=secrets.randbits(63) if self.seed is None else self.seed,
        )


TokenIds = Annotated[list[int], Field(max_length=MAX_TOKEN_IDS, fail_fast=True)]


class AskedCompletion(AskedText):
    """The body of a request for completions: of one prompt or several, each a text or token ids."""

    prompt: str | TokenIds | list[str] | list[TokenIds]
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None

    default_tokens = DEFAULT_COMPLETION_TOKENS

    @property
    def prompts(self) -> list[RawPrompt]:
        """See `AskedText`."""
        several = isinstance(self.prompt, list) and bool(self.prompt) and not isinstance(self.prompt[0], int)
        return list(self.prompt) if several else [self.prompt]  # type: ignore[list-item, arg-type]


class TextPart(Strict):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(Strict):
    """A message of a chat."""

    role: str
    content: str | list[TextPart]

    def raw(self) -> dict[str, str]:
        """What a chat template takes."""
        parts = self.content
        return {"role": self.role, "content": parts if isinstance(parts, str) else "".join(each.text for each in parts)}


class AskedChat(AskedText):
    """The body of a request for the next message of a chat."""

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
    max_completion_tokens: int | None = Field(None, ge=1, le=1 << 16)

    default_tokens = None

    @property
    def prompts(self) -> list[RawPrompt]:
        """See `AskedText`."""
        return [[message.raw() for message in self.messages]]

    def options(self, room: int) -> GenerateOptions:
        """See `AskedText.options`."""
        return super().options(self.max_completion_tokens or room)


@dataclass(frozen=True)
class Form:
    """How a kind of request is read and answered.

    Attributes:
        asked: its body.
        prefix: of the answers' ids.
        kind, part_kind: the "object" of an answer, and of an event.
        choice: what an answer says of a text.
        part: what an event says of a part of it; a finished text's last has none.
        first: the events' beginning, before the text.
    """

    asked: type[AskedText]
    prefix: str
    kind: str
    part_kind: str
    choice: Callable[[str], dict[str, Any]]
    part: Callable[[str], dict[str, Any]]
    first: dict[str, Any] | None = None


COMPLETION = Form(
    AskedCompletion,
    "cmpl-",
    "text_completion",
    "text_completion",
    choice=lambda text: {"text": text},
    part=lambda text: {"text": text},
)
CHAT = Form(
    AskedChat,
    "chatcmpl-",
    "chat.completion",
    "chat.completion.chunk",
    choice=lambda text: {"message": {"role": "assistant", "content": text}},
    part=lambda text: {"delta": {"content": text} if text else {}},
    first={"delta": {"role": "assistant", "content": ""}},
)


async def complete(service: Service, request: Request, form: Form) -> Response:
    """Answer a request in OpenAI's form, whole or in events; what cannot be answered as OpenAI says it, too."""
    try:
        async with service.bodies.read(request) as body:
            asked = read_asked(body, request.headers.get("content-type", ""), form.asked, service)
            if asked.stream:
                events = _events(service, asked, form)
                first = await anext(events)  # what cannot be answered at all is no stream
                return StreamingResponse(_joined(first, events), media_type=EVENTS_TYPE, headers=_UNCACHED)
            work = partial(_generate, inputs=_inputs(asked), options=asked.options(_room(service)))
            found = await service.unless_ended(service.in_time(request, work(service.workers)))
    except Exception as error:
        status, said, headers = describe(error)
        return JSONResponse({"error": _error(status, said)}, status, headers)
    choices = [_choice(form.choice(result.text), index, result) for index, result in enumerate(found)]
    return JSONResponse({**_head(form.prefix, form.kind, asked), "choices": choices, "usage": _usage(found)})


def read_asked(body: bytes, content_type: str, kind: type[AskedText], service: Service) -> AskedText:
    """A request's body.

    Raises:
        Refusal: 400 no JSON, 404 another model, 413 too many prompts, 415 another content type, 422 another document.
    """
    document = read_json(body, content_type)
    check_keys(document, kind)
    try:
        asked = kind.model_validate(document)
    except ValidationError as error:
        raise Refusal(422, first_problem(error)) from None
    if asked.model != service.manifest.name:
        raise Refusal(404, f"model: expected {service.manifest.name}, which is served here")
    if len(asked.prompts) > service.options.max_inputs:
        raise Refusal(413, f"expected at most {service.options.max_inputs} prompts, found {len(asked.prompts)}")
    return asked


async def _events(service: Service, asked: AskedText, form: Form) -> AsyncIterator[bytes]:
    """Server-sent events: the texts in their parts, each with its number, then what they cost, then the end."""
    options, workers = asked.options(_room(service)), service.workers
    head = {**_head(form.prefix, form.part_kind, asked), "choices": []}
    found: list[GenerationResult] = []
    for index, prompt in enumerate(asked.prompts):
        begun = form.first is None
        async with aclosing(_written(service, workers, prompt, options)) as parts:
            async for part in parts:
                if not begun:
                    begun = True
                    yield _event(head | {"choices": [_choice(form.first or {}, index)]})
                if isinstance(part, str):
                    yield _event(head | {"choices": [_choice(form.part(part), index)]})
                    continue
                found.append(part)
                yield _event(head | {"choices": [_choice(form.part(""), index, part)]})
    if asked.stream_options is not None and asked.stream_options.include_usage:
        yield _event(head | {"usage": _usage(found)})
    yield b"data: [DONE]\n\n"


async def _written(
    service: Service, workers: Workers, prompt: RawPrompt, options: GenerateOptions
) -> AsyncGenerator[str | GenerationResult, None]:
    """The parts of a text as a worker writes them, last of all its result. The worker stops when nobody reads on.

    Raises:
        Refusal, EdgeFormerError: as of `Service.answer`.
    """
    loop = asyncio.get_running_loop()
    parts: asyncio.Queue[str | None] = asyncio.Queue()

    def tell(text: str) -> None:
        with suppress(RuntimeError):  # the event loop has ended without this thread
            loop.call_soon_threadsafe(parts.put_nowait, text)

    def work(pipeline: Pipeline[Any, Any], is_cancelled: IsCancelled) -> GenerationResult:
        return _run(pipeline, prompt, options, is_cancelled, tell)

    working = asyncio.ensure_future(service.unless_ended(workers.run(work)))
    working.add_done_callback(lambda _: parts.put_nowait(None))
    end = loop.time() + service.answer_limit_s
    try:
        while (part := await asyncio.wait_for(parts.get(), end - loop.time())) is not None:
            yield part
        yield working.result()
    except asyncio.TimeoutError:  # noqa: UP041  (another class in Python 3.10)
        raise Refusal(504, f"the text took longer than {service.answer_limit_s:g} s: ask for less") from None
    finally:
        working.cancel()


async def _joined(first: bytes, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """All events; an error among them is one, and the last."""
    try:
        yield first
        async for event in events:
            yield event
    except Exception as error:
        status, said, _ = describe(error)
        yield _event({"error": _error(status, said)})


_UNCACHED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""The second is nginx's: it would collect the events."""


def _event(document: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


def _error(status: int, message: str) -> dict[str, Any]:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"message": message, "type": kind, "param": None, "code": "model_not_found" if status == 404 else None}


def _head(prefix: str, kind: str, asked: AskedText) -> dict[str, Any]:
    return {"id": prefix + secrets.token_hex(12), "object": kind, "created": int(time.time()), "model": asked.model}


def _choice(said: Mapping[str, Any], index: int, result: GenerationResult | None = None) -> dict[str, Any]:
    """OpenAI knows no cache that is full: such a text has its length."""
    reason = None if result is None else result.finish_reason
    return {"index": index, **said, "logprobs": None, "finish_reason": LENGTH if reason == FULL else reason}


def _usage(found: Sequence[GenerationResult]) -> dict[str, int]:
    prompt, completion = (sum(each) for each in zip(*((one.prompt_tokens, len(one.tokens)) for one in found)))  # noqa: B905
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _room(service: Service) -> int:
    rows: int = service.manifest.postprocessing.buckets[-1].rows  # type: ignore[attr-defined]
    return rows


def _inputs(asked: AskedText) -> Inputs[RawPrompt]:
    return Inputs(tuple(asked.prompts), True, lambda _: b"", JSON_TYPE)


def add_openai(app: FastAPI, service: Service) -> None:
    """Let an application speak OpenAI's form."""

    @app.get(MODELS_PATH, summary="The model, in OpenAI's form")
    async def models() -> dict[str, Any]:
        model = {"id": service.manifest.name, "object": "model", "created": 0, "owned_by": "edgeformer"}
        return {"object": "list", "data": [model]}

    @app.post(COMPLETIONS_PATH, summary="Go on with prompts, in OpenAI's form", **_body(AskedCompletion))
    async def completions(request: Request) -> Response:
        return await complete(service, request, COMPLETION)

    @app.post(CHAT_PATH, summary="Go on with a chat, in OpenAI's form", **_body(AskedChat))
    async def chat(request: Request) -> Response:
        return await complete(service, request, CHAT)


def _body(asked: type[AskedText]) -> dict[str, Any]:
    """What OpenAPI says of it: the service itself reads the body."""
    schema = {"content": {JSON_TYPE: {"schema": asked.model_json_schema()}}, "required": True}
    return {"response_model": None, "openapi_extra": {"requestBody": schema}}
