"""One bundle as a service: from a request's body to its answers, whoever gives them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from starlette.requests import ClientDisconnect, Request

from edgeformer_runtime import load
from edgeformer_runtime.bundle.manifest import Manifest
from edgeformer_runtime.bundle.signature import Required, requirement_of
from edgeformer_runtime.errors import BundleError, EdgeFormerError, InputError
from edgeformer_runtime.isolation.pipeline import IsolatedPipeline, verify_isolated
from edgeformer_runtime.pipelines import IsCancelled, Pipeline, check
from edgeformer_runtime.pipelines.results import Result
from edgeformer_runtime.serve.fallback import FROM_DEVICE, Fallback, FallbackError, ReadFallback
from edgeformer_runtime.serve.inputs import Answer, Bodies, Inputs, Refusal, busy
from edgeformer_runtime.serve.metrics import Metrics
from edgeformer_runtime.serve.options import ServeOptions
from edgeformer_runtime.serve.workers import NONE_ALIVE, Workers
from edgeformer_runtime.tasks.task import TASKS
from edgeformer_runtime.verify.verify import verify

Outcome = TypeVar("Outcome")

CLOSE_SHARE = 0.05
"""Of the time to finish: what workers have to give up."""

_logger = logging.getLogger("edgeformer_runtime.serve")


class Service:
    """Answers requests with a bundle. Used from one event loop."""

    def __init__(self, open_pipeline: OpenPipeline, options: ServeOptions) -> None:
        """Open a bundle; `close` closes it.

        Raises:
            InputError: a fallback for a task whose answers have no confidence.
            BundleError: the bundle cannot be used.
            EngineError: its engine does not run here.
        """
        self.options = options
        self._open_pipeline = open_pipeline
        self._loaded = Loaded(open_pipeline, options, self._count_replaced)
        gives = TASKS[self.manifest.task].gives
        if options.fallback is not None and not gives.has_confidence:
            raise InputError(
                f"fallback: {gives.plural} have no confidence that could be too low, expected none for them"
            )
        self.bodies = Bodies(options)
        self.metrics = Metrics(self)
        self.fallback = None if options.fallback is None else Fallback(options.fallback, self.manifest)
        self.ending = asyncio.Event()
        """Set when the service has been told to end: it finishes what has begun."""
        self._refused = asyncio.Event()
        self._streams = 0
        self._reload = asyncio.Lock()
        self._background: set[asyncio.Task[None]] = set()

    @property
    def manifest(self) -> Manifest:
        """The bundle's that answers now."""
        return self._loaded.manifest

    @property
    def workers(self) -> Workers:
        """Those that answer now."""
        return self._loaded.workers

    @property
    def is_ending(self) -> bool:
        """Whether the service has been told to end."""
        return self.ending.is_set()

    @property
    def problem(self) -> str | None:
        """Why nobody should send requests now; None: they are answered."""
        if self.is_ending:
            return "the service is ending"
        return None if self.workers.alive else NONE_ALIVE

    @property
    def answer_limit_s(self) -> float:
        """How long an answer may take."""
        usual_s, asked_s = TASKS[self.manifest.task].takes.answer_s, self.options.answer_s
        return usual_s if asked_s is None else asked_s

    @contextmanager
    def stream_slot(self) -> Iterator[None]:
        """Room for one stream of audio, until the block ends.

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

    async def answer(self, request: Request, plan: RequestPlan) -> tuple[Inputs[Any], list[Answer]]:
        """Answer a request's inputs, in their order.

        Raises:
            Refusal: the request is beyond a limit, or not what the bundle takes, or the service ends first.
            InputError: an input cannot be used.
            EngineError: the model failed.
            ClientDisconnect: nobody waits for the answer any more.
        """
        return await self.unless_ended(self._answer(request, plan))

    async def unless_ended(self, work: Coroutine[Any, Any, Outcome]) -> Outcome:
        """What the work gives, unless the time to finish runs out before.

        Raises:
            Refusal: 503, the service ends.
        """
        working = asyncio.ensure_future(work)
        refused = asyncio.ensure_future(self._refused.wait())
        try:
            await asyncio.wait((working, refused), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise Refusal(503, "the service ends before this was answered: ask again", retry_after_s=5)
            return working.result()
        finally:
            working.cancel()
            refused.cancel()

    async def _answer(self, request: Request, plan: RequestPlan) -> tuple[Inputs[Any], list[Answer]]:
        async with self.bodies.read(request) as body:
            inputs = plan.read(body, request.headers.get("content-type", ""))
            results = await self.in_time(request, plan.answer(self.workers, inputs))
            answers = [plan.to_answer(result) for result in results]
            self.metrics.truncated.inc(sum(result.truncated for result in results))
            if self.fallback is not None and plan.read_fallback is not None and FROM_DEVICE not in request.headers:
                answers = await self._ask_in_doubt(
                    self.fallback, plan.read_fallback, inputs, answers, request.url.query
                )
        return inputs, answers

    async def in_time(self, request: Request, work: Any) -> Any:
        """What the work gives. It is given up at its deadline, or when the client goes, whose body has been read.

        Raises:
            ClientDisconnect: the client has gone.
            Refusal: 504, it took too long.
        """
        working = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(request.receive())
        limit_s = self.answer_limit_s
        try:
            done, _ = await asyncio.wait((working, gone), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise Refusal(504, f"no answer within {limit_s:g} s: send less at once, or ask when fewer others do")
            if not working.done():
                raise ClientDisconnect
            return working.result()
        finally:
            working.cancel()
            gone.cancel()

    async def _ask_in_doubt(
        self, fallback: Fallback, read: ReadFallback, inputs: Inputs[Any], answers: Sequence[Answer], query: str
    ) -> list[Answer]:
        """The answers, the doubtful ones replaced by the fallback's where it has one."""

        async def settle(index: int, answer: Answer) -> Answer:
            if not fallback.doubts(answer):
                return answer
            try:
                settled = await fallback.ask(answer, read, inputs.single_body(index), inputs.content_type, query)
            except FallbackError as error:
                settled = answer.model_copy(update={"fallback_error": str(error)})
            self.metrics.fallbacks.labels(settled.answered_by).inc()
            return settled

        return await asyncio.gather(*map(settle, range(len(answers)), answers))

    async def reload(self) -> None:
        """Change to the bundle that lies at the service's path now, if it can be used; the old one finishes its work.

        The new one is opened and its recorded vectors are replayed before it gets any request.
        """
        async with self._reload:
            try:
                loaded = await asyncio.get_running_loop().run_in_executor(None, self._open_next)
            except Exception as error:
                self.metrics.reloads.labels("refused").inc()
                reason = str(error) if isinstance(error, EdgeFormerError) else f"{type(error).__name__}: {error}"
                _logger.error("the bundle was not reloaded, the old one goes on: %s", " ".join(reason.split()))
                return
            if self.is_ending:
                await loaded.workers.close()
                return
            old, self._loaded = self._loaded, loaded
            if self.fallback is not None:
                self.fallback.manifest = loaded.manifest
            self.metrics.reloads.labels("done").inc()
            self.metrics.name_bundle(loaded.manifest)
            _logger.warning("the bundle was reloaded: %s", loaded.manifest.name)
            draining = asyncio.ensure_future(old.workers.drain())
            self._background.add(draining)
            draining.add_done_callback(self._background.discard)

    def _open_next(self) -> Loaded:
        """In a thread: the bundle that lies at the path now, opened and verified.

        Raises:
            EdgeFormerError: it cannot be used in place of the one that answers now.
        """
        with self._open_pipeline() as pipeline:  # before the others: the task is cheap to compare
            task = pipeline.bundle.manifest.task
        if task != self.manifest.task:
            raise InputError(f"expected a bundle for {self.manifest.task}, found one for {task}")
        return Loaded(self._open_pipeline, self.options, self._count_replaced, is_verified=True)

    def _count_replaced(self, reason: str) -> None:
        self.metrics.replaced.labels(reason).inc()

    def begin_to_end(self) -> None:
        """Answer what has begun; streams say their last words."""
        self.ending.set()

    def refuse_rest(self) -> None:
        """Refuse every request that is not answered yet: the time to finish is over."""
        self._refused.set()

    def leave_nothing(self) -> None:
        """End other processes and remove temporary files, for a process that ends at once."""
        self._loaded.workers.leave_nothing()

    async def close(self) -> None:
        """Give up what is not finished and release everything."""
        self.begin_to_end()
        self.refuse_rest()
        for draining in self._background:
            draining.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._loaded.workers.close(CLOSE_SHARE * self.options.finish_s)
        if self.fallback is not None:
            await self.fallback.close()


