"""What is made of reports besides a table: a picture and a page, each written whole or not at all."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from edgeformer_runtime.bench.report import Report
from edgeformer_runtime.bundle.folder import bundle_around
from edgeformer_runtime.delivery import check_file, check_names, replacing
from edgeformer_runtime.errors import InputError

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
        bundle = bundle_around(file)
        if bundle is not None:
            raise InputError(f"{file} lies in the bundle {bundle.name}, which it would spoil: name a place outside")
        if importlib.util.find_spec("matplotlib") is None:
            raise InputError("pictures need matplotlib: pip install 'edgeformer[peers]'")


def write_outputs(reports: Sequence[Report], plot: Path | None, html: Path | None) -> None:
    """Write the picture and the page that are asked for; an existing file is replaced."""
    if plot is not None:
        from edgeformer.bench.picture import draw

        with replacing(plot) as fresh:
            draw(reports, fresh)
    if html is not None:
        from edgeformer.bench.page import page

        with replacing(html) as fresh:
            fresh.write_text(page(reports), encoding="utf-8")
