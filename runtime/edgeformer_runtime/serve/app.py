"""The service's addresses: the page, answers, streams, health, metrics, and what it all means (OpenAPI)."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.responses import HTMLResponse, JSONResponse

from edgeformer_runtime import __version__
from edgeformer_runtime.registry import load_attribute
from edgeformer_runtime.serve.inputs import BYTES_TYPE, JSON_TYPE, REFUSALS, Answer, add_refusals
from edgeformer_runtime.serve.metrics import MeasuredApp
from edgeformer_runtime.serve.options import SameSite
from edgeformer_runtime.serve.service import RequestPlan, Service
from edgeformer_runtime.tasks.task import TASKS

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def make_app(service: Service) -> FastAPI:
    """The application over a service, which it closes when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    manifest = service.manifest
    app = FastAPI(
        title=f"EdgeFormer: {manifest.name}",
        description=f"{manifest.task} by one bundle, {manifest.target} {manifest.precision}.",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # its page would load scripts from elsewhere; /openapi.json has all of it
        redoc_url=None,
    )
    add_refusals(app)
    app.add_middleware(SameSite, allowed=service.options.allow_hosts)
    app.add_middleware(MeasuredApp, metrics=service.metrics)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return page_response()

    @app.get("/v1/bundle", summary="What answers, what it takes, and the limits")
    async def bundle() -> dict[str, Any]:
        return describe(service)

    add_health(app, service)

    @app.get("/metrics", summary="Numbers for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=_METRICS_TYPE)

    add_answers: Callable[[FastAPI, Service], None] = load_attribute(TASKS[manifest.task].serve)
    add_answers(app, service)
    return app


def describe(service: Service) -> dict[str, Any]:
    """What a client has to know, as JSON."""
    manifest, options = service.manifest, service.options
    takes = TASKS[manifest.task].takes
    return {
        "name": manifest.name,
        "task": manifest.task,
        "target": manifest.target,
        "precision": manifest.precision,
        "input": takes.kind,
        "labels": list(getattr(manifest.postprocessing, "labels", ())),
        "sample_rate": getattr(manifest.preprocessing, "sample_rate", None),
        "max_body_bytes": options.max_body_bytes,
        "max_inputs": options.max_inputs if takes.several else 1,
        "fallback_below": None if options.fallback is None else options.fallback.below,
    }


async def respond(service: Service, request: Request, plan: RequestPlan) -> Response:
    """Answer a request's inputs as JSON: an answer, or {"answers"} of several inputs. Errors as of `Service.answer`."""
    inputs, answers = await service.answer(request, plan)
    if inputs.several:
        return Response(b'{"answers":[' + b",".join(map(_json, answers)) + b"]}", media_type=JSON_TYPE)
    return Response(_json(answers[0]), media_type=JSON_TYPE)


def _json(answer: Answer) -> bytes:
    return answer.model_dump_json(exclude_none=True).encode()


def documents(answer: Any, body: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of an address: its answers and its body, which the service itself reads."""
    return {
        "response_model": None,
        "responses": REFUSALS | {200: {"model": answer}},
        "openapi_extra": {"requestBody": {"required": True, "content": body}},
    }


def file_body(kind: str) -> dict[str, Any]:
    """What OpenAPI says of a body that is a file of a kind: "image" or "audio"."""
    schema = {"schema": {"type": "string", "format": "binary"}}
    return {f"{kind}/*": schema, BYTES_TYPE: schema}


# The page to try a bundle by hand: one file, which loads nothing from elsewhere and is not allowed to.


def page_response() -> HTMLResponse:
    """The page, with a policy (CSP level 3) under which a browser runs its own script only."""
    html, policy = _page()
    return HTMLResponse(html, headers={"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"})


@cache
def _page() -> tuple[str, str]:
    html = files("edgeformer_runtime.serve").joinpath("page.html").read_text(encoding="utf-8")
    (script,), (style,) = (
        re.findall(r"<script>(.*?)</script>", html, re.S),
        re.findall(r"<style>(.*?)</style>", html, re.S),
    )
    policy = (
        # blob: is the recorder's audio worklet, and the preview of a photo.
        f"default-src 'none'; script-src {_hash(script)} blob:; style-src {_hash(style)}; img-src blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return html, policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


# How the service is: whether its process answers (liveness), and whether it should get requests (readiness).


HEALTH_PATHS = ("/health", "/health/live", "/health/ready", "/metrics")
"""Answered however many connections there are."""


def add_health(app: FastAPI, service: Service) -> None:
    """Let an application say how it is."""

    @app.get("/health/live", summary="Whether the process answers: start it again where not")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/health/ready", summary="Whether it should get requests: 503 where not")
    async def ready() -> JSONResponse:
        return _readiness(service)

    @app.get("/health", summary="As /health/ready")
    async def health() -> JSONResponse:
        return _readiness(service)


def _readiness(service: Service) -> JSONResponse:
    problem = service.problem
    document: dict[str, Any] = {"status": "ready", "unanswered": service.workers.unanswered}
    if problem is None:
        return JSONResponse(document)
    return JSONResponse(document | {"status": "not ready", "error": problem}, 503, {"Retry-After": "1"})
