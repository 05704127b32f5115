"""Reports as one HTML file that needs no other: tables, a picture for each machine, and what to know of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from edgeformer.bench.picture import figure_of
from edgeformer.report.html_page import document, table
from edgeformer.report.inline_svg import inline_svg
from edgeformer_runtime.bench.report import Report
from edgeformer_runtime.bench.tables import FIGURES, HEADERS, described, device_line, figures, remarks

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
