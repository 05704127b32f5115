"""A folder's report as one HTML file that needs no other: no script, no font, no address."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeformer.compress.budget.search import Change
from edgeformer.compress.budget.sensitivity import Sensitivity, cost_cells
from edgeformer.convert.lengths import ChosenLengths
from edgeformer.report.collect import FolderReport, Variant
from edgeformer.report.html_page import INK, document, empty_figure, inline_svg, table
from edgeformer.tasks.task import task_metrics
from edgeformer_runtime.delivery import replacing
from edgeformer_runtime.interface import StrPath

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CHANGES = 200
"""Rows of a table of changed answers; more are counted."""


def page(report: FolderReport) -> str:
    """The page's HTML. What comes from files stands in it as text, never as markup."""
    sections = [_overview(report)]
    sections += [_sensitivity(name, found) for name, found in report.sensitivities.items()]
    sections += [_lengths(each.name, each.lengths) for each in report.variants if each.lengths is not None]
    sections += [_changes(each) for each in report.variants if each.changes]
    sections += [_recipe(name, recipe) for name, recipe in report.recipes.items()]
    sections.append(_environment(report))
    return document(f"Compression report: {report.folder}", "".join(sections))


def write_page(report: FolderReport, file: StrPath) -> None:
    """Write the page beside its place and rename it; an existing file is replaced."""
    with replacing(Path(file)) as fresh:
        fresh.write_text(page(report), encoding="utf-8", errors="backslashreplace")


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
        "those that were asked the same in one run or search: others are not compared, nor is what gates refused. "
        "Latencies are medians of one thread. The column 95 % holds the value with that certainty; the source is the "
        "checkpoint itself, in torch. "
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


def _lengths(name: str, found: ChosenLengths) -> str:
    rows = [(str(length), str(count)) for length, count in zip(found.seq_lens, found.counts, strict=True)]
    cut = f" {found.cut} are longer and cut." if found.cut else ""
    how = (
        f"<p>The lengths were chosen for {sum(found.counts)} texts. Padding costs {found.padding:.1%} of what they "
        "cost without any, in a model of linear layers and attention, and with the target's default lengths "
        f"{found.default_padding:.1%}.{cut}</p>\n"
    )
    return (
        f"<section>\n<h2>Lengths of texts in {escape(name)}</h2>\n{how}<figure>{lengths_plot(name, found)}</figure>\n"
        f"{table(('tokens', 'texts'), rows, numbers=(0, 1))}</section>\n"
    )


def lengths_plot(name: str, found: ChosenLengths) -> str:
    """How many texts have so many tokens, and the lengths, as an SVG element."""
    figure = empty_figure(9.2, 2.4)
    axes = figure.subplots()
    tokens, counts = zip(*found.histogram, strict=True)
    axes.bar(tokens, counts, width=1, color="#0072b2")
    for length in found.seq_lens:
        axes.axvline(length, color="#e69f00", linewidth=1)
    axes.set_xlabel("tokens of a text; lines: the lengths of programs")
    axes.set_ylabel("texts")
    return inline_svg(figure, f"lengths-{name}", f"Histogram of the tokens of the texts that {name} was made for")


def _changes(variant: Variant) -> str:
    """What answers became: for classes a table of pairs, for speech the texts."""
    changes = variant.changes or ()
    right = Counter(_kind(change) for change in changes)
    counted = ", ".join(f"{right[kind]} {kind}" for kind in _KINDS if right[kind])
    count = f"{len(changes)} {'answer' if len(changes) == 1 else 'answers'}"
    head = f"<h2>What changed in {escape(variant.name)}</h2>\n<p>{count}: {escape(counted)}.</p>\n"
    metric = task_metrics().get(variant.metric or "")
    if metric is not None and metric.answers_are_texts:
        rows = [(each.example, each.truth, each.source, each.answer) for each in changes[:MOST_CHANGES]]
        shown = table(("clip", "reference", "hypothesis at fp32", "hypothesis of this"), rows)
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


# Which of several variants no other beats.


