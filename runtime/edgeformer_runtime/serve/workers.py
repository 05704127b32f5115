"""Copies of a pipeline, a thread for each, and one bounded line of requests before them."""

from __future__ import annotations

import asyncio
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from typing import Any, TypeVar, cast

from edgeformer_runtime.pipelines.base import Pipeline
from edgeformer_runtime.serve.refusals import busy

Outcome = TypeVar("Outcome")

GATHER_S = 0.005
"""A thread hands answers over together, at most so long after the first: waking the event loop and being woken for each
takes a tenth to a third of a small classifier's processor time. What takes longer than this goes alone."""


@dataclass(frozen=True)
class _Job:
    """Work in the line, and where its outcome goes."""

    work: Callable[[], Any]
    future: asyncio.Future[Any]

    def outcome(self) -> tuple[Any, Exception | None]:
        """Do the work: what it gives, or its error."""
        try:
            return self.work(), None
        except Exception as error:
            return None, error


_Done = list[tuple[_Job, tuple[Any, Exception | None]]]


class Workers:
    """Answers one request per pipeline at a time, in the order of their arrival. Used from one event loop."""

    def __init__(self, pipelines: Sequence[Pipeline[Any, Any]], max_waiting: int) -> None:
        """Take over pipelines; `close` closes them."""
        self._pipelines = tuple(pipelines)
        self._idle: queue.SimpleQueue[Pipeline[Any, Any]] = queue.SimpleQueue()
        for pipeline in self._pipelines:
            self._idle.put(pipeline)
        self._turns = cycle(self._pipelines)
        self._threads = ThreadPoolExecutor(len(self._pipelines), "worker")
        self._line: deque[_Job] = deque()
        self._working = 0
        self._most = max_waiting + len(self._pipelines)
        self.unanswered = 0
        """Requests that wait or are being answered."""

    async def run(self, work: Callable[[Pipeline[Any, Any]], Outcome]) -> Outcome:
        """Do work with a pipeline that no other work of this kind is using; see `call`."""

        def with_idle() -> Outcome:
            pipeline = self._idle.get()  # there are as many threads as pipelines: one is idle
            try:
                return work(pipeline)
            finally:
                self._idle.put(pipeline)

        return await self.call(with_idle)

    async def call(self, work: Callable[[], Outcome]) -> Outcome:
        """Do work in one of the threads. Cancelled while it waits, it is not done at all.

        Raises:
            Refusal: 503, too many requests wait.
        """
        if self.unanswered >= self._most:
            raise busy(f"{self.unanswered} requests are waiting")
        loop = asyncio.get_running_loop()
        job = _Job(work, loop.create_future())
        self._line.append(job)
        self._wake(loop)
        self.unanswered += 1
        try:
            return cast(Outcome, await job.future)
        finally:
            self.unanswered -= 1

    def next_pipeline(self) -> Pipeline[Any, Any]:
        """A pipeline for work in many steps, which others may use in between: each in turn."""
        return next(self._turns)

    def close(self) -> None:
        """Finish what has begun, drop what waits, and close the pipelines."""
        self._line.clear()
        self._threads.shutdown()
        for pipeline in self._pipelines:
            pipeline.close()

    def _wake(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._line and self._working < len(self._pipelines):
            self._working += 1
            self._threads.submit(self._work, loop)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: take from the line until it is empty."""
        done: _Done = []
        since = time.perf_counter()
        while self._line:
            try:
                job = self._line.popleft()
            except IndexError:  # another thread was faster
                break
            if job.future.cancelled():
                continue
            done.append((job, job.outcome()))
            if time.perf_counter() - since > GATHER_S:
                loop.call_soon_threadsafe(_hand_over, done)
                done, since = [], time.perf_counter()
        loop.call_soon_threadsafe(self._rest, done, loop)

    def _rest(self, done: _Done, loop: asyncio.AbstractEventLoop) -> None:
        """In the event loop: a thread found the line empty. What has come since wakes it again."""
        _hand_over(done)
        self._working -= 1
        self._wake(loop)


def _hand_over(done: _Done) -> None:
    """In the event loop: give outcomes to those who still wait for them."""
    for job, (value, error) in done:
        if job.future.done():
            continue
        if error is None:
            job.future.set_result(value)
        else:
            job.future.set_exception(error)
