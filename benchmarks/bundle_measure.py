"""Converts a model to everything and times it beside its peers: what the text and vision benchmarks share."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.intervals import center, prediction_interval
from edgeformer.bench.command import peer_contenders
from edgeformer.convert.convert import ConvertOptions, convert
from edgeformer.convert.result import Converted
from edgeformer.convert.target import TARGETS
from edgeformer_runtime.bench.contender import Cell, Contender, bundle_contender
from edgeformer_runtime.bench.measure import measure_cells
from edgeformer_runtime.bench.report import Report, Row
from edgeformer_runtime.bundle.bundle import Bundle
from edgeformer_runtime.cli.console import Steps

PEERS = ("onnxruntime", "openvino", "torch")
REPEATS = 5
"""How often all processes are started anew, for the interval in which other runs find the ratios."""

Inspect = Callable[[list[Contender], Bundle], dict[str, Any]]


def measure(
    title: str, options: ConvertOptions, rounds: int, inspect: Inspect | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Convert as asked, then time the bundles that run here, the first of them as the base of ratios, and the peers.

    Args:
        title: of the model, for docs/benchmarks.md.
        options: what to convert.
        rounds: how often the contenders take turns, in each of `REPEATS` repeats.
        inspect: what else is to be found out about the contenders while their files exist; it gets them and the first
            bundle.

    Returns:
        The model's entry in the results, and what `inspect` found.
    """
    with Steps() as steps:
        bundles = convert(options, steps.at)
    runnable = [row for row in bundles if row.ok and TARGETS[row.target].format.reference_engine is None]
    with tempfile.TemporaryDirectory() as work, Bundle.open(runnable[0].path) as first:
        contenders = [bundle_contender(row.path) for row in runnable]
        contenders += peer_contenders(PEERS, first, options.source, Path(work))
        found = {} if inspect is None else inspect(contenders, first)
        reports = [measure_cells([Cell(tuple(contenders))], rounds) for _ in range(REPEATS)]
    model = {
        "title": title,
        "bundles": [without_path(row) for row in bundles],
        "rows": repeated(reports),
    }
    return model, found


def repeated(reports: Sequence[Report]) -> list[dict[str, Any]]:
    """The rows of a run's repeats as one: medians of their figures, and ratios with the interval for another run."""
    return [_repeated(rows, base) for base, rows in enumerate(zip(*(report.rows for report in reports), strict=True))]


def _repeated(rows: Sequence[Row], index: int) -> dict[str, Any]:
    ratios = [row.ratio_to_first for row in rows]
    latency = {
        "median": statistics.median(row.latency_ms.median for row in rows),
        "p90": statistics.median(row.latency_ms.p90 for row in rows),
        "runs": sum(row.latency_ms.runs for row in rows),
    }
    return {
        **{key: getattr(rows[0], key) for key in ("name", "engine", "precision", "program", "threads", "size_bytes")},
        "latency_ms": latency,
        "load_ms": statistics.median(row.load_ms for row in rows),
        "peak_rss_mb": statistics.median(row.peak_rss_mb or 0.0 for row in rows),
        "ratio_to_first": center(ratios),
        # The first one is what ratios refer to.
        "ratio_interval": prediction_interval(ratios) if index else None,
    }


def without_path(row: Converted) -> dict[str, Any]:
    """The row, less the temporary path that it was written to."""
    return {key: value for key, value in row.to_json().items() if key != "path"}