def open_service(
    path: str | Path,
    options: ServeOptions,
    threads: int = 1,
    require_signature: Required | None = None,
    isolated: bool | None = False,
) -> Service:
    """Open a bundle as often as there are workers; arguments as of `edgeformer_runtime.load`, errors too.

    `isolated` None: unless a signature is required, which says whose bundle it is.
    """
    required = requirement_of(require_signature)
    isolated = not required.keys if isolated is None else isolated
    return Service(partial(load, path, threads, require_signature=required, isolated=isolated), options)


# One bundle, opened as often as there are workers; a service has one, and while it changes to another one, two.


OpenPipeline = Callable[[], Pipeline[Any, Any]]
"""Opens the bundle that lies at the service's path now."""


class Loaded:
    """A bundle's manifest and the workers that answer with it."""

    def __init__(
        self,
        open_pipeline: OpenPipeline,
        options: ServeOptions,
        on_replaced: Callable[[str], None],
        is_verified: bool = False,
    ) -> None:
        """Open a bundle.

        Args:
            open_pipeline: opens one pipeline.
            options: the service's.
            on_replaced: see `Workers`.
            is_verified: replay the recorded vectors before it may answer.

        Raises:
            BundleError: it cannot be used, it was exchanged while it was being opened, or it does not answer as
                recorded.
            EngineError: its engine does not run here.
        """
        self._open_pipeline = open_pipeline
        self._sha256: str | None = None
        pipelines: list[Pipeline[Any, Any]] = []
        with ExitStack() as undo:
            for _ in range(options.workers):
                pipelines.append(self._open_same())
                undo.callback(pipelines[-1].close)
            if is_verified:
                _verify(pipelines[0])
            undo.pop_all()
        self.manifest = pipelines[0].bundle.manifest
        patience_s = TASKS[self.manifest.task].takes.patience_s
        self.workers = Workers(pipelines, options.max_waiting, self._open_same, on_replaced, patience_s)

    def _open_same(self) -> Pipeline[Any, Any]:
        """One more pipeline of the same bundle: answers must not depend on which worker gives them."""
        pipeline = self._open_pipeline()
        sha256 = pipeline.bundle.manifest_sha256
        if self._sha256 is not None and sha256 != self._sha256:
            pipeline.close()
            raise BundleError("another bundle lies at the path now: send SIGHUP to change to it")
        self._sha256 = sha256
        return pipeline


