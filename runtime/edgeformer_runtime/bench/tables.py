"""The tables that `bench` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from edgeformer_runtime.bench.device import State
from edgeformer_runtime.bench.estimates import Interval
from edgeformer_runtime.bench.report import Report, Row

HEADERS = ("name", "engine", "precision", "program", "batch", "threads")
FIGURES = (
    *("median, ms", "interval", "p90, ms", "CPU, ms", "ratio", "interval"),
    *("load, ms", "peak, MiB", "private, MiB", "arena, MiB", "mJ", "MB"),
)
"""Peak and private memory are the process's, the arena is the graph's; MB are the model's files."""

_ALWAYS_SHOWN = 3


def report_table(report: Report) -> Table:
    """One row per contender; columns that say nothing, or one batch and one thread, are left out."""
    lines = [(*described(row), *figures(row)) for row in report.rows]
    shown = [
        index
        for index in range(len(HEADERS) + len(FIGURES))
        if index < _ALWAYS_SHOWN or any(line[index] not in ("", "1") for line in lines)
    ]
    table = Table(title=f"{report.on}: {device_line(report)}", box=SIMPLE_HEAD, padding=(0, 1))
    for index in shown:
        number = index >= len(HEADERS)
        table.add_column((*HEADERS, *FIGURES)[index], justify="right" if number else "left", no_wrap=index == 0)
    for line in lines:
        table.add_row(*(line[index] for index in shown))
    return table


def described(row: Row) -> tuple[str, ...]:
    """What a row is about, in the order of `HEADERS`."""
    return (row.name, row.engine, row.precision, row.program or "", str(row.batch), str(row.threads))


def figures(row: Row) -> tuple[str, ...]:
    """What was measured, in the order of `FIGURES`; empty where nothing was."""
    return (
        f"{row.latency_ms.median:.2f}",
        span(row.latency_ms.median_interval),
        f"{row.latency_ms.p90:.2f}",
        "" if row.cpu_ms is None else f"{row.cpu_ms.median:.2f}",
        f"{row.ratio_to_first:.2f}",
        span(row.ratio_interval),
        f"{row.load_ms:.0f}",
        "" if row.peak_rss_mb is None else f"{row.peak_rss_mb:.0f}",
        "" if row.private_mb is None else f"{row.private_mb:.1f}",
        "" if row.arena_mb is None else f"{row.arena_mb:.1f}",
        "" if row.energy is None else f"{row.energy.joules_per_run * 1e3:.1f}",
        f"{row.size_bytes / 1e6:.1f}",
    )


def span(interval: Interval | None) -> str:
    """An interval's low and high end."""
    return "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


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
    keys = list(dict.fromkeys(described(row) for report in reports for row in report.rows))
    shown = [index for index in range(len(HEADERS)) if index < _ALWAYS_SHOWN or len({key[index] for key in keys}) > 1]
    table = Table(title="medians, ms", box=SIMPLE_HEAD)
    for index in shown:
        table.add_column(HEADERS[index], no_wrap=index == 0)
    for report in reports:
        table.add_column(report.on, justify="right")
    found = [{described(row): f"{row.latency_ms.median:.2f}" for row in report.rows} for report in reports]
    for key in keys:
        table.add_row(*(key[index] for index in shown), *(medians.get(key, "") for medians in found))
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