def pareto(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """Those to which no other of their group is equal or better in value, size and latency at once.

    What is unknown is not compared. Variants that gates refused, or without a value or a size, are never among them.
    """
    measured = [each for each in variants if each.value is not None and each.size_bytes is not None]
    complete = [each for each in measured if not each.refused]
    return tuple(each for each in complete if not any(_dominates(other, each) for other in complete))


def _dominates(one: Variant, other: Variant) -> bool:
    if one is other or (one.metric, one.group) != (other.metric, other.group):
        return False
    metric = task_metrics().get(one.metric or "")
    sign = 1 if metric is not None and metric.is_error else -1
    pairs: list[tuple[float, float]] = [
        (sign * value, sign * against)
        for value, against in ((one.value, other.value),)
        if value is not None and against is not None
    ]
    for mine, theirs in ((one.size_bytes, other.size_bytes), (one.latency_ms, other.latency_ms)):
        if mine is not None and theirs is not None:
            pairs.append((mine, theirs))
    return all(mine <= theirs for mine, theirs in pairs) and any(mine < theirs for mine, theirs in pairs)


# The report's pictures as SVG that stands in a page: real text, and colours that follow the page's.


# Okabe and Ito (2008): told apart by people who see colours differently; shapes tell them apart once more.
LOOKS = {"bundle": ("#0072b2", "o"), "search": ("#e69f00", "s")}
MOST_LAYERS = 30
MOST_NAMES = 24
"""At points of one picture; where there are more, only those that none beats bear theirs."""
PANEL_INCHES = (5.4, 3.4)

Of = Callable[[Variant], "float | None"]
"""What a panel's x axis shows of a variant."""


def pareto_plot(variants: Sequence[Variant]) -> str | None:
    """Quality over size, and over latency where any is known, as an SVG element; None where nothing has both.

    All variants are of one group and have one metric. Whiskers are the 95 % intervals of the metric.
    """
    shown = [each for each in variants if each.value is not None and each.size_bytes is not None]
    if not shown:
        return None
    panels: list[tuple[str, Of]] = [("size, MB", lambda each: (each.size_bytes or 0) / 1e6)]
    if any(each.latency_ms is not None for each in shown):
        panels.append(("latency, ms", lambda each: each.latency_ms))
    figure = empty_figure(PANEL_INCHES[0], PANEL_INCHES[1] * len(panels))
    grid: Any = figure.subplots(len(panels), 1, squeeze=False)
    best = {id(each) for each in pareto(shown)}
    for axes, (label, of) in zip(grid[:, 0], panels, strict=True):
        _scatter(axes, [each for each in shown if of(each) is not None], of, best)
        axes.set_xlabel(label)
        # From zero, with room for the names behind the largest point.
        axes.set_xlim(0, 1.25 * (max(of(each) or 0.0 for each in shown) or 1.0))
        metric = task_metrics().get(shown[0].metric or "")
        axes.set_ylabel(f"{shown[0].metric if metric is None else metric.noun}, %")
    grid[0, 0].legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    names = short_names([each.name for each in shown])
    figure.draw_without_rendering()
    for axes, (_, of) in zip(grid[:, 0], panels, strict=True):
        chosen = [index for index, each in enumerate(shown) if of(each) is not None]
        if len(chosen) > MOST_NAMES:
            chosen = [index for index in chosen if id(shown[index]) in best]
        label_points(
            axes, [(of(shown[index]) or 0.0, 100 * (shown[index].value or 0.0), names[index]) for index in chosen]
        )
    described = "; ".join(f"{each.name}: {_said(each)}" for each in shown)
    return inline_svg(
        figure, f"pareto-{shown[0].metric}-{shown[0].group}", f"Quality against size and latency. {described}"
    )


def sensitivity_plot(name: str, found: Sensitivity) -> str:
    """The costliest layers, a bar for each format, as an SVG element."""
    layers = list(dict.fromkeys(cost.layer for cost in found.costs))[:MOST_LAYERS]
    formats = sorted({cost.format for cost in found.costs})
    known = {(cost.layer, cost.format): cost.reading.divergence for cost in found.costs}
    figure = empty_figure(9.2, 1.2 + 0.22 * len(layers) * max(1, len(formats) * 0.6))
    axes = figure.subplots()
    height = 0.8 / len(formats)
    for number, (format_, color) in enumerate(zip(formats, ("#0072b2", "#e69f00", "#009e73"), strict=False)):
        places = [index + number * height for index in range(len(layers))]
        # Below a hundred-millionth nothing is told from rounding, and a logarithm has no zero.
        widths = [max(known.get((layer, format_), 0.0), 1e-8) for layer in layers]
        axes.barh(places, widths, height=height, color=color, label=format_)
    axes.set_yticks([index + 0.4 - height / 2 for index in range(len(layers))], layers, fontsize="x-small")
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("divergence from fp32, nats per answer")
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.legend(fontsize="small", framealpha=0)
    return inline_svg(
        figure, f"sensitivity-{name}", f"Divergence from fp32 of the costliest layers of {name}, as in the table"
    )


def _scatter(axes: Axes, variants: Sequence[Variant], of: Of, best: set[int]) -> None:
    for kind, (color, marker) in LOOKS.items():
        chosen = [each for each in variants if each.kind == kind]
        if not chosen:
            continue
        x, y = [of(each) or 0.0 for each in chosen], [100 * (each.value or 0.0) for each in chosen]
        axes.scatter(x, y, c=color, marker=marker, s=36, label="points of searches" if kind == "search" else "bundles")
        spans = [(each.value or 0.0, each.interval or (each.value or 0.0, each.value or 0.0)) for each in chosen]
        below = [100 * max(0.0, value - low) for value, (low, _) in spans]
        above = [100 * max(0.0, high - value) for value, (_, high) in spans]
        axes.errorbar(x, y, yerr=[below, above], fmt="none", ecolor=color, elinewidth=0.8, capsize=2, alpha=0.6)
    front = [each for each in variants if id(each) in best]
    axes.scatter(
        [of(each) or 0.0 for each in front],
        [100 * (each.value or 0.0) for each in front],
        s=130,
        facecolors="none",
        edgecolors=INK,
        label="none is better in all",
    )
    axes.grid(visible=True, alpha=0.3)


def _said(variant: Variant) -> str:
    latency = "" if variant.latency_ms is None else f", {variant.latency_ms:.2f} ms"
    return f"{variant.metric} {variant.value or 0:.2%}, {(variant.size_bytes or 0) / 1e6:.2f} MB{latency}"


# Names beside the points of a picture, so that none lies on another.


FONT_POINTS = 7.0
LONGEST = 34
_WIDTH, _HEIGHT = 0.56, 1.25
"""Of a letter and of a line, in units of the font's size: what a sans serif takes at most, nearly."""
_GAP_POINTS = 6.0

Box = tuple[float, float, float, float]
"""Left, bottom, right, top in points."""


def short_names(names: Sequence[str]) -> list[str]:
    """Names without what all begin with, up to a dot, a slash or a colon; long ones are cut in the middle."""
    first, last = min(names), max(names)
    # What these two begin with, all in between do; a single name is shown whole.
    count = next((index for index, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), None)
    common = "" if first == last else first[: len(first) if count is None else count]
    start = max(common.rfind(mark) for mark in "./:") + 1
    return [_cut(name[start:].strip()) for name in names]


def _cut(name: str) -> str:
    half = (LONGEST - 3) // 2
    return name if len(name) <= LONGEST else f"{name[:half]}...{name[-half:]}"


def label_points(axes: Axes, points: Sequence[tuple[float, float, str]]) -> None:
    """Write each name (x, y, name) beside its point, where it meets the least of what is there; the layout is done."""
    figure = axes.figure
    assert figure is not None
    scale = 72 / figure.dpi
    inside = axes.get_window_extent()
    frame: Box = (inside.x0 * scale, inside.y0 * scale, inside.x1 * scale, inside.y1 * scale)
    places = [tuple(scale * axes.transData.transform((x, y))) for x, y, _ in points]
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    for (x, y), (_, _, name) in sorted(zip(places, points, strict=True), key=lambda pair: pair[0][::-1]):
        box = min(_candidates(x, y, name), key=lambda each: _cost(each, (x, y), taken, frame))
        taken.append(box)
        left, bottom = box[0] - x, (box[1] + box[3]) / 2 - y
        moved = abs(bottom) > _HEIGHT * FONT_POINTS
        axes.annotate(
            name,
            (x / scale, y / scale),
            xycoords="figure pixels",
            xytext=(left, bottom),
            textcoords="offset points",
            va="center",
            fontsize=FONT_POINTS,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "alpha": 0.5} if moved else None,
        ).set_in_layout(False)


def _candidates(x: float, y: float, name: str) -> list[Box]:
    """Right and left of the point, and lines above and below."""
    width, height = _WIDTH * FONT_POINTS * len(name), _HEIGHT * FONT_POINTS
    return [
        (left, y + lines * height - height / 2, left + width, y + lines * height + height / 2)
        for lines in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5)
        for left in (x + _GAP_POINTS, x - _GAP_POINTS - width, x - width / 2)
        if lines or left != x - width / 2
    ]


def _cost(box: Box, point: tuple[float, float], taken: Sequence[Box], frame: Box) -> float:
    """What of a name would lie on others or outside the frame, and a little for its distance."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    outside = area - _shared(box, frame)
    distance = abs((box[1] + box[3]) / 2 - point[1]) + (box[0] < point[0]) * 0.5
    return 10 * outside + sum(_shared(box, other) for other in taken) + 0.1 * distance


def _shared(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, width) * max(0.0, height)
