"""Copies of a pipeline, a thread for each, and one bounded line of requests before them.

A worker that dies (code below Python raised what is no Exception, or the process of its model ended) or that does not
give up work that nobody waits for is replaced by a new thread with a newly opened pipeline.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from edgeformer_runtime.errors import EdgeFormerError, EngineError
from edgeformer_runtime.isolation.pipeline import IsolatedEngine
from edgeformer_runtime.pipelines import Cancelled, IsCancelled, Pipeline
from edgeformer_runtime.serve.inputs import busy

Outcome = TypeVar("Outcome")
Work = Callable[[Pipeline[Any, Any], IsCancelled], Outcome]
"""What is done with a pipeline; it asks the second argument now and then and gives up when told to."""

GATHER_S = 0.005
"""A thread hands answers over together, at most so long after the first: waking the event loop and being woken for each
takes a tenth to a third of a small classifier's processor time. What takes longer than this goes alone."""

SHORT_TURNS = 4
"""Jobs that go before a part of longer work, so that this is not put off for ever."""
MOST_STUCK = 4
"""Stuck threads at a time, as no thread can be ended from outside: with more, the next stuck worker stays missing."""
REOPEN_S = 5.0
"""Between attempts to open a pipeline in the place of a dead one."""

NONE_ALIVE = "no worker is alive, it is being replaced"

_logger = logging.getLogger("edgeformer_runtime.serve")


@runtime_checkable
class Interruptible(Protocol):
    """A pipeline in a process of its own, which can be ended whatever it does; the next call starts another one."""

    def interrupt(self) -> None:
        """End what is being answered, from any thread: whoever waits for it gets an EngineError."""


@dataclass(eq=False)
class _Job:
    """Work in the line, and where its outcome goes."""

    work: Work[Any]
    future: asyncio.Future[Any]
    is_abandoned: bool = False
    is_interrupted: bool = False

    def outcome(self, pipeline: Pipeline[Any, Any]) -> tuple[Any, BaseException | None]:
        """Do the work: what it gives, or its error."""
        try:
            return self.work(pipeline, lambda: self.is_abandoned), None
        except BaseException as error:  # a panic of code in Rust is no Exception, and the thread has to survive it
            return None, error


_Done = list[tuple[_Job, tuple[Any, BaseException | None]]]


@dataclass(eq=False)
class _Worker:
    """A thread's pipeline, what it does now, and whether it was given up while it did that."""

    pipeline: Pipeline[Any, Any]
    job: _Job | None = None
    is_given_up: bool = False


