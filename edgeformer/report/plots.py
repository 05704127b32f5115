"""The report's pictures as SVG that stands in a page: real text, and colours that follow the page's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgeformer.compress.budget.sensitivity import Sensitivity
from edgeformer.report.inline_svg import INK, empty_figure, inline_svg
from edgeformer.report.point_names import label_points, short_names
from edgeformer.report.variant import Variant, pareto

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
        axes.set_xlim(left=0)
        axes.margins(x=0.25)
        axes.set_ylabel("word errors, %" if shown[0].metric == "wer" else f"{shown[0].metric}, %")
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
