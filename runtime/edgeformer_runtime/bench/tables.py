"""The tables that `bench` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from edgeformer_runtime.bench.device import State
from edgeformer_runtime.bench.report import Interval, Report, Row

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
