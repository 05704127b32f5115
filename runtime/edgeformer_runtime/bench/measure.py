"""Measures cells of contenders: each contender in a process of its own, taking turns, so that none has it quieter."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from edgeformer_runtime.bench.contender import Cell, Contender
from edgeformer_runtime.bench.device import BUSY_SECONDS, Energy, Meter, find_meter, state_now, this_device, versions
from edgeformer_runtime.bench.report import Report, Row, new_report, quantiles, ratio
from edgeformer_runtime.bench.workload import workload
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.bundle.strict_json import shorten
from edgeformer_runtime.engines import open_engine
from edgeformer_runtime.errors import EngineError, InputError
from edgeformer_runtime.interface import CountProgress

DEFAULT_ROUNDS = 30
QUICK_WARM_UP, QUICK_ROUNDS = 3, 15
"""Single runs of each bundle, of those that are measured in this process."""
QUICK_LEAST, QUICK_S = 4, 5.0
"""Rounds that are measured of slow ones, such as whole transcripts, when all rounds together have taken that long."""
_MIB = 1 << 20


def measure_cells(cells: Sequence[Cell], rounds: int = DEFAULT_ROUNDS, progress: CountProgress | None = None) -> Report:
    """Measure the contenders of each cell against each other, cell after cell.

    Args:
        cells: what runs on equal terms.
        rounds: how many turns each contender gets; in a turn it runs for some 20 ms, at least once, after one run that
            does not count.
        progress: called after each round.

    Raises:
        EngineError: a contender failed to load or to run; the message names it.
        InputError: there are no cells or no rounds.
    """
    if not cells or rounds < 1:
        raise InputError("expected at least one bundle and one round to measure")
    device, meter = this_device(), find_meter()
    before = state_now()
    rows: list[Row] = []
    for index, cell in enumerate(cells):

        def report(finished: int, done: int = index * rounds) -> None:
            if progress is not None:
                progress(done + finished, len(cells) * rounds)

        rows += _measure_cell(cell, rounds, meter, report)
    return new_report(device, versions(), (before, state_now()), rounds, rows)


def median_latencies_ms(bundles: Sequence[Bundle]) -> list[float]:
    """Median ms of each bundle's workload in this process, on one thread: what `convert` and `report` state.

    Bundles take turns as contenders do. `measure_cells` gives each a process of its own, which also tells memory.

    Args:
        bundles: open ones; one that occurs twice is measured once.

    Raises:
        EngineError: an engine failed.
    """
    distinct = list(dict.fromkeys(bundles))
    with ExitStack() as stack:
        calls = []
        for bundle in distinct:
            engine = open_engine(bundle, threads=1)
            stack.callback(engine.close)
            calls.append(workload(bundle).bind(bundle, engine))
        times: dict[Bundle, list[float]] = {bundle: [] for bundle in distinct}
        began = time.perf_counter()
        for number, order in enumerate(turn_orders(len(calls), QUICK_WARM_UP + QUICK_ROUNDS)):
            if number >= QUICK_WARM_UP + QUICK_LEAST and time.perf_counter() - began > QUICK_S:
                break
            for index in order:
                start = time.perf_counter()
                calls[index]()
                times[distinct[index]].append((time.perf_counter() - start) * 1e3)
    return [statistics.median(times[bundle][QUICK_WARM_UP:]) for bundle in bundles]


def _measure_cell(cell: Cell, rounds: int, meter: Meter | None, progress: Callable[[int], None]) -> list[Row]:
    with ExitStack() as stack:
        children = [stack.enter_context(Child(contender, cell.threads)) for contender in cell.contenders]
        # One after the other: two models that load at once would slow each other down.
        loads = [child.prepare() for child in children]
        turns: list[list[Turn]] = [[] for _ in children]
        for finished, order in enumerate(turn_orders(len(children), rounds)):
            for index in order:
                turns[index].append(children[index].turn())
            progress(finished + 1)
        energies = [None if meter is None else _energy(child, meter) for child in children]
        peaks = [child.finish() for child in children]
    return [_row(cell, *found, turns) for found in zip(range(len(children)), loads, energies, peaks, strict=True)]


def _energy(child: Child, meter: Meter) -> Energy | None:
    """Of a pass of its own, so that no reading of a meter falls into a time that is reported."""
    idle = meter.watts_during(lambda: time.sleep(BUSY_SECONDS))
    runs: list[int] = []
    start = time.perf_counter()
    watts = meter.watts_during(lambda: runs.append(child.keep_busy(BUSY_SECONDS)))
    seconds = time.perf_counter() - start
    return None if idle is None or watts is None else Energy(meter.name, watts * seconds / runs[0], watts, idle)


def _row(
    cell: Cell, index: int, load: Load, energy: Energy | None, peak_bytes: float, turns: Sequence[Sequence[Turn]]
) -> Row:
    contender = cell.contenders[index]
    walls = [turn.wall_ms for turn in turns[index]]
    to_first, interval = ratio(walls, [turn.wall_ms for turn in turns[0]])
    return Row(
        name=contender.name,
        engine=contender.engine,
        precision=contender.precision,
        program=contender.program,
        threads=cell.threads,
        batch=contender.batch,
        size_bytes=contender.size_bytes,
        bundle_sha256=contender.bundle_sha256,
        latency_ms=quantiles(walls),
        cpu_ms=quantiles([turn.cpu_ms for turn in turns[index]]),
        load_ms=load.load_ms,
        peak_rss_mb=peak_bytes / _MIB,
        private_mb=None if load.private_bytes is None else load.private_bytes / _MIB,
        arena_mb=None,
        energy=energy,
        ratio_to_first=to_first,
        ratio_interval=interval if index else None,
    )


# Who runs when. A heavy contender leaves cold caches and a warm processor to whoever comes next.


def turn_orders(contenders: int, rounds: int) -> list[tuple[int, ...]]:
    """The order of turns in each round, balanced for what one turn does to the next.

    These are the rows of a Williams design, repeated: over n rounds (2n where n is odd) every contender stands at every
    place equally often, and follows every other one equally often within a round. E. J. Williams, "Experimental designs
    balanced for the estimation of residual effects of treatments", Australian Journal of Scientific Research 2 (1949).

    Args:
        contenders: n, at least 1.
        rounds: how many orders are wanted.

    Returns:
        For each round a permutation of 0..n-1.
    """
    first = [(place + 1) // 2 if place % 2 else -(place // 2) for place in range(contenders)]
    rows = [tuple((index + shift) % contenders for index in first) for shift in range(contenders)]
    if contenders % 2:
        rows += [row[::-1] for row in rows]
    return [rows[index % len(rows)] for index in range(rounds)]


# A contender's process, as the one who measures sees it.


# Read by BLAS and OpenMP when they are loaded, so they have to be there before the process starts.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")

STOP_SECONDS = 10

WORKER = "edgeformer_runtime.bench.worker"
"""The module whose `main` is a contender's process."""


