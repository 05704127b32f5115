"""A folder's report as one HTML file that needs no other: no script, no font, no address."""

from __future__ import annotations

import json
from collections import Counter
from html import escape
from pathlib import Path

from edgeformer.compress.budget.search import Change
from edgeformer.compress.budget.sensitivity import Sensitivity, cost_cells
from edgeformer.report.collect import FolderReport
from edgeformer.report.html_page import document, table
from edgeformer.report.plots import pareto_plot, sensitivity_plot
from edgeformer.report.variant import Variant, pareto
from edgeformer_runtime.delivery import replacing
from edgeformer_runtime.path_field import StrPath

MOST_CHANGES = 200
"""Rows of a table of changed answers; more are counted."""


def page(report: FolderReport) -> str:
    """The page's HTML. What comes from files stands in it as text, never as markup."""
    sections = [_overview(report)]
    sections += [_sensitivity(name, found) for name, found in report.sensitivities.items()]
    sections += [_changes(each) for each in report.variants if each.changes]
    sections += [_recipe(name, recipe) for name, recipe in report.recipes.items()]
    sections.append(_environment(report))
    return document(f"Compression report: {report.folder}", "".join(sections))


def write_page(report: FolderReport, file: StrPath) -> None:
    """Write the page beside its place and rename it; an existing file is replaced."""
    with replacing(Path(file)) as fresh:
        fresh.write_text(page(report), encoding="utf-8")


def _overview(report: FolderReport) -> str:
    """A table, and for each group of variants that may be compared a picture."""
    best = {id(each) for each in pareto(report.variants)}
    headers = (
        "variant",
        "target",
        "formats",
        "size",
        "metric",
        "value",
        "95 %",
        "n",
        "as the source",
        "latency",
        "note",
    )
    lines = [_cells(each) for each in report.variants]
    lead = (
        "<p>Variants in bold are those to which no other is equal or better in quality, size and latency at once, of "
        "those that were asked the same in one run or search: others are not compared. Latencies are medians of one "
        "thread. The column 95 % holds the value with that certainty; the source is the checkpoint itself, in torch. "
        "At fp32 and fp16 a bundle's answers are proved to be the checkpoint's; below, its conversion's gates allow "
        "what they say to be lost.</p>\n"
    )
    noted = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    groups = dict.fromkeys((each.metric, each.group) for each in report.variants if each.metric)
    pictures = "".join(_picture(report, *group) for group in groups)
    pictures = pictures or "<p>No bundle's quality is known: give --data.</p>\n"
    rows = table(headers, lines, numbers=(3, 5, 6, 7, 8, 9), best=[id(each) in best for each in report.variants])
    notes = f"<ul>{noted}</ul>\n" if noted else ""
    return f'<section>\n<h2>Variants</h2>\n{lead}{notes}<div class="figures">{pictures}</div>\n{rows}</section>\n'


def _picture(report: FolderReport, metric: str | None, group: str) -> str:
    """Of one group, or nothing."""
    plot = pareto_plot([each for each in report.variants if (each.metric, each.group) == (metric, group)])
    caption = f"<figcaption>{escape(group)}</figcaption>" if group else ""
    return f"<figure>{plot}{caption}</figure>\n" if plot else ""


def _cells(variant: Variant) -> tuple[str, ...]:
    percents = ["" if share is None else f"{share:.2%}" for share in (variant.value, variant.agreement)]
    return (
        variant.name,
        variant.target or "",
        variant.precision or "",
        "" if variant.size_bytes is None else f"{variant.size_bytes / 1e6:.2f} MB",
        variant.metric or "",
        percents[0],
        "" if variant.interval is None else f"{variant.interval[0]:.1%} to {variant.interval[1]:.1%}",
        "" if variant.n is None else str(variant.n),
        percents[1],
        "" if variant.latency_ms is None else f"{variant.latency_ms:.2f} ms",
        variant.note or "",
    )


def _sensitivity(name: str, found: Sensitivity) -> str:
    headers = ("layer", "format", "divergence", "same answers", f"{found.metric} lost", "saves")
    rows = [cost_cells(found, cost) for cost in found.costs]
    how = (
        "<p>What each layer costs when it alone has a format, imitated in torch as "
        f"{escape(found.target)} computes it, on {found.examples} examples; at fp32 the {escape(found.metric)} is "
        f"{found.reference.value:.2%}.</p>\n"
    )
    costs = table(headers, rows, numbers=(2, 3, 4, 5))
    return (
        f"<section>\n<h2>Sensitivity of {escape(name)}</h2>\n{how}<figure>{sensitivity_plot(name, found)}</figure>\n"
        f"<details><summary>All {len(rows)} measurements</summary>{costs}</details></section>\n"
    )


def _changes(variant: Variant) -> str:
    """What answers became: for classes a table of pairs, for speech the texts."""
    changes = variant.changes or ()
    right = Counter(_kind(change) for change in changes)
    counted = ", ".join(f"{right[kind]} {kind}" for kind in _KINDS if right[kind])
    head = f"<h2>What changed in {escape(variant.name)}</h2>\n<p>{len(changes)} answers: {escape(counted)}.</p>\n"
    if variant.metric == "wer":
        rows = [(each.example, each.truth, each.source, each.answer) for each in changes[:MOST_CHANGES]]
        shown = table(("clip", "said", "heard at fp32", "heard by this"), rows)
        left = len(changes) - len(rows)
    else:
        pairs = Counter((change.truth, change.source, change.answer) for change in changes)
        most = pairs.most_common(MOST_CHANGES)
        rows = [(*pair, str(count)) for pair, count in most]
        shown = table(("right answer", "at fp32", "by this", "examples"), rows, numbers=(3,))
        left = len(pairs) - len(rows)
    more = f"<p>{left} more rows are in --json.</p>\n" if left > 0 else ""
    return f"<section>\n{head}{shown}{more}</section>\n"


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
    versions = table(("what", "version"), list(report.environment.items()))
    return f"<section>\n<h2>Environment of this report</h2>\n{versions}</section>\n"
