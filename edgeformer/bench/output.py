"""What is made of reports besides a table: a picture and a page, each written whole or not at all."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeformer.report.html_page import document, inline_svg, table
from edgeformer_runtime.bench.report import FIGURES, HEADERS, Report, Row, described, device_line, figures, remarks
from edgeformer_runtime.bundle.folder import check_outside
from edgeformer_runtime.delivery import check_file, check_names, replacing
from edgeformer_runtime.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg")


def check_outputs(plot: Path | None, html: Path | None) -> None:
    """Refuse files that could not be written, before anything is measured for them.

    Raises:
        InputError: a picture of another kind, a place that is missing, a folder, inside a bundle or no UTF-8, or no
            matplotlib.
    """
    if plot is not None and plot.suffix not in PICTURES:
        raise InputError(f"expected --plot as a file that ends in {' or '.join(PICTURES)}, found {plot}")
    check_names(plot, html)
    for file in (plot, html):
        if file is None:
            continue
        check_file(file)
        if not file.resolve().parent.is_dir():
            raise InputError(f"no folder {file.parent} for {file.name}: make it first")
        check_outside(file)
        if importlib.util.find_spec("matplotlib") is None:
            raise InputError("pictures need matplotlib: pip install 'edgeformer[peers]'")


def write_outputs(reports: Sequence[Report], plot: Path | None, html: Path | None) -> None:
    """Write the picture and the page that are asked for; an existing file is replaced."""
    if plot is not None:
        with replacing(plot) as fresh:
            draw(reports, fresh)
    if html is not None:
        with replacing(html) as fresh:
            fresh.write_text(page(reports), encoding="utf-8", errors="backslashreplace")


# Reports as one HTML file that needs no other: tables, a picture for each machine, and what to know of it.


PICTURE_INCHES = 6.5


def page(reports: Sequence[Report]) -> str:
    """The page's HTML. What comes from other machines stands in it as text, never as markup."""
    parts = [_medians(reports)] if len(reports) > 1 else []
    parts += [_section(report) for report in reports]
    return document("edgeformer bench", "".join(parts))


def _section(report: Report) -> str:
    lines = [(*described(row), *figures(row)) for row in report.rows]
    known = ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))
    how = f"{report.rounds} interleaved rounds; " if report.rounds else ""
    notes = "".join(f"<li>{escape(remark)}</li>" for remark in remarks(report))
    return (
        f"<h2>{escape(report.on)}</h2>\n<p>{escape(device_line(report))}</p>\n"
        f"{_table((*HEADERS, *FIGURES), lines)}"
        f"<p>{how}intervals hold the figure with {report.confidence:.0%}. Versions: {escape(known)}.</p>\n"
        f"<ul>{notes}</ul>\n{_picture(report)}"
    )


def _medians(reports: Sequence[Report]) -> str:
    """Every contender's median on every machine."""
    found = [{described(row): f"{row.latency_ms.median:.2f}" for row in report.rows} for report in reports]
    keys = dict.fromkeys(key for medians in found for key in medians)
    lines = [(*key, *(medians.get(key, "") for medians in found)) for key in keys]
    headers = (*HEADERS, *(report.on for report in reports))
    return f"<h2>Medians, ms</h2>\n{_table(headers, lines)}"


def _table(headers: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table whose columns behind `HEADERS` are numbers."""
    return table(headers, lines, numbers=range(len(HEADERS), len(headers)))


def _picture(report: Report) -> str:
    figure = figure_of([report], PICTURE_INCHES)
    return f"<figure>{inline_svg(figure, f'bench-{report.on}', 'Medians and intervals of the table')}</figure>\n"


# Reports as a picture: a bar per row with its interval, or a line per contender over what was swept.


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