@dataclass(frozen=True)
class Load:
    """What it took to get ready: ms of the factory's call, and by how many bytes the private memory grew up to the end
    of the warm-up (None where the system does not tell)."""

    load_ms: float
    private_bytes: int | None


@dataclass(frozen=True)
class Turn:
    """Single runs of a turn: ms of wall clock, and ms of processor time of all threads."""

    wall_ms: list[float]
    cpu_ms: list[float]


class Child:
    """A contender's process. It answers one JSON line for each line that it is sent; see bench/worker.py."""

    def __init__(self, contender: Contender, threads: int, worker: str = WORKER) -> None:
        """Start the process; `worker` is the module whose `main` answers."""
        self._contender = contender
        self._threads = threads
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads))
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {worker} import main; main()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            text=True,
            encoding="utf-8",
        )

    def load(self) -> float:
        """Load the model and warm it up; returns how long the factory took, in ms."""
        return self.prepare().load_ms

    def prepare(self) -> Load:
        """Load the model and warm it up."""
        factory = {"factory": self._contender.factory, "arguments": self._contender.arguments}
        answer = self.ask({"load": {**factory, "threads": self._threads}})
        return Load(float(answer["load_ms"]), answer.get("private_bytes"))

    def turn(self) -> Turn:
        """One turn's runs."""
        answer = self.ask({"turn": {}})
        return Turn(answer["wall_ms"], answer["cpu_ms"])

    def keep_busy(self, seconds: float) -> int:
        """Run without a pause for so long; how many runs that were."""
        return int(self.ask({"keep_busy": {"seconds": seconds}})["runs"])

    def finish(self) -> float:
        """The process's peak memory in bytes."""
        return float(self.ask({"finish": {}})["peak_rss_bytes"])

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Send {"name of a question": {its arguments}} and wait for the answer.

        Raises:
            EngineError: the contender failed or its process died; the message names it.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise EngineError(f"{self._contender.name}: {self._death()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise EngineError(f"{self._contender.name}: {answer['error']}")
        return answer

    def _death(self) -> str:
        """Why the process is gone: its exit status and the last line that it printed."""
        status = self._process.wait()
        reason = f"exit code {status}" if status >= 0 else signal.Signals(-status).name
        self._stderr.seek(0)
        printed = self._stderr.read().decode(errors="replace").strip().splitlines()
        last = f", it printed last: {shorten(printed[-1], 200)[1:-1]}" if printed else ""
        return f"its process ended with {reason}{last}"

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The end of its input ends the process, which then removes what it unpacked; only one that hangs is killed.
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # what was left to flush has no reader
            self._process.stdin.close()
        try:
            self._process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()