class Workers:
    """Answers one request per pipeline at a time, in the order of their arrival. Used from one event loop."""

    def __init__(
        self,
        pipelines: Sequence[Pipeline[Any, Any]],
        max_waiting: int,
        reopen: Callable[[], Pipeline[Any, Any]],
        on_replaced: Callable[[str], None] = lambda _: None,
        patience_s: float = 2.0,
    ) -> None:
        """Take over pipelines; `close` closes them.

        Args:
            pipelines: one for each worker.
            max_waiting: requests that may wait beside those that are being answered.
            reopen: a pipeline in place of a dead one's; called in a thread.
            on_replaced: told why a worker is replaced: it "died", is "stuck", or its process was "interrupted".
            patience_s: work that nobody waits for has so long to give up; then its process is ended, or its worker
                counts as stuck and is replaced.
        """
        self.count = len(pipelines)
        self.unanswered = 0
        """Requests that wait or are being answered."""
        self._most = max_waiting + self.count
        self._reopen = reopen
        self._on_replaced = on_replaced
        self._patience_s = patience_s
        self._alive: list[_Worker] = []
        self._new = [_Worker(pipeline) for pipeline in pipelines]
        self._stuck = 0
        self._missing = 0  # workers that were to be replaced while too many threads were stuck
        self._cannot_open = False  # the last attempt to replace a worker failed
        self._turn = 0
        self._leases: Counter[Pipeline[Any, Any]] = Counter()
        self._retired: set[Pipeline[Any, Any]] = set()
        self._line: deque[_Job] = deque()
        self._rests: deque[_Job] = deque()  # of long work, whose first steps were in the line
        self._taken = 0
        self._bell: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._working = 0
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._is_closed = False

    @property
    def alive(self) -> int:
        """Workers that can answer."""
        return len(self._alive) + len(self._new)

    @property
    def restarts(self) -> int:
        """Processes of isolated bundles that were started in place of others."""
        engines = (worker.pipeline.engine for worker in (*self._alive, *self._new))
        return sum(engine.helper.restarts for engine in engines if isinstance(engine, IsolatedEngine))

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits for anything and no stream is open."""
        return not self.unanswered and not self._leases

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one request, until the block ends.

        Raises:
            Refusal: 503, too many requests wait, or no worker is alive and none could be opened.
        """
        if self.unanswered >= self._most:
            raise busy(f"{self.unanswered} requests are waiting")
        if not self.alive and self._cannot_open:
            raise busy(NONE_ALIVE)
        self.unanswered += 1
        try:
            yield
        finally:
            self.unanswered -= 1

    async def run(self, work: Work[Outcome]) -> Outcome:
        """Do work with a pipeline that no other work is using. Given up when cancelled, or not done at all.

        Raises:
            Refusal: 503, see `place`.
            EngineError: the work killed its worker, which is replaced.
        """
        with self.place():
            return await self.step(work)

    async def step(self, work: Work[Outcome], is_rest: bool = False) -> Outcome:
        """`run` for one who has a place already, of whose work this is a part.

        Args:
            work: the part.
            is_rest: of long work: what is shorter goes first, `SHORT_TURNS` times of it at most.
        """
        loop = asyncio.get_running_loop()
        if self._new:
            self._start(loop)
        job = _Job(work, loop.create_future())
        (self._rests if is_rest else self._line).append(job)
        self._wake()
        try:
            return cast(Outcome, await job.future)
        finally:
            if not job.future.done() or job.future.cancelled():
                job.is_abandoned = True
                loop.call_later(self._patience_s, self._give_up, job, loop)

    @contextmanager
    def lease(self) -> Iterator[Pipeline[Any, Any]]:
        """A pipeline for work in many steps, which others may use in between: each in turn, open until the block ends.

        Raises:
            Refusal: 503, no worker is alive.
        """
        workers = self._alive or self._new
        if not workers:
            raise busy(NONE_ALIVE)
        self._turn += 1
        pipeline = workers[self._turn % len(workers)].pipeline
        self._leases[pipeline] += 1
        try:
            yield pipeline
        finally:
            self._leases[pipeline] -= 1
            if not self._leases[pipeline]:
                del self._leases[pipeline]
                if pipeline in self._retired:
                    self._retire(pipeline)

    def aside(self, release: Callable[[], None]) -> None:
        """Release what a work has left, which may take as long as a step of it; what is gone needs no release."""

        def try_to() -> None:
            with suppress(EdgeFormerError):
                release()

        self._spawn(try_to)

    async def drain(self) -> None:
        """Wait until nobody waits for anything, then close; cancelled, close at once."""
        try:
            while not self.is_idle:
                await asyncio.sleep(0.05)
        finally:
            await self.close()

    async def close(self, patience_s: float = 2.0) -> None:
        """Drop what waits, tell what has begun to give up, and close the pipelines of those that do.

        Args:
            patience_s: that threads have for it; those that do not are left to the end of the process.
        """
        self._is_closed = True
        for job in (*self._line, *self._rests):
            job.future.cancel()
        self._line.clear()
        self._rests.clear()
        for worker in self._alive:
            if worker.job is not None:
                worker.job.is_abandoned = True
                if isinstance(worker.pipeline, Interruptible):
                    self._spawn(worker.pipeline.interrupt)
            self._bell.put(False)
        loop = asyncio.get_running_loop()
        end = loop.time() + patience_s
        while any(thread.is_alive() for thread in self._threads) and loop.time() < end:
            await asyncio.sleep(0.01)
        for worker in (*self._new, *self._alive):
            if worker.job is None:
                worker.pipeline.close()
        for pipeline in self._retired:
            pipeline.close()
        self._new, self._alive = [], []

    def leave_nothing(self) -> None:
        """End the processes of all bundles and remove their temporary files, for a process that ends at once."""
        for worker in (*self._new, *self._alive):
            if isinstance(worker.pipeline, Interruptible):
                worker.pipeline.interrupt()
            worker.pipeline.bundle.close()

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        new, self._new = self._new, []
        for worker in new:
            self._begin(worker, loop)

    def _begin(self, worker: _Worker, loop: asyncio.AbstractEventLoop) -> None:
        self._alive.append(worker)
        self._spawn(lambda: self._serve(worker, loop))

    def _spawn(self, target: Callable[[], None]) -> None:
        # Daemons, as a stuck one would else keep the process from its end.
        thread = threading.Thread(target=target, name="worker", daemon=True)
        self._threads = [*(other for other in self._threads if other.is_alive()), thread]
        thread.start()

    def _wake(self) -> None:
        if (self._line or self._rests) and self._working < len(self._alive):
            self._working += 1
            self._bell.put(True)

    def _serve(self, worker: _Worker, loop: asyncio.AbstractEventLoop) -> None:
        """A worker's thread: work whenever the bell rings, until the worker dies, is given up, or all close."""
        while self._bell.get() and self._work(worker, loop):
            pass

    def _work(self, worker: _Worker, loop: asyncio.AbstractEventLoop) -> bool:
        """In a thread: take from the line until it is empty; whether the worker goes on."""
        done: _Done = []
        since = time.perf_counter()
        while self._line or self._rests:
            try:
                job = self._next()
            except IndexError:  # another thread was faster
                break
            if job.future.cancelled():
                continue
            worker.job = job
            outcome = job.outcome(worker.pipeline)
            done.append((job, outcome))
            with self._lock:
                worker.job = None
                is_given_up = worker.is_given_up
            if is_given_up or _is_death(outcome[1]):
                _tell(loop, self._bury, worker, done, loop)
                return False
            if time.perf_counter() - since > GATHER_S:
                _tell(loop, _hand_over, done)
                done, since = [], time.perf_counter()
        _tell(loop, self._rest, done)
        return True

    def _next(self) -> _Job:
        """In a thread: the job whose turn it is."""
        self._taken += 1
        is_rests_turn = not self._line or self._taken % (SHORT_TURNS + 1) == 0
        return (self._rests if self._rests and is_rests_turn else self._line).popleft()

    def _rest(self, done: _Done) -> None:
        """In the event loop: a thread found the line empty. What has come since wakes it again."""
        _hand_over(done)
        self._working -= 1
        self._wake()

    def _bury(self, worker: _Worker, done: _Done, loop: asyncio.AbstractEventLoop) -> None:
        """In the event loop: a worker's thread has ended."""
        _hand_over(done)
        self._retire(worker.pipeline)
        if worker.is_given_up:
            self._stuck -= 1
            if self._missing:
                self._missing -= 1
                self._replace(loop)
            return
        self._remove(worker)
        self._on_replaced("died")
        _logger.error("a worker died and is replaced: %s", _describe(cast(BaseException, done[-1][1][1])))
        self._replace(loop)

    def _give_up(self, job: _Job, loop: asyncio.AbstractEventLoop) -> None:
        """In the event loop: end the process that still does what nobody waits for, or replace the worker."""
        with self._lock:
            worker = next((worker for worker in self._alive if worker.job is job), None)
            if worker is None:
                return
            is_process = isinstance(worker.pipeline, Interruptible) and not job.is_interrupted
            worker.is_given_up = not is_process
        if is_process:
            job.is_interrupted = True
            self._on_replaced("interrupted")
            self._spawn(cast(Interruptible, worker.pipeline).interrupt)
            loop.call_later(self._patience_s, self._give_up, job, loop)
            return
        self._remove(worker)
        self._stuck += 1
        self._on_replaced("stuck")
        _logger.error("a worker is stuck in work that nobody waits for and is replaced: %d are stuck", self._stuck)
        if self._stuck > MOST_STUCK:
            self._missing += 1
        else:
            self._replace(loop)

    def _remove(self, worker: _Worker) -> None:
        self._alive.remove(worker)
        self._working -= 1

    def _replace(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open a pipeline in a thread, and again after a while where that fails."""
        if not self._is_closed:
            self._spawn(lambda: self._open(loop))

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            pipeline = self._reopen()
        except BaseException as error:
            _logger.error("a worker cannot be replaced yet: %s", _describe(error))
            _tell(loop, self._try_later, loop)
            return
        _tell(loop, self._take, _Worker(pipeline), loop)

    def _try_later(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the event loop: a worker could not be replaced."""
        self._cannot_open = True
        loop.call_later(REOPEN_S, self._replace, loop)

    def _take(self, worker: _Worker, loop: asyncio.AbstractEventLoop) -> None:
        """In the event loop: a new worker is there."""
        if self._is_closed:
            worker.pipeline.close()
            return
        self._cannot_open = False
        self._begin(worker, loop)
        self._wake()

    def _retire(self, pipeline: Pipeline[Any, Any]) -> None:
        """In the event loop: close a pipeline that no worker has any more, when its last stream ends."""
        if pipeline in self._leases:
            self._retired.add(pipeline)
            return
        self._retired.discard(pipeline)
        self._spawn(pipeline.close)


def _tell(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *arguments: Any) -> None:
    """Call back in the event loop, unless it has ended without this thread, which was stuck."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, *arguments)


def _is_death(error: BaseException | None) -> bool:
    """Whether the worker cannot go on: what code below Python raises when its own state may be broken."""
    return error is not None and not isinstance(error, Exception)


def _describe(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _hand_over(done: _Done) -> None:
    """In the event loop: give outcomes to those who still wait for them."""
    for job, (value, error) in done:
        if job.future.done():
            continue
        if error is None:
            job.future.set_result(value)
        elif isinstance(error, Cancelled):
            job.future.cancel()
        elif isinstance(error, Exception):
            job.future.set_exception(error)
        else:
            job.future.set_exception(EngineError(f"the input made the model's code fail: {_describe(error)}"))