def _verify(pipeline: Pipeline[Any, Any]) -> None:
    is_isolated = isinstance(pipeline, IsolatedPipeline)
    found = verify_isolated(pipeline.bundle) if is_isolated else verify(pipeline.bundle, pipeline.engine)
    if not found.ok:
        raise BundleError(f"answers differ from the recorded ones, first in {found.first_diverging}: run verify")


# How the inputs of one request are answered.


@dataclass(frozen=True)
class RequestPlan:
    """How one request is to be answered.

    Attributes:
        read: its inputs from a body and its content type.
        answer: the results for its inputs, in their order.
        to_answer: a result as the device's answer.
        read_fallback: an answer of a fallback; None: answers have no confidence, so that none is asked.
    """

    read: Callable[[bytes, str], Inputs[Any]]
    answer: Callable[[Workers, Inputs[Any]], Awaitable[list[Result]]]
    to_answer: Callable[[Any], Answer]
    read_fallback: ReadFallback | None = None


async def answer_at_once(workers: Workers, inputs: Inputs[Any], options: Any = None) -> list[Result]:
    """One worker answers all inputs of a request; it gives up between two of them.

    Args:
        workers: of the service.
        inputs: of the request.
        options: that each call takes; None: the pipeline takes none, or its own.
    """

    def run_all(pipeline: Pipeline[Any, Any], is_cancelled: IsCancelled) -> list[Result]:
        results: list[Result] = []
        check(is_cancelled)
        for found in pipeline.answer_each(inputs.raws, options):
            check(is_cancelled)
            if isinstance(found, InputError) and inputs.several:
                raise InputError(f"inputs.{len(results)}: {found}") from None
            if isinstance(found, EdgeFormerError):
                raise found
            results.append(cast(Result, found))
        return results

    return await workers.run(run_all)
