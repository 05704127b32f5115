"""Converts a model to everything and times it beside its peers: what the text and vision benchmarks share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeformer.bench.peers import peer_contenders
from edgeformer.convert import Converted, ConvertOptions, convert, steps_of
from edgeformer.progress import Steps
from edgeformer.targets import REFERENCE_ENGINES
from edgeformer_runtime import records
from edgeformer_runtime.bench import Cell, Contender, bundle_contender, measure_cells
from edgeformer_runtime.bundle import Bundle

PEERS = ("onnxruntime", "openvino", "torch")
Inspect = Callable[[list[Contender], Bundle], dict[str, Any]]


def measure(
    title: str, options: ConvertOptions, rounds: int, inspect: Inspect | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Convert as asked, then time the bundles that run here, the first of them as the base of ratios, and the peers.

    Args:
        title: of the model, for the README.
        options: what to convert.
        rounds: how often the contenders take turns.
        inspect: what else is to be found out about the contenders while their files exist; it gets them and the first
            bundle.

    Returns:
        The model's entry in the results, and what `inspect` found.
    """
    with Steps(steps_of(options)) as steps:
        bundles = convert(options, steps)
    runnable = [row for row in bundles if row.ok and row.target not in REFERENCE_ENGINES]
    with tempfile.TemporaryDirectory() as work, Bundle.open(runnable[0].path) as first:
        contenders = [bundle_contender(row.path) for row in runnable]
        contenders += peer_contenders(PEERS, first, options.source, Path(work))
        found = {} if inspect is None else inspect(contenders, first)
        report = measure_cells([Cell(tuple(contenders))], rounds)
    model = {
        "title": title,
        "bundles": [_without_path(row) for row in bundles],
        "rows": records.to_data(report.rows),
    }
    return model, found


def _without_path(row: Converted) -> dict[str, Any]:
    """The row, less the temporary path that it was written to."""
    return {key: value for key, value in row.to_json().items() if key != "path"}
