"""The service's addresses: the page, answers, streams, health, metrics, and what it all means (OpenAPI)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, cast

from fastapi import Depends, FastAPI, Query, Request, Response
from starlette.requests import HTTPConnection

from edgeformer_runtime.pipelines.base import Pipeline
from edgeformer_runtime.pipelines.speech import Transcriber
from edgeformer_runtime.pipelines.transcript import Transcript
from edgeformer_runtime.preprocess.audio_spec import AudioPreprocessing
from edgeformer_runtime.serve.answers import Answer, Answers, ClassificationAnswer, EmbeddingAnswer, TranscriptAnswer
from edgeformer_runtime.serve.inputs import (
    BYTES_TYPE,
    JSON_TYPE,
    ClassifyQuery,
    EmbedQuery,
    SpeechQuery,
    TextInput,
    read_file,
    read_texts,
)
from edgeformer_runtime.serve.metrics import ANSWER_PATH, MeasuredApp
from edgeformer_runtime.serve.page import page_response
from edgeformer_runtime.serve.refusals import REFUSALS, Refusal, add_refusals
from edgeformer_runtime.serve.service import Service, Task, run_plainly
from edgeformer_runtime.serve.streams import add_streams
from edgeformer_runtime.version import __version__

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def make_app(service: Service, local: bool = True) -> FastAPI:
    """The application over a service, which it closes when it ends.

    Args:
        service: what answers.
        local: only this machine's own names are taken as the service's host, as no other leads to loopback but by
            a trick (DNS rebinding).
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    async def same_site(connection: HTTPConnection) -> None:
        _check_site(connection, local)

    manifest = service.manifest
    app = FastAPI(
        title=f"EdgeFormer: {manifest.name}",
        description=f"{manifest.task} by one bundle, {manifest.target} {manifest.precision}.",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # its page would load scripts from elsewhere; /openapi.json has all of it
        redoc_url=None,
        dependencies=[Depends(same_site)],
    )
    add_refusals(app)
    app.add_middleware(MeasuredApp, metrics=service.metrics)

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return page_response()

    @app.get("/v1/bundle", summary="What answers, what it takes, and the limits")
    async def bundle() -> dict[str, Any]:
        return describe(service)

    @app.get("/health", summary="Whether it answers")
    async def health() -> dict[str, Any]:
        return {"status": "ready", "unanswered": service.workers.unanswered}

    @app.get("/metrics", summary="Numbers for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=_METRICS_TYPE)

    _ADD_ANSWERS[manifest.task](app, service)
    if isinstance(manifest.preprocessing, AudioPreprocessing):
        add_streams(app, service)
    return app


def describe(service: Service) -> dict[str, Any]:
    """What a client has to know, as JSON."""
    manifest, options = service.manifest, service.options
    sound = manifest.preprocessing if isinstance(manifest.preprocessing, AudioPreprocessing) else None
    return {
        "name": manifest.name,
        "task": manifest.task,
        "target": manifest.target,
        "precision": manifest.precision,
        "input": manifest.preprocessing.kind,
        "labels": list(getattr(manifest.postprocessing, "labels", ())),
        "sample_rate": None if sound is None else sound.sample_rate,
        "max_body_bytes": options.max_body_bytes,
        "max_inputs": options.max_inputs if manifest.preprocessing.kind == "text" else 1,
        "fallback_below": None if options.fallback is None else options.fallback.below,
    }


def _check_site(connection: HTTPConnection, local: bool) -> None:
    """Refuse requests that another site's page makes in this machine's browser.

    Raises:
        Refusal: 400 another host's name, 403 another site.
    """
    if local and connection.url.hostname not in LOOPBACK_NAMES:
        raise Refusal(400, f"expected Host to be one of {', '.join(sorted(LOOPBACK_NAMES))}")
    origin = connection.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != connection.headers.get("host"):
        raise Refusal(403, "expected a request of this service's own page, found one of another site")


def _add_text_classification(app: FastAPI, service: Service) -> None:
    @app.post(ANSWER_PATH, summary="Classify texts", **_documents(ClassificationAnswer | Answers, _TEXT_BODY))
    async def answer(request: Request, query: Annotated[ClassifyQuery, Query()]) -> Response:
        read = partial(read_texts, max_inputs=service.options.max_inputs)
        return await _answer(service, request, Task(read, run_plainly, query.top))


def _add_text_embedding(app: FastAPI, service: Service) -> None:
    @app.post(ANSWER_PATH, summary="Embed texts", **_documents(EmbeddingAnswer | Answers, _TEXT_BODY))
    async def answer(request: Request, query: Annotated[EmbedQuery, Query()]) -> Response:  # noqa: ARG001
        read = partial(read_texts, max_inputs=service.options.max_inputs)
        return await _answer(service, request, Task(read, run_plainly))


def _add_image_classification(app: FastAPI, service: Service) -> None:
    @app.post(ANSWER_PATH, summary="Classify an image", **_documents(ClassificationAnswer, _file_body("image")))
    async def answer(request: Request, query: Annotated[ClassifyQuery, Query()]) -> Response:
        return await _answer(service, request, Task(partial(read_file, kind="image"), run_plainly, query.top))


def _add_speech_recognition(app: FastAPI, service: Service) -> None:
    @app.post(ANSWER_PATH, summary="Transcribe a sound", **_documents(TranscriptAnswer, _file_body("audio")))
    async def answer(request: Request, query: Annotated[SpeechQuery, Query()]) -> Response:
        options = query.options()

        def transcribe(pipeline: Pipeline[Any, Any], raw: Any) -> Transcript:
            return cast(Transcriber, pipeline).run(raw, options)

        return await _answer(service, request, Task(partial(read_file, kind="audio"), transcribe))


_ADD_ANSWERS = {
    "text-classification": _add_text_classification,
    "text-embedding": _add_text_embedding,
    "image-classification": _add_image_classification,
    "speech-recognition": _add_speech_recognition,
}


async def _answer(service: Service, request: Request, task: Task) -> Response:
    inputs, answers = await service.answer(request, task)
    if inputs.several:
        return Response(b'{"answers":[' + b",".join(map(_json, answers)) + b"]}", media_type=JSON_TYPE)
    return Response(_json(answers[0]), media_type=JSON_TYPE)


def _json(answer: Answer) -> bytes:
    return answer.model_dump_json(exclude_none=True).encode()


def _documents(answer: Any, body: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI says of an address: its answers and its body, which the service itself reads."""
    return {
        "response_model": None,
        "responses": REFUSALS | {200: {"model": answer}},
        "openapi_extra": {"requestBody": {"required": True, "content": body}},
    }


def _file_body(kind: str) -> dict[str, Any]:
    schema = {"schema": {"type": "string", "format": "binary"}}
    return {f"{kind}/*": schema, BYTES_TYPE: schema}


_TEXT_BODY = {
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
