"""Copies of a pipeline, a thread for each, and a bounded line of requests before them."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from typing import Any, TypeVar

from edgeformer_runtime.pipelines.base import Pipeline
from edgeformer_runtime.serve.refusals import busy

Answer = TypeVar("Answer")


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
        self._most = max_waiting + len(self._pipelines)
        self.unanswered = 0
        """Requests that wait or are being answered."""

    async def run(self, work: Callable[[Pipeline[Any, Any]], Answer]) -> Answer:
        """Do work with a pipeline that nothing else is using. Cancelled while it waits, it is not done at all.

        Raises:
            Refusal: 503, too many requests wait.
        """

        def with_idle() -> Answer:
            pipeline = self._idle.get()  # there are as many threads as pipelines: one is idle
            try:
                return work(pipeline)
            finally:
                self._idle.put(pipeline)

        return await self.call(with_idle)

    async def call(self, work: Callable[[], Answer]) -> Answer:
        """Do work in one of the threads; see `run`."""
        if self.unanswered >= self._most:
            raise busy(f"{self.unanswered} requests are waiting")
        self.unanswered += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self.unanswered -= 1

    def next_pipeline(self) -> Pipeline[Any, Any]:
        """A pipeline for work in many steps, which others may use in between: each in turn."""
        return next(self._turns)

    def close(self) -> None:
        """Finish what has begun, drop what waits, and close the pipelines."""
        self._threads.shutdown(cancel_futures=True)
        for pipeline in self._pipelines:
            pipeline.close()
