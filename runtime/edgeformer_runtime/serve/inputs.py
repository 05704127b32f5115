"""What every request and answer has, whatever the task: refusals, bodies within limits, a file's bytes, who answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, Generic, Literal

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.errors import EdgeFormerError, EngineError, InputError
from edgeformer_runtime.pipelines import Raw
from edgeformer_runtime.pipelines.results import Result
from edgeformer_runtime.preprocess.text import RawText
from edgeformer_runtime.serve.options import ServeOptions

MAX_TOKEN_IDS = 1 << 16
"""In one input: far more than any bundle has positions."""
MAX_JSON_VALUES = 1 << 18
"""In one document: objects in Python take up to a hundred times the bytes of their JSON, and seconds to be made."""
CLIENT_GONE = 499
"""Nobody reads it but the metrics: nginx's status for a client that closed the connection before the answer."""


class ErrorBody(BaseModel):
    """The body of every answer with a status of 400 or above."""

    error: str


class Refusal(Exception):
    """A request that the service does not take.

    Attributes:
        status: the HTTP status.
        message: one line: what was expected, what was found.
        retry_after_s: when to try again, None: the same request will not be taken later either.
    """

    def __init__(self, status: int, message: str, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after_s = retry_after_s


def busy(what: str) -> Refusal:
    """503: there is no room for it now."""
    return Refusal(503, f"busy: {what}: try again later", retry_after_s=1)


def first_problem(error: ValidationError | RequestValidationError) -> str:
    """The first thing that is wrong with a document, in one line: where, and what was expected."""
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


# What each status means, as the service's documentation tells it.
REFUSALS: dict[int | str, dict[str, object]] = {
    400: {"model": ErrorBody, "description": "The body is no JSON."},
    403: {"model": ErrorBody, "description": "A page of another site asks."},
    408: {"model": ErrorBody, "description": "The body took too long to arrive."},
    413: {"model": ErrorBody, "description": "The body, or the number of inputs, is above the limit."},
    415: {"model": ErrorBody, "description": "The content type is not one that the bundle takes."},
    421: {"model": ErrorBody, "description": "The Host is another one's: see --allow-host."},
    422: {"model": ErrorBody, "description": "The input cannot be used."},
    500: {"model": ErrorBody, "description": "The model failed."},
    503: {"model": ErrorBody, "description": "No room now: Retry-After says when to try again."},
    504: {"model": ErrorBody, "description": "The answer took too long."},
}


def add_refusals(app: FastAPI) -> None:
    """Let an application's errors become answers."""

    async def refuse(_: Request, error: Exception) -> JSONResponse:
        status, message, headers = describe(error)
        return JSONResponse({"error": message}, status, headers)

    known = (Refusal, InputError, EngineError, RequestValidationError, HTTPException, ClientDisconnect)
    for kind in (*known, Exception):
        app.add_exception_handler(kind, refuse)


def describe(error: Exception) -> tuple[int, str, dict[str, str] | None]:
    """Status, message in one line, and headers for an error."""
    status, message, headers = _described(error)
    return status, " ".join(message.split()), headers


def _described(error: Exception) -> tuple[int, str, dict[str, str] | None]:
    if isinstance(error, Refusal):
        wait = error.retry_after_s
        return error.status, error.message, None if wait is None else {"Retry-After": str(wait)}
    if isinstance(error, RequestValidationError):
        return 422, first_problem(error), None
    if isinstance(error, ClientDisconnect):
        return CLIENT_GONE, "the client has gone", None
    if isinstance(error, HTTPException):
        return error.status_code, str(error.detail), dict(error.headers or {})
    if isinstance(error, EdgeFormerError):
        return (422 if isinstance(error, InputError) else 500), str(error), None
    return 500, f"unexpected {type(error).__name__}: the service's log has more", None


BYTES_TYPE = "application/octet-stream"
JSON_TYPE = "application/json"


@dataclass(frozen=True)
class Inputs(Generic[Raw]):
    """The inputs of one request.

    Attributes:
        raws: what the pipeline takes, at least one.
        several: they came as a list, so their answers go as one.
        single_body: the body of a request that holds one of them alone, by its index.
        content_type: of those bodies.
    """

    raws: tuple[Raw, ...]
    several: bool
    single_body: Callable[[int], bytes]
    content_type: str


def read_file(body: bytes, content_type: str, kind: str) -> Inputs[bytes]:
    """An image or audio: a file's bytes. What they are is for the decoder to say.

    Args:
        body: the file.
        content_type: of the request.
        kind: "image" or "audio": the files' content types begin with it.

    Raises:
        Refusal: 415 another content type, 422 no bytes.
    """
    found_type = media_type(content_type)
    if found_type != BYTES_TYPE and not found_type.startswith(f"{kind}/"):
        found = content_type or "none"
        raise Refusal(415, f"expected a file as the body, Content-Type: {kind}/... or {BYTES_TYPE}, found {found}")
    if not body:
        raise Refusal(422, "expected a file as the body, found nothing")
    return Inputs((body,), False, lambda _: body, content_type)


def media_type(content_type: str) -> str:
    """A content type in small letters and without its parameters."""
    return content_type.partition(";")[0].strip().lower()


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


def read_texts(body: bytes, content_type: str, max_inputs: int) -> Inputs[RawText]:
    """Texts from JSON.

    Raises:
        Refusal: 400 no JSON, 413 too many inputs, 415 another content type, 422 another document than expected.
    """
    document = read_json(body, content_type)
    several = isinstance(document, dict) and "inputs" in document
    check_keys(document, TextInputs if several else TextInput)
    found = document["inputs"] if several else []
    if isinstance(found, list) and len(found) > max_inputs:  # before each of them is looked at
        raise Refusal(413, f"expected at most {max_inputs} inputs at once, found {len(found)}")
    for item in found if isinstance(found, list) else ():
        check_keys(item, TextInput)
    try:
        texts = TextInputs.model_validate(document).inputs if several else [TextInput.model_validate(document)]
    except ValidationError as error:
        raise Refusal(422, first_problem(error)) from None

    def single_body(index: int) -> bytes:
        return texts[index].model_dump_json(exclude_none=True).encode()

    return Inputs(tuple(text.raw() for text in texts), several, single_body, JSON_TYPE)


def read_json(body: bytes, content_type: str) -> Any:
    """A document, not yet looked into.

    Raises:
        Refusal: 400 no JSON, 413 too many values, 415 another content type.
    """
    if media_type(content_type) != JSON_TYPE:
        raise Refusal(415, f"expected Content-Type: {JSON_TYPE}, found {content_type or 'none'}")
    if _has_many_values(body):
        raise Refusal(413, f"expected at most {MAX_JSON_VALUES} values in JSON, found more")
    try:
        return from_json(body)
    except ValueError as error:
        raise Refusal(400, f"expected JSON: {error}") from None


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


def check_keys(document: Any, kind: type[Strict]) -> None:
    """Refuse the first unknown key: the model would list all of them.

    Raises:
        Refusal: 422, there is one.
    """
    unknown = (
        next((key for key in document if key not in kind.model_fields), None) if isinstance(document, dict) else None
    )
    if unknown is not None:
        raise Refusal(422, f"{shorten(unknown)[1:-1]}: expected none but {', '.join(kind.model_fields)}")


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


# The service's answers as documents: what the pipeline found, how sure it is, and who says so.


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


def cost_of(result: Result) -> dict[str, float] | None:
    """A result's statistics as an answer has them."""
    return None if result.statistics is None else asdict(result.statistics)


# Bodies of requests, read with a limit on each, on all of them together, and on the time that they take.


class Bodies:
    """Reads bodies, and remembers how many bytes of them are held."""

    def __init__(self, options: ServeOptions) -> None:
        """Read within the limits of a service."""
        self._options = options
        self.held_bytes = 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """A request's body. Its bytes count as held until the block ends.

        Raises:
            Refusal: 400 it broke off, 408 it is too slow, 413 it is too large, 415 it is compressed, 503 no room.
        """
        # The parser takes "gzip, chunked" and leaves the bytes compressed; whoever stands before the service may not.
        if request.headers.get("transfer-encoding", "chunked").strip().lower() != "chunked":
            raise Refusal(415, "expected no Transfer-Encoding but chunked: send the body as it is")
        if request.headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "expected a body as it is, found a compressed one: send it without Content-Encoding")
        declared = request.headers.get("content-length", "0")  # the server has refused what is no number
        self._check_size(int(declared))
        chunks: list[bytes] = []
        try:
            try:
                await asyncio.wait_for(self._receive(request, chunks), self._options.upload_s)
            except asyncio.TimeoutError:  # noqa: UP041  (another class in Python 3.10)
                raise Refusal(408, f"expected the body within {self._options.upload_s:g} s") from None
            except ClientDisconnect:
                raise Refusal(400, "the body broke off") from None
            chunks[:] = [b"".join(chunks)]
            yield chunks[0]
        finally:
            self.held_bytes -= sum(map(len, chunks))

    async def _receive(self, request: Request, chunks: list[bytes]) -> None:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            self._check_size(size)
            if self.held_bytes + len(chunk) > self._options.max_waiting_bytes:
                raise busy("the requests that are being answered fill the memory for them")
            self.held_bytes += len(chunk)
            chunks.append(chunk)

    def _check_size(self, size: int) -> None:
        if size > self._options.max_body_bytes:
            raise Refusal(413, f"expected at most {self._options.max_body_bytes} bytes, found more")
