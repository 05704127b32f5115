"""What the service says when it does not answer: {"error": one line} and a status."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from edgeformer_runtime.errors import EdgeFormerError, EngineError, InputError

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
        status, message, headers = _describe(error)
        return JSONResponse({"error": " ".join(message.split())}, status, headers)

    known = (Refusal, InputError, EngineError, RequestValidationError, HTTPException, ClientDisconnect)
    for kind in (*known, Exception):
        app.add_exception_handler(kind, refuse)


def _describe(error: Exception) -> tuple[int, str, dict[str, str] | None]:
    """Status, message and headers for an error."""
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
