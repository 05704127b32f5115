"""Reports as one HTML file that needs no other: tables, a picture for each machine, and what to know of it."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from edgeformer.bench.picture import draw
from edgeformer_runtime.bench.report import Report
from edgeformer_runtime.bench.tables import FIGURES, HEADERS, described, device_line, figures, remarks

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .7rem; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap; }
td.number, th.number { text-align: right; }
div.wide { overflow-x: auto; }
img { max-width: 100%; }
"""


def page(reports: Sequence[Report]) -> str:
    """The page's HTML. What comes from other machines stands in it as text, never as markup."""
    parts = [_medians(reports)] if len(reports) > 1 else []
    parts += [_section(report) for report in reports]
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>edgeformer bench</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>edgeformer bench</h1>\n{''.join(parts)}</body>\n</html>\n"
    )


def _section(report: Report) -> str:
    lines = [(*described(row), *figures(row)) for row in report.rows]
    known = ", ".join(f"{name} {version}" for name, version in sorted(report.versions.items()))
    how = f"{report.rounds} interleaved rounds; " if report.rounds else ""
    notes = "".join(f"<li>{escape(remark)}</li>" for remark in remarks(report))
    return (
        f"<h2>{escape(report.on)}</h2>\n<p>{escape(device_line(report))}</p>\n"
        f"{_table((*HEADERS, *FIGURES), lines, len(HEADERS))}"
        f"<p>{how}intervals hold the figure with {report.confidence:.0%}. Versions: {escape(known)}.</p>\n"
        f"<ul>{notes}</ul>\n{_picture(report)}"
    )


def _medians(reports: Sequence[Report]) -> str:
    """Every contender's median on every machine."""
    found = [{described(row): f"{row.latency_ms.median:.2f}" for row in report.rows} for report in reports]
    keys = dict.fromkeys(key for medians in found for key in medians)
    lines = [(*key, *(medians.get(key, "") for medians in found)) for key in keys]
    headers = (*HEADERS, *(report.on for report in reports))
    return f"<h2>Medians, ms</h2>\n{_table(headers, lines, len(HEADERS))}"


def _table(headers: Sequence[str], lines: Iterable[Sequence[str]], texts: int) -> str:
    """A table whose first `texts` columns are texts and whose others are numbers."""

    def row(cells: Sequence[str], tag: str) -> str:
        kinds = ["" if index < texts else ' class="number"' for index in range(len(cells))]
        return "<tr>" + "".join(f"<{tag}{k}>{escape(c)}</{tag}>" for k, c in zip(kinds, cells, strict=True)) + "</tr>\n"

    return (
        f'<div class="wide"><table>\n{row(headers, "th")}{"".join(row(line, "td") for line in lines)}</table></div>\n'
    )


def _picture(report: Report) -> str:
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "picture.svg"
        draw([report], file)
        data = base64.b64encode(file.read_bytes()).decode()
    return f'<p><img alt="Medians and intervals of the table" src="data:image/svg+xml;base64,{data}"></p>\n'
