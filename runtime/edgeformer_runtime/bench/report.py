"""What a benchmark found on one machine, as records and as JSON: the same for every machine, wherever it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table

from edgeformer_runtime.bench.device import Device, Energy, State
from edgeformer_runtime.bundle.strict_json import check, from_data, to_data
from edgeformer_runtime.interface import Shown

FORMAT_VERSION = 1
SCHEMA = "bench.schema.json"
MAX_BYTES = 16 << 20

LOCAL = "local"


@dataclass(frozen=True)
class Row:
    """What was measured of a contender.

    Attributes:
        name, engine, precision, program, batch, size_bytes, bundle_sha256: see `Contender`.
        threads: how many it may use.
        latency_ms: wall clock of single runs.
        cpu_ms: processor time of all threads, of the same runs; None: unknown.
        load_ms: from the factory's call to a model that can run.
        peak_rss_mb: the largest resident memory of the whole process, in MiB; None: unknown.
        private_mb: by how much loading and running it let the memory grow that no file backs, in MiB: packed weights,
            heap and the arena of activations; None: unknown.
        arena_mb: what activations take at most, by the program's graph, in MiB; None: nobody looked into the graph.
        energy: what it took; None: the device does not tell.
        ratio_to_first: the median over rounds of its turn's median over that of the cell's first contender.
        ratio_interval: low and high end; None: too few rounds, or it is the first.
    """

    name: str
    engine: str
    precision: str
    program: str | None
    threads: int
    batch: int
    size_bytes: int
    bundle_sha256: str | None
    latency_ms: Quantiles
    cpu_ms: Quantiles | None
    load_ms: float
    peak_rss_mb: float | None
    private_mb: float | None
    arena_mb: float | None
    energy: Energy | None
    ratio_to_first: float
    ratio_interval: Interval | None


@dataclass(frozen=True)
class Report:
    """A run of the benchmark on one machine.

    Attributes:
        on: which machine, as it was asked for: "local", "ssh://pi@raspberrypi", "adb://SERIAL".
        device: what it is.
        versions: of the packages that took part.
        before: how the machine was before the first contender was loaded.
        after: how it was after the last turn.
        rounds: how many turns each contender got; 0: turns were not interleaved.
        confidence: of all intervals.
        rows: cell by cell.
        notes: what a reader should know before believing it, a sentence each.
    """

    on: str
    device: Device
    versions: dict[str, str]
    before: State
    after: State
    rounds: int
    confidence: float
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def named(self, on: str) -> Report:
        """The same, of a machine that is known here by another name."""
        return replace(self, on=on)


@dataclass(frozen=True, repr=False)
class BenchmarkResult(Shown):
    """What a benchmark found on one or several machines.

    Attributes:
        reports: one of each machine, in the order in which they were named.
    """

    reports: tuple[Report, ...]

    def to_json(self) -> dict[str, Any]:
        """What `bench --json` prints."""
        return to_json(self.reports)

    def tables(self) -> list[RenderableType]:
        """Each report's table and what belongs under it; of several machines their medians side by side, too."""
        parts: list[RenderableType] = []
        for report in self.reports:
            parts += [report_table(report), *remarks(report)]
        return [*parts, medians_table(self.reports)] if len(self.reports) > 1 else parts


def new_report(
    device: Device, versions: dict[str, str], states: tuple[State, State], rounds: int, rows: Sequence[Row]
) -> Report:
    """A report of this machine, with the notes that follow from what was seen.

    Args:
        device: this machine.
        versions: of its packages.
        states: before and after.
        rounds: turns per contender.
        rows: of all cells.
    """
    before, after = states
    notes = tuple(_notes(device, before, after, rows))
    return Report(LOCAL, device, versions, before, after, rounds, CONFIDENCE, tuple(rows), notes)


def to_json(reports: Sequence[Report]) -> dict[str, Any]:
    """The document of `bench.schema.json`."""
    return {"format_version": FORMAT_VERSION, "reports": [to_data(report) for report in reports]}


def from_json(value: Any, where: str) -> list[Report]:
    """The reports of what `to_json` gave.

    Args:
        value: parsed JSON.
        where: it came from, for messages.

    Raises:
        BundleError: it does not follow `bench.schema.json`.
    """
    check(value, SCHEMA, where)
    return [from_data(Report, report, where) for report in value["reports"]]


_BUSY_LOAD = 0.5
_WAITING = 1.2


