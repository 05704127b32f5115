"""Measures cells of contenders: each contender in a process of its own, taking turns, so that none has it quieter."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from edgeformer_runtime.bench.child import Child, Load, Turn
from edgeformer_runtime.bench.contender import Cell
from edgeformer_runtime.bench.device import state_now, this_device, versions
from edgeformer_runtime.bench.energy import BUSY_SECONDS, Energy, Meter, find_meter
from edgeformer_runtime.bench.estimates import quantiles, ratio
from edgeformer_runtime.bench.order import turn_orders
from edgeformer_runtime.bench.report import Report, Row, new_report
from edgeformer_runtime.errors import InputError

Progress = Callable[[int, int], None]
"""Called with the number of finished rounds and of all rounds."""

DEFAULT_ROUNDS = 30
_MIB = 1 << 20


def measure_cells(cells: Sequence[Cell], rounds: int = DEFAULT_ROUNDS, progress: Progress | None = None) -> Report:
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
