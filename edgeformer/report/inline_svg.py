"""Pictures as SVG that stands in a page: real text, and colours that follow the page's."""

from __future__ import annotations

import io
import logging
import re
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GROUPS = r"figure|axes|patch|text|line2d|xtick|ytick|matplotlib\.axis|legend|PathCollection|LineCollection"
INK = "#123457"
"""Stands for the page's own colour of text until the SVG is finished."""


def empty_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, without a background."""
    # It tells of its cache of fonts.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    return figure


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """A figure as an SVG element; `name` tells it from other pictures in the page, `description` is read aloud."""
    import matplotlib.text

    figure.patch.set_alpha(0)
    for text in figure.findobj(matplotlib.text.Text):
        text.set_color(INK)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
        axes.tick_params(colors=INK, which="both")
        legend = axes.get_legend()
        if legend is not None:
            legend.get_frame().set_alpha(0)
        for spine in axes.spines.values():
            spine.set_color(INK)
    file = io.StringIO()
    # Names of clips and markers come from the salt: those of two pictures in a page must differ, those of two runs not.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = file.getvalue()
    # Black is matplotlib's own ink, of whiskers for one.
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor").replace("#000000", "currentColor")
    # Its groups are called axes_1, text_2 and so on in every picture, and nothing refers to them.
    svg = re.sub(rf' id="(?:{_GROUPS})_?[^"]*"', "", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(description, quote=True)}"', 1)
