"""What Prometheus reads: how many requests, how they ended, how long they took, and what memory the process has."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeformer_runtime.bundle.manifest import Manifest

if TYPE_CHECKING:
    from edgeformer_runtime.serve.service import Service

ANSWER_PATH = "/v1/answer"
COMPLETIONS_PATH, CHAT_PATH = "/v1/completions", "/v1/chat/completions"
MEASURED_PATHS = (ANSWER_PATH, COMPLETIONS_PATH, CHAT_PATH)

_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """One service's metrics, in a registry of its own."""

    def __init__(self, service: Service) -> None:
        """Watch a service's parts."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        registry = self.registry
        self.requests = Counter("edgeformer_requests", "Requests for answers.", ["status"], registry=registry)
        self.seconds = Histogram(
            "edgeformer_request_seconds", "From a request to its answer.", buckets=_BUCKETS_S, registry=registry
        )
        self.fallbacks = Counter(
            "edgeformer_fallbacks", "Doubtful answers, by who answered then.", ["answered_by"], registry=registry
        )
        self.truncated = Counter("edgeformer_truncated_inputs", "Inputs that were too long.", registry=registry)
        self.streams = Gauge("edgeformer_streams", "Streams of audio that are open.", registry=registry)
        self.connections = Gauge("edgeformer_connections", "Connections that are open.", registry=registry)
        self.closed = Counter(
            "edgeformer_closed_connections",
            "Connections that the service closed, by why.",
            ["reason"],
            registry=registry,
        )
        self.replaced = Counter(
            "edgeformer_replaced_workers", "Workers that died or were stuck.", ["reason"], registry=registry
        )
        self.reloads = Counter("edgeformer_reloads", "Reloads of the bundle.", ["outcome"], registry=registry)
        self._bundle = Gauge(
            "edgeformer_bundle", "The bundle that answers.", ["name", "task", "target", "precision"], registry=registry
        )
        self.name_bundle(service.manifest)
        alive = Gauge("edgeformer_workers", "Workers that are alive.", registry=registry)
        alive.set_function(lambda: service.workers.alive)
        restarts = Gauge("edgeformer_restarted_processes", "Processes of isolated bundles.", registry=registry)
        restarts.set_function(lambda: service.workers.restarts)
        waiting = Gauge(
            "edgeformer_unanswered_requests", "Requests that wait or are being answered.", registry=registry
        )
        waiting.set_function(lambda: service.workers.unanswered)
        held = Gauge("edgeformer_held_bytes", "Bytes of bodies in memory.", registry=registry)
        held.set_function(lambda: service.bodies.held_bytes)

    def name_bundle(self, manifest: Manifest) -> None:
        """Say which bundle answers from now on."""
        self._bundle.clear()
        self._bundle.labels(manifest.name, manifest.task, manifest.target, manifest.precision).set(1)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)


class MeasuredApp:
    """An application whose answers are counted and timed, whatever their status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap an application."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on; those for answers are measured."""
        if scope["type"] != "http" or scope["path"] not in MEASURED_PATHS:
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(message["status"]).inc()
            await send(message)

        await self._app(scope, receive, watch)
        self._metrics.seconds.observe(time.perf_counter() - start)
