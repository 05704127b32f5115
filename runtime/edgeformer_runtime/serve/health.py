"""How the service is: whether its process answers (liveness), and whether it should get requests (readiness)."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.responses import JSONResponse

from edgeformer_runtime.serve.service import Service

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
