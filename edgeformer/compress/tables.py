"""What a compression came to, as a table."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from edgeformer.compress.budget.budget import describe, quantities
from edgeformer.compress.budget.chain import Chain
from edgeformer.compress.budget.search import format_counts
from edgeformer.compress.compress import Compressed
from edgeformer_runtime.cli.console import out


def print_compressed(compressed: Compressed) -> None:
    """A row for the source and one for each step, on stdout."""
    table = Table("step", "parameters", "zeros in linear layers", "loss", "accuracy", title=str(compressed.path))
    report = compressed.report
    table.add_row("source", *_sizes(report["before"]), "", "")
    for number, step in enumerate(report["steps"], 1):
        results = step["results"]
        name = f"{number} {step['kind']}"
        table.add_row(name, *_sizes(results), _number(results.get("loss")), _percent(results.get("accuracy")))
    out.print(table)


def _sizes(results: dict[str, Any]) -> tuple[str, str]:
    share = results["linear_zeros"] / max(1, results["linear_weights"])
    return f"{results['parameters']:,}", f"{share:.1%}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


# What a search for a budget came to, as a table.


def print_chain(chain: Chain) -> None:
    """A row for each bundle that was made, the chosen one marked, on stdout."""
    points = chain.found.points
    known = [name for name in quantities() if any(name in point.values for point in points)]
    title = f"{chain.path or 'not met'}, asked {chain.report['examples']} examples"
    table = Table("stage", "layers by format", *known, "of fp32's latency", "", title=title)
    for point in points:
        formats = format_counts(point.plan)
        ratio = (
            f"{point.values['latency'] / point.fp32_latency_ms:.2f}"
            if point.fp32_latency_ms and "latency" in point.values
            else ""
        )
        values = [describe(name, point.values[name]) if name in point.values else "" for name in known]
        mark = "chosen" if point is chain.found.best and chain.found.met else point.refused or ""
        table.add_row(point.stage, formats, *values, ratio, mark)
    out.print(table)
