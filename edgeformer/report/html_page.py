"""Pages as one HTML file that needs no other: no script, no font, no address; for screens, phones, the dark, paper.

What comes from files and other machines stands in a page as text, never as markup.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from edgeformer_runtime.bundle.folder import bundle_around
from edgeformer_runtime.interface import StrPath

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONG_WORD = 12
_MARK = re.compile(r"([._/:-]|[^._/:-]{12})(?=.)")
"""Behind what a long word may be broken: a mark, or else every so many letters."""


def page_of(folder: StrPath) -> Path:
    """Where a folder's page goes: into it, and of a bundle beside it, as another file would corrupt a bundle."""
    folder = Path(folder)
    bundle = bundle_around(folder)
    return folder / "report.html" if bundle is None else bundle.with_name(f"{bundle.name}.report.html")


def document(title: str, body: str) -> str:
    """A whole page around its body, which is markup."""
    name, style = escape(title), Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n<h1>{name}</h1>\n{body}</main>\n</body>\n</html>\n"
    )


def table(
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Sequence[int] = (),
    best: Sequence[bool] = (),
) -> str:
    """A table of texts; on narrow screens each row is a card. Columns that are empty everywhere are left out.

    Args:
        headers: of the columns.
        rows: their cells.
        numbers: the columns that hold numbers.
        best: for each row whether it stands out; empty: none does.
    """
    lines = list(rows)
    shown = [index for index in range(len(headers)) if not lines or any(line[index] for line in lines)]
    kinds = {index: ' class="number"' if index in numbers else "" for index in shown}
    head = "".join(f'<th scope="col"{kinds[index]}>{escape(headers[index])}</th>' for index in shown)
    body = []
    for number, line in enumerate(lines):
        cells = "".join(
            f'<td{kinds[index]} data-label="{escape(headers[index], quote=True)}">{_breakable(line[index])}</td>'
            for index in shown
        )
        stands_out = ' class="best"' if best and best[number] else ""
        body.append(f"<tr{stands_out}>{cells}</tr>\n")
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>{''.join(body)}</tbody></table>\n"


def _breakable(text: str) -> str:
    """A cell's text; its long words may be broken, best behind a mark, so that a table fits its page."""
    words = (escape(_MARK.sub(r"\1\0", word)) if len(word) > LONG_WORD else escape(word) for word in text.split(" "))
    return " ".join(words).replace("\0", "<wbr>")


# Pictures as SVG that stands in a page: real text, and colours that follow the page's.


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