def _notes(device: Device, before: State, after: State, rows: Sequence[Row]) -> list[str]:
    found = []
    if before.load_average is not None and before.load_average > _BUSY_LOAD * device.cores:
        found.append(f"other processes were busy: a load of {before.load_average:.1f} on {device.cores} cores before")
    waiting = [row.name for row in rows if row.cpu_ms and row.latency_ms.median > _WAITING * row.cpu_ms.median]
    if waiting:
        found.append(f"{', '.join(dict.fromkeys(waiting))} waited for the processor: compare processor times")
    if device.governor not in (None, "performance"):
        found.append(f"the clock's governor is {device.governor}: performance gives steadier times")
    now = [limit for limit in after.limits if not limit.endswith("since boot")]
    if now:
        found.append(f"the board holds its clock down: {', '.join(now)}")
    if any(row.threads > device.cores for row in rows):
        found.append(f"more threads than the {device.cores} cores that there are")
    return found


# From times of single runs to medians, 90th percentiles and ratios, each with an interval.
#
# Runs of one turn resemble each other: the machine was warm or cold, busy or free for all of them. So what is drawn
# again for an interval is whole rounds, and a ratio compares turns of the same round.


Floats = NDArray[np.float64]
Interval = tuple[float, ...]
"""Its low and its high end."""

CONFIDENCE = 0.95
LEAST_ROUNDS = 6
"""Even the whole range of five rounds holds the median with a probability of 1 - 2 / 2^5 = 0.94 only."""

RESAMPLES = 1000
_SEED = 0
_CHUNK_VALUES = 1 << 21

P90 = 0.9


@dataclass(frozen=True)
class Quantiles:
    """Times of single runs, in ms.

    Attributes:
        median: of all runs.
        p90: nine of ten runs take no longer (nearest rank).
        runs: how many there were.
        median_interval: low and high end at `CONFIDENCE`; None: fewer than `LEAST_ROUNDS` rounds.
        p90_interval: likewise.
    """

    median: float
    p90: float
    runs: int
    median_interval: Interval | None
    p90_interval: Interval | None


def quantiles(rounds: Sequence[Sequence[float]]) -> Quantiles:
    """Median and p90 of all runs.

    Args:
        rounds: ms of the runs of each round's turn, equally many in each.
    """
    times = np.array(rounds, dtype=np.float64)
    return Quantiles(
        median=float(_median(times)),
        p90=float(_p90(times)),
        runs=times.size,
        median_interval=bootstrap(times, _median),
        p90_interval=bootstrap(times, _p90),
    )


