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
from edgeformer_runtime.bench.report import Quantiles, Report, Row
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


def repeated(reports: Sequence[Report], of_processor: bool = False) -> list[dict[str, Any]]:
    """The rows of a run's repeats as one: medians of their figures, and ratios with the interval for another run.

    Args:
        reports: of each repeat, with the same rows.
        of_processor: tell the processor's time, in which one thread does not wait for other work of the machine.
    """
    firsts = [report.rows[0] for report in reports]
    columns = zip(*(report.rows for report in reports), strict=True)
    return [_repeated(rows, firsts, index, of_processor) for index, rows in enumerate(columns)]


def _repeated(rows: Sequence[Row], firsts: Sequence[Row], index: int, of_processor: bool) -> dict[str, Any]:
    times = [_time(row, of_processor) for row in rows]
    ratios = [row.ratio_to_first for row in rows]
    if of_processor:
        ratios = [time.median / _time(first, of_processor).median for time, first in zip(times, firsts, strict=True)]
    latency = {
        "median": statistics.median(time.median for time in times),
        "p90": statistics.median(time.p90 for time in times),
        "runs": sum(time.runs for time in times),
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


def _time(row: Row, of_processor: bool) -> Quantiles:
    return row.cpu_ms if of_processor and row.cpu_ms is not None else row.latency_ms


def without_path(row: Converted) -> dict[str, Any]:
    """The row, less the temporary path that it was written to."""
    return {key: value for key, value in row.to_json().items() if key != "path"}
