"""Reports as a picture: a bar per row with its interval, or a line per contender over what was swept."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeformer_runtime.bench.report import Report, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH_INCHES = 9.0
_BAR_INCHES = 0.28
_LINES_INCHES = 4.5
_FRAME_INCHES = 1.2
_DPI = 120


def draw(reports: Sequence[Report], file: Path) -> None:
    """Draw all reports, one below the other, in the format that the file's name says."""
    figure = figure_of(reports)
    # Without a date, so that equal reports give equal files.
    figure.savefig(file, dpi=_DPI, bbox_inches="tight", metadata={"Date": None} if file.suffix == ".svg" else None)
    figure.clear()


def swept(report: Report) -> str | None:
    """Which condition changes along the rows, of those that have numbers; None: none, or several."""
    changing = [name for name in ("threads", "batch") if len({getattr(row, name) for row in report.rows}) > 1]
    programs = len({row.program for row in report.rows if row.bundle_sha256}) > 1
    return changing[0] if len(changing) == 1 and not programs else None


def figure_of(reports: Sequence[Report], width_inches: float = _WIDTH_INCHES) -> Figure:
    """All reports, one below the other."""
    # It tells of its cache of fonts.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [_FRAME_INCHES + (_LINES_INCHES if swept(each) else _BAR_INCHES * len(each.rows)) for each in reports]
    figure = Figure(figsize=(width_inches, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    grid: Any = figure.subplots(len(reports), squeeze=False, height_ratios=heights)
    for axes, report in zip(grid[:, 0], reports, strict=True):
        condition = swept(report)
        if condition is None:
            _bars(axes, report)
        else:
            _lines(axes, report, condition)
        axes.set_title(report.on, fontsize="medium", loc="left")
    return figure


def _bars(axes: Axes, report: Report) -> None:
    rows = report.rows[::-1]  # the first one on top
    medians = [row.latency_ms.median for row in rows]
    axes.barh(range(len(rows)), medians, xerr=_whiskers(rows), capsize=2, color="#4c78a8", height=0.7)
    axes.set_yticks(range(len(rows)), [label(row, report) for row in rows], fontsize="small")
    axes.set_xlabel("median of a run and its 95% interval, ms")
    axes.set_xlim(left=0)
    axes.grid(visible=True, axis="x", alpha=0.3)


def _lines(axes: Axes, report: Report, condition: str) -> None:
    names = dict.fromkeys((row.name, row.precision) for row in report.rows)
    for name, precision in names:
        rows = [row for row in report.rows if (row.name, row.precision) == (name, precision)]
        axes.errorbar(
            [getattr(row, condition) for row in rows],
            [row.latency_ms.median for row in rows],
            yerr=_whiskers(rows),
            marker=".",
            capsize=2,
            label=f"{name} {precision}",
        )
    axes.set(xlabel=condition, ylabel="median of a run and its 95% interval, ms")
    axes.set_xticks(sorted({getattr(row, condition) for row in report.rows}))
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")


def label(row: Row, report: Report) -> str:
    """A row in few words: its name, and what differs between rows of that name."""
    parts = [row.name]
    if not row.name.endswith(row.precision):
        parts.append(row.precision)
    for name, unit in (("program", ""), ("batch", "batch "), ("threads", "threads ")):
        if len({getattr(each, name) for each in report.rows}) > 1:
            parts.append(f"{unit}{getattr(row, name)}")
    return ", ".join(parts)


def _whiskers(rows: Sequence[Row]) -> list[list[float]] | None:
    """How far the intervals reach below and above the medians; None where a row has none."""
    spans = [(row.latency_ms.median, row.latency_ms.median_interval) for row in rows]
    known = [(median, interval) for median, interval in spans if interval is not None]
    if len(known) < len(rows):
        return None
    below = [max(0.0, median - interval[0]) for median, interval in known]
    above = [max(0.0, interval[1] - median) for median, interval in known]
    return [below, above]