def ratio(rounds: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> tuple[float, Interval | None]:
    """How much longer a contender takes than another one: the median over rounds of the ratio of the turns' medians.

    Args:
        rounds: ms of the runs of each round's turn.
        reference: the other contender's, of the same rounds.

    Returns:
        The ratio and its interval at `CONFIDENCE`.
    """
    own, other = (np.median(np.array(times, dtype=np.float64), axis=1) for times in (rounds, reference))
    ratios = (own / other)[:, None]
    return float(_median(ratios)), bootstrap(ratios, _median)


def bootstrap(rounds: Floats, statistic: Callable[[Floats], Floats]) -> Interval | None:
    """The interval in which a statistic falls when rounds are drawn again, with replacement.

    The percentile interval of B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13, with
    rounds as clusters. It speaks of this run alone: of its processes, this machine and this hour.

    Args:
        rounds: shape (rounds, runs).
        statistic: of shape (..., rounds, runs) to shape (...).

    Returns:
        Low and high end at `CONFIDENCE`; None for fewer than `LEAST_ROUNDS` rounds.
    """
    count = len(rounds)
    if count < LEAST_ROUNDS:
        return None
    draws = np.random.default_rng(_SEED).integers(count, size=(RESAMPLES, count))
    chunks = np.array_split(draws, -(-RESAMPLES * rounds.size // _CHUNK_VALUES))
    found = np.concatenate([statistic(rounds[chunk]) for chunk in chunks])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


def _median(rounds: Floats) -> Floats:
    return cast(Floats, np.median(rounds, axis=(-2, -1)))


def _p90(rounds: Floats) -> Floats:
    return cast(Floats, np.quantile(rounds, P90, axis=(-2, -1), method="inverted_cdf"))


# The tables that `bench` prints.


HEADERS = ("name", "engine", "precision", "program", "batch", "threads")
FIGURES = (
    *("median, ms", "interval", "p90, ms", "CPU, ms", "ratio", "interval"),
    *("load, ms", "peak, MiB", "private, MiB", "arena, MiB", "mJ", "MB"),
)
"""Peak and private memory are the process's, the arena is the graph's; MB are the model's files."""

_NAMING = 3
_WHOLE_FROM = 100


def report_table(report: Report) -> Table:
    """One row per contender, wide as a terminal; columns that say nothing are left out, and engines: names say them."""
    lines = [(*described(row)[_NAMING:], *figures(row)) for row in report.rows]
    headers = (*HEADERS[_NAMING:], *FIGURES)
    conditions = len(HEADERS) - _NAMING
    table = Table(title=f"{report.on}: {device_line(report)}", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True)
    shown = [
        index
        for index in range(len(headers))
        if (len({line[index] for line in lines}) > 1 if index < conditions else any(line[index] for line in lines))
    ]
    for index in shown:
        table.add_column(headers[index].replace(", ", "\n"), justify="right", no_wrap=True)
    for row, line in zip(report.rows, lines, strict=True):
        table.add_row(short_name(row), *(line[index] for index in shown))
    return table


def short_name(row: Row) -> str:
    """A contender's name, with its precision where the name does not say it."""
    return row.name if row.name.endswith(row.precision) else f"{row.name} {row.precision}"


def described(row: Row) -> tuple[str, ...]:
    """What a row is about, in the order of `HEADERS`."""
    return (row.name, row.engine, row.precision, row.program or "", str(row.batch), str(row.threads))


def figures(row: Row) -> tuple[str, ...]:
    """What was measured, in the order of `FIGURES`; empty where nothing was."""
    return (
        figure(row.latency_ms.median),
        span(row.latency_ms.median_interval),
        figure(row.latency_ms.p90),
        "" if row.cpu_ms is None else figure(row.cpu_ms.median),
        figure(row.ratio_to_first),
        span(row.ratio_interval),
        f"{row.load_ms:.0f}",
        "" if row.peak_rss_mb is None else f"{row.peak_rss_mb:.0f}",
        "" if row.private_mb is None else f"{row.private_mb:.1f}",
        "" if row.arena_mb is None else f"{row.arena_mb:.1f}",
        "" if row.energy is None else f"{row.energy.joules_per_run * 1e3:.1f}",
        f"{row.size_bytes / 1e6:.1f}",
    )


def figure(value: float) -> str:
    """A number with two decimals, or none where there are three digits before the point."""
    return f"{value:.0f}" if value >= _WHOLE_FROM else f"{value:.2f}"


def span(interval: Interval | None) -> str:
    """An interval's low and high end."""
    return "" if interval is None else f"{figure(interval[0])}-{figure(interval[1])}"


def remarks(report: Report) -> Iterator[str]:
    """What belongs under a report's table, a line each."""
    yield from report.notes
    seen = [
        f"{word} {line}"
        for word, state in (("before:", report.before), ("after:", report.after))
        if (line := _state(state))
    ]
    if seen:
        yield "; ".join(seen)


def device_line(report: Report) -> str:
    """The machine in a line."""
    device = report.device
    cores = f"{device.cores} cores" if device.cores > 1 else "1 core"
    return ", ".join(part for part in (device.model, device.cpu, f"{device.machine}, {cores}", device.os) if part)


def medians_table(reports: Sequence[Report]) -> Table:
    """Every contender's median on every machine, where a benchmark ran on several."""
    names = {described(row): short_name(row) for report in reports for row in report.rows}
    shown = [index for index in range(_NAMING, len(HEADERS)) if len({key[index] for key in names}) > 1]
    table = Table(title="medians, ms", box=SIMPLE_HEAD)
    table.add_column("", no_wrap=True)
    for header in (*(HEADERS[index] for index in shown), *(report.on for report in reports)):
        table.add_column(header, justify="right")
    found = [{described(row): figure(row.latency_ms.median) for row in report.rows} for report in reports]
    for key, name in names.items():
        table.add_row(name, *(key[index] for index in shown), *(medians.get(key, "") for medians in found))
    return table


def _state(state: State) -> str:
    parts = []
    if state.temperatures_c:
        parts.append(f"{max(state.temperatures_c.values()):.1f} °C")
    if state.clocks_mhz:
        parts.append(f"{max(state.clocks_mhz):.0f} MHz")
    if state.limits:
        parts.append(", ".join(state.limits))
    return ", ".join(parts)
