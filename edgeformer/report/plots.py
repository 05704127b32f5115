"""The report's pictures as SVG that stands in a page: real text, and colours that follow the page's."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from edgeformer.compression.sensitivity import Sensitivity
from edgeformer.report.collect import Variant, pareto

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#123457"
"""Stands for the page's own colour of text until the SVG is finished."""
# Okabe and Ito (2008): told apart by people who see colours differently; shapes tell them apart once more.
LOOKS = {"bundle": ("#0072b2", "o"), "search": ("#e69f00", "s")}
MOST_LAYERS = 30


def pareto_plot(variants: Sequence[Variant]) -> str | None:
    """Quality over size, and over latency where any is known, as an SVG element; None where nothing has both.

    All variants have one metric.
    """
    shown = [each for each in variants if each.value is not None and each.size_bytes is not None]
    if not shown:
        return None
    panels: list[tuple[str, Any]] = [("size, MB", lambda each: each.size_bytes / 1e6)]
    if any(each.latency_ms is not None for each in shown):
        panels.append(("latency, ms", lambda each: each.latency_ms))
    figure = _figure(4.6 * len(panels), 3.8)
    grid: Any = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    best = {id(each) for each in pareto(shown)}
    for axes, (label, of) in zip(grid[0], panels, strict=True):
        _scatter(axes, [each for each in shown if of(each) is not None], of, best)
        axes.set_xlabel(label)
        axes.set_xlim(left=0)
    grid[0][0].set_ylabel("word errors, %" if shown[0].metric == "wer" else f"{shown[0].metric}, %")
    grid[0][0].legend(fontsize="small", labelcolor=INK, framealpha=0)
    described = "; ".join(f"{each.name}: {_said(each)}" for each in shown)
    return _svg(figure, f"pareto-{shown[0].metric}", f"Quality against size and latency. {described}")


def sensitivity_plot(name: str, found: Sensitivity) -> str:
    """The costliest layers, a bar for each format, as an SVG element."""
    layers = list(dict.fromkeys(cost.layer for cost in found.costs))[:MOST_LAYERS]
    formats = sorted({cost.format for cost in found.costs})
    known = {(cost.layer, cost.format): cost.reading.divergence for cost in found.costs}
    figure = _figure(9.2, 1.2 + 0.22 * len(layers) * max(1, len(formats) * 0.6))
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
    axes.legend(fontsize="small", labelcolor=INK, framealpha=0)
    return _svg(
        figure, f"sensitivity-{name}", f"Divergence from fp32 of the costliest layers of {name}, as in the table"
    )


def _scatter(axes: Axes, variants: Sequence[Variant], of: Any, best: set[int]) -> None:
    for kind, (color, marker) in LOOKS.items():
        chosen = [each for each in variants if each.kind == kind]
        if not chosen:
            continue
        x, y = [of(each) for each in chosen], [100 * (each.value or 0.0) for each in chosen]
        axes.scatter(x, y, c=color, marker=marker, s=36, label="points of searches" if kind == "search" else "bundles")
    front = [each for each in variants if id(each) in best]
    axes.scatter(
        [of(each) for each in front],
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


def _figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, without a background."""
    # It tells of its cache of fonts.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    return figure


def _svg(figure: Figure, name: str, description: str) -> str:
    import matplotlib

    for axes in figure.axes:
        axes.patch.set_alpha(0)
        axes.tick_params(colors=INK, which="both")
        axes.xaxis.label.set_color(INK)
        axes.yaxis.label.set_color(INK)
        for spine in axes.spines.values():
            spine.set_color(INK)
    file = io.StringIO()
    # Names of clips and markers come from the salt: those of two pictures in a page must differ, those of two runs not.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # Its groups are called axes_1, text_2 and so on in every picture, and nothing refers to them.
    text = re.sub(
        r' id="(?:figure|axes|patch|text|line2d|xtick|ytick|matplotlib\.axis|legend|PathCollection)_?[^"]*"', "", text
    )
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(description, quote=True)}"', 1)
