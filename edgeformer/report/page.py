"""A folder's report as one HTML file that needs no other: no script, no font, no address."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from edgeformer.compression.search import Change
from edgeformer.compression.sensitivity import Sensitivity
from edgeformer.report.collect import FolderReport, Variant, pareto
from edgeformer.report.plots import pareto_plot, sensitivity_plot
from edgeformer_runtime.delivery import replacing

_BEST = ' class="best"'
MOST_CHANGES = 200
"""Rows of a table of changed answers; more are counted."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { padding: .25rem .7rem; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
tr.best td:first-child { font-weight: 600; }
div.wide { overflow-x: auto; }
figure { margin: 1rem 0; }
svg { max-width: 100%; height: auto; }
pre { overflow-x: auto; border: 1px solid var(--line); padding: .7rem; font-size: .85rem; }
summary { cursor: pointer; }
@media print {
  body { margin: 0; max-width: none; font-size: 11px; }
  section { break-inside: avoid-page; }
  pre { white-space: pre-wrap; }
}
"""


def page(report: FolderReport) -> str:
    """The page's HTML. What comes from files stands in it as text, never as markup."""
    sections = [_overview(report)]
    sections += [_sensitivity(name, found) for name, found in report.sensitivities.items()]
    sections += [_changes(each) for each in report.variants if each.changes]
    sections += [_recipe(name, recipe) for name, recipe in report.recipes.items()]
    sections.append(_environment(report))
    title = escape(f"Compression report: {report.folder}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{title}</h1>\n{''.join(sections)}</main>\n</body>\n</html>\n"
    )


def write_page(report: FolderReport, file: Path) -> None:
    """Write the page beside its place and rename it; an existing file is replaced."""
    with replacing(file) as fresh:
        fresh.write_text(page(report), encoding="utf-8")


def _overview(report: FolderReport) -> str:
    best = {each.name for each in pareto(report.variants)}
    headers = ("variant", "target", "formats", "size", "metric", "value", "as the source", "latency", "note")
    rows = [(each.name in best, _cells(each)) for each in report.variants]
    lead = (
        "<p>Variants in bold are those to which no other is equal or better in quality, size and latency at once. "
        "Latencies are medians of one thread, comparable within one search or one run of this report.</p>\n"
    )
    metrics = dict.fromkeys(each.metric for each in report.variants if each.metric)
    plots = [pareto_plot([each for each in report.variants if each.metric == metric]) for metric in metrics]
    pictures = "".join(f"<figure>{plot}</figure>\n" for plot in plots if plot)
    pictures = pictures or "<p>No bundle's quality is known: give --data.</p>\n"
    return f"<section>\n<h2>Variants</h2>\n{lead}{pictures}{_table(headers, rows, numbers=(3, 5, 6, 7))}</section>\n"


def _cells(variant: Variant) -> tuple[str, ...]:
    percents = ["" if share is None else f"{share:.2%}" for share in (variant.value, variant.agreement)]
    return (
        variant.name,
        variant.target or "",
        variant.precision or "",
        "" if variant.size_bytes is None else f"{variant.size_bytes / 1e6:.2f} MB",
        variant.metric or "",
        *percents,
        "" if variant.latency_ms is None else f"{variant.latency_ms:.2f} ms",
        variant.note or "",
    )


def _sensitivity(name: str, found: Sensitivity) -> str:
    headers = ("layer", "format", "divergence", "same answers", f"{found.metric} lost", "saves")
    rows = [
        (
            False,
            (
                cost.layer,
                cost.format,
                f"{cost.reading.divergence:.2e}",
                f"{cost.reading.agreement:.2%}",
                f"{found.loss(cost):+.2%}",
                f"{(cost.fp32_bytes - cost.weight_bytes) / 1e3:,.1f} KB",
            ),
        )
        for cost in found.costs
    ]
    how = (
        "<p>What each layer costs when it alone has a format, imitated in torch as "
        f"{escape(found.target)} computes it, on {found.examples} examples; at fp32 the {escape(found.metric)} is "
        f"{found.reference.value:.2%}.</p>\n"
    )
    table = _table(headers, rows, numbers=(2, 3, 4, 5))
    return (
        f"<section>\n<h2>Sensitivity of {escape(name)}</h2>\n{how}<figure>{sensitivity_plot(name, found)}</figure>\n"
        f"<details><summary>All {len(rows)} measurements</summary>{table}</details></section>\n"
    )


def _changes(variant: Variant) -> str:
    """What answers became: for classes a table of pairs, for speech the texts."""
    changes = variant.changes or ()
    right = Counter(_kind(change) for change in changes)
    counted = ", ".join(f"{right[kind]} {kind}" for kind in _KINDS if right[kind])
    head = f"<h2>What changed in {escape(variant.name)}</h2>\n<p>{len(changes)} answers: {escape(counted)}.</p>\n"
    if variant.metric == "wer":
        rows = [(False, (each.example, each.truth, each.source, each.answer)) for each in changes[:MOST_CHANGES]]
        table = _table(("clip", "said", "heard at fp32", "heard by this"), rows)
        left = len(changes) - len(rows)
    else:
        pairs = Counter((change.truth, change.source, change.answer) for change in changes)
        most = pairs.most_common(MOST_CHANGES)
        rows = [(False, (*pair, str(count))) for pair, count in most]
        table = _table(("right answer", "at fp32", "by this", "examples"), rows, numbers=(3,))
        left = len(pairs) - len(rows)
    more = f"<p>{left} more rows are in --json.</p>\n" if left > 0 else ""
    return f"<section>\n{head}{table}{more}</section>\n"


_KINDS = ("right before, wrong now", "wrong before, right now", "wrong in another way")


def _kind(change: Change) -> str:
    if change.source == change.truth:
        return _KINDS[0]
    return _KINDS[1] if change.answer == change.truth else _KINDS[2]


def _recipe(name: str, recipe: dict[str, object]) -> str:
    text = escape(json.dumps(recipe, indent=1, ensure_ascii=False))
    return (
        f"<section>\n<h2>Recipe of {escape(name)}</h2>\n"
        f"<details><summary>edgeformer.json</summary><pre>{text}</pre></details></section>\n"
    )


def _environment(report: FolderReport) -> str:
    rows = [(False, pair) for pair in report.environment.items()]
    return f"<section>\n<h2>Environment of this report</h2>\n{_table(('what', 'version'), rows)}</section>\n"


def _table(headers: Sequence[str], rows: Iterable[tuple[bool, Sequence[str]]], numbers: Sequence[int] = ()) -> str:
    """A table of texts, whose columns `numbers` are aligned to the right; rows that are True stand out."""

    kinds = [' class="number"' if index in numbers else "" for index in range(len(headers))]

    def line(cells: Sequence[str], tag: str) -> str:
        closed = tag.split(" ")[0]
        return "".join(f"<{tag}{kind}>{escape(cell)}</{closed}>" for kind, cell in zip(kinds, cells, strict=True))

    body = [f"<tr{_BEST if best else ''}>{line(cells, 'td')}</tr>\n" for best, cells in rows]
    head = line(headers, 'th scope="col"')
    return f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>{"".join(body)}</tbody></table></div>\n'
