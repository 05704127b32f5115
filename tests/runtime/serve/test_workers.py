"""The line before the pipelines: order, one at a time, errors, cancelling, and answers that go back together."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import one_by_one
from tiny_bundle import TinyEngine

from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.errors import EngineError
from edgeformer_runtime.pipelines import Cancelled, IsCancelled, check, open_pipeline
from edgeformer_runtime.serve.inputs import Refusal
from edgeformer_runtime.serve.workers import GATHER_S, SHORT_TURNS, Work, Workers


def with_workers(tiny: Path, count: int, max_waiting: int, test: Callable[[Workers], Any]) -> Any:
    """Run an asynchronous test over workers."""

    async def run() -> Any:
        pipelines = [open_pipeline(Bundle.open(tiny), TinyEngine(), owned=True) for _ in range(count)]
        workers = Workers(pipelines, max_waiting, one_by_one([]))
        try:
            return await test(workers)
        finally:
            await workers.close()
            assert all(pipeline.engine.closed for pipeline in pipelines)

    return asyncio.run(run())


@pytest.mark.parametrize("count", [1, 3])
def test_all_are_answered_and_no_pipeline_is_used_twice_at_once(tiny: Path, count: int) -> None:
    using: set[int] = set()
    order: list[int] = []
    lock = threading.Lock()

    def job(number: int) -> Work[int]:
        def work(pipeline: Any, _: IsCancelled) -> int:
            with lock:
                assert id(pipeline) not in using
                using.add(id(pipeline))
                order.append(number)
            time.sleep(0.001 if number % 10 else 2 * GATHER_S)
            with lock:
                using.remove(id(pipeline))
            if number % 7 == 3:
                raise ValueError(number)
            return number

        return work

    async def ask(workers: Workers) -> list[Any]:
        return await asyncio.gather(*(workers.run(job(number)) for number in range(100)), return_exceptions=True)

    answers = with_workers(tiny, count, 1000, ask)
    for number, answer in enumerate(answers):
        assert answer.args == (number,) if number % 7 == 3 else answer == number
    assert sorted(order) == list(range(100))
    if count == 1:
        assert order == list(range(100))


def test_a_late_job_finds_a_worker(tiny: Path) -> None:
    """Jobs that come one by one, each just when the thread may have found the line empty."""

    async def ask(workers: Workers) -> int:
        return sum([await workers.run(lambda *_: 1) for _ in range(500)])

    assert with_workers(tiny, 1, 10, ask) == 500


def test_a_cancelled_job_is_not_done(tiny: Path) -> None:
    go, done = threading.Event(), []

    async def ask(workers: Workers) -> None:
        first = asyncio.ensure_future(workers.run(lambda *_: go.wait(10)))
        second = asyncio.ensure_future(workers.run(lambda *_: done.append("second")))
        third = asyncio.ensure_future(workers.run(lambda *_: done.append("third")))
        await asyncio.sleep(0)
        assert workers.unanswered == 3
        with pytest.raises(Refusal, match="busy: 3 requests are waiting"):
            await workers.run(lambda *_: None)
        second.cancel()
        await asyncio.sleep(0)
        assert workers.unanswered == 2
        go.set()
        await asyncio.gather(first, third)
        assert workers.unanswered == 0

    with_workers(tiny, 1, 2, ask)
    assert done == ["third"]


def test_parts_of_long_work_let_others_go_first_but_have_their_turn(tiny: Path) -> None:
    order: list[str] = []
    go = threading.Event()

    async def ask(workers: Workers) -> None:
        waits = [workers.run(lambda *_: go.wait(10))]
        with workers.place():
            waits += [workers.step(lambda *_: order.append("long"), is_rest=True) for _ in range(2)]
            waits += [workers.run(lambda *_: order.append("short")) for _ in range(6)]
            asked = asyncio.gather(*waits)
            await asyncio.sleep(0.05)
            go.set()
            await asked

    with_workers(tiny, 1, 20, ask)
    assert order.count("long") == 2
    assert order[0] == "short"
    assert order.index("long") <= SHORT_TURNS


class Panic(BaseException):
    """What pyo3 raises where Rust panics."""


def test_a_dead_worker_is_replaced(tiny: Path) -> None:
    """Its job fails, the jobs behind it are done by the new one, and a pipeline that a stream uses stays open."""
    old, new = (open_pipeline(Bundle.open(tiny), TinyEngine(), owned=True) for _ in range(2))
    reasons: list[str] = []

    def die(*_: object) -> None:
        raise Panic("at the disco")

    async def run() -> None:
        workers = Workers([old], 10, one_by_one([new]), reasons.append)
        with workers.lease() as leased:
            found = await asyncio.gather(
                *(workers.run(work) for work in (die, lambda pipeline, _: pipeline, lambda pipeline, _: pipeline)),
                return_exceptions=True,
            )
            assert isinstance(found[0], EngineError)
            assert str(found[0]) == "the input made the model's code fail: Panic: at the disco"
            assert found[1:] == [new, new]
            assert leased is old
            assert not old.engine.closed
        await asyncio.sleep(0)
        await workers.close()

    asyncio.run(run())
    assert reasons == ["died"]
    assert old.engine.closed
    assert new.engine.closed


def test_work_that_gives_up_keeps_its_worker(tiny: Path) -> None:
    """A cancelled job is told so, and the next one gets the same pipeline."""
    stopped = threading.Event()

    def endless(_: object, is_cancelled: IsCancelled) -> None:
        while True:
            try:
                check(is_cancelled)
            except Cancelled:
                stopped.set()
                raise
            time.sleep(0.001)

    async def ask(workers: Workers) -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(workers.run(endless), 0.05)
        assert await workers.run(lambda *_: 1) == 1
        assert stopped.is_set()
        assert workers.alive == 1

    with_workers(tiny, 1, 10, ask)


def test_a_process_is_ended_before_its_worker_is_replaced(tiny: Path) -> None:
    pipeline = open_pipeline(Bundle.open(tiny), TinyEngine(), owned=True)
    interrupted = threading.Event()
    pipeline.interrupt = interrupted.set  # type: ignore[attr-defined]
    reasons: list[str] = []

    async def run() -> None:
        workers = Workers([pipeline], 10, one_by_one([]), reasons.append, patience_s=0.05)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(workers.run(lambda *_: interrupted.wait(20)), 0.05)
        assert await workers.run(lambda *_: 1) == 1
        await workers.close()

    asyncio.run(run())
    assert reasons == ["interrupted"]
