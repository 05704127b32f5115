"""The process of one contender: loads it, runs it when it is its turn, reports times and its own memory.

It imports nothing before the contender does, so that memory and load time are the contender's; for the same reason it
lies outside the package `bench`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from edgeformer_runtime.process import peak_rss_bytes, private_bytes
from edgeformer_runtime.registry import load_attribute

WARM_UP_RUNS = 3
WARM_UP_MS = 200.0
TURN_MS = 20.0
MAX_RUNS_PER_TURN = 50

Questions = Mapping[str, Callable[..., dict[str, Any]]]
"""What a process answers: each takes the arguments of its question and gives JSON values."""


class Worker:
    """Answers the questions of `bench.Child`."""

    def __init__(self) -> None:
        self._run: Callable[[], object] | None = None
        self._runs_per_turn = 1

    def load(self, factory: str, arguments: dict[str, Any], threads: int) -> dict[str, Any]:
        """Call the factory, then run what it made until its time is steady."""
        make = load_attribute(factory)
        before = private_bytes()
        start = time.perf_counter()
        self._run = make(**arguments, threads=threads)
        load_ms = (time.perf_counter() - start) * 1e3
        times: list[float] = []
        while len(times) < WARM_UP_RUNS or sum(times) < WARM_UP_MS:
            times.append(self._timed()[0])
        self._runs_per_turn = max(1, min(MAX_RUNS_PER_TURN, round(TURN_MS / min(times))))
        if hasattr(self._run, "rewind"):  # inputs one after the other: as many for every contender
            from edgeformer_runtime.bench.workload import INPUTS_PER_TURN

            self._run.rewind()
            self._runs_per_turn = INPUTS_PER_TURN
        after = private_bytes()
        return {"load_ms": load_ms, "private_bytes": None if before is None or after is None else after - before}

    def turn(self) -> dict[str, Any]:
        """One run to get its data back into the caches after the others' turns, then the measured ones."""
        assert self._run is not None
        getattr(self._run, "repeat", self._run)()
        times = [self._timed() for _ in range(self._runs_per_turn)]
        return {"wall_ms": [wall for wall, _ in times], "cpu_ms": [cpu for _, cpu in times]}

    def keep_busy(self, seconds: float) -> dict[str, Any]:
        """Run without a pause, while somebody else measures the energy that it takes."""
        assert self._run is not None
        end, runs = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            self._run()
            runs += 1
        return {"runs": runs}

    @property
    def questions(self) -> Questions:
        """By the names that `bench.Child` uses."""
        return {"load": self.load, "turn": self.turn, "keep_busy": self.keep_busy, "finish": finish}

    def _timed(self) -> tuple[float, float]:
        """ms of wall clock and of processor time, of all threads."""
        assert self._run is not None
        cpu, wall = time.process_time(), time.perf_counter()
        self._run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return wall * 1e3, cpu * 1e3


def finish() -> dict[str, Any]:
    """The peak memory of this process."""
    return {"peak_rss_bytes": peak_rss_bytes()}


def main() -> None:
    """The process of a contender that answers the same question over and over."""
    serve(Worker().questions)


def serve(questions: Questions) -> None:
    """Answer questions from stdin on stdout; whatever libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        ((name, arguments),) = json.loads(line).items()
        _answer(answers, questions[name], arguments)


def _answer(answers: TextIO, question: Callable[..., dict[str, Any]], arguments: dict[str, Any]) -> None:
    try:
        answer = question(**arguments)
    except Exception as error:
        import traceback

        from edgeformer_runtime.bundle.strict_json import shorten
        from edgeformer_runtime.errors import EdgeFormerError

        traceback.print_exc()
        known = isinstance(error, EdgeFormerError)
        answer = {"error": str(error) if known else f"{type(error).__name__}: {shorten(str(error), 200)[1:-1]}"}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
