"""One bundle as a service: from a request's body to its answers, whoever gives them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from starlette.requests import ClientDisconnect, Request

from edgeformer_runtime import load
from edgeformer_runtime.errors import InputError
from edgeformer_runtime.pipelines.base import Pipeline
from edgeformer_runtime.serve.answers import Answer, Result, device_answer
from edgeformer_runtime.serve.bodies import Bodies
from edgeformer_runtime.serve.fallback import FROM_DEVICE, Fallback, FallbackError
from edgeformer_runtime.serve.inputs import Inputs
from edgeformer_runtime.serve.metrics import Metrics
from edgeformer_runtime.serve.options import ServeOptions
from edgeformer_runtime.serve.refusals import busy
from edgeformer_runtime.serve.workers import Workers
from edgeformer_runtime.signature import PublicKey

Outcome = TypeVar("Outcome")
Run = Callable[[Pipeline[Any, Any], Any], Result]


@dataclass(frozen=True)
class Task:
    """How one request is to be answered.

    Attributes:
        read: its inputs from a body and its content type.
        run: one input through a pipeline.
        top: how many labels the answer has, None: all, or no labels.
    """

    read: Callable[[bytes, str], Inputs[Any]]
    run: Run
    top: int | None = None


class Service:
    """Answers requests with a bundle. Used from one event loop."""

    def __init__(self, pipelines: Sequence[Pipeline[Any, Any]], options: ServeOptions) -> None:
        """Take over pipelines of one bundle; `close` closes them.

        Raises:
            InputError: a fallback for a task whose answers have no confidence.
        """
        self.options = options
        self.manifest = pipelines[0].bundle.manifest
        if options.fallback is not None and self.manifest.task == "text-embedding":
            raise InputError("fallback: embeddings have no confidence that could be too low, expected none for them")
        self.workers = Workers(pipelines, options.max_waiting)
        self.bodies = Bodies(options)
        self.metrics = Metrics(self.manifest, self.workers, self.bodies)
        self.fallback = None if options.fallback is None else Fallback(options.fallback)
        self._streams = 0

    @contextmanager
    def stream_slot(self) -> Iterator[None]:
        """Room for one stream of sound, until the block ends.

        Raises:
            Refusal: 503, as many are open as there may be.
        """
        if self._streams >= self.options.max_streams:
            raise busy(f"{self._streams} streams are open")
        self._streams += 1
        self.metrics.streams.set(self._streams)
        try:
            yield
        finally:
            self._streams -= 1
            self.metrics.streams.set(self._streams)

    async def answer(self, request: Request, task: Task) -> tuple[Inputs[Any], list[Answer]]:
        """Answer a request's inputs, in their order.

        Raises:
            Refusal: the request is beyond a limit, or not what the bundle takes.
            InputError: an input cannot be used.
            EngineError: the model failed.
            ClientDisconnect: nobody waits for the answer any more.
        """
        async with self.bodies.read(request) as body:
            inputs = task.read(body, request.headers.get("content-type", ""))
            results = await _unless_gone(request, self.workers.run(lambda pipeline: _run_all(task, pipeline, inputs)))
            answers = [device_answer(result, task.top) for result in results]
            self.metrics.truncated.inc(sum(getattr(result, "truncated", False) for result in results))
            if self.fallback is not None and FROM_DEVICE not in request.headers:
                answers = await self._ask_in_doubt(self.fallback, inputs, answers, request.url.query)
        return inputs, answers

    async def _ask_in_doubt(
        self, fallback: Fallback, inputs: Inputs[Any], answers: Sequence[Answer], query: str
    ) -> list[Answer]:
        """The answers, the doubtful ones replaced by the fallback's where it has one."""

        async def settle(answer: Answer, body: bytes) -> Answer:
            if not fallback.doubts(answer):
                return answer
            try:
                settled = await fallback.ask(answer, body, inputs.content_type, query)
            except FallbackError as error:
                settled = answer.model_copy(update={"fallback_error": str(error)})
            self.metrics.fallbacks.labels(settled.answered_by).inc()
            return settled

        return await asyncio.gather(*map(settle, answers, inputs.single_bodies))

    async def close(self) -> None:
        """Finish what has begun and release everything."""
        await asyncio.get_running_loop().run_in_executor(None, self.workers.close)
        if self.fallback is not None:
            await self.fallback.close()


def run_plainly(pipeline: Pipeline[Any, Any], raw: Any) -> Result:
    """One input through a pipeline that takes no options."""
    return cast(Result, pipeline.run(raw))


def open_service(
    path: str | Path,
    options: ServeOptions,
    threads: int = 1,
    require_signature: PublicKey | None = None,
    isolated: bool | None = False,
) -> Service:
    """Open a bundle as often as there are workers; arguments as of `edgeformer_runtime.load`, errors too.

    `isolated` None: unless a signature is required, which says whose bundle it is.
    """
    isolated = require_signature is None if isolated is None else isolated
    pipelines: list[Pipeline[Any, Any]] = []
    try:
        for _ in range(options.workers):
            pipelines.append(load(path, threads, require_signature=require_signature, isolated=isolated))
        return Service(pipelines, options)
    except BaseException:
        for pipeline in pipelines:
            pipeline.close()
        raise


def _run_all(task: Task, pipeline: Pipeline[Any, Any], inputs: Inputs[Any]) -> list[Result]:
    results = []
    for index, raw in enumerate(inputs.raws):
        try:
            results.append(task.run(pipeline, raw))
        except InputError as error:
            raise InputError(f"inputs.{index}: {error}" if inputs.several else str(error)) from None
    return results


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Outcome]) -> Outcome:
    """What the work gives. It is given up when the client goes, whose body has been read.

    Raises:
        ClientDisconnect: the client has gone.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        gone.cancel()
